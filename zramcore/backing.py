"""BackingStore: which blocks of a backing device are in use, and batched I/O to them, over a BackingDriver.

What a driver does for one contiguous run, the store does for any set of blocks: it sorts, coalesces neighbours into
runs, gives each block its own verdict, and keeps a block that somebody still reads from being handed out again.

Life of a block: free -> reserved (`reserve`) -> released (`release`). A released block counts no more at once, but is
free only when nobody has it pinned and its discard, if the driver wants one, is done: a discard that came after the
block's next owner wrote to it would destroy the new data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from .backing_spec import parse_backing_spec, system_error
from .block_bitmap import BlockBitmap
from .block_io import MAX_RUN, BlockIO, block_names, block_runs, driver_fault
from .errors import InvalidValue, ZramError
from .interfaces import BackingDriver, Buffer

__all__ = ["MAX_RUN", "BackingStore", "Pin", "parse_backing_spec", "system_error"]

_log = logging.getLogger(__name__)


class Pin:
    """A hold on blocks, from `BackingStore.pin` until `release` or the end of a with-block; releasing twice is fine."""

    __slots__ = ("_blocks", "_store")

    def __init__(self, store: BackingStore, blocks: tuple[int, ...]) -> None:
        self._store = store
        self._blocks = blocks

    def release(self) -> None:
        """Let go: blocks released meanwhile become free with their last pin."""
        blocks, self._blocks = self._blocks, ()
        if blocks:
            self._store._unpin(blocks)

    def __enter__(self) -> Pin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class BackingStore(BlockIO):
    """The blocks of one open BackingDriver. Thread-safe; no lock is held during I/O.

    `bd_count` (blocks reserved) may be read at any time without waiting.
    """

    def __init__(self, driver: BackingDriver) -> None:
        """Takes over `driver`, which is open. Raises InvalidValue (EINVAL) when it has not even one block."""
        if driver.nr_blocks < 1:
            raise InvalidValue(f"{driver.spec.path} is smaller than one block of {driver.block_size} bytes")
        super().__init__(driver)
        self.nr_blocks = driver.nr_blocks
        self.bd_count = 0
        self._bitmap = BlockBitmap(driver.nr_blocks)
        self._pins: dict[int, int] = {}
        self._pinned = 0
        """The sum of `_pins`: when it comes to 0, all that is left in there goes at once."""
        # Released, not free yet. True: a thread is discarding it, and frees it afterwards unless it is pinned by then.
        self._limbo: dict[int, bool] = {}
        self._discard_failed = False

    @classmethod
    def open(cls, text: str, drivers: Mapping[str, type[BackingDriver]], block_size: int) -> BackingStore:
        """The store for the text written to `backing_dev`; see `parse_backing_spec` for it and its errors.

        Raises also what the driver's opening raises: EBUSY, EACCES, EINVAL, ENOSPC, ...; PluginFault when the driver
        raises something that is not an OSError.
        """
        driver_class, spec = parse_backing_spec(text, drivers, block_size)
        try:
            driver = driver_class(spec)
        except ZramError:
            raise
        except OSError as error:
            raise system_error(error, f"cannot open {spec.path}") from error
        except Exception as error:
            raise driver_fault(driver_class, "opening", error) from error
        try:
            return cls(driver)
        except BaseException:
            driver.close()
            raise

    # Blocks -------------------------------------------------------------------------------------------------------

    def reserve(self) -> int | None:
        """The lowest free block, reserved now; None when the store is full."""
        with self._lock:
            block = self._bitmap.take_lowest()
            if block is not None:
                self.bd_count += 1
            return block

    def reserve_many(self, count: int) -> list[int]:
        """The `count` lowest free blocks in ascending order, reserved now; fewer when fewer are free."""
        with self._lock:
            blocks = self._bitmap.take_lowest_many(count)
            self.bd_count += len(blocks)
            return blocks

    def release(self, block: int) -> None:
        """Give one reserved block back; see `release_many`."""
        self.release_many((block,))

    def release_many(self, blocks: Iterable[int]) -> None:
        """Give reserved blocks back. Those that are pinned become free with their last pin.

        Raises InvalidValue at a block that is not reserved; the blocks before it are released.
        """
        discard: list[int] = []
        try:
            with self._lock:
                for block in blocks:
                    self._release_locked(block, discard)
        finally:
            if discard:
                self._discard(discard)

    def _release_locked(self, block: int, discard: list[int]) -> None:
        if not 0 <= block < self.nr_blocks or block in self._limbo or block not in self._bitmap:
            raise InvalidValue(f"block {block} of {self.spec_text} is not reserved")
        self.bd_count -= 1
        if block in self._pins:
            self._limbo[block] = False
        else:
            self._retire_locked(block, discard)

    def _retire_locked(self, block: int, discard: list[int]) -> None:
        """Free a block that is released and not pinned, or put it on the caller's list to discard first."""
        if self.driver.discard_on_release and not self._closed:
            self._limbo[block] = True
            discard.append(block)
        else:
            self._limbo.pop(block, None)
            self._bitmap.free(block)

    def _discard(self, blocks: Sequence[int]) -> None:
        """Discard blocks that `_retire_locked` listed, without the lock, then free them."""
        try:
            if self._begin_unless_closed():
                try:
                    for block, count in block_runs(sorted(blocks)):
                        self._discard_run(block, count)
                finally:
                    self._end()
        finally:
            with self._lock:
                for block in blocks:
                    if block in self._pins:
                        self._limbo[block] = False
                    else:
                        del self._limbo[block]
                        self._bitmap.free(block)

    def _discard_run(self, block: int, count: int) -> None:
        try:
            self.driver.discard_blocks(block, count)
        except Exception as error:
            # Space that cannot be given back costs nothing but space; the block is as good as any other.
            if not self._discard_failed:
                self._discard_failed = True
                _log.warning(
                    "%s: backing driver %s cannot discard %s (reported once): %s",
                    self.spec_text,
                    self.driver.name,
                    block_names(block, count),
                    error,
                )

    # Pins ---------------------------------------------------------------------------------------------------------

    def pin(self, blocks: Sequence[int]) -> Pin:
        """Hold `blocks` from now on: none of them is handed out until the Pin is released, even if it is released.

        A reader takes the pin, checks (or holds the lock that guarantees) that its slots own the blocks, reads, and
        checks its slots again before it lets go: a slot that has the same block then has had it all the time.
        Pins nest and may overlap. A block that is not reserved can be pinned too: it is not handed out either.
        Raises InvalidValue for a block the store does not have; nothing is pinned then.
        """
        if blocks and not (min(blocks) >= 0 and max(blocks) < self.nr_blocks):
            raise InvalidValue(f"{self.spec_text} has only blocks 0 to {self.nr_blocks - 1}")
        with self._lock:
            pins = self._pins
            fresh = dict.fromkeys(blocks, 1)
            if not pins and len(fresh) == len(blocks) and self._bitmap.all_taken(blocks):
                self._pins = fresh
            else:
                for block in blocks:
                    count = pins.get(block, 0)
                    pins[block] = count + 1
                    if not count and block not in self._bitmap:
                        self._bitmap.take(block)
                        self._limbo[block] = False
            self._pinned += len(blocks)
        return Pin(self, tuple(blocks))

    def _unpin(self, blocks: Sequence[int]) -> None:
        discard: list[int] = []
        with self._lock:
            pins = self._pins
            self._pinned -= len(blocks)
            if not self._pinned and not self._limbo:
                pins.clear()
                return
            for block in blocks:
                count = pins[block] - 1
                if count:
                    pins[block] = count
                    continue
                del pins[block]
                if self._limbo.get(block) is False:
                    self._retire_locked(block, discard)
        if discard:
            self._discard(discard)

    def read(self, blocks: Sequence[int]) -> list[Buffer]:
        """The contents of `blocks` (any order, repeats allowed), pinned while they are read; see `read_pinned`.
        Each buffer has block_size bytes; several may be views of one."""
        distinct = sorted(set(blocks))
        with self.pin(distinct):
            whole = self.read_pinned(distinct)
        size = self.block_size
        data = {block: whole[index * size : (index + 1) * size] for index, block in enumerate(distinct)}
        return [data[block] for block in blocks]
