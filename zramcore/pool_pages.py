"""Copying pages out of the pool for a pass: whole batches of slots that carry its token, into memory for direct I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .datapath import DataPath
from .errors import ZramError
from .interfaces import Buffer
from .slot_table import HUGE, PP_SLOT, PRIORITY_SHIFT, SIZE_MASK, Column

LOCKED_SLOTS = 64
"""Slots that are locked together: so few that nobody who wants one of their locks waits long for it."""


class PoolPages:
    """What the slots of one pass hold, as the backing store is to have it."""

    def __init__(self, path: DataPath, compressed: bool) -> None:
        """`compressed`: objects as they are (compressed_writeback), the rest of their blocks zeroed."""
        self._path = path
        self._compressed = compressed

    def take(self, slots: Column, target: memoryview) -> tuple[Column, dict[int, ZramError]]:
        """Fill `target`, a page for each of `slots`, from those that still have their token, in order. Returns these
        slots, and by their position why a page could not be decompressed; what `target` has there is then not it.

        Raises PluginFault when the allocator fails.
        """
        page_size = self._path.page_size
        taken, flags, pages = self._copy_objects(slots)
        failures: dict[int, ZramError] = {}
        if self._compressed:
            # The rest of the block is zeroed: it would leak old memory (3bf1c285dc40).
            pages = [bytes(data).ljust(page_size, b"\0") for data in pages]
        else:
            packed = np.flatnonzero((flags & HUGE) == 0)
            priorities = flags[packed] >> PRIORITY_SHIFT & 3
            for priority in np.unique(priorities).tolist():
                positions = packed[priorities == priority].tolist()
                failures |= self._unpack(priority, positions, pages)
        target[: len(pages) * page_size] = b"".join(pages)
        return taken, failures

    def _copy_objects(self, slots: Column) -> tuple[Column, Column, list[Buffer]]:
        """Those of `slots` that have their token, their flags and their objects."""
        path, table = self._path, self._path.table
        taken, flags = [slots[:0]], [table.flags[:0]]
        objects: list[Buffer] = []
        for start in range(0, len(slots), LOCKED_SLOTS):
            part = slots[start : start + LOCKED_SLOTS]
            with table.lock_slots(part):
                rows = table.flags[part]
                held = (rows & PP_SLOT) != 0
                if not held.all():
                    part, rows = part[held], rows[held]
                try:
                    views = path.allocator.views(table.handles[part].tolist(), (rows & SIZE_MASK).tolist())
                    # Copies, for they must outlive the locks: decompressing under them would let others wait.
                    objects += map(bytes, views)
                except Exception as error:
                    raise path.allocator_fault(error) from error
            taken.append(part)
            flags.append(rows)
        return np.concatenate(taken), np.concatenate(flags), objects

    def _unpack(self, priority: int, positions: Sequence[int], pages: list[Buffer]) -> dict[int, ZramError]:
        """Replace the objects at `positions` by their pages. When one of them cannot be decompressed, each is tried by
        itself, and what cannot be is a page of zeroes and in the answer."""
        page_size = self._path.page_size
        objects = pages if len(positions) == len(pages) else [pages[position] for position in positions]
        try:
            found = self._path.zcomp.decompress(priority, objects, page_size)
        except ZramError as error:
            if len(positions) > 1:
                failures: dict[int, ZramError] = {}
                for position in positions:
                    failures |= self._unpack(priority, [position], pages)
                return failures
            pages[positions[0]] = bytes(page_size)
            return {positions[0]: error}
        if len(found) == len(pages):
            pages[:] = found
        else:
            for position, page in zip(positions, found, strict=True):
                pages[position] = page
        return {}
