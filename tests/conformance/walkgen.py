"""Random walks over a device, as operations: the same seed and shape give the same walk.

An operation is a tuple. `format_op` writes one as a line of a script (`zramcore exec`, or the guest of the recorded
walks), `parse_line` reads it back, and `script` prints a whole walk. Offsets and lengths are in bytes.

    ("store", attribute, value)         w ATTRIBUTE VALUE
    ("put", first, count, slot)         put FIRST COUNT SLOT    pages of pages.bin, one write each, stops when one fails
    ("pwrite", offset, length, spec)    zt pw $D OFFSET LENGTH SPEC
    ("pread", offset, length)           zt pr $D OFFSET LENGTH
    ("discard", offset, length)         zt discard $D OFFSET LENGTH
    ("zeroout", offset, length)         zt zeroout $D OFFSET LENGTH
    ("mkloop", device, pages)           mkloop DEVICE PAGES
    ("sleep", seconds)                  sleep SECONDS
    ("stats",)                          s
    ("block_state", lines)              bs LINES
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

Op = tuple

STORE = "/dev/loop0"
STATS = (
    "s() { echo \"  = $(tr -s ' ' <$Z/mm_stat) | $(tr -s ' ' <$Z/bd_stat) | $(tr -s ' ' <$Z/io_stat)\"; }",
    'echo "kernel: $(uname -r)"',
)
TYPES = ("idle", "huge", "huge_idle", "type=idle", "type=huge", "incompressible", "type=incompressible", "bogus")


@dataclass(frozen=True)
class Shape:
    """The device of a walk. Algorithms are (name, level or None); `blocks` 0 means no backing store."""

    slots: int = 192
    blocks: int = 0
    primary: tuple[str, int | None] = ("zstd", None)
    secondary: tuple[tuple[str, int | None], ...] = ()
    page_size: int = 4096
    data_pages: int = 512
    """Pages of `page_size` bytes in pages.bin."""
    raw_blocks: bool = False
    """Whether compressed_writeback is on."""


def set_up(shape: Shape) -> list[Op]:
    """From reset to disksize, in the order the kernel wants."""
    ops: list[Op] = [("store", "reset", "1"), ("store", "comp_algorithm", shape.primary[0])]
    for priority, (name, _) in enumerate(shape.secondary, 1):
        ops.append(("store", "recomp_algorithm", f"algo={name} priority={priority}"))
    for priority, (_, level) in enumerate((shape.primary, *shape.secondary)):
        if level is not None:
            ops.append(("store", "algorithm_params", f"priority={priority} level={level}"))
    if shape.blocks:
        ops.append(("store", "backing_dev", STORE))
    ops.append(("store", "compressed_writeback", str(int(shape.raw_blocks))))
    ops.append(("store", "disksize", f"{shape.slots * shape.page_size // 1024}K"))
    return ops


def walk(seed: int, steps: int, shape: Shape) -> Iterator[Op]:
    """`steps` operations after the set-up; a reset in between is one step."""
    yield from set_up(shape)
    walker = _Walker(random.Random(seed), shape)
    choices = list(walker.weights)
    for _ in range(steps):
        (step,) = walker.r.choices(choices, weights=walker.weights.values())
        yield from step()


def pool_walk(seed: int, steps: int, shape: Shape, filled: Sequence[int], compactions: float) -> Iterator[Op]:
    """Objects that come and go one by one, and compaction: what object goes where shows in the end.

    `filled` are the random bytes a page may begin with, `compactions` the share of steps that compact.
    """
    yield from set_up(shape)
    r = random.Random(seed)
    page = shape.page_size
    for count in range(steps):
        kind, offset = r.random(), r.randrange(shape.slots) * page
        writes = 0.9 if count // shape.slots % 2 == 0 else 0.15  # tides leave many zspages partly used
        if kind < compactions:
            yield ("store", "compact", "1")
        elif kind < writes:
            yield ("pwrite", offset, page, f"randz:{r.randrange(3)}:{r.choice(filled)}")
        else:
            yield ("discard", offset, page)


class _Walker:
    """Makes the steps of one walk."""

    def __init__(self, r: random.Random, shape: Shape) -> None:
        self.r = r
        self.shape = shape
        self.weights: dict[Callable[[], list[Op]], float] = {
            self.put: 30,
            self.write: 12,
            self.past_the_end: 0.5,
            self.read: 9,
            self.discard: 9,
            self.idle: 9,
            self.writeback: 13,
            self.recompress: 9 if shape.secondary else 1,
            self.compact: 4,
            self.budget: 3,
            self.limits: 3,
            self.time: 4,
            self.again: 0.3,
        }

    def span(self) -> tuple[int, int]:
        """A slot, and how many from there."""
        n = min(self.r.choice([1, 1, 1, 2, 4, 8, 16]), self.shape.slots)
        return self.r.randrange(self.shape.slots - n + 1), n

    def extent(self) -> tuple[int, int]:
        """An offset and a length in bytes; blocks of 4096 where a page is bigger."""
        slot, n = self.span()
        page, blocks = self.shape.page_size, self.shape.page_size // 4096
        if blocks == 1 or self.r.random() < 0.5:
            return slot * page, n * page
        first = self.r.randrange(slot * blocks, (slot + n) * blocks)
        return first * 4096, self.r.randint(1, (slot + n) * blocks - first) * 4096

    def put(self) -> list[Op]:
        slot, n = self.span()
        return [("put", self.r.randrange(self.shape.data_pages - n), n, slot)]

    def write(self) -> list[Op]:
        """Sizes of every class, words, and requests of several pages."""
        kind = self.r.random()
        offset, length = self.extent()
        if kind < 0.6:
            filled = int(4096 * self.r.random() ** 1.5)
            return [("pwrite", offset, length, f"randz:{self.r.randrange(40)}:{filled - filled % 64 or 3}")]
        if kind < 0.75:
            return [("pwrite", offset, length, f"word:{self.r.choice([0, 0x11, 2**64 - 1]):x}")]
        return [("pwrite", offset, length, f"rand:{self.r.randrange(20)}")]

    def past_the_end(self) -> list[Op]:
        page, end = self.shape.page_size, self.shape.slots * self.shape.page_size
        which = self.r.choice(["pwrite", "pread", "discard"])
        offset = end - self.r.choice([0, page])
        return [(which, offset, 2 * page, "rand:5") if which == "pwrite" else (which, offset, 2 * page)]

    def read(self) -> list[Op]:
        return [("pread", *self.extent())]

    def discard(self) -> list[Op]:
        if self.r.random() < 0.7:
            return [("discard", *self.extent())]
        slot, n = self.span()
        return [("zeroout", slot * self.shape.page_size, n * self.shape.page_size)]

    def idle(self) -> list[Op]:
        age = self.r.choice(["all", "all", "0", "1", "2", "3", "5", "9", "100000000", "some"])
        return [("store", "idle", age)]

    def indexes(self) -> str:
        slot, n = self.span()
        last = slot + n - self.r.choice([0, 1, 1, 1])
        texts = [f"page_index={slot}", f"page_indexes={slot}-{last}", f"page_indexes={last}-{slot}", "foo=bar"]
        return self.r.choices(texts, weights=[10, 10, 1, 1])[0]

    def writeback(self) -> list[Op]:
        kind = self.r.random()
        if kind < 0.5:
            text = self.r.choice(TYPES)
        else:
            words = [self.indexes() for _ in range(self.r.choice([1, 1, 2, 3, 6]))]
            if self.r.random() < 0.15:
                words.insert(self.r.randrange(len(words) + 1), self.r.choice(TYPES))
            text = " ".join(words)
        return [("store", "writeback", text)]

    def recompress(self) -> list[Op]:
        r, configured = self.r, len(self.shape.secondary)
        words = []
        if r.random() < 0.6:
            types = ["type=idle", "type=huge", "type=huge_idle", "type=no", "huge"]
            words += r.choices(types, weights=[8, 8, 5, 1, 1])
        if r.random() < 0.25:
            words.append(f"threshold={r.choice([0, 64, 500, 1000, 2000, 2500, 3000, 3600, 15000])}")
        if r.random() < 0.25:
            words.append(f"max_pages={r.choice([0, 1, 2, 3, 10])}")
        kind = r.random()
        if configured and kind < 0.7:
            words.append(f"priority={r.randint(1, configured)}")
        elif configured and kind < 0.8:
            words.append(f"algo={r.choice(self.shape.secondary)[0]}")
        elif kind < 0.9:
            words.append(f"priority={r.choice([0, configured + 1, 4])}")
        return [("store", "recompress", " ".join(words))]

    def compact(self) -> list[Op]:
        return [("store", "compact", "1")]

    def budget(self) -> list[Op]:
        if self.r.random() < 0.3:
            return [("store", "writeback_batch_size", self.r.choice(["1", "2", "3", "8", "32", "64", "0"]))]
        limit = self.r.choice([0, 1, 3, 7, 20, 1000])
        return [
            ("store", "writeback_limit", str(limit)),
            ("store", "writeback_limit_enable", self.r.choice("001")),
        ]

    def limits(self) -> list[Op]:
        if self.r.random() < 0.4:
            return [("store", "mem_used_max", self.r.choice("0007"))]
        return [("store", "mem_limit", self.r.choice(["0", "0", "0", "0", "64K", "256K", "1M", "none"]))]

    def time(self) -> list[Op]:
        return [("sleep", self.r.choice([1, 1, 2, 5]))]

    def again(self) -> list[Op]:
        """Reset, a few things that an uninitialised device refuses, and the same device anew."""
        raw = replace(self.shape, raw_blocks=self.r.random() < 0.5)
        ops = set_up(raw)
        ops[1:1] = [*self.idle(), *self.writeback(), *self.compact(), ("pread", 0, 4096), *self.limits()]
        return [*ops, *self.limits()]


# Lines of a script -----------------------------------------------------------------------------------------------


def format_op(op: Op) -> str:
    """The operation as a line of a script."""
    kind, *rest = op
    if kind == "store":
        attribute, value = rest
        return f"w {attribute} {value}" if re.fullmatch(r"[\w=/-]+", value) else f"w {attribute} '{value}'"
    names = {"pwrite": "zt pw $D", "pread": "zt pr $D", "discard": "zt discard $D", "zeroout": "zt zeroout $D"}
    return " ".join([{**names, "stats": "s", "block_state": "bs"}.get(kind, kind), *map(str, rest)])


def parse_line(line: str) -> list[Op]:
    """The operations that a line stands for; none for a line that only says something. Raises ValueError."""
    word, *rest = line.split(maxsplit=2)
    if word == "w":
        return [("store", rest[0], rest[1].strip("'") if len(rest) > 1 else "")]
    if word == "zt":
        name, (_, *numbers) = {"pw": "pwrite", "pr": "pread"}.get(rest[0], rest[0]), rest[1].split()
        return [(name, *(int(text) if text.isdigit() else text for text in numbers))]
    numbers = line.split()[1:]
    if word == "rdp":
        return [("pread", int(numbers[0]) * 4096, 4096)]
    if word == "disc":
        return [("discard", int(numbers[0]) * 4096, int(numbers[1]) * 4096)]
    if word == "setup":
        store = [("store", "backing_dev", text) for text in numbers[2:]]
        algorithm = ("store", "comp_algorithm", numbers[0])
        return [("store", "reset", "1"), algorithm, *store, ("store", "disksize", numbers[1])]
    if word in ("put", "sleep", "bs", "mkloop"):
        name = {"bs": "block_state"}.get(word, word)
        return [(name, *(int(text) if text.isdigit() else text for text in numbers))]
    if word == "s":
        return [("stats",)]
    if word in ("say", "echo", "show", "s()"):
        return []
    raise ValueError(f"no operation: {line!r}")


def script(seed: int, steps: int, shape: Shape) -> str:
    """The walk as a script that prints the statistics after each operation and block_state now and then."""
    lines = [*STATS, f'say "random walk seed={seed} steps={steps} {shape}"']
    if shape.blocks:
        lines.append(format_op(("mkloop", STORE, shape.blocks)))
    for count, op in enumerate(walk(seed, steps, shape), 1):
        lines += [format_op(op), "s"]
        if count % 25 == 0:
            lines.append(f"bs {shape.slots}")
    return "\n".join([*lines, f"bs {shape.slots}", "show", ""])
