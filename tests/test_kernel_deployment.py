"""The kernel's zram in deployments: set up in its order and taken down, left as it is, refused by key, decided."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from zramcore.attach.programs import ProgramFailed, find
from zramcore.attach.tables import is_swap
from zramcore.attributes import ATTRIBUTES
from zramcore.config import check, check_file, load_config
from zramcore.control import Control, Target
from zramcore.deployed import KernelDeployed
from zramcore.deployment import Deployment
from zramcore.errors import ConfigError, DeviceBusy, InvalidValue, NoMemory, ZramError
from zramcore.interfaces import Catalogue, PolicyTarget, Tick, WritebackPolicy
from zramcore.kernel import SYSFS, KernelControl, KernelDevice, sysfs_root
from zramcore.kernel_record import KernelRecord
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.policy import VirtualClock
from zramcore.testing.sysfs import LivingTree, make_sysfs
from zramcore_plugins.policies import Huge

KERNEL = '[device.swap]\ntarget = "kernel"\ndisksize = "8M"\n'
OURS = '[device.fast]\ndisksize = "8M"\n'


@pytest.fixture
def tree(tmp_path: Path, built_in: Catalogue) -> LivingTree:
    return LivingTree(tmp_path / "sys", built_in)


@pytest.fixture
def kernel(tree: LivingTree) -> Iterator[KernelControl]:
    with tree.alive() as kernel:
        yield kernel


@pytest.fixture
def control(built_in: Catalogue) -> Control:
    return Control(built_in)


@pytest.fixture
def up(control: Control, kernel: KernelControl, tmp_path: Path) -> Callable[[str], Deployment]:
    def bring_up(text: str) -> Deployment:
        (tmp_path / "test.toml").write_text(text)
        config = load_config(tmp_path / "test.toml")
        assert [str(problem) for problem in check(config, control.catalogue, kernel=kernel)] == []
        return Deployment.bring_up(config, control, kernel=kernel)

    return bring_up


@pytest.fixture
def problems(built_in: Catalogue, kernel: KernelControl, tmp_path: Path) -> Callable[[str], list[ConfigError]]:
    def find(text: str) -> list[ConfigError]:
        (tmp_path / "test.toml").write_text(text)
        return check_file(tmp_path / "test.toml", built_in, kernel=kernel)[1]

    return find


# Up and down ----------------------------------------------------------------------------------------------------------


def test_it_is_set_up_in_the_kernels_order_and_reset_at_the_end(
    up: Callable[[str], Deployment], tree: LivingTree, tmp_path: Path
) -> None:
    (tmp_path / "b.img").write_bytes(bytes(1 << 20))
    deployment = up(
        f"{KERNEL}writeback_limit_enable = true\nwriteback_limit = 9\nmem_limit = '4M'\ncompressed_writeback = true\n"
        "writeback_batch_size = 8\nbacking_dev = 'b.img'\nallocator = 'zsmalloc'\n"
        "algorithm_params = 'algo=zstd level=5'\nrecomp_algorithm = ['algo=zstd priority=1']\ncomp_algorithm = 'lz4'\n"
    )
    assert [(attribute, text) for _, attribute, text in tree.written] == [
        ("reset", "1"),
        ("comp_algorithm", "lz4"),
        ("recomp_algorithm", "algo=zstd priority=1"),
        ("algorithm_params", "algo=zstd level=5"),
        ("backing_dev", str(tmp_path / "b.img")),
        ("compressed_writeback", "1"),
        ("disksize", "8M"),
        ("mem_limit", "4M"),
        ("writeback_batch_size", "8"),
        ("writeback_limit", "9"),
        ("writeback_limit_enable", "1"),
    ]
    (deployed,) = deployment.devices
    assert (deployed.label, deployed.disksize) == ("swap (kernel:zram0)", 8 << 20)
    assert tree.control.device("zram0").initialized
    tree.written.clear()
    assert deployment.take_down() == []
    assert tree.written == [("zram0", "reset", "1")], "it was there before, and stays"
    assert deployment.devices == []


def test_one_that_had_to_be_added_is_removed(
    up: Callable[[str], Deployment], tree: LivingTree, kernel: KernelControl
) -> None:
    tree.control.target("zram0").store("disksize", "1M")
    deployment = up(KERNEL)
    assert [deployed.label for deployed in deployment.devices] == ["swap (kernel:zram1)"]
    assert kernel.names() == ["zram0", "zram1"]
    deployment.take_down()
    assert kernel.names() == ["zram0"]
    assert tree.control.device("zram0").disksize == 1 << 20


def test_both_kinds_come_up_in_one_file_and_none_has_the_others_name(
    up: Callable[[str], Deployment], control: Control
) -> None:
    deployment = up(f"{OURS}{KERNEL.replace('swap', 'zram0')}[device.more]\ndisksize = '1M'\n")
    assert [deployed.label for deployed in deployment.devices] == ["fast (zram1)", "zram0", "more (zram2)"]
    assert [type(deployed) is KernelDeployed for deployed in deployment.devices] == [False, True, False]
    deployment.take_down()
    assert (control.devices, control.avoided) == ({}, set())


def test_a_label_like_zram1_is_that_device_or_an_error(
    up: Callable[[str], Deployment], kernel: KernelControl, tree: LivingTree
) -> None:
    deployment = up(KERNEL.replace("swap", "zram1"))
    assert deployment.devices[0].target.name == "zram1"
    with pytest.raises(DeviceBusy, match="another process has a device of the kernel's zram under the label zram1"):
        up(KERNEL.replace("swap", "zram1"))
    tree.control.target("zram0").store("disksize", "1M")
    with pytest.raises(DeviceBusy, match="zram0 is in use"):
        up(KERNEL.replace("swap", "zram0"))
    with pytest.raises(InvalidValue, match="the kernel gives zram2, not zram7"):
        up(KERNEL.replace("swap", "zram7"))
    assert kernel.names() == ["zram0", "zram1"]
    deployment.take_down()


@pytest.mark.parametrize(("attribute", "written"), [("disksize", 3), ("mem_limit", 4)])
def test_a_write_that_fails_takes_everything_back(
    up: Callable[[str], Deployment],
    tree: LivingTree,
    kernel: KernelControl,
    control: Control,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
    written: int,
) -> None:
    store = type(tree.control.target("zram0")).store

    def refuse(target: object, name: str, value: str) -> None:
        if (name, value) == (attribute, {"disksize": "16M", "mem_limit": "3M"}[attribute]):
            raise NoMemory("there is not enough")
        store(target, name, value)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tree.control.target("zram0")), "store", refuse)
    second = KERNEL.replace("swap", "second").replace("8M", "16M")
    with pytest.raises(ZramError) as caught:
        up(
            f"{OURS}{KERNEL}backing_dev = 'file:a.img,size=1M'\n"
            f"{second}comp_algorithm = 'zstd'\nbacking_dev = 'file:b.img,size=1M'\nmem_limit = '3M'\n"
        )
    assert (caught.value.errno, caught.value.attribute) == (errno.ENOMEM, f"second/{attribute}")
    assert kernel.names() == ["zram0"], "what was added is gone, what was there is not"
    assert not tree.control.device("zram0").initialized
    assert control.devices == {}
    assert [entry.name for entry in tmp_path.glob("*.img")] == []


def test_one_that_is_in_use_stays_up_until_it_is_not(up: Callable[[str], Deployment], tree: LivingTree) -> None:
    deployment = up(KERNEL)
    monkey = pytest.MonkeyPatch()
    monkey.setattr("zramcore.kernel.PATIENCE", 0.0)
    with tree.control.device("zram0").open(), monkey.context() as patch:
        patch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(DeviceBusy) as caught:
            deployment.take_down()
        assert str(caught.value).startswith("swap (kernel:zram0)/reset: ")
    monkey.undo()
    assert tree.control.device("zram0").initialized
    deployment.take_down()
    assert not tree.control.device("zram0").initialized


# A long pass ----------------------------------------------------------------------------------------------------------


def test_a_scheduler_that_stops_waits_for_one_slice_of_the_kernels_pass(
    kernel: KernelControl, tree: LivingTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zramcore.kernel.SLICE_UNITS", 4)
    theirs = tree.control.target("zram0")
    theirs.store("backing_dev", f"file:{tmp_path}/b,size=1M")
    theirs.store("disksize", "1M")
    theirs.device.pwrite(0, random.Random(1).randbytes(64 * 4096))
    reports: list[Report] = []
    scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
    scheduler.add(kernel.target("zram0"), Huge({}))
    store = type(theirs).store

    def stop_at_the_second(target: Target, attribute: str, value: str) -> None:
        if attribute == "writeback" and sum(written[1] == "writeback" for written in tree.written) == 2:
            scheduler.stop(timeout=0)
        store(target, attribute, value)

    monkeypatch.setattr(type(theirs), "store", stop_at_the_second)
    scheduler.run_due()
    assert theirs.show("bd_stat").split()[2] == "8"
    assert reports[0].decision().endswith("wrote 32 KiB, freed 32 KiB, stopped: told to stop")
    assert (theirs.show("writeback_limit"), theirs.show("writeback_limit_enable")) == ("0\n", "0\n")


# After a crash --------------------------------------------------------------------------------------------------------


def crash(deployment: Deployment) -> None:
    """End it as a kill does: locks go, nothing else does."""
    for deployed in deployment.devices:
        assert isinstance(deployed, KernelDeployed)
        assert deployed.record is not None
        deployed.record.close()


def test_what_a_crash_left_is_taken_over_with_its_data_and_goes_at_the_end(
    up: Callable[[str], Deployment], tree: LivingTree, kernel: KernelControl, tmp_path: Path
) -> None:
    tree.control.target("zram0").store("disksize", "1M")
    text = f"{KERNEL}backing_dev = 'file:b.img,size=1M'\n"
    crash(up(text))
    tree.control.device("zram1").pwrite(0, b"swapped out")
    tree.written.clear()
    deployment = up(text)
    assert tree.written == []
    (deployed,) = deployment.devices
    assert deployed.lines() == [f"{tmp_path}/sys/dev/zram1, taken over as it was left"]
    assert tree.control.device("zram1").pread(0, 11) == b"swapped out"
    deployment.take_down()
    assert kernel.names() == ["zram0"], "an earlier run had added it"


def test_what_a_crash_left_is_not_thrown_away_for_another_file(
    up: Callable[[str], Deployment], tree: LivingTree
) -> None:
    crash(up(KERNEL))
    with pytest.raises(DeviceBusy, match="zram0 is still set up by an earlier run of swap"):
        up(f"{KERNEL}mem_limit = '2M'\n")
    assert tree.control.device("zram0").initialized
    up(KERNEL).take_down()
    up(f"{KERNEL}mem_limit = '2M'\n").take_down()


def test_a_failed_start_leaves_what_a_crash_left(up: Callable[[str], Deployment], tree: LivingTree) -> None:
    crash(up(KERNEL))
    with pytest.raises(ZramError):
        up(f"{KERNEL}{KERNEL.replace('swap', 'zram7')}")
    assert tree.control.device("zram0").initialized
    up(KERNEL).take_down()
    assert not tree.control.device("zram0").initialized


def test_a_record_of_a_device_that_is_gone_or_somebody_elses_by_now_is_forgotten(
    up: Callable[[str], Deployment], tree: LivingTree, kernel: KernelControl
) -> None:
    crash(up(KERNEL))
    tree.control.target("zram0").store("reset", "1")
    tree.control.target("zram0").store("disksize", "3M")
    deployment = up(KERNEL)
    assert deployment.devices[0].target.name == "zram1"
    crash(deployment)
    kernel.hot_remove(1)
    up(KERNEL).take_down()
    assert tree.control.device("zram0").disksize == 3 << 20
    (kernel.records / "swap.json").write_text("{")
    up(KERNEL).take_down()


def test_one_that_was_added_and_got_no_further_is_still_removed_at_the_end(
    up: Callable[[str], Deployment], tree: LivingTree, kernel: KernelControl
) -> None:
    tree.control.target("zram0").store("disksize", "1M")
    record = KernelRecord(kernel.records, "swap")
    record.save(f"zram{kernel.hot_add()}", True, (), complete=False)
    record.close()
    up(KERNEL).take_down()
    assert kernel.names() == ["zram0"]


# As it is -------------------------------------------------------------------------------------------------------------


def test_a_device_of_somebody_else_only_has_policies_and_is_left_as_it_is(
    up: Callable[[str], Deployment], tree: LivingTree, tmp_path: Path
) -> None:
    target = tree.control.target("zram0")
    target.store("backing_dev", f"file:{tmp_path}/theirs,size=1M")
    target.store("disksize", "8M")
    target.device.pwrite(0, random.Random(1).randbytes(8 * 4096))
    deployment = up("[device.theirs]\ntarget = 'kernel'\ndevice = '/dev/zram0'\npolicy = [{name = 'huge'}]\n")
    reports: list[Report] = []
    scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
    assert deployment.attach(scheduler) == 1
    scheduler.run_due()
    assert [report.decision() for report in reports] == [
        "theirs huge: writing back huge pages, wrote 32 KiB, freed 32 KiB, stopped: nothing left"
    ]
    deployment.take_down()
    assert {attribute for _, attribute, _ in tree.written} == {"writeback", "writeback_limit", "writeback_limit_enable"}
    assert (target.device.disksize, target.show("writeback_limit_enable")) == (8 << 20, "0\n")


def test_it_must_be_there_and_set_up(problems: Callable[[str], list[ConfigError]], tree: LivingTree) -> None:
    text = "[device.theirs]\ntarget = 'kernel'\ndevice = 'zram0'\n"
    (problem,) = problems(text)
    assert (problem.key, problem.reason) == ("device.theirs.device", "zram0 is not initialised")
    (problem,) = problems(text.replace("zram0", "zram7"))
    assert problem.key == "device.theirs.device"
    assert "there is no" in problem.reason
    assert "zram0" in problem.hint
    tree.control.target("zram0").store("disksize", "1M")
    assert problems(text) == []


def test_one_that_is_reset_meanwhile_is_a_line_and_not_a_crash(
    up: Callable[[str], Deployment], tree: LivingTree, tmp_path: Path
) -> None:
    tree.control.target("zram0").store("backing_dev", f"file:{tmp_path}/theirs,size=1M")
    tree.control.target("zram0").store("disksize", "8M")
    deployment = up("[device.theirs]\ntarget = 'kernel'\ndevice = 'zram0'\npolicy = [{name = 'idle', age = '10s'}]\n")
    reports: list[Report] = []
    scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
    deployment.attach(scheduler)
    tree.control.target("zram0").store("reset", "1")
    scheduler.run_due()
    assert reports[0].decision() == "theirs idle: zram0 has no backing device"
    tree.control.hot_remove(0)
    tree._forget("zram0")
    scheduler.run(until=15.0)
    assert "idle=all: zram0 is gone (ENODEV), next try in 10 s" in reports[1].decision()


# What it cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "key", "reason", "hint"),
    [
        ("image = {save = 'x.img'}", "image", "is for a zramcore device", 'target = "zramcore"'),
        ("serve = 'unix:/x'", "serve", "the kernel's zram has a node", "nbd-server"),
        ("attach = '/dev/nbd0'", "attach", "is the node of another driver", "name a link"),
        ("page_size = 16384", "page_size", "is not the kernel's to choose", ""),
        ("allocator = 'malloc'", "allocator", "the kernel's zram has zsmalloc", ""),
        ("backing_dev = 'odd:x'", "backing_dev", "has driver 'odd'", 'target = "zramcore"'),
        ("backing_dev = 'file:x,cipher=aes'", "backing_dev", "has no option 'cipher'", ""),
        ("backing_dev = 'file:no/where/x,size=1M'", "backing_dev", "does not exist", "create it first"),
        ("backing_dev = 'absent.img'", "backing_dev", "does not exist", "size=1G"),
        ("comp_algorithm = 'zsdt'", "comp_algorithm", "this kernel has no compression algorithm 'zsdt'", "zstd"),
        ("recomp_algorithm = ['algo=zsdt']", "recomp_algorithm[0]", "no compression algorithm 'zsdt'", "zstd"),
        ("recomp_algorithm = 'priority=1'", "recomp_algorithm", "names no algorithm", "algo="),
        ("mem_limit = true", "mem_limit", "is true, not a size", ""),
        ("idle = 'all'", "idle", "is an action and not a setting", ""),
        ("device = 'sda'", "device", "is not a device of the kernel's zram", "zram0"),
        ("device = 'zram9'", "disksize", "is for who sets zram9 up", "leave device out"),
        ("device = 'zram9'\nswap = true", "swap", "is for who sets zram9 up", ""),
        ("policy = [{name = 'huge'}]", "policy[0]", "has no backing_dev", ""),
        ("policy = [{name = 'hugh'}]", "policy[0]", "there is no policy 'hugh'", "huge"),
    ],
)
def test_mistakes(problems: Callable[[str], list[ConfigError]], lines: str, key: str, reason: str, hint: str) -> None:
    found = [problem for problem in problems(f"{KERNEL}{lines}\n") if problem.key == f"device.swap.{key}"]
    assert len(found) == 1, [str(problem) for problem in problems(f"{KERNEL}{lines}\n")]
    assert reason in found[0].reason
    assert hint in found[0].hint


@pytest.mark.parametrize(
    ("lines", "key", "reason", "hint"),
    [
        ("target = 'kernal'", "target", "there is no target 'kernal'", "did you mean 'kernel'?"),
        ("target = 3", "target", "there is no target 3", "zramcore"),
        ("device = 'zram0'", "device", "the target may not be", 'target = "kernel"'),
        ("target = 'auto'\ndevice = 'zram0'", "device", "the target may not be", ""),
        ("target = 'auto'\nimage = {save = 'x.img'}", "image", "and auto may come to it", 'target = "zramcore"'),
        ("writes_per_day = 'lots'", "writes_per_day", "'lots' is not a size", ""),
        ("writes_per_day = 4095", "writes_per_day", "is less than a page", ""),
        ("writes_per_day = true", "writes_per_day", "is true, not a size", ""),
        ("targt = 'kernel'", "targt", "is not a key of a device", "did you mean 'target'?"),
    ],
)
def test_mistakes_in_the_keys_themselves(
    built_in: Catalogue, tmp_path: Path, lines: str, key: str, reason: str, hint: str
) -> None:
    (tmp_path / "test.toml").write_text(f"[device.zram0]\ndisksize = '1M'\n{lines}\n")
    found = check_file(tmp_path / "test.toml", built_in, kernel=KernelControl(sysfs=tmp_path))[1]
    assert [problem.key for problem in found] == [f"device.zram0.{key}"]
    assert reason in found[0].reason
    assert hint in found[0].hint


def test_an_attribute_of_a_plugin_is_ours_only(built_in: Catalogue, kernel: KernelControl, tmp_path: Path) -> None:
    extra = replace(ATTRIBUTES["mem_limit"], name="colour")
    (tmp_path / "test.toml").write_text(f"{KERNEL}colour = 'red'\n")
    (problem,) = check_file(tmp_path / "test.toml", built_in, {**ATTRIBUTES, "colour": extra}, kernel)[1]
    assert (problem.key, "is an attribute of a plugin" in problem.reason) == ("device.swap.colour", True)


@pytest.mark.parametrize(
    ("missing", "lines", "needs"),
    [
        ("backing_dev", "backing_dev = '/dev/sdb1'", "CONFIG_ZRAM_WRITEBACK"),
        ("recompress", "recomp_algorithm = 'algo=zstd'", "CONFIG_ZRAM_MULTI_COMP"),
        ("algorithm_params", "algorithm_params = 'level=3'", "Linux 6.12"),
        ("compressed_writeback", "compressed_writeback = true", "Linux 7.0"),
        ("writeback_batch_size", "writeback_batch_size = 8", "Linux 6.19"),
        ("writeback_limit", "writeback_limit = 8", "CONFIG_ZRAM_WRITEBACK"),
    ],
)
def test_what_this_kernel_lacks_is_said_before_anything_is_touched(
    built_in: Catalogue, tmp_path: Path, missing: str, lines: str, needs: str
) -> None:
    (tmp_path / "test.toml").write_text(f"{KERNEL}{lines}\n")
    sysfs = make_sysfs(tmp_path / "sys", missing=[missing])
    found = check_file(tmp_path / "test.toml", built_in, kernel=KernelControl(sysfs=sysfs))[1]
    lacking = next(problem for problem in found if "this kernel has no" in problem.reason)
    assert lacking.key == f"device.swap.{lines.split()[0]}"
    assert needs in lacking.hint


def test_it_needs_a_size(problems: Callable[[str], list[ConfigError]]) -> None:
    (problem,) = problems("[device.swap]\ntarget = 'kernel'\n")
    assert (problem.key, "has no disksize" in problem.reason) == ("device.swap", True)


def test_a_kernel_without_zram(built_in: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "test.toml").write_text(KERNEL)
    (problem,) = check_file(tmp_path / "test.toml", built_in, kernel=KernelControl(sysfs=tmp_path))[1]
    assert (problem.key, "this kernel has no zram" in problem.reason) == ("device.swap.target", True)
    assert "modprobe zram" in problem.hint


def test_two_devices_are_not_one_of_the_kernels(problems: Callable[[str], list[ConfigError]], tree: LivingTree) -> None:
    tree.control.target("zram0").store("disksize", "1M")
    lines = "target = 'kernel'\ndevice = 'zram0'\n"
    (problem,) = problems(f"[device.a]\n{lines}[device.b]\n{lines}")
    assert (problem.key, problem.reason) == ("device.b.device", "/dev/zram0 is the device of device a already")


# auto -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "kind", "why"),
    [
        ((), "kernel", "auto: this kernel has writeback"),
        (("writeback",), "zramcore", "auto: this kernel's zram has no writeback"),
    ],
)
def test_auto_is_the_kernels_when_that_has_writeback(
    built_in: Catalogue, tmp_path: Path, missing: tuple[str, ...], kind: str, why: str
) -> None:
    (tmp_path / "test.toml").write_text(KERNEL.replace('"kernel"', '"auto"'))
    kernel = KernelControl(sysfs=make_sysfs(tmp_path / "sys", missing=missing))
    config, problems = check_file(tmp_path / "test.toml", built_in, kernel=kernel)
    assert problems == []
    assert config is not None
    assert (config.devices[0].target.kind, config.devices[0].target.why) == (kind, why)


def test_auto_needs_a_zram_and_may_ask_the_configuration_for_one_without_devices(tmp_path: Path) -> None:
    assert KernelControl(sysfs=tmp_path).why_no_writeback() == "this kernel has no zram"
    bare = make_sysfs(tmp_path / "sys", names=())
    assert KernelControl(sysfs=bare).why_no_writeback() == "this kernel's zram has no writeback"
    configured = KernelControl(sysfs=bare, config={"CONFIG_ZRAM_WRITEBACK": "y"})
    assert configured.why_no_writeback() == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_auto_is_ours_for_who_may_not_set_up_the_kernels(tmp_path: Path) -> None:
    tree = make_sysfs(tmp_path)
    (tree / "class/zram-control/hot_remove").chmod(0o400)
    assert KernelControl(sysfs=tree).why_no_writeback() == "only root sets up the kernel's zram"


def test_where_sysfs_is() -> None:
    assert sysfs_root({}) == SYSFS
    assert sysfs_root({"ZRAMCORE_SYSFS": "/tmp/tree"}) == Path("/tmp/tree")


# For real -------------------------------------------------------------------------------------------------------------

MIXED = """
[device.zram0]
target = "kernel"
comp_algorithm = "lzo"
disksize = "16M"
mem_limit = "8M"

