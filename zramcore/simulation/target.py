"""SimulatedTarget: a simulated device by its attributes, as policies and the scheduler know a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import InvalidValue, NoSuchAttribute, NotPermitted, ZramError, did_you_mean
from ..insight import AGE_EDGES
from ..interfaces import can
from ..kernel_features import FILES
from ..parse import kstrtouint, kstrtoull, memparse_checked, sysfs_streq
from ..scan import block_state
from .device import SimulatedDevice


class SimulatedTarget:
    """The attributes that policies use, with the texts and errors of a real device's; passes are over at once.

    `capabilities`, where the setup has any, are those of the kernel's zram that is simulated.
    """

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        if device.setup.capabilities is not None:
            self.capabilities = device.setup.capabilities
        self._histogram = (-1, -1, "")
        self._mm_stat = (-1, "")

    @property
    def name(self) -> str:
        """The device's name in the config."""
        return self.device.setup.name

    def show(self, attribute: str) -> str:
        """Read an attribute. Raises NoSuchAttribute (ENOENT), NotPermitted (EACCES)."""
        show = _SHOW.get(attribute)
        if show is None:
            if attribute in _STORE:
                raise NotPermitted("this attribute can only be written", attribute=attribute)
            raise self._missing(attribute)
        return show(self)

    def store(self, attribute: str, value: str) -> None:
        """Write an attribute. Raises as a real device does."""
        store = _STORE.get(attribute)
        if store is None:
            if attribute in _SHOW:
                raise NotPermitted("this attribute can only be read", attribute=attribute, value=value)
            raise self._missing(attribute)
        if attribute in FILES and not can(self, attribute):
            raise NoSuchAttribute(f"{self.name} has no {attribute} on this kernel", attribute=attribute, value=value)
        try:
            store(self.device, value)
        except ZramError as error:
            raise error.at(attribute, value.removesuffix("\n")) from None

    def _missing(self, attribute: str) -> NoSuchAttribute:
        hint = did_you_mean(attribute, sorted({*_SHOW, *_STORE}))
        return NoSuchAttribute(f"a simulated device has no {attribute!r}", attribute=attribute, hint=hint)

    def idle_histogram(self) -> str:
        """The text of idle_histogram; the same one as long as nothing happens."""
        device, now = self.device, self.device.clock()
        if self._histogram[:2] != (now, device.version):
            text = _HISTOGRAM % tuple(device.ages.buckets(now).ravel().tolist())
            self._histogram = (now, device.version, text)
        return self._histogram[2]

    def mm_stat(self) -> str:
        """The text of mm_stat; the same one as long as nothing happens."""
        if self._mm_stat[0] != self.device.version:
            self._mm_stat = (self.device.version, _mm_stat(self.device))
        return self._mm_stat[1]


_HISTOGRAM = "".join(
    f"{start:8d} {end:>8} %8d %12d %8d\n" for start, end in zip(AGE_EDGES, (*AGE_EDGES[1:], "-"), strict=True)
)


def _mm_stat(device: SimulatedDevice) -> str:
    size, done = device.setup.page_size, device.done
    return (
        f"{device.accesses.pages_stored(done) * size:8d} {device.compr_data_size:8d} {device.pool.used:8d} "
        f"{device.mem_limit_pages * size:8d} {device.peak:8d} {device.written.same_pages(done):8d} {0:8d} "
        f"{device.huge_pages:8d} {device.written.huge_pages_since(done):8d}\n"
    )


def _bd_stat(target: SimulatedTarget) -> str:
    device = target.device
    units = device.setup.page_size >> 12
    return f"{device.bd_count * units:8d} {device.bd_reads:8d} {device.bd_writes:8d}\n"


def _recomp_algorithm(target: SimulatedTarget) -> str:
    return "".join(f"#{priority}: [{name}] \n" for priority, name in target.device.setup.algorithms if priority)


_SHOW: Mapping[str, Callable[[SimulatedTarget], str]] = {
    "disksize": lambda t: f"{t.device.setup.nr_pages * t.device.setup.page_size}\n",
    "initstate": lambda t: "1\n",
    "comp_algorithm": lambda t: f"[{t.device.setup.algorithms[0][1]}] \n",
    "recomp_algorithm": _recomp_algorithm,
    "backing_dev": lambda t: f"{t.device.setup.backing_dev}\n",
    "compressed_writeback": lambda t: f"{int(t.device.setup.compressed_writeback)}\n",
    "writeback_limit": lambda t: f"{t.device.budget.limit}\n",
    "writeback_limit_enable": lambda t: f"{int(t.device.budget.enabled)}\n",
    "writeback_batch_size": lambda t: f"{t.device.batch_size}\n",
    "mm_stat": SimulatedTarget.mm_stat,
    "bd_stat": _bd_stat,
    "io_stat": lambda t: f"{0:8d} {0:8d} 0 {t.device.accesses.freed(t.device.done):8d}\n",
    "block_state": lambda t: "".join(block_state(t.device.table)),
    "idle_histogram": SimulatedTarget.idle_histogram,
}


def _strict(text: str, read: Callable[[str], int]) -> int:
    try:
        return read(text)
    except ZramError as error:
        raise InvalidValue(error.reason, hint=error.hint) from error


def _idle(device: SimulatedDevice, text: str) -> None:
    device.mark_idle(None if sysfs_streq(text, "all") else _strict(text, lambda value: kstrtouint(value, 0)))


def _limit(device: SimulatedDevice, text: str) -> None:
    units = device.setup.page_size >> 12
    limit = _strict(text, kstrtoull)
    device.budget.set_limit(limit - limit % units)


def _limit_enable(device: SimulatedDevice, text: str) -> None:
    device.budget.enabled = bool(_strict(text, kstrtoull))


def _batch_size(device: SimulatedDevice, text: str) -> None:
    size = _strict(text, kstrtouint)
    if not size:
        raise InvalidValue("a batch has at least 1 page")
    device.batch_size = size


def _mem_limit(device: SimulatedDevice, text: str) -> None:
    size = device.setup.page_size
    device.mem_limit_pages = -(-memparse_checked(text) // size)
    device.version += 1


def _mem_used_max(device: SimulatedDevice, text: str) -> None:
    if _strict(text, kstrtoull):
        raise InvalidValue("mem_used_max takes only 0")
    device.peak = device.pool.used
    device.version += 1


def _compact(device: SimulatedDevice, text: str) -> None:
    """The simulated pool has no gaps to close."""


_STORE: Mapping[str, Callable[[SimulatedDevice, str], None]] = {
    "idle": _idle,
    "writeback": lambda device, text: device.write_back(text.removesuffix("\n")),
    "recompress": lambda device, text: device.recompress(text),
    "writeback_limit": _limit,
    "writeback_limit_enable": _limit_enable,
    "writeback_batch_size": _batch_size,
    "mem_limit": _mem_limit,
    "mem_used_max": _mem_used_max,
    "compact": _compact,
}
