"""A client of `bench nbd` that costs little: one connection, simple replies, frames that were made before."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

from ..errors import DeviceIOError
from ..nbd import protocol as p

RECEIVE = 1 << 20


class Client:
    """A connection to the default export of a server on a unix socket. Raises OSError, DeviceIOError (EIO)."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        try:
            self.socket.connect(path)
            _, magic, _ = p.GREETING.unpack(self._receive(p.GREETING.size))
            if magic != p.OPTION_MAGIC:
                raise DeviceIOError(f"{path} does not speak NBD's newstyle")
            wanted = p.FLAG_FIXED_NEWSTYLE | p.FLAG_NO_ZEROES
            self.socket.sendall(p.CLIENT_FLAGS.pack(wanted) + p.OPTION.pack(p.OPTION_MAGIC, p.OPT_EXPORT_NAME, 0))
            self.size, _ = p.EXPORT_NAME_REPLY.unpack(self._receive(p.EXPORT_NAME_REPLY.size))
        except BaseException:
            self.socket.close()
            raise
        self._buffer = bytearray(RECEIVE)

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while len(view):
            view = view[self._receive_into(view) :]
        return bytes(data)

    def _receive_into(self, buffer: bytearray | memoryview, most: int = 0) -> int:
        got = self.socket.recv_into(buffer, most)
        if not got:
            raise DeviceIOError("the NBD server hung up")
        return got

    def run(self, frames: Sequence[bytes], reply: int, depth: int) -> None:
        """Send the frames, of which up to `depth` are in flight; each is answered by `reply` bytes."""
        sock = self.socket
        sent = min(depth, len(frames))
        sock.sendall(b"".join(frames[:sent]))
        left = len(frames) * reply
        received = 0
        while left:
            got = self._receive_into(self._buffer, min(left, RECEIVE))
            left -= got
            whole, received = divmod(received + got, reply)
            if whole and sent < len(frames):
                sock.sendall(b"".join(frames[sent : sent + whole]))
                sent += whole

    def read(self, offset: int, length: int) -> bytes:
        """What is stored there."""
        self.socket.sendall(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_READ, 0, offset, length))
        _, error, _ = p.SIMPLE_REPLY.unpack(self._receive(p.SIMPLE_REPLY.size))
        if error:
            raise DeviceIOError(f"the NBD server failed to read: error {error}")
        return self._receive(length)

    def close(self) -> None:
        """Say good-bye, to a server that may be gone."""
        with suppress(OSError):
            self.socket.sendall(p.REQUEST.pack(p.REQUEST_MAGIC, 0, p.CMD_DISC, 0, 0, 0))
        self.socket.close()