[[device.zram0.policy]]
name = "marks"

[device.fast]
disksize = "8M"
backing_dev = "file:fast.img,size=1M"

[[device.fast.policy]]
name = "huge"
"""


class Marks(WritebackPolicy):
    """Marks pages idle and compacts."""

    name = "marks"
    writes = ("idle", "compact")

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        return Tick((("idle", "all"), ("compact", "1")), 60.0, "marking and compacting")


def test_one_scheduler_drives_the_real_zram0_and_ours_in_one_file(
    zram0: KernelDevice, built_in: Catalogue, tmp_path: Path
) -> None:
    catalogue = replace(built_in, policies={**built_in.policies, "marks": Marks})
    (tmp_path / "test.toml").write_text(MIXED)
    config, problems = check_file(tmp_path / "test.toml", catalogue)
    assert (config is not None, problems) == (True, [])
    deployment = Deployment.bring_up(load_config(tmp_path / "test.toml"), Control(catalogue))
    try:
        kernels, ours = deployment.devices
        assert [deployed.label for deployed in (kernels, ours)] == ["zram0", "fast (zram1)"]
        assert "[lzo]" in kernels.target.show("comp_algorithm")
        Path("/dev/zram0").write_bytes(b"compressible " * 10_000)
        ours.target.device.pwrite(0, random.Random(1).randbytes(16 * 4096))
        reports: list[Report] = []
        scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
        assert deployment.attach(scheduler) == 2
        scheduler.run_due()
        assert [(report.target, report.error) for report in reports] == [("zram0", ""), ("fast", "")]
        assert [write.attribute for write in reports[0].writes] == ["idle", "compact"]
        assert reports[1].written_back == 16 * 4096
        assert int(zram0.show("mm_stat").split()[0]) >= 130_000
    finally:
        deployment.take_down()
    assert not zram0.initialized


def test_every_policy_says_what_the_real_kernel_lacks_in_a_line(zram0: KernelDevice, built_in: Catalogue) -> None:
    zram0.store("disksize", "1M")
    reports: list[Report] = []
    scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
    for policy in built_in.policies.values():
        scheduler.add(zram0, policy({}))
    scheduler.run(until=4 * 3600.0)
    assert {report.policy for report in reports} == set(built_in.policies)
    for report in reports:
        assert "raised" not in report.error
        if "writeback" not in zram0.capabilities and report.error:
            assert "zram0 has no writeback on this kernel (ENOENT)" in report.error


def test_the_real_zram0_is_swap_and_a_file_system_and_neither_afterwards(
    zram0: KernelDevice, built_in: Catalogue, tmp_path: Path
) -> None:
    missing = [name for name in ("blkid", "mkswap", "swapon", "swapoff", "mkfs.ext4", "mount") if not find(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    lines = "[device.zram0]\ntarget = 'kernel'\ndisksize = '32M'\n"
    for use, there in (
        ("swap = true", lambda: is_swap("/dev/zram0")),
        ("mkfs = 'ext4'\nmount = 'mnt'\nattach = 'link'", lambda: os.path.ismount(tmp_path / "mnt")),
    ):
        (tmp_path / "test.toml").write_text(f"{lines}{use}\n")
        try:
            deployment = Deployment.bring_up(load_config(tmp_path / "test.toml"), Control(built_in))
        except ProgramFailed as error:
            pytest.skip(f"not here: {error}")  # a container may not swap or mount
        assert there()
        deployment.take_down()
        assert not there()
        assert not zram0.initialized
    assert not (tmp_path / "link").is_symlink()
    assert not (tmp_path / "mnt").exists()
