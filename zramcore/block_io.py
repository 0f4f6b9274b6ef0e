"""BlockIO: batched reads and writes of any blocks, over the contiguous runs of a BackingDriver.

It sorts, coalesces neighbours into runs, gives each block its own verdict, turns what a driver raises into a ZramError,
and keeps the driver open while somebody uses it. Which blocks are whose is not known here (see backing.py).
"""

from __future__ import annotations

import errno
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np

from .errors import DeviceIOError, InvalidValue, NoBackingDevice, PluginFault, ZramError
from .interfaces import BackingDriver, Buffer, Verdicts

MAX_RUN = 256
"""Blocks a driver is asked for in one call at most: 1 MiB of 4 KiB blocks. Runs of 64 gave O_DIRECT 80 to 85 % of the
speed that runs of 256 did, single blocks 8 % (ext4 on a virtio disk, 2 cores)."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def aligned_memory(length: int) -> memoryview:
    """Page-aligned memory for `length` bytes, with anything in it.

    From the heap, not from mmap: a new mapping costs a page fault a page, more than copying the page.
    """
    memory = np.empty(length + mmap.PAGESIZE, np.uint8)
    start = -memory.ctypes.data % mmap.PAGESIZE
    return memory.data[start : start + length]


class BlockIO:
    """The I/O of one open BackingDriver. Thread-safe; no lock is held during it."""

    def __init__(self, driver: BackingDriver) -> None:
        self.driver = driver
        self.block_size = driver.block_size
        self.spec_text = driver.spec.text or driver.spec.path
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active = 0
        self._closed = False

    def read_pinned(self, blocks: Sequence[int]) -> memoryview:
        """The contents of `blocks` (different ones, in any order), one after the other, for a caller that holds a pin
        on them, or a lock without which they are not released. Neighbours are read as one run.

        Raises DeviceIOError with the driver's errno, PluginFault when the driver breaks its contract,
        NoBackingDevice when the store is closed.
        """
        if not blocks:
            return memoryview(b"")
        self._begin()
        try:
            if len(blocks) == 1:
                return memoryview(self._read_run(blocks[0], 1))
            target = aligned_memory(len(blocks) * self.block_size)
            doing = f"reading {len(blocks)} blocks"
            if not self._call(doing, self.driver.read_scattered, blocks, target):
                self._read_runs(blocks, target)
            return target
        finally:
            self._end()

    def _read_runs(self, blocks: Sequence[int], target: memoryview) -> None:
        size = self.block_size
        positions = {block: index * size for index, block in enumerate(blocks)}
        for first, count in block_runs(sorted(blocks)):
            run = memoryview(self._read_run(first, count))
            for index in range(count):
                position = positions[first + index]
                target[position : position + size] = run[index * size : (index + 1) * size]

    def _read_run(self, block: int, count: int) -> Buffer:
        data = self._call(f"reading {block_names(block, count)}", self.driver.read_blocks, block, count)
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
        """Write `data[i]` (block_size bytes) to `blocks[i]`, for all i; returns one verdict per position, as `writing`
        does. Raises InvalidValue when a length is wrong, NoBackingDevice when the store is closed; nothing is written
        then."""
        size = self.block_size
        if len(blocks) != len(data) or any(len(page) != size for page in data):
            raise InvalidValue(f"write takes one buffer of {size} bytes for each block")
        order = sorted(range(len(blocks)), key=blocks.__getitem__)
        whole = aligned_memory(len(blocks) * size)
        for index, position in enumerate(order):
            whole[index * size : (index + 1) * size] = data[position]
        with self.writing([blocks[position] for position in order], whole) as found:
            pass
        verdicts: list[OSError | None] = [None] * len(blocks)
        for position, verdict in zip(order, found, strict=True):
            verdicts[position] = verdict
        return verdicts

    @contextmanager
    def writing(self, blocks: Sequence[int], data: memoryview) -> Iterator[list[OSError | None]]:
        """Write `data`, page-aligned and a block for each of `blocks`, which ascend, while the with-block runs; nothing
        of `data` may change meanwhile. The list it gives is complete at the end of the with-block, whatever ends it.

        It holds a verdict per block. None: it is written. Otherwise a DeviceIOError with the driver's errno, or a
        PluginFault. Neighbours go to the driver as one run, all runs in one call; a run that fails is tried again block
        by block, so that a bad block costs only itself. Raises NoBackingDevice when the store is closed; nothing is
        written then.
        """
        self._begin()
        try:
            verdicts: list[OSError | None] = [None] * len(blocks)
            runs = list(block_runs(blocks))
            begun: Callable[[], Verdicts] | ZramError | None = None
            try:
                if runs:
                    begun = self._begin_writing(runs, data)
                yield verdicts
            finally:
                if begun is not None:
                    verdicts[:] = self._finish_writing(begun, runs, data)
        finally:
            self._end()

    def _begin_writing(self, runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts] | ZramError:
        """What waits for the end of the writes, or why they could not be begun."""
        try:
            begun = self._call(_writing(runs), self.driver.begin_write, runs, data)
        except ZramError as error:
            return error
        if callable(begun):
            return begun
        return PluginFault(self.driver.name, f"{_writing(runs)} gave a {type(begun).__name__}, not a function")

    def _finish_writing(
        self, begun: Callable[[], Verdicts] | ZramError, runs: Sequence[tuple[int, int]], data: memoryview
    ) -> list[OSError | None]:
        """Wait for what was begun; the verdict on each block."""
        found: object
        all_failed = False
        try:
            if isinstance(begun, ZramError):
                raise begun
            found = self._call(_writing(runs), begun)
            if not isinstance(found, Sequence) or len(found) != len(runs):
                raise PluginFault(self.driver.name, f"{_writing(runs)} gave no verdict for each of {len(runs)} runs")
        except PluginFault as fault:
            # Not tried again: a driver that breaks its contract here may have left something under way.
            return [fault] * sum(count for _, count in runs)
        except ZramError as error:
            found, all_failed = [error] * len(runs), True
        verdicts: list[OSError | None] = []
        for run, verdict in zip(runs, found, strict=True):
            block, count = run
            if verdict is None:
                verdicts += [None] * count
            elif not isinstance(verdict, Exception):
                reason = f"{_writing([run])} gave a {type(verdict).__name__}, neither None nor an exception"
                verdicts += [PluginFault(self.driver.name, reason)] * count
            elif count > 1 or (all_failed and len(runs) > 1):
                start = len(verdicts) * self.block_size
                verdicts += self._write_singly(block, data[start : start + count * self.block_size])
            else:
                verdicts.append(self._as_zram_error(_writing([run]), verdict))
        return verdicts

    def _write_singly(self, block: int, data: memoryview) -> list[OSError | None]:
        """The verdicts on the blocks of a run that failed, which are written one by one."""
        verdicts: list[OSError | None] = []
        for start in range(0, len(data), self.block_size):
            page = data[start : start + self.block_size]
            try:
                self._call(_writing([(block, 1)]), self.driver.write_blocks, block, [page])
                verdicts.append(None)
            except ZramError as error:
                verdicts.append(error)
            block += 1
        return verdicts

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
        except Exception as error:
            raise self._as_zram_error(doing, error) from error

    def _as_zram_error(self, doing: str, error: Exception) -> ZramError:
        if isinstance(error, ZramError):
            return error
        if isinstance(error, OSError):
            named: ZramError = DeviceIOError(f"{self.spec_text}: {doing} failed", errno=error.errno or errno.EIO)
        else:
            named = driver_fault(type(self.driver), doing, error)
        named.__cause__ = error
        return named


def driver_fault(driver: type[BackingDriver], doing: str, error: Exception) -> PluginFault:
    """What to raise for an exception of a driver that is no OSError."""
    return PluginFault(driver.name, f"{doing} raised {type(error).__name__}: {error}")


def block_names(block: int, count: int) -> str:
    """A run in words."""
    return f"block {block}" if count == 1 else f"blocks {block} to {block + count - 1}"


def _writing(runs: Sequence[tuple[int, int]]) -> str:
    if len(runs) == 1:
        return f"writing {block_names(*runs[0])}"
    return f"writing {sum(count for _, count in runs)} blocks"


def block_runs(blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
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
