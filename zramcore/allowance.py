"""What writebacks may write: a round's budget, and a day's that the policies of a device (or of several) share.

Both are enforced with the target's own writeback_limit, which counts a block when it is submitted. A limit that was
there before stays in force and is put back after, less what was written: budgets add up and none is lost.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .errors import BudgetExhausted, DeviceIOError, InvalidValue, NoSuchAttribute
from .interfaces import PolicyTarget
from .write_history import WriteHistory

TAKING_TURNS = ("writeback", "recompress", "writeback_limit", "writeback_limit_enable")
"""Attributes whose writes wait for a round of a policy that runs, limit and all: targets take their `turn` for them."""

_ANY = 1 << 62
"""A number of units that nobody ever writes, for a writeback in slices that has no other limit."""


class Writable(PolicyTarget, Protocol):
    """A target whose attributes can be written. It may have a lock `turn`, which a pass and the limit set for it take
    together, and `slice_units`: the 4 KiB units that one pass may write, where a pass cannot be interrupted."""

    def store(self, attribute: str, value: str) -> None: ...


def pages_written(target: PolicyTarget) -> int | None:
    """bd_writes, in units of 4 KiB; None where the target does not show it."""
    try:
        return int(target.show("bd_stat").split()[2])
    except (OSError, ValueError, IndexError):
        return None


def write_back_within(
    target: Writable, value: str, allowance: int | None, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Write `value` to `writeback`, which writes at most `allowance` units of 4 KiB (None: any number).

    Nobody else's pass comes between, and nobody else's limit. Raises BudgetExhausted (EIO) for an allowance of 0 and
    when it or a limit of the target's ends it, InvalidValue (EINVAL) where the target has no writeback_limit,
    DeviceIOError (EINTR) once `stopped()` between two slices, and what the write raises.
    """
    turn: contextlib.AbstractContextManager[Any] = getattr(target, "turn", contextlib.nullcontext())
    most: int | None = getattr(target, "slice_units", None)
    with turn:
        if allowance is None and most is None:
            return target.store("writeback", value)
        _Limited(target, _ANY if allowance is None else allowance, most).write_back(value, stopped)


class _Limited:
    """One writeback under a limit of its own, in slices of at most `most` units."""

    def __init__(self, target: Writable, allowance: int, most: int | None) -> None:
        self.target = target
        try:
            self.enabled = int(target.show("writeback_limit_enable")) != 0
            self.limit = int(target.show("writeback_limit"))
        except (NoSuchAttribute, ValueError) as error:
            raise InvalidValue("the target has no writeback_limit, and no budget can be kept without") from error
        self.left = min(allowance, self.limit) if self.enabled else allowance
        self.most = most
        self.spent = 0

    def write_back(self, value: str, stopped: Callable[[], bool]) -> None:
        if self.left <= 0:
            raise BudgetExhausted("the budget is used up")
        try:
            while True:
                try:
                    return self._slice(value)
                except BudgetExhausted:
                    if self.left <= 0 or self.most is None:
                        raise
                    if stopped():
                        raise DeviceIOError("the pass was stopped", errno=errno.EINTR) from None
        finally:
            if not self.enabled:
                self.target.store("writeback_limit_enable", "0")
            self.target.store("writeback_limit", str(max(0, self.limit - self.spent) if self.enabled else self.limit))

    def _slice(self, value: str) -> None:
        part = self.left if self.most is None else min(self.left, self.most)
        self.target.store("writeback_limit", str(part))
        try:
            if not self.enabled:
                self.target.store("writeback_limit_enable", "1")
            self.target.store("writeback", value)
        finally:
            spent = part - self._limit_now(part)
            self.spent += spent
            self.left -= spent

    def _limit_now(self, otherwise: int) -> int:
        try:
            return int(self.target.show("writeback_limit"))
        except (OSError, ValueError):
            return otherwise


class DailyBudget:
    """At most `limit` units of 4 KiB written in any 24 hours, over all targets that share it, whoever wrote them.

    Thread-safe: what one writeback may write is kept for it until it has ended. `name`: how it is kept over a restart.
    """

    def __init__(self, limit: int, name: str = "writes_per_day") -> None:
        self.limit = limit
        self.name = name
        self.restored = False
        """Whether `restore` was tried: once is right, whoever does it."""
        self._history = WriteHistory()
        self._seen: dict[str, int] = {}
        self._reserved = 0
        self._lock = threading.Lock()

    def look(self, target: PolicyTarget, now: float, label: str = "") -> None:
        """Account for what was written to the target's backing device since the last look; `label` tells it from
        others of its name."""
        with self._lock:
            self._look(target, now, label)

    def reserve(self, target: PolicyTarget, now: float, wanted: int | None, label: str = "") -> int:
        """Units that a writeback may write now: `wanted` (None: any number) or what is left; nobody else gets them
        before `settle`."""
        with self._lock:
            self._look(target, now, label)
            left = self._left(now)
            granted = left if wanted is None else min(wanted, left)
            self._reserved += granted
            return granted

    def settle(self, target: PolicyTarget, now: float, granted: int, label: str = "") -> None:
        """The writeback that `granted` was reserved for has ended."""
        with self._lock:
            self._reserved -= granted
            self._look(target, now, label)

    def left(self, now: float) -> int:
        """Units that may still be written now."""
        with self._lock:
            return self._left(now)

    def room_in(self, now: float) -> float:
        """Seconds until something may be written."""
        with self._lock:
            return self._history.room_in(self.limit, 1, now)

    def state(self, now: float) -> dict[str, Any]:
        """What survives a restart, for JSON."""
        with self._lock:
            return {"written": self._history.rows(now), "seen": dict(self._seen)}

    def restore(self, state: Mapping[str, Any], now: float, elapsed: float) -> None:
        """Take back what `state` returned `elapsed` seconds ago. What was written since then counts at the next look,
        if the device is still the same; what cannot be used is ignored."""
        with self._lock:
            self.restored = True
            self._history.take(state.get("written"), now, elapsed)
            seen = state.get("seen")
            if isinstance(seen, dict):
                self._seen.update(
                    {name: count for name, count in seen.items() if isinstance(count, int) and count >= 0}
                )

    def _left(self, now: float) -> int:
        return max(0, self._history.left(self.limit, now) - self._reserved)

    def _look(self, target: PolicyTarget, now: float, label: str) -> None:
        written = pages_written(target)
        if written is None:
            return
        label = label or target.name
        before = self._seen.get(label)
        self._seen[label] = written
        if before is not None:
            # less than before: it was reset, and counts from 0 again
            self._history.record(written - before if written >= before else written, now)
