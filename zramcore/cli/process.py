"""The memory of a running process, as data for a trial: /proc/PID/maps, pagemap and mem."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import numpy as np

from ..errors import InvalidValue, NotPermitted, ZramError
from .corpus import CHUNK, Extent

_IN_MEMORY_OR_SWAPPED = np.uint64(1 << 63 | 1 << 62)  # Documentation/admin-guide/mm/pagemap.rst
_PAGEMAP_PAGES = 1 << 17
"""Pages looked up at once: 1 MiB of pagemap, half a gigabyte of addresses."""
_NOT_MEMORY = ("[vvar", "[vsyscall]")
"""Mappings of the kernel's that cannot be read, or are no memory of the process."""


def process_extents(pid: int) -> Iterator[Extent]:
    """The pages of process `pid` that are in memory or swapped out, as runs, one extent for each mapping.

    Pages that it reserved and never touched are left out: they would be counted as same-filled. The process goes on
    meanwhile, so this is a snapshot page by page. Mappings of devices, which the kernel does not let anybody read,
    are left out. Raises ZramError: ESRCH, EACCES, or EINVAL for a process without memory (a kernel thread).
    """
    try:
        with open(f"/proc/{pid}/maps") as file:
            mappings = [mapping for line in file if (mapping := _mapping(line))]
        if not mappings:
            raise InvalidValue(f"process {pid} has no memory of its own", hint="it is a kernel thread, or it has ended")
        with (
            open(f"/proc/{pid}/mem", "rb", buffering=0) as memory,
            open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap,
        ):
            for start, end, name in mappings:
                yield f"process {pid}, {name}", _touched(memory.fileno(), pagemap.fileno(), start, end)
    except ZramError:
        raise
    except OSError as error:
        raise _explain(pid, error) from error


def _explain(pid: int, error: OSError) -> ZramError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(
            f"no permission to read the memory of process {pid}",
            hint="run it as root, or as the same user with kernel.yama.ptrace_scope=0",
        )
    if error.errno in (errno.ENOENT, errno.ESRCH) and not os.path.exists(f"/proc/{pid}"):
        return ZramError(f"there is no process {pid}", errno=errno.ESRCH)
    return ZramError(f"cannot read {error.filename or f'the memory of process {pid}'}", errno=error.errno)


def _mapping(line: str) -> tuple[int, int, str] | None:
    """Start, end and name of a line of maps; None when it is not readable memory."""
    addresses, permissions, _, _, _, *name = line.split(maxsplit=5)
    label = name[0].strip() if name else addresses
    if permissions[0] != "r" or label.startswith(_NOT_MEMORY):
        return None
    start, _, end = addresses.partition("-")
    return int(start, 16), int(end, 16), label


def _touched(memory: int, pagemap: int, start: int, end: int) -> Iterator[bytes]:
    page = os.sysconf("SC_PAGE_SIZE")
    for first in range(start // page, end // page, _PAGEMAP_PAGES):
        count = min(_PAGEMAP_PAGES, end // page - first)
        entries = np.frombuffer(os.pread(pagemap, count * 8, first * 8), dtype=np.uint64)
        touched = np.concatenate(([0], (entries & _IN_MEMORY_OR_SWAPPED) != 0, [0])).astype(np.int8)
        edges = np.flatnonzero(np.diff(touched))
        for begin, stop in edges.reshape(-1, 2).tolist():
            yield from _run(memory, (first + begin) * page, (first + stop) * page)


def _run(memory: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a run of pages; it ends early where the process unmapped it meanwhile."""
    while start < end:
        try:
            data = os.pread(memory, min(CHUNK, end - start), start)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: unmapped meanwhile, or a mapping of a device
                raise
            return
        if not data:
            return
        yield data
        start += len(data)
