"""zsmalloc against what Linux 7.3.4 printed: transcripts 04a and 04b of the oracle."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore_plugins.allocators.class_table import format_class_table
from zramcore_plugins.allocators.pool import Pool

HERE = Path(__file__).parent
TRANSCRIPTS = HERE.parents[1] / "conformance" / "transcripts"
SIZE_CLASSES = (TRANSCRIPTS / "04b-size-classes.txt").read_text().splitlines()
PER_PAGE = (TRANSCRIPTS / "04a-per-page-sizes.txt").read_text().splitlines()
ZSTD_SIZES = [
    int(word)
    for line in (HERE / "data" / "zstd-sizes.txt").read_text().splitlines()
    if not line.startswith("#")
    for word in line.split()
]
PAGE = 4096

# The bytes each page of a class compresses to: n pages have n times this compr_data_size in the transcript.
EQUAL_SIZES = {
    "lzo-rle": {"random": 4096, "rz1024": 1070, "rz2048": 2150, "rz3000": 3101, "rz256": 298},
    "lz4": {"random": 4096, "rz1024": 1055, "rz2048": 2082, "rz3000": 3036, "rz256": 284},
    "zstd": {"random": 4096, "rz1024": 1047, "rz2048": 2075, "rz3000": 3020, "rz256": 276},
}
FIRST_OF_ZSTD = {"random": 64, "text": 128, "rz1024": 192, "rz2048": 256, "rz3000": 320, "rz256": 448}


@pytest.fixture
def pool(kind: type[Pool]) -> Iterator[Pool]:
    made = kind(PAGE, 2000)
    yield made
    made.close()


def section(start: str) -> list[str]:
    """The lines of transcript 04b from the one after `start` to the next section."""
    first = next(number for number, line in enumerate(SIZE_CLASSES) if line.startswith(start)) + 1
    rest = SIZE_CLASSES[first:]
    return rest[: next((number for number, line in enumerate(rest) if line.startswith("###")), len(rest))]


def steps(algorithm: str, name: str) -> dict[int, list[int]]:
    """mm_stat after n pages of a class: n -> its nine numbers."""
    lines = section(f"### {algorithm}: N pages")
    lines = lines[lines.index(f"class {name}") + 1 :][:7]
    found = {}
    for line in lines:
        match = re.fullmatch(r"  n=(\d+) mm_stat: ([\d ]+)", line)
        assert match, line
        found[int(match[1])] = [int(number) for number in match[2].split()]
    return found


def store_sizes(pool: Pool, sizes: list[int]) -> list[int]:
    """One object per size, one call each, as 4 KiB direct writes store them; 0 stores nothing."""
    return [pool.store_one(bytes(size), 0) if size else 0 for size in sizes]


def test_class_table_of_an_empty_pool(pool: Pool) -> None:
    """Every line of the table, in the form the transcript's filter gives it."""
    shown = [" ".join((words[0], words[1], words[-2])) for words in map(str.split, lines_of(pool)) if len(words) > 5]
    assert shown[0] == "class size pages_per_zspage"
    expected = section("### zsmalloc classes")
    assert "# " + shown[0] in expected
    classes = [line for line in expected if re.match(r"\d+ \d+ \d+$|Total", line)]
    assert len(classes) == 120
    assert shown[1:] == classes


def lines_of(pool: Pool) -> list[str]:
    return format_class_table(pool.class_table()).splitlines()


@pytest.mark.parametrize("algorithm", EQUAL_SIZES)
def test_pages_of_one_size(kind: type[Pool], algorithm: str) -> None:
    for name, size in EQUAL_SIZES[algorithm].items():
        pool = kind(PAGE, 100)
        stored = 0
        for count, (_orig, compressed, used, _limit, peak, *_rest) in steps(algorithm, name).items():
            assert compressed == count * size, "the sizes are equal"
            store_sizes(pool, [size] * (count - stored))
            stored = count
            assert (pool.pages_used * PAGE, pool.peak_pages * PAGE) == (used, peak), (name, count)
        pool.close()


@pytest.mark.parametrize("name", FIRST_OF_ZSTD)
def test_zstd_pages(name: str, pool: Pool) -> None:
    """With zstd every page's size is known, text too."""
    sizes = ZSTD_SIZES[FIRST_OF_ZSTD[name] :]
    stored = 0
    for count, (_orig, compressed, used, *_rest) in steps("zstd", name).items():
        assert sum(sizes[:count]) == compressed
        store_sizes(pool, sizes[stored:count])
        stored = count
        assert pool.pages_used * PAGE == used


