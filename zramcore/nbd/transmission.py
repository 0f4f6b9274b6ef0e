"""The transmission phase: receives requests many at a time, in place, and hands each batch to a Session.

Memory is bounded by one buffer a connection: a write that does not fit is passed on in pieces as it arrives.
"""

from __future__ import annotations

from collections.abc import Callable

from ..slot_table import lazy_memory
from .protocol import CMD_DISC, CMD_WRITE, REQUEST, REQUEST_MAGIC, REQUEST_SIZE
from .session import NO_PAYLOAD, Request, Session
from .wire import Disconnect, Wire

BUFFER = 1 << 20
"""Bytes of requests and payloads received before they are executed. Lazy memory: an idle client costs a page or two."""


class Transmission:
    """The receiving side of one connection. `requests` and `received` count what came so far."""

    def __init__(self, wire: Wire, session: Session, stopping: Callable[[], bool]) -> None:
        self._wire = wire
        self._session = session
        self._stopping = stopping
        self._buffer = memoryview(lazy_memory(BUFFER))
        self.requests = 0
        self.received = 0

    def run(self) -> None:
        """Serve until the client disconnects. Raises Disconnect, OSError."""
        buffer, receive = self._buffer, self._wire.receive_into
        end: int | None = 0
        while end is not None:
            count = receive(buffer[end:])
            if not count:
                if end:
                    raise Disconnect("the client went away in the middle of a request")
                return
            self.received += count
            end = self._consume(end + count)

    def _consume(self, end: int) -> int | None:
        """Carry out the complete requests in the first `end` bytes of the buffer. Returns how many bytes are left, at
        its front now; None when the client has said goodbye."""
        while True:
            requests, start, long_write = self._parse(end)
            last = bool(requests) and requests[-1][0] == CMD_DISC
            self.requests += len(requests)
            self._session.execute(requests[:-1] if last else requests, self._stopping())
            if last:
                return None
            if long_write is None:
                return self._keep(start, end)
            self.requests += 1
            end = self._keep(*self._long_write(long_write, start, end))

    def _keep(self, start: int, end: int) -> int:
        """Move the beginning of a request to the front, so that the rest has room; returns its length."""
        left = end - start
        if start and left:
            self._buffer[:left] = self._buffer[start:end]
        return left

    def _parse(self, end: int) -> tuple[list[Request], int, Request | None]:
        """The complete requests in the first `end` bytes, and where what is left over starts. The third is a write too
        long for the buffer, if one follows: the position is then that of its payload."""
        buffer, unpack = self._buffer, REQUEST.unpack_from
        requests: list[Request] = []
        position = 0
        while end - position >= REQUEST_SIZE:
            magic, flags, kind, cookie, offset, length = unpack(buffer, position)
            if magic != REQUEST_MAGIC:
                self._session.execute(requests, self._stopping())
                raise Disconnect(f"bad request magic {magic:#x}")
            body = position + REQUEST_SIZE
            if kind == CMD_WRITE:
                position = body + length
                if position > end:
                    if REQUEST_SIZE + length > BUFFER:
                        return requests, body, (kind, flags, cookie, offset, length, NO_PAYLOAD)
                    return requests, body - REQUEST_SIZE, None
                requests.append((kind, flags, cookie, offset, length, buffer[body:position]))
            else:
                requests.append((kind, flags, cookie, offset, length, NO_PAYLOAD))
                position = body
                if kind == CMD_DISC:
                    break
        return requests, position, None

    def _long_write(self, write: Request, start: int, end: int) -> tuple[int, int]:
        """Pass a write on as its payload arrives, which begins at `start` of the buffer; returns the start and end of
        what the buffer holds after it."""
        buffer, session = self._buffer, self._session
        _, _, _, offset, left, _ = write
        page = session.page_size
        session.begin_write(write, self._stopping())
        while True:
            have = min(end - start, left)
            if have == left:
                session.write_piece(offset, buffer[start : start + have])
                session.end_write(write)
                return start + have, end
            # Pieces end where pages do, so that no page is read, modified and written twice.
            whole = have - (offset + have) % page
            if whole > 0 and end == BUFFER:
                session.write_piece(offset, buffer[start : start + whole])
                offset, left, start = offset + whole, left - whole, start + whole
            if end == BUFFER:
                start, end = 0, self._keep(start, end)
            count = self._wire.receive_into(buffer[end:])
            if not count:
                raise Disconnect("the client went away in the middle of a write")
            self.received += count
            end += count
