"""Prometheus metrics: every stat of every device, and what its policies did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from . import status
from .fleet import Fleet, Member

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BLOCK = 4096
"""Bytes of a unit of bd_stat and writeback_limit."""
SECTOR = 512


class _Stat(NamedTuple):
    """A metric made of a column of a stats file; counters start again at 0 when the device is reset."""

    file: str
    column: str
    metric: str
    help: str
    counter: bool = False
    scale: int = 1


_STATS = (
    _Stat("mm_stat", "orig_data_size", "orig_data_bytes", "Uncompressed size of the pages that are stored."),
    _Stat("mm_stat", "compr_data_size", "compr_data_bytes", "Compressed size of the pages in memory."),
    _Stat("mm_stat", "mem_used_total", "mem_used_bytes", "Memory the pool holds."),
    _Stat("mm_stat", "mem_limit", "mem_limit_bytes", "Most memory the pool may hold; 0: any."),
    _Stat("mm_stat", "mem_used_max", "mem_used_max_bytes", "Most memory the pool has held."),
    _Stat("mm_stat", "same_pages", "same_pages", "Same-filled pages, which take no memory."),
    _Stat("mm_stat", "pages_compacted", "pages_compacted", "Pages freed by compaction.", counter=True),
    _Stat("mm_stat", "huge_pages", "huge_pages", "Pages in memory stored uncompressed."),
    _Stat("mm_stat", "huge_pages_since", "huge_pages_since", "Pages ever stored uncompressed.", counter=True),
    _Stat("bd_stat", "bd_count", "bd_count_bytes", "Bytes of pages on the backing device.", scale=BLOCK),
    _Stat("bd_stat", "bd_reads", "bd_read_bytes", "Bytes read from the backing device.", True, BLOCK),
    _Stat("bd_stat", "bd_writes", "bd_written_bytes", "Bytes written to the backing device.", True, BLOCK),
    _Stat("io_stat", "failed_reads", "failed_reads", "Reads that failed.", counter=True),
    _Stat("io_stat", "failed_writes", "failed_writes", "Writes that failed.", counter=True),
    _Stat("io_stat", "invalid_io", "invalid_io", "Requests that were not page aligned; always 0.", counter=True),
    _Stat("io_stat", "notify_free", "notify_free", "Pages freed by discard.", counter=True),
    _Stat("wait_stat", "waits", "mem_limit_waits", "Writes that waited at mem_limit.", counter=True),
    _Stat("wait_stat", "waited_ms", "mem_limit_waited_milliseconds", "Time that they waited, together.", counter=True),
    _Stat("wait_stat", "waits_in_vain", "mem_limit_waits_in_vain", "Those that failed after all.", counter=True),
    _Stat("stat", "read_requests", "read_requests", "Read requests.", counter=True),
    _Stat("stat", "read_sectors", "read_bytes", "Bytes read.", True, SECTOR),
    _Stat("stat", "write_requests", "write_requests", "Write requests.", counter=True),
    _Stat("stat", "written_sectors", "written_bytes", "Bytes written.", True, SECTOR),
)

_POLICY = (
    ("ticks", "policy_ticks", "Decisions.", True),
    ("failures", "policy_failures", "Decisions that failed.", True),
    ("writes", "policy_writes", "Attribute writes made.", True),
    ("ends", "policy_limited", "Passes that ended with a full backing device or a used-up budget.", True),
    ("freed", "policy_freed_bytes", "Memory freed, less memory grown, while its writes were made.", False),
    ("written_back", "policy_written_back_bytes", "Bytes written back by its writes.", True),
    ("last_at", "policy_last_decision_timestamp_seconds", "Unix time of the last decision.", False),
    ("next_in", "policy_next_decision_seconds", "Seconds from the last decision to the next.", False),
)

_SETTINGS = (
    ("disksize", "disksize_bytes", "Size of the device; 0: not initialised.", 1),
    ("writeback_limit", "writeback_limit_bytes", "Bytes that may still be written back, if the limit counts.", BLOCK),
    ("writeback_limit_enable", "writeback_limit_enabled", "Whether writeback_limit counts.", 1),
    ("writeback_batch_size", "writeback_batch_pages", "Pages in flight during writeback.", 1),
)


class FleetCollector:
    """Makes the metrics of a fleet when they are asked for."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Every family, each with a sample for each device (and policy)."""
        members = list(self.fleet)
        yield from _settings(members)
        figures = [(member, status.stats(member)) for member in members]
        for stat in _STATS:
            family = _family(f"zramcore_{stat.metric}", stat.help, ("device", "label"), stat.counter)
            for member, found in figures:
                if stat.column not in found.get(stat.file, {}):
                    continue  # an older kernel's zram does not count it
                family.add_metric(_names(member), found[stat.file][stat.column] * stat.scale)
            yield family
        yield _budgets(members)
        for field, metric, text, counter in _POLICY:
            family = _family(f"zramcore_{metric}", text, ("device", "label", "policy"), counter)
            for member in members:
                for name, record in member.runner.records.copy().items():
                    family.add_metric([*_names(member), name], getattr(record, field))
            yield family


def _settings(members: list[Member]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "zramcore_device_info",
        "What a device is made of.",
        labels=("device", "label", "origin", "comp_algorithm", "allocator", "backing_dev"),
    )
    opened = GaugeMetricFamily("zramcore_open", "How often the device is open.", labels=("device", "label"))
    for member in members:
        algorithm = status.chosen(status.shown(member, "comp_algorithm", ""))
        made_of = [algorithm, status.allocator(member), status.backing_dev(member)]
        info.add_metric([*_names(member), member.origin, *made_of], 1)
        opened.add_metric(_names(member), status.holders(member))
    yield info
    yield opened
    for attribute, metric, text, scale in _SETTINGS:
        family = GaugeMetricFamily(f"zramcore_{metric}", text, labels=("device", "label"))
        for member in members:
            with contextlib.suppress(*status.ABSENT):  # not every kernel has it
                family.add_metric(_names(member), int(member.target.show(attribute)) * scale)
        yield family


def _budgets(members: list[Member]) -> Metric:
    text = "Bytes that the policies may still write in 24 hours, by writes_per_day; a shared one is each device's."
    family = GaugeMetricFamily("zramcore_policy_budget_left_bytes", text, labels=("device", "label"))
    for member in members:
        left = member.runner.budget_left()
        if left is not None:
            family.add_metric(_names(member), left * BLOCK)
    return family


def _family(name: str, text: str, labels: tuple[str, ...], counter: bool) -> CounterMetricFamily | GaugeMetricFamily:
    return (CounterMetricFamily if counter else GaugeMetricFamily)(name, text, labels=labels)


def _names(member: Member) -> list[str]:
    return [member.name, member.label]


def prometheus_text(fleet: Fleet) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(fleet))
    return generate_latest(registry)
