"""The huge policy."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from zramcore.errors import InvalidValue
from zramcore.interfaces import WritebackPolicy
from zramcore.testing.policy import FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Huge


class TestHugeConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Huge(options)


def test_writes_huge_pages_back_every_hour() -> None:
    target = FakeTarget()
    ticks = play(Huge({}), target, VirtualClock(), 3)
    assert target.written == [("writeback", "huge")] * 3
    assert [tick.next_in for tick in ticks] == [3600.0] * 3


def test_limit_and_period() -> None:
    tick = Huge({"period": "90", "limit": "64"}).tick(FakeTarget(), 0.0)
    assert list(tick.writes) == [("writeback_limit", "64"), ("writeback_limit_enable", "1"), ("writeback", "huge")]
    assert tick.next_in == 90.0


def test_refuses_a_period_of_nothing() -> None:
    with pytest.raises(InvalidValue, match="option period=0: a duration of 0"):
        Huge({"period": "0"})


def test_it_says_why_it_does_nothing() -> None:
    target = FakeTarget()
    target.values["backing_dev"] = "none\n"
    tick = Huge({}).tick(target, 0.0)
    assert (list(tick.writes), tick.reason) == ([], "zram0 has no backing device")
