"""Writes that find no room in the pool: who is told, how long they wait, and what becomes of them."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from random import Random

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import DeviceIOError, InvalidValue
from zramcore.testing.inspection import check_consistent

DeviceFactory = Callable[..., Device]
PAGE = 4096
SLOTS = 64
LIMIT = 8


def noise(count: int, seed: int = 1) -> bytes:
    """Pages that do not compress: each takes one page of the pool."""
    return Random(seed).randbytes(count * PAGE)


@pytest.fixture
def limited(device: DeviceFactory) -> Device:
    """A device whose pool may have 8 pages, and whose backing device has room for all it holds."""
    made = device(SLOTS, blocks=SLOTS)
    attributes.store(made, "mem_limit", str(LIMIT * PAGE))
    return made


def used(device: Device) -> int:
    return int(attributes.show(device, "mm_stat").split()[2]) // PAGE


class Spiller(threading.Thread):
    """Writes all pages back each time it is told to."""

    def __init__(self, device: Device, mark: int | None = None) -> None:
        super().__init__(daemon=True)
        self.device, self.mark = device, mark
        self.told = threading.Event()
        self.passes = 0
        self.over = False

    def run(self) -> None:
        self.device.room.watch(self, self.mark, self.told.set)
        while self.told.wait(10) and not self.over:
            self.told.clear()
            attributes.store(self.device, "idle", "all")
            attributes.store(self.device, "writeback", "idle")
            self.passes += 1
            self.device.room.watch(self, self.mark, self.told.set)

    def __enter__(self) -> Spiller:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over = True
        self.told.set()
        self.join()


# Marks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3, 16])
def test_a_mark_is_told_once_and_costs_the_write_nothing(device: DeviceFactory, chunk: int) -> None:
    made, told = device(SLOTS), []
    made.room.watch("me", 5, lambda: told.append(used(made)))
    content = noise(SLOTS)
    for first in range(0, SLOTS, chunk):
        part = content[first * PAGE : (first + chunk) * PAGE]
        assert made.pwrite(first * PAGE, part) == len(part)
    assert len(told) == 1
    assert told[0] == 5
    assert made.pread(0, SLOTS * PAGE) == content
    assert made.stats.failed_writes == 0
    check_consistent(made)


def test_whose_mark_it_was(device: DeviceFactory) -> None:
    made, told = device(SLOTS), []
    for name, pages in (("low", 3), ("high", 10), ("never", SLOTS + 1)):
        made.room.watch(name, pages, lambda name=name: told.append((name, used(made))))
    made.pwrite(0, noise(SLOTS))
    assert told == [("low", 3), ("high", 10)]


def test_a_new_watch_takes_the_place_of_the_old_one(device: DeviceFactory) -> None:
    made, told = device(SLOTS), []
    made.room.watch("me", 3, lambda: told.append("old"))
    made.room.watch("me", 5, lambda: told.append("new"))
    made.room.watch("you", 2, lambda: told.append("yours"))
    made.room.watch("you", None, lambda: told.append("yours"))
    made.pwrite(0, noise(SLOTS))
    assert told == ["new"]


def test_a_mark_may_be_set_before_the_disksize(device: DeviceFactory) -> None:
    made, told = device(0), []
    made.room.watch("me", 3, lambda: told.append(1))
    made.initialize(SLOTS * PAGE)
    made.pwrite(0, noise(SLOTS))
    assert told == [1]


def test_a_mark_over_the_limit_never_replaces_it(limited: Device) -> None:
    """Those who watch are told all the same when the limit is met: nobody gets further."""
    told: list[int] = []
    limited.room.watch("me", 3 * LIMIT, lambda: told.append(used(limited)))
    with pytest.raises(DeviceIOError, match="no memory for page 8"):
        limited.pwrite(0, noise(SLOTS))
    assert told == [LIMIT]


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_mark_that_another_write_lifts_fails_nobody(device: DeviceFactory, chunk: int) -> None:
    """Several writes meet one mark, of which one lifts it: there is no mem_limit, so no write may fail."""
    made, writers = device(SLOTS), 6
    stop, failures = threading.Event(), []
    content = noise(SLOTS)

    def write(number: int) -> None:
        try:
            while not stop.is_set():
                for first in range(number * chunk, SLOTS - chunk, writers * chunk):
                    made.pwrite(first * PAGE, content[first * PAGE : (first + chunk) * PAGE])
                made.discard(0, SLOTS * PAGE)
        except DeviceIOError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2
    while time.monotonic() < end and not failures:
        made.room.watch("me", 1, lambda: None)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_partial_and_scattered_writes_meet_marks(device: DeviceFactory) -> None:
    made, told = device(SLOTS), []
    content = noise(SLOTS)
    made.room.watch("me", 1, lambda: told.append(1))
    assert made.pwrite(100, content[100 : 3 * PAGE - 7]) == 3 * PAGE - 107
    made.room.watch("me", 4, lambda: told.append(2))
    places = list(range(3, SLOTS))
    pages = [content[at * PAGE : (at + 1) * PAGE] for at in places]
    while places:  # as a server does it: the first that is not written is written by itself
        done = made.write_scattered([at * PAGE for at in places], pages)
        if done < len(places):
            assert made.pwrite(places[done] * PAGE, pages[done]) == PAGE
        places, pages = places[done + 1 :], pages[done + 1 :]
    assert told == [1, 2]
    assert made.pread(0, SLOTS * PAGE)[100 : 3 * PAGE - 7] == content[100 : 3 * PAGE - 7]
    assert made.pread(3 * PAGE, SLOTS * PAGE) == content[3 * PAGE :]
    check_consistent(made)


# Waiting --------------------------------------------------------------------------------------------------------------


def test_without_a_wait_a_write_fails_at_once(limited: Device) -> None:
    assert attributes.show(limited, "mem_limit_wait") == "0\n"
    with pytest.raises(DeviceIOError) as caught:
        limited.pwrite(0, noise(LIMIT + 1))
    assert caught.value.errno == errno.EIO
    assert limited.stats.failed_writes == 1


@pytest.mark.parametrize("mark", [None, LIMIT // 2, LIMIT])
@pytest.mark.parametrize("chunk", [1, 3, 16, SLOTS])
def test_writes_wait_for_what_a_pass_frees(limited: Device, chunk: int, mark: int | None) -> None:
    """Far more than fits goes in, and comes out again; the pool never has more than its limit."""
    attributes.store(limited, "mem_limit_wait", "10000")
    content = noise(SLOTS)
    with Spiller(limited, LIMIT if mark is None else mark) as spiller:
        for first in range(0, SLOTS, chunk):
            part = content[first * PAGE : (first + chunk) * PAGE]
            assert limited.pwrite(first * PAGE, part) == len(part)
            assert used(limited) <= LIMIT
    assert spiller.passes >= 3
    assert limited.pread(0, SLOTS * PAGE) == content
    assert limited.stats.failed_writes == 0
    check_consistent(limited)


def test_partial_writes_wait_too(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "10000")
    content = noise(SLOTS)
    with Spiller(limited, LIMIT):
        for start in range(0, len(content), 3000):
            part = content[start : start + 3000]
            assert limited.pwrite(start, part) == len(part)
    assert limited.pread(0, SLOTS * PAGE) == content
    check_consistent(limited)


def test_many_writers_at_the_limit(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "10000")
    content = noise(SLOTS)

    def write(number: int) -> None:
        for turn in range(6):
            for page in range(number, SLOTS, 8):
                data = noise(1, 1000 * turn + page) if turn < 5 else content[page * PAGE : (page + 1) * PAGE]
                limited.pwrite(page * PAGE, data)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    with Spiller(limited, LIMIT):
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    assert limited.pread(0, SLOTS * PAGE) == content
    assert limited.stats.failed_writes == 0
    check_consistent(limited)


def test_a_write_that_waited_in_vain_keeps_what_was_there(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "50")
    content = noise(LIMIT)
    limited.pwrite(0, content)
    start = time.monotonic()
    with pytest.raises(DeviceIOError, match="no memory for page 8"):
        limited.pwrite(LIMIT * PAGE, noise(4, 2))
    assert time.monotonic() - start >= 0.05
    assert limited.pread(0, SLOTS * PAGE) == content.ljust(SLOTS * PAGE, b"\0")
    assert limited.stats.failed_writes == 1
    check_consistent(limited)


def test_a_write_that_needs_more_than_is_left_fails_in_time(limited: Device) -> None:
    """A zspage has up to 8 pages: there may be room, and not enough."""
    attributes.store(limited, "mem_limit_wait", "100")
    small = Random(3).randbytes(2500).ljust(PAGE, b"\0")
    limited.pwrite(0, small)
    chain = used(limited)
    assert chain > 1
    limited.discard(0, PAGE)
    limited.pwrite(0, noise(LIMIT - 1))
    assert used(limited) == LIMIT - 1
    with pytest.raises(DeviceIOError, match="no memory for page 20"):
        limited.pwrite(20 * PAGE, small)
    check_consistent(limited)


def test_who_comes_after_one_that_waited_in_vain_does_not_wait_again(limited: Device) -> None:
    """Until something is written back: then there is hope."""
    attributes.store(limited, "mem_limit_wait", "400")
    limited.pwrite(0, noise(LIMIT))
    start = time.monotonic()
    for _ in range(20):
        with pytest.raises(DeviceIOError):
            limited.pwrite(LIMIT * PAGE, noise(1, 2))
    assert 0.4 <= time.monotonic() - start < 2 * 0.4
    attributes.store(limited, "writeback", "page_index=0")
    limited.pwrite(LIMIT * PAGE, noise(1, 2))
    start = time.monotonic()
    with pytest.raises(DeviceIOError):
        limited.pwrite(20 * PAGE, noise(1, 3))
    assert time.monotonic() - start >= 0.4


def test_a_discard_gives_hope_again(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "100")
    limited.pwrite(0, noise(LIMIT))
    with pytest.raises(DeviceIOError):
        limited.pwrite(LIMIT * PAGE, noise(1, 2))
    limited.discard(0, LIMIT * PAGE)
    limited.pwrite(0, noise(LIMIT))
    start = time.monotonic()
    with pytest.raises(DeviceIOError):
        limited.pwrite(LIMIT * PAGE, noise(1, 2))
    assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(
    "freed",
    [
        lambda made: made.discard(0, 4 * PAGE),
        lambda made: made.set_mem_limit(2 * LIMIT),
        lambda made: made.set_mem_limit(0),
        lambda made: made.write_zeroes(0, 4 * PAGE),
        lambda made: attributes.store(made, "writeback", "huge"),
    ],
)
def test_memory_from_anywhere_ends_the_wait(limited: Device, freed: Callable[[Device], object]) -> None:
    attributes.store(limited, "mem_limit_wait", "20000")
    limited.pwrite(0, noise(LIMIT))
    timer = threading.Timer(0.05, freed, [limited])
    timer.start()
    start = time.monotonic()
    assert limited.pwrite(20 * PAGE, noise(4, 2)) == 4 * PAGE
    assert time.monotonic() - start < 10
    timer.join()
    assert limited.pread(20 * PAGE, 4 * PAGE) == noise(4, 2)


def test_a_wait_can_be_cut_short(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "20000")
    limited.pwrite(0, noise(LIMIT))
    timer = threading.Timer(0.05, attributes.store, [limited, "mem_limit_wait", "0"])
    timer.start()
    start = time.monotonic()
    with pytest.raises(DeviceIOError, match="no memory"):
        limited.pwrite(20 * PAGE, noise(1, 2))
    assert time.monotonic() - start < 10
    timer.join()


def test_wait_stat_counts_writes_and_what_became_of_them(limited: Device) -> None:
    def figures() -> list[int]:
        return [int(word) for word in attributes.show(limited, "wait_stat").split()]

    attributes.store(limited, "mem_limit_wait", "100")
    limited.pwrite(0, noise(LIMIT))
    assert figures() == [0, 0, 0]
    for _ in range(3):  # only the first of them waits
        with pytest.raises(DeviceIOError):
            limited.pwrite(20 * PAGE, noise(1, 2))
    waits, waited, in_vain = figures()
    assert (waits, in_vain) == (1, 1)
    assert 50 <= waited < 2000  # its tries take some of the 100
    attributes.store(limited, "writeback", "page_index=0")
    limited.pwrite(20 * PAGE, noise(1, 2))
    timer = threading.Timer(0.05, limited.discard, [0, 4 * PAGE])
    timer.start()
    limited.pwrite(30 * PAGE, noise(2, 2))
    timer.join()
    waits, waited_then, in_vain = figures()
    assert (waits, in_vain) == (2, 1)
    assert waited_then > waited
    limited.reset()
    assert figures() == [0, 0, 0]


def test_a_thread_that_is_dismissed_waits_no_longer(limited: Device) -> None:
    """Others on the same device go on waiting."""
    attributes.store(limited, "mem_limit_wait", "20000")
    limited.pwrite(0, noise(LIMIT))
    ended: list[str] = []

    def write(name: str) -> None:
        try:
            limited.pwrite(20 * PAGE, noise(1, 2))
        except DeviceIOError:
            name += " in vain"
        ended.append(name)

    dismissed, patient = (threading.Thread(target=write, args=(name,)) for name in ("dismissed", "patient"))
    dismissed.start()
    patient.start()
    limited.room.dismiss(dismissed)
    dismissed.join(10)
    assert ended == ["dismissed in vain"]
    limited.discard(0, PAGE)
    patient.join(10)
    assert ended == ["dismissed in vain", "patient"]


def test_whoever_is_responsible_can_give_up_for_all(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "20000")
    limited.pwrite(0, noise(LIMIT))
    looks = iter([False, False, True])
    limited.room.given_up = lambda: next(looks)
    start = time.monotonic()
    with pytest.raises(DeviceIOError, match="no memory"):
        limited.pwrite(20 * PAGE, noise(1, 2))
    assert time.monotonic() - start < 10


def test_reset_forgets_both(limited: Device) -> None:
    attributes.store(limited, "mem_limit_wait", "7")
    limited.reset()
    assert attributes.show(limited, "mem_limit_wait") == "0\n"
    limited.initialize(SLOTS * PAGE)
    assert limited.pwrite(0, noise(SLOTS)) == SLOTS * PAGE


@pytest.mark.parametrize("text", ["-1", "x", "", "4294967296"])
def test_what_mem_limit_wait_refuses(limited: Device, text: str) -> None:
    attributes.store(limited, "mem_limit_wait", "7\n")
    with pytest.raises(InvalidValue):
        attributes.store(limited, "mem_limit_wait", text)
    assert attributes.show(limited, "mem_limit_wait") == "7\n"
