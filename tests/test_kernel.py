"""The kernel's own zram: for real on this machine's zram0, and on a plain tree that has everything."""

from __future__ import annotations

import errno
import gzip
import mmap
import os
import shutil
from pathlib import Path

import pytest

from zramcore import sysfs_files
from zramcore.errors import (
    BudgetExhausted,
    DeviceBusy,
    DeviceIOError,
    InvalidValue,
    NoBackingDevice,
    NoSpace,
    NoSuchAttribute,
    NotPermitted,
    NotSupported,
    ZramError,
)
from zramcore.kernel import KernelControl, KernelDevice
from zramcore.kernel_features import FILES, SURVIVORS, kernel_config, learn
from zramcore.loop_device import LoopDevice, backing_path
from zramcore.testing.sysfs import add_device, make_sysfs

NO_CONFIG: dict[str, str] = {}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_sysfs(tmp_path / "sys")


def kernel_refuses(monkeypatch: pytest.MonkeyPatch, file: str, number: int) -> list[str]:
    """Have write(2) on `file` fail with an errno, as only a kernel does; what was tried."""
    tried: list[str] = []
    write = sysfs_files.write_file

    def refusing(path: Path, text: str) -> None:
        if path.name == file:
            tried.append(text)
            raise OSError(number, os.strerror(number))
        write(path, text)

    monkeypatch.setattr(sysfs_files, "write_file", refusing)
    return tried


# On a tree that has everything ----------------------------------------------------------------------------------------


def test_attributes_are_the_files_of_the_tree(tree: Path) -> None:
    device = KernelControl(sysfs=tree).target("zram0")
    device.store("disksize", "1G")
    assert (tree / "block/zram0/disksize").read_text() == "1G"
    assert device.show("disksize") == "1G"
    assert device.name == "zram0"
    assert device.show("block_state").splitlines()[1].endswith("..h...")


