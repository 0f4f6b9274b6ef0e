"""The pages that are worked on: real ones, none of them same-filled, since those cost a codec nothing."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import numpy as np

from ..errors import InvalidValue

PAGE = 4096
MIB = 1 << 20
RUN = 64
"""Pages that stay together when there are more than needed: neighbours look alike, and real requests carry them."""


class Data:
    """Whole MiBs of pages. `view` is page-aligned, as direct I/O wants it; `pages` are the same as bytes objects."""

    def __init__(self, chunks: Iterable[bytes], size: int) -> None:
        """Up to `size` bytes of the pages in `chunks`, from all parts of it when there are more.

        Raises InvalidValue (EINVAL) when there are not two MiB of them.
        """
        found: list[bytes] = []
        for chunk in chunks:
            found += [page for page in _pages(chunk) if page != page[:8] * (PAGE // 8)]
        wanted = min(size // MIB, len(found) * PAGE // MIB)
        if wanted < 2:
            raise InvalidValue(
                f"{len(found)} pages that are not same-filled are too few to measure with",
                hint="give more or larger files; --size is 2M or more",
            )
        self.pages = _spread(found, wanted * MIB // PAGE)
        self.size = len(self.pages) * PAGE
        self._memory = mmap.mmap(-1, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(b"".join(self.pages))
        self.view = memoryview(self._memory)


def aligned_buffer(size: int) -> memoryview:
    """Page-aligned memory that is already there: its page faults are in nobody's time."""
    memory = memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    memory[:: mmap.PAGESIZE] = b"\1" * len(memory[:: mmap.PAGESIZE])
    return memory


def _pages(chunk: bytes) -> list[bytes]:
    return [chunk[start : start + PAGE] for start in range(0, len(chunk) - PAGE + 1, PAGE)]


def _spread(found: list[bytes], count: int) -> list[bytes]:
    """`count` of these pages, in runs at equal distances."""
    runs = -(-count // RUN)
    starts = np.linspace(0, len(found) - RUN, runs).astype(int).tolist() if len(found) > RUN else [0]
    return [page for start in starts for page in found[start : start + RUN]][:count]
