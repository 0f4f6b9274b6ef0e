"""Report: one decision of a policy and what came of it, in figures and in a line."""

from __future__ import annotations

from dataclasses import dataclass

STOPPED = {"EIO": "budget used up", "ENOSPC": "the backing device is full", "EINTR": "told to stop"}
"""Normal ends of a pass, in words."""


def mebibytes(size: int) -> str:
    """Bytes as people read them: ``52 MiB``, ``1.5 GiB``, ``12 KiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def _freed(size: int) -> str:
    return f"freed {mebibytes(size)}" if size >= 0 else f"grew {mebibytes(-size)}"


@dataclass(frozen=True)
class WriteResult:
    """One attribute write: `error` is empty, or one sentence; `ended` names the errno of a normal end (ENOSPC, EIO)."""

    attribute: str
    value: str
    error: str = ""
    ended: str = ""


@dataclass(frozen=True)
class Report:
    """One decision of a policy and what came of it.

    `freed` is the fall of mem_used_total in bytes and `written_back` the rise of bd_stat's bd_writes in bytes, while
    the writes were made; None where the target does not show them. `next_in` is in seconds. `error` is empty, or why
    the policy failed and now waits.
    """

    target: str
    policy: str
    at: float
    reason: str
    writes: tuple[WriteResult, ...]
    freed: int | None
    written_back: int | None
    next_in: float
    error: str = ""

    def _wrote(self, attribute: str) -> bool:
        return any(write.attribute == attribute for write in self.writes)

    def decision(self) -> str:
        """Why, and what came of it, in a line: ``zram0 huge: ..., wrote 4 MiB, freed 5 MiB, stopped: nothing left``."""
        return f"{self.target} {self.policy}: {self.explanation()}"

    def explanation(self) -> str:
        """The decision without target and policy."""
        parts = [self.reason or "no reason given"]
        if self._wrote("writeback"):
            if self.written_back is not None:
                parts.append(f"wrote {mebibytes(self.written_back)}")
            parts.append("freed an unknown amount" if self.freed is None else _freed(self.freed))
        elif self.freed:
            parts.append(_freed(self.freed))
        ends = [STOPPED.get(write.ended, write.ended) for write in self.writes if write.ended]
        if not self.error and (ends or self._wrote("writeback")):
            parts.append(f"stopped: {ends[-1] if ends else 'nothing left'}")
        if self.error:
            parts.append(f"{self.error}, next try in {self.next_in:g} s")
        return " ".join(", ".join(parts).split())
