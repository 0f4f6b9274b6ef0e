"""The attribute table: formats to the byte, who may be written when, what each refuses, and what a reset keeps."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from zramcore import attributes
from zramcore.attributes import ATTRIBUTES, Attribute
from zramcore.device import Device
from zramcore.errors import NoSuchAttribute, NotPermitted, PluginFault, ZramError
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock, snapshot, stat

DeviceFactory = Callable[..., Device]
PAGE = 4096


def show(device: Device, name: str) -> str:
    return attributes.show(device, name)


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


def refused(device: Device, name: str, text: str) -> ZramError:
    """The error of a refused value: it names attribute and value, and nothing that can be read has changed."""
    before = snapshot(device)
    with pytest.raises(ZramError) as caught:
        store(device, name, text)
    assert snapshot(device) == before
    error = caught.value
    assert error.attribute == name
    assert error.value == text.removesuffix("\n")
    assert name in str(error)
    assert repr(text.removesuffix("\n")) in str(error)
    assert error.errno_name in str(error)
    return error


def small(number: int) -> bytes:
    return (number.to_bytes(8, "little") + Random(number).randbytes(300)).ljust(PAGE, b"\0")


@pytest.fixture
def ready(device: DeviceFactory) -> Device:
    """An initialised device with every setting at something that is not its default."""
    made = device(
        16, blocks=8, comp_algorithm="zstd", recomp_algorithm="algo=lz4hc priority=2", allocator="malloc",
        writeback_limit="40", writeback_limit_enable="1", writeback_batch_size="5", compressed_writeback="1",
        mem_limit="1M",
    )  # fmt: skip
    made.pwrite(0, small(0) + small(1) + bytes(PAGE) + Random(3).randbytes(PAGE))
    return made


@pytest.fixture
def empty(device: DeviceFactory) -> Device:
    """A device without disksize."""
    return device(0, blocks=0)


# The table ------------------------------------------------------------------------------------------------------------

MODES = {
    "rw": "disksize comp_algorithm recomp_algorithm backing_dev writeback_limit writeback_limit_enable "
    "writeback_batch_size compressed_writeback allocator",
    "ro": "initstate mm_stat bd_stat io_stat debug_stat stat block_state",
    "wo": "reset compact mem_limit mem_used_max idle writeback recompress algorithm_params",
}


@pytest.mark.parametrize(("mode", "names"), MODES.items())
def test_modes_are_the_kernels(mode: str, names: str) -> None:
    assert {name: ATTRIBUTES[name].mode for name in names.split()} == dict.fromkeys(names.split(), mode)


def test_every_attribute_says_what_it_is() -> None:
    for name, attribute in ATTRIBUTES.items():
        assert attribute.name == name
        assert attribute.summary.endswith(".")
        assert attribute.since == "-" or attribute.since[0].isdigit()


def test_an_unknown_name_is_enoent_and_gets_a_hint(empty: Device) -> None:
    for call in (lambda: show(empty, "mmstat"), lambda: store(empty, "mmstat", "1")):
        with pytest.raises(NoSuchAttribute) as caught:
            call()
        assert caught.value.errno == errno.ENOENT
        assert "did you mean 'mm_stat'?" in caught.value.hint


def test_the_wrong_direction_is_eacces(ready: Device) -> None:
    for name, attribute in ATTRIBUTES.items():
        if attribute.show is None:
            with pytest.raises(NotPermitted) as caught:
                show(ready, name)
            assert (caught.value.errno, caught.value.attribute) == (errno.EACCES, name)
        elif attribute.store is None:
            assert refused(ready, name, "1\n").errno == errno.EACCES


def test_an_attribute_of_a_plugin_that_crashes_is_eio(ready: Device) -> None:
    def crash(*arguments: Any) -> str:
        raise LookupError("boom")

    table = {"mine": Attribute("mine", crash, crash, "-", "Crashes.")}
    with pytest.raises(PluginFault, match="LookupError: boom") as caught:
        attributes.show(ready, "mine", table)
    assert (caught.value.errno, caught.value.attribute) == (errno.EIO, "mine")
    with pytest.raises(PluginFault, match="LookupError: boom") as caught:
        attributes.store(ready, "mine", "5\n", table)
    assert (caught.value.attribute, caught.value.value) == ("mine", "5")


# Formats --------------------------------------------------------------------------------------------------------------


def test_formats_of_a_device_without_disksize(empty: Device) -> None:
    texts = snapshot(empty)
    zeroes = " ".join(["       0"] * 9) + "\n"
    assert texts["mm_stat"] == zeroes
    assert texts["bd_stat"] == "       0        0        0\n"
    assert texts["io_stat"] == "       0        0 0        0\n"
    assert texts["debug_stat"] == "version: 1\n0        0\n"
    assert texts["stat"] == " ".join(["       0"] * 17) + "\n"
    assert texts["block_state"] == "EINVAL"
    assert texts["disksize"] == "0\n"
    assert texts["initstate"] == "0\n"
    assert texts["backing_dev"] == "none\n"
    assert texts["comp_algorithm"] == "[lz4] lz4hc zstd deflate store \n"
    assert texts["recomp_algorithm"] == ""
    assert texts["allocator"] == "[zsmalloc] malloc \n"
    assert texts["writeback_limit"] == "0\n"
    assert texts["writeback_limit_enable"] == "0\n"
    assert texts["writeback_batch_size"] == "32\n"
    assert texts["compressed_writeback"] == "0\n"


def test_formats_of_a_device_in_use(device: DeviceFactory, clock: Clock) -> None:
    made = device(1024, blocks=8, comp_algorithm="zstd", recomp_algorithm="algo=lz4")
    made.pwrite(0, small(0) + bytes(PAGE) + Random(3).randbytes(PAGE) + small(4))
    clock.now = 1234
    made.pread(3 * PAGE, 10)
    store(made, "writeback", "page_index=2")
    made.pread(2 * PAGE, PAGE)
    made.discard(5 * PAGE, 2 * PAGE)
    store(made, "idle", "100")
    path = made.path
    assert path is not None
    sizes = [path.table.flags_row[index] & 0x1FFFF for index in (0, 3)]
    used = path.allocator.pages_used * PAGE
    peak = path.allocator.peak_pages * PAGE
    assert show(made, "mm_stat") == (
        f"{4 * PAGE:8d} {sum(sizes):8d} {used:8d} {0:8d} {peak:8d} {1:8d} {0:8d} {0:8d} {1:8d}\n"
    )
    assert show(made, "bd_stat") == "       1        1        1\n"
    assert show(made, "io_stat") == "       0        0 0        2\n"
    assert show(made, "block_state") == (
        "           0         1000.000000 ...i..\n"
        "           1         1000.000000 s.....\n"
        "           2         1234.000000 .wh...\n"
        "           3         1234.000000 ......\n"
    )
    assert show(made, "disksize") == "4194304\n"
    assert show(made, "initstate") == "1\n"
    assert show(made, "recomp_algorithm").startswith("#1: [lz4] lz4hc zstd deflate store \n")
    assert show(made, "backing_dev") == "faulty:disk,blocks=8\n"
    assert stat(made, "stat")[0] == 2
    assert stat(made, "stat")[4] == 1
    assert stat(made, "stat")[6] == 4 * PAGE // 512


def test_the_letters_of_recompression(device: DeviceFactory) -> None:
    made = device(4, comp_algorithm="lz4", recomp_algorithm="algo=zstd")
    made.pwrite(0, Random(1).randbytes(PAGE) + b"".join(b"line %d of a text\n" % n for n in range(300))[:PAGE])
    store(made, "recompress", "priority=1")
    assert [line.split()[2] for line in show(made, "block_state").splitlines()] == ["..h..n", "....r."]


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_bd_stat_counts_in_units_of_4_kib(device: DeviceFactory, page_size: int) -> None:
    made = device(4, page_size=page_size, blocks=4)
    made.pwrite(0, Random(1).randbytes(page_size))
    store(made, "writeback", "huge")
    made.pread(0, page_size)
    assert stat(made, "bd_stat") == [page_size // 4096] * 3
    store(made, "writeback_limit", str(page_size // 4096 * 3 + 1))
    assert show(made, "writeback_limit") == f"{page_size // 4096 * 3}\n"


# What is refused ------------------------------------------------------------------------------------------------------

EINVAL, EBUSY, ERANGE, E2BIG, ENODEV = errno.EINVAL, errno.EBUSY, errno.ERANGE, errno.E2BIG, errno.ENODEV

REFUSED_BEFORE_DISKSIZE = [
    ("disksize", "0", EINVAL),
    ("disksize", "", EINVAL),
    ("disksize", "-1", EINVAL),
    ("disksize", " 1M", EINVAL),
    ("disksize", "junk", EINVAL),
    ("disksize", "16E", EINVAL),
    ("disksize", "8E", errno.ENOMEM),
    ("reset", "0", EINVAL),
    ("reset", "x", EINVAL),
    ("reset", "-1", EINVAL),
    ("reset", "65536", ERANGE),
    ("compact", "1", EINVAL),
    ("idle", "all", EINVAL),
    ("idle", "1", EINVAL),
    ("idle", "never", EINVAL),
    ("writeback", "idle", EINVAL),
    ("recompress", "type=idle", EINVAL),
    ("comp_algorithm", "lz5", EINVAL),
    ("comp_algorithm", "", EINVAL),
    ("comp_algorithm", "x" * 128, E2BIG),
    ("recomp_algorithm", "algo=lz5", EINVAL),
    ("recomp_algorithm", "zstd", EINVAL),
    ("recomp_algorithm", "priority=1", EINVAL),
    ("recomp_algorithm", "algo=zstd priority=0", EINVAL),
    ("recomp_algorithm", "algo=zstd priority=4", EINVAL),
    ("recomp_algorithm", "algo=zstd priority=x", EINVAL),
    ("recomp_algorithm", "", EINVAL),
    ("algorithm_params", "level", EINVAL),
    ("algorithm_params", "level=x", EINVAL),
    ("algorithm_params", "priority=4 level=1", EINVAL),
    ("algorithm_params", "priority=-1 level=1", EINVAL),
    ("algorithm_params", "algo=zstd level=1", EINVAL),
    ("algorithm_params", "dict=/nonexistent", EINVAL),
    ("algorithm_params", "dict=/dev/null", EINVAL),
    ("algorithm_params", "dict=/", EINVAL),
    ("algorithm_params", "level=99999999999", ERANGE),
    ("allocator", "slab", EINVAL),
    ("allocator", "", EINVAL),
    ("backing_dev", "", errno.EISDIR),
    ("backing_dev", "/", errno.EISDIR),
    ("backing_dev", "/nonexistent/file", errno.ENOENT),
    ("backing_dev", "/dev/null", errno.ENOTBLK),
    ("backing_dev", "/dev/zram0", EINVAL),
    ("backing_dev", "file:", EINVAL),
    ("backing_dev", "faulty:x,blocks=0", EINVAL),
    ("backing_dev", "faulty:x,blocks", EINVAL),
    ("backing_dev", "faulty:x,colour=red", EINVAL),
    ("backing_dev", "faulty:x,fail_open=13", errno.EACCES),
    ("mem_limit", "", EINVAL),
    ("mem_limit", "x", EINVAL),
    ("mem_limit", "-5", EINVAL),
    ("mem_used_max", "1", EINVAL),
    ("mem_used_max", "", EINVAL),
    ("mem_used_max", "x", EINVAL),
    ("writeback_limit", "x", EINVAL),
    ("writeback_limit", "-1", EINVAL),
    ("writeback_limit", "1K", EINVAL),
    ("writeback_limit", str(1 << 64), EINVAL),
    ("writeback_limit_enable", "", EINVAL),
    ("writeback_limit_enable", "yes", EINVAL),
    ("writeback_batch_size", "0", EINVAL),
    ("writeback_batch_size", "x", EINVAL),
    ("writeback_batch_size", str(1 << 32), EINVAL),
    ("compressed_writeback", "maybe", EINVAL),
    ("compressed_writeback", "", EINVAL),
]

REFUSED_AFTER_DISKSIZE = [
    ("disksize", "1M", EBUSY),
    ("disksize", "0", EINVAL),
    ("comp_algorithm", "lz4", EBUSY),
    ("comp_algorithm", "lz5", EINVAL),
    ("recomp_algorithm", "algo=zstd priority=1", EBUSY),
    ("recomp_algorithm", "algo=lz5", EINVAL),
    ("algorithm_params", "level=1", EBUSY),
    ("allocator", "zsmalloc", EBUSY),
    ("allocator", "slab", EINVAL),
    ("backing_dev", "faulty:other,blocks=8", EBUSY),
    ("backing_dev", "/nonexistent", EBUSY),
    ("compressed_writeback", "0", EBUSY),
    ("compressed_writeback", "maybe", EINVAL),
    ("idle", "", EINVAL),
    ("idle", "ALL", EINVAL),
    ("idle", "all ", EINVAL),
    ("idle", "-1", EINVAL),
    ("idle", "5s", EINVAL),
    ("idle", str(1 << 32), EINVAL),
    ("writeback", "everything", EINVAL),
    ("writeback", "0", EINVAL),
    ("writeback", "4", EINVAL),
    ("writeback", "type=", EINVAL),
    ("writeback", "type=foo", EINVAL),
    ("writeback", "page_index=", EINVAL),
    ("writeback", "page_index=x", EINVAL),
    ("writeback", "page_index=-1", EINVAL),
    ("writeback", "page_index=16", ERANGE),
    ("writeback", f"page_index={1 << 64}", ERANGE),
    ("writeback", "page_indexes=3", EINVAL),
    ("writeback", "page_indexes=3-", EINVAL),
    ("writeback", "page_indexes=-3", EINVAL),
    ("writeback", "page_indexes=0-16", ERANGE),
    ("writeback", "page_indexes=3-2", ERANGE),
    ("writeback", "page_index=0 page_index=16", ERANGE),
    ("writeback", "page_index=0 junk", EINVAL),
    ("recompress", "idle", EINVAL),
    ("recompress", "type=foo", EINVAL),
    ("recompress", "type=incompressible", EINVAL),
    ("recompress", "threshold=4096 priority=2", EINVAL),
    ("recompress", "threshold=x", EINVAL),
    ("recompress", "max_pages=-1", EINVAL),
    ("recompress", f"max_pages={1 << 64}", ERANGE),
    ("recompress", "algo=zstd", EINVAL),
    ("recompress", "algo=lz4", EINVAL),
    ("recompress", "priority=0", EINVAL),
    ("recompress", "priority=1", EINVAL),
    ("recompress", "priority=4", EINVAL),
    ("recompress", "priority=x", EINVAL),
    ("reset", "0", EINVAL),
    ("reset", "", EINVAL),
    ("mem_limit", "x", EINVAL),
    ("writeback_limit", "x", EINVAL),
    ("writeback_batch_size", "0", EINVAL),
]


@pytest.mark.parametrize("newline", ["", "\n"])
@pytest.mark.parametrize(("name", "text", "number"), REFUSED_BEFORE_DISKSIZE)
def test_refused_before_disksize(empty: Device, name: str, text: str, number: int, newline: str) -> None:
    assert refused(empty, name, text + newline).errno == number


@pytest.mark.parametrize("newline", ["", "\n"])
@pytest.mark.parametrize(("name", "text", "number"), REFUSED_AFTER_DISKSIZE)
def test_refused_after_disksize(ready: Device, name: str, text: str, number: int, newline: str) -> None:
    assert refused(ready, name, text + newline).errno == number


def test_writeback_without_a_backing_device(device: DeviceFactory) -> None:
    made = device(4, blocks=0)
    for text in ("idle", "page_index=0", "", "junk", "page_index=99"):
        assert refused(made, "writeback", text).errno == ENODEV


def test_an_open_device_cannot_be_reset(ready: Device) -> None:
    with ready.open(writable=False):
        error = refused(ready, "reset", "1")
        assert error.errno == EBUSY
        assert "close it" in error.hint
    store(ready, "reset", "1")
    assert show(ready, "disksize") == "0\n"


@pytest.mark.parametrize(
    ("algorithm", "params", "number"),
    [
        ("lz4", "level=0", EINVAL),
        ("zstd", "level=99", EINVAL),
        ("deflate", "deflate.winbits=99", EINVAL),
        ("store", "level=1", errno.EOPNOTSUPP),
    ],
)
def test_parameters_are_judged_when_disksize_is_set(empty: Device, algorithm: str, params: str, number: int) -> None:
    """And then the choices are forgotten, as zram_destroy_comps does."""
    store(empty, "comp_algorithm", algorithm)
    store(empty, "recomp_algorithm", "algo=zstd")
    store(empty, "algorithm_params", params)
    with pytest.raises(ZramError) as caught:
        store(empty, "disksize", "1M")
    assert (caught.value.errno, caught.value.attribute) == (number, "disksize")
    assert show(empty, "comp_algorithm").startswith("[lz4]")
    assert show(empty, "recomp_algorithm") == ""
    store(empty, "disksize", "1M")


# What is accepted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 4096), ("4096", 4096), ("4097", 8192), ("1M", 1 << 20), ("1m\n", 1 << 20), ("1MB", 1 << 20),
        ("12junk", 4096), ("1.5M", 4096), ("1 M", 4096), ("0x10K", 16384), ("010K", 8192), ("100G", 100 << 30),
    ],
)  # fmt: skip
def test_sizes(empty: Device, text: str, size: int) -> None:
    """Measured on Linux 7.3.4."""
    store(empty, "disksize", text)
    assert show(empty, "disksize") == f"{size}\n"


def test_choosing_an_algorithm_forgets_its_parameters(empty: Device) -> None:
    store(empty, "comp_algorithm", "zstd")
    store(empty, "algorithm_params", "level=99")
    store(empty, "comp_algorithm", "zstd")
    store(empty, "disksize", "1M")


def test_parameters_are_replaced_as_a_whole(empty: Device, tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"compressible words " * 50)
    store(empty, "comp_algorithm", "zstd")
    store(empty, "algorithm_params", f"dict={tmp_path}/words level=99")
    store(empty, "algorithm_params", "algo=zstd priority=3 level=7")
    params = empty.zcomp.params
    assert (params[0].level, params[0].dictionary) == (7, None)
    assert params[3].level is None


def test_backing_dev_can_be_replaced_before_disksize(empty: Device, tmp_path: Path) -> None:
    store(empty, "backing_dev", "faulty:one,blocks=4")
    one = FaultyDriver.named("one")
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    store(empty, "backing_dev", f"{tmp_path}/file\n")
    assert one.closed
    assert show(empty, "backing_dev") == f"{tmp_path}/file\n"
    assert refused(empty, "backing_dev", f"{tmp_path}/file").errno == EBUSY, "held by this device, as in the kernel"


def test_a_backing_device_belongs_to_one_device(device: DeviceFactory) -> None:
    device(4, blocks=4, disk="shared")
    other = device(0, blocks=0)
    assert refused(other, "backing_dev", "faulty:shared,blocks=4").errno == EBUSY


@pytest.mark.parametrize("text", ["", "\n", "foo=bar", "  "])
def test_writeback_of_nothing_is_success(ready: Device, text: str) -> None:
    store(ready, "writeback", text)
    assert stat(ready, "bd_stat") == [0, 0, 0]


def test_writeback_grammar(device: DeviceFactory) -> None:
    """As in the kernel: a mode ends the parsing, after a range it looks at that range, unknown keys are skipped."""
    made = device(16, blocks=32)
    made.pwrite(0, b"".join(map(small, range(16))))
    store(made, "idle", "all")
    store(made, "writeback", "page_index=0 colour=red page_indexes=2-4 type=idle page_index=99")
    assert [line.split()[2][1] for line in show(made, "block_state").splitlines()] == list("w.www...........")
    made.pread(8 * PAGE, PAGE)
    store(made, "writeback", "page_indexes=7-9")
    assert [line.split()[2][1] for line in show(made, "block_state").splitlines()] == list("w.www..www......")


def test_mem_used_max_starts_again(ready: Device) -> None:
    ready.discard(0, 4 * PAGE)
    assert stat(ready, "mm_stat")[4] > 0
    store(ready, "mem_used_max", "0\n")
    assert stat(ready, "mm_stat")[4] == 0


def test_mem_limit_counts_in_whole_pages(ready: Device) -> None:
    for text, limit in (("1", 4096), ("4097", 8192), ("2M", 2 << 20), ("0", 0)):
        store(ready, "mem_limit", text)
        assert stat(ready, "mm_stat")[3] == limit


def test_the_limit_fails_the_write_and_keeps_the_page(device: DeviceFactory) -> None:
    """Measured on Linux 7.3.4: EIO, failed_writes, the old page stays, the maximum passes the limit, and same-filled
    pages still go in."""
    made = device(16, allocator="zsmalloc", mem_limit="16K")
    made.pwrite(0, Random(0).randbytes(4 * PAGE))
    with pytest.raises(ZramError) as caught:
        made.pwrite(0, Random(1).randbytes(PAGE))
    assert caught.value.errno == errno.EIO
    assert made.pread(0, 4 * PAGE) == Random(0).randbytes(4 * PAGE)
    assert stat(made, "io_stat")[1] == 1
    assert stat(made, "mm_stat")[2:5] == [16384, 16384, 20480]
    made.pwrite(0, b"\1" * PAGE)
    made.pwrite(0, Random(1).randbytes(PAGE))


def test_idle_by_age(device: DeviceFactory, clock: Clock) -> None:
    """A page exactly as old as the age is young; younger ones lose their mark."""
    made = device(4, blocks=0)

    def idle() -> list[int]:
        return [n for n, line in enumerate(show(made, "block_state").splitlines()) if "i" in line.split()[2]]

    for index in range(4):
        made.pwrite(index * PAGE, small(index))
        clock.now += 1
    store(made, "idle", "all")
    assert idle() == [0, 1, 2, 3]
    for text, expected in (("2", [0, 1]), ("0x1", [0, 1, 2]), ("00", [0, 1, 2, 3]), ("4294967295", [])):
        store(made, "idle", text)
        assert idle() == expected


# Reset ----------------------------------------------------------------------------------------------------------------


def test_what_survives_a_reset(ready: Device) -> None:
    driver = FaultyDriver.named("disk")
    store(ready, "reset", "1\n")
    kept = {
        "writeback_limit": "40\n", "writeback_limit_enable": "1\n", "writeback_batch_size": "5\n",
        "compressed_writeback": "1\n",
    }  # fmt: skip
    now = snapshot(ready)
    assert {name: now[name] for name in kept} == kept
    assert now["comp_algorithm"].startswith("[lz4] ")
    assert now["allocator"].startswith("[zsmalloc] ")
    assert now["recomp_algorithm"] == ""
    assert now["backing_dev"] == "none\n"
    assert now["disksize"] == "0\n"
    assert stat(ready, "mm_stat") == [0] * 9
    assert stat(ready, "stat") == [0] * 17
    assert driver.closed
    store(ready, "disksize", "1M")
    assert ready.pread(0, 2 * PAGE) == bytes(2 * PAGE)
    assert stat(ready, "mm_stat")[3] == 0


def test_a_reset_of_a_device_without_disksize_closes_its_backing_device(empty: Device) -> None:
    store(empty, "backing_dev", "faulty:one,blocks=4")
    store(empty, "reset", "1")
    assert FaultyDriver.named("one").closed
    assert show(empty, "backing_dev") == "none\n"
