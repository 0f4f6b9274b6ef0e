"""BackingStore: lowest block first, pins, verdicts, discards; a state machine against plain sets."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zramcore.backing import MAX_RUN, BackingStore, Pin
from zramcore.block_io import aligned_memory
from zramcore.errors import DeviceIOError, InvalidValue, NoBackingDevice, PluginFault
from zramcore.interfaces import BackingDriver, BackingSpec, Verdicts
from zramcore.testing.backing import page
from zramcore.testing.faults import FaultyDriver, Gate

DRIVERS: dict[str, type[BackingDriver]] = {"faulty": FaultyDriver}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    FaultyDriver.reset()


def open_store(options: str = "blocks=64") -> tuple[BackingStore, FaultyDriver]:
    store = BackingStore.open(f"faulty:disk,{options}", DRIVERS, 4096)
    return store, FaultyDriver.named("disk")


def pages(blocks: list[int]) -> list[bytes]:
    return [page(block, 4096) for block in blocks]


# Opening and closing ----------------------------------------------------------------------------------------------


def test_shows_what_it_was_given() -> None:
    store, driver = open_store("blocks=10")
    assert store.spec_text == "faulty:disk,blocks=10"
    assert (store.nr_blocks, store.block_size, store.bd_count) == (10, 4096, 0)
    assert store.driver is driver
    assert BackingStore(FaultyDriver(BackingSpec("other"))).spec_text == "other"


def test_opening_passes_the_errno_on() -> None:
    with pytest.raises(DeviceIOError) as caught:
        open_store("fail_open=5")
    assert caught.value.errno == errno.EIO
    open_store()
    with pytest.raises(OSError, match="in use") as busy:
        open_store()
    assert busy.value.errno == errno.EBUSY


def test_opening_names_a_broken_plugin() -> None:
    class Broken(FaultyDriver):
        name = "broken"

        def __init__(self, spec: BackingSpec) -> None:
            raise ZeroDivisionError("oops")

    with pytest.raises(PluginFault, match=r"broken.*oops") as caught:
        BackingStore.open("broken:disk", {"broken": Broken}, 4096)
    assert caught.value.plugin == "broken"


def test_driver_without_a_block_is_closed_again() -> None:
    class Empty(FaultyDriver):
        name = "empty"

        def __init__(self, spec: BackingSpec) -> None:
            super().__init__(spec)
            self.nr_blocks = 0

    with pytest.raises(InvalidValue, match="smaller than one block"):
        BackingStore.open("empty:disk", {"empty": Empty}, 4096)
    assert FaultyDriver.named("disk").closed


def test_close_is_idempotent_and_final() -> None:
    store, driver = open_store("blocks=8,discard=1")
    blocks = store.reserve_many(2)
    pin = store.pin([1])
    store.close()
    store.close()
    assert driver.closed
    operations: list[Callable[[], object]] = [
        lambda: store.read([0]),
        lambda: store.write([0], pages([0])),
        store.flush,
    ]
    for operation in operations:
        with pytest.raises(NoBackingDevice):
            operation()
    store.release_many(blocks)  # a reset frees its slots in whatever order
    pin.release()
    assert store.bd_count == 0
    assert driver.discards == 0


def test_close_waits_for_io_under_way() -> None:
    store, driver = open_store()
    closed_during: list[bool] = []
    waiting = threading.Event()
    real_wait = store._idle.wait

    def wait(timeout: float | None = None) -> bool:
        waiting.set()
        return real_wait(timeout)

    store._idle.wait = wait  # type: ignore[method-assign]
    closer = threading.Thread(target=store.close)
    with Gate() as gate:
        driver.on_read = gate
        driver.after_read = lambda block, count: closed_during.append(driver.closed)
        reader = threading.Thread(target=store.read, args=([0],))
        reader.start()
        gate.wait()
        closer.start()
        assert waiting.wait(30)
        assert not driver.closed
    reader.join(30)
    closer.join(30)
    assert closed_during == [False]
    assert driver.closed


def test_a_close_that_fails_is_said_once() -> None:
    store, driver = open_store()

    def fail() -> None:
        raise OSError(errno.EIO, "late write")

    driver.close = fail  # type: ignore[method-assign]
    with pytest.raises(DeviceIOError, match="closing"):
        store.close()
    store.close()


# Blocks -----------------------------------------------------------------------------------------------------------


def test_lowest_block_first() -> None:
    store, _ = open_store("blocks=8")
    assert [store.reserve() for _ in range(5)] == [0, 1, 2, 3, 4]
    store.release(3)
    store.release_many([1, 0])
    assert store.bd_count == 2
    assert store.reserve() == 0
    assert store.reserve_many(3) == [1, 3, 5]
    assert store.reserve_many(10) == [6, 7]
    assert store.reserve() is None
    assert store.reserve_many(1) == []
    assert store.bd_count == 8


@pytest.mark.parametrize("block", [2, 5, -1, 8, 1 << 40])
def test_release_of_what_is_not_reserved(block: int) -> None:
    store, _ = open_store("blocks=8")
    store.reserve_many(4)
    store.release(2)
    with pytest.raises(InvalidValue, match="not reserved"):
        store.release_many([0, block, 1])
    assert store.bd_count == 2
    assert store.reserve_many(8) == [0, 2, 4, 5, 6, 7]


def test_threads_never_share_a_block() -> None:
    store, _ = open_store("blocks=200")
    owned: list[set[int]] = [set() for _ in range(4)]
    start = threading.Barrier(4)
    overlaps: list[set[int]] = []

    def work(number: int) -> None:
        mine = owned[number]
        start.wait(30)
        for turn in range(200):
            got = (
                store.reserve_many(turn % 7)
                if turn % 2
                else [block for block in (store.reserve(),) if block is not None]
            )
            mine.update(got)
            for other in range(4):
                if other != number and owned[other] & set(got):
                    overlaps.append(set(got))
            while len(mine) > 20:
                store.release(mine.pop())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert overlaps == []
    assert store.bd_count == sum(len(mine) for mine in owned)
    assert len(set().union(*owned)) == store.bd_count


# Pins -------------------------------------------------------------------------------------------------------------


def test_pinned_block_is_not_handed_out_again() -> None:
    store, _ = open_store("blocks=4")
    store.reserve_many(3)
    with store.pin([0, 1]):
        with store.pin([1]):
            store.release_many([0, 1])
            assert store.bd_count == 1
            assert store.reserve() == 3
            assert store.reserve() is None
        assert store.reserve() is None
    assert store.reserve_many(4) == [0, 1]


def test_pin_of_a_free_block_keeps_it_free_of_owners() -> None:
    store, _ = open_store("blocks=4")
    pin = store.pin([0])
    assert store.bd_count == 0
    with pytest.raises(InvalidValue):
        store.release(0)
    assert store.reserve_many(4) == [1, 2, 3]
    pin.release()
    pin.release()
    assert store.reserve() == 0


def test_pin_checks_before_it_pins() -> None:
    store, _ = open_store("blocks=4")
    for blocks in ([0, 4], [0, -1]):
        with pytest.raises(InvalidValue):
            store.pin(blocks)
    assert store.reserve() == 0


def test_pin_does_not_follow_the_callers_list() -> None:
    store, _ = open_store("blocks=4")
    blocks = [0, 1]
    with store.pin(blocks):
        blocks.append(2)
    assert store.reserve_many(4) == [0, 1, 2, 3]


def test_a_read_pins_while_it_lasts() -> None:
    """Released and reserved inside the read, the block goes to nobody; afterwards it does."""
    store, driver = open_store("blocks=4")
    store.reserve_many(4)
    store.write([2], pages([2]))
    seen: list[int | None] = []

    def act(block: int, count: int) -> None:
        store.release(2)
        seen.append(store.reserve())

    driver.on_read = act
    assert [bytes(data) for data in store.read([2])] == pages([2])
    assert seen == [None]
    assert store.reserve() == 2


def test_pins_are_dropped_when_a_read_fails() -> None:
    store, driver = open_store("blocks=4")
    store.reserve_many(4)
    driver.fail_read(1, errno.EIO)
    with pytest.raises(DeviceIOError):
        store.read([1, 2])
    store.release_many([1, 2])
    assert store.reserve_many(4) == [1, 2]


# Reading ----------------------------------------------------------------------------------------------------------


def test_reads_any_order_as_runs() -> None:
    store, driver = open_store()
    written = list(range(64))
    store.write(written, pages(written))
    wanted = [9, 3, 4, 40, 5, 3, 41, 0]
    assert [bytes(data) for data in store.read(wanted)] == pages(wanted)
    assert driver.read_runs == [(0, 1), (3, 3), (9, 1), (40, 2)]
    assert store.read([]) == []
    assert driver.reads == 4


def test_long_runs_are_split() -> None:
    store, driver = open_store(f"blocks={3 * MAX_RUN}")
    count = 2 * MAX_RUN + 1
    blocks = list(range(1, 1 + count))
    assert store.write(blocks, pages(blocks)) == [None] * count
    expected = [(1, MAX_RUN), (1 + MAX_RUN, MAX_RUN), (1 + 2 * MAX_RUN, 1)]
    assert driver.write_runs == expected
    assert [bytes(data) for data in store.read(blocks)] == pages(blocks)
    assert driver.read_runs == expected


def test_read_error_keeps_its_errno() -> None:
    store, driver = open_store()
    driver.bad_blocks[3] = errno.ETIMEDOUT
    with pytest.raises(DeviceIOError, match="reading blocks 2 to 4") as caught:
        store.read([2, 3, 4])
    assert caught.value.errno == errno.ETIMEDOUT
    driver.bad_blocks[3] = ValueError("bug")
    with pytest.raises(PluginFault, match=r"faulty.*bug") as fault:
        store.read([3])
    assert fault.value.plugin == "faulty"
    assert fault.value.errno == errno.EIO


@pytest.mark.parametrize("size", [0, 4095, 2 * 4096 - 1])
def test_short_read_is_a_fault(size: int) -> None:
    store, driver = open_store()
    driver.shorten_read(1, size)
    with pytest.raises(PluginFault, match=f"{size} bytes"):
        store.read([1, 2])


def test_read_that_returns_no_buffer_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = open_store()
    monkeypatch.setattr(FaultyDriver, "read_blocks", lambda self, block, count: None)
    with pytest.raises(PluginFault, match="NoneType"):
        store.read([1])


# Writing ----------------------------------------------------------------------------------------------------------


SCATTERED = [1, 3, 4, 6, 8]


def test_writes_scattered_blocks_as_runs() -> None:
    store, driver = open_store()
    blocks = [7, 2, 3, 1, 63, 6]
    assert store.write(blocks, pages(blocks)) == [None] * 6
    assert driver.write_runs == [(1, 3), (6, 2), (63, 1)]
    assert [driver.peek(block) for block in blocks] == pages(blocks)
    assert store.write([], []) == []


def test_each_block_gets_its_own_verdict() -> None:
    store, driver = open_store()
    driver.bad_blocks[2] = errno.EIO
    driver.bad_blocks[4] = ZeroDivisionError("bug")
    blocks = [4, 10, 3, 2, 1]
    verdicts = store.write(blocks, pages(blocks))
    assert [verdict and verdict.errno for verdict in verdicts] == [errno.EIO, None, None, errno.EIO, None]
    assert isinstance(verdicts[0], PluginFault)
    assert "bug" in str(verdicts[0])
    assert isinstance(verdicts[3], DeviceIOError)
    assert "block 2" in str(verdicts[3])
    assert driver.write_runs == [(1, 4), (10, 1), (1, 1), (2, 1), (3, 1), (4, 1)]
    assert [driver.peek(block) for block in (10, 3, 1)] == pages([10, 3, 1])


def test_the_driver_gets_all_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, driver = open_store()
    real = driver.begin_write
    calls: list[tuple[list[tuple[int, int]], int]] = []

    def begin_write(runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts]:
        calls.append((list(runs), len(data)))
        return real(runs, data)

    monkeypatch.setattr(driver, "begin_write", begin_write)
    store.write(SCATTERED, pages(SCATTERED))
    store.write([], [])
    assert calls == [([(1, 1), (3, 2), (6, 1), (8, 1)], 5 * 4096)]


def test_a_bad_run_among_many_costs_only_itself() -> None:
    store, driver = open_store("blocks=600")
    driver.bad_blocks[300] = errno.EIO
    blocks = list(range(0, 600, 2))
    verdicts = store.write(blocks, pages(blocks))
    assert [block for block, verdict in zip(blocks, verdicts, strict=True) if verdict is not None] == [300]
    assert "writing block 300" in str(verdicts[150])
    assert driver.writes == len(blocks)
    assert all(driver.peek(block) == page(block, 4096) for block in blocks if block != 300)


@pytest.mark.parametrize("when", ["begin", "wait"])
def test_a_failure_of_all_runs_is_tried_again_block_by_block(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    store, driver = open_store()
    driver.bad_blocks[6] = errno.ENXIO

    def fail() -> Verdicts:
        raise OSError(errno.EAGAIN, "no room")

    monkeypatch.setattr(driver, "begin_write", lambda runs, data: fail if when == "wait" else fail())
    verdicts = store.write(SCATTERED, pages(SCATTERED))
    assert [verdict and verdict.errno for verdict in verdicts] == [None, None, None, errno.ENXIO, None]
    assert driver.write_runs == [(block, 1) for block in SCATTERED]
    verdicts = store.write([20], pages([20]))
    assert [verdict and verdict.errno for verdict in verdicts] == [errno.EAGAIN]
    assert driver.writes == len(SCATTERED)


def _raise(error: Exception) -> Verdicts:
    raise error


BROKEN: dict[str, Callable[[object, object], object]] = {
    "begin raises": lambda runs, data: _raise(ValueError("bug")),
    "begin returns no function": lambda runs, data: None,
    "wait raises": lambda runs, data: lambda: _raise(ValueError("bug")),
    "wait returns nothing": lambda runs, data: lambda: None,
    "one for all": lambda runs, data: lambda: [None],
    "too many": lambda runs, data: lambda: [None] * 5,
    "a set": lambda runs, data: lambda: {None, 1, 2, 3},
    "an iterator": lambda runs, data: lambda: iter([None] * 4),
    "words": lambda runs, data: lambda: "fine",
    "numbers of bytes": lambda runs, data: lambda: [4096, 8192, 4096, 4096],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_driver_that_gives_no_verdicts_is_at_fault(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing of it counts as written."""
    store, driver = open_store()
    monkeypatch.setattr(driver, "begin_write", BROKEN[name])
    verdicts = store.write(SCATTERED, pages(SCATTERED))
    assert [type(verdict) for verdict in verdicts] == [PluginFault] * len(SCATTERED)
    assert "faulty" in str(verdicts[0])
    monkeypatch.undo()
    assert store.write(SCATTERED, pages(SCATTERED)) == [None] * len(SCATTERED)
    store.close()


