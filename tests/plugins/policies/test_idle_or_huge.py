"""idle_or_huge: one write on a zramcore device, two on the kernel's; and idle's way without access times."""

from __future__ import annotations

from collections.abc import Mapping

from zramcore.interfaces import WritebackPolicy
from zramcore.testing.policy import FakeMachine, FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Idle, IdleOrHuge


class TestIdleOrHugeConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return IdleOrHuge(options)


def kernel(*missing: str) -> FakeTarget:
    target = FakeTarget()
    target.capabilities = frozenset({"idle", "writeback", "idle_age"} - set(missing))  # type: ignore[attr-defined]
    return target


def test_a_zramcore_device_takes_the_union_in_one_write() -> None:
    ticks = play(IdleOrHuge({"age": "2h", "period": "10m"}), FakeTarget(), VirtualClock(), 1)
    assert list(ticks[0].writes) == [("idle", "7200"), ("writeback", "idle_or_huge")]
    assert ticks[0].reason == "writing back huge pages, and pages untouched for 7200 s"


def test_the_kernel_takes_it_in_two() -> None:
    ticks = play(IdleOrHuge({"age": "2h", "limit": "9"}), kernel(), VirtualClock(), 2)
    limit = [("writeback_limit", "9"), ("writeback_limit_enable", "1")]
    assert list(ticks[1].writes) == [*limit, ("writeback", "huge"), ("writeback", "idle"), ("idle", "all")]


def test_a_kernel_without_access_times_is_marked_and_waited_for() -> None:
    for kind in (Idle, IdleOrHuge):
        ticks = play(kind({"age": "2h", "period": "10m"}), kernel("idle_age"), VirtualClock(), 2)
        assert list(ticks[0].writes) == [("idle", "all")]
        assert ticks[0].next_in == 7200.0
        assert ticks[1].writes[-1] == ("idle", "all")


def test_time_asleep_does_not_make_pages_old() -> None:
    policy, clock = Idle({"age": "2h", "period": "10m"}), VirtualClock()
    policy.machine = machine = FakeMachine()
    play(policy, FakeTarget(), clock, 1)
    machine.slept = 8 * 3600.0
    (tick,) = play(policy, FakeTarget(), clock, 1)
    assert tick.writes[0] == ("idle", str(10 * 3600))
