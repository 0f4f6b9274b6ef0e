"""The backing driver `file`: a plain file through the page cache, sparse unless told otherwise.

Works on every file system. The page cache may keep a second copy of what was written back, which the system drops
when it needs the memory; `direct` avoids that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from zramcore.interfaces import Buffer

from .driver import MediumDriver, read_all, runs_of, write_all


class FileDriver(MediumDriver):
    """Blocks in a file (or on a block device), by pwritev and preadv."""

    name = "file"
    summary = "a plain file through the page cache; created when size= is given"

    def write_blocks(self, block: int, blocks: Sequence[Buffer]) -> None:
        write_all(self.medium.fd, blocks, self.offset(block, len(blocks)))

    def read_scattered(self, blocks: Sequence[int], target: memoryview) -> bool:
        size, fd = self.block_size, self.medium.fd
        runs = list(runs_of(blocks))
        if len(runs) > 1:
            # Or the disk would have one of them to do at a time.
            for block, positions in runs:
                length = len(positions) * size
                os.posix_fadvise(fd, self.offset(block, len(positions)), length, os.POSIX_FADV_WILLNEED)
        for block, positions in runs:
            pages = [target[position * size : (position + 1) * size] for position in positions]
            read_all(fd, pages, self.offset(block, len(pages)))
        return True

    def read_blocks(self, block: int, count: int) -> Buffer:
        offset = self.offset(block, count)
        length = count * self.block_size
        data = os.pread(self.medium.fd, length, offset)
        if len(data) == length:
            return data
        whole = bytearray(length)
        read_all(self.medium.fd, [memoryview(whole)], offset)
        return whole
