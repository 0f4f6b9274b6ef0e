"""Conversion of zram-generator.conf(5): its [zramN] sections as devices of a deployment.

What has no counterpart becomes a comment with the reason. Its sizes are in MiB, where a bare number counts MiB and
`ram` is MemTotal in MiB; ours are in bytes: each number that is a size gets an M, each factor stays.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..attach.wanted import FILE_SYSTEMS
from ..errors import ConfigError, InvalidValue, ZramError
from .expressions import Call, Node, Number, Operation, Ram, has_ram, parse
from .target import Kind

DEFAULT_SIZE = "min(ram / 2, 4096)"
DEFAULT_PRIORITY = 100
_SECTION = re.compile(r"zram([0-9]+)", re.ASCII)
_ALGORITHM = re.compile(r"([^\s()]*)(?:\(([^()\s]*)\)?)?", re.ASCII)
_LEVELS = ("level", "dict", "deflate.winbits")
"""Parameters that algorithm_params takes; others of a secondary algorithm are about when to recompress."""
_SWAP_OPTIONS = re.compile(r"discard(=(once|pages))?|defaults?", re.ASCII)


@dataclass
class Converted:
    """The deployment as TOML; `comments`: what has no counterpart, a sentence each, as it stands in the text too."""

    text: str
    comments: list[str] = field(default_factory=list)


def convert(file: Path, compressors: Collection[str], target: Kind = "zramcore") -> Converted:
    """Read a zram-generator.conf and write it as a deployment; `compressors`: those that `target` has here.

    Raises ConfigError (EINVAL) when it cannot be read, or has no [zramN] section.
    """
    sections = _read(file)
    lines = [f"# Converted from {_line(str(file))}"]
    comments: list[str] = []

    def remark(text: str) -> None:
        comments.append(_line(text))
        lines.append(f"# {comments[-1]}")

    for name, values in sections.items():
        if not _SECTION.fullmatch(name):
            for key, value in values.items():
                where = "outside a section" if name == _TOP else f"of section [{name}]"
                remark(f"{key} = {value}: {where}, which is about no device")
    devices = sorted((int(match[1]), name) for name in sections if (match := _SECTION.fullmatch(name)))
    if not devices:
        raise ConfigError("has no section like [zram0]", file=str(file), hint="is it a zram-generator.conf?")
    for position, (number, name) in enumerate(devices):
        # a zramN of ours that would get another id needs another name; the kernel's is that very device
        label = name if number == position or target == "kernel" else f"from-{name}"
        device = _Device(sections[name], compressors, target)
        lines += ["", f"[device.{label}]", *device.convert()]
        comments += [f"{label}: {comment}" for comment in device.comments]
    return Converted("\n".join(lines) + "\n", comments)


_TOP = "\0top"


def _read(file: Path) -> Mapping[str, Mapping[str, str]]:
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=("#", ";"), strict=False, interpolation=None, default_section="\0"
    )
    try:
        # set! lines stand above the first section
        parser.read_string(f"[{_TOP}]\n" + file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(file)) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"is no ini file: {' '.join(str(error).split())}", file=str(file)) from error
    return {name: dict(parser[name]) for name in parser.sections()}


class _Device:
    """One section. Known keys are taken out of `left`; what stays is unknown."""

    def __init__(self, values: Mapping[str, str], compressors: Collection[str], target: Kind) -> None:
        self.left = dict(values)
        self.target = target
        self.compressors = compressors
        self.comments: list[str] = []
        self.lines: list[str] = []

    def convert(self) -> list[str]:
        if self.target != "zramcore":
            self.say("target", self.target)
        self.memory_limit()
        self.algorithms()
        self.backing()
        self.size()
        self.use()
        for key, value in self.left.items():
            self.remark(f"{key} = {value}: not an option that zramcore knows")
        return self.lines

    def remark(self, text: str) -> None:
        self.comments.append(_line(text))
        self.lines.append(f"# {self.comments[-1]}")

    def say(self, key: str, value: object) -> None:
        self.lines.append(f"{key} = {_toml(value)}")

    def memory_limit(self) -> None:
        for key in ("host-memory-limit", "memory-limit"):
            value = self.left.pop(key, "none")
            if value != "none":
                self.remark(
                    f"{key} = {value}: a deployment does not depend on how much memory there is; "
                    f"the device was left out on machines with more than {value} MiB"
                )

    # Algorithms -------------------------------------------------------------------------------------------------------

    def algorithms(self) -> None:
        text = self.left.pop("compression-algorithm", "")
        secondary: list[str] = []
        params: list[str] = []
        priority = 0
        for word in text.split():
            match = _ALGORITHM.fullmatch(word)
            if match is None:
                self.remark(f"compression-algorithm {word}: is neither NAME nor NAME(PARAMETERS)")
                continue
            name, given = match[1], (match[2] or "").replace(",", " ").split()
            if not name:
                self.remark(f"compression-algorithm ({' '.join(given)}): {_NO_RECOMPRESSION}")
                continue
            rank, priority = priority, priority + 1
            if name not in self.compressors:
                lists = "plugins" if self.target == "zramcore" else "kernel"
                self.remark(f"compression-algorithm {name}: is not here (`zramcore {lists}` lists what is)")
                continue
            if rank > 3:
                self.remark(f"compression-algorithm {name}: a device has three secondary algorithms at most")
                continue
            if rank == 0:
                self.say("comp_algorithm", name)
            else:
                secondary.append(f"algo={name} priority={rank}")
            settings = [each for each in given if each.partition("=")[0] in _LEVELS]
            if settings:
                params.append(f"priority={rank} {' '.join(settings)}")
            when = [each for each in given if each not in settings]
            if when:
                self.remark(f"compression-algorithm {name}({','.join(when)}): {_NO_RECOMPRESSION}")
        if secondary:
            self.say("recomp_algorithm", secondary)
        if params:
            self.say("algorithm_params", params)

    def backing(self) -> None:
        device = self.left.pop("writeback-device", None)
        if device is not None:
            self.say("backing_dev", device)
            self.lines.append("# zram-generator writes nothing back by itself; a policy does: [[device.NAME.policy]]")

    # Sizes ------------------------------------------------------------------------------------------------------------

    def size(self) -> None:
        fraction, most = self.left.pop("zram-fraction", None), self.left.pop("max-zram-size", None)
        text = self.left.pop("zram-size", DEFAULT_SIZE)
        key = "zram-size"
        if fraction is not None or most is not None:
            key = "zram-fraction, max-zram-size"
            text = f"ram * {fraction or '0.5'}"
            if most not in (None, "none"):
                text = f"min({text}, {most})"
        if not self.one_size("disksize", key, text):
            self.remark(f"{key} = {text}: so this device has no size yet: add disksize")
        limit = self.left.pop("zram-resident-limit", "0")
        if limit.strip() != "0":
            self.one_size("mem_limit", "zram-resident-limit", limit)

    def one_size(self, attribute: str, key: str, text: str) -> bool:
        try:
            self.say(attribute, from_mebibytes(text))
        except ZramError as error:
            self.remark(f"{key} = {text}: {error.reason}")
            return False
        return True

    # Use --------------------------------------------------------------------------------------------------------------

    def use(self) -> None:
        directory = self.left.pop("mount-point", None)
        kind = self.left.pop("fs-type", "ext2" if directory is not None else "swap")
        options = self.left.pop("options", "discard")
        priority = self.left.pop("swap-priority", None)
        if kind == "swap" and directory is None:
            self.swap(priority, options)
            return
        if priority is not None:
            self.remark(f"swap-priority = {priority}: this device is not swap")
        if kind in FILE_SYSTEMS:
            self.say("mkfs", kind)
            if directory is not None:
                self.say("mount", {"directory": directory, "options": options})
        else:
            self.remark(f"fs-type = {kind}: zramcore makes {', '.join(FILE_SYSTEMS)}")
            if directory is not None:
                self.remark(f"mount-point = {directory}: needs a file system")
            self.say("attach", True)

    def swap(self, priority: str | None, options: str) -> None:
        wanted = [word for word in options.split(",") if word]
        for word in wanted:
            if not _SWAP_OPTIONS.fullmatch(word):
                self.remark(f"options = {word}: not an option of swap that zramcore passes on")
        number = DEFAULT_PRIORITY
        if priority is not None:
            if re.fullmatch(r"-?[0-9]{1,5}", priority, re.ASCII):
                number = int(priority)
            else:
                self.remark(f"swap-priority = {priority}: is no number")
        self.say("swap", {"priority": number, "discard": any(word.startswith("discard") for word in wanted)})


_NO_RECOMPRESSION = 'when to recompress is for a policy to say: [[device.NAME.policy]] with name = "recompress"'


# Sizes in MiB ---------------------------------------------------------------------------------------------------------


def from_mebibytes(text: str) -> str:
    """An expression whose result and `ram` are MiB, as one of bytes. Raises InvalidValue (EINVAL) for what `parse`
    does not know: ``^``, ``%``, SI suffixes and other functions."""
    node = parse(_without_suffixes(text))
    _check_numbers(node)
    try:
        return _sized(node)
    except _NoSize:
        # ram * ram / 8192 and the like: in MiB as it stands, and then in bytes
        return f"({_plain(node, '(ram / 1M)')}) * 1M"


_SI = {"K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def _without_suffixes(text: str) -> str:
    """Decimal suffixes as factors: fasteval's 2k is 2000."""
    return re.sub(r"([0-9]+(?:\.[0-9]+)?)([KkMGT])\b", lambda match: f"({match[1]} * {_SI[match[2]]})", text)


