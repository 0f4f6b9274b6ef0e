"""The numbers and frames of the NBD protocol, as its specification (NetworkBlockDevice/nbd, doc/proto.md) gives them.

Everything on the wire is big-endian. Names are the specification's without the leading ``NBD_``.
"""

from __future__ import annotations

import errno
from struct import Struct

# Handshake ------------------------------------------------------------------------------------------------------------

INIT_MAGIC = 0x4E42444D41474943
"""``NBDMAGIC``"""
OPTION_MAGIC = 0x49484156454F5054
"""``IHAVEOPT``"""
OPTION_REPLY_MAGIC = 0x3E889045565A9

GREETING = Struct(">QQH")
"""INIT_MAGIC, OPTION_MAGIC, handshake flags."""
CLIENT_FLAGS = Struct(">I")
OPTION = Struct(">QII")
"""OPTION_MAGIC, option, length of the data that follows."""
OPTION_REPLY = Struct(">QIII")
"""OPTION_REPLY_MAGIC, option, reply type, length of the data that follows."""
EXPORT_NAME_REPLY = Struct(">QH")
"""Size, transmission flags; then 124 zero bytes unless NO_ZEROES was agreed."""
EXPORT_NAME_PADDING = bytes(124)

FLAG_FIXED_NEWSTYLE = 1 << 0
FLAG_NO_ZEROES = 1 << 1

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10
OPT_EXTENDED_HEADERS = 11

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERR_UNSUP = 2**31 + 1
REP_ERR_POLICY = 2**31 + 2
REP_ERR_INVALID = 2**31 + 3
REP_ERR_TLS_REQD = 2**31 + 5
REP_ERR_UNKNOWN = 2**31 + 6
REP_ERR_SHUTDOWN = 2**31 + 7
REP_ERR_TOO_BIG = 2**31 + 9

INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3
INFO_EXPORT_REPLY = Struct(">HQH")
INFO_BLOCK_SIZE_REPLY = Struct(">HIII")

MAX_STRING = 4096
"""Bytes of a name, a query or a message."""

# Transmission ---------------------------------------------------------------------------------------------------------

SEND_HAS_FLAGS = 1 << 0
SEND_READ_ONLY = 1 << 1
SEND_FLUSH = 1 << 2
SEND_FUA = 1 << 3
SEND_TRIM = 1 << 5
SEND_WRITE_ZEROES = 1 << 6
SEND_DF = 1 << 7
CAN_MULTI_CONN = 1 << 8
SEND_CACHE = 1 << 10
SEND_FAST_ZERO = 1 << 11

REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

REQUEST = Struct(">IHHQQI")
"""REQUEST_MAGIC, command flags, type, cookie, offset, length."""
REQUEST_SIZE = REQUEST.size
SIMPLE_REPLY = Struct(">IIQ")
"""SIMPLE_REPLY_MAGIC, error, cookie."""
CHUNK = Struct(">IHHQI")
"""STRUCTURED_REPLY_MAGIC, flags, type, cookie, length of the payload that follows."""
DATA_CHUNK = Struct(">IHHQIQ")
"""A CHUNK and the offset of its data."""
HOLE_CHUNK = Struct(">IHHQIQI")
"""A CHUNK, offset and size of the hole."""
ERROR_CHUNK = Struct(">IHHQIIH")
"""A CHUNK, error, length of the message that follows; ERROR_OFFSET has the offset after the message."""
STATUS_CHUNK = Struct(">IHHQII")
"""A CHUNK and the context's id; then pairs of 32 bits, length and status."""

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_TRIM = 4
CMD_CACHE = 5
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7

CMD_FLAG_FUA = 1 << 0
CMD_FLAG_NO_HOLE = 1 << 1
CMD_FLAG_DF = 1 << 2
CMD_FLAG_REQ_ONE = 1 << 3
CMD_FLAG_FAST_ZERO = 1 << 4

REPLY_FLAG_DONE = 1 << 0
REPLY_NONE = 0
REPLY_OFFSET_DATA = 1
REPLY_OFFSET_HOLE = 2
REPLY_BLOCK_STATUS = 5
REPLY_ERROR = 2**15 + 1
REPLY_ERROR_OFFSET = 2**15 + 2

STATE_HOLE = 1 << 0
STATE_ZERO = 1 << 1

EPERM = 1
EIO = 5
ENOMEM = 12
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95
ESHUTDOWN = 108

_ERRORS = {
    errno.EPERM: EPERM,
    errno.EACCES: EPERM,
    errno.EROFS: EPERM,
    errno.EINVAL: EINVAL,
    errno.ENOMEM: ENOMEM,
    errno.ENOSPC: ENOSPC,
    errno.EDQUOT: ENOSPC,
    errno.EFBIG: ENOSPC,
    errno.ESHUTDOWN: ESHUTDOWN,
}


def wire_error(number: int | None) -> int:
    """The protocol's error for an errno; EIO for one that it does not have."""
    return _ERRORS.get(number or 0, EIO)


# Size constraints -----------------------------------------------------------------------------------------------------

MIN_BLOCK = 1
"""Any offset and length will do; the preferred block is the device's page."""
MAX_PAYLOAD = 32 << 20
"""What every client may count on when a server says nothing else."""
