"""Sizes that depend on the machine: ``min(ram / 2, 4G)``.

A size is an expression when it has an operator, a bracket or a name; anything else is left to the kernel's memparse.
Numbers are decimal (``0.75``), or whole ones with a K, M, G, T, P or E behind them; hexadecimal as memparse reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import InvalidValue, OutOfRange, did_you_mean

SUFFIXES = {letter: 1 << 10 * (power + 1) for power, letter in enumerate("KMGTPE")}
FUNCTIONS: dict[str, Callable[[Sequence[Fraction]], Fraction]] = {"min": min, "max": max}
VARIABLE = "ram"
"""Bytes of MemTotal."""
DEEPEST = 50
"""Brackets within brackets; deeper ones would use up Python's stack before they mean anything."""
LONGEST = 1000
"""Characters of an expression."""
HINT = "for example min(ram / 2, 4G): numbers, K to E, ram, min, max, + - * / and brackets"

_TOKEN = re.compile(
    r"\s*(?:(?P<hex>0[xX][0-9a-fA-F]+)|(?P<number>[0-9]+(?:\.[0-9]+)?)"
    r"(?P<suffix>[KMGTPEkmgtpe](?:i?[Bb])?(?![A-Za-z0-9_]))?"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<symbol>[-+*/(),]))",
    re.ASCII,
)


@dataclass(frozen=True)
class Number:
    """A literal; `text` is as it was written."""

    value: Fraction
    text: str


@dataclass(frozen=True)
class Ram:
    """The variable."""


@dataclass(frozen=True)
class Operation:
    """``left symbol right``; `column` is where the symbol is, from 1."""

    symbol: str
    left: Node
    right: Node
    column: int


@dataclass(frozen=True)
class Call:
    """A function of one argument or more."""

    function: str
    arguments: tuple[Node, ...]


Node = Number | Ram | Operation | Call


def is_expression(text: str) -> bool:
    """Whether a size is an expression: it has an operator, a bracket, or one of the names. A sign in front is none."""
    return bool(re.search(r"(?!^)[-+*/(),]|^\(|\b(?:ram|min|max)\b", text.strip(), re.ASCII))


