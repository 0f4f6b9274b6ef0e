"""What `backing_dev` is given, and how an errno of the operating system becomes one of our errors.

The kernel takes a path to a block device. Here a path may also be a regular file, and ``driver:path,option=value``
chooses the driver and its options.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping

from .errors import (
    DeviceBusy,
    DeviceIOError,
    InvalidValue,
    NoBackingDevice,
    NoMemory,
    NoSpace,
    NotPermitted,
    UnknownName,
    ZramError,
    did_you_mean,
)
from .interfaces import BackingDriver, BackingSpec

_BY_ERRNO: dict[int, type[ZramError]] = {
    kind.code: kind
    for kind in (InvalidValue, DeviceBusy, NoBackingDevice, NoMemory, NoSpace, NotPermitted, DeviceIOError)
}


def system_error(error: OSError, reason: str, hint: str = "") -> ZramError:
    """The ZramError for an errno of the operating system; `reason` says what was tried."""
    number = error.errno or errno.EIO
    return _BY_ERRNO.get(number, ZramError)(reason, errno=number, hint=hint)


def parse_backing_spec(
    text: str, drivers: Mapping[str, type[BackingDriver]], block_size: int
) -> tuple[type[BackingDriver], BackingSpec]:
    """The driver class and its spec for the text written to `backing_dev`.

    ``driver:path[,option=value]...`` when a registered driver's name and a ':' lead it; the first ',' ends the path,
    and whether it exists is the driver's affair. Anything else is a path, as the kernel takes it: a block device goes
    to `direct`, an existing regular file to `file` (the kernel refuses those with ENOTBLK). As in the kernel a NUL
    ends the text, one newline at its end does not count, and `backing_dev` then shows the path with links resolved.

    Raises InvalidValue for a malformed option, UnknownName when the chosen driver is not installed, and ZramError
    with the errno of Linux 7.3.4 for a path: ENOENT, EISDIR (a directory, or nothing), ENOTBLK, EACCES, ...
    """
    text = text.partition("\0")[0].removesuffix("\n")
    name, colon, rest = text.partition(":")
    if colon and name in drivers:
        path, *parts = rest.split(",")
        if not path:
            raise InvalidValue(f"{text!r} names no path", hint=f"{name}:PATH[,OPTION=VALUE]...")
        return drivers[name], BackingSpec(path, _options(parts), block_size, text)
    name = _driver_for(text)
    if name not in drivers:
        raise UnknownName(f"{text} needs the backing driver {name!r}", hint=did_you_mean(name, drivers))
    return drivers[name], BackingSpec(text, {}, block_size, os.path.realpath(text))


def _options(parts: Iterable[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InvalidValue(f"option {part!r} has no value", hint="options are OPTION=VALUE, separated by commas")
        if key in options:
            raise InvalidValue(f"option {key!r} is given twice")
        options[key] = value
    return options


def _driver_for(path: str) -> str:
    """Name of the driver for a path in the kernel's form."""
    if not path:
        raise ZramError("an empty path", errno=errno.EISDIR)  # the kernel opens its current directory then
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        hint = "a path is not created, file:PATH,size=64M is" if error.errno == errno.ENOENT else ""
        raise system_error(error, f"cannot open {path}", hint) from error
    if stat.S_ISBLK(mode):
        return "direct"
    if stat.S_ISREG(mode):
        return "file"
    raise not_a_medium(path, mode)


def not_a_medium(path: str, mode: int) -> ZramError:
    """The error for a path that is neither a block device nor a regular file: EISDIR or ENOTBLK."""
    if stat.S_ISDIR(mode):
        return ZramError(f"{path} is a directory", errno=errno.EISDIR)
    return ZramError(f"{path} is neither a block device nor a regular file", errno=errno.ENOTBLK)
