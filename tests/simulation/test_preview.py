"""Previews against what then really happens: the same policy on the same device, foreseen and run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from zramcore import attributes
from zramcore.control import Target
from zramcore.device import Device
from zramcore.errors import NotSupported
from zramcore.interfaces import Catalogue, PolicyTarget, Tick, WritebackPolicy
from zramcore.kernel import KernelControl
from zramcore.scheduler import Report, Scheduler
from zramcore.simulation import preview
from zramcore.simulation.pool import PoolModel
from zramcore.simulation.preview import Copy, Foreseen, FrozenMachine, foresee, foresee_blind
from zramcore.simulation.sizes import default_samples
from zramcore.testing.inspection import Clock, snapshot
from zramcore.testing.policy import FakeMachine, VirtualClock
from zramcore.testing.samples import make_pages
from zramcore.testing.sysfs import make_sysfs

PAGE, PAGES = 4096, 200
KINDS = list(make_pages(PAGE).values())
DeviceFactory = Callable[..., Device]
HOUR = 3600


@pytest.fixture
def used(device: DeviceFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device with pages of all kinds, ages and states; time stands still."""
    clock.now = 500_000
    monkeypatch.setattr(preview, "boot_time", lambda: clock.now + 0.7)
    new = device(256, blocks=150, comp_algorithm="lz4", recomp_algorithm="algo=zstd priority=1", writeback_limit="5")
    for page in range(PAGES):
        kind = KINDS[page % len(KINDS)]
        new.pwrite(page * PAGE, kind[page:] + kind[:page])
        clock.now += 900 if page % 20 == 0 else 1
    attributes.store(new, "idle", "4000")
    attributes.store(new, "recompress", "type=huge_idle priority=1")
    attributes.store(new, "recompress", "priority=1 max_pages=20")
    attributes.store(new, "writeback", "page_indexes=10-40")
    for page in range(0, PAGES, 11):
        new.pread(page * PAGE, PAGE)
    attributes.store(new, "compact", "1")
    return new


def foreseen(device: Device, catalogue: Catalogue, name: str, options: Mapping[str, str], horizon: float) -> Foreseen:
    """What a policy would do."""

    def pool() -> PoolModel:
        return PoolModel(catalogue.allocators["zsmalloc"](PAGE, 1))

    copy = Copy(Target(device), default_samples().of, pool(), 150)
    machine = FakeMachine()
    machine.set_free(0.4)
    machine.set_stall(0)
    return foresee(copy, pool(), catalogue.policies[name](options), FrozenMachine(machine), horizon)


def really(device: Device, clock: Clock, catalogue: Catalogue, name: str, options: Mapping[str, str]) -> list[Report]:
    """Run it until it has written something back or recompressed."""
    machine = FakeMachine()
    machine.set_free(0.4)
    machine.set_stall(0)
    time, start = VirtualClock(), clock.now
    reports: list[Report] = []
    scheduler = Scheduler(clock=time, machine=machine, on_report=reports.append)
    scheduler.add(Target(device), catalogue.policies[name](options))
    while True:
        clock.now = start + int(time.now())
        scheduler.run_due()
        if any(write.attribute in ("writeback", "recompress") for write in reports[-1].writes):
            return [report for report in reports if report.writes]
        time.advance(reports[-1].next_in)


def _exact(reason: str) -> str:
    """Without what follows from the sizes of objects, which are estimates."""
    return re.sub(r"\d+ KiB of gaps", "gaps", reason)


