"""Four threads write and read while passes run: what a read returns was current at some time during the read.

Every page carries its slot, a version and a checksum. A slot has one writer (slot modulo threads), so its versions only
grow; a reader notes the version committed before the read and the one begun after it, and what it sees lies between.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import check_consistent, peek, stat

PAGES = 192
THREADS = 4
OPERATIONS = 6_000
PASSES = (
    ("idle", "all"),
    ("writeback", "idle"),
    ("writeback", "3"),
    ("recompress", "priority=1"),
    ("compact", "1"),
    ("writeback", "page_indexes=0-63"),
)


def stamp(slot: int, version: int, page_size: int) -> bytes:
    """A page that says what it is: same-filled, compressible or huge in turn. Version 0 is a page never written."""
    if not version:
        return bytes(page_size)
    if version % 5 == 0:
        return (slot << 32 | version).to_bytes(8, "little") * (page_size // 8)
    noise = Random(slot << 32 | version).randbytes((page_size - 64) if version % 5 == 1 else 200 * (version % 5))
    body = slot.to_bytes(8, "little") + version.to_bytes(8, "little") + noise
    body = body.ljust(page_size - 4, b".")
    return body + zlib.crc32(body).to_bytes(4, "little")


def version_of(page: bytes, slot: int) -> int:
    """The version of an intact stamp of this slot; AssertionError for anything else."""
    if page == bytes(len(page)):
        return 0
    word = int.from_bytes(page[:8], "little")
    if page == page[:8] * (len(page) // 8):
        assert word >> 32 == slot, f"slot {slot} returned the page of slot {word >> 32}"
        return word & 0xFFFFFFFF
    assert zlib.crc32(page[:-4]) == int.from_bytes(page[-4:], "little"), f"slot {slot} returned a torn page"
    assert word == slot, f"slot {slot} returned the page of slot {word}"
    return int.from_bytes(page[8:16], "little")


def errno_of(call: Callable[..., object], *arguments: object) -> str | None:
    """The name of the errno that a call fails with, or None."""
    try:
        call(*arguments)
    except ZramError as error:
        return error.errno_name
    return None


class Stress:
    """The threads, and what they know of each slot."""

    def __init__(self, device: Device, seed: int) -> None:
        self.device = device
        self.size = device.page_size
        self.seed = seed
        self.begun = [0] * PAGES
        self.committed = [0] * PAGES
        self.failures: list[BaseException] = []
        self.operations = [0] * THREADS
        self.passes = 0
        self.done = threading.Event()
        self.moved_on = threading.Condition()

    def stop(self) -> None:
        """End every thread."""
        self.done.set()
        with self.moved_on:
            self.moved_on.notify_all()

    def guarded(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.failures.append(error)
                self.stop()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def write(self, me: int, random: Random) -> None:
        """A page, a part of a page that changes its version, or a discard, of a slot of this thread."""
        slot = random.randrange(PAGES // THREADS) * THREADS + me
        version = self.begun[slot] + 1
        self.begun[slot] = version
        self.device.pwrite(slot * self.size, stamp(slot, version, self.size))
        self.committed[slot] = version

    def read(self, random: Random) -> None:
        """Some pages, each of a version that was current meanwhile."""
        first = random.randrange(PAGES)
        count = min(random.choice((1, 1, 2, 9, 40)), PAGES - first)
        before = self.committed[first : first + count]
        if random.random() < 0.5:
            data = self.device.pread(first * self.size, count * self.size)
        else:
            buffer = bytearray(count * self.size)
            assert self.device.pread_into(first * self.size, buffer) == len(buffer)
            data = bytes(buffer)
        after = self.begun[first : first + count]
        for position in range(count):
            slot = first + position
            seen = version_of(data[position * self.size : (position + 1) * self.size], slot)
            low, high = before[position], after[position]
            assert low <= seen <= high, f"slot {slot} returned version {seen}, not {low} to {high}"

    def client(self, me: int) -> None:
        random = Random(self.seed * THREADS + me)
        while self.operations[me] < OPERATIONS // THREADS and not self.done.is_set():
            (self.write(me, random) if random.random() < 0.45 else self.read(random))
            with self.moved_on:
                self.operations[me] += 1
                self.moved_on.notify_all()

    def passer(self) -> None:
        """Passes, one after the other; their errors may only be those of a full store or an empty budget."""
        random = Random(self.seed)
        while not self.done.is_set():
            name, text = random.choice(PASSES)
            assert errno_of(attributes.store, self.device, name, text) in (None, "ENOSPC", "EIO")
            self.passes += 1

    def let_others_go_on(self, block: int, count: int) -> None:
        """Called in the middle of a pass's write: return when the clients have done some operations meanwhile."""
        with self.moved_on:
            goal = sum(self.operations) + 2 * THREADS
            self.moved_on.wait_for(lambda: self.done.is_set() or sum(self.operations) >= goal)

    def run(self) -> None:
        clients = [self.guarded(self.client, me) for me in range(THREADS)]
        passer = self.guarded(self.passer)
        for client in clients:
            client.join()
        self.stop()
        passer.join()
        if self.failures:
            raise self.failures[0]


