"""Address space for a pool: mappings that have memory only where they were written, smaller where space is short."""

from __future__ import annotations

import contextlib
import errno
import mmap
from collections.abc import Callable

from zramcore.errors import NoMemory

from .size_classes import CHAIN_SIZE

MAP_NORESERVE = 0x4000
MADV_DONTNEED_LOCKED = 24
SMALLEST = 64 << 20
"""When less address space than this can be had, there is no arena."""
# mmap(-1, n) alone is MAP_SHARED, and MADV_DONTNEED gives nothing back of that.
FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE


def reserve_arena(page_size: int, max_objects: int, ahead: Callable[[int], int]) -> tuple[mmap.mmap, int]:
    """A mapping of `ahead(size)` bytes followed by an arena of `size` bytes; and `size`.

    That is what no sequence of allocations can exceed: every object may pin a run of each length once over its life,
    1 + 2 + ... + 8 pages, and page 0 is nobody's. Or it is what the system allows; NoMemory for less than 64 MiB.
    """
    unit = max(page_size, mmap.PAGESIZE)
    wanted = (max_objects * sum(range(1, CHAIN_SIZE + 1)) + CHAIN_SIZE) * page_size
    least = min(wanted, SMALLEST)
    usable = wanted
    while True:
        usable = -(-usable // unit) * unit
        size = page_size + usable
        try:
            memory = mmap.mmap(-1, ahead(size) + size, flags=FLAGS)
        except (OSError, OverflowError, ValueError) as error:
            if usable <= least:
                raise NoMemory(
                    f"no {usable >> 20} MiB of address space for the pool", hint="raise the limit (ulimit -v)"
                ) from error
            usable = max(usable // 2, least)
        else:
            with contextlib.suppress(OSError):  # a kernel without transparent huge pages refuses, and needs it not
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            return memory, size


def reserve_handles(max_objects: int) -> mmap.mmap:
    """A mapping with a word for each handle, and for handle 0. Raises NoMemory."""
    length = 8 * (max_objects + 1)
    try:
        return mmap.mmap(-1, length, flags=FLAGS)
    except (OSError, OverflowError, ValueError) as error:
        raise NoMemory(f"no {length >> 20} MiB of address space for {max_objects} handles") from error


def give_back(memory: mmap.mmap, start: int, length: int) -> bool:
    """Give pages back to the system; they read as zeros afterwards. False, and nothing done, where that cannot be.

    The daemon of a swap device has locked its memory (mlockall), and MADV_DONTNEED is EINVAL there; Linux 5.18 has
    another advice for it.
    """
    for advice in (mmap.MADV_DONTNEED, MADV_DONTNEED_LOCKED):
        try:
            memory.madvise(advice, start, length)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return True
    return False
