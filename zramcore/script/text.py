"""The words of scripts that only move text: echo, printf, cat, tr, head, tail, wc, grep, sort, tee and uname."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .shell import Files, Run, Shell, Streams, Usage
from .tool import verdict

KERNEL_RELEASE = "7.3.4"
"""What `uname -r` prints: the kernel whose behaviour zramcore reproduces."""


def read(files: Files, path: str, streams: Streams) -> str | None:
    """The text at a path; None when there is none, which is said on stderr as cat(1) says it."""
    try:
        return files.read_text(path)
    except FileNotFoundError:
        streams.err.write(f"cat: can't open '{path}': No such file or directory\n")
    except PermissionError:
        streams.err.write(f"cat: can't open '{path}': Permission denied\n")
    except OSError as error:
        streams.err.write(f"cat: read error: {verdict(error).partition(', ')[2][:-1]}\n")
    return None


def _input(shell: Shell, paths: list[str], streams: Streams) -> str:
    if not paths:
        return streams.stdin.read()
    return "".join(read(shell.files, path, streams) or "" for path in paths)


def _echo(shell: Shell, arguments: list[str], streams: Streams) -> int:
    newline = arguments[:1] != ["-n"]
    streams.out.write(" ".join(arguments if newline else arguments[1:]) + "\n" * newline)
    return 0


def _printf(shell: Shell, arguments: list[str], streams: Streams) -> int:
    """%s, %d and %%; backslash n and t. The format is used again while arguments are left."""
    if not arguments:
        raise Usage("printf FORMAT [TEXT...]")
    layout = arguments[0].replace("\\n", "\n").replace("\\t", "\t")
    rest = arguments[1:]
    while True:
        streams.out.write(re.sub("%([sd%])", lambda m: "%" if m[1] == "%" else rest.pop(0) if rest else "", layout))
        if not rest or ("%s" not in layout and "%d" not in layout):
            return 0


def _cat(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if not arguments:
        streams.out.write(streams.stdin.read())
        return 0
    texts = [read(shell.files, path, streams) for path in arguments]
    streams.out.write("".join(text or "" for text in texts))
    return int(None in texts)


def _tr(shell: Shell, arguments: list[str], streams: Streams) -> int:
    text = streams.stdin.read()
    sets = [argument.replace("\\n", "\n").replace("\\t", "\t") for argument in arguments]
    if len(sets) == 2 and sets[0] == "-s" and len(sets[1]) == 1:
        text = re.sub(f"{re.escape(sets[1])}+", lambda match: match[0][0], text)
    elif len(sets) == 2 and sets[0] == "-d":
        text = text.translate({ord(character): None for character in sets[1]})
    elif len(sets) == 2 and sets[0][:1] != "-" and len(sets[0]) == len(sets[1]):
        text = text.translate(str.maketrans(sets[0], sets[1]))
    else:
        raise Usage("tr -s CHARACTER, tr -d CHARACTERS or tr FROM TO (of one length)")
    streams.out.write(text)
    return 0


def _count(arguments: list[str], usage: str) -> tuple[int, list[str]]:
    """The N of -N or -n N (10 without it), and the other arguments."""
    if arguments[:1] == ["-n"] and len(arguments) > 1 and arguments[1].isdigit():
        return int(arguments[1]), arguments[2:]
    if arguments and re.fullmatch("-[0-9]+", arguments[0]):
        return int(arguments[0][1:]), arguments[1:]
    if arguments and arguments[0][:1] == "-":
        raise Usage(usage)
    return 10, arguments


def _head(shell: Shell, arguments: list[str], streams: Streams) -> int:
    count, paths = _count(arguments, "head [-N] [PATH...]")
    streams.out.write("".join(_input(shell, paths, streams).splitlines(keepends=True)[:count]))
    return 0


def _tail(shell: Shell, arguments: list[str], streams: Streams) -> int:
    count, paths = _count(arguments, "tail [-N] [PATH...]")
    lines = _input(shell, paths, streams).splitlines(keepends=True)
    streams.out.write("".join(lines[max(len(lines) - count, 0) :]))
    return 0


def _wc(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if arguments[:1] not in (["-l"], ["-c"]):
        raise Usage("wc -l|-c [PATH]")
    text = _input(shell, arguments[1:], streams)
    streams.out.write(f"{text.count(chr(10)) if arguments[0] == '-l' else len(text)}\n")
    return 0


def _grep(shell: Shell, arguments: list[str], streams: Streams) -> int:
    """Python's regular expressions stand for extended ones; without -E, `|`, `+`, `?`, `()` and `{}` are literal."""
    flags = ""
    while arguments and re.fullmatch("-[cvqEi]+", arguments[0]):
        flags, arguments = flags + arguments[0][1:], arguments[1:]
    if not arguments or arguments[0][:1] == "-":
        raise Usage("grep [-cvqEi] PATTERN [PATH...]")
    source = arguments[0] if "E" in flags else re.sub(r"([+?|(){}])", r"\\\1", arguments[0])
    try:
        pattern = re.compile(source, re.IGNORECASE if "i" in flags else 0)
    except re.error as error:
        raise Usage(f"grep PATTERN ({error})") from error
    lines = _input(shell, arguments[1:], streams).splitlines()
    chosen = [line for line in lines if (pattern.search(line) is None) == ("v" in flags)]
    if "c" in flags:
        streams.out.write(f"{len(chosen)}\n")
    elif "q" not in flags:
        streams.out.write("".join(f"{line}\n" for line in chosen))
    return int(not chosen)


def _sort(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if arguments not in ([], ["-n"]):
        raise Usage("sort [-n]")
    lines = streams.stdin.read().splitlines()
    streams.out.write("".join(f"{line}\n" for line in sorted(lines, key=_leading_number if arguments else None)))
    return 0


def _leading_number(line: str) -> int:
    match = re.match(r"\s*(-?[0-9]+)", line)
    return int(match[1]) if match else 0


def _tee(shell: Shell, arguments: list[str], streams: Streams) -> int:
    text = streams.stdin.read()
    for path in arguments:
        shell.files.write_text(path, text, append=False)
    streams.out.write(text)
    return 0


def _uname(shell: Shell, arguments: list[str], streams: Streams) -> int:
    if arguments != ["-r"]:
        raise Usage("uname -r")
    streams.out.write(f"{KERNEL_RELEASE}\n")
    return 0


TEXT_WORDS: Mapping[str, Run] = {
    "echo": _echo,
    "printf": _printf,
    "cat": _cat,
    "tr": _tr,
    "head": _head,
    "tail": _tail,
    "wc": _wc,
    "grep": _grep,
    "sort": _sort,
    "tee": _tee,
    "uname": _uname,
}