def test_a_verdict_that_is_none_is_the_fault_of_its_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    store, driver = open_store()
    monkeypatch.setattr(driver, "begin_write", lambda runs, data: lambda: [None, False, KeyboardInterrupt(), None])
    verdicts = store.write(SCATTERED, pages(SCATTERED))
    fault = PluginFault
    assert [type(verdict) for verdict in verdicts] == [type(None), fault, fault, fault, type(None)]
    assert "writing blocks 3 to 4 gave a bool" in str(verdicts[1])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_writes_have_ended_whatever_ends_the_block(error: type[BaseException]) -> None:
    store, driver = open_store("blocks=64,deferred=1")
    driver.bad_blocks[8] = errno.EIO
    data = aligned_memory(len(SCATTERED) * 4096)
    data[:] = b"".join(pages(SCATTERED))
    with pytest.raises(error), store.writing(SCATTERED, data) as verdicts:  # noqa: PT012
        assert driver.writes == 0
        raise error
    assert driver.write_runs == [(1, 1), (3, 2), (6, 1), (8, 1)]
    assert [verdict and verdict.errno for verdict in verdicts] == [None] * 4 + [errno.EIO]


def test_failed_run_that_succeeds_block_by_block_is_no_error() -> None:
    store, driver = open_store()
    driver.fail_write(1, errno.EIO, stored=2)
    assert store.write([0, 1, 2], pages([0, 1, 2])) == [None] * 3
    assert [driver.peek(block) for block in range(3)] == pages([0, 1, 2])


