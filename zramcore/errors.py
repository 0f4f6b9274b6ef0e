"""Every error zramcore raises on purpose: the kernel's errno, what was asked for, and what to do about it.

One small tree. A class fixes the errno; the fields say where it happened, so callers never parse a message.
"""

from __future__ import annotations

import difflib
import errno as _errno
import os
from collections.abc import Iterable

_NAMES = {**_errno.errorcode, _errno.EOPNOTSUPP: "EOPNOTSUPP", _errno.EDEADLK: "EDEADLK"}


def errno_name(number: int | None) -> str:
    """The kernel's name of an errno, e.g. ``EINVAL``; Python's table has ENOTSUP where the kernel has EOPNOTSUPP."""
    return _NAMES.get(number or 0, str(number))


class ZramError(OSError):
    """An error with the kernel's errno.

    Fields: ``errno``; ``reason`` (one clear sentence); ``attribute`` and ``value`` (what was written where, if
    anything was); ``hint`` (what to do about it, may be empty).
    """

    code = _errno.EIO

    def __init__(
        self,
        reason: str,
        *,
        attribute: str | None = None,
        value: object = None,
        hint: str = "",
        errno: int | None = None,
    ) -> None:
        number = self.code if errno is None else errno
        super().__init__(number, reason)
        self.reason = reason
        self.attribute = attribute
        self.value = value
        self.hint = hint

    @property
    def errno_name(self) -> str:
        """The symbolic name, e.g. ``EINVAL``."""
        return errno_name(self.errno)

    def at(self, attribute: str, value: object = None) -> ZramError:
        """Name the attribute (and the value) that the error belongs to, unless it already has one; returns itself."""
        if self.attribute is None:
            self.attribute = attribute
            self.value = value
        return self

    def __str__(self) -> str:
        where = ""
        if self.attribute is not None:
            where = self.attribute if self.value is None else f"{self.attribute}: {str(self.value)!r}"
            where += ": "
        number = self.errno or 0
        text = f"{where}{self.reason} ({self.errno_name}, {os.strerror(number)})"
        return f"{text}; {self.hint}" if self.hint else text


class InvalidValue(ZramError):
    """EINVAL: the value cannot be parsed, or means nothing here."""

    code = _errno.EINVAL


class OutOfRange(ZramError):
    """ERANGE: a number that parses but lies outside what the attribute or the device holds."""

    code = _errno.ERANGE


class TooLong(ZramError):
    """E2BIG: an algorithm name of 128 characters or more."""

    code = _errno.E2BIG


class NotSupported(ZramError):
    """EOPNOTSUPP: this algorithm does not take this parameter."""

    code = _errno.EOPNOTSUPP


class DeviceBusy(ZramError):
    """EBUSY: the device is initialised or open, or the backing store is in use."""

    code = _errno.EBUSY


class NoMemory(ZramError):
    """ENOMEM: no memory, or mem_limit reached."""

    code = _errno.ENOMEM


class NoBackingDevice(ZramError):
    """ENODEV: writeback without a backing device, or an unknown device id."""

    code = _errno.ENODEV


class NoSpace(ZramError):
    """ENOSPC: the backing store is full, or a write starts past the end of the device."""

    code = _errno.ENOSPC


class BudgetExhausted(ZramError):
    """EIO: writeback_limit is used up and eligible pages are left."""

    code = _errno.EIO


class DeviceIOError(ZramError):
    """EIO: the request could not be served; nothing was lost, the old data is still there."""

    code = _errno.EIO


class CorruptPage(DeviceIOError):
    """EIO: stored data did not come back as what was stored; the read fails rather than lie."""


class PluginFault(DeviceIOError):
    """EIO: a plugin raised something that is not a ZramError, or broke its contract. ``plugin`` names it."""

    def __init__(self, plugin: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"plugin {plugin}: {reason}", hint=hint)
        self.plugin = plugin


class NotPermitted(ZramError):
    """EACCES: reading a write-only attribute or writing a read-only one."""

    code = _errno.EACCES


class NoSuchAttribute(ZramError):
    """ENOENT: no attribute of this name."""

    code = _errno.ENOENT


class PluginError(ZramError):
    """A plugin could not be loaded or used: the base of the three below."""

    code = _errno.EINVAL


class UnknownName(PluginError):
    """EINVAL: nothing is registered under this name."""


class DuplicateName(PluginError):
    """EEXIST: two plugins registered the same name; both are named."""

    code = _errno.EEXIST


class IncompatibleApi(PluginError):
    """EINVAL: the plugin was written for another version of the contract."""


class ConfigError(ZramError):
    """EINVAL: a configuration file is wrong. ``file`` and ``key`` (dotted path) say where."""

    code = _errno.EINVAL

    def __init__(self, reason: str, *, file: str, key: str = "", hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.file = file
        self.key = key

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}: " if self.key else f"{self.file}: "
        return f"{where}{self.reason}" + (f"; {self.hint}" if self.hint else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest of `known`, and all of them: ``did you mean 'zstd'? known: lz4, zstd``."""
    names = list(known)
    listed = f"known: {', '.join(names)}" if names else "none is registered"
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}? {listed}" if close else listed