def _check_numbers(node: Node) -> None:
    """Raises InvalidValue (EINVAL) for a number that fasteval does not read, and ours would read otherwise."""
    match node:
        case Number() if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", node.text, re.ASCII):
            raise InvalidValue(f"{node.text!r} is not a number that zram-generator knows")
        case Operation():
            _check_numbers(node.left)
            _check_numbers(node.right)
        case Call():
            for argument in node.arguments:
                _check_numbers(argument)


class _NoSize(Exception):
    """The expression is not a sum of sizes."""


def _sized(node: Node) -> str:
    """A node that is a size, in bytes."""
    match node:
        case Ram():
            return "ram"
        case Number():
            return "0" if node.value == 0 else f"{node.text}M"
        case Call():
            return f"{node.function}({', '.join(_sized(argument) for argument in node.arguments)})"
        case Operation(symbol="+" | "-"):
            return _joined(node, _sized(node.left), _sized(node.right))
        case Operation(symbol="*") if has_ram(node.right) and not has_ram(node.left):
            return _joined(node, _plain(node.left), _sized(node.right))
        case Operation():
            if has_ram(node.right):
                raise _NoSize
            return _joined(node, _sized(node.left), _plain(node.right))


def _plain(node: Node, ram: str | None = None) -> str:
    """A node that is a factor, as it stands; with `ram`, every `ram` in it becomes that."""
    match node:
        case Ram():
            if ram is None:
                raise _NoSize
            return ram
        case Number():
            return node.text
        case Call():
            return f"{node.function}({', '.join(_plain(argument, ram) for argument in node.arguments)})"
    return _joined(node, _plain(node.left, ram), _plain(node.right, ram))


def _joined(node: Operation, left: str, right: str) -> str:
    """``left symbol right`` with the brackets that the tree needs."""
    if node.symbol in "*/" and isinstance(node.left, Operation) and node.left.symbol in "+-":
        left = f"({left})"
    if isinstance(node.right, Operation) and (node.symbol in "*/-"):
        right = f"({right})"
    return f"{left} {node.symbol} {right}"


# TOML -----------------------------------------------------------------------------------------------------------------


def _line(text: str) -> str:
    """A text on one line: a value may go on in the next one, a comment must not."""
    return " ".join(text.split())


def _toml(value: object) -> str:
    """A value as TOML writes it; JSON's strings are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _pairs(table: Mapping[str, object]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{key} = {_toml(value)}"
