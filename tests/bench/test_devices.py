"""`bench device` on real devices: every work does what it says, and what a side loses is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zramcore.bench import devices
from zramcore.bench.block import BlockSide, LimitSide, OurSide, Request
from zramcore.bench.data import MIB, PAGE, Data
from zramcore.bench.loops import bare_loop
from zramcore.bench.rounds import Job
from zramcore.bench.rows import Row
from zramcore.errors import DeviceIOError
from zramcore.interfaces import Catalogue


class Recorder(BlockSide):
    """A side that only remembers requests."""

    side = "recorder"

    def __init__(self) -> None:
        self.jobs: list[tuple[int, int, list[Request]]] = []
        self.discards: list[tuple[int, int]] = []

    def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
        self.jobs.append((part, base, list(requests)))
        return int

    def discard(self, base: int, length: int) -> None:
        self.discards.append((base, length))


def bench(sides: Sequence[BlockSide], data: Data, threads: Sequence[int] = (1,), **what: object) -> list[Row]:
    chosen = {"works": devices.WORKS, "orders": ["random"], "requests": [PAGE], "rounds": 1} | what
    return list(devices.bench(sides, data, threads=threads, tell=lambda text: None, **chosen))  # type: ignore[arg-type]


def test_ours_and_the_limit_do_every_work_and_hold_what_was_written(built_in: Catalogue, data: Data) -> None:
    sides = [
        OurSide("ours", built_in, "lz4", "zsmalloc", data, 2 * data.size),
        LimitSide(bare_loop(built_in.compressors["lz4"], data)),
    ]
    rows = bench(sides, data, threads=(1, 2), orders=devices.ORDERS, requests=devices.REQUESTS)
    plain = [row for row in rows if row.us_per_page is not None]
    assert len(plain) == 2 * 3 * 4 * 2 * 2
    assert {row.work for row in plain} == {f"{order} {work}" for order in devices.ORDERS for work in devices.WORKS}
    assert all(row.us_per_page and row.ratio_to_limit for row in plain)
    assert all(row.ratio_to_limit == 1.0 for row in rows if row.side == sides[1].side)
    assert len(rows) - len(plain) == 2 * 3 * 4 * 2
    sides[0].close()


def test_a_work_is_what_it_is_called(data: Data) -> None:
    for work, writes, discards in (("write", 512, 2), ("overwrite", 512, 0), ("read", 0, 0), ("mixed", 256, 0)):
        side = Recorder()
        bench([side], data, works=[work])
        timed = side.jobs if work == "write" else side.jobs[1:]
        assert len(side.discards) == discards
        assert len(timed) == 2
        for _, _, requests in timed:
            assert sorted(request.offset for request in requests) == list(range(0, data.size, PAGE))
            assert sum(request.write for request in requests) == writes
            assert [request.offset for request in requests] != sorted(request.offset for request in requests)


def test_an_overwrite_brings_other_pages_each_round_and_a_read_finds_the_last(data: Data) -> None:
    side = Recorder()
    bench([side], data, works=["write", "overwrite", "read"], orders=["sequential"], requests=[MIB], rounds=2)
    starts = [[request.start // MIB for request in requests] for _, _, requests in side.jobs]
    assert starts[:6] == [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]
    assert starts[6:] == [[0, 1]] * 3


def test_threads_share_a_step_in_a_region_of_their_own(data: Data) -> None:
    side = Recorder()
    bench([side], data, threads=(1, 2), works=["write"], requests=[64 << 10])
    whole, first, second = side.jobs[:3]
    assert (whole[:2], first[:2], second[:2]) == ((0, 0), (0, data.size), (1, data.size))
    assert whole[2] == first[2] + second[2]
    assert len(first[2]) == len(second[2])
    assert {base for base, _ in side.discards} == {0, data.size}


def test_workers_have_one_thread_that_makes_requests_and_none_for_single_pages(data: Data) -> None:
    side, alone = Recorder(), Recorder()
    side.workers, side.side, side.base = 2, "recorder, 2 workers", "recorder"
    rows = bench([alone, side], data, threads=(1, 2), works=["write"], requests=[MIB, PAGE])
    assert {(part, base) for part, base, _ in side.jobs} == {(0, data.size)}
    assert {request.length for _, _, requests in side.jobs for request in requests} == {MIB}
    found = [(row.request, row.side, row.threads) for row in rows if row.us_per_page is not None]
    assert found == [
        (MIB, "recorder", 1),
        (MIB, "recorder", 2),
        (MIB, "recorder, 2 workers", 2),
        (PAGE, "recorder", 1),
        (PAGE, "recorder", 2),
    ]
    assert [row.side for row in rows if "gain" in row.figures] == ["recorder", "recorder, 2 workers", "recorder"]


def test_our_workers_hold_what_was_written(built_in: Catalogue, data: Data) -> None:
    side = OurSide("ours", built_in, "lz4", "zsmalloc", data, 2 * data.size, 2)
    assert side.target.show("workers") == "2\n"
    rows = bench([side], data, threads=(1, 2), requests=[MIB])
    assert {(row.side, row.threads) for row in rows} == {("ours, 2 workers", 2)}
    side.close()


def test_a_side_that_loses_data_is_found(built_in: Catalogue, data: Data) -> None:
    class Forgetful(OurSide):
        def job(self, part: int, base: int, requests: Sequence[Request]) -> Job:
            return super().job(part, base, requests[:-1])

    side = Forgetful("forgetful", built_in, "lz4", "zsmalloc", data, data.size)
    with pytest.raises(DeviceIOError, match="forgetful does not hold"):
        bench([side], data, works=["write"])
    side.close()
