"""The NBD server: devices as exports that any NBD client can use.

A connection goes through `handshake` (fixed newstyle options, TLS), then `transmission` (receives and parses requests
in batches), `session` and `reading` (carry them out on the device), `outbox` (gathers the replies); `wire` is its
socket. `server` accepts connections, `address` is where, `export` what they may choose, `contexts` what block status
tells of it, `protocol` the numbers of the specification.
"""

from .address import Listener, activated, listen
from .server import Client, Server
from .tls import server_context

__all__ = ["Client", "Listener", "Server", "activated", "listen", "server_context"]
