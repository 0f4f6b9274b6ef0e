"""The idle policy: the loop of the patch, and the one by access time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from zramcore.errors import InvalidValue
from zramcore.interfaces import WritebackPolicy
from zramcore.testing.policy import FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Idle

MARK = ("idle", "all")
WRITE = ("writeback", "idle")


class TestIdleConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Idle(options)


class TestIdleByAccessTimeConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Idle({"age": "2h", "period": "10m", "limit": "256", **options})

    def test_options_are_documented(self) -> None:
        assert self.create({}).values == {"age": 7200.0, "period": 600.0, "mode": "idle", "limit": 256}


def test_marks_waits_three_hours_writes_back_and_marks_again() -> None:
    target, clock = FakeTarget(), VirtualClock(500.0)
    ticks = play(Idle({}), target, clock, 3)
    assert [list(tick.writes) for tick in ticks] == [[MARK], [WRITE, MARK], [WRITE, MARK]]
    assert [tick.next_in for tick in ticks] == [10800.0] * 3
    assert target.written == [MARK, WRITE, MARK, WRITE, MARK]


def test_an_early_call_waits_for_the_rest_of_age() -> None:
    policy = Idle({"age": "100s"})
    policy.tick(FakeTarget(), 1000.0)
    early = policy.tick(FakeTarget(), 1030.0)
    assert list(early.writes) == []
    assert early.next_in == 70.0
    assert list(policy.tick(FakeTarget(), 1100.0).writes) == [WRITE, MARK]


def test_a_call_early_by_a_rounding_error_is_on_time() -> None:
    policy = Idle({"age": "0.3"})
    policy.tick(FakeTarget(), 1e5 + 0.1)
    assert list(policy.tick(FakeTarget(), 1e5 + 0.1 + 0.3 - 1e-9).writes) == [WRITE, MARK]


def test_a_late_call_writes_back_once() -> None:
    policy = Idle({"age": "100s"})
    policy.tick(FakeTarget(), 0.0)
    assert list(policy.tick(FakeTarget(), 5000.0).writes) == [WRITE, MARK]
    assert list(policy.tick(FakeTarget(), 5001.0).writes) == []


def test_period_marks_by_access_time() -> None:
    policy = Idle({"age": "3h", "period": "1h"})
    tick = policy.tick(FakeTarget(), 0.0)
    assert list(tick.writes) == [("idle", "10800"), WRITE]
    assert tick.next_in == 3600.0
    assert policy.tick(FakeTarget(), 3600.0) == tick


def test_period_rounds_age_up_to_whole_seconds() -> None:
    tick = Idle({"age": "1500ms", "period": "1s"}).tick(FakeTarget(), 0.0)
    assert tick.writes[0] == ("idle", "2")


def test_limit_is_set_before_each_writeback() -> None:
    ticks = play(Idle({"age": "1s", "limit": "500"}), FakeTarget(), VirtualClock(), 2)
    assert list(ticks[0].writes) == [MARK]
    assert list(ticks[1].writes) == [("writeback_limit", "500"), ("writeback_limit_enable", "1"), WRITE, MARK]


def test_mode_huge_idle() -> None:
    ticks = play(Idle({"age": "1s", "mode": "huge_idle"}), FakeTarget(), VirtualClock(), 2)
    assert list(ticks[1].writes) == [("writeback", "huge_idle"), MARK]


@pytest.mark.parametrize(
    ("option", "text"),
    [("age", "0"), ("age", "soon"), ("period", "-1"), ("mode", "huge"), ("limit", "-1"), ("limit", "1k")],
)
def test_refuses_values(option: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=f"policy idle: option {option}={text}"):
        Idle({option: text})


def test_it_says_why_it_does_nothing() -> None:
    target = FakeTarget()
    target.values["backing_dev"] = "none\n"
    tick = Idle({}).tick(target, 0.0)
    assert (list(tick.writes), tick.reason) == ([], "zram0 has no backing device")
