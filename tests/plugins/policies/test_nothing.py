"""The policy that does nothing."""

from __future__ import annotations

from collections.abc import Mapping

from zramcore.interfaces import WritebackPolicy
from zramcore.testing.policy import FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Nothing


class TestNothingConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Nothing(options)


def test_writes_nothing_and_is_in_no_hurry() -> None:
    target = FakeTarget()
    ticks = play(Nothing({}), target, VirtualClock(), 5)
    assert target.written == []
    assert all(tick.next_in >= 30 * 86400 for tick in ticks)
    assert Nothing.writes == ()