def test_single_block_is_not_tried_twice() -> None:
    store, driver = open_store()
    driver.fail_write(1, errno.ENOSPC)
    verdicts = store.write([5], pages([5]))
    assert verdicts[0] is not None
    assert verdicts[0].errno == errno.ENOSPC
    assert driver.writes == 1


@pytest.mark.parametrize("data", [[], [bytes(4095)], [bytes(4097)], [bytes(4096)] * 2])
def test_write_of_a_wrong_length(data: list[bytes]) -> None:
    store, driver = open_store()
    with pytest.raises(InvalidValue):
        store.write([0], data)
    assert driver.writes == 0


def test_an_interrupt_is_not_a_verdict() -> None:
    store, driver = open_store()

    def interrupt(block: int, count: int) -> None:
        raise KeyboardInterrupt

    driver.on_write = interrupt
    with pytest.raises(KeyboardInterrupt):
        store.write([0, 1], pages([0, 1]))
    driver.on_write = None
    store.close()
    assert driver.closed


def test_flush() -> None:
    store, driver = open_store()
    store.flush()
    assert driver.flushes == 1

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    driver.on_flush = fail
    with pytest.raises(DeviceIOError) as caught:
        store.flush()
    assert caught.value.errno == errno.ENOSPC


# Discarding -------------------------------------------------------------------------------------------------------


