"""The commands of the shell itself: exit, set, eval, read, [ and their like."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .reader import parse_script
from .shell import Exit, Loop, Return, Run, Shell, Streams, Usage


def _status_of(shell: Shell, arguments: list[str], command: str) -> int:
    if len(arguments) > 1 or not all(text.isdigit() for text in arguments):
        raise Usage(f"{command} [STATUS]")
    return int(arguments[0]) if arguments else shell.status


def _exit(shell: Shell, arguments: list[str], streams: Streams) -> int:
    raise Exit(_status_of(shell, arguments, "exit"))


def _return(shell: Shell, arguments: list[str], streams: Streams) -> int:
    raise Return(_status_of(shell, arguments, "return"))


def _break(shell: Shell, arguments: list[str], streams: Streams) -> int:
    raise Loop(ends=True)


def _continue(shell: Shell, arguments: list[str], streams: Streams) -> int:
    raise Loop(ends=False)


def _shift(shell: Shell, arguments: list[str], streams: Streams) -> int:
    count = int(arguments[0]) if arguments and arguments[0].isdigit() else 1
    if count > len(shell.arguments):
        return 1
    del shell.arguments[:count]
    return 0


def _set(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if arguments in (["-e"], ["+e"]):
        shell.stop_on_error = arguments == ["-e"]
    elif arguments[:1] == ["--"]:
        shell.arguments = arguments[1:]
    else:
        raise Usage("set -e, set +e or set -- WORD...")
    return 0


def _eval(shell: Shell, arguments: list[str], streams: Streams) -> int:
    shell.sequence(parse_script(" ".join(arguments), shell.file), streams)
    return shell.status


def _read(shell: Shell, arguments: list[str], streams: Streams) -> int:
    names = [name for name in arguments if name != "-r"]
    if not names:
        raise Usage("read [-r] NAME...")
    line = streams.stdin.readline()
    text = line.removesuffix("\n")
    blanks = shell.variables.get("IFS", " \t\n")
    fields = text.strip(blanks).split(None, len(names) - 1) if blanks else [text]
    for index, name in enumerate(names):
        shell.variables[name] = fields[index] if index < len(fields) else ""
    return int(not line)


def _bracket(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if arguments[-1:] != ["]"]:
        raise Usage("[ EXPRESSION ]")
    return int(not _is_true(shell, arguments[:-1]))


def _test(shell: Shell, arguments: list[str], streams: Streams) -> int:
    return int(not _is_true(shell, arguments))


def _local(shell: Shell, arguments: list[str], streams: Streams) -> int:
    """Names are global all the same: functions do not have variables of their own."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals:
            shell.variables[name] = value
    return 0


def _seq(shell: Shell, arguments: list[str], streams: Streams) -> int:
    try:
        numbers = [int(text) for text in arguments]
        first, step, last = {1: (1, 1, *numbers), 2: (numbers[0], 1, numbers[-1]), 3: tuple(numbers)}[len(numbers)]
        span = range(first, last + (1 if step > 0 else -1), step)
    except (ValueError, KeyError, IndexError):
        raise Usage("seq [FIRST [STEP]] LAST") from None
    streams.out.write("".join(f"{number}\n" for number in span))
    return 0


_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}


def _is_true(shell: Shell, words: list[str]) -> bool:
    for connective, combine in (("-o", any), ("-a", all)):
        if connective in words:
            at = words.index(connective)
            return combine(_is_true(shell, part) for part in (words[:at], words[at + 1 :]))
    if words[:1] == ["!"]:
        return not _is_true(shell, words[1:])
    if len(words) < 2:
        return bool(words and words[0])
    if len(words) == 2 and words[0] in ("-e", "-r", "-f", "-w"):
        return shell.files.exists(words[1])
    if len(words) == 2 and words[0] in ("-n", "-z"):
        return bool(words[1]) == (words[0] == "-n")
    if len(words) == 3 and words[1] in ("=", "==", "!="):
        return (words[0] == words[2]) == (words[1] != "!=")
    if len(words) == 3 and words[1] in _COMPARISONS:
        try:
            return _COMPARISONS[words[1]](int(words[0]), int(words[2]))
        except ValueError:
            raise Usage(f"[ NUMBER {words[1]} NUMBER ]") from None
    raise Usage("[ -e PATH ], [ -n TEXT ], [ A = B ], [ A -lt B ] and the like")


BUILTINS: Mapping[str, Run] = {
    "exit": _exit,
    "return": _return,
    "break": _break,
    "continue": _continue,
    "shift": _shift,
    "set": _set,
    "eval": _eval,
    "read": _read,
    "[": _bracket,
    "test": _test,
    "local": _local,
    "seq": _seq,
    ":": lambda shell, arguments, streams: 0,
    "true": lambda shell, arguments, streams: 0,
    "false": lambda shell, arguments, streams: 1,
}