def test_everything_is_a_capability_but_what_only_zramcore_has(tree: Path) -> None:
    device = KernelControl(sysfs=tree).target("zram0")
    assert device.capabilities == {*FILES, "block_state", "idle_age"}
    assert (
        device.features["idle_or_huge"].line()
        == "idle_or_huge: no, it needs a zramcore device: here it takes two writes"
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_a_missing_capability_that_says_what_it_needs(tmp_path: Path, name: str) -> None:
    tree = make_sysfs(tmp_path, missing=[name])
    device = KernelDevice("zram0", sysfs=tree)
    assert name not in device.capabilities
    assert FILES[name][1] in device.features[name].line()
    with pytest.raises(NoSuchAttribute, match="zram0 has no") as caught:
        device.store(name, "1")
    assert (caught.value.attribute, caught.value.value) == (name, "1")
    assert FILES[name][1] in caught.value.hint
    assert not (tree / "block/zram0" / name).exists()


def test_the_name_of_the_release_candidates_is_understood(tmp_path: Path) -> None:
    tree = make_sysfs(tmp_path, missing=["compressed_writeback"])
    (tree / "block/zram0/writeback_compressed").write_text("0\n")
    device = KernelDevice("zram0", sysfs=tree)
    device.store("compressed_writeback", "1")
    assert (tree / "block/zram0/writeback_compressed").read_text() == "1"
    assert "compressed_writeback" in device.capabilities


@pytest.mark.parametrize(
    ("config", "ages"),
    [
        (None, True),
        ({}, False),
        ({"CONFIG_ZRAM_TRACK_ENTRY_ACTIME": "y"}, True),
        ({"CONFIG_ZRAM_MEMORY_TRACKING": "y"}, True),
        ({"CONFIG_ZRAM_MEMORY_TRACKING": "n"}, False),
    ],
)
def test_whether_pages_have_ages_is_told_by_the_configuration(
    tmp_path: Path, config: dict[str, str] | None, ages: bool
) -> None:
    tree = make_sysfs(tmp_path, missing=["block_state"])
    assert ("idle_age" in KernelDevice("zram0", sysfs=tree, config=config).capabilities) is ages


def test_a_refused_number_teaches_that_there_are_no_ages(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = KernelDevice("zram0", sysfs=make_sysfs(tmp_path / "other", missing=["block_state"]))
    kernel_refuses(monkeypatch, "idle", errno.EINVAL)
    with pytest.raises(InvalidValue):
        device.store("idle", "60")
    assert "idle_age" in device.capabilities, "an uninitialised device refuses everything"
    device.store("initstate", "1")
    with pytest.raises(InvalidValue):
        device.store("idle", "everything")
    assert "idle_age" in device.capabilities, "no number"
    with pytest.raises(InvalidValue):
        device.store("idle", "60")
    assert "idle_age" not in device.capabilities


def test_the_configuration_is_read_from_proc_or_boot(tmp_path: Path) -> None:
    text = 'CONFIG_ZRAM=y\n# CONFIG_ZRAM_WRITEBACK is not set\nCONFIG_ZRAM_DEF_COMP="lzo-rle"\n'
    (tmp_path / "config.gz").write_bytes(gzip.compress(text.encode()))
    assert kernel_config(tmp_path, tmp_path) == {"CONFIG_ZRAM": "y", "CONFIG_ZRAM_DEF_COMP": '"lzo-rle"'}
    (tmp_path / "config.gz").write_bytes(b"\x1f\x8bnot gzip")
    assert kernel_config(tmp_path, tmp_path) is None
    (tmp_path / f"config-{os.uname().release}").write_text("CONFIG_ZRAM=m\n")
    assert kernel_config(tmp_path, tmp_path) == {"CONFIG_ZRAM": "m"}


def test_write_errors_of_the_kernel_name_attribute_and_value(tree: Path) -> None:
    (tree / "block/zram0/writeback").unlink()
    (tree / "block/zram0/writeback").symlink_to("/dev/full")  # a real write(2) that says ENOSPC
    with pytest.raises(NoSpace) as caught:
        KernelDevice("zram0", sysfs=tree).store("writeback", "idle\n")
    assert (caught.value.attribute, caught.value.value, caught.value.errno) == ("writeback", "idle", errno.ENOSPC)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EINVAL, InvalidValue),
        (errno.EBUSY, DeviceBusy),
        (errno.ENODEV, NoBackingDevice),
        (errno.EIO, DeviceIOError),
        (errno.EACCES, NotPermitted),
        (errno.EPERM, NotPermitted),
        (errno.ENOTBLK, ZramError),
    ],
)
def test_each_errno_has_its_class(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ZramError]
) -> None:
    kernel_refuses(monkeypatch, "backing_dev", number)
    with pytest.raises(ZramError) as caught:
        KernelDevice("zram0", sysfs=tree).store("backing_dev", "/dev/sdb")
    assert type(caught.value) is kind
    assert caught.value.errno == number


def test_a_second_pass_that_the_kernel_refuses_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_refuses(monkeypatch, "recompress", errno.EAGAIN)
    with pytest.raises(ZramError, match="another pass runs on it") as caught:
        KernelDevice("zram0", sysfs=tree).store("recompress", "type=idle")
    assert caught.value.errno == errno.EAGAIN


@pytest.mark.parametrize(
    ("enable", "limit", "kind"), [("1", "0", BudgetExhausted), ("0", "0", DeviceIOError), ("1", "5", DeviceIOError)]
)
def test_eio_of_writeback_is_the_budget_only_when_the_limit_says_so(
    tree: Path, monkeypatch: pytest.MonkeyPatch, enable: str, limit: str, kind: type[ZramError]
) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    device.store("writeback_limit_enable", enable)
    device.store("writeback_limit", limit)
    kernel_refuses(monkeypatch, "writeback", errno.EIO)
    with pytest.raises(ZramError) as caught:
        device.store("writeback", "idle")
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["sda", "zram", "zram0/../zram0", "zram7"])
def test_what_is_no_zram_is_no_device(tree: Path, name: str) -> None:
    with pytest.raises(NoBackingDevice):
        KernelControl(sysfs=tree).target(name)