def test_discards_only_when_the_driver_wants_it() -> None:
    store, driver = open_store()
    store.release_many(store.reserve_many(8))
    assert driver.discards == 0


def test_released_blocks_are_discarded_in_runs() -> None:
    store, driver = open_store("blocks=64,discard=1")
    store.reserve_many(64)
    store.release_many([9, 3, 4, 5, 20])
    assert driver.discard_runs == [(3, 3), (9, 1), (20, 1)]
    assert store.reserve_many(9) == [3, 4, 5, 9, 20]


def test_block_is_not_handed_out_before_its_discard_is_done() -> None:
    store, driver = open_store("blocks=4,discard=1")
    store.reserve_many(4)
    seen: list[object] = []
    driver.on_discard = lambda block, count: seen.append((store.bd_count, store.reserve()))
    store.release(1)
    assert seen == [(3, None)]
    assert store.reserve() == 1


def test_pinned_block_is_discarded_with_its_last_pin() -> None:
    store, driver = open_store("blocks=4,discard=1")
    store.reserve_many(4)
    with store.pin([1, 2]):
        store.release_many([0, 1, 2])
        assert driver.discard_runs == [(0, 1)]
        assert store.reserve_many(4) == [0]
    assert driver.discard_runs == [(0, 1), (1, 2)]
    assert store.reserve_many(4) == [1, 2]


