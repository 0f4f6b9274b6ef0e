"""BackingStore: which blocks of a backing device are in use, and batched I/O to them, over a BackingDriver.

What a driver does for one contiguous run, the store does for any set of blocks: it sorts, coalesces neighbours into
runs, gives each block its own verdict, and keeps a block that somebody still reads from being handed out again.

Life of a block: free -> reserved (`reserve`) -> released (`release`). A released block counts no more at once, but is
free only when nobody has it pinned and its discard, if the driver wants one, is done: a discard that came after the
block's next owner wrote to it would destroy the new data.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import ParamSpec, TypeVar

from .backing_spec import parse_backing_spec, system_error
from .block_bitmap import BlockBitmap
from .errors import DeviceIOError, InvalidValue, NoBackingDevice, PluginFault, ZramError
from .interfaces import BackingDriver, Buffer

__all__ = ["MAX_RUN", "BackingStore", "Pin", "parse_backing_spec", "system_error"]

MAX_RUN = 256
"""Blocks a driver is asked for in one call at most: 1 MiB of 4 KiB blocks. Runs of 64 gave O_DIRECT 80 to 85 % of the
speed that runs of 256 did, single blocks 8 % (ext4 on a virtio disk, 2 cores)."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_log = logging.getLogger(__name__)


class Pin:
    """A hold on blocks, from `BackingStore.pin` until `release` or the end of a with-block; releasing twice is fine."""

    __slots__ = ("_blocks", "_store")

    def __init__(self, store: BackingStore, blocks: tuple[int, ...]) -> None:
        self._store = store
        self._blocks = blocks

    def release(self) -> None:
        """Let go: blocks released meanwhile become free with their last pin."""
        blocks, self._blocks = self._blocks, ()
        if blocks:
            self._store._unpin(blocks)

    def __enter__(self) -> Pin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class BackingStore:
    """The blocks of one open BackingDriver. Thread-safe; no lock is held during I/O.

    `bd_count` (blocks reserved) may be read at any time without waiting.
    """

    def __init__(self, driver: BackingDriver) -> None:
        """Takes over `driver`, which is open. Raises InvalidValue (EINVAL) when it has not even one block."""
        if driver.nr_blocks < 1:
            raise InvalidValue(f"{driver.spec.path} is smaller than one block of {driver.block_size} bytes")
        self.driver = driver
        self.block_size = driver.block_size
        self.nr_blocks = driver.nr_blocks
        self.spec_text = driver.spec.text or driver.spec.path
        self.bd_count = 0
        self._bitmap = BlockBitmap(driver.nr_blocks)
        self._pins: dict[int, int] = {}
        # Released, not free yet. True: a thread is discarding it, and frees it afterwards unless it is pinned by then.
        self._limbo: dict[int, bool] = {}
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active = 0
        self._closed = False
        self._discard_failed = False

    @classmethod
    def open(cls, text: str, drivers: Mapping[str, type[BackingDriver]], block_size: int) -> BackingStore:
        """The store for the text written to `backing_dev`; see `parse_backing_spec` for it and its errors.

        Raises also what the driver's opening raises: EBUSY, EACCES, EINVAL, ENOSPC, ...; PluginFault when the driver
        raises something that is not an OSError.
        """
        driver_class, spec = parse_backing_spec(text, drivers, block_size)
        try:
            driver = driver_class(spec)
        except ZramError:
            raise
        except OSError as error:
            raise system_error(error, f"cannot open {spec.path}") from error
        except Exception as error:
            raise _fault(driver_class, "opening", error) from error
        try:
            return cls(driver)
        except BaseException:
            driver.close()
            raise

    # Blocks -------------------------------------------------------------------------------------------------------

    def reserve(self) -> int | None:
        """The lowest free block, reserved now; None when the store is full."""
        with self._lock:
            block = self._bitmap.take_lowest()
            if block is not None:
                self.bd_count += 1
            return block

    def reserve_many(self, count: int) -> list[int]:
        """The `count` lowest free blocks in ascending order, reserved now; fewer when fewer are free."""
        with self._lock:
            blocks = self._bitmap.take_lowest_many(count)
            self.bd_count += len(blocks)
            return blocks

    def release(self, block: int) -> None:
        """Give one reserved block back; see `release_many`."""
        self.release_many((block,))

    def release_many(self, blocks: Iterable[int]) -> None:
        """Give reserved blocks back. Those that are pinned become free with their last pin.

        Raises InvalidValue at a block that is not reserved; the blocks before it are released.
        """
        discard: list[int] = []
        try:
            with self._lock:
                for block in blocks:
                    self._release_locked(block, discard)
        finally:
            if discard:
                self._discard(discard)

    def _release_locked(self, block: int, discard: list[int]) -> None:
        if not 0 <= block < self.nr_blocks or block in self._limbo or block not in self._bitmap:
            raise InvalidValue(f"block {block} of {self.spec_text} is not reserved")
        self.bd_count -= 1
        if block in self._pins:
            self._limbo[block] = False
        else:
            self._retire_locked(block, discard)

    def _retire_locked(self, block: int, discard: list[int]) -> None:
        """Free a block that is released and not pinned, or put it on the caller's list to discard first."""
        if self.driver.discard_on_release and not self._closed:
            self._limbo[block] = True
            discard.append(block)
        else:
            self._limbo.pop(block, None)
            self._bitmap.free(block)

    def _discard(self, blocks: Sequence[int]) -> None:
        """Discard blocks that `_retire_locked` listed, without the lock, then free them."""
        try:
            if self._begin_unless_closed():
                try:
                    for block, count in _runs(sorted(blocks)):
                        self._discard_run(block, count)
                finally:
                    self._end()
        finally:
            with self._lock:
                for block in blocks:
                    if block in self._pins:
                        self._limbo[block] = False
                    else:
                        del self._limbo[block]
                        self._bitmap.free(block)

    def _discard_run(self, block: int, count: int) -> None:
        try:
            self.driver.discard_blocks(block, count)
        except Exception as error:
            # Space that cannot be given back costs nothing but space; the block is as good as any other.
            if not self._discard_failed:
                self._discard_failed = True
                _log.warning(
                    "%s: backing driver %s cannot discard %s (reported once): %s",
                    self.spec_text,
                    self.driver.name,
                    _names(block, count),
                    error,
                )

    # Pins ---------------------------------------------------------------------------------------------------------

    def pin(self, blocks: Sequence[int]) -> Pin:
        """Hold `blocks` from now on: none of them is handed out until the Pin is released, even if it is released.

        A reader takes the pin, checks (or holds the lock that guarantees) that its slots own the blocks, reads, and
        checks its slots again before it lets go: a slot that has the same block then has had it all the time.
        Pins nest and may overlap. A block that is not reserved can be pinned too: it is not handed out either.
        Raises InvalidValue for a block the store does not have; nothing is pinned then.
        """
        if blocks and not (min(blocks) >= 0 and max(blocks) < self.nr_blocks):
            raise InvalidValue(f"{self.spec_text} has only blocks 0 to {self.nr_blocks - 1}")
        with self._lock:
            pins = self._pins
            for block in blocks:
                count = pins.get(block, 0)
                pins[block] = count + 1
                if not count and block not in self._bitmap:
                    self._bitmap.take(block)
                    self._limbo[block] = False
        return Pin(self, tuple(blocks))

    def _unpin(self, blocks: Sequence[int]) -> None:
        discard: list[int] = []
        with self._lock:
            pins = self._pins
            for block in blocks:
                count = pins[block] - 1
                if count:
                    pins[block] = count
                    continue
                del pins[block]
                if self._limbo.get(block) is False:
                    self._retire_locked(block, discard)
        if discard:
            self._discard(discard)

    # I/O ----------------------------------------------------------------------------------------------------------

    def read(self, blocks: Sequence[int]) -> list[Buffer]:
        """The contents of `blocks`, in their order, pinned while they are read; see `read_pinned`."""
        with self.pin(blocks):
            return self.read_pinned(blocks)

    def read_pinned(self, blocks: Sequence[int]) -> list[Buffer]:
        """The contents of `blocks` (any order, repeats allowed), for a caller that holds a pin on them.

        Neighbours are read as one run. Each buffer has block_size bytes; several may be views of one run.
        Raises DeviceIOError with the driver's errno, PluginFault when the driver breaks its contract,
        NoBackingDevice when the store is closed.
        """
        self._begin()
        try:
            if len(blocks) == 1:
                return [self._read_run(blocks[0], 1)]
            size = self.block_size
            data: dict[int, Buffer] = {}
            for start, count in _runs(sorted(set(blocks))):
                run = memoryview(self._read_run(start, count))
                for index in range(count):
                    data[start + index] = run[index * size : (index + 1) * size]
            return [data[block] for block in blocks]
        finally:
            self._end()

    def _read_run(self, block: int, count: int) -> Buffer:
        data = self._call(f"reading {_names(block, count)}", self.driver.read_blocks, block, count)
        try:
            length = len(memoryview(data))
        except TypeError:
            length = -1
        if length != count * self.block_size:
            got = type(data).__name__ if length < 0 else f"{length} bytes"
            reason = f"read_blocks({block}, {count}) returned {got}, not {count * self.block_size} bytes"
            raise PluginFault(self.driver.name, reason)
        return data

    def write(self, blocks: Sequence[int], data: Sequence[Buffer]) -> list[OSError | None]:
        """Write `data[i]` (block_size bytes) to `blocks[i]`, for all i; returns one verdict per position.

        None: the block is written. Otherwise a DeviceIOError with the driver's errno, or a PluginFault. Neighbours go
        to the driver as one run; a run that fails is tried again block by block, so that a bad block costs only itself.
        Raises InvalidValue when a length is wrong, NoBackingDevice when the store is closed; nothing is written then.
        """
        if len(blocks) != len(data) or any(len(page) != self.block_size for page in data):
            raise InvalidValue(f"write takes one buffer of {self.block_size} bytes for each block")
        verdicts: list[OSError | None] = [None] * len(blocks)
        self._begin()
        try:
            order = sorted(range(len(blocks)), key=blocks.__getitem__)
            first = 0
            for block, count in _runs([blocks[position] for position in order]):
                run = order[first : first + count]
                first += count
                verdict = self._write_run(block, [data[position] for position in run])
                if verdict is not None and count > 1:
                    for offset, position in enumerate(run):
                        verdicts[position] = self._write_run(block + offset, [data[position]])
                else:
                    verdicts[run[0]] = verdict
        finally:
            self._end()
        return verdicts

    def _write_run(self, block: int, data: list[Buffer]) -> OSError | None:
        try:
            self._call(f"writing {_names(block, len(data))}", self.driver.write_blocks, block, data)
        except ZramError as error:
            return error
        return None

    def flush(self) -> None:
        """Return when everything written is on stable storage. Raises DeviceIOError, PluginFault, NoBackingDevice."""
        self._begin()
        try:
            self._call("flushing", self.driver.flush)
        finally:
            self._end()

    def close(self) -> None:
        """Wait for I/O under way, then close the driver; closing again does nothing. I/O afterwards: NoBackingDevice.

        Raises DeviceIOError or PluginFault when the driver cannot be closed; the store is closed all the same.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # The driver's descriptor must not be reused by another file while a thread is still writing to it.
            while self._active:
                self._idle.wait()
        self._call("closing", self.driver.close)

    def _begin_unless_closed(self) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._active += 1
            return True

    def _begin(self) -> None:
        if not self._begin_unless_closed():
            raise NoBackingDevice(f"{self.spec_text} is closed")

    def _end(self) -> None:
        with self._lock:
            self._active -= 1
            if self._closed and not self._active:
                self._idle.notify_all()

    def _call(self, doing: str, method: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the driver; what it raises becomes a ZramError that says what was being done."""
        try:
            return method(*args, **kwargs)
        except ZramError:
            raise
        except OSError as error:
            raise DeviceIOError(f"{self.spec_text}: {doing} failed", errno=error.errno or errno.EIO) from error
        except Exception as error:
            raise _fault(type(self.driver), doing, error) from error


def _fault(driver: type[BackingDriver], doing: str, error: Exception) -> PluginFault:
    return PluginFault(driver.name, f"{doing} raised {type(error).__name__}: {error}")


def _names(block: int, count: int) -> str:
    return f"block {block}" if count == 1 else f"blocks {block} to {block + count - 1}"


def _runs(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs (first block, count) of ascending `blocks`, at most MAX_RUN long; a repeated block starts a new one."""
    start = count = 0
    for block in blocks:
        if count and (block != start + count or count == MAX_RUN):
            yield start, count
            count = 0
        if not count:
            start = block
        count += 1
    if count:
        yield start, count
