"""The slot map: the table of a device as a few hundred cells, each counting the states of its group of slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..device import Device
from ..errors import InvalidValue
from ..extents import SAME_FILLED, STORED_HUGE, STORED_IDLE, WRITTEN_BACK, slot_state

STATES = ("empty", "same", "compressed", "huge", "idle", "written_back")
"""What a slot is drawn as: the last of these that applies. An idle page is idle whether it is huge or not."""

MOST_CELLS = 1 << 16


def slot_map(device: Device, cells: int) -> dict[str, Any]:
    """At most `cells` cells: ``slots`` of the device, ``slots_per_cell``, ``counts`` (a list per cell, in the order of
    STATES), ``totals``. Raises InvalidValue (EINVAL) for a device without disksize or a silly number of cells."""
    path = device.path
    if path is None:
        raise InvalidValue("the device is not initialised", hint="write disksize first")
    if not 1 <= cells <= MOST_CELLS:
        raise InvalidValue(f"{cells} cells", hint=f"1 to {MOST_CELLS}")
    table = path.table
    per_cell = -(-table.nr_slots // cells)
    cells = -(-table.nr_slots // per_cell)
    counts = np.zeros((cells, len(STATES)), np.int64)
    for start, end in table.touched_ranges():
        with table.lock_range(start, end - start):
            flags, handles = table.flags[start:end].copy(), table.handles[start:end].copy()
        drawn = _drawn(slot_state(flags, handles))
        keys = np.arange(start, end) // per_cell * len(STATES) + drawn
        first = start // per_cell
        last = (end - 1) // per_cell + 1
        found = np.bincount(keys - first * len(STATES), minlength=(last - first) * len(STATES))
        counts[first:last] += found.reshape(last - first, len(STATES))
    sizes = np.full(cells, per_cell, np.int64)
    sizes[-1] = table.nr_slots - per_cell * (cells - 1)
    counts[:, 0] = sizes - counts[:, 1:].sum(axis=1)  # rows that were never touched are empty too
    return {
        "states": list(STATES),
        "slots": table.nr_slots,
        "slots_per_cell": per_cell,
        "counts": counts.tolist(),
        "totals": dict(zip(STATES, counts.sum(axis=0).tolist(), strict=True)),
    }


def _drawn(states: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Positions in STATES."""
    drawn: npt.NDArray[Any] = (states != 0) * np.int64(2)
    for bit, position in ((SAME_FILLED, 1), (STORED_HUGE, 3), (STORED_IDLE, 4), (WRITTEN_BACK, 5)):
        drawn[(states & bit) != 0] = position
    return drawn