def test_block_pinned_while_it_is_discarded() -> None:
    """The discard's end does not free it, and the pin's end does not start a second discard beside the first."""
    store, driver = open_store("blocks=4,discard=1")
    store.reserve_many(4)
    pins: list[Pin] = []

    def act(block: int, count: int) -> None:
        driver.on_discard = None
        with store.pin([1]):
            pass
        assert driver.discards == 1
        pins.append(store.pin([1]))

    driver.on_discard = act
    store.release(1)
    assert pins
    assert store.reserve() is None
    pins[0].release()
    assert store.reserve() == 1


def test_failing_discard_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store, driver = open_store("blocks=4,discard=1")
    store.reserve_many(4)
    driver.fail_discards(errno.EIO)
    with caplog.at_level(logging.WARNING):
        store.release(0)
        driver.fail_discards(TypeError("bug"))
        store.release(1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "faulty cannot discard block 0" in caplog.text
    assert store.reserve_many(4) == [0, 1]


# Against a model --------------------------------------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Reserve, release, pin, write and read in any order, beside sets that say what must come out."""

    options: ClassVar[str] = "blocks=70"

    def __init__(self) -> None:
        super().__init__()
        FaultyDriver.reset()
        self.store, self.driver = open_store(self.options)
        self.reserved: set[int] = set()
        self.pins: list[tuple[Pin, list[int]]] = []
        self.contents: dict[int, bytes] = {}
        self.version = 0

    def pinned(self) -> set[int]:
        return {block for _, blocks in self.pins for block in blocks}

    def free(self) -> list[int]:
        return sorted(set(range(70)) - self.reserved - self.pinned())

    def some(self, data: st.DataObject, of: set[int]) -> list[int]:
        chosen: list[int] = data.draw(st.lists(st.sampled_from(sorted(of)), unique=True, max_size=20))
        return chosen

    @rule()
    def reserve(self) -> None:
        expected = next(iter(self.free()), None)
        assert self.store.reserve() == expected
        if expected is not None:
            self.reserved.add(expected)

    @rule(count=st.integers(0, 75))
    def reserve_many(self, count: int) -> None:
        expected = self.free()[:count]
        assert self.store.reserve_many(count) == expected
        self.reserved.update(expected)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        blocks = self.some(data, self.reserved)
        self.store.release_many(blocks)
        self.reserved.difference_update(blocks)
        for block in blocks:
            self.contents.pop(block, None)

    @rule(block=st.integers(-2, 72))
    def release_wrong(self, block: int) -> None:
        if block not in self.reserved:
            with pytest.raises(InvalidValue):
                self.store.release(block)

    @rule(blocks=st.lists(st.integers(0, 69), max_size=10))
    def pin(self, blocks: list[int]) -> None:
        self.pins.append((self.store.pin(blocks), blocks))

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        pin, _ = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        pin.release()

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), bad=st.sets(st.integers(0, 69), max_size=3))
    def write(self, data: st.DataObject, bad: set[int]) -> None:
        blocks = self.some(data, self.reserved)
        self.version += 1
        new = {block: page(self.version << 8 | block, 4096) for block in blocks}
        self.driver.bad_blocks = dict.fromkeys(bad, errno.EIO)
        verdicts = self.store.write(blocks, [new[block] for block in blocks])
        self.driver.bad_blocks = {}
        assert [verdict is None for verdict in verdicts] == [block not in bad for block in blocks]
        for block in set(blocks) - bad:
            self.contents[block] = new[block]

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        if self.contents:
            blocks = data.draw(st.lists(st.sampled_from(sorted(self.contents)), max_size=20))
            assert [bytes(got) for got in self.store.read(blocks)] == [self.contents[block] for block in blocks]

    @invariant()
    def counts(self) -> None:
        assert self.store.bd_count == len(self.reserved)
        assert self.store._active == 0
        assert set(self.store._pins) == self.pinned()

    def teardown(self) -> None:
        for pin, _ in self.pins:
            pin.release()
        self.store.release_many(self.reserved)
        assert self.store.reserve_many(100) == list(range(70))
        self.store.close()


class DiscardingStoreMachine(StoreMachine):
    options = "blocks=70,discard=1"


QUICK = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = QUICK
TestDiscardingStoreMachine = DiscardingStoreMachine.TestCase
TestDiscardingStoreMachine.settings = QUICK
