"""The negotiation: fixed newstyle, option after option until the client has chosen an export or gives up.

With a TLS context everything but STARTTLS and ABORT is refused until TLS has started (the protocol's FORCEDTLS).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING

from .contexts import CONTEXTS, Context, chosen, matching
from .export import Export, Exports, description
from .protocol import (
    CLIENT_FLAGS,
    EXPORT_NAME_PADDING,
    EXPORT_NAME_REPLY,
    FLAG_FIXED_NEWSTYLE,
    FLAG_NO_ZEROES,
    GREETING,
    INFO_BLOCK_SIZE,
    INFO_BLOCK_SIZE_REPLY,
    INFO_DESCRIPTION,
    INFO_EXPORT,
    INFO_EXPORT_REPLY,
    INFO_NAME,
    INIT_MAGIC,
    MAX_PAYLOAD,
    MAX_STRING,
    MIN_BLOCK,
    OPT_ABORT,
    OPT_EXPORT_NAME,
    OPT_GO,
    OPT_INFO,
    OPT_LIST,
    OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT,
    OPT_STARTTLS,
    OPT_STRUCTURED_REPLY,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REP_ACK,
    REP_ERR_INVALID,
    REP_ERR_POLICY,
    REP_ERR_SHUTDOWN,
    REP_ERR_TLS_REQD,
    REP_ERR_TOO_BIG,
    REP_ERR_UNKNOWN,
    REP_ERR_UNSUP,
    REP_INFO,
    REP_META_CONTEXT,
    REP_SERVER,
)
from .wire import Disconnect, Wire, log

if TYPE_CHECKING:
    import ssl

MAX_OPTION = 1 << 16
"""Bytes of option data that are looked at; an option with more is refused."""
MAX_SKIPPED = 1 << 24
"""Bytes of option data that are received only to be refused; a client that announces more is cut off."""

_U16 = Struct(">H")
_U32 = Struct(">I")


@dataclass(frozen=True)
class Agreement:
    """What server and client agreed on."""

    export: Export
    structured: bool
    contexts: tuple[Context, ...]


class _Refused(Exception):
    """An option gets this error reply, and the negotiation goes on."""

    def __init__(self, reply: int, message: str) -> None:
        super().__init__(message)
        self.reply = reply
        self.message = message


class _Fields:
    """Reads the fields of an option's data; anything missing, left over or unreadable refuses the option."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def number(self, struct: Struct) -> int:
        try:
            (value,) = struct.unpack_from(self._data, self._position)
        except StructError:
            raise _Refused(REP_ERR_INVALID, "the option's data is cut short") from None
        self._position += struct.size
        return int(value)

    def string(self) -> str:
        length = self.number(_U32)
        if length > len(self._data) - self._position:
            raise _Refused(REP_ERR_INVALID, "a string is longer than the option's data")
        start, self._position = self._position, self._position + length
        return _text(self._data[start : self._position])

    def end(self) -> None:
        if self._position != len(self._data):
            raise _Refused(REP_ERR_INVALID, "the option's data has more than the option takes")