def memory_of(device: Device) -> int:
    """mem_used_total."""
    return int(attributes.show(device, "mm_stat").split()[2])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("idle", {"age": "1h"}),
        ("idle", {"age": "2h", "period": "1h"}),
        ("huge", {}),
        ("idle_or_huge", {"age": "1h", "period": "1h"}),
        ("adaptive", {"min_age": "1h", "max_age": "2h", "min_round": "0", "modes": "huge_idle,idle,huge"}),
        ("adaptive", {"preset": "android-classic"}),
        ("watermark", {"high": "100K", "low": "60K"}),
        ("pressure", {"age": "30m", "least": "8", "keep": "0"}),
        ("recompress", {"min_age": "1h", "max_age": "1h", "threshold": "0"}),
        ("recompress", {"then": "idle", "then_age": "1h", "threshold": "200"}),
    ],
)
def test_what_is_foreseen_happens(
    used: Device, clock: Clock, built_in: Catalogue, name: str, options: dict[str, str]
) -> None:
    before = snapshot(used), attributes.show(used, "block_state")
    expected = foreseen(used, built_in, name, options, 26 * HOUR)
    assert (snapshot(used), attributes.show(used, "block_state")) == before, "a preview only looks"
    memory = memory_of(used)
    happened = really(used, clock, built_in, name, options)
    acts = [step for step in expected.steps if step.writes]
    assert [step.writes for step in acts] == [
        tuple((write.attribute, write.value, write.ended) for write in report.writes) for report in happened
    ]
    assert [step.after for step in acts] == pytest.approx([report.at for report in happened])
    assert [step.written for step in acts] == [report.written_back for report in happened], "blocks are exact"
    assert [_exact(step.reason) for step in acts] == [_exact(report.reason) for report in happened]
    attributes.store(used, "compact", "1")
    really_freed, freed = memory - memory_of(used), sum(step.freed or 0 for step in acts)
    if name != "recompress":
        assert freed == pytest.approx(really_freed, rel=0.2, abs=4 * PAGE), "memory is an estimate"


def test_a_policy_that_finds_nothing_to_do_is_given_up_at_the_horizon(used: Device, built_in: Catalogue) -> None:
    found = foreseen(used, built_in, "watermark", {"high": "1G", "low": "1G"}, HOUR)
    assert len(found.steps) == 1
    assert "under the high one" in found.steps[0].reason
    assert found.looks == 361


def test_files_of_the_machine_are_read_once() -> None:
    machine = FakeMachine({"/proc/meminfo": "first"})
    frozen = FrozenMachine(machine)
    assert frozen.read("/proc/meminfo") == "first"
    machine.files["/proc/meminfo"] = "second"
    assert frozen.read("/proc/meminfo") == "first"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            frozen.read("/proc/uptime")
        machine.files["/proc/uptime"] = "1 1"


def test_the_kernels_device_without_block_state_shows_decisions_and_is_not_written(
    tmp_path: Path, built_in: Catalogue
) -> None:
    root = make_sysfs(tmp_path, missing=["block_state", "recompress"])
    target = KernelControl(sysfs=root, config={}).target("zram0")
    with pytest.raises(NotSupported, match="cannot be seen"):
        Copy(target, default_samples().of, PoolModel(built_in.allocators["zsmalloc"](PAGE, 1)), None)
    (root / "block/zram0/backing_dev").write_text("/dev/sdb\n")
    before = {file: file.read_text() for file in root.rglob("*") if file.is_file()}
    machine = FrozenMachine(FakeMachine())
    found = foresee_blind(target, built_in.policies["huge"]({}), machine, HOUR)
    assert [step.writes for step in found.steps] == [(("writeback", "huge", ""),)]
    assert (found.steps[0].written, found.steps[0].freed) == (None, None)
    found = foresee_blind(target, built_in.policies["recompress"]({}), machine, HOUR)
    assert found.steps[0].reason == "zram0 has no recompression on this kernel"
    assert {file: file.read_text() for file in root.rglob("*") if file.is_file()} == before


class Stubborn(WritebackPolicy):
    """Writes without asking what the target can do."""

    name = "stubborn"

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        return Tick((("writeback", "huge"),))


def test_what_a_kernel_lacks_is_refused_in_a_preview_too(tmp_path: Path) -> None:
    root = make_sysfs(tmp_path, missing=["block_state", "writeback"])
    target = KernelControl(sysfs=root, config={}).target("zram0")
    found = foresee_blind(target, Stubborn({}), FrozenMachine(FakeMachine()), HOUR)
    assert "zram0 has no writeback on this kernel" in found.steps[0].error
