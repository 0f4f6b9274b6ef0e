"""Rehearsal: a device of a config, set up as far as its data: what it would be is what a simulated one is made of."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from ..attributes import store
from ..backing_spec import parse_backing_spec
from ..config import DeviceConfig, plan_device
from ..device import Device
from ..errors import InvalidValue, ZramError
from ..interfaces import Catalogue, CompressorContext
from ..kernel_features import FILES
from ..parse import memparse
from ..samefill import same_word
from ..zcomp import NR_PRIORITIES
from .device import Setup
from .pool import PoolModel
from .sizes import Samples, default_samples
from .trace import Trace

KERNEL_CAPABILITIES = frozenset({*FILES, "idle_age", "block_state", "idle_histogram"})
"""Of a kernel that has everything; and the histogram, which policies there count from block_state, the same figures."""


class Rehearsal:
    """The device of `config`, which has been checked, as it would be after its writes but the one of disksize."""

    def __init__(self, config: DeviceConfig, catalogue: Catalogue) -> None:
        self.config = config
        self.catalogue = catalogue
        self.device = Device(catalogue, config.name, page_size=config.page_size)
        self.nr_pages: int | None = None
        """None for a device of the kernel's that is taken as it is: it is as large as the trace."""
        for write in plan_device(config):
            if write.attribute == "disksize":
                self.nr_pages = -(-memparse(write.value) // config.page_size)
            elif write.attribute != "backing_dev":
                store(self.device, write.attribute, write.value)
        names = self.device.zcomp.names
        self.algorithms = tuple((priority, name) for priority in range(NR_PRIORITIES) if (name := names[priority]))

    def setup(self, trace: Trace) -> Setup:
        """The simulated device. Raises InvalidValue (EINVAL) when the trace goes past its end."""
        size = self.config.page_size
        nr_pages = trace.nr_pages if self.nr_pages is None else self.nr_pages
        if trace.nr_pages > nr_pages:
            raise InvalidValue(
                f"the trace reaches byte {trace.nr_pages * size}, {self.config.name} ends at {nr_pages * size}",
                hint=f"simulate with disksize = {trace.nr_pages * size} or more",
            )
        device, blocks = self.device, self.blocks()
        blocks = nr_pages if blocks is None else blocks  # enough for every page
        return Setup(
            name=self.config.name,
            nr_pages=nr_pages,
            page_size=size,
            algorithms=self.algorithms,
            blocks=None if self._backing_dev == "none" else blocks,
            backing_dev=self._backing_dev,
            compressed_writeback=device.compressed_writeback,
            batch_size=device.writeback_batch_size,
            mem_limit_pages=device.room.limit_pages,
            writeback_limit=device.budget.limit,
            writeback_limit_enable=device.budget.enabled,
            capabilities=KERNEL_CAPABILITIES if self.config.target.is_kernel else None,
        )

    @property
    def _backing_dev(self) -> str:
        backing = self.config.settings.get("backing_dev")
        if backing is not None:
            return backing.texts[0]
        return "none" if self.config.target.device is None else "as it is"

    def pool(self) -> PoolModel:
        """An empty pool of the device's allocator."""
        allocator = self.catalogue.allocators[self.device.allocator_name](self.config.page_size, 1)
        try:
            return PoolModel(allocator)
        finally:
            allocator.close()

    def blocks(self) -> int | None:
        """Blocks of the backing device: of the size it is given or has; None when nobody knows, or without one."""
        try:
            _, spec = parse_backing_spec(self._backing_dev, self.catalogue.backing_drivers, self.config.page_size)
            if "size" in spec.options:
                return memparse(spec.options["size"]) // self.config.page_size
            number = os.open(spec.path, os.O_RDONLY | os.O_CLOEXEC)
        except (ZramError, OSError):
            return None
        try:
            return os.lseek(number, 0, os.SEEK_END) // self.config.page_size
        finally:
            os.close(number)

    def samples(self) -> Samples:
        """The sizes that come with zramcore, of the device's algorithms. Raises InvalidValue (EINVAL) for one they do
        not have, and for other pages than they are of."""
        if self.config.page_size != 4096:
            raise InvalidValue(
                f"nobody measured the sizes of pages of {self.config.page_size} bytes for simulations",
                hint="measure them on data of yours: --sizes PATH",
            )
        return default_samples().of([name for _, name in self.algorithms])

    def measure(self, pages: Iterable[bytes]) -> Samples:
        """The sizes of these pages with the device's algorithms and their parameters."""
        zcomp = self.device.zcomp.create(self.config.page_size)
        contexts = [zcomp.context(priority) for priority, _ in self.algorithms]
        rows = [_sizes(page, contexts, self.config.page_size) for page in pages]
        if not rows:
            raise InvalidValue("there is not one whole page of data to measure", hint="give more data with --sizes")
        return Samples(tuple(name for _, name in self.algorithms), np.array(rows))


def _sizes(page: bytes, contexts: list[CompressorContext], page_size: int) -> list[int]:
    if same_word(page) is not None:
        return [0] * len(contexts)
    return [min(page_size, len(context.compress_page(page))) for context in contexts]