def test_512_pages_discard_compact(pool: Pool) -> None:
    """All pages under zstd: totals, the class table to the character, then odd pages discarded and compacted."""
    lines = section("### zstd: N pages")
    lines = lines[lines.index("# all 512 pages") :]
    stats = [[int(number) for number in line.split()[1:]] for line in lines if line.startswith("  mm_stat:")]
    handles = store_sizes(pool, ZSTD_SIZES)
    assert sum(ZSTD_SIZES) == stats[0][1]
    assert (pool.pages_used * PAGE, pool.peak_pages * PAGE) == (stats[0][2], stats[0][4])

    printed = [line for line in lines if re.match(r" +(class|\d+|Total) ", line)]
    assert len(printed) == 9
    assert [line for line in lines_of(pool) if line in printed] == printed

    pool.free_many([handle for handle in handles[1::2] if handle])
    assert pool.pages_used * PAGE == stats[1][2]
    freeable = sum(row.freeable for row in pool.class_table())
    assert pool.compact() == freeable == stats[2][6]
    assert (pool.pages_used * PAGE, pool.pages_compacted) == (stats[2][2], stats[2][6])
    assert pool.compact() == 0
    assert (pool.pages_used * PAGE, pool.pages_compacted) == (stats[3][2], stats[3][6])
    pool.free_many([handle for handle in handles[::2] if handle])
    assert (pool.pages_used * PAGE, pool.peak_pages * PAGE, pool.pages_compacted) == (0, stats[4][4], stats[4][6])


def test_one_object_of_many_sizes(kind: type[Pool]) -> None:
    """The size sweep and the fine scans: one object on a fresh device."""
    seen = 0
    for line in SIZE_CLASSES:
        match = re.fullmatch(r" *\d+ (\d+) (\d+) huge=(\d)", line)
        if match:
            size, used, huge = map(int, match.groups())
            pool = kind(PAGE, 10)
            assert huge == (size >= pool.huge_class_size)
            store_sizes(pool, [size])
            assert pool.pages_used * PAGE == used, line
            pool.close()
            seen += 1
    assert seen == 64 + 9


def test_per_page_placement(kind: type[Pool]) -> None:
    """Transcript 04a: what each of 64 pages adds to mem_used_total, for every algorithm."""
    pool: Pool | None = None
    seen = 0
    for line in PER_PAGE:
        words = line.split()
        if line.startswith("# page compr_delta"):
            if pool is not None:
                pool.close()
            pool = kind(PAGE, 100)
        elif re.fullmatch(r" *\d+ +\d+ +4096 +-?\d+ +\d+ +-?\d+ +\d+", line):
            assert pool is not None
            before = pool.pages_used
            store_sizes(pool, [int(words[1])])
            assert (pool.pages_used - before) * PAGE == int(words[3]), line
            seen += 1
    assert pool is not None
    pool.close()
    assert seen >= 7 * 64


@pytest.mark.parametrize(("size", "used"), [(41, 4096), (1055, 20480), (3624, 32768), (3625, 4096), (4096, 4096)])
def test_cost_of_a_first_object(pool: Pool, size: int, used: int) -> None:
    store_sizes(pool, [size])
    assert pool.pages_used * PAGE == used


def test_size_class_has_no_room_for_the_handle(pool: Pool) -> None:
    """zs_lookup_class_index: merged, and without the 8 bytes that an allocation adds."""
    assert [pool.size_class(size) for size in (1, 32, 33, 1008, 1024, 1025, 3632, 3633, 4096)] == [
        0, 0, 1, 62, 62, 64, 225, 254, 254,
    ]  # fmt: skip
    assert {pool.size_class(size) for size in range(1, PAGE + 1)} == {row.index for row in pool.class_table()}


def test_limit_and_peak(pool: Pool) -> None:
    """Measured: with mem_limit 16384 the write that fails leaves mem_used_max at 20480."""
    handles: list[int] = []
    pool.store([bytes(PAGE)] * 6, [0] * 6, 4, handles)
    assert (len(handles), pool.pages_used, pool.peak_pages) == (4, 4, 5)
    pool.store([bytes(PAGE)], [handles[0]], 4, handles)
    assert len(handles) == 4, "an overwrite at the limit fails: the new object comes before the old one goes"
