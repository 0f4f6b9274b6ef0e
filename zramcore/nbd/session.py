"""Session: carries out the requests of one connection on its export, batch by batch.

Reads and writes that are neighbours, in the order they came and on the device, reach the device as one; so do single
pages from anywhere, together with those that other connections' batches have at that moment (combining.py). Replies are
sent when the batch is done. FLUSH and FUA of a batch share one flush of the device at its end, before any of them is
answered; the other requests of the batch have been carried out by then, which only makes it cover more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..errors import ZramError
from ..interfaces import Buffer
from . import contexts, protocol
from .export import MAX_RUN, Export
from .handshake import Agreement
from .outbox import Outbox
from .protocol import (
    CMD_BLOCK_STATUS,
    CMD_CACHE,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLAG_REQ_ONE,
    CMD_FLUSH,
    CMD_READ,
    CMD_TRIM,
    CMD_WRITE,
    CMD_WRITE_ZEROES,
    MAX_PAYLOAD,
    REPLY_FLAG_DONE,
)
from .reading import Reader
from .wire import Wire, log

Request: TypeAlias = "tuple[int, int, int, int, int, memoryview]"
"""Type, flags, cookie, offset, length, payload (of a write; else empty)."""
NO_PAYLOAD = memoryview(b"")

GONE = "the device was reset or removed"
STOPPING = "the server is shutting down"


class Session:
    """One client's work on one export. Used by one thread."""

    def __init__(self, agreement: Agreement, wire: Wire) -> None:
        self.export: Export = agreement.export
        self.page_size = self.export.device.page_size
        self.outbox = Outbox(wire, agreement.structured)
        self._device = self.export.device
        self._size = self.export.size
        self._contexts = agreement.contexts
        self._reader = Reader(self.export, self.outbox, agreement.structured, self._failed)
        self._unflushed: list[int] = []
        self._broken = ""
        """Why the long write under way has failed; empty: it has not."""
        self._broken_error = 0
        self._others: dict[int, Callable[[int, int, int, int], None]] = {
            CMD_FLUSH: self._flush,
            CMD_TRIM: self._trim,
            CMD_CACHE: self._cache,
            CMD_WRITE_ZEROES: self._write_zeroes,
            CMD_BLOCK_STATUS: self._block_status,
        }

    def execute(self, requests: Sequence[Request], stopping: bool) -> None:
        """Carry out requests in order and send the replies. Raises OSError when the client is gone, Disconnect when a
        reply that was begun cannot be finished."""
        reason = self._refusal(stopping)
        if reason:
            for request in requests:
                self.outbox.fail(request[2], protocol.ESHUTDOWN, reason)
            self.outbox.send()
            return
        position, count = 0, len(requests)
        while position < count:
            kind, flags, cookie, offset, length, _ = requests[position]
            if kind == CMD_READ:
                position = self._read(requests, position)
            elif kind == CMD_WRITE:
                position = self._write(requests, position)
            else:
                self._other(kind, flags, cookie, offset, length)
                position += 1
        if self._unflushed:
            self._finish_flush()
        self.outbox.send()

    def _refusal(self, stopping: bool) -> str:
        return STOPPING if stopping else GONE if self.export.gone else ""

    def _failed(self, cookie: int, error: Exception, offset: int | None = None) -> None:
        """Answer a request that the device could not serve."""
        self.outbox.fail(cookie, *self._explain(error, cookie), offset)

    def _explain(self, error: Exception, cookie: int) -> tuple[int, str]:
        """The protocol's error and the message for an exception of the device."""
        if self.export.gone:
            return protocol.ESHUTDOWN, GONE
        if isinstance(error, ZramError):
            log(logging.WARNING, "request-failed", export=self.export.name, cookie=cookie, reason=repr(str(error)))
            return protocol.wire_error(error.errno), str(error)
        if isinstance(error, MemoryError):
            return protocol.ENOMEM, "out of memory"
        # A bug of ours or of a plugin: this request fails, the others are served.
        log(logging.ERROR, "request-crashed", export=self.export.name, cookie=cookie, reason=repr(error))
        return protocol.EIO, f"{type(error).__name__}: {error}"

    # Reads ------------------------------------------------------------------------------------------------------------

    def _read(self, requests: Sequence[Request], position: int) -> int:
        """Serve the read at `position` and those after it that go on where it ends, or single pages that follow each
        other from anywhere; returns the position after."""
        _, flags, cookie, offset, length, _ = requests[position]
        if flags or not length or offset + length > self._size or length > MAX_RUN:
            self._reader.unusual(flags, cookie, offset, length)
            return position + 1
        if position + 1 < len(requests):
            following = self._neighbours(requests, position, 0)
            if following > position + 1:
                reads = [(each[2], each[3], each[4]) for each in requests[position:following]]
                self._reader.many(offset, reads[-1][1] + reads[-1][2], reads)
                return following
            pages = self._single_pages(requests, position, 0)
            if len(pages) > 1:
                self._reader.pages(list(pages), [each[2] for each in pages.values()])
                return position + len(pages)
        self._reader.one(cookie, offset, length)
        return position + 1

    def _neighbours(self, requests: Sequence[Request], position: int, allowed: int) -> int:
        """The position after the requests that are of the kind of that at `position` and go on where it ends, at most
        MAX_RUN bytes in all. `allowed`: the flags that they may have."""
        wanted, _, _, offset, length, _ = requests[position]
        end, most = offset + length, min(self._size, offset + MAX_RUN)
        following, count = position + 1, len(requests)
        while following < count:
            kind, flags, _, start, more, _ = requests[following]
            if start != end or kind != wanted or flags & ~allowed or not more or end + more > most:
                break
            end += more
            following += 1
        return following

    def _single_pages(self, requests: Sequence[Request], position: int, allowed: int) -> dict[int, Request]:
        """The requests from `position` on that are of its kind and one whole page each, by their offsets, until one is
        not or means a page that is among them already. Empty when the first is not."""
        wanted, page = requests[position][0], self.page_size
        last = self._size - page
        found: dict[int, Request] = {}
        for request in requests[position : position + self.export.batches.most]:
            kind, flags, _, offset, length, _ = request
            if length != page or offset % page or kind != wanted or flags & ~allowed or offset > last:
                break
            if offset in found:
                break
            found[offset] = request
        return found

    # Writes -----------------------------------------------------------------------------------------------------------

    def _write(self, requests: Sequence[Request], position: int) -> int:
        """Serve the write at `position` and those after it that go on where it ends, or single pages that follow each
        other to anywhere; returns the position after."""
        _, flags, cookie, offset, length, payload = requests[position]
        if flags & ~CMD_FLAG_FUA or self.export.read_only or offset + length > self._size:
            self.outbox.fail(cookie, *self._write_fault(flags, offset, length))
            return position + 1
        if position + 1 < len(requests):
            following = self._neighbours(requests, position, CMD_FLAG_FUA)
            if following > position + 1:
                self._write_many(offset, requests[position:following])
                return following
            pages = self._single_pages(requests, position, CMD_FLAG_FUA)
            if len(pages) > 1:
                self._write_pages(list(pages.values()))
                return position + len(pages)
        self._write_one(flags, cookie, offset, payload)
        return position + 1

    def _write_pages(self, run: Sequence[Request]) -> None:
        """Write single pages at once."""
        position = 0
        while position < len(run):
            try:
                done = len(self.export.batches.write([(each[3], each[5]) for each in run[position:]]))
            except Exception:
                done = 0
            for each in run[position : position + done]:
                self._written(each[1], each[2])
            position += done
            if position < len(run):  # by itself, to learn what is wrong with it
                _, flags, cookie, offset, _, payload = run[position]
                self._write_one(flags, cookie, offset, payload)
                position += 1

    def _write_many(self, offset: int, run: Sequence[Request]) -> None:
        """Write neighbours at once."""
        try:
            self._store(offset, b"".join([each[5] for each in run]))
        except Exception:
            # Each again on its own, so that only the one to blame fails: to write the same twice is harmless.
            for _, flags, cookie, start, _, payload in run:
                self._write_one(flags, cookie, start, payload)
        else:
            for each in run:
                self._written(each[1], each[2])

    def _write_fault(self, flags: int, offset: int, length: int) -> tuple[int, str]:
        """What is wrong with a write, as an error and a message; no error when nothing is."""
        if flags & ~CMD_FLAG_FUA:
            return protocol.EINVAL, f"unknown flags {flags:#x}"
        if self.export.read_only:
            return protocol.EPERM, "the export is read-only"
        if length > MAX_PAYLOAD:
            return protocol.EINVAL, f"at most {MAX_PAYLOAD} bytes are written at once"
        if offset + length > self._size:
            return protocol.ENOSPC, f"the export ends at {self._size}"
        return 0, ""

    def _write_one(self, flags: int, cookie: int, offset: int, payload: memoryview) -> None:
        try:
            # One page as bytes takes the device's shortest path.
            self._store(offset, payload.tobytes() if len(payload) <= self.page_size else payload)
        except Exception as error:
            self._failed(cookie, error)
        else:
            self._written(flags, cookie)

    def _store(self, offset: int, data: Buffer) -> None:
        if len(data) and self._device.pwrite(offset, data) != len(data):
            raise ZramError("the device ended within a write")

    def _written(self, flags: int, cookie: int) -> None:
        """Reply to a command that changed the device, at once or after the flush."""
        if flags & CMD_FLAG_FUA:
            self._unflushed.append(cookie)
        else:
            self.outbox.done(cookie)

    def begin_write(self, request: Request, stopping: bool) -> None:
        """A write follows that comes in pieces. A wrong one is received all the same, to know where it ends."""
        _, flags, _, offset, length, _ = request
        reason = self._refusal(stopping)
        fault = (protocol.ESHUTDOWN, reason) if reason else self._write_fault(flags, offset, length)
        self._broken_error, self._broken = fault

    def write_piece(self, offset: int, data: memoryview) -> None:
        """The next piece of the long write; ignored after a failure."""
        if not self._broken:
            try:
                self._store(offset, data)
            except Exception as error:
                self._broken_error, self._broken = self._explain(error, 0)

    def end_write(self, request: Request) -> None:
        """The long write is complete: reply."""
        _, flags, cookie, _, _, _ = request
        if self._broken:
            self.outbox.fail(cookie, self._broken_error, self._broken)
        else:
            self._written(flags, cookie)
            self._finish_flush()
        self.outbox.send()

    # Flush ------------------------------------------------------------------------------------------------------------

    def _flush(self, flags: int, cookie: int, offset: int, length: int) -> None:
        if offset or length:
            self.outbox.fail(cookie, protocol.EINVAL, "a flush has no offset and no length")
        else:
            self._unflushed.append(cookie)

    def _finish_flush(self) -> None:
        """Flush the device and answer everybody who waits for that."""
        cookies, self._unflushed = self._unflushed, []
        if not cookies:
            return
        try:
            self._device.flush()
        except Exception as error:
            for cookie in cookies:
                self._failed(cookie, error)
        else:
            for cookie in cookies:
                self.outbox.done(cookie)

    # The rest ---------------------------------------------------------------------------------------------------------

    def _other(self, kind: int, flags: int, cookie: int, offset: int, length: int) -> None:
        """Serve anything but a read or a write."""
        handler = self._others.get(kind)
        allowed = _FLAGS.get(kind, CMD_FLAG_FUA)
        if handler is None:
            self.outbox.fail(cookie, protocol.EINVAL, f"unknown command {kind}")
        elif flags & ~allowed:
            self.outbox.fail(cookie, protocol.EINVAL, f"unknown flags {flags & ~allowed:#x}")
        elif offset + length > self._size:
            error = protocol.ENOSPC if kind == CMD_WRITE_ZEROES else protocol.EINVAL
            self.outbox.fail(cookie, error, f"the export ends at {self._size}")
        elif self.export.read_only and kind in (CMD_TRIM, CMD_WRITE_ZEROES):
            self.outbox.fail(cookie, protocol.EPERM, "the export is read-only")
        else:
            try:
                handler(flags, cookie, offset, length)
            except Exception as error:
                self._failed(cookie, error)

    def _trim(self, flags: int, cookie: int, offset: int, length: int) -> None:
        self._device.discard(offset, length)
        self._written(flags, cookie)

    def _cache(self, flags: int, cookie: int, offset: int, length: int) -> None:
        # Pages in memory are as near as they get, and zram never brings written-back ones back for a reader.
        self.outbox.done(cookie)

    def _write_zeroes(self, flags: int, cookie: int, offset: int, length: int) -> None:
        page = self.page_size
        # Freeing pages beats writing them; a range within a page is read, modified and written like any other, and
        # pages that must be kept are stored one by one.
        slow = flags & CMD_FLAG_NO_HOLE or (offset + page - 1) // page >= (offset + length) // page
        if slow and flags & CMD_FLAG_FAST_ZERO:
            self.outbox.fail(cookie, protocol.ENOTSUP, "no faster than a write")
            return
        if flags & CMD_FLAG_NO_HOLE:
            # Pages of zeroes that the table keeps as such: allocated, as block status says, and without memory.
            for start in range(offset, offset + length, MAX_RUN):
                self._store(start, bytes(min(MAX_RUN, offset + length - start)))
        else:
            self._device.write_zeroes(offset, length)
        self._written(flags, cookie)

    def _block_status(self, flags: int, cookie: int, offset: int, length: int) -> None:
        if not self._contexts or not length:
            reason = "a status of no bytes" if self._contexts else "no metadata context was set"
            self.outbox.fail(cookie, protocol.EINVAL, reason)
            return
        only_one = bool(flags & CMD_FLAG_REQ_ONE)
        answers = [
            (each.number, contexts.status(each, self.export.path.table, self.page_size, offset, length, only_one))
            for each in self._contexts
        ]
        for number, descriptors in answers:
            self.outbox.status(cookie, number, descriptors, REPLY_FLAG_DONE if number == answers[-1][0] else 0)


_FLAGS = {
    CMD_WRITE_ZEROES: CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
    CMD_BLOCK_STATUS: CMD_FLAG_FUA | CMD_FLAG_REQ_ONE,
}
