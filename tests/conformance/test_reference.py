"""The reference model agrees with the kernel's own walks; the device agrees with the model after every step."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import gen_pages
import reference_model
import sizes
import walkgen
from lockstep import Side, model_side, new_pair, numbers
from reference_model import Model
from reference_zsmalloc import Pool
from walkgen import STORE, Op, Shape

from zramcore.interfaces import Catalogue
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

HERE = Path(__file__).parent
ERRNO_TEXT = {
    "EINVAL": "EINVAL (22, Invalid argument)",
    "EIO": "EIO (5, Input/output error)",
    "ENOSPC": "ENOSPC (28, No space left on device)",
    "ERANGE": "ERANGE (34, Numerical result out of range)",
}
FILL = [("put", 64, 4, 0), ("put", 128, 8, 4), ("put", 12, 4, 12), ("put", 384, 2, 16), ("put", 320, 4, 18)]


@pytest.fixture(scope="module")
def data() -> bytes:
    """pages.bin."""
    return b"".join(gen_pages.build()[0])


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(load_plugins())


# The model and the kernel ----------------------------------------------------------------------------------------


def kernel_lines(ops: Iterator[Op], model: Model, side: Side) -> Iterator[str]:
    """What the guest prints for these operations, by the model."""
    for op in ops:
        if op[0] == "stats":
            yield "  = " + " | ".join(
                "".join(f" {n}" for n in f()) for f in (model.mm_stat, model.bd_stat, model.io_stat)
            )
            continue
        if op[0] == "block_state":
            yield "  block_state (raw | index flags):"
            lines = [
                f"   [{i:12d} {'set' if time else 'zero'} {flags}] | {i} {flags}"
                for i, time, flags in model.block_state()
            ]
            yield from lines[: op[1]]
            yield f"   lines={len(lines)}"
            continue
        if op[0] == "mkloop":
            yield f"$ losetup {op[1]} <{op[2]}-page tmpfs file> => rc=0 sectors={op[2] * 8}"
            continue
        name, answer = side.apply(op)
        match op:
            case "put", first, count, slot:
                yield f"$ dd data pages {first}..+{count} -> zram page {slot} (4K O_DIRECT writes)"
                if name != "OK":
                    assert name == "EIO"
                    yield "  dd: error writing '/dev/zram0': Input/output error"
            case "pread", offset, length:
                told = f"crc32={zlib.crc32(answer):08x} first8={answer[:8].hex()}"
                yield f"$ pread /dev/zram0 off={offset} len={length} (O_DIRECT) => OK {length} {told}"
            case ("discard" | "zeroout") as kind, offset, length:
                yield f"$ {kind} /dev/zram0 off={offset} len={length} => OK 0"
            case "store", attribute, value:
                yield f"$ echo '{value}' > {attribute} => {ERRNO_TEXT.get(name, name)}"


def recorded_lines(text: str) -> list[str]:
    """A transcript with its access times as `set` or `zero`; without the banner and the final summary."""
    lines = [
        re.sub(r"(\[ *\d+) +(\d+)\.000000", lambda m: f"{m[1]} {'set' if int(m[2]) else 'zero'}", line)
        for line in text.splitlines()
    ]
    start = next(i for i, line in enumerate(lines) if line.startswith("###")) + 1
    return lines[start : lines.index("  initstate: 1")]


@pytest.mark.parametrize(("name", "blocks"), [("walk1", 16384), ("walk2", 16384), ("walk3", 40)])
def test_model_agrees_with_every_line_of_the_kernel(name: str, blocks: int, data: bytes) -> None:
    script = (HERE / "walks" / f"{name}.sh").read_text()
    recorded = (HERE / "walks" / f"{name}.txt").read_text()
    ops = [op for line in script.splitlines() for op in walkgen.parse_line(line)]
    model = Model(4096, lambda: 100, {STORE: blocks, "/dev/vda": blocks})
    expected = recorded_lines(recorded)
    told = list(kernel_lines(iter(ops), model, model_side(model, data)))
    assert told == expected
    assert len(told) > 900
    for attribute in ("mm_stat", "bd_stat", "io_stat"):
        assert f"\n  {attribute}:  " + " ".join(map(str, getattr(model, attribute)())) in recorded


def test_pool_has_the_classes_of_the_kernel() -> None:
    text = (HERE / "transcripts" / "04b-size-classes.txt").read_text()
    table = text.partition("# class size pages_per_zspage\n")[2].partition("Total")[0]
    kernel = [tuple(map(int, line.split())) for line in table.splitlines()]
    pool = Pool(4096)
    ours = [(cls, min(32 + cls * 16, 4096), pages) for cls, (pages, _) in sorted(pool.shape.items())]
    assert ours == kernel
    assert len(ours) == 119
    assert [Pool(page).huge_class_size for page in (4096, 16384, 65536)] == [3625, 14553, 58137]


RECOMPRESSED = [
    # transcript 05: algorithms, what is written after FILL, mm_stat at the end, block_state's flags in runs
    (
        "lzo-rle zstd",
        ["recompress type=huge"],
        "90112 57540 184320 0 135168 2 0 4 8",
        "4..h..n 8...... 4....r. 2s..... 4......",
    ),
    (
        "lzo-rle zstd",
        ["recompress type=idle"],
        "90112 62909 135168 0 135168 2 0 8 8",
        "4..h... 8...... 4..h... 2s..... 4......",
    ),
    (
        "lzo-rle zstd",
        ["idle all", "recompress type=idle priority=1"],
        "90112 52596 159744 0 135168 2 0 4 8",
        "4..h..n 12....r. 2s..... 4....r.",
    ),
    (
        "lzo-rle zstd",
        ["recompress threshold=3000 priority=1"],
        "90112 58983 159744 0 135168 2 0 6 8",
        "4..h..n 8...... 1....r. 2..h..n 1....r. 2s..... 4.....n",
    ),
    (
        "lzo-rle zstd",
        ["recompress threshold=3000 priority=1", "recompress threshold=2000 priority=1"],
        "90112 54363 122880 0 135168 2 0 6 8",
        "4..h..n 9....r. 2..h..n 1....r. 2s..... 4.....n",
    ),
    (
        "lzo-rle zstd",
        ["recompress threshold=2000"],
        "90112 58289 98304 0 135168 2 0 8 8",
        "4..h..n 8....r. 4..h..n 2s..... 4.....n",
    ),
    (
        "lzo-rle zstd",
        ["idle all", "recompress type=idle max_pages=3"],
        "90112 59502 188416 0 135168 2 0 5 8",
        "4..hi.. 8...i.. 1..hi.. 3....r. 2s..... 4...i..",
    ),
    (
        "lzo-rle zstd",
        ["recompress max_pages=0"],
        "90112 62909 135168 0 135168 2 0 8 8",
        "4..h... 8...... 4..h... 2s..... 4......",
    ),
    ("lzo-rle zstd", ["recompress "], "90112 52596 159744 0 135168 2 0 4 8", "4..h..n 12....r. 2s..... 4....r."),
    ("zstd lz4", ["idle all"], "90112 52596 159744 0 159744 2 0 4 4", "4..hi.. 12...i.. 2s..... 4...i.."),
    (
        "zstd lz4",
        ["idle all", "recompress type=idle"],
        "90112 52596 159744 0 159744 2 0 4 4",
        "4..h..n 12.....n 2s..... 4.....n",
    ),
]


@pytest.mark.parametrize(("algorithms", "lines", "mm_stat", "flags"), RECOMPRESSED)
def test_model_recompresses_like_the_kernel(
    algorithms: str, lines: list[str], mm_stat: str, flags: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(algorithm: str, level: int | None, page: bytes) -> int:
        return sizes.lzo(page, True) if algorithm == "lzo-rle" else with_libraries(algorithm, level, page)

    with_libraries = reference_model.compressed_size
    monkeypatch.setattr(reference_model, "compressed_size", size)
    first, *others = algorithms.split()
    shape = Shape(slots=2048, primary=(first, None), secondary=tuple((name, None) for name in others))
    model = Model(4096, lambda: 100, {})
    side = model_side(model, data)
    stores = [("store", *line.split(" ", 1)) for line in lines]
    for op in [*walkgen.set_up(shape), *FILL, *stores]:
        assert side.apply(op)[0] == "OK"
    assert model.mm_stat() == numbers(mm_stat)
    assert [run for _, _, run in model.block_state()] == [
        letters for count, letters in re.findall(r"(\d+)(\S{6})", flags) for _ in range(int(count))
    ]
    assert all(time == (0 if "r" in run else 100) for _, time, run in model.block_state() if "s" not in run)


# The device and the model ----------------------------------------------------------------------------------------

DEFLATE = ("deflate", None)
WALKS = [
    # seed, steps, shape
    (1, 900, Shape(blocks=1000)),
    (2, 700, Shape(blocks=40)),
    (3, 500, Shape()),
    (4, 1000, Shape(blocks=60, primary=("zstd", 1), secondary=(("zstd", 9),))),
    (5, 900, Shape(blocks=500, primary=("lz4", None), secondary=(("zstd", None), DEFLATE))),
    (6, 600, Shape(slots=1, blocks=1, primary=("zstd", 1), secondary=(DEFLATE,))),
    (7, 600, Shape(slots=3, blocks=2, primary=("lz4", None), secondary=(("zstd", 12),))),
    (8, 700, Shape(slots=17, blocks=8, primary=("zstd", 1), secondary=(DEFLATE, ("zstd", 19)), raw_blocks=True)),
    (9, 500, Shape(slots=700, blocks=300, primary=("lz4", None), secondary=(("zstd", 3),))),
    (12, 900, Shape(slots=120, blocks=200, primary=("lz4", None), secondary=(("zstd", 1), ("zstd", 19)))),
]
BIG_PAGES = [
    (
        10,
        250,
        Shape(slots=60, blocks=20, primary=("lz4", None), secondary=(("zstd", None),), page_size=16384, data_pages=128),
    ),
    (11, 150, Shape(slots=5, blocks=9, page_size=16384, data_pages=128)),
]


@pytest.mark.parametrize(("seed", "steps", "shape"), [*WALKS, *BIG_PAGES])
def test_device_agrees_with_the_model(
    seed: int, steps: int, shape: Shape, catalogue: Catalogue, data: bytes, tmp_path: Path
) -> None:
    pair = new_pair(catalogue, data, shape, tmp_path)
    for op in walkgen.walk(seed, steps, shape):
        pair.step(op)
    pair.finish()
    assert pair.steps > steps


@pytest.mark.parametrize(
    ("seed", "steps", "slots", "filled", "compactions"),
    [
        (1, 1500, 300, (90, 240, 750, 1000), 0.03),
        (2, 1500, 700, (90, 240, 750, 1000), 0.005),
        # Fifteen objects a zspage: pages begin to depend on the order inside a fullness group.
        (2, 3000, 500, (232,), 0),
        (7, 3000, 500, (232,), 0),
    ],
)
def test_device_and_model_put_objects_in_the_same_place(
    seed: int,
    steps: int,
    slots: int,
    filled: tuple[int, ...],
    compactions: float,
    catalogue: Catalogue,
    data: bytes,
    tmp_path: Path,
) -> None:
    shape = Shape(slots=slots, primary=("lz4", None))
    pair = new_pair(catalogue, data, shape, tmp_path)
    for op in walkgen.pool_walk(seed, steps, shape, filled, compactions):
        pair.step(op)
    assert not compactions or pair.model.pool.pages_compacted > 20


def test_the_walks_are_long_enough() -> None:
    assert sum(steps for _, steps, _ in WALKS) >= 6000


# Walks as text ---------------------------------------------------------------------------------------------------


def test_a_walk_reads_back_from_its_script() -> None:
    shape = WALKS[3][2]
    lines = walkgen.script(7, 300, shape).splitlines()
    ops = [op for line in lines for op in walkgen.parse_line(line)]
    said = [op for op in ops if op[0] not in ("stats", "block_state", "mkloop")]
    assert said == list(walkgen.walk(7, 300, shape))
    assert said != list(walkgen.walk(8, 300, shape))
    assert all(after == ("stats",) for before, after in pairwise(ops) if before in said)
