"""Reads: one, many neighbours at once, sparse ones with their holes, and those too long to hold in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import ZramError
from ..extents import EMPTY, NOT_ZERO, all_hold_objects, extents, slot_content
from ..slot_table import Column
from . import protocol
from .export import Export
from .outbox import Outbox
from .protocol import (
    CMD_FLAG_DF,
    CMD_FLAG_FUA,
    MAX_PAYLOAD,
    REPLY_FLAG_DONE,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
)
from .wire import Disconnect

PIECE = 1 << 20
"""Bytes of a long read that are in memory at once."""
CERTAIN = 2 << 20
"""Bytes of a simple read that are read before it is said to have succeeded. A simple reply cannot take that back: an
error beyond them ends the connection, as the protocol demands."""


SHORT = "the device ended within a read"


def _not_zero(flags: Column, handles: Column) -> Column:
    """Whether rows may read as anything but zeroes: for a reader, an empty slot and a page of zeroes are one hole."""
    state: Column = slot_content(flags, handles) & NOT_ZERO
    return state


class Reader:
    """Serves the reads of one connection. `failed` answers a request that the device could not serve."""

    def __init__(
        self, export: Export, outbox: Outbox, structured: bool, failed: Callable[[int, Exception, int | None], None]
    ) -> None:
        self._export = export
        self._pread = export.device.pread
        self._read_pages = export.batches.read
        self._page_size = export.device.page_size
        self._zeroes = bytes(self._page_size)
        self._outbox = outbox
        self._structured = structured
        self._failed = failed

    def one(self, cookie: int, offset: int, length: int) -> None:
        """A read of at most PIECE bytes within the export."""
        page_size = self._page_size
        try:
            if self._structured and length > page_size and self._sparse(offset, offset + length):
                self._pieces(cookie, offset, length)
                return
            data = self._pread(offset, length)
            if len(data) != length:
                raise ZramError(SHORT)
        except Exception as error:
            self._failed(cookie, error, offset)
            return
        if self._structured and length <= page_size and data == self._zeroes[:length]:
            self._outbox.hole(cookie, offset, length, REPLY_FLAG_DONE)
        else:
            self._outbox.read(cookie, offset, data)

    def pages(self, offsets: list[int], cookies: list[int]) -> None:
        """Reads of whole pages from anywhere within the export."""
        position, page_size, zeroes = 0, self._page_size, self._zeroes
        while position < len(offsets):
            try:
                found = self._read_pages(offsets[position:])
            except Exception:
                found = ()
            for page, offset, cookie in zip(found, offsets[position:], cookies[position:], strict=False):
                if self._structured and page == zeroes:
                    self._outbox.hole(cookie, offset, page_size, REPLY_FLAG_DONE)
                else:
                    self._outbox.read(cookie, offset, page)
            position += len(found)
            if position < len(offsets):  # by itself: it is written back, or something is wrong with it
                self.one(cookies[position], offsets[position], page_size)
                position += 1

    def many(self, offset: int, end: int, reads: list[tuple[int, int, int]]) -> None:
        """Neighbouring reads (cookie, offset, length) that cover `offset` to `end`, within the export."""
        try:
            data = None if self._structured and self._sparse(offset, end) else self._fetch(offset, end - offset)
        except Exception:
            data = None
        if data is None:
            # Some of it is zero, or cannot be read: each on its own, so that only the one to blame fails.
            for cookie, start, length in reads:
                self.one(cookie, start, length)
            return
        view = memoryview(data)
        for cookie, start, length in reads:
            self._outbox.read(cookie, start, view[start - offset : start - offset + length])

    def unusual(self, flags: int, cookie: int, offset: int, length: int) -> None:
        """A read with flags, of nothing, past the end of the export, or a long one."""
        allowed = CMD_FLAG_FUA | CMD_FLAG_DF if self._structured else CMD_FLAG_FUA
        fail = self._outbox.fail
        if flags & ~allowed:
            fail(cookie, protocol.EINVAL, f"unknown flags {flags & ~allowed:#x}")
        elif offset + length > self._export.size:
            fail(cookie, protocol.EINVAL, f"the export ends at {self._export.size}")
        elif length > MAX_PAYLOAD:
            error = protocol.EOVERFLOW if self._structured else protocol.EINVAL
            fail(cookie, error, f"at most {MAX_PAYLOAD} bytes are read at once")
        elif not length:
            (self._outbox.end if self._structured else self._outbox.done)(cookie)
        elif not self._structured:
            self._long_simple(cookie, offset, length)
        elif flags & CMD_FLAG_DF:
            self._unfragmented(cookie, offset, length)
        else:
            self._pieces(cookie, offset, length)

    def _fetch(self, offset: int, length: int) -> bytes:
        data = self._pread(offset, length)
        if len(data) != length:
            raise ZramError(SHORT)
        return data

    def _sparse(self, offset: int, end: int) -> bool:
        """Whether some of the range may be zero without being looked at."""
        first = offset // self._page_size
        return not all_hold_objects(self._export.path.table, first, -(-end // self._page_size) - first)

    def _split(self, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """The range as (offset, length, whether it is data), in pieces of at most PIECE bytes of data."""
        page = self._page_size
        table = self._export.path.table
        for start in range(offset, end, PIECE):
            stop = min(start + PIECE, end)
            first = start // page
            position = first * page
            for count, state in extents(table, first, -(-stop // page), _not_zero, PIECE):
                begin, position = max(position, start), position + count * page
                yield begin, min(position, stop) - begin, state != EMPTY

    def _pieces(self, cookie: int, offset: int, length: int) -> None:
        """A structured read as chunks of data and holes."""
        end = offset + length
        for start, count, is_data in self._split(offset, end):
            done = REPLY_FLAG_DONE if start + count == end else 0
            if is_data:
                try:
                    data = self._fetch(start, count)
                except Exception as error:
                    self._failed(cookie, error, start)
                    return
                self._outbox.data(cookie, start, data, done)
            else:
                self._outbox.hole(cookie, start, count, done)

    def _unfragmented(self, cookie: int, offset: int, length: int) -> None:
        """A structured read in one chunk. A failure on the way fills it up with zeroes, and an error chunk follows."""
        end = offset + length
        if length <= PIECE:
            try:
                data = self._fetch(offset, length)
            except Exception as error:
                self._failed(cookie, error, offset)
            else:
                self._outbox.read(cookie, offset, data)
            return
        self._outbox.add(self._outbox.data_header(cookie, offset, length, 0))
        fault: tuple[Exception, int] | None = None
        for start in range(offset, end, PIECE):
            count = min(PIECE, end - start)
            data = bytes(count) if fault else b""
            if fault is None:
                try:
                    data = self._fetch(start, count)
                except Exception as error:
                    fault = error, start
                    data = bytes(count)
            self._outbox.add(data)
        if fault is None:
            self._outbox.end(cookie)
        else:
            self._failed(cookie, *fault)

    def _long_simple(self, cookie: int, offset: int, length: int) -> None:
        """A simple read of any length."""
        end = offset + length
        certain = min(length, CERTAIN)
        try:
            data = self._fetch(offset, certain)
        except Exception as error:
            self._failed(cookie, error, offset)
            return
        self._outbox.add(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie), data)
        for start in range(offset + certain, end, PIECE):
            try:
                data = self._fetch(start, min(PIECE, end - start))
            except Exception as error:
                raise Disconnect(f"a read failed after its reply had begun: {error}") from error
            self._outbox.add(data)
