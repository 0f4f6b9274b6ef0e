"""Copying pages out of the pool for a pass: whole batches of slots that carry its token, into memory for direct I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .datapath import DataPath
from .errors import ZramError
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
        path = self._path
        table, page_size = path.table, path.page_size
        taken: list[Column] = []
        objects: list[bytes] = []
        flags: list[int] = []
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
            flags += rows.tolist()
        failures: dict[int, ZramError] = {}
        groups: dict[int, list[int]] = {}
        for position, flag in enumerate(flags):
            if self._compressed or flag & HUGE:
                # The rest of the block is zeroed: it would leak old memory (3bf1c285dc40).
                target[position * page_size : (position + 1) * page_size] = objects[position].ljust(page_size, b"\0")
            else:
                groups.setdefault(flag >> PRIORITY_SHIFT & 3, []).append(position)
        for priority, positions in groups.items():
            self._unpack(priority, positions, objects, target, failures)
        return np.concatenate(taken) if taken else slots[:0], failures

    def _unpack(
        self,
        priority: int,
        positions: Sequence[int],
        objects: Sequence[bytes],
        target: memoryview,
        failures: dict[int, ZramError],
    ) -> None:
        """Decompress the objects at `positions`; when one of them cannot be, each by itself."""
        page_size = self._path.page_size
        try:
            pages = self._path.zcomp.decompress(priority, [objects[position] for position in positions], page_size)
        except ZramError as error:
            if len(positions) == 1:
                failures[positions[0]] = error
                return
            for position in positions:
                self._unpack(priority, [position], objects, target, failures)
            return
        for position, page in zip(positions, pages, strict=True):
            target[position * page_size : (position + 1) * page_size] = page
