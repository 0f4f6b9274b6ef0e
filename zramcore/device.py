"""Device: one zram device. Its life (disksize, reset, holders) and its byte-addressed I/O.

Everything else a user may set is an attribute (attributes.py); the device only keeps the settings. I/O takes any
byte offset and length; whole pages go to the data path in batches, partial ones by read-modify-write.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .access_clock import AccessClock, boot_seconds
from .backing import BackingStore
from .batch_path import data_path, usable_cores
from .budget import WriteBudget
from .datapath import DataPath
from .device_file import DeviceFile
from .errors import DeviceBusy, DeviceIOError, InvalidValue, NoMemory, NoSpace, PluginFault, ZramError
from .interfaces import Allocator, Buffer, Catalogue
from .memory_room import MemoryRoom
from .slot_table import SlotTable
from .stats import Stats
from .zcomp import ZcompConfig

PAGE_SIZES = (4096, 16384, 65536)
BATCH_PAGES = 256
"""Pages a request handles at once: 1 MiB of 4 KiB pages. Locks are held and memory is used for no more than that."""
SPARE_OBJECTS = 1024
"""Objects beyond one a slot that the allocator must have room for: new ones exist before the old are freed."""
DEFAULT_BATCH_SIZE = 32
KEPT_HEAP = 4 << 20


def keep_heap() -> None:
    """Make glibc keep some megabytes of free memory instead of giving it back after every request.

    It keeps twice the largest block that it has mapped alone and got back. Without this a 1 MiB read, which needs 1 MiB
    of pages and as much for the result, cost 460 page faults, more than the decompression (measured, glibc 2.36).
    """
    bytes(KEPT_HEAP)


def _ignore(event: str, **fields: Any) -> None:
    """The observer of a device that nobody observes."""


class Device:
    """A compressed RAM block device. Thread-safe.

    `catalogue` holds the plugins it may use; `clock` gives boot seconds; `notify` is called with the name of an
    event in its life ("device_initialized", ...) and the fields that hookspecs.py lists for it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        name: str = "zram0",
        *,
        page_size: int = 4096,
        clock: Callable[[], int] = boot_seconds,
        notify: Callable[..., None] = _ignore,
    ) -> None:
        """Raises InvalidValue (EINVAL) for a page size that is not 4096, 16384 or 65536."""
        if page_size not in PAGE_SIZES:
            raise InvalidValue("page_size is 4096, 16384 or 65536", attribute="page_size", value=page_size)
        self.catalogue = catalogue
        self.name = name
        self.page_size = page_size
        self.clock = clock
        self.notify = notify
        self.disksize = 0
        self.holders = 0
        self.stats = Stats()
        self.zcomp = ZcompConfig(catalogue)
        self.backing: BackingStore | None = None
        self.budget = WriteBudget()
        self.writeback_batch_size = DEFAULT_BATCH_SIZE
        self.compressed_writeback = False
        self.workers = usable_cores()
        """Threads that a large request may use, its own included."""
        self.preview = ""
        """The answer that writeback_preview shows."""
        self.path: DataPath | None = None
        self.init_lock = threading.RLock()
        """Serialises everything that changes the device as a whole: configuration, disksize, reset, opening."""
        self.pass_lock = threading.Lock()
        """Held by the one post-processing pass that may run; taken before `init_lock`."""
        self.turn = threading.RLock()
        """Taken for a pass together with the limit that is set for it, before `pass_lock`: a policy's round and a pass
        that somebody asks for follow each other, and neither meets the other's limit."""
        self.stop_pass = threading.Event()
        """While set, a running pass ends after the batch it is at, with EINTR."""
        self.room = MemoryRoom()
        self._shift = page_size.bit_length() - 1
        self._mask = page_size - 1
        self._default_allocator = next(iter(catalogue.allocators), "")
        self.allocator_name = self._default_allocator

    # Life -------------------------------------------------------------------------------------------------------------

    @property
    def initialized(self) -> bool:
        """Whether disksize is set."""
        return self.path is not None

    @property
    def nr_pages(self) -> int:
        """Pages of the device; 0 before disksize is set."""
        return self.disksize >> self._shift

    def check_uninitialized(self) -> None:
        """Raises DeviceBusy (EBUSY) once disksize is set."""
        if self.path is not None:
            raise DeviceBusy("the device is initialised", hint="write 1 to reset first: that discards its data")

    def choose_allocator(self, name: str) -> None:
        """Use this allocator from the next disksize on. Raises InvalidValue (EINVAL), DeviceBusy (EBUSY)."""
        if name not in self.catalogue.allocators:
            raise InvalidValue(f"there is no allocator {name!r}", hint=self.catalogue.hint("allocators", name))
        with self.init_lock:
            self.check_uninitialized()
            self.allocator_name = name

    def set_backing(self, text: str) -> None:
        """Open a backing store (any earlier one is closed once the new one is open). Raises the driver's ZramError."""
        with self.init_lock:
            self.check_uninitialized()
            if text == f"/dev/{self.name}":
                raise InvalidValue("a device cannot be its own backing device")
            store = BackingStore.open(text, self.catalogue.backing_drivers, self.page_size)
            old, self.backing = self.backing, store
            if old is not None:
                old.close()

    def set_mem_limit(self, pages: int) -> None:
        """Let the pool use at most `pages` pages of the device's size; 0: no limit. Takes effect at once."""
        with self.init_lock:
            self.room.set_limit(pages)

    def set_workers(self, workers: int) -> None:
        """Let a large request use this many threads, its own included. Takes effect at once."""
        with self.init_lock:
            self.workers = workers
            if self.path is not None:
                self.path.set_workers(workers)

    def initialize(self, size: int) -> None:
        """Set disksize, in bytes, rounded up to a page. Raises InvalidValue for 0, DeviceBusy, NoMemory, and
        whatever a chosen compressor says of its parameters (all choices are then forgotten, as in the kernel)."""
        if size <= 0:
            raise InvalidValue("disksize must be more than 0")
        with self.init_lock:
            self.check_uninitialized()
            nr_pages = (size + self._mask) >> self._shift
            table = SlotTable(nr_pages)
            keep_heap()
            try:
                zcomp = self.zcomp.create(self.page_size)
            except ZramError:
                self.zcomp.forget()
                raise
            path = data_path(
                self.workers,
                page_size=self.page_size,
                table=table,
                zcomp=zcomp,
                allocator=self._make_allocator(nr_pages),
                backing=self.backing,
                stats=self.stats,
                clock=AccessClock(self.clock),
            )
            self.room.serve(path)
            self.disksize = nr_pages << self._shift
            self.path = path
        self.notify("device_initialized", device=self.name, disksize=self.disksize)

    def _make_allocator(self, nr_pages: int) -> Allocator:
        allocator = self.catalogue.allocators.get(self.allocator_name)
        if allocator is None:
            raise InvalidValue(
                "no allocator is installed", hint="reinstall zramcore; `zramcore plugins` says what failed"
            )
        try:
            return allocator(self.page_size, nr_pages + SPARE_OBJECTS)
        except ZramError:
            raise
        except Exception as error:
            raise PluginFault(self.allocator_name, f"{type(error).__name__}: {error}") from error

    def reset(self) -> None:
        """Forget the data and the configuration, except what the kernel keeps: writeback_limit and its enable flag,
        writeback_batch_size, compressed_writeback. Ends a running pass (EINTR there). Raises DeviceBusy while it is
        open, and what the plugins raise when they are closed; the device is reset all the same."""
        if not self.holders:
            self.stop_pass.set()
        try:
            with self.pass_lock:
                path = self._reset_locked()
        finally:
            self.stop_pass.clear()
        if path is not None:
            self.notify("device_reset", device=self.name)

    def _reset_locked(self) -> DataPath | None:
        """`reset`, while no pass runs; returns what the device had been."""
        with self.init_lock:
            if self.holders:
                raise self._busy()
            path, self.path = self.path, None
            backing, self.backing = self.backing, None
            self.disksize = 0
            self.stats = Stats()
            self.room.serve(None)
            self.preview = ""
            self.zcomp.forget()
            self.allocator_name = self._default_allocator
            try:
                if path is not None:
                    path.close()
            finally:
                if backing is not None:
                    backing.close()
        return path

    def open(self, writable: bool = True) -> DeviceFile:
        """The device as a raw binary file; it holds the device until closed."""
        with self.init_lock:
            self.holders += 1
        return DeviceFile(self, writable)

    def release(self) -> None:
        """Undo one `open`; DeviceFile.close calls it."""
        with self.init_lock:
            self.holders -= 1

    # I/O --------------------------------------------------------------------------------------------------------------

    def pread(self, offset: int, length: int) -> bytes:
        """`length` bytes from byte `offset`; fewer at the end of the device, none past it or before disksize is set.

        Raises DeviceIOError (EIO) when stored data cannot be had or verified: it counts in failed_reads.
        """
        path = self.path
        if path is not None:
            try:
                page = path.read_page(offset, length)
            except ZramError as error:
                raise self._failed_read(error) from error
            if page is not None:
                return page
        pieces = self._pieces(offset, length)
        if path is None or not pieces:
            return b""
        self._count_read(offset, length)
        parts: list[Buffer] = []
        try:
            for index, start, count, span in pieces:
                data = path.read_pages(index, count)
                parts.append(data if span == len(data) else memoryview(data)[start : start + span])
        except ZramError as error:
            raise self._failed_read(error) from error
        return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)

    def pread_into(self, offset: int, buffer: Any) -> int:
        """Fill a writable buffer from byte `offset`; returns the bytes read, as `pread` would. Raises as `pread`."""
        target = memoryview(buffer).cast("B")
        path = self.path
        if len(target) == self.page_size:
            page = self.pread(offset, len(target))
            target[: len(page)] = page
            return len(page)
        pieces = self._pieces(offset, len(target))
        if path is None or not pieces:
            return 0
        self._count_read(offset, len(target))
        done = 0
        try:
            for index, start, count, span in pieces:
                if span == count << self._shift:
                    path.read_pages_into(index, target[done : done + span])
                else:
                    target[done : done + span] = memoryview(path.read_pages(index, count))[start : start + span]
                done += span
        except ZramError as error:
            raise self._failed_read(error) from error
        return done

    def pwrite(self, offset: int, buffer: Any) -> int:
        """Write a buffer at byte `offset`; returns the bytes written, fewer at the end of the device.

        Raises NoSpace (ENOSPC) at or past the end and before disksize is set, DeviceIOError (EIO) when a page could
        not be stored: that page keeps its old contents, it counts in failed_writes.
        """
        path = self.path
        if path is not None:
            try:
                if path.write_page(offset, buffer):
                    return self.page_size
            except NoMemory:
                return self._store(path, [(offset >> self._shift, 0, 1, self.page_size)], memoryview(buffer))
            except ZramError as error:
                raise self._failed_write(error) from error
        data = memoryview(buffer).cast("B")
        if type(buffer) is not bytes and len(data) == self.page_size and not offset & self._mask:
            return self.pwrite(offset, bytes(data))
        pieces = self._pieces(offset, len(data))
        if path is None or (not pieces and len(data)):
            raise NoSpace(f"a write at {offset} of a device of {self.disksize} bytes", hint="set disksize first")
        self.stats.write_requests += 1
        done = self._store(path, pieces, data)
        self.stats.write_sectors += done >> 9
        return done

    def read_scattered(self, offsets: Sequence[int]) -> list[bytes]:
        """Whole pages from anywhere, as one batch, in order. Fewer than asked for: `pread` the next one by itself, to
        have it after all or to learn why not."""
        path = self.path
        return [] if path is None else path.read_scattered(offsets)

    def write_scattered(self, offsets: Sequence[int], pages: Sequence[Buffer]) -> int:
        """Write whole pages to different places, as one batch; returns how many are written, in order. Fewer than
        given: `pwrite` the next one by itself, to write it after all or to learn why not."""
        path = self.path
        return 0 if path is None else path.write_scattered(offsets, pages)

    def discard(self, offset: int, length: int) -> None:
        """Free the pages that the range covers whole; partial ones are left alone. Raises InvalidValue (EINVAL) when
        the range does not lie within the device."""
        path = self._whole_range(offset, length)
        first = (offset + self._mask) >> self._shift
        end = (offset + length) >> self._shift
        if end > first:
            path.free_pages(first, end - first)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeroes: whole pages are freed, partial ones written. Raises as `discard`, and
        DeviceIOError (EIO) when a partial page could not be stored."""
        path = self._whole_range(offset, length)
        self.discard(offset, length)
        partial = [piece for piece in self._pieces(offset, length) if piece[3] != piece[2] << self._shift]
        self._store(path, partial, memoryview(bytes(sum(span for *_, span in partial))))

    def flush(self) -> None:
        """Return when everything written back is on stable storage. Raises DeviceIOError (EIO)."""
        backing = self.backing
        if backing is not None:
            backing.flush()

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _pieces(self, offset: int, length: int) -> list[tuple[int, int, int, int]]:
        """A byte range, cut at the end of the device, as (first page, byte within it, pages, bytes): at most one
        partial page at each end, and runs of whole pages of at most BATCH_PAGES between."""
        if offset < 0 or length < 0:
            raise InvalidValue(f"offset {offset} and length {length} must not be negative")
        end = min(offset + length, self.disksize)
        pieces = []
        while offset < end:
            index, start = offset >> self._shift, offset & self._mask
            count = min((end - offset) >> self._shift, BATCH_PAGES) if not start else 0
            span = count << self._shift if count else min(self.page_size - start, end - offset)
            pieces.append((index, start, count or 1, span))
            offset += span
        return pieces

    def _store(self, path: DataPath, pieces: Sequence[tuple[int, int, int, int]], data: memoryview) -> int:
        """Write pieces of a request, each as soon as there is memory for it; returns their bytes. Raises ZramError."""
        done = 0
        try:
            for index, start, count, span in pieces:
                part = data[done : done + span]
                if span == count << self._shift:
                    self.room.write_pages(path, index, part)
                else:
                    self.room.write_partial(path, index, start, part)
                done += span
        except ZramError as error:
            raise self._failed_write(error) from error
        return done

    def _busy(self) -> DeviceBusy:
        return DeviceBusy(f"{self.name} is open {self.holders} times", hint="close it, detach it or swapoff first")

    def _whole_range(self, offset: int, length: int) -> DataPath:
        path = self.path
        if path is None or offset < 0 or length < 0 or offset + length > self.disksize:
            raise InvalidValue(f"{length} bytes at {offset} do not lie within {self.disksize} bytes")
        return path

    def _count_read(self, offset: int, length: int) -> None:
        sectors = max(0, min(length, self.disksize - offset)) >> 9
        with self.stats.lock:
            self.stats.read_requests += 1
            self.stats.read_sectors += sectors

    def _failed_read(self, error: ZramError) -> ZramError:
        with self.stats.lock:
            self.stats.failed_reads += 1
        return _as_io_error(error)

    def _failed_write(self, error: ZramError) -> ZramError:
        with self.stats.lock:
            self.stats.failed_writes += 1
        return _as_io_error(error)


def _as_io_error(error: ZramError) -> ZramError:
    """A request to a block device fails with EIO, whatever the reason was; the reason is in the text."""
    if error.errno == errno.EIO:
        return error
    return DeviceIOError(f"{error.reason} ({error.errno_name})", hint=error.hint)