def test_no_attribute_leads_out_of_the_directory(tree: Path) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    for attribute in ("../zram0/disksize", "", "power/control"):
        with pytest.raises(NoSuchAttribute):
            device.store(attribute, "1")


def test_a_device_that_goes_away_is_gone_and_lacks_nothing(tree: Path) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    shutil.rmtree(tree / "block/zram0")
    with pytest.raises(NoBackingDevice, match="gone"):
        device.show("mm_stat")


# Setting up -----------------------------------------------------------------------------------------------------------


def test_set_up_makes_the_writes_in_order(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []
    write = sysfs_files.write_file
    monkeypatch.setattr(
        sysfs_files, "write_file", lambda path, text: (made.append((path.name, text)), write(path, text))[1]
    )
    writes = [("comp_algorithm", "zstd"), ("recomp_algorithm", "algo=zstd priority=1"), ("backing_dev", "/dev/sdb9")]
    writes += [("disksize", "1G"), ("mem_limit", "256M")]
    KernelDevice("zram0", sysfs=tree).set_up([writes[0], ("allocator", "zsmalloc"), *writes[1:]])
    assert made == [("reset", "1"), *writes]


def test_one_that_is_set_up_is_not_set_up_again(tree: Path) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    device.store("initstate", "1")
    with pytest.raises(DeviceBusy, match="set up already"):
        device.set_up([("disksize", "1G")])
    assert (tree / "block/zram0/reset").read_text() == ""


def test_set_up_forgets_what_others_had_set_and_survives_a_reset(tree: Path) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    for attribute in ("writeback_limit_enable", "writeback_limit", "writeback_batch_size", "compressed_writeback"):
        device.store(attribute, "1")
    device.set_up([("writeback_limit", "7"), ("disksize", "1G")])
    assert [device.show(attribute) for attribute in SURVIVORS] == ["0", "7", "32", "0"]


def test_a_failed_set_up_resets_and_raises_the_first_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_refuses(monkeypatch, "disksize", errno.ENOMEM)
    with pytest.raises(ZramError) as caught:
        KernelDevice("zram0", sysfs=tree).set_up([("comp_algorithm", "zstd"), ("disksize", "1G")])
    assert (caught.value.attribute, caught.value.errno) == ("disksize", errno.ENOMEM)
    assert (tree / "block/zram0/reset").read_text() == "1"


def test_another_allocator_is_refused(tree: Path) -> None:
    with pytest.raises(NotSupported, match="zsmalloc"):
        KernelDevice("zram0", sysfs=tree).set_up([("allocator", "malloc")])


def test_a_file_is_not_created_for_a_kernel_that_cannot_use_it(tmp_path: Path) -> None:
    device = KernelDevice("zram0", sysfs=make_sysfs(tmp_path / "sys", missing=["backing_dev"]))
    with pytest.raises(NoSuchAttribute, match="no backing_dev") as caught:
        device.set_up([("backing_dev", f"file:{tmp_path}/disk.img,size=1M")])
    assert "CONFIG_ZRAM_WRITEBACK" in caught.value.hint
    assert not (tmp_path / "disk.img").exists()


def test_reset_waits_for_who_looks_at_a_new_device(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = KernelDevice("zram0", sysfs=tree)
    tried = kernel_refuses(monkeypatch, "reset", errno.EBUSY)
    slept: list[float] = []
    with pytest.raises(DeviceBusy, match="swapoff"):
        device.reset(patience=1.0, sleep=slept.append)
    assert sum(slept) == pytest.approx(1.0, abs=0.06)
    assert len(tried) == len(slept) + 1
    monkeypatch.undo()
    device.reset(sleep=slept.append)
    assert (tree / "block/zram0/reset").read_text() == "1"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/dev/sdb1", "/dev/sdb1"),
        ("file:/var/x.img", "/var/x.img"),
        ("direct:/dev/sdb1", "/dev/sdb1"),
        ("odd:name", "odd:name"),
    ],
)
def test_a_backing_dev_in_our_form_is_a_path_to_the_kernel(text: str, path: str) -> None:
    assert backing_path(text) == path


