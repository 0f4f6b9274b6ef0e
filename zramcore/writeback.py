"""The writeback pass: move pages from the pool to the backing store, biggest objects first.

Candidates are read in batches under their slots' locks, written with no lock held as runs of contiguous blocks, and
committed only if their slots still carry the token. The budget is charged when a block is submitted and given back if
its write fails, not if the slot was lost meanwhile (as in the kernel). Whatever ends the pass, an error, a full store,
an empty budget, an exception or a signal: no block, no budget and no token is left behind.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .backing import BackingStore
from .datapath import DataPath
from .device import Device
from .errors import BudgetExhausted, DeviceIOError, InvalidValue, NoBackingDevice, NoSpace, ZramError
from .interfaces import Buffer
from .postprocess import Selection, tokens
from .slot_table import (
    HUGE,
    INCOMPRESSIBLE,
    LOCK_MASK,
    LOCK_SHIFT,
    PP_SLOT,
    PRIORITY_MASK,
    PRIORITY_SHIFT,
    SIZE_MASK,
    WB,
)

KEPT_FLAGS = HUGE | INCOMPRESSIBLE | PRIORITY_MASK
"""What block_state still shows of a written-back page (measured, Linux 7.3.4)."""


@dataclass
class Request:
    """One page on its way to its block: `data` is the object's bytes, then the block's contents."""

    index: int
    flags: int
    data: Buffer
    block: int = -1
    charged: int = 0
    """What the budget was charged for it."""


@dataclass
class Outcome:
    """What a pass did: pages committed, and its last error if it had one."""

    pages: int = 0
    error: ZramError | None = None
    requests: list[Request] = field(default_factory=list)
    """Submitted and not completed yet: blocks and budget that are still to be accounted for."""


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
            with tokens(path.table, selections) as candidates:
                _Pass(device, path, store, outcome).run(candidates)
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
    """The state of one pass."""

    def __init__(self, device: Device, path: DataPath, store: BackingStore, outcome: Outcome) -> None:
        self.device = device
        self.path = path
        self.store = store
        self.outcome = outcome
        self.units = path.page_size >> 12
        self.spare: int | None = None

    def run(self, candidates: list[int]) -> None:
        """Write candidates until none is left, or something stops the pass."""
        remaining = iter(candidates)
        outcome = self.outcome
        try:
            stopped = False
            while not stopped:
                stopped = self._gather(remaining)
                if outcome.requests:
                    self._unpack()
                    self._submit()
        finally:
            for request in outcome.requests:
                if not self._has_its_block(request):
                    self.store.release(request.block)
                    self.device.budget.refund(request.charged)
            if self.spare is not None:
                self.store.release(self.spare)

    def _gather(self, remaining: Iterator[int]) -> bool:
        """Fill `outcome.requests` with up to a batch of objects; True when the pass is to end after it."""
        outcome, budget = self.outcome, self.device.budget
        for index in remaining:
            if self.device.stop_pass.is_set():
                outcome.error = DeviceIOError("the pass was stopped", errno=errno.EINTR)
                return True
            if budget.exhausted:
                outcome.error = BudgetExhausted(
                    "the write budget is used up and eligible pages are left",
                    hint="raise writeback_limit or write 0 to writeback_limit_enable",
                )
                return True
            if self.spare is None:
                self.spare = self.store.reserve()
                if self.spare is None:
                    outcome.error = NoSpace(
                        f"all {self.store.nr_blocks} blocks of the backing device are used",
                        hint="use a larger backing device",
                    )
                    return True
            request = self._take(index)
            if request is None:
                continue
            # No call between the two: a signal handler that raises finds the block in exactly one place.
            request.block, self.spare = self.spare, None
            outcome.requests.append(request)
            request.charged = budget.charge(self.units)
            if len(outcome.requests) >= self.device.writeback_batch_size:
                return False
        return True

    def _take(self, index: int) -> Request | None:
        """A copy of the object of a slot that still has its token."""
        table = self.path.table
        with table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
            flags = table.flags_row[index]
            if not flags & PP_SLOT:
                return None
            try:
                data = bytes(self.path.allocator.view(table.handles_row[index], flags & SIZE_MASK))
            except Exception as error:
                raise self.path.allocator_fault(error) from error
            return Request(index, flags, data)

    def _unpack(self) -> None:
        """Turn objects into block contents; a page that cannot be decompressed stays in memory and is reported."""
        zcomp, page_size = self.path.zcomp, self.path.page_size
        compressed = self.device.compressed_writeback
        packed: dict[int, list[Request]] = {}
        for request in self.outcome.requests:
            if request.flags & HUGE:
                continue
            if compressed:
                # The rest of the block is zeroed: it would leak old memory (3bf1c285dc40).
                request.data = bytes(request.data).ljust(page_size, b"\0")
            else:
                packed.setdefault(request.flags >> PRIORITY_SHIFT & 3, []).append(request)
        for priority, requests in packed.items():
            try:
                pages = zcomp.decompress(priority, [request.data for request in requests], page_size)
                for request, page in zip(requests, pages, strict=True):
                    request.data = page
            except ZramError:
                for request in requests:
                    self._unpack_alone(priority, request)

    def _unpack_alone(self, priority: int, request: Request) -> None:
        try:
            request.data = self.path.zcomp.decompress(priority, [request.data], self.path.page_size)[0]
        except ZramError as error:
            self._abandon(request, error)

    def _abandon(self, request: Request, error: ZramError) -> None:
        """Give back the block and the budget of a request that was not written; its page stays in memory."""
        self.outcome.requests.remove(request)
        self.store.release(request.block)
        self.device.budget.refund(request.charged)
        self.outcome.error = error

    def _submit(self) -> None:
        """Write the batch and commit what was written."""
        outcome = self.outcome
        batch = list(outcome.requests)
        verdicts = self.store.write([request.block for request in batch], [request.data for request in batch])
        for request, verdict in zip(batch, verdicts, strict=True):
            if verdict is not None:
                self._abandon(request, _medium_error(verdict))
                continue
            with self.path.stats.lock:
                self.path.stats.bd_writes += self.units
            committed = self._commit(request)
            outcome.requests.remove(request)
            if committed:
                outcome.pages += 1
            else:
                self.store.release(request.block)

    def _commit(self, request: Request) -> bool:
        """Give the slot its block if it still has the token; False when it was accessed, overwritten or freed."""
        path, table, index = self.path, self.path.table, request.index
        with table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
            flags = table.flags_row[index]
            if not flags & PP_SLOT:
                return False
            size = flags & SIZE_MASK
            handle = table.handles_row[index]
            keep_size = size if self.device.compressed_writeback else 0
            table.flags_row[index] = WB | (flags & KEPT_FLAGS) | keep_size
            table.handles_row[index] = request.block
            with path.stats.lock:
                path.stats.compr_data_size -= size
                if flags & HUGE:
                    path.stats.huge_pages -= 1
            try:
                path.allocator.free(handle)
            except Exception as error:
                raise path.allocator_fault(error) from error
            return True

    def _has_its_block(self, request: Request) -> bool:
        """Whether a request was committed, whatever ended the pass after that: then the block is the slot's."""
        table, index = self.path.table, request.index
        with table.locks[index >> LOCK_SHIFT & LOCK_MASK]:
            return bool(table.flags_row[index] & WB) and table.handles_row[index] == request.block


def _medium_error(error: OSError) -> ZramError:
    """The error of the medium as the attribute reports it, with its own errno."""
    if isinstance(error, ZramError):
        return error
    return DeviceIOError(f"the backing device failed: {error}", errno=error.errno or errno.EIO)
