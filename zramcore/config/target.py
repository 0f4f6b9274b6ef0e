"""What a device of a deployment is, zramcore's own or the kernel's zram: the keys target, device and writes_per_day.

``auto`` is decided by `resolve` before anything is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from ..errors import did_you_mean
from ..parse import memparse
from .expressions import evaluate, is_expression
from .values import size_problems

Kind = Literal["zramcore", "kernel", "auto"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TARGET_KEYS = ("target", "device", "writes_per_day")
UNIT = 4096
"""Bytes of the units that budgets count."""

_NODE = re.compile(r"(?:/dev/)?(zram[0-9]+)", re.ASCII)


@dataclass(frozen=True)
class TargetConfig:
    """`kind`: what it is; `why`: how ``auto`` was decided, if it was. `device`: the kernel's device that somebody else
    set up, on which policies only run. `writes_per_day`: units of 4 KiB that its policies may write in 24 hours."""

    kind: Kind = "zramcore"
    device: str | None = None
    writes_per_day: int | None = None
    why: str = ""

    @property
    def is_kernel(self) -> bool:
        """Whether it is the kernel's zram."""
        return self.kind == "kernel"

    @property
    def text(self) -> str:
        """What it is, for people and for comparing; empty for a zramcore device that says nothing about it."""
        if self.device is not None:
            return f"kernel, {self.device} as it is"
        return f"{self.kind} ({self.why})" if self.why else "" if self.kind == "zramcore" else self.kind


class Problem(NamedTuple):
    """What is wrong with a key."""

    key: str
    reason: str
    hint: str = ""


def read_target(table: Mapping[str, object]) -> tuple[TargetConfig, list[Problem]]:
    """The keys of a device's table in types, and what is wrong with them."""
    problems = list(_problems(table))
    if problems:
        return TargetConfig(), problems
    found = next(kind for kind in KINDS if kind == table.get("target", "zramcore"))
    match = _NODE.fullmatch(str(table.get("device", "")))
    return TargetConfig(found, match and match[1], read_writes_per_day(table)), []


def read_writes_per_day(table: Mapping[str, object]) -> int | None:
    """The budget in units of 4 KiB; None without one. The value has passed `writes_per_day_problems`."""
    value = table.get("writes_per_day")
    if value is None:
        return None
    text = str(value)
    return (evaluate(text) if is_expression(text) else memparse(text)) // UNIT


def writes_per_day_problems(table: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with the budget."""
    if "writes_per_day" in table:
        found = [Problem("writes_per_day", *problem) for problem in size_problems(table["writes_per_day"])]
        yield from found
        if not found and not read_writes_per_day(table):
            yield Problem("writes_per_day", "is less than a page", "leave it out, or take the policies away")


def _problems(table: Mapping[str, object]) -> Iterator[Problem]:
    kind = table.get("target", "zramcore")
    if kind not in KINDS:
        yield Problem("target", f"there is no target {kind!r}", did_you_mean(str(kind), KINDS))
    device = table.get("device")
    if device is not None:
        if not isinstance(device, str) or not _NODE.fullmatch(device):
            yield Problem("device", "is not a device of the kernel's zram", 'device = "zram0"')
        if kind in ("zramcore", "auto"):
            yield Problem("device", "is a device of the kernel's zram, and the target may not be", 'target = "kernel"')
    yield from writes_per_day_problems(table)