def test_a_backing_file_is_created_sparse_and_for_its_owner_only(tmp_path: Path) -> None:
    path = backing_path(f"file:{tmp_path}/disk.img,size=8M")
    status = os.stat(path)
    assert (status.st_size, status.st_blocks, status.st_mode & 0o777) == (8 << 20, 0, 0o600)
    (tmp_path / "disk.img").write_bytes(b"kept")
    assert Path(backing_path(f"file:{tmp_path}/disk.img,size=8M")).read_bytes() == b"kept"


@pytest.mark.parametrize("options", ["size=", "size=1Q", "size=0", "cipher=aes"])
def test_options_that_mean_nothing_to_the_kernel_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(InvalidValue):
        backing_path(f"file:{tmp_path}/disk.img,{options}")
    assert not (tmp_path / "disk.img").exists()


def loop_devices_work(path: Path) -> str:
    """Why they do not, or nothing."""
    if os.geteuid() != 0:
        return "loop devices need root"
    try:
        LoopDevice(str(path)).let_go()
    except ZramError as error:
        return str(error)
    return ""


def test_a_plain_file_gets_a_loop_device_that_goes_with_its_last_user(tmp_path: Path, tree: Path) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(bytes(1 << 20))
    if reason := loop_devices_work(file):
        pytest.skip(reason)
    held: list[int] = []
    write = sysfs_files.write_file

    def opening(path: Path, text: str) -> None:
        """Hold the backing device, as the kernel does from this write on."""
        write(path, text)
        if path.name == "backing_dev":
            held.append(os.open(text, os.O_RDWR | os.O_EXCL))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysfs_files, "write_file", opening)
        KernelDevice("zram0", sysfs=tree).set_up([("backing_dev", f"file:{file}"), ("disksize", "1M")])
    node = (tree / "block/zram0/backing_dev").read_text()
    attached = Path("/sys/block", os.path.basename(node), "loop/backing_file")
    try:
        assert attached.read_text().strip() == str(file)
        os.pwrite(held[0], b"\xa5" * 4096, 8192)
        os.fsync(held[0])
    finally:
        os.close(held[0])
    assert not attached.exists(), "the last close takes the loop device away"
    assert file.read_bytes()[8192:12288] == b"\xa5" * 4096


def test_a_file_has_one_loop_device_at_most(tmp_path: Path) -> None:
    file = tmp_path / "disk.img"
    file.write_bytes(bytes(1 << 20))
    if reason := loop_devices_work(file):
        pytest.skip(reason)
    first = LoopDevice(str(file))
    held = os.open(first.node, os.O_RDWR)
    try:
        first.let_go()
        with pytest.raises(DeviceBusy, match=f"in use by {first.node}"):
            LoopDevice(str(file))
    finally:
        os.close(held)
    LoopDevice(str(file)).let_go()


# The set of devices ---------------------------------------------------------------------------------------------------


def test_devices_are_listed_by_number(tree: Path) -> None:
    add_device(tree, "zram10")
    add_device(tree, "zram2")
    (tree / "block/sda").mkdir()
    assert KernelControl(sysfs=tree).names() == ["zram0", "zram2", "zram10"]


def test_hot_add_reads_and_hot_remove_writes(tree: Path) -> None:
    control = KernelControl(sysfs=tree)
    (tree / "class/zram-control/hot_add").write_text("3\n")
    add_device(tree, "zram3")
    assert control.hot_add() == 3
    control.hot_remove(3)
    assert (tree / "class/zram-control/hot_remove").read_text() == "3"
    with pytest.raises(InvalidValue):
        control.hot_remove(-1)


def test_claim_takes_a_free_device_before_it_adds_one(tree: Path) -> None:
    control = KernelControl(sysfs=tree)
    assert control.claim()[0].name == "zram0"
    control.target("zram0").store("initstate", "1")
    add_device(tree, "zram1")
    (tree / "block/zram1/initstate").write_text("1\n")
    add_device(tree, "zram2")
    assert control.claim()[0].name == "zram2"
    (tree / "block/zram2/initstate").write_text("1\n")
    add_device(tree, "zram4")
    (tree / "block/zram4/initstate").write_text("1\n")
    (tree / "class/zram-control/hot_add").write_text("4\n")
    assert control.claim()[0].name == "zram4"


