"""The ABI: every attribute of a device, by name, with its mode, what reading shows and what writing does.

This table is the only place where attributes exist. The CLI, the config file, the control API and every policy go
through `show` and `store`. Names, formats and errnos are those of Linux 7.3.4; `differs` says where ours is not the
same. docs/attributes.md is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .device import Device
from .errors import InvalidValue, NoSuchAttribute, NotPermitted, PluginFault, ZramError, did_you_mean
from .insight import ask_preview, show_histogram
from .interfaces import CompressorParams
from .parse import (
    kstrtobool,
    kstrtoint,
    kstrtou16,
    kstrtouint,
    kstrtoull,
    memparse,
    memparse_checked,
    next_args,
    sysfs_streq,
)
from .pass_grammar import parse_recompress, parse_writeback
from .recompress import recompress
from .scan import block_state, mark_all_idle, mark_idle_by_age
from .writeback import write_back
from .zcomp import NR_PRIORITIES, PRIMARY, read_dictionary

NOT_SET = -(1 << 31)
"""A level or winbits of this much is the kernel's mark for one that is not given."""

MAX_WORKERS = 1024

Show = Callable[[Device], str]
Store = Callable[[Device, str], None]


@dataclass(frozen=True)
class Attribute:
    """One attribute. `since` is the kernel version that has it ("-": ours); `differs` how ours is not the same.

    `show` and `store` are None where the kernel's mode has no read or write bit.
    """

    name: str
    show: Show | None
    store: Store | None
    since: str
    summary: str
    differs: str = ""

    @property
    def mode(self) -> str:
        """ "rw", "ro" or "wo"."""
        return "rw" if self.show and self.store else "ro" if self.show else "wo"


def _strict(parse: Callable[[str], int], text: str) -> int:
    """`parse`, with every error as EINVAL: most of the kernel's stores hide the difference."""
    try:
        return parse(text)
    except ZramError as error:
        raise InvalidValue(error.reason, hint=error.hint) from error


def _require_initialized(device: Device) -> None:
    if not device.initialized:
        raise InvalidValue("the device is not initialised", hint="write disksize first")


def _line(text: str) -> str:
    """What was written, without the newline that echo adds."""
    return text.removesuffix("\n")


# Life -----------------------------------------------------------------------------------------------------------------


def _disksize_store(device: Device, text: str) -> None:
    size = memparse(text)
    if not size:
        raise InvalidValue("not a size", hint="bytes, or a number with K, M, G or T")
    device.initialize(size)


def _reset_store(device: Device, text: str) -> None:
    if not kstrtou16(text):
        raise InvalidValue("reset takes a number that is not 0", hint="write 1")
    device.reset()


def _compact_store(device: Device, text: str) -> None:
    _require_initialized(device)
    path = device.path
    if path is not None:
        path.compact()


def _workers_store(device: Device, text: str) -> None:
    workers = _strict(kstrtouint, text)
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidValue(f"workers is 1 to {MAX_WORKERS}", hint="1: every request on its own thread alone")
    device.set_workers(workers)


# Memory ---------------------------------------------------------------------------------------------------------------


