"""The backing driver `direct`: O_DIRECT on a block device or a file, so that no second copy stays in the page cache.

O_DIRECT wants aligned memory. What the store hands over as a whole is aligned; loose pages are copied into a buffer of
the thread's, 0.4 us each. One call for many pages is what makes the speed: overwriting 64 MiB took 61 MB/s page by
page, 613 in runs of 32, 628 in runs of 64 and 785 in runs of 256 (ext4 on a virtio disk, 2 cores, Linux 6.18). Runs
that lie apart are read at once and written at once, which goes on while the next pages are made ready (see aio.py);
where the system has no asynchronous I/O for us, the same is done call by call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import accumulate

import numpy as np

from zramcore.errors import InvalidValue
from zramcore.interfaces import Buffer, Verdicts, verdict_of

from .aio import DEPTH, Ring, address_of
from .driver import MediumDriver, read_all, runs_of, write_all

BUFFER = 1 << 20
"""Bytes of a thread's buffer, and so of one write at most."""
MAX_RINGS = 8
"""Rings of one driver: threads that read at once, and batches being written. Whoever finds none left does without."""


class DirectDriver(MediumDriver):
    """Blocks on a block device or in a file, by O_DIRECT."""

    name = "direct"
    summary = "a block device or a file with O_DIRECT, past the page cache; a file is created when size= is given"

    def start(self) -> None:
        fd = self.medium.fd
        hint = f"use file:{self.spec.path}"
        try:
            # Not at open: with O_CREAT, a file system without O_DIRECT creates the file and then fails.
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        except OSError as error:
            raise InvalidValue(f"the file system of {self.spec.path} has no O_DIRECT", hint=hint) from error
        self._local = threading.local()
        self._rings: list[Ring] = []
        self._rings_to_make = threading.Semaphore(MAX_RINGS)
        self._buffer_size = max(BUFFER // self.block_size, 1) * self.block_size
        try:
            self.read_blocks(0, 1)
        except OSError as error:
            # Any other error belongs to the read that meets it: the kernel's zram does not read here either.
            if error.errno == errno.EINVAL:
                reason = f"{self.spec.path} takes no direct I/O in blocks of {self.block_size} bytes"
                raise InvalidValue(reason, hint=hint) from error

    def _buffer(self) -> tuple[mmap.mmap, memoryview]:
        """This thread's buffer, and a view of it; freed with the thread or the driver."""
        try:
            buffer: tuple[mmap.mmap, memoryview] = self._local.buffer
        except AttributeError:
            memory = mmap.mmap(-1, self._buffer_size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            buffer = self._local.buffer = memory, memoryview(memory)
        return buffer

    def write_blocks(self, block: int, blocks: Sequence[Buffer]) -> None:
        offset = self.offset(block, len(blocks))
        memory, view = self._buffer()
        size = self.block_size
        per_write = self._buffer_size // size
        for first in range(0, len(blocks), per_write):
            end = 0
            for page in blocks[first : first + per_write]:
                memory[end : end + size] = page
                end += size
            write_all(self.medium.fd, [view[:end]], offset)
            offset += end

    def read_blocks(self, block: int, count: int) -> Buffer:
        offset = self.offset(block, count)
        fd = self.medium.fd
        length = count * self.block_size
        memory, view = self._buffer()
        if length <= self._buffer_size:
            read_all(fd, [view[:length]], offset)
            return memory[:length]
        whole = bytearray(length)
        for first in range(0, length, self._buffer_size):
            part = view[: min(self._buffer_size, length - first)]
            read_all(fd, [part], offset + first)
            whole[first : first + len(part)] = part
        return whole

    # Several at once ----------------------------------------------------------------------------------------------

    def _take_ring(self) -> Ring | None:
        """A ring for the caller to `_give_back` unless an exception ended its use; None when there is none."""
        with contextlib.suppress(IndexError):
            return self._rings.pop()
        if self._rings_to_make.acquire(blocking=False):
            with contextlib.suppress(OSError):
                return Ring()
        return None

    @contextlib.contextmanager
    def _on_ring(self, ring: Ring) -> Iterator[None]:
        """The use of a ring. After an exception it is closed, which waits for what is under way, and forgotten."""
        try:
            yield
        except BaseException:
            ring.close()
            self._rings_to_make.release()
            raise
        self._rings.append(ring)

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        super().close()

    def begin_write(self, runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts]:
        parts = self.parts(runs, data)
        ring = self._take_ring()
        if ring is None:
            return super().begin_write(runs, data)
        writes = self._write_on(ring, data, parts)
        try:
            next(writes)
        except BaseException:
            # A signal's, with all of them under way: the traceback would keep the generator.
            writes.close()
            raise
        return lambda: next(writes)

    def _write_on(self, ring: Ring, data: memoryview, parts: Sequence[tuple[int, memoryview]]) -> Generator[Verdicts]:
        """Starts as many writes as a ring takes, then does the rest and waits. Closing the generator in between waits
        too, for what was started."""
        fd = self.medium.fd
        offsets = [offset for offset, _ in parts]
        lengths = [len(part) for _, part in parts]
        addresses = list(accumulate(lengths, initial=address_of(data)))[:-1]
        done: list[int] = []
        with self._on_ring(ring):
            for start in range(0, len(parts), DEPTH):
                wave = slice(start, start + DEPTH)
                ring.start_writes(fd, addresses[wave], lengths[wave], offsets[wave])
                if not start:
                    yield ()
                done += ring.finish()
        verdicts: list[Exception | None] = [None] * len(parts)
        for run in [run for run, length in enumerate(lengths) if done[run] != length]:
            offset, part = parts[run]
            # From a block on: the medium may take nothing smaller.
            start = max(done[run], 0) // self.block_size * self.block_size
            verdicts[run] = verdict_of(self.write_run, offset + start, part[start:])
        yield verdicts

    def read_scattered(self, blocks: Sequence[int], target: memoryview) -> bool:
        size, fd = self.block_size, self.medium.fd
        self.offset(min(blocks), 1)
        self.offset(max(blocks), 1)
        wanted = np.array(blocks)
        order = np.argsort(wanted)
        wanted = wanted[order]
        firsts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        ring = self._take_ring() if len(firsts) > 1 else None
        if ring is None:
            for block, positions in runs_of(blocks):
                self._read_run(block, positions, target)
            return True
        vectors = np.empty((len(wanted), 2), np.int64)
        vectors[:, 0] = address_of(target) + order * size
        vectors[:, 1] = size
        counts = np.diff(firsts, append=len(wanted))
        offsets = wanted[firsts] * size
        done: list[int] = []
        with self._on_ring(ring):
            for start in range(0, len(firsts), DEPTH):
                part = slice(start, start + DEPTH)
                ring.start_reads(fd, vectors, firsts[part], counts[part], offsets[part])
                done += ring.finish()
        for run in np.flatnonzero(np.array(done) != counts * size).tolist():
            first, count = int(firsts[run]), int(counts[run])
            self._read_run(int(wanted[first]), order[first : first + count].tolist(), target)
        return True

    def _read_run(self, block: int, positions: Sequence[int], target: memoryview) -> None:
        size = self.block_size
        pages = [target[position * size : (position + 1) * size] for position in positions]
        read_all(self.medium.fd, pages, self.offset(block, len(pages)))
