"""The kernel's text parsers, with their quirks: what an attribute accepts is decided here and nowhere else.

The rules are those of lib/cmdline.c, lib/kstrtox.c and lib/string_helpers.c, checked against the answers of Linux
7.3.4. All functions take the text as it was written to the attribute; a NUL ends it, as it ends a C string.
"""

from __future__ import annotations

from .errors import InvalidValue, OutOfRange

_U64 = (1 << 64) - 1
_DIGITS = {character: value for value, character in enumerate("0123456789abcdef")}
_DIGITS |= {character.upper(): value for character, value in _DIGITS.items()}
_SPACES = frozenset(" \t\n\v\f\r")
_SUFFIX_SHIFT = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def _c_string(text: str) -> str:
    return text.partition("\0")[0]


def _radix(text: str, base: int) -> tuple[int, int]:
    """The base to read in and the length of its prefix; base 0 asks for what the prefix says."""
    hexadecimal = text[:2].lower() == "0x"
    if base == 0:
        if text[:1] != "0":
            return 10, 0
        base = 16 if hexadecimal and text[2:3] in _DIGITS else 8
    return base, 2 if base == 16 and hexadecimal else 0


def _digits(text: str, start: int, base: int) -> tuple[int, int]:
    """The unlimited value of the digits at `start`, and where they end."""
    value = 0
    position = start
    for character in text[start:]:
        digit = _DIGITS.get(character, base)
        if digit >= base:
            break
        value = value * base + digit
        position += 1
    return value, position


# Sizes ------------------------------------------------------------------------------------------------------------


def memparse_rest(text: str) -> tuple[int, str]:
    """The size at the start of `text` in bytes, and the text after it; nothing was read when that is all of `text`.

    Decimal, 0x hexadecimal or 0 octal, then at most one of K M G T P E in either case. The value is a u64 that wraps.
    """
    text = _c_string(text)
    base, start = _radix(text, 0)
    value, end = _digits(text, start, base)
    shift = _SUFFIX_SHIFT.get(text[end : end + 1].lower(), 0)
    if shift:
        value <<= shift
        end += 1
    return value & _U64, text[end:]


def memparse(text: str) -> int:
    """The size at the start of `text` in bytes, whatever follows it; 0 when there is none."""
    return memparse_rest(text)[0]


def memparse_checked(text: str) -> int:
    """`memparse` for an attribute that tells 0 from no number. Raises InvalidValue (EINVAL) when nothing was read."""
    value, rest = memparse_rest(text)
    if rest == _c_string(text):
        raise InvalidValue(
            f"{text!r} is not a size", hint="a number of bytes, or one with K, M, G, T, P or E behind it"
        )
    return value


# Numbers ----------------------------------------------------------------------------------------------------------


def kstrto(text: str, base: int = 10, bits: int = 64, signed: bool = False) -> int:
    """The number that is all of `text`, but for a leading '+' (or '-' if `signed`) and one newline at the end.

    Base 0 reads a 0x or 0 prefix. Raises OutOfRange (ERANGE) when it does not fit in `bits`, InvalidValue (EINVAL)
    for anything that is not a number. As in the kernel, digits that overflow 64 bits are ERANGE whatever follows.
    """
    body = _c_string(text)
    negative = signed and body[:1] == "-"
    if body[:1] == "+" or negative:
        body = body[1:]
    radix, start = _radix(body, base)
    value, end = _digits(body, start, radix)
    if value > _U64:
        raise _too_big(text, bits)
    if end == start or body[end:] not in ("", "\n"):
        raise InvalidValue(f"{text!r} is not a number", hint=_number_hint(base))
    if negative:
        value = -value
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise _too_big(text, bits)
    return value


def _number_hint(base: int) -> str:
    return "a decimal number" if base == 10 else "a decimal, 0x hexadecimal or 0 octal number"


def _too_big(text: str, bits: int) -> OutOfRange:
    return OutOfRange(f"{text!r} does not fit in {bits} bits")


def kstrtoull(text: str, base: int = 10, bits: int = 64) -> int:
    """`kstrto` of an unsigned number of `bits` bits."""
    return kstrto(text, base, bits)


def kstrtoll(text: str, base: int = 10, bits: int = 64) -> int:
    """`kstrto` of a signed number of `bits` bits."""
    return kstrto(text, base, bits, signed=True)


def kstrtou16(text: str, base: int = 10) -> int:
    """`kstrto` of a u16."""
    return kstrto(text, base, 16)


def kstrtouint(text: str, base: int = 10) -> int:
    """`kstrto` of a u32."""
    return kstrto(text, base, 32)


def kstrtoint(text: str, base: int = 10) -> int:
    """`kstrto` of an s32."""
    return kstrto(text, base, 32, signed=True)


def kstrtobool(text: str) -> bool:
    """True for y, t, e, 1 and on; False for n, f, d, 0 and off: the first letter decides (the second after an o).

    Case does not matter, nor does what follows: 'yes', 'foo' and '100' are accepted. Raises InvalidValue (EINVAL).
    """
    word = _c_string(text)[:2].lower()
    if word[:1] in ("y", "t", "e", "1") or word == "on":
        return True
    if word[:1] in ("n", "f", "d", "0") or word == "of":
        return False
    raise InvalidValue(f"{text!r} is neither yes nor no", hint="1 or 0")


# Words ------------------------------------------------------------------------------------------------------------


def sysfs_streq(text: str, word: str) -> bool:
    """Whether both are the same, or differ by one newline at the end of one of them."""
    text, word = _c_string(text), _c_string(word)
    return text == word or text == word + "\n" or text + "\n" == word


def _next_arg(args: str) -> tuple[str, str | None, str]:
    """The first argument of `args`, its value (None without '=') and the rest; `args` starts with a nonblank."""
    quoted = args[:1] == '"'
    if quoted:
        args = args[1:]
    in_quote = quoted
    equals = 0  # as in the kernel, an '=' in the first place separates nothing
    end = len(args)
    for position, character in enumerate(args):
        if character in _SPACES and not in_quote:
            end = position
            break
        if character == "=" and equals == 0:
            equals = position
        if character == '"':
            in_quote = not in_quote
    word, rest = args[:end], args[end + 1 :].lstrip(" \t\n\v\f\r")
    closed = quoted and word.endswith('"')
    if not equals:
        return word.removesuffix('"') if closed else word, None, rest
    value = word[equals + 1 :]
    if value[:1] == '"':
        value = value[1:].removesuffix('"')
    elif closed:
        value = value.removesuffix('"')
    return word[:equals], value, rest


def next_args(text: str) -> list[tuple[str, str | None]]:
    """The arguments of `text` in order: key and value of `key=value`, or the word and None without an '='.

    Blanks and newlines separate; double quotes around a value, or around the whole argument, keep them together.
    """
    rest = _c_string(text).lstrip(" \t\n\v\f\r")
    arguments: list[tuple[str, str | None]] = []
    while rest:
        key, value, rest = _next_arg(rest)
        arguments.append((key, value))
    return arguments
