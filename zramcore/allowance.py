"""What writebacks may write: a round's budget, and a day's that the policies of a device (or of several) share.

Both are enforced with the target's own writeback_limit, which counts a block when it is submitted. A limit that was
there before stays in force and is put back after, less what was written: budgets add up and none is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .errors import BudgetExhausted, InvalidValue
from .interfaces import PolicyTarget
from .write_history import WriteHistory


class Writable(PolicyTarget, Protocol):
    """A target whose attributes can be written."""

    def store(self, attribute: str, value: str) -> None: ...


def pages_written(target: PolicyTarget) -> int | None:
    """bd_writes, in units of 4 KiB; None where the target does not show it."""
    try:
        return int(target.show("bd_stat").split()[2])
    except (OSError, ValueError, IndexError):
        return None


def write_back_within(target: Writable, value: str, allowance: int) -> None:
    """Write `value` to `writeback`, which writes at most `allowance` units of 4 KiB.

    Raises BudgetExhausted (EIO) for an allowance of 0 and when it or a limit of the target's ends it, InvalidValue
    (EINVAL) where the target has no writeback_limit, and what the write raises.
    """
    try:
        enabled = int(target.show("writeback_limit_enable")) != 0
        limit = int(target.show("writeback_limit"))
    except (OSError, ValueError) as error:
        raise InvalidValue("the target has no writeback_limit, and no budget can be kept without") from error
    cap = min(allowance, limit) if enabled else allowance
    if cap <= 0:
        raise BudgetExhausted("the budget is used up")
    target.store("writeback_limit", str(cap))
    try:
        if not enabled:
            target.store("writeback_limit_enable", "1")
        target.store("writeback", value)
    finally:
        spent = cap - _limit(target, cap)
        if not enabled:
            target.store("writeback_limit_enable", "0")
        target.store("writeback_limit", str(max(0, limit - spent) if enabled else limit))


def _limit(target: PolicyTarget, otherwise: int) -> int:
    try:
        return int(target.show("writeback_limit"))
    except (OSError, ValueError):
        return otherwise


class DailyBudget:
    """At most `limit` units of 4 KiB written in any 24 hours, over all targets that share it, whoever wrote them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._history = WriteHistory()
        self._seen: dict[str, int] = {}

    def look(self, target: PolicyTarget, now: float) -> None:
        """Account for what was written to the target's backing device since the last look."""
        written = pages_written(target)
        if written is None:
            return
        before = self._seen.get(target.name)
        self._seen[target.name] = written
        if before is not None:
            # less than before: it was reset, and counts from 0 again
            self._history.record(written - before if written >= before else written, now)

    def left(self, now: float) -> int:
        """Units that may still be written now."""
        return self._history.left(self.limit, now)

    def room_in(self, now: float) -> float:
        """Seconds until something may be written."""
        return self._history.room_in(self.limit, 1, now)

    def state(self, now: float) -> dict[str, Any]:
        """What survives a restart, for JSON."""
        return {"written": self._history.rows(now), "seen": dict(self._seen)}

    def restore(self, state: Mapping[str, Any], now: float, elapsed: float) -> None:
        """Take back what `state` returned `elapsed` seconds ago. What was written since then counts at the next look,
        if the device is still the same; what cannot be used is ignored."""
        self._history.take(state.get("written"), now, elapsed)
        seen = state.get("seen")
        if isinstance(seen, dict):
            self._seen.update({name: count for name, count in seen.items() if isinstance(count, int) and count >= 0})