def _text(data: bytes) -> str:
    if len(data) > MAX_STRING:
        raise _Refused(REP_ERR_TOO_BIG, f"a string has at most {MAX_STRING} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _Refused(REP_ERR_INVALID, "a string is not UTF-8") from None
    if "\0" in text:
        raise _Refused(REP_ERR_INVALID, "a string has a NUL byte")
    return text


class Handshake:
    """One client's negotiation, from the greeting to an Agreement."""

    def __init__(
        self, wire: Wire, exports: Exports, tls: ssl.SSLContext | None, stopping: Callable[[], bool], peer: str
    ) -> None:
        self._wire = wire
        self._exports = exports
        self._tls = tls
        self._stopping = stopping
        self._peer = peer
        self._padding = EXPORT_NAME_PADDING
        self._structured = False
        self._contexts: tuple[Context, ...] = ()
        self._contexts_of = ""
        self._handlers: dict[int, Callable[[int, bytes], Agreement | None]] = {
            OPT_LIST: self._list,
            OPT_STARTTLS: self._start_tls,
            OPT_INFO: self._info,
            OPT_GO: self._info,
            OPT_STRUCTURED_REPLY: self._structured_reply,
            OPT_LIST_META_CONTEXT: self._meta_context,
            OPT_SET_META_CONTEXT: self._meta_context,
        }

    def run(self) -> Agreement | None:
        """Negotiate. The export of the agreement is the caller's to close; None: the client gave up politely.

        Raises Disconnect and OSError when the connection has to end.
        """
        self._wire.send(GREETING.pack(INIT_MAGIC, OPTION_MAGIC, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES))
        (flags,) = CLIENT_FLAGS.unpack(self._wire.receive(CLIENT_FLAGS.size))
        if flags & ~(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
            raise Disconnect(f"unknown client flags {flags:#x}")
        if flags & FLAG_NO_ZEROES:
            self._padding = b""
        fixed = bool(flags & FLAG_FIXED_NEWSTYLE)
        while True:
            magic, option, length = OPTION.unpack(self._wire.receive(OPTION.size))
            if magic != OPTION_MAGIC:
                raise Disconnect(f"bad option magic {magic:#x}")
            if length > MAX_SKIPPED:
                raise Disconnect(f"option {option} with {length} bytes of data")
            if option == OPT_EXPORT_NAME:
                return self._export_name(length)
            if not fixed:
                raise Disconnect(f"option {option} without fixed newstyle")
            if option == OPT_ABORT:
                self._wire.skip(length)
                self._reply(option, REP_ACK)
                return None
            try:
                agreement = self._handle(option, length)
            except _Refused as refused:
                log(logging.DEBUG, "option-refused", peer=self._peer, option=option, reason=repr(refused.message))
                self._reply(option, refused.reply, refused.message.encode()[:MAX_STRING])
            else:
                if agreement is not None:
                    return agreement

    def _handle(self, option: int, length: int) -> Agreement | None:
        if option == OPT_SET_META_CONTEXT:  # even one that fails replaces what was set before
            self._contexts = ()
        if length > MAX_OPTION:
            self._wire.skip(length)
            raise _Refused(REP_ERR_TOO_BIG, f"an option has at most {MAX_OPTION} bytes of data")
        data = self._wire.receive(length)
        if self._stopping():
            raise _Refused(REP_ERR_SHUTDOWN, "the server is shutting down")
        if self._tls is not None and not self._wire.tls and option != OPT_STARTTLS:
            raise _Refused(REP_ERR_TLS_REQD, "start TLS first")
        handler = self._handlers.get(option)
        if handler is None:
            raise _Refused(REP_ERR_UNSUP, f"option {option} is not supported")
        return handler(option, data)

    def _reply(self, option: int, reply: int, data: bytes = b"") -> None:
        self._wire.send(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data)

    # Options that choose ----------------------------------------------------------------------------------------------

    def _export_name(self, length: int) -> Agreement:
        if self._tls is not None and not self._wire.tls:
            raise Disconnect("EXPORT_NAME before TLS")
        if self._stopping():
            raise Disconnect("the server is shutting down")
        if length > MAX_STRING:
            raise Disconnect(f"an export name of {length} bytes")
        try:
            name = _text(self._wire.receive(length))
            export = self._exports.open(name)
        except (_Refused, LookupError) as error:
            raise Disconnect(str(error)) from None
        return self._agree(
            export,
            name,
            EXPORT_NAME_REPLY.pack(export.size, export.transmission_flags(self._structured)) + self._padding,
        )

    def _info(self, option: int, data: bytes) -> Agreement | None:
        fields = _Fields(data)
        name = fields.string()
        wanted = {fields.number(_U16) for _ in range(fields.number(_U16))}
        fields.end()
        try:
            export = self._exports.open(name)
        except LookupError as error:
            raise _Refused(REP_ERR_UNKNOWN, str(error)) from None
        infos = [INFO_EXPORT_REPLY.pack(INFO_EXPORT, export.size, export.transmission_flags(self._structured))]
        if INFO_NAME in wanted:
            infos.append(_U16.pack(INFO_NAME) + export.name.encode())
        if INFO_DESCRIPTION in wanted:
            infos.append(_U16.pack(INFO_DESCRIPTION) + description(export.device).encode())
        if INFO_BLOCK_SIZE in wanted:
            infos.append(INFO_BLOCK_SIZE_REPLY.pack(INFO_BLOCK_SIZE, MIN_BLOCK, export.device.page_size, MAX_PAYLOAD))
        text = b"".join(
            OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, REP_INFO, len(info)) + info for info in infos
        ) + OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, REP_ACK, 0)
        if option == OPT_GO:
            return self._agree(export, name, text)
        export.close()
        self._wire.send(text)
        return None

    def _agree(self, export: Export, name: str, reply: bytes) -> Agreement:
        """Send the last words of the negotiation; the export is closed again when they cannot be sent."""
        try:
            self._wire.send(reply)
        except BaseException:
            export.close()
            raise
        return Agreement(export, self._structured, self._contexts if self._contexts_of == name else ())

    # Options that ask or set ------------------------------------------------------------------------------------------

    def _list(self, option: int, data: bytes) -> None:
        if data:
            raise _Refused(REP_ERR_INVALID, "LIST takes no data")
        for device in self._exports.devices():
            name = device.name.encode()
            self._reply(option, REP_SERVER, _U32.pack(len(name)) + name + description(device).encode())
        self._reply(option, REP_ACK)

    def _structured_reply(self, option: int, data: bytes) -> None:
        if data:
            raise _Refused(REP_ERR_INVALID, "STRUCTURED_REPLY takes no data")
        self._structured = True
        self._reply(option, REP_ACK)

    def _start_tls(self, option: int, data: bytes) -> None:
        if data or self._wire.tls:
            raise _Refused(REP_ERR_INVALID, "STARTTLS takes no data" if data else "TLS has been started")
        if self._tls is None:
            raise _Refused(REP_ERR_POLICY, "this server has no certificate")
        self._reply(option, REP_ACK)
        self._wire.start_tls(self._tls)
        # What was said in the clear may have been said by somebody else.
        self._structured = False
        self._contexts = ()

    def _meta_context(self, option: int, data: bytes) -> None:
        setting = option == OPT_SET_META_CONTEXT
        if not self._structured:
            raise _Refused(REP_ERR_INVALID, "negotiate structured replies first")
        fields = _Fields(data)
        name = fields.string()
        queries = [fields.string() for _ in range(fields.number(_U32))]
        fields.end()
        if not all(":" in query for query in queries):
            raise _Refused(REP_ERR_INVALID, "a query is a namespace, a colon and a name")
        try:
            self._exports.find(name)
        except LookupError as error:
            raise _Refused(REP_ERR_UNKNOWN, str(error)) from None
        found = chosen(queries) if setting else CONTEXTS if not queries else matching(queries)
        for context in found:
            self._reply(option, REP_META_CONTEXT, _U32.pack(context.number if setting else 0) + context.name.encode())
        self._reply(option, REP_ACK)
        if setting:
            self._contexts, self._contexts_of = found, name
