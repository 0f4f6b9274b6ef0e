"""A random walk of operations over a Lockstep: cheaper than hypothesis, and so many more of them."""

from __future__ import annotations

from random import Random

from .lockstep import Lockstep
from .model import Range

MODES = ("idle", "huge", "huge_idle", "incompressible", "idle_or_huge")
SEED_WORDS = {"1": "huge", "2": "idle", "3": "idle_or_huge"}
KINDS = ("zero", "word", "text", "half", "random")


def make_page(kind: str, number: int, page_size: int) -> bytes:
    """A page of one kind, another one for each `number`: same-filled, compressible well or in part, or not at all."""
    stamp = number.to_bytes(8, "little")
    if kind == "zero":
        return bytes(page_size)
    if kind == "word":
        return stamp * (page_size // 8)
    random = Random(number)
    if kind == "text":
        words = [b"slot ", b"page ", b"idle ", b"huge ", b"block ", stamp]
        text = b"".join(random.choices(words, k=page_size // 16))
        return (stamp + text * 8)[:page_size]
    noise = page_size if kind == "random" else random.randrange(page_size // 8, page_size)
    return (stamp + random.randbytes(noise)).ljust(page_size, b"\0")[:page_size]


class Walk:
    """Chooses operations by weight, and their arguments, from one seed: the same seed takes the same steps."""

    def __init__(self, lockstep: Lockstep, seed: int, pool: int = 128) -> None:
        """`pool` pages of data are made once: making them costs more than writing them."""
        self.lockstep = lockstep
        self.random = Random(seed)
        self.page_size = lockstep.device.page_size
        self.pool = [
            make_page(self.random.choices(KINDS, (2, 2, 6, 4, 3))[0], seed << 32 | n, self.page_size)
            for n in range(pool)
        ]
        self.steps = {
            self.write: 30,
            self.write_page: 40,
            self.partial: 15,
            self.read: 30,
            self.read_page: 30,
            self.discard: 8,
            self.zeroes: 5,
            self.idle: 8,
            self.wait: 8,
            self.writeback: 8,
            self.indexes: 4,
            self.failing: 2,
            self.recompress: 5,
            self.budget: 2,
            self.batch: 1,
            self.mem_limit: 2,
            self.compact: 2,
            self.damage: 3,
            self.reset: 0.2,
        }

    def run(self, operations: int) -> None:
        """Take steps until the lockstep has counted `operations` more, then look at everything once."""
        lockstep = self.lockstep
        end = lockstep.operations + operations
        names, weights = list(self.steps), list(self.steps.values())
        while lockstep.operations < end:
            for step in self.random.choices(names, weights, k=64):
                step()
        lockstep.check()

    def _index(self) -> int:
        return self.random.randrange(self.lockstep.nr_pages)

    def _page(self) -> bytes:
        return self.random.choice(self.pool)

    def write(self) -> None:
        """A run of whole pages, sometimes over the end."""
        count = self.random.choice((2, 3, 5, 8, 16))
        data = b"".join(self._page() for _ in range(count))
        self.lockstep.write(self._index() * self.page_size, data)

    def write_page(self) -> None:
        """One page."""
        self.lockstep.write(self._index() * self.page_size, self._page())

    def partial(self) -> None:
        """Any bytes, from within a page to over several."""
        size = self.random.choice((1, 7, 512, self.page_size - 1, self.page_size + 1, 3 * self.page_size))
        data = (self._page() * 3)[:size]
        self.lockstep.write(self._index() * self.page_size + self.random.randrange(self.page_size), data)

    def read(self) -> None:
        """Any range, also past the end."""
        offset = self.random.randrange((self.lockstep.nr_pages + 1) * self.page_size)
        self.lockstep.read(offset, self.random.randrange(12 * self.page_size), into=self.random.random() < 0.4)

    def read_page(self) -> None:
        """One page."""
        self.lockstep.read(self._index() * self.page_size, self.page_size, into=self.random.random() < 0.2)

    def _range(self) -> tuple[int, int]:
        if self.random.random() < 0.5:
            return self._index() * self.page_size, self.random.randrange(6) * self.page_size
        return self.random.randrange(self.lockstep.nr_pages * self.page_size), self.random.randrange(4 * self.page_size)

    def discard(self) -> None:
        """Free a range."""
        self.lockstep.discard(*self._range())

    def zeroes(self) -> None:
        """Zero a range."""
        self.lockstep.write_zeroes(*self._range())

    def idle(self) -> None:
        """Mark all pages, or the old ones."""
        self.lockstep.idle(self.random.choice((None, None, 0, 1, 5, 100_000)))

    def wait(self) -> None:
        """Let time pass."""
        self.lockstep.clock.now += self.random.randrange(4)

    def writeback(self) -> None:
        """A pass over the whole device, by the kernel's word, as type=, or by the seed patch's number."""
        everything = self.lockstep.nr_pages
        mode = self.random.choice(MODES)
        text = mode if self.random.random() < 0.5 else f"type={mode}"
        if self.random.random() < 0.3:
            text, mode = self.random.choice(list(SEED_WORDS.items()))
        self.lockstep.writeback(text, [(0, everything, mode)])

    def failing(self) -> None:
        """A pass whose first writes fail, some after a part of the run is stored."""
        ranges = [(0, self.lockstep.nr_pages, "idle_or_huge")]
        self.lockstep.writeback_failing("3", ranges, self.random.randrange(1, 70), self.random.randrange(4))

    def indexes(self) -> None:
        """A pass over pages that are named, sometimes twice."""
        words: list[str] = []
        ranges: list[Range] = []
        for _ in range(self.random.randrange(1, 4)):
            first = self._index()
            last = min(self.lockstep.nr_pages - 1, first + self.random.randrange(8))
            if self.random.random() < 0.5:
                words.append(f"page_indexes={first}-{last}")
            else:
                words.append(f"page_index={first}")
                last = first
            ranges.append((first, last + 1, "any"))
        self.lockstep.writeback(" ".join(words), ranges)

    def recompress(self) -> None:
        """A pass with the secondary algorithm."""
        mode = self.random.choice(("any", "idle", "huge", "huge_idle"))
        threshold = self.random.choice((0, 0, 500, 3000, self.page_size))
        self.lockstep.recompress(mode, threshold, self.random.choice((None, 0, 3)))

    def budget(self) -> None:
        """Set or lift the write budget."""
        self.lockstep.set_budget(self.random.choice((None, None, 0, 3, 17, 1000)))

    def batch(self) -> None:
        """Change how many pages are in flight."""
        self.lockstep.set_batch(self.random.choice((1, 2, 7, 32, 100)))

    def mem_limit(self) -> None:
        """Set or lift mem_limit."""
        self.lockstep.set_mem_limit(self.random.choice((0, 0, 4, 30)))

    def compact(self) -> None:
        """Compact the pool."""
        self.lockstep.compact()

    def damage(self) -> None:
        """Make a block bad, or all of them good."""
        bad = self.random.random() < 0.4
        self.lockstep.damage(self.random.randrange(self.lockstep.blocks) if bad else None)

    def reset(self) -> None:
        """Start again."""
        self.lockstep.reset(compressed_writeback=self.random.random() < 0.5)