def total_ram(file: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that the kernel manages: MemTotal of proc(5), which is given in KiB. Raises InvalidValue."""
    try:
        match = re.search(r"^MemTotal:\s+([0-9]+) kB$", file.read_text(), re.MULTILINE)
    except OSError as error:
        raise InvalidValue(f"{file} cannot be read: {error.strerror}", hint="say the size without ram") from error
    if match is None:
        raise InvalidValue(f"{file} has no MemTotal", hint="say the size without ram")
    return int(match[1]) << 10


def evaluate(text: str, ram: int | None = None) -> int:
    """The size in bytes, rounded down; `ram` is `total_ram` when it is not given.

    Raises InvalidValue (EINVAL) with the column of what is wrong, OutOfRange (ERANGE) for a result below 0 or beyond
    64 bits.
    """
    node = parse(text)
    value = _value(node, text, Fraction(total_ram() if ram is None and has_ram(node) else ram or 0))
    size = value.numerator // value.denominator
    if not 0 <= size < 1 << 64:
        raise OutOfRange(f"{text!r} comes to {size} bytes", hint="a size is 0 or more and fits in 64 bits")
    return size


def parse(text: str) -> Node:
    """The tree of an expression. Raises InvalidValue (EINVAL) with the column of what is wrong."""
    return _Parser(text).whole()


def has_ram(node: Node) -> bool:
    """Whether the value depends on the machine."""
    match node:
        case Operation():
            return has_ram(node.left) or has_ram(node.right)
        case Call():
            return any(has_ram(argument) for argument in node.arguments)
    return isinstance(node, Ram)


def _value(node: Node, text: str, ram: Fraction) -> Fraction:
    match node:
        case Number():
            return node.value
        case Call():
            return FUNCTIONS[node.function]([_value(argument, text, ram) for argument in node.arguments])
        case Operation():
            left, right = _value(node.left, text, ram), _value(node.right, text, ram)
            match node.symbol:
                case "+":
                    return left + right
                case "-":
                    return left - right
                case "*":
                    return left * right
            if right == 0:
                raise _wrong(text, node.column, "divides by 0")
            return left / right
    return ram


def _wrong(text: str, column: int, reason: str, hint: str = HINT) -> InvalidValue:
    return InvalidValue(f"{text!r}, column {column}: {reason}", hint=hint)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int
    value: Fraction = Fraction(0)


class _Parser:
    """Recursive descent over the tokens: sum, product, item."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise InvalidValue(f"an expression has at most {LONGEST} characters, not {len(text)}")
        self.tokens = list(self._split())
        self.position = 0
        self.depth = 0

    def _split(self) -> Iterator[_Token]:
        position = 0
        end = len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                blank = len(self.text[position:]) - len(self.text[position:].lstrip())
                raise _wrong(self.text, position + blank + 1, f"{self.text[position + blank]!r} means nothing here")
            position = match.end()
            kind = match.lastgroup or ""
            start = min(match.start(group) for group in ("hex", "number", "name", "symbol") if match[group])
            word = self.text[start:position]
            if kind == "hex":
                yield _Token("number", word, start + 1, Fraction(int(word, 16)))
            elif match["number"] is not None:
                scale = SUFFIXES[match["suffix"][0].upper()] if match["suffix"] else 1
                yield _Token("number", word, start + 1, Fraction(match["number"]) * scale)
            else:
                yield _Token(kind, word, start + 1)
        yield _Token("end", "", end + 1)

    def whole(self) -> Node:
        node = self.sum()
        token = self.tokens[self.position]
        if token.kind != "end":
            expected = "a bracket is closed that was not opened" if token.text == ")" else "an operator is missing"
            raise _wrong(self.text, token.column, f"{expected} before {token.text!r}")
        return node

    def take(self, *symbols: str) -> _Token | None:
        token = self.tokens[self.position]
        if token.kind != "symbol" or token.text not in symbols:
            return None
        self.position += 1
        return token

    def sum(self) -> Node:
        node = self.product()
        while symbol := self.take("+", "-"):
            node = Operation(symbol.text, node, self.product(), symbol.column)
        return node

    def product(self) -> Node:
        node = self.item()
        while symbol := self.take("*", "/"):
            node = Operation(symbol.text, node, self.item(), symbol.column)
        return node

    def item(self) -> Node:
        token = self.tokens[self.position]
        if token.kind == "end":
            raise _wrong(self.text, token.column, "it ends where a number is missing")
        self.position += 1
        if token.kind == "number":
            return Number(token.value, token.text)
        if token.kind == "name":
            return self.named(token)
        if token.text == "(":
            (node,) = self.inside(token, several=False)
            return node
        raise _wrong(self.text, token.column, f"a number is missing before {token.text!r}")

    def named(self, token: _Token) -> Node:
        if token.text == VARIABLE:
            return Ram()
        if token.text not in FUNCTIONS:
            known = (VARIABLE, *FUNCTIONS)
            raise _wrong(self.text, token.column, f"there is no {token.text!r}", did_you_mean(token.text, known))
        bracket = self.take("(")
        if bracket is None:
            raise _wrong(self.text, token.column, f"{token.text} needs its arguments", f"{token.text}(ram / 2, 4G)")
        return Call(token.text, self.inside(bracket, several=True))

    def inside(self, bracket: _Token, *, several: bool) -> tuple[Node, ...]:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _wrong(self.text, bracket.column, f"more than {DEEPEST} brackets within each other")
        nodes = [self.sum()]
        while several and self.take(","):
            nodes.append(self.sum())
        if not self.take(")"):
            raise _wrong(self.text, bracket.column, "this bracket is not closed")
        self.depth -= 1
        return tuple(nodes)
