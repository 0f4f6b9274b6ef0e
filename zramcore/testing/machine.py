"""DeviceMachine: the hypothesis state machine that proves plugins inside a device. It needs hypothesis.

A plugin author subclasses it with a catalogue that has the plugin, and names it::

    from zramcore.testing.machine import DeviceMachine

    class MineInADevice(DeviceMachine):
        catalogue = build_catalogue(load_plugins())
        algorithm = "mine"

    TestMineInADevice = MineInADevice.TestCase

Each step is one operation on a device and on its model (lockstep.py); hypothesis looks for a short sequence of steps
after which the two differ. For many more steps of less variety, see walk.py.
"""

from __future__ import annotations

from typing import ClassVar

from ..interfaces import Catalogue
from .lockstep import Lockstep
from .model import Range
from .walk import KINDS, MODES, SEED_WORDS, make_page

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
except ImportError as error:
    raise ImportError("zramcore.testing.machine needs hypothesis: pip install 'zramcore[test]'") from error

FRACTIONS = st.integers(0, 999)
"""Where something lies, in thousandths of the device: the same step then means the same for any size of device."""
KIND = st.sampled_from(KINDS)
NUMBER = st.integers(0, 15)


class DeviceMachine(RuleBasedStateMachine):
    """Every operation on a small device with a backing device that fails at times.

    A subclass sets `catalogue`, and may set the rest; names default to the first of their kind in the catalogue.
    `steps_taken` counts the operations of all runs of the subclass.
    """

    catalogue: ClassVar[Catalogue]
    page_size: ClassVar[int] = 4096
    nr_pages: ClassVar[int] = 24
    blocks: ClassVar[int] = 12
    algorithm: ClassVar[str | None] = None
    secondary: ClassVar[str | None] = None
    allocator: ClassVar[str | None] = None
    steps_taken: ClassVar[int] = 0

    @initialize()
    def create(self) -> None:
        """Make the device and its model."""
        if not hasattr(type(self), "catalogue"):
            raise TypeError(f"{type(self).__name__} must set catalogue")
        self.lockstep = Lockstep(
            self.catalogue,
            page_size=self.page_size,
            nr_pages=self.nr_pages,
            blocks=self.blocks,
            algorithm=self.algorithm,
            secondary=self.secondary,
            allocator=self.allocator,
            deep_every=4,
        )

    def teardown(self) -> None:
        """Look at everything once more, and close the device."""
        lockstep = getattr(self, "lockstep", None)
        if lockstep is None:
            return
        try:
            lockstep.check()
        finally:
            type(self).steps_taken += lockstep.operations
            lockstep.close()

    def _index(self, fraction: int) -> int:
        return fraction * self.nr_pages // 1000

    def _offset(self, fraction: int) -> int:
        return fraction * (self.nr_pages + 1) * self.page_size // 1000

    @rule(at=FRACTIONS, pages=st.lists(st.tuples(KIND, NUMBER), min_size=1, max_size=6))
    def write_pages(self, at: int, pages: list[tuple[str, int]]) -> None:
        """Whole pages, perhaps over the end."""
        data = b"".join(make_page(kind, number, self.page_size) for kind, number in pages)
        self.lockstep.write(self._index(at) * self.page_size, data)

    @rule(at=FRACTIONS, size=st.integers(0, 9000), kind=KIND, number=NUMBER)
    def write_bytes(self, at: int, size: int, kind: str, number: int) -> None:
        """Any bytes."""
        data = make_page(kind, number, self.page_size) * (size // self.page_size + 1)
        self.lockstep.write(self._offset(at), data[:size])

    @rule(at=FRACTIONS, size=st.integers(0, 30_000), into=st.booleans())
    def read(self, at: int, size: int, into: bool) -> None:
        """Any range."""
        self.lockstep.read(self._offset(at), size, into)

    @rule(at=FRACTIONS)
    def read_page(self, at: int) -> None:
        """One page."""
        self.lockstep.read(self._index(at) * self.page_size, self.page_size)

    @rule(at=FRACTIONS, size=st.integers(0, 20_000), zeroes=st.booleans())
    def free(self, at: int, size: int, zeroes: bool) -> None:
        """Discard or zero any range."""
        (self.lockstep.write_zeroes if zeroes else self.lockstep.discard)(self._offset(at), size)

    @rule(at=FRACTIONS, count=st.integers(1, 6))
    def discard_pages(self, at: int, count: int) -> None:
        """Discard whole pages."""
        self.lockstep.discard(self._index(at) * self.page_size, count * self.page_size)

    @rule(age=st.none() | st.integers(0, 4), seconds=st.integers(0, 3))
    def idle(self, age: int | None, seconds: int) -> None:
        """Let time pass, then mark pages idle."""
        self.lockstep.clock.now += seconds
        self.lockstep.idle(age)

    @rule(mode=st.sampled_from(MODES), keyed=st.booleans())
    def writeback(self, mode: str, keyed: bool) -> None:
        """A pass by the kernel's word."""
        self.lockstep.writeback(f"type={mode}" if keyed else mode, [(0, self.nr_pages, mode)])

    @rule(word=st.sampled_from(sorted(SEED_WORDS)))
    def writeback_as_the_seed(self, word: str) -> None:
        """A pass by the seed patch's number."""
        self.lockstep.writeback(word, [(0, self.nr_pages, SEED_WORDS[word])])

    @rule(parts=st.lists(st.tuples(FRACTIONS, st.integers(0, 5)), max_size=3))
    def writeback_indexes(self, parts: list[tuple[int, int]]) -> None:
        """A pass over named pages, perhaps named twice."""
        ranges: list[Range] = []
        words: list[str] = []
        for at, more in parts:
            first = self._index(at)
            last = min(first + more, self.nr_pages - 1)
            ranges.append((first, last + 1, "any"))
            words.append(f"page_indexes={first}-{last}" if more else f"page_index={first}")
        self.lockstep.writeback(" ".join(words), ranges)

    @rule(
        mode=st.sampled_from(("any", "idle", "huge", "huge_idle")),
        threshold=st.sampled_from((0, 100, 3000, 4096)),
        max_pages=st.none() | st.integers(0, 5),
    )
    def recompress(self, mode: str, threshold: int, max_pages: int | None) -> None:
        """A pass with the secondary algorithm."""
        self.lockstep.recompress(mode, threshold, max_pages)

    @rule(limit=st.none() | st.integers(0, 40))
    def budget(self, limit: int | None) -> None:
        """Set or lift writeback_limit."""
        self.lockstep.set_budget(limit)

    @rule(size=st.integers(1, 40))
    def batch_size(self, size: int) -> None:
        """Change writeback_batch_size."""
        self.lockstep.set_batch(size)

    @rule(pages=st.integers(0, 12))
    def mem_limit(self, pages: int) -> None:
        """Set mem_limit; 0 lifts it."""
        self.lockstep.set_mem_limit(pages)

    @rule()
    def compact(self) -> None:
        """Compact the pool."""
        self.lockstep.compact()

    @rule(block=st.integers(0, 11))
    def damage(self, block: int) -> None:
        """Make a block fail with EIO."""
        self.lockstep.damage(block)

    @precondition(lambda self: self.lockstep.driver.bad_blocks)
    @rule()
    def repair(self) -> None:
        """All blocks work again."""
        self.lockstep.damage(None)

    @rule(count=st.integers(1, 40), stored=st.integers(0, 3))
    def fail_writes(self, count: int, stored: int) -> None:
        """Let a pass meet writes that fail, some of them after storing a part."""
        self.lockstep.writeback_failing("idle_or_huge", [(0, self.nr_pages, "idle_or_huge")], count, stored)

    @rule(compressed=st.booleans())
    def reset(self, compressed: bool) -> None:
        """Start again."""
        self.lockstep.reset(compressed)
