"""The sides of `bench device`: a zramcore device, the kernel's, and the bare codec as if it were one.

A side turns requests into a job for one thread. Buffers are made ready before: ours takes single pages as bytes, as a
server has them, and larger requests as views; the kernel's direct I/O wants aligned memory. Reads fill a buffer that
was there before.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Sequence
from typing import NamedTuple

from ..control import Control
from ..interfaces import Buffer, Catalogue
from .data import MIB, PAGE, Data, aligned_buffer
from .kernel_zram import KernelZram
from .loops import BareLoop
from .rounds import Job

ROW_BYTES = 16
"""Of a slot."""


class Request(NamedTuple):
    """`length` bytes at `offset` of the device, where the bytes of the data from `start` on are or go."""

    offset: int
    length: int
    start: int
    write: bool


class BlockSide(abc.ABC):
    """What requests can be made to. `role` is Contender's."""

    side: str
    role = "ours"
    base = ""
    """The side that this is with one thread, if not itself."""
    workers = 1
    """Threads that it uses itself for each request; then there is one thread that makes requests."""

    @abc.abstractmethod
    def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
        """These requests at `base` and on, by thread number `part`."""

    def discard(self, base: int, length: int) -> None:  # noqa: B027 - the bare codec holds nothing
        """Make a range empty."""

    def read(self, offset: int, length: int) -> Buffer | None:
        """What is stored there, to verify it; None: this side stores nothing."""
        return None

    def close(self) -> None:  # noqa: B027 - who opened the kernel's device closes it
        """Give everything back."""


class BufferSide(BlockSide):
    """A side that reads into aligned buffers, one for each thread."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self._buffers: list[memoryview] = []

    def buffer(self, part: int, length: int) -> memoryview:
        """The first `length` bytes of the buffer of thread number `part`."""
        while len(self._buffers) <= part:
            self._buffers.append(aligned_buffer(MIB))
        return self._buffers[part][:length]


class OurSide(BufferSide):
    """A zramcore device."""

    def __init__(
        self, side: str, catalogue: Catalogue, comp: str, allocator: str, data: Data, size: int, workers: int = 1
    ) -> None:
        super().__init__(data)
        self.side = side if workers == 1 else f"{side}, {workers} workers"
        self.base = side
        self.workers = workers
        control = Control(catalogue)
        self.target = control.target(f"zram{control.hot_add(PAGE)}")
        self.device = self.target.device
        self.target.store("comp_algorithm", comp)
        self.device.choose_allocator(allocator)
        self.target.store("workers", str(workers))
        self.target.store("disksize", str(size))

    def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
        length = requests[0].length if requests else PAGE
        items = [(base + request.offset, self._source(request)) for request in requests]
        pwrite, pread, pread_into = self.device.pwrite, self.device.pread, self.device.pread_into
        buffer = self.buffer(part, length)

        def one_page() -> None:
            for offset, source in items:
                if source is None:
                    pread(offset, PAGE)
                else:
                    pwrite(offset, source)

        def many_pages() -> None:
            for offset, source in items:
                if source is None:
                    pread_into(offset, buffer)
                else:
                    pwrite(offset, source)

        return one_page if length == PAGE else many_pages

    def _source(self, request: Request) -> Buffer | None:
        if not request.write:
            return None
        if request.length == PAGE:
            return self.data.pages[request.start // PAGE]
        return self.data.view[request.start : request.start + request.length]

    def discard(self, base: int, length: int) -> None:
        self.device.discard(base, length)

    def read(self, offset: int, length: int) -> Buffer | None:
        return self.device.pread(offset, length)

    def mem_used_total(self) -> int:
        """Bytes, as mm_stat says, once what is free was given back to the system."""
        if self.device.path is not None:
            self.device.path.allocator.trim()
        return int(self.target.show("mm_stat").split()[2])

    def table_bytes(self) -> int:
        """Bytes of the slot table's rows that are in use."""
        path = self.device.path
        return sum(end - start for start, end in path.table.touched_ranges()) * ROW_BYTES if path is not None else 0

    def close(self) -> None:
        self.device.reset()


class KernelSide(BufferSide):
    """The kernel's zram, by direct I/O of the same size."""

    role = "kernel"

    def __init__(self, kernel: KernelZram, data: Data) -> None:
        super().__init__(data)
        self.kernel = kernel
        self.side = f"kernel {kernel.algorithm}"

    def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
        view, fd = self.data.view, self.kernel.fd
        items = [
            (base + request.offset, view[request.start : request.start + request.length] if request.write else None)
            for request in requests
        ]
        buffers = [self.buffer(part, requests[0].length if requests else PAGE)]
        pwrite, preadv = os.pwrite, os.preadv

        def run() -> None:
            for offset, source in items:
                if source is None:
                    preadv(fd, buffers, offset)
                else:
                    pwrite(fd, source, offset)

        return run

    def mem_used_total(self) -> int:
        """Bytes, as mm_stat says."""
        return self.kernel.mem_used_total()

    def discard(self, base: int, length: int) -> None:
        self.kernel.discard(base, length)

    def read(self, offset: int, length: int) -> Buffer | None:
        buffer = self.buffer(0, length)
        return buffer[: os.preadv(self.kernel.fd, [buffer], offset)]


class LimitSide(BlockSide):
    """The bare codec: compresses what is to be written, decompresses what is to be read, and stores nothing."""

    role = "limit"

    def __init__(self, loop: BareLoop) -> None:
        self.loop = loop
        self.side = loop.side

    def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
        pages: list[int] = []
        objects: list[int] = []
        for _, length, start, write in requests:
            (pages if write else objects).extend(range(start // PAGE, (start + length) // PAGE))
        return self.loop.job(part, pages, objects)
