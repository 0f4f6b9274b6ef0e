"""The recompression pass: try a denser algorithm on pages in memory, biggest objects first. One priority a pass (7.1+).

Each page is handled whole under its slot's lock, as in the kernel: nobody can read it half way.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .datapath import DataPath
from .device import Device
from .errors import DeviceIOError, InvalidValue, ZramError
from .interfaces import Buffer
from .postprocess import EVERY_PAGE, Mode, Selection, tokens
from .slot_table import (
    HUGE,
    IDLE,
    INCOMPRESSIBLE,
    LOCK_MASK,
    LOCK_SHIFT,
    PP_SLOT,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SIZE_MASK,
)
from .zcomp import NR_PRIORITIES

NO_LIMIT = (1 << 64) - 1
SECONDARY = 1


@dataclass(frozen=True)
class RecompressRequest:
    """What `recompress` was asked: objects of `threshold` bytes or more (0: any), at most `max_pages` attempts."""

    mode: Mode = EVERY_PAGE
    label: str = "all"
    threshold: int = 0
    priority: int = SECONDARY
    algorithm: str | None = None
    max_pages: int = NO_LIMIT


def recompress(device: Device, request: RecompressRequest) -> None:
    """Run one pass. Waits for another pass to end.

    Raises InvalidValue (EINVAL): not initialised, a threshold of huge_class_size or more, an algorithm or priority
    that is not configured; NoMemory (ENOMEM) and a compressor's EIO, which end the pass.
    """
    with device.pass_lock:
        path = device.path
        if path is None:
            raise InvalidValue("the device is not initialised", hint="write disksize first")
        if request.threshold >= path.allocator.huge_class_size:
            raise InvalidValue(f"threshold must be less than {path.allocator.huge_class_size} bytes")
        priority = _priority(path, request)
        used, attempts, moved, failure = path.allocator.pages_used, 0, 0, ""
        try:
            with tokens(path.table, [Selection(0, device.nr_pages, request.mode)], INCOMPRESSIBLE) as candidates:
                for index in candidates:
                    if device.stop_pass.is_set():
                        raise DeviceIOError("the pass was stopped", errno=errno.EINTR)
                    if attempts >= request.max_pages:
                        break
                    tried, better = _recompress_slot(path, index, priority, request.threshold)
                    attempts += tried
                    moved += better
        except ZramError as error:
            failure = error.errno_name
            raise
        finally:
            freed = max(0, used - path.allocator.pages_used) * path.page_size
            device.notify(
                "recompress_done", device=device.name, mode=request.label, pages=moved, freed=freed, error=failure
            )
            path.trim()


def _priority(path: DataPath, request: RecompressRequest) -> int:
    """The priority to compress with; `algo=` picks the first secondary one of that name."""
    compressors = path.zcomp.compressors
    priority = request.priority
    if request.algorithm is not None:
        named = [p for p in range(SECONDARY, NR_PRIORITIES) if _name(path, p) == request.algorithm]
        if not named:
            raise InvalidValue(f"algorithm {request.algorithm!r} is not a secondary algorithm of this device")
        priority = named[0]
    if not SECONDARY <= priority < NR_PRIORITIES or compressors[priority] is None:
        raise InvalidValue(
            f"priority {priority} has no secondary algorithm", hint="write recomp_algorithm before disksize"
        )
    return priority


def _name(path: DataPath, priority: int) -> str | None:
    compressor = path.zcomp.compressors[priority]
    return compressor.name if compressor is not None else None


def _recompress_slot(path: DataPath, index: int, priority: int, threshold: int) -> tuple[bool, bool]:
    """Try one slot; returns whether it was tried, and whether its object was replaced."""
    table = path.table
    with table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
        flags = table.flags_row[index]
        size = flags & SIZE_MASK
        current = flags >> PRIORITY_SHIFT & 3
        if not flags & PP_SLOT or current >= priority or size < threshold:
            return False, False
        old_handle = table.handles_row[index]
        try:
            page: Buffer = path.allocator.view(old_handle, size)
        except Exception as error:
            raise path.allocator_fault(error) from error
        if not flags & HUGE:
            page = path.zcomp.decompress(current, [page], path.page_size)[0]
        flags &= ~(IDLE | PP_SLOT)
        data = _compress(path, priority, page)
        smaller_class = path.allocator.size_class(len(data)) < path.allocator.size_class(size)
        if not smaller_class or (threshold and len(data) >= threshold):
            table.flags_row[index] = flags | INCOMPRESSIBLE
            return True, False
        handle = _store(path, data)
        table.flags_row[index] = len(data) | priority << PRIORITY_SHIFT | (flags & ~(SIZE_MASK | PRIORITY_MASK | HUGE))
        table.handles_row[index] = handle
        table.ac_times_row[index] = 0
        with path.stats.lock:
            path.stats.compr_data_size += len(data) - size
            if flags & HUGE:
                path.stats.huge_pages -= 1
        try:
            path.allocator.free(old_handle)
        except Exception as error:
            raise path.allocator_fault(error) from error
        return True, True


def _store(path: DataPath, data: Buffer) -> int:
    """A handle of a new object that holds `data`. mem_limit is not looked at and mem_used_max not raised (measured)."""
    try:
        handle = path.allocator.alloc(len(data))
        try:
            path.allocator.write(handle, data)
        except BaseException:
            path.allocator.free(handle)
            raise
    except Exception as error:
        raise path.allocator_fault(error) from error
    return handle


def _compress(path: DataPath, priority: int, page: Buffer) -> Buffer:
    try:
        data = path.zcomp.context(priority).compress_page(page)
        if not len(data):
            raise ValueError("a page was compressed to nothing")
    except Exception as error:
        raise path.zcomp.fault(priority, error) from error
    return data if len(data) <= path.page_size else page
