"""The writeback pass: move pages from the pool to the backing store, biggest objects first.

Candidates are read in batches, written with no lock held as runs of contiguous blocks, and committed only if their
slots still carry the token; while the medium writes a batch, the next one is read. The budget is charged when a batch
is submitted and given back for blocks that fail, not for slots that were lost meanwhile (as in the kernel). Whatever
ends the pass, an error, a full store, an empty budget, an exception or a signal: no block, no budget and no token is
left behind.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .backing import BackingStore
from .block_io import aligned_memory
from .datapath import DataPath
from .device import Device
from .errors import BudgetExhausted, DeviceIOError, InvalidValue, NoBackingDevice, NoSpace, ZramError
from .pool_pages import LOCKED_SLOTS, PoolPages
from .postprocess import MAX_BATCH, Selection, chosen
from .slot_table import (
    PP_SLOT,
    WB,
    Column,
)


@dataclass
class Batch:
    """Pages that were read, or why they could not be."""

    slots: Column
    data: memoryview
    """Their contents, one after the other."""
    passed_over: bool = False
    """Whether slots that had lost their token came after the last of them."""
    error: ZramError | None = None
    """Of a page that could not be decompressed: it is not among `slots`, and stays in memory."""


@dataclass
class Submitted:
    """Pages on their way to `blocks`, which ascend, and what the budget was `charged` for each.

    Those before `done` are accounted for: the block is their slot's, or was given back.
    """

    slots: Column
    blocks: list[int]
    charged: list[int]
    done: int = 0


@dataclass
class Outcome:
    """What a pass did: pages committed, and its last error if it had one."""

    pages: int = 0
    error: ZramError | None = None


def write_back(device: Device, label: str, select: Callable[[int], list[Selection]]) -> None:
    """Run one pass over what `select` says, given the device's pages; `label` is what observers are told. Waits for
    another pass to end; the pages are counted after that (counting them before was an out-of-bounds bug, 894913e2d35c).

    Raises InvalidValue (EINVAL) before disksize is set, NoBackingDevice (ENODEV), BudgetExhausted (EIO) and NoSpace
    (ENOSPC) when eligible pages are left, and the last error of the medium (its errno) or of a page that could not
    be read; what was written before stays written.
    """
    with device.pass_lock:
        path = device.path
        if path is None:
            raise InvalidValue("the device is not initialised", hint="write disksize first")
        store = device.backing
        if store is None:
            raise NoBackingDevice("the device has no backing device", hint="reset it, then write backing_dev first")
        selections = select(device.nr_pages)
        used = path.allocator.pages_used
        outcome = Outcome()
        try:
            with chosen(path.table, selections) as candidates:
                _Pass(device, path, store, outcome, candidates, repeats=len(selections) > 1).run()
        except ZramError as error:
            outcome.error = error
            raise
        finally:
            device.notify(
                "writeback_done",
                device=device.name,
                mode=label,
                pages=outcome.pages,
                freed=max(0, used - path.allocator.pages_used) * path.page_size,
                error=outcome.error.errno_name if outcome.error else "",
            )
            path.trim()
        if outcome.error is not None:
            raise outcome.error


class _Pass:
    """The state of one pass over `candidates`."""

    def __init__(
        self,
        device: Device,
        path: DataPath,
        store: BackingStore,
        outcome: Outcome,
        candidates: Column,
        repeats: bool,
    ) -> None:
        """`repeats`: whether a slot may be among the candidates twice."""
        self.device = device
        self.path = path
        self.store = store
        self.outcome = outcome
        self.units = path.page_size >> 12
        self.candidates = candidates
        self.position = 0
        """Candidates before this one have been looked at."""
        self.stopped = False
        self.submitted = Submitted(candidates[:0], [], [])
        self._named_twice = repeats and len(np.unique(candidates)) < len(candidates)
        self._pool_pages = PoolPages(path, device.compressed_writeback)
        self._batch_size = min(device.writeback_batch_size, MAX_BATCH, max(len(candidates), 1))
        self._memory = [aligned_memory(self._batch_size * path.page_size) for _ in range(2)]

    def run(self) -> None:
        """Write candidates until none is left, or something stops the pass."""
        try:
            batch = self._read_batch()
            while batch is not None:
                batch = self._write(batch)
        finally:
            self._account_for_the_rest()

    def _read_batch(self) -> Batch | None:
        """The next candidates that still have their token, as many as a batch holds; None when all were looked at."""
        if self.stopped or self.position == len(self.candidates):
            return None
        memory = self._memory[0]
        self._memory.reverse()
        page_size = self.path.page_size
        found: list[Column] = []
        error: ZramError | None = None
        count, passed_over = 0, False
        while count < self._batch_size and self.position < len(self.candidates):
            wanted = self.candidates[self.position : self.position + self._batch_size - count]
            pages = memory[count * page_size :]
            good, failures = self._pool_pages.take(wanted, pages)
            self.position += len(wanted)
            passed_over = not good[-1]
            if failures:
                *_, error = failures.values()
                good[list(failures)] = False
            found.append(wanted if good.all() else self._close_up(wanted, good, pages))
            count += len(found[-1])
        return Batch(np.concatenate(found), memory[: count * page_size], passed_over, error)

    def _close_up(self, slots: Column, good: Column, data: memoryview) -> Column:
        """Those of `slots` that are `good`, their pages moved together at the beginning of `data`."""
        page_size = self.path.page_size
        for to, position in enumerate(np.flatnonzero(good).tolist()):
            if to != position:
                data[to * page_size : (to + 1) * page_size] = data[position * page_size : (position + 1) * page_size]
        return slots[good]

    def _write(self, batch: Batch) -> Batch | None:
        """Write a batch and commit it; meanwhile read the next one, which is returned."""
        submitted = self._submit(batch)
        if batch.error is not None:
            self.outcome.error = batch.error
        if submitted is None:
            return self._read_batch()
        failure: ZramError | None = None
        following: Batch | None = None
        # Whether a slot that comes again still has its token is known only after this batch.
        ahead = not self._named_twice
        data = batch.data[: len(submitted.blocks) * self.path.page_size]
        with self.store.writing(submitted.blocks, data) as verdicts:
            try:
                following = self._read_batch() if ahead else None
            except ZramError as error:
                failure = error  # later: what is being written is committed first
        self._complete(submitted, verdicts)
        if failure is not None:
            raise failure
        return following if ahead else self._read_batch()

    def _submit(self, batch: Batch) -> Submitted | None:
        """Reserve blocks for a batch and charge the budget; None when nothing of it is to be written.

        A slot that lost its token since it was read costs no write. A stopped pass, an empty budget and a full store
        end the pass when a slot is left that would need more, even one that has lost its token (as in the kernel).
        """
        alive = (self.path.table.flags[batch.slots] & PP_SLOT) != 0
        passed_over = batch.passed_over
        if not alive.all():
            passed_over = passed_over or not alive[-1]
            batch.slots = self._close_up(batch.slots, alive, batch.data)
        needed = len(batch.slots) + passed_over
        if not needed:
            return None
        if self.device.stop_pass.is_set():
            self._stop(DeviceIOError("the pass was stopped", errno=errno.EINTR))
            return None
        budget, store = self.device.budget, self.store
        affordable = budget.affordable(self.units)
        allowed = needed if affordable is None else min(needed, affordable)
        blocks: list[int] = []
        submitted = self.submitted = Submitted(batch.slots, blocks, [])
        blocks += store.reserve_many(allowed)
        if len(blocks) < allowed:
            self._stop(
                NoSpace(
                    f"all {store.nr_blocks} blocks of the backing device are used", hint="use a larger backing device"
                )
            )
        elif allowed < needed:
            self._stop(
                BudgetExhausted(
                    "the write budget is used up and eligible pages are left",
                    hint="raise writeback_limit or write 0 to writeback_limit_enable",
                )
            )
        count = min(len(batch.slots), len(blocks))
        while len(blocks) > count:
            store.release(blocks.pop())
        if not count:
            return None
        taken = budget.charge(self.units * count)
        whole, rest = divmod(taken, self.units)
        submitted.charged += [*[self.units] * whole, rest, *[0] * count][:count]
        submitted.slots = batch.slots[:count]
        return submitted

    def _stop(self, error: ZramError) -> None:
        self.outcome.error = error
        self.stopped = True

    def _complete(self, submitted: Submitted, verdicts: list[OSError | None]) -> None:
        """Commit what was written, and give back the blocks of what was not, or is not wanted any more."""
        slots, blocks = submitted.slots, np.array(submitted.blocks, np.uint64)
        written = np.ones(len(slots), bool)
        failed = {at: verdict for at, verdict in enumerate(verdicts) if verdict is not None} if any(verdicts) else {}
        for position, verdict in failed.items():
            written[position] = False
            charged, submitted.charged[position] = submitted.charged[position], 0
            self.device.budget.refund(charged)
            self.outcome.error = _medium_error(verdict)
        with self.path.stats.lock:
            self.path.stats.bd_writes += self.units * (len(slots) - len(failed))
        for start in range(0, len(slots), LOCKED_SLOTS):
            part = slice(start, start + LOCKED_SLOTS)
            kept = self._pool_pages.commit(slots[part], blocks[part], written[part])
            submitted.done = min(part.stop, len(slots))
            self.outcome.pages += int(np.count_nonzero(kept))
            if not kept.all():
                self.store.release_many(blocks[part][~kept].tolist())

    def _account_for_the_rest(self) -> None:
        """Give back blocks and budget of what was submitted and, whatever ended the pass, not committed."""
        submitted = self.submitted
        for position in range(submitted.done, len(submitted.blocks)):
            block = submitted.blocks[position]
            if position >= len(submitted.slots) or not self._has_block(int(submitted.slots[position]), block):
                self.store.release(block)
                if position < len(submitted.charged):
                    self.device.budget.refund(submitted.charged[position])

    def _has_block(self, slot: int, block: int) -> bool:
        table = self.path.table
        with table.lock_range(slot, 1):
            return bool(table.flags_row[slot] & WB) and table.handles_row[slot] == block


def _medium_error(error: OSError) -> ZramError:
    """The error of the medium as the attribute reports it, with its own errno."""
    if isinstance(error, ZramError):
        return error
    return DeviceIOError(f"the backing device failed: {error}", errno=error.errno or errno.EIO)
