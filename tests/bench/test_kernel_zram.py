"""The kernel's zram0: refused when it is in use, reset whatever happens; on a plain tree, and for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zramcore.bench import kernel_zram as module
from zramcore.bench.data import MIB, Data
from zramcore.bench.kernel_zram import KernelZram, kernel_zram
from zramcore.errors import DeviceBusy, InvalidValue, NoBackingDevice, NotPermitted, ZramError
from zramcore.kernel import KernelDevice
from zramcore.testing.sysfs import make_sysfs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a zram0, and a plain file for its node beside it."""
    (tmp_path / "zram0").write_bytes(bytes(MIB))
    return make_sysfs(tmp_path / "sys")


def on(tree: Path) -> KernelZram:
    return KernelZram(sysfs=tree, nodes=tree.parent)


def shown(tree: Path, attribute: str) -> str:
    return (tree / "block/zram0" / attribute).read_text()


def test_it_is_set_up_in_the_kernels_order_and_reset(tree: Path) -> None:
    kernel = on(tree)
    kernel.start("lz4", MIB)
    assert (shown(tree, "comp_algorithm"), shown(tree, "disksize"), shown(tree, "reset")) == ("lz4", str(MIB), "1")
    assert kernel.fd >= 0
    (tree / "block/zram0/reset").write_text("")  # what setting it up began with
    kernel.close()
    assert shown(tree, "reset") == "1"
    assert kernel.fd == -1


def test_it_is_left_alone_unless_it_was_started(tree: Path) -> None:
    on(tree).close()
    assert shown(tree, "reset") == ""


@pytest.mark.parametrize(
    ("attribute", "text", "says"),
    [("initstate", "1\n", "its disksize is 0"), ("holders/dm-0", "", "dm-0 stands on it")],
)
def test_a_device_in_use_is_refused(tree: Path, attribute: str, text: str, says: str) -> None:
    file = tree / "block/zram0" / attribute
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(DeviceBusy, match=says):
        on(tree)
    assert shown(tree, "reset") == ""


def test_a_node_that_somebody_holds_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(16, "busy")
        return really(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(DeviceBusy, match="another program holds it"):
        on(tree)


def test_swap_space_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Path.read_text

    def swaps(path: Path, *rest: str) -> str:
        if path == Path("/proc/swaps"):
            return f"Filename Type Size Used Priority\n{tree.parent}/zram0 partition 1 0 5\n"
        return really(path, *rest)

    monkeypatch.setattr(Path, "read_text", swaps)
    with pytest.raises(DeviceBusy, match="swap space"):
        on(tree)


def test_without_root_it_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    with pytest.raises(NotPermitted, match="needs root"):
        on(tree)


def test_without_such_a_device_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoBackingDevice):
        KernelZram(sysfs=make_sysfs(tmp_path / "sys", names=()), nodes=tmp_path)


def test_an_algorithm_that_the_kernel_lacks_touches_nothing(tree: Path) -> None:
    kernel = on(tree)
    with pytest.raises(InvalidValue, match="has no deflate") as caught:
        kernel.start("deflate", MIB)
    kernel.close()
    assert "kernel:lzo-rle" in caught.value.hint
    assert (shown(tree, "disksize"), shown(tree, "reset")) == ("0\n", "")


def test_a_node_that_cannot_be_opened_is_reset_all_the_same(tree: Path) -> None:
    kernel = on(tree)
    (tree.parent / "zram0").unlink()
    with pytest.raises(ZramError, match="cannot open"):
        kernel.start("lz4", MIB)
    kernel.close()
    assert shown(tree, "reset") == "1"


def test_the_real_one_is_written_read_discarded_and_reset(free_zram0: KernelDevice, data: Data) -> None:
    with kernel_zram(True) as kernel:
        assert kernel is not None
        kernel.start("lz4", data.size)
        assert os.pwrite(kernel.fd, data.view, 0) == data.size
        used = kernel.mem_used_total()
        assert 0 < used < data.size
        with pytest.raises(DeviceBusy, match="disksize"):
            KernelZram()
        kernel.discard(0, data.size)
        assert kernel.mem_used_total() < used
        assert free_zram0.initialized
    assert not free_zram0.initialized


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, SystemExit])
def test_the_real_one_is_reset_whatever_ends_the_work(free_zram0: KernelDevice, kind: type[BaseException]) -> None:
    def work() -> None:
        with kernel_zram(True) as kernel:
            assert kernel is not None
            kernel.start("lz4", MIB)
            assert free_zram0.initialized
            raise kind

    with pytest.raises(kind):
        work()
    assert free_zram0.show("disksize") == "0\n"


def test_nothing_is_opened_that_is_not_wanted() -> None:
    with kernel_zram(False) as kernel:
        assert kernel is None
