"""idle_histogram and writeback_preview: each answer is compared with what the device then really does."""

from __future__ import annotations

import random
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import InvalidValue, NoBackingDevice, OutOfRange, ZramError
from zramcore.insight import AGE_EDGES, age_buckets
from zramcore.interfaces import Allocator, Catalogue
from zramcore.slot_table import IDLE, PP_SLOT, SIZE_MASK, in_memory
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.inspection import Clock, check_consistent, snapshot, stat
from zramcore.testing.walk import KINDS, make_page

PAGES = 160
DOCS = Path(__file__).parent.parent / "docs"


def store(device: Device, name: str, text: str) -> str:
    """Write an attribute; "OK", or the name of the errno."""
    try:
        attributes.store(device, name, text)
    except ZramError as error:
        return error.errno_name
    return "OK"


@cache
def pool(page_size: int) -> list[bytes]:
    """Pages of every kind, to choose from."""
    return [make_page(kind, number, page_size) for kind in KINDS for number in range(20)]


def fill(device: Device, clock: Clock, seed: int) -> random.Random:
    """A state with pages of every kind, age and flag; the same for the same seed."""
    source = random.Random(seed)
    size = device.page_size
    for _ in range(2 * PAGES):
        index = source.randrange(PAGES)
        match source.randrange(8):
            case 0:
                device.discard(index * size, size)
            case 1:
                device.pread(index * size, size)
            case _:
                device.pwrite(index * size, source.choice(pool(size)))
        clock.now += source.choice((0, 0, 1, 7, 100))
    attributes.store(device, "idle", source.choice(("all", "60", "600")))
    for _ in range(PAGES // 4):
        device.pread(source.randrange(PAGES) * size, size)
    if "#1" in attributes.show(device, "recomp_algorithm"):
        attributes.store(device, "recompress", f"threshold=512 max_pages={source.randrange(PAGES)}")
    if device.backing is not None:
        attributes.store(device, "writeback", f"page_indexes=0-{source.randrange(PAGES // 4)}")
    return source


# idle_histogram -------------------------------------------------------------------------------------------------------


def histogram(device: Device) -> list[tuple[int, int | None, int, int, int]]:
    """The rows of idle_histogram, parsed as docs/insight.md says."""
    rows = [line.split() for line in attributes.show(device, "idle_histogram").splitlines()]
    return [
        (int(row[0]), None if row[1] == "-" else int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows
    ]


def test_the_buckets_are_always_the_same_and_follow_one_another(device: Callable[..., Device]) -> None:
    rows = histogram(device())
    assert [row[0] for row in rows] == list(AGE_EDGES)
    assert [row[1] for row in rows] == [*AGE_EDGES[1:], None]
    assert all(row[2:] == (0, 0, 0) for row in rows)


def test_before_disksize_it_is_einval(device: Callable[..., Device]) -> None:
    with pytest.raises(InvalidValue):
        attributes.show(device(0), "idle_histogram")


@pytest.mark.parametrize("page_size", [4096, 65536])
@pytest.mark.parametrize("seed", range(3))
def test_it_counts_what_the_rows_say(device: Callable[..., Device], clock: Clock, seed: int, page_size: int) -> None:
    new = device(PAGES, page_size=page_size, recomp_algorithm="algo=zstd")
    fill(new, clock, seed)
    assert new.path is not None
    table = new.path.table
    expected: dict[int, list[int]] = {start: [0, 0, 0] for start in AGE_EDGES}
    for index in range(PAGES):
        flags = table.flags_row[index]
        if in_memory(table.flags[index : index + 1])[0]:
            age = clock.now - table.ac_times_row[index]
            start = max([edge for edge in AGE_EDGES if edge < age], default=0)
            bucket = expected[start]
            bucket[0] += 1
            bucket[1] += flags & SIZE_MASK
            bucket[2] += flags & IDLE != 0
    rows = histogram(new)
    assert {row[0]: list(row[2:]) for row in rows} == expected
    assert sum(row[3] for row in rows) == new.stats.compr_data_size
    assert sum(bucket[0] > 0 for bucket in expected.values()) > 5, "the state is not a varied one"


@pytest.mark.parametrize("age", [edge for edge in AGE_EDGES if edge])
def test_the_buckets_from_n_on_hold_what_n_written_to_idle_marks(
    device: Callable[..., Device], clock: Clock, age: int
) -> None:
    new = device(4 * len(AGE_EDGES))
    start = clock.now
    for number, edge in enumerate(AGE_EDGES):
        for step, offset in enumerate((-1, 0, 1)):
            clock.now = start + AGE_EDGES[-1] - max(0, edge + offset)
            new.pwrite((3 * number + step) * 4096, make_page("text", number, 4096))
    clock.now = start + AGE_EDGES[-1]
    told = sum(row[2] for row in histogram(new) if row[0] >= age)
    attributes.store(new, "idle", str(age))
    marked = sum(row[4] for row in histogram(new))
    assert marked == told > 0


def test_a_recompressed_page_is_as_old_as_the_machine(device: Callable[..., Device], clock: Clock) -> None:
    clock.now = 5000
    new = device(4, recomp_algorithm="algo=zstd", comp_algorithm="lz4")
    new.pwrite(0, b"".join(b"slot %d page %d\n" % (n, n * n) for n in range(300))[:4096])
    attributes.store(new, "recompress", "priority=1")
    assert ".r" in attributes.show(new, "block_state")
    assert [row[0] for row in histogram(new) if row[2]] == [3600]


def test_a_large_device_costs_what_was_written(device: Callable[..., Device]) -> None:
    new = device(25_000_000, blocks=0)
    new.pwrite(24_999_999 * 4096, make_page("half", 1, 4096))
    assert new.path is not None
    assert list(new.path.table.touched_ranges()) == [(24_997_888, 25_000_000)]
    assert sum(bucket.pages for bucket in age_buckets(new.path.table, 1000)) == 1


def test_the_page_names_the_edges_and_its_example_is_right(device: Callable[..., Device], clock: Clock) -> None:
    page = (DOCS / "insight.md").read_text()
    edges = re.search(r"The edges are (.*?)\. If N", page, re.DOTALL)
    assert edges is not None
    seconds: list[int] = []
    for group in re.findall(r"([\d, ]+?) (s|min|h|days)", edges[1].replace("\n", " ")):
        unit = {"s": 1, "min": 60, "h": 3600, "days": 86400}[group[1]]
        seconds += [int(number) * unit for number in group[0].replace(",", " ").split()]
    assert tuple(seconds) == AGE_EDGES
    assert f"always the same {len(AGE_EDGES)} ages" in page

    new = device(64)
    for index in range(40):
        new.pwrite(index * 4096, make_page("random", index, 4096))
        clock.now += 60
    command = re.search(r"^    (awk .*)$", page, re.MULTILINE)
    assert command is not None
    text = attributes.show(new, "idle_histogram")
    awk = command[1].replace("67108864", str(10 * 4096))
    told = subprocess.run(["sh", "-c", awk], input=text, capture_output=True, text=True, check=True).stdout
    attributes.store(new, "idle", told)
    marked = sum(row[4] for row in histogram(new))
    older = [edge for edge in AGE_EDGES if edge < int(told)][-1]
    attributes.store(new, "idle", str(older))
    assert 0 < marked <= 10 < sum(row[4] for row in histogram(new))


# writeback_preview ----------------------------------------------------------------------------------------------------


def answer(device: Device) -> dict[str, str]:
    """What writeback_preview shows, by name."""
    return dict(line.split(" ", 1) for line in attributes.show(device, "writeback_preview").splitlines())


def questions(source: random.Random) -> Iterator[str]:
    """Questions of every form, those with pages named twice among them."""
    yield from ("idle", "huge", "huge_idle", "incompressible", "idle_or_huge", "1", "2", "3", "", "foo=bar")
    for _ in range(6):
        low = source.randrange(PAGES)
        yield f"page_index={low}"
        yield f"page_indexes={low}-{source.randrange(low, PAGES)}"
        yield f"page_indexes={low}-{source.randrange(low, PAGES)} type={source.choice(('idle', 'huge'))}"
        yield f"page_index={low} page_indexes={max(0, low - 20)}-{low} page_index={low}"
    yield f"page_indexes=0-{PAGES - 1} page_indexes=0-{PAGES - 1}"


def predicted(device: Device, question: str) -> None:
    """Ask, look that nothing changed, then do it, and compare every figure."""
    before = snapshot(device)
    assert device.path is not None
    rows = device.path.table.flags[: device.nr_pages].tolist()
    attributes.store(device, "writeback_preview", question)
    told = answer(device)
    assert device.path.table.flags[: device.nr_pages].tolist() == rows
    assert {**snapshot(device), "writeback_preview": ""} == {**before, "writeback_preview": ""}

    mm, bd = stat(device, "mm_stat"), stat(device, "bd_stat")
    ends = store(device, "writeback", question)
    units = device.page_size >> 12
    mm_after, bd_after = stat(device, "mm_stat"), stat(device, "bd_stat")
    assert told == {
        "question": question,
        "eligible": told["eligible"],
        "pages": str((bd_after[0] - bd[0]) // units),
        "writes": str((bd_after[2] - bd[2]) // units),
        "compr_data_freed": str(mm[1] - mm_after[1]),
        "mem_used_freed": str(mm[2] - mm_after[2]),
        "blocks_free": str(device.backing.nr_blocks - bd[0] // units if device.backing else None),
        "budget": before["writeback_limit"].strip() if device.budget.enabled else "-",
        "ends": ends,
    }
    if ends == "OK":
        assert told["eligible"] == told["pages"]
    else:
        assert int(told["eligible"]) >= int(told["pages"])


@pytest.mark.parametrize("allocator", ["zsmalloc", "malloc"])
@pytest.mark.parametrize("compressed", ["0", "1"])
@pytest.mark.parametrize("seed", range(4))
def test_writeback_does_what_the_preview_said(
    device: Callable[..., Device], clock: Clock, seed: int, compressed: str, allocator: str
) -> None:
    page_size = (4096, 16384, 65536)[seed % 3]
    new = device(
        PAGES, blocks=PAGES * 2 if seed % 2 else PAGES // 2, page_size=page_size, comp_algorithm="lz4",
        recomp_algorithm="algo=zstd", compressed_writeback=compressed, allocator=allocator,
    )  # fmt: skip
    source = fill(new, clock, seed)
    asked = list(questions(source))
    source.shuffle(asked)
    ends = Counter[str]()
    for question in asked:
        attributes.store(new, "writeback_limit_enable", str(source.randrange(2)))
        attributes.store(new, "writeback_limit", str(source.randrange(60)))
        attributes.store(new, "writeback_batch_size", str(source.choice((1, 2, 7, 32))))
        predicted(new, question)
        ends[answer(new)["ends"]] += 1
        new.discard(source.randrange(PAGES - 10) * page_size, 10 * page_size)
        for _ in range(source.randrange(60)):
            new.pwrite(source.randrange(PAGES) * page_size, source.choice(pool(page_size)))
        if source.randrange(2):
            attributes.store(new, "idle", "all")
    check_consistent(new)
    assert ends["OK"], ends
    assert ends["EIO"], ends


def test_of_a_page_named_twice_across_batches_the_budget_is_looked_at_first(device: Callable[..., Device]) -> None:
    new = device(8, writeback_batch_size="1", writeback_limit="1", writeback_limit_enable="1")
    new.pwrite(0, make_page("half", 1, 4096))
    attributes.store(new, "writeback_preview", "page_index=0 page_index=0")
    assert (answer(new)["pages"], answer(new)["writes"], answer(new)["ends"]) == ("1", "1", "EIO")
    predicted(new, "page_index=0 page_index=0")


def test_a_store_that_is_full_ends_it(device: Callable[..., Device]) -> None:
    new = device(8, blocks=3)
    for index in range(5):
        new.pwrite(index * 4096, make_page("random", index, 4096))
    attributes.store(new, "writeback_preview", "huge\n")
    assert attributes.show(new, "writeback_preview") == (
        "question huge\neligible 5\npages 3\nwrites 3\ncompr_data_freed 12288\nmem_used_freed 12288\n"
        "blocks_free 3\nbudget -\nends ENOSPC\n"
    )
    predicted(new, "huge")


def test_the_last_answer_stays_until_the_next_question_or_a_reset(device: Callable[..., Device]) -> None:
    new = device(8)
    assert attributes.show(new, "writeback_preview") == ""
    attributes.store(new, "writeback_preview", "idle")
    first = attributes.show(new, "writeback_preview")
    new.pwrite(0, make_page("half", 1, 4096))
    assert store(new, "writeback_preview", "nonsense") == "EINVAL"
    assert attributes.show(new, "writeback_preview") == first
    attributes.store(new, "writeback_preview", "page_index=0\n")
    assert answer(new)["pages"] == "1"
    attributes.store(new, "reset", "1")
    assert attributes.show(new, "writeback_preview") == ""


@pytest.mark.parametrize("name", ["writeback", "writeback_preview"])
def test_its_errors_are_those_of_writeback(device: Callable[..., Device], name: str) -> None:
    with pytest.raises(InvalidValue):
        attributes.store(device(0), name, "idle")
    with pytest.raises(NoBackingDevice):
        attributes.store(device(8, blocks=0), name, "nonsense")
    new = device(8, disk="other")
    for text in ("nonsense", "type=nonsense", "page_index=x", "page_indexes=1"):
        with pytest.raises(InvalidValue):
            attributes.store(new, name, text)
    for text in ("page_index=8", "page_indexes=0-8", "page_indexes=3-2", "page_index=99999999999999999999"):
        with pytest.raises(OutOfRange):
            attributes.store(new, name, text)


def test_an_answer_that_a_reset_overtook_is_refused(device: Callable[..., Device], monkeypatch) -> None:
    new = device(8)
    new.pwrite(0, make_page("half", 1, 4096))
    assert new.path is not None
    pages_freed_by = new.path.allocator.pages_freed_by

    def reset_first(*given: object) -> int:
        attributes.store(new, "reset", "1")
        return pages_freed_by(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(new.path.allocator, "pages_freed_by", reset_first)
    assert store(new, "writeback_preview", "page_index=0") == "EINVAL"
    assert attributes.show(new, "writeback_preview") == ""


def test_an_allocator_that_cannot_tell_is_estimated(catalogue: Catalogue, device: Callable[..., Device]) -> None:
    class Plain(catalogue.allocators["malloc"]):  # type: ignore[name-defined,misc]
        name = "plain"
        pages_freed_by = Allocator.pages_freed_by

    new = device(8, uses=replace(catalogue, allocators={"plain": Plain}))
    for index in range(4):
        new.pwrite(index * 4096, make_page("random", index, 4096))
    attributes.store(new, "writeback_preview", "huge")
    assert answer(new)["mem_used_freed"] == "16384"


@pytest.mark.parametrize("name", ["zsmalloc", "malloc"])
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_an_allocator_foretells_what_freeing_frees(catalogue: Catalogue, name: str, page_size: int) -> None:
    source = random.Random(page_size)
    allocator = catalogue.allocators[name](page_size, 4000)
    sizes: dict[int, int] = {}
    for _ in range(30):
        for _ in range(100):
            size = source.choice((source.randrange(1, page_size), source.randrange(1, 200), page_size))
            sizes[allocator.alloc(size)] = size
        going = source.sample(sorted(sizes), source.randrange(len(sizes)))
        told = allocator.pages_freed_by(going, [sizes[handle] for handle in going])
        before = allocator.pages_used
        allocator.free_many(going)
        assert before - allocator.pages_used == told
        if name == "zsmalloc":
            assert allocator.pages_freed_by(going, [1] * len(going)) == 0, "freed handles do no harm"
        for handle in going:
            del sizes[handle]
        if source.randrange(3) == 0:
            allocator.compact()
    allocator.close()


# Waiting for nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("compressed", ["0", "1"])
def test_stats_and_questions_never_wait_for_a_pass(
    device: Callable[..., Device], clock: Clock, disk: Callable[[], FaultyDriver], seed: int, compressed: str
) -> None:
    new = device(PAGES, blocks=PAGES * 2, compressed_writeback=compressed, writeback_batch_size=str(1 + seed * 20))
    fill(new, clock, seed)
    names = [name for name, attribute in attributes.ATTRIBUTES.items() if attribute.show]
    with Gate(timeout=10) as gate:
        disk().on_write = gate
        attributes.store(new, "idle", "all")
        writing = threading.Thread(target=store, args=(new, "writeback", "idle"))
        writing.start()
        gate.wait()
        for _ in range(5):
            for name in names:
                attributes.show(new, name)
            attributes.store(new, "writeback_preview", "huge")
            clock.now += 1
        # Had one of them waited, the gate would have timed out and the pass be over.
        assert writing.is_alive()
        assert disk().writes == len(disk().write_runs)
        assert new.path is not None
        assert (new.path.table.flags[:PAGES] & PP_SLOT).any()
        gate.open()
        writing.join(10)
    assert not writing.is_alive()
    check_consistent(new)
