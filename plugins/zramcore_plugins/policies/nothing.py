"""Write nothing back: for a device whose writeback is driven by hand, and as the yardstick of a comparison."""

from __future__ import annotations

from zramcore.interfaces import PolicyTarget, Tick, WritebackPolicy

A_YEAR = 365 * 86400.0


class Nothing(WritebackPolicy):
    """Does nothing, and asks to be called again in a year."""

    name = "none"
    summary = "do nothing"
    writes = ()

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        return Tick((), A_YEAR, "nothing to do")
