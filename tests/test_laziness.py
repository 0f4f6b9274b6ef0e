"""Memory: what was never written costs nothing, and what is freed goes back. Measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import NoMemory
from zramcore.slot_table import CHUNK_SHIFT, SCAN_ROWS, SlotTable
from zramcore.testing.inspection import check_consistent, stat

PRELUDE = """
import gc, json, os, sys, tempfile
from random import Random
from zramcore import attributes
from zramcore.device import Device
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

def rss():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def stat(device, name):
    return [int(column) for column in attributes.show(device, name).split()]

found = {}
catalogue = build_catalogue(load_plugins())
device = Device(catalogue)
def store(name, text):
    attributes.store(device, name, text)
def warm_up():
    store("disksize", "1M")
    device.pwrite(0, Random(0).randbytes(1 << 18) + bytes(4096))
    device.pread(0, 1 << 20)
    store("idle", "all")
    store("reset", "1")
"""


def measured(code: str) -> dict[str, Any]:
    """Run `code` after PRELUDE in a fresh process; returns what it put into `found`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{code}\nprint(json.dumps(found))"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_100_gib_device_costs_nothing_until_it_is_written() -> None:
    """Less than 20 MB more resident memory, also after `idle all`, a pass and the stats, and after a few writes at
    both ends."""
    found = measured("""
warm_up()
before = rss()
store("backing_dev", "file:%s/zramcore-lazy-%d,size=1M" % (tempfile.gettempdir(), os.getpid()))
os.unlink("%s/zramcore-lazy-%d" % (tempfile.gettempdir(), os.getpid()))
store("disksize", "100G")
found["disksize"] = rss() - before
store("idle", "all")
store("idle", "10")
found["idle"] = rss() - before
store("writeback", "idle")
store("compact", "1")
attributes.show(device, "block_state")
device.discard(0, 100 << 30)
assert device.pread(50 << 30, 1 << 20) == bytes(1 << 20)
found["everything"] = rss() - before
for offset in (0, 33 << 30, (100 << 30) - 4096):
    device.pwrite(offset, Random(offset).randbytes(4096))
store("idle", "all")
store("writeback", "page_indexes=0-%d" % ((100 << 18) - 1))
found["written"] = rss() - before
found["bd_stat"] = stat(device, "bd_stat")
""")
    assert found.pop("bd_stat") == [3, 0, 3]
    assert {name: size < 20_000_000 for name, size in found.items()} == dict.fromkeys(found, True), found


def test_memory_falls_after_writeback_and_after_discard() -> None:
    """32 MiB that do not compress: they take that much, and give it back when they are written back or discarded."""
    found = measured("""
path = "%s/zramcore-falls-%d" % (tempfile.gettempdir(), os.getpid())
warm_up()
store("backing_dev", "file:" + path + ",size=64M")
os.unlink(path)
store("disksize", "64M")
before = rss()
for offset in range(0, 32 << 20, 1 << 20):
    device.pwrite(offset, Random(offset).randbytes(1 << 20))
found["full"] = rss() - before
store("writeback", "huge")
found["written_back"] = rss() - before
for offset in range(0, 32 << 20, 1 << 20):
    device.pwrite(offset, Random(offset).randbytes(1 << 20))
found["full_again"] = rss() - before
device.discard(0, 32 << 20)
found["discarded"] = rss() - before
store("reset", "1")
found["reset"] = rss() - before
""")
    mib = 1 << 20
    assert found["full"] > 31 * mib, found
    assert found["full"] < 1.10 * 32 * mib + 8 * mib, found
    assert found["full_again"] > 31 * mib, found
    for state in ("written_back", "discarded", "reset"):
        assert found[state] < 8 * mib, found


def test_scattered_pages_cost_their_rows_and_not_more() -> None:
    """A same-filled page each 64 MiB of a 100 GiB device touches one page of each column: 12 KiB and no object."""
    found = measured("""
warm_up()
store("disksize", "100G")
before = rss()
for offset in range(0, 100 << 30, 64 << 20):
    device.pwrite(offset, b"zramcore" * 512)
found["pages"] = stat(device, "mm_stat")[5]
found["rss"] = rss() - before
""")
    assert found["pages"] == 1600
    assert found["rss"] < 1600 * 3 * 4096 + 4_000_000, found


def test_only_touched_chunks_are_scanned() -> None:
    table = SlotTable(1 << 20)
    assert list(table.touched_ranges()) == []
    table.touch(5, 1)
    table.touch((1 << 19) - 1, 2)
    chunk = 1 << CHUNK_SHIFT
    assert list(table.touched_ranges()) == [(0, chunk), ((1 << 19) - chunk, (1 << 19) + chunk)]
    assert list(table.touched_ranges(3, 7)) == [(3, 7)]
    assert list(table.touched_ranges(chunk, 1 << 18)) == []


def test_a_scan_holds_the_locks_for_a_bounded_number_of_rows() -> None:
    table = SlotTable(3 * SCAN_ROWS + 5)
    table.touch(0, 3 * SCAN_ROWS + 5)
    ranges = list(table.touched_ranges())
    assert max(end - start for start, end in ranges) <= SCAN_ROWS
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 3 * SCAN_ROWS + 5
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_65536_pages_of_every_kind(device: Callable[..., Device]) -> None:
    """A table of more than one lock stripe and more than one chunk: whole-device operations reach every page."""
    made = device(65536, blocks=0, comp_algorithm="lz4")
    run = b"".join(n.to_bytes(8, "little") * 512 for n in range(1, 256)) + b"text of a page " * 273 + b"x"
    for index in range(0, 65536, 256 * 16):
        made.pwrite(index * 4096, run)
    assert stat(made, "mm_stat")[5] == 16 * 255
    attributes.store(made, "idle", "all")
    lines = attributes.show(made, "block_state").splitlines()
    assert len(lines) == 16 * 256
    assert sum("i" in line.split()[2] for line in lines) == 16
    check_consistent(made)
    made.discard(0, 65536 * 4096)
    assert stat(made, "mm_stat")[:2] == [0, 0]
    assert stat(made, "io_stat")[3] == 65536
    assert attributes.show(made, "block_state") == ""


@pytest.mark.parametrize("size", ["8E", "4E"])
def test_what_no_address_space_holds_is_enomem(device: Callable[..., Device], size: str) -> None:
    made = device(0, blocks=0)
    with pytest.raises(NoMemory, match="smaller disksize"):
        attributes.store(made, "disksize", size)
    attributes.store(made, "disksize", "1M")
