"""The backing driver `mmap`: a file mapped MAP_SHARED, so that a block costs no system call.

A mapping has no way to report an error: a page that cannot be read or allocated kills the process with SIGBUS. So
the file's blocks are allocated when it is opened (ENOSPC then, not SIGBUS later) unless sparse=1 takes that risk, and
`discard` is refused without it. Nobody may shorten the file while it is in use, and a copy-on-write file system may
need new space for a block that has some. Page faults happen with the interpreter's lock held: for a slow medium
`file` and `direct` are the better choice.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import ClassVar

from zramcore.errors import InvalidValue, NoMemory
from zramcore.interfaces import Buffer, Option

from .driver import DISCARD, SIZE, MediumDriver, sparse_option


class MmapDriver(MediumDriver):
    """Blocks in a mapped file."""

    name = "mmap"
    summary = "a file mapped into memory; created when size= is given; its space is allocated at once"
    options: ClassVar[Sequence[Option]] = (SIZE, sparse_option(False), DISCARD)

    def check_options(self) -> None:
        if self.discard_on_release and not self.sparse:
            raise InvalidValue(
                "discard=1 gives back space that the mapping then may not get again",
                hint="add sparse=1 to take that risk",
            )

    def start(self) -> None:
        try:
            self._map = mmap.mmap(self.medium.fd, self.nr_blocks * self.block_size, mmap.MAP_SHARED)
        except (OSError, OverflowError, ValueError) as error:
            raise NoMemory(f"cannot map {self.nr_blocks * self.block_size} bytes of {self.spec.path}") from error

    def write_blocks(self, block: int, blocks: Sequence[Buffer]) -> None:
        offset = self.offset(block, len(blocks))
        size = self.block_size
        for page in blocks:
            self._map[offset : offset + size] = page
            offset += size

    def write_run(self, offset: int, data: memoryview) -> None:
        self._map[offset : offset + len(data)] = data

    def read_scattered(self, blocks: Sequence[int], target: memoryview) -> bool:
        size, start = self.block_size, 0
        for block in blocks:
            offset = self.offset(block, 1)
            target[start : start + size] = self._map[offset : offset + size]
            start += size
        return True

    def read_blocks(self, block: int, count: int) -> Buffer:
        offset = self.offset(block, count)
        return self._map[offset : offset + count * self.block_size]

    def discard_blocks(self, block: int, count: int) -> None:
        """With sparse=1, punch a hole; otherwise nothing: the space stays allocated, as the mapping needs it."""
        self.offset(block, count)
        if self.sparse:
            super().discard_blocks(block, count)

    def flush(self) -> None:
        self._map.flush()

    def close(self) -> None:
        self._map.close()
        super().close()
