"""recompress: mmd's figures (ZRAM.md 3.1), the order of tiers, and a real device."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from zramcore.control import Control, Target
from zramcore.errors import InvalidValue
from zramcore.interfaces import Catalogue, WritebackPolicy
from zramcore.scheduler import Scheduler
from zramcore.testing.inspection import Clock
from zramcore.testing.policy import FakeMachine, FakeTarget, PolicyConformance, VirtualClock, play
from zramcore_plugins.policies import Recompress

ONE = "#1: lz4 [zstd] \n"
TWO = "#1: lz4 [lz4hc] zstd \n#2: lz4 lz4hc [zstd] \n"


class TestRecompressConformance(PolicyConformance):
    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        return Recompress(options)


def with_algorithms(lines: str) -> FakeTarget:
    target = FakeTarget()
    target.values["recomp_algorithm"] = lines
    return target


def passes(priority: int, rest: str = "") -> list[tuple[str, str]]:
    return [("recompress", f"type={mode} priority={priority}{rest}") for mode in ("huge_idle", "idle", "huge")]


@pytest.mark.parametrize(("free", "age"), [(1.0, 14400), (0.5, 7792), (0.0, 7249)])
def test_mmds_round(free: float, age: int) -> None:
    # column "mmd recompress": 1 h, 2 h..4 h, threshold 1024 B, huge_idle then idle then huge
    policy = Recompress({})
    policy.machine = machine = FakeMachine()
    machine.set_free(free)
    (tick,) = play(policy, with_algorithms(ONE), VirtualClock(), 1)
    assert list(tick.writes) == [("idle", str(age)), *passes(1, " threshold=1024")]
    assert tick.next_in == 3600.0


def test_backing_off_for_half_an_hour() -> None:
    # row "backoff": 1800 s
    policy, target = Recompress({}), with_algorithms(ONE)
    policy.tick(target, 0.0)
    early = policy.tick(target, 600.0)
    assert (list(early.writes), early.next_in) == ([], 1200.0)
    assert list(policy.tick(target, 1800.0).writes) != []


def test_the_last_tier_comes_first_so_that_no_page_goes_two_steps_at_once() -> None:
    policy = Recompress({"then": "huge_idle", "max_pages": "500"})
    (tick,) = play(policy, with_algorithms(TWO), VirtualClock(), 1)
    assert list(tick.writes) == [
        ("idle", "86400"),
        ("writeback", "huge_idle"),
        ("idle", "28800"),
        *passes(2, " threshold=1024 max_pages=500"),
        ("idle", "14400"),
        *passes(1, " max_pages=500"),
    ]
    assert tick.reason == "recompressing with priority 1 and 2 from age 4.0 h"


def test_it_needs_a_backing_device_only_to_write_back() -> None:
    assert "writeback" not in Recompress({}).writes
    assert "writeback" in Recompress({"then": "idle"}).writes
    policy, target = Recompress({"then": "idle"}), with_algorithms(ONE)
    target.values["backing_dev"] = "none\n"
    assert not any(attribute == "writeback" for attribute, _ in policy.tick(target, 0.0).writes)


def test_what_it_lacks_is_a_reason() -> None:
    assert Recompress({}).tick(with_algorithms("\n"), 0.0).reason == "zram0 has no secondary algorithm"
    assert Recompress({"priority": "1"}).tick(with_algorithms("#2: [zstd] \n"), 0.0).writes == ()
    target = with_algorithms(ONE)
    target.capabilities = frozenset({"idle"})  # type: ignore[attr-defined]  # as such a kernel's has
    assert Recompress({}).tick(target, 0.0).reason == "zram0 has no recompression on this kernel"
    with pytest.raises(InvalidValue):
        Recompress({"min_age": "5h"})


def test_without_access_times_pages_are_marked_and_waited_for() -> None:
    target = with_algorithms(ONE)
    target.capabilities = frozenset({"idle", "recompress"})  # type: ignore[attr-defined]  # as such a kernel's has
    ticks = play(Recompress({"threshold": "0"}), target, VirtualClock(), 3)
    assert [list(tick.writes) for tick in ticks] == [[("idle", "all")], *[[*passes(1), ("idle", "all")]] * 2]
    assert [tick.next_in for tick in ticks] == [14400.0] * 3


def test_on_a_device_idle_pages_become_denser_and_what_stays_large_is_written_back(
    built_in: Catalogue, tmp_path: Path
) -> None:
    boot = Clock()
    boot.now = 1000
    control = Control(built_in, clock=boot)
    target: Target = control.target(f"zram{control.hot_add()}")
    target.store("comp_algorithm", "lz4")
    target.store("recomp_algorithm", "algo=zstd priority=1")
    target.store("backing_dev", f"file:{tmp_path}/backing,size=4M")
    target.store("disksize", str(300 * 4096))
    source = random.Random(1)
    text = b"".join(source.choice((b"slot ", b"handle ", b"bucket ", b"zspage ", b"class ")) for _ in range(90_000))
    contents = b""
    for page in range(300):
        if page == 200:
            boot.now += 100_000  # the rest is new
        data = source.randbytes(4096) if page < 100 else text[page * 1000 : page * 1000 + 4096]
        target.device.pwrite(page * 4096, data)
        contents += data
    boot.now += 60
    scheduler = Scheduler(clock=VirtualClock())
    before = target.show("mm_stat").split()
    scheduler.add(target, Recompress({"then": "huge_idle", "modes": "huge_idle,idle"}))
    (report,) = scheduler.run_due()
    assert report.error == ""
    assert report.freed is not None
    assert report.freed >= 100 * 4096
    flags = [line.split()[2] for line in target.show("block_state").splitlines()]
    assert all("w" in flag for flag in flags[:100]), "large and old: written back"
    assert all("r" in flag for flag in flags[100:200]), "old: recompressed"
    assert not any("r" in flag or "w" in flag for flag in flags[200:]), "new: left alone"
    assert int(before[1]) - int(target.show("mm_stat").split()[1]) > 100 * 4096
    assert target.device.pread(0, 300 * 4096) == contents
