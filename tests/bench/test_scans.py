"""`bench scan`: the tables that are scanned, and what the scans do to them."""

from __future__ import annotations

import numpy as np

from zramcore.bench.data import PAGE
from zramcore.bench.scans import RUN, ScannedDevice, bench, fill
from zramcore.interfaces import Catalogue
from zramcore.slot_table import IDLE, PP_SLOT, in_memory


def silent(what: str) -> None:
    """Told, and tells nobody."""


def test_slots_are_in_use_in_runs_at_equal_distances(built_in: Catalogue) -> None:
    device = ScannedDevice(built_in, 1 << 14)
    fill(lambda data, offset: device.device.pwrite(offset, data), 1 << 14, 1 << 10, "scattered", silent)
    used = np.flatnonzero(in_memory(device.flags()))
    assert len(used) == 1 << 10
    starts = used[::RUN]
    assert (np.diff(used.reshape(-1, RUN)) == 1).all()
    assert set(np.diff(starts)) == {16 * RUN}
    assert len({device.device.pread(int(slot) * PAGE, PAGE) for slot in used}) == 1 << 10
    device.close()


def test_slots_are_in_use_side_by_side(built_in: Catalogue) -> None:
    device = ScannedDevice(built_in, 1 << 14)
    fill(lambda data, offset: device.device.pwrite(offset, data), 1 << 14, 1 << 10, "dense", silent)
    assert np.flatnonzero(in_memory(device.flags())).tolist() == list(range(1 << 10))
    device.close()


def test_scans_mark_all_choose_all_and_leave_no_token(built_in: Catalogue) -> None:
    device = ScannedDevice(built_in, 1 << 12)
    fill(lambda data, offset: device.device.pwrite(offset, data), 1 << 12, 1 << 12, "dense", silent)
    device.idle_all()
    assert (device.flags() & IDLE != 0).all()
    device.select("idle")()
    assert not (device.flags() & PP_SLOT).any()
    device.idle_by_age()
    assert not (device.flags() & IDLE).any()
    device.close()


def test_the_time_of_a_scan_is_told_whole_and_by_slot(built_in: Catalogue) -> None:
    for row in bench(built_in, 1 << 12, 1 << 12, "dense", None, 2, silent):
        assert row.us_per_page is not None
        assert row.figures["ms"] == row.us_per_page * (1 << 12) / 1000
        assert row.ratio_to_kernel is None