@pytest.mark.parametrize(
    ("page_size", "allocator", "blocks", "compressed"),
    [
        (4096, "zsmalloc", 256, "0"),
        (4096, "malloc", 64, "0"),
        (4096, "zsmalloc", 96, "1"),
        (16384, "zsmalloc", 256, "0"),
    ],
)
def test_reads_return_what_was_current(
    device: Callable[..., Device], page_size: int, allocator: str, blocks: int, compressed: str
) -> None:
    made = device(
        PAGES,
        blocks=blocks,
        page_size=page_size,
        comp_algorithm="lz4",
        recomp_algorithm="algo=zstd",
        allocator=allocator,
        compressed_writeback=compressed,
    )
    stress = Stress(made, seed=page_size + blocks)
    FaultyDriver.named("disk").on_write = stress.let_others_go_on
    stress.run()
    assert sum(stress.operations) == OPERATIONS
    assert stress.passes > 10
    assert stat(made, "bd_stat")[2] > 50
    check_consistent(made)
    for slot in range(PAGES):
        assert version_of(peek(made, slot), slot) == stress.committed[slot] == stress.begun[slot]


def test_two_writers_of_a_page_leave_one_of_their_pages(device: Callable[..., Device]) -> None:
    made = device(8, blocks=8)
    start = threading.Barrier(THREADS)

    def write(me: int) -> None:
        start.wait()
        for version in range(1, 301):
            made.pwrite(0, stamp(me, version, 4096) + stamp(me, version, 4096))

    threads = [threading.Thread(target=write, args=(me,)) for me in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = made.pread(0, 8192)
    assert data[:4096] == data[4096:]
    assert data[:4096] in {stamp(me, 300, 4096) for me in range(THREADS)}
    check_consistent(made)


def test_partial_writes_of_one_page_do_not_lose_each_other(device: Callable[..., Device]) -> None:
    """Read-modify-write happens under the slot's lock: four threads fill four quarters of the same page."""
    made = device(2, blocks=2)
    start = threading.Barrier(THREADS)

    def write(me: int) -> None:
        start.wait()
        for offset in range(0, 1024, 8):
            made.pwrite(me * 1024 + offset, bytes([me + 1, offset & 0xFF]) * 4)

    threads = [threading.Thread(target=write, args=(me,)) for me in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = b"".join(bytes([me + 1, offset & 0xFF]) * 4 for me in range(THREADS) for offset in range(0, 1024, 8))
    assert made.pread(0, 4096) == wanted
    check_consistent(made)


def test_resets_while_threads_read_and_write(device: Callable[..., Device]) -> None:
    """A request that meets a reset ends: with the old data, with nothing, or with EIO or ENOSPC; never with rubbish."""
    made = device(64, blocks=64, disk="reset")
    done = threading.Event()
    failures: list[BaseException] = []
    pages = [stamp(slot, 1, 4096) for slot in range(64)]

    def step(random: Random) -> None:
        slot = random.randrange(64)
        if random.random() < 0.5:
            made.pwrite(slot * 4096, b"".join(pages[slot : slot + 3]))
        else:
            assert made.pread(slot * 4096, 4096) in (b"", bytes(4096), pages[slot])
        if random.random() < 0.1:
            attributes.store(made, "idle", "all")
            attributes.store(made, "writeback", "idle")

    def client(me: int) -> None:
        random = Random(me)
        try:
            while not done.is_set():
                assert errno_of(step, random) in (None, "EIO", "ENOSPC", "EINVAL", "ENODEV", "EINTR")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(me,)) for me in range(THREADS)]
    for thread in threads:
        thread.start()
    for round_ in range(40):
        attributes.store(made, "reset", "1")
        attributes.store(made, "backing_dev", "faulty:reset,blocks=16")
        attributes.store(made, "disksize", str((16 + round_) * 4096))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    check_consistent(made)