def _mem_limit_store(device: Device, text: str) -> None:
    size = memparse_checked(text)
    device.set_mem_limit((size + device.page_size - 1) // device.page_size)


def _mem_limit_wait_store(device: Device, text: str) -> None:
    device.room.set_wait(_strict(kstrtouint, text))


def _wait_stat_show(device: Device) -> str:
    room = device.room
    return f"{room.waits:8d} {int(room.waited * 1000):8d} {room.waits_in_vain:8d}\n"


def _mem_used_max_store(device: Device, text: str) -> None:
    if _strict(kstrtoull, text):
        raise InvalidValue("mem_used_max takes only 0", hint="0 sets the maximum to what is used now")
    if device.path is not None:
        device.path.allocator.peak_pages = device.path.allocator.pages_used


def _mm_stat_show(device: Device) -> str:
    path, stats = device.path, device.stats
    used, peak, compacted = (
        (path.allocator.pages_used, path.allocator.peak_pages, path.allocator.pages_compacted) if path else (0, 0, 0)
    )
    size = device.page_size
    return (
        f"{stats.pages_stored * size:8d} {stats.compr_data_size:8d} {used * size:8d} "
        f"{device.room.limit_pages * size:8d} {peak * size:8d} {stats.same_pages:8d} {compacted:8d} "
        f"{stats.huge_pages:8d} {stats.huge_pages_since:8d}\n"
    )


# Compression ----------------------------------------------------------------------------------------------------------


def _comp_algorithm_store(device: Device, text: str) -> None:
    name = device.zcomp.check_name(text)
    with device.init_lock:
        device.check_uninitialized()
        device.zcomp.choose(PRIMARY, name)


def _recomp_algorithm_show(device: Device) -> str:
    """One line per secondary priority, with the NUL bytes between that the kernel's double counting leaves there."""
    text = ""
    end = 0
    for priority in range(1, NR_PRIORITIES):
        if device.zcomp.names[priority] is None:
            continue
        line = f"#{priority}: {device.zcomp.listing(priority)}\n"
        text = text.ljust(end, "\0") + line
        end = len(text) + end + 4
    return text.ljust(end, "\0")


def _keyed(text: str, *numeric: str) -> tuple[dict[str, str], dict[str, int]]:
    """key=value arguments: the words, and the numbers (s32) of the keys in `numeric`. Checked one by one, as they come;
    one without a value is EINVAL; a later one wins."""
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for key, value in next_args(text):
        if not value:
            raise InvalidValue(f"{key!r} needs a value", hint="write key=value")
        if key in numeric:
            numbers[key] = kstrtoint(value)
        else:
            words[key] = value
    return words, numbers


def _recomp_algorithm_store(device: Device, text: str) -> None:
    words, numbers = _keyed(text, "priority")
    priority = numbers.get("priority", 1)
    if "algo" not in words:
        raise InvalidValue("algo= is missing", hint="for example: algo=zstd priority=1")
    if not 1 <= priority < NR_PRIORITIES:
        raise InvalidValue(f"priority {priority} is not one of 1, 2, 3")
    name = device.zcomp.check_name(words["algo"])
    with device.init_lock:
        device.check_uninitialized()
        device.zcomp.choose(priority, name)


def _algorithm_params_store(device: Device, text: str) -> None:
    words, numbers = _keyed(text, "priority", "level", "deflate.winbits")
    with device.init_lock:
        device.check_uninitialized()
        priority = device.zcomp.priority_of(words["algo"]) if "algo" in words else numbers.get("priority", PRIMARY)
        if not 0 <= priority < NR_PRIORITIES:
            raise InvalidValue(f"priority {priority} is not one of 0, 1, 2, 3")
        dictionary = read_dictionary(words["dict"]) if "dict" in words else None
        level, winbits = (
            None if (value := numbers.get(key)) == NOT_SET else value for key in ("level", "deflate.winbits")
        )
        device.zcomp.params[priority] = CompressorParams(level=level, winbits=winbits, dictionary=dictionary)


def _recompress_store(device: Device, text: str) -> None:
    recompress(device, parse_recompress(text))


# Idle and writeback ---------------------------------------------------------------------------------------------------


def _idle_store(device: Device, text: str) -> None:
    age = None if sysfs_streq(text, "all") else _strict(lambda t: kstrtouint(t, 0), text)
    path = device.path
    if path is None:
        raise InvalidValue("the device is not initialised", hint="write disksize first")
    if age is None:
        mark_all_idle(path.table)
    else:
        mark_idle_by_age(path.table, device.clock(), age)


def _writeback_store(device: Device, text: str) -> None:
    write_back(device, _line(text), lambda nr_pages: parse_writeback(text, nr_pages))


def _writeback_preview_store(device: Device, text: str) -> None:
    ask_preview(device, " ".join(text.split()), lambda nr_pages: parse_writeback(text, nr_pages))


def _backing_dev_show(device: Device) -> str:
    backing = device.backing
    return f"{backing.spec_text if backing else 'none'}\n"


def _writeback_limit_store(device: Device, text: str) -> None:
    units = device.page_size >> 12
    limit = _strict(kstrtoull, text)
    device.budget.set_limit(limit - limit % units)


def _writeback_limit_enable_store(device: Device, text: str) -> None:
    device.budget.enabled = bool(_strict(kstrtoull, text))


def _writeback_batch_size_store(device: Device, text: str) -> None:
    size = _strict(kstrtouint, text)
    if not size:
        raise InvalidValue("a batch has at least 1 page")
    device.writeback_batch_size = size


def _compressed_writeback_store(device: Device, text: str) -> None:
    value = kstrtobool(text)
    with device.init_lock:
        device.check_uninitialized()
        device.compressed_writeback = value


def _bd_stat_show(device: Device) -> str:
    backing, stats = device.backing, device.stats
    count = backing.bd_count * (device.page_size >> 12) if backing else 0
    return f"{count:8d} {stats.bd_reads:8d} {stats.bd_writes:8d}\n"


def _io_stat_show(device: Device) -> str:
    stats = device.stats
    return f"{stats.failed_reads:8d} {stats.failed_writes:8d} 0 {stats.notify_free:8d}\n"


def _stat_show(device: Device) -> str:
    stats = device.stats
    page = device.page_size >> 9
    reads, read = stats.read_requests + stats.page_reads, stats.read_sectors + stats.page_reads * page
    writes, written = stats.write_requests + stats.page_writes, stats.write_sectors + stats.page_writes * page
    columns = [reads, 0, read, 0, writes, 0, written, *[0] * 10]
    return " ".join(f"{column:8d}" for column in columns) + "\n"


def _block_state_show(device: Device) -> str:
    path = device.path
    if path is None:
        raise InvalidValue("the device is not initialised", hint="write disksize first")
    return "".join(block_state(path.table))


def _zsmalloc_classes_show(device: Device) -> str:
    path = device.path
    if path is None:
        raise NoSuchAttribute("there is no pool before disksize is set", hint="write disksize first")
    return path.allocator.classes()


_TABLE = (
    Attribute("disksize", lambda d: f"{d.disksize}\n", _disksize_store, "2.6.37",
              "Size in bytes, rounded up to a page; writing it initialises the device.",
              "The slot table is lazy: sizes that the kernel refuses with ENOMEM are accepted."),
    Attribute("initstate", lambda d: f"{int(d.initialized)}\n", None, "2.6.37", "1 once disksize is set."),
    Attribute("reset", None, _reset_store, "2.6.37",
              "A number that is not 0 forgets data and configuration; EBUSY while the device is open.",
              "Ends a running pass instead of waiting for it."),
    Attribute("comp_algorithm", lambda d: d.zcomp.listing(PRIMARY) + "\n", _comp_algorithm_store, "3.15",
              "The primary algorithm; reading lists all, the chosen one in brackets.",
              "Lists the plugins that are installed; the default is the first of them."),
    Attribute("recomp_algorithm", _recomp_algorithm_show, _recomp_algorithm_store, "6.2",
              "Secondary algorithms: algo=NAME priority=1..3; reading shows a list as comp_algorithm's for each.",
              "Lists the plugins that are installed."),
    Attribute("algorithm_params", None, _algorithm_params_store, "6.12",
              "Parameters of a priority: priority=N or algo=NAME, level=, dict=, deflate.winbits=; replaces them all.",
              "A dict= that cannot be read leaves the parameters as they were; the kernel forgets them."),
    Attribute("allocator", lambda d: "".join(
                  f"[{name}] " if name == d.allocator_name else f"{name} " for name in d.catalogue.allocators) + "\n",
              lambda d, text: d.choose_allocator(_line(text)), "-",
              "The allocator of the pool, before disksize; reading lists all, the chosen one in brackets."),
    Attribute("workers", lambda d: f"{d.workers}\n", _workers_store, "-",
              "Threads that a large request may use, its own included: 1 to 1024; the cores of this process at first."),
    Attribute("mem_limit", None, _mem_limit_store, "3.18", "Bytes the pool may use, rounded up to a page; 0: any."),
    Attribute("mem_limit_wait", lambda d: f"{d.room.wait_ms}\n", _mem_limit_wait_store, "-",
              "How long a write waits at mem_limit while no page is written back, in ms; 0: it fails at once, as in "
              "the kernel."),
    Attribute("mem_used_max", None, _mem_used_max_store, "3.18", "0 sets the maximum in mm_stat to what is used now."),
    Attribute("compact", None, _compact_store, "4.1", "Any text compacts the pool."),
    Attribute("backing_dev", _backing_dev_show, lambda d, text: d.set_backing(_line(text)), "4.14",
              "The backing device, before disksize: a path, or driver:path,size=64M.",
              "Plain files are accepted, and a driver may be named."),
    Attribute("idle", None, _idle_store, "5.0",
              "`all`, or an age in seconds: pages last accessed longer ago become idle, younger ones stop being so; "
              "the seed patch's `1` is thus an age, as in the kernel since 5.16."),
    Attribute("writeback", None, _writeback_store, "5.0",
              "Write pages back: idle, huge, huge_idle, incompressible, type=, page_index=N, page_indexes=A-B.",
              "Takes `idle_or_huge`, and the seed patch's `1` (huge), `2` (idle) and `3` (idle or huge). A page that "
              "cannot be decompressed is reported."),
    Attribute("writeback_preview", lambda d: d.preview, _writeback_preview_store, "-",
              "What `writeback` would do with the same text, without doing it; reading shows the last answer."),
    Attribute("writeback_limit", lambda d: f"{d.budget.limit}\n", _writeback_limit_store, "5.0",
              "Units of 4 KiB that may still be written back, when the limit is enabled."),
    Attribute("writeback_limit_enable", lambda d: f"{int(d.budget.enabled)}\n", _writeback_limit_enable_store, "5.0",
              "Whether writeback_limit counts."),
    Attribute("writeback_batch_size", lambda d: f"{d.writeback_batch_size}\n", _writeback_batch_size_store, "6.19",
              "Pages in flight during writeback."),
    Attribute("compressed_writeback", lambda d: f"{int(d.compressed_writeback)}\n", _compressed_writeback_store, "7.0",
              "Whether blocks hold the compressed object, decompressed when read; before disksize."),
    Attribute("recompress", None, _recompress_store, "6.2",
              "Recompress: type=idle|huge|huge_idle, threshold=, algo=, priority=, max_pages=."),
    Attribute("idle_histogram", show_histogram, None, "-",
              "Pages in memory by age, a line each: seconds from, to (-: open), pages, bytes stored, idle pages."),
    Attribute("mm_stat", _mm_stat_show, None, "4.1",
              "orig_data_size, compr_data_size, mem_used_total, mem_limit, mem_used_max (bytes), same_pages, "
              "pages_compacted, huge_pages, huge_pages_since.", "Never waits for a pass."),
    Attribute("bd_stat", _bd_stat_show, None, "5.0", "bd_count, bd_reads, bd_writes, in units of 4 KiB.",
              "Never waits for a pass."),
    Attribute("io_stat", _io_stat_show, None, "4.1", "failed_reads, failed_writes, 0, notify_free.",
              "Never waits for a pass."),
    Attribute("wait_stat", _wait_stat_show, None, "-",
              "Writes that waited at mem_limit, ms that they did together, those that failed after all."),
    Attribute("debug_stat", lambda d: f"version: 1\n0 {0:8d}\n", None, "4.7", "version, then 0 and miss_free.",
              "miss_free is always 0: a discard waits for the slot instead of giving up."),
    Attribute("stat", _stat_show, None, "2.6",
              "The block layer's counters: requests and sectors (512 bytes) read and written.",
              "Times, merges and discards are 0."),
    Attribute("block_state", _block_state_show, None, "4.18",
              "One line per stored page: index, access time, and the letters s w h i r n.", "In debugfs there."),
    Attribute("zsmalloc_classes", _zsmalloc_classes_show, None, "4.0",
              "The size classes of the pool: objects, pages and zspages by fullness; EOPNOTSUPP with other allocators.",
              "In debugfs there, as zsmalloc/zram0/classes."),
)  # fmt: skip

ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({attribute.name: attribute for attribute in _TABLE})
"""The built-in attributes by name."""


def _find(table: Mapping[str, Attribute], name: str) -> Attribute:
    attribute = table.get(name)
    if attribute is None:
        raise NoSuchAttribute(f"there is no attribute {name!r}", hint=did_you_mean(name, table))
    return attribute


def show(device: Device, name: str, table: Mapping[str, Attribute] = ATTRIBUTES) -> str:
    """The attribute's text, as read(2) on the kernel's file would return it.

    Raises NoSuchAttribute (ENOENT), NotPermitted (EACCES) for a write-only one, and the attribute's own errors.
    """
    attribute = _find(table, name)
    if attribute.show is None:
        raise NotPermitted("this attribute can only be written", attribute=name)
    try:
        return attribute.show(device)
    except ZramError as error:
        raise error.at(name) from None
    except Exception as error:
        raise PluginFault(name, f"{type(error).__name__}: {error}").at(name) from error


def store(device: Device, name: str, text: str, table: Mapping[str, Attribute] = ATTRIBUTES) -> None:
    """Write `text` to the attribute, as echo would; one newline at the end makes no difference.

    Raises NoSuchAttribute (ENOENT), NotPermitted (EACCES) for a read-only one, and the attribute's own errors. A
    refused value changes nothing.
    """
    attribute = _find(table, name)
    if attribute.store is None:
        raise NotPermitted("this attribute can only be read", attribute=name, value=_line(text))
    try:
        attribute.store(device, text)
    except ZramError as error:
        raise error.at(name, _line(text)) from None
    except Exception as error:
        raise PluginFault(name, f"{type(error).__name__}: {error}").at(name, _line(text)) from error