def test_a_kernel_without_zram_says_so(tmp_path: Path) -> None:
    control = KernelControl(sysfs=tmp_path)
    assert not control.present
    assert control.names() == []
    with pytest.raises(NotSupported, match="no zram") as caught:
        control.hot_add()
    assert "modprobe" in caught.value.hint


# For real -------------------------------------------------------------------------------------------------------------


def test_the_real_device_is_set_up_used_marked_compacted_and_reset(zram0: KernelDevice) -> None:
    zram0.set_up([("comp_algorithm", "lzo"), ("disksize", "16M"), ("mem_limit", "8M")])
    assert zram0.initialized
    assert "[lzo]" in zram0.show("comp_algorithm")
    assert zram0.show("disksize") == "16777216\n"
    with mmap.mmap(-1, 64 * 4096) as pages:
        pages.write((b"compressible " * 400)[:4096] * 64)
        node = os.open("/dev/zram0", os.O_RDWR | os.O_DIRECT)
        try:
            assert os.pwrite(node, pages, 0) == len(pages)
            assert zram0.show("mm_stat").split()[0] == str(64 * 4096)
            with pytest.raises(DeviceBusy) as caught:
                zram0.reset(patience=0.1, sleep=lambda seconds: None)
            assert caught.value.attribute == "reset"
        finally:
            os.close(node)
    zram0.store("idle", "all")
    zram0.store("compact", "1")
    zram0.reset()
    assert not zram0.initialized
    assert zram0.show("mm_stat").split()[0] == "0"


def test_the_real_device_refuses_with_errno_attribute_and_value(zram0: KernelDevice) -> None:
    for attribute, value, kind in (
        ("comp_algorithm", "nonesuch", InvalidValue),
        ("disksize", "0", InvalidValue),
        ("compact", "1", InvalidValue),
        ("reset", "0", InvalidValue),
        ("mm_stat", "1", NotPermitted),
    ):
        with pytest.raises(kind) as caught:
            zram0.store(attribute, value)
        assert (caught.value.attribute, caught.value.value) == (attribute, value)
    zram0.store("disksize", "1M")
    with pytest.raises(DeviceBusy):
        zram0.store("disksize", "2M")


def test_every_capability_the_real_kernel_lacks_is_reported_and_refused_by_name(zram0: KernelDevice) -> None:
    zram0.store("disksize", "1M")
    real = Path("/sys/block/zram0")
    for name in FILES:
        assert (name in zram0.capabilities) is (real / name).exists()
        if name not in zram0.capabilities:
            with pytest.raises(NoSuchAttribute, match=f"no {name} on this kernel") as caught:
                zram0.store(name, "1")
            assert "CONFIG_" in caught.value.hint or "Linux" in caught.value.hint
    if "idle_age" in zram0.capabilities:
        zram0.store("idle", "1")
    else:
        with pytest.raises(InvalidValue):
            zram0.store("idle", "1")


def test_ages_are_unlearnt_from_the_real_kernel_where_no_configuration_tells(zram0: KernelDevice) -> None:
    blind = KernelDevice("zram0")
    blind.store("disksize", "1M")
    try:
        blind.store("idle", "1")
    except InvalidValue:
        assert "idle_age" not in blind.capabilities
    else:
        assert "idle_age" in blind.capabilities


def test_the_real_kernel_creates_and_removes_a_device(zram0: KernelDevice) -> None:
    control = KernelControl()
    number = control.hot_add()
    try:
        added = control.target(f"zram{number}")
        assert not added.initialized
        added.store("disksize", "1M")
        added.reset()
    finally:
        control.hot_remove(number)
    assert f"zram{number}" not in control.names()
    with pytest.raises(NoBackingDevice):
        control.hot_remove(number)


def test_learn_needs_no_permission_to_answer(tmp_path: Path) -> None:
    features = learn(tmp_path, tmp_path / "none", None)
    assert not any(feature.present for feature in features.values())
    assert all(feature.needs for feature in features.values())
