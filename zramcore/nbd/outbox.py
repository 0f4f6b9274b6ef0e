"""Outbox: the replies of one connection, gathered so that a batch of them leaves in one sendmsg."""

from __future__ import annotations

from struct import Struct

from ..interfaces import Buffer
from .protocol import (
    CHUNK,
    DATA_CHUNK,
    ERROR_CHUNK,
    HOLE_CHUNK,
    MAX_STRING,
    REPLY_BLOCK_STATUS,
    REPLY_ERROR,
    REPLY_ERROR_OFFSET,
    REPLY_FLAG_DONE,
    REPLY_NONE,
    REPLY_OFFSET_DATA,
    REPLY_OFFSET_HOLE,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STATUS_CHUNK,
    STRUCTURED_REPLY_MAGIC,
)
from .wire import Wire

FULL = 1 << 20
"""Bytes gathered before they are sent in the middle of a batch."""

_OFFSET = Struct(">Q")


class Outbox:
    """Replies on their way, simple or structured as the client negotiated."""

    def __init__(self, wire: Wire, structured: bool) -> None:
        self._wire = wire
        self._structured = structured
        self._parts: list[Buffer] = []
        self._size = 0
        self.sent = 0
        """Bytes sent so far."""

    def add(self, *parts: Buffer) -> None:
        """Gather buffers; they must not change until `send`."""
        self._parts += parts
        for part in parts:
            self._size += len(part)
        if self._size >= FULL:
            self.send()

    def send(self) -> None:
        """Send what was gathered. Raises OSError when the client is gone."""
        if self._parts:
            parts, self._parts = self._parts, []
            self.sent += self._size
            self._size = 0
            self._wire.send_parts(parts)

    def done(self, cookie: int) -> None:
        """A request without data to return succeeded; a simple reply is right in both modes, and shorter."""
        self._parts.append(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie))
        self._size += SIMPLE_REPLY.size

    def end(self, cookie: int) -> None:
        """The last chunk of a structured reply that has nothing more to say."""
        self.add(CHUNK.pack(STRUCTURED_REPLY_MAGIC, REPLY_FLAG_DONE, REPLY_NONE, cookie, 0))

    def fail(self, cookie: int, error: int, message: str, offset: int | None = None) -> None:
        """A request failed, for a structured reply at `offset` if that is known."""
        if not self._structured:
            self.add(SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie))
            return
        text = message.encode()[:MAX_STRING]
        where = b"" if offset is None else _OFFSET.pack(offset)
        kind = REPLY_ERROR if offset is None else REPLY_ERROR_OFFSET
        length = 6 + len(text) + len(where)
        self.add(
            ERROR_CHUNK.pack(STRUCTURED_REPLY_MAGIC, REPLY_FLAG_DONE, kind, cookie, length, error, len(text))
            + text
            + where
        )

    def read(self, cookie: int, offset: int, data: Buffer) -> None:
        """The data of a whole read request."""
        size = len(data)
        if self._structured:
            head = DATA_CHUNK.pack(STRUCTURED_REPLY_MAGIC, REPLY_FLAG_DONE, REPLY_OFFSET_DATA, cookie, 8 + size, offset)
        else:
            head = SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie)
        # The same as `add`, without its loop: this is the path of every small read.
        self._parts += (head, data)
        self._size += len(head) + size
        if self._size >= FULL:
            self.send()

    def data(self, cookie: int, offset: int, data: Buffer, flags: int) -> None:
        """One chunk of a structured read."""
        self.add(self.data_header(cookie, offset, len(data), flags), data)

    def data_header(self, cookie: int, offset: int, length: int, flags: int) -> bytes:
        """The start of a chunk of `length` bytes of data."""
        return DATA_CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, REPLY_OFFSET_DATA, cookie, 8 + length, offset)

    def hole(self, cookie: int, offset: int, length: int, flags: int) -> None:
        """One chunk of a structured read that is all zeroes."""
        self.add(HOLE_CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, REPLY_OFFSET_HOLE, cookie, 12, offset, length))

    def status(self, cookie: int, context: int, descriptors: bytes, flags: int) -> None:
        """The answer to BLOCK_STATUS in one context."""
        length = 4 + len(descriptors)
        self.add(
            STATUS_CHUNK.pack(STRUCTURED_REPLY_MAGIC, flags, REPLY_BLOCK_STATUS, cookie, length, context) + descriptors
        )
