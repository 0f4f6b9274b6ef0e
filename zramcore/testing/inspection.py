"""Looking at a device from outside its own read path: counters, rows, bytes, and what must hold of them at rest."""

from __future__ import annotations

from .. import attributes, samefill
from ..device import Device
from ..errors import ZramError
from ..slot_table import HUGE, IDLE, PP_SLOT, PRIORITY_SHIFT, SAME, SIZE_MASK, WB
from .faults import FaultyDriver


class Clock:
    """Boot seconds that stand still until told otherwise."""

    def __init__(self, now: int = 1000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def stat(device: Device, name: str) -> list[int]:
    """The columns of mm_stat, bd_stat, io_stat or stat."""
    return [int(column) for column in attributes.show(device, name).split()]


def snapshot(device: Device) -> dict[str, str]:
    """Every attribute that can be read, as its text (or its error's name): what a refused value must not change."""
    texts = {}
    for name, attribute in attributes.ATTRIBUTES.items():
        if attribute.show is not None:
            try:
                texts[name] = attributes.show(device, name)
            except ZramError as error:
                texts[name] = error.errno_name
    return texts


def peek(device: Device, index: int) -> bytes:
    """What a page holds, from its row, the pool and the medium, without the device noticing."""
    path = device.path
    assert path is not None, "the device is initialised"
    flags, handle = path.table.flags_row[index], path.table.handles_row[index]
    size, priority = flags & SIZE_MASK, flags >> PRIORITY_SHIFT & 3
    if flags & SAME:
        return samefill.expand(handle, device.page_size)
    if flags & WB:
        assert device.backing is not None, "a written-back page has a backing device"
        driver = device.backing.driver
        block = bytes(driver.peek(handle) if isinstance(driver, FaultyDriver) else driver.read_blocks(handle, 1))
        if not size or flags & HUGE:
            return block
        assert not any(block[size:]), f"the tail of block {handle} is not zeroed"
        return bytes(path.zcomp.decompress(priority, [block[:size]], device.page_size)[0])
    if not size:
        return bytes(device.page_size)
    data = bytes(path.allocator.view(handle, size))
    return data if flags & HUGE else bytes(path.zcomp.decompress(priority, [data], device.page_size)[0])


def check_consistent(device: Device) -> None:
    """What holds for every device at rest: counters are sums over the rows, no block or token is left over."""
    path = device.path
    assert path is not None, "the device is initialised"
    rows = path.table.flags[: device.nr_pages].tolist()
    handles = path.table.handles[: device.nr_pages].tolist()
    objects = [index for index, flags in enumerate(rows) if flags & SIZE_MASK and not flags & WB]
    blocks = [handles[index] for index, flags in enumerate(rows) if flags & WB]
    stored = sum(flags & (SIZE_MASK | SAME | WB) != 0 for flags in rows)
    stats = device.stats
    assert not any(flags & PP_SLOT for flags in rows), "a token is left"
    assert stats.pages_stored == stored, f"pages_stored {stats.pages_stored}, rows {stored}"
    assert stats.compr_data_size == sum(rows[index] & SIZE_MASK for index in objects), "compr_data_size"
    assert stats.same_pages == sum(flags & SAME != 0 for flags in rows), "same_pages"
    assert stats.huge_pages == sum(rows[index] & HUGE != 0 for index in objects), "huge_pages"
    assert len({handles[index] for index in objects}) == len(objects), "two rows share an object"
    assert len(set(blocks)) == len(blocks), "two rows share a block"
    if device.backing is not None:
        assert device.backing.bd_count == len(blocks), f"bd_count {device.backing.bd_count}, rows {len(blocks)}"
    for flags in rows:
        assert not (flags & SAME and flags & ~SAME), f"a same-filled row has other flags: {flags:#x}"
        assert not (flags & IDLE and flags & (SAME | WB)), f"an idle row that cannot be: {flags:#x}"
