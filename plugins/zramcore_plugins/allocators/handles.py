"""Handles: small integers, each with one uint64 that says where its object is now.

`positions[handle]` is the byte offset of the object's payload in the arena; 0 while the handle is free. The table
is anonymous memory that exists only once written. Free handles wait in `spare`, a list that the hot path takes from
the end of; what does not fit there is chained through the table itself (`CHAINED | next`), so that freeing a
million objects costs no memory. Handle 0 is nobody's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zramcore.errors import NoMemory

from .address_space import give_back, reserve_handles

CHAINED = 1 << 63
SPARE_MOST = 8192
"""Free handles kept at hand; more are chained."""
SPARE_BATCH = 1024
"""Handles made ready at once."""


class HandleTable:
    """Guarded by the pool's lock, except that `positions` may be read without it."""

    def __init__(self, max_objects: int) -> None:
        """Raises NoMemory when the address space is not there."""
        self._count = max_objects + 1
        self._map = reserve_handles(max_objects)
        self._whole = memoryview(self._map)
        self.positions = self._whole.cast("Q")
        self._array: npt.NDArray[Any] | None = np.frombuffer(self._whole, dtype=np.uint64)
        self.spare: list[int] = []
        self._chain = 0
        self._fresh = 1

    def refill(self) -> None:
        """Put handles into `spare`, which is empty. Raises NoMemory when max_objects are alive."""
        positions, spare = self.positions, self.spare
        for _ in range(SPARE_BATCH):
            handle = self._chain
            if not handle:
                break
            # No call among these: an interrupt cannot fall between them and lose a handle.
            self._chain = positions[handle] & ~CHAINED
            positions[handle] = 0
            spare += [handle]
        if not spare:
            end = min(self._fresh + SPARE_BATCH, self._count)
            spare += range(end - 1, self._fresh - 1, -1)
            self._fresh = end
        if not spare:
            raise NoMemory(f"all {self._count - 1} handles are in use")

    def spill(self) -> None:
        """Chain the older half of the handles in `spare`, when there are too many."""
        count = len(self.spare) - SPARE_MOST // 2
        if count <= SPARE_MOST // 2 or self._array is None:
            return
        surplus = np.array(self.spare[:count], dtype=np.uint64)
        self._array[surplus[:-1]] = surplus[1:] | np.uint64(CHAINED)
        self._array[surplus[-1]] = self._chain | CHAINED
        head = self.spare[0]
        self._chain = head
        del self.spare[:count]

    def reset(self) -> None:
        """Forget every handle, when none is in use."""
        if not give_back(self._map, 0, len(self._map)) and self._array is not None:
            self._array[: self._fresh] = 0
        self.spare.clear()
        self._chain = 0
        self._fresh = 1

    def close(self) -> None:
        """Unmap; no other call follows."""
        self._array = None
        self.positions.release()
        self._whole.release()
        self._map.close()
