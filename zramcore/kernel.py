"""The kernel's own zram as attributes: KernelDevice is what control.Target is for ours, KernelControl what Control is.

What write(2) refuses becomes a ZramError with the errno, the attribute and the value; what this kernel does not have
says what it would need.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from . import sysfs_files
from .allowance import TAKING_TURNS
from .errors import (
    BudgetExhausted,
    DeviceBusy,
    DeviceIOError,
    InvalidValue,
    NoBackingDevice,
    NoMemory,
    NoSpace,
    NoSuchAttribute,
    NotPermitted,
    NotSupported,
    OutOfRange,
    TooLong,
    ZramError,
)
from .kernel_features import ALIASES, ALWAYS, FILES, SURVIVORS, Feature, kernel_config, learn
from .loop_device import LoopDevice, backing_path, is_plain_file

SYSFS = Path("/sys")
VARIABLE = "ZRAMCORE_SYSFS"
"""Environment variable: another place for sysfs, a plain directory tree of the same shape."""

PATIENCE = 3.0
"""Seconds that a reset waits for whoever has the device open: udev looks at every new one (zramctl waits as long)."""

SLICE_UNITS = 4096
"""16 MiB: what one writeback of a policy writes at most, followed by the next. The kernel cannot interrupt one, and
since 7.0 nobody can read mm_stat while it lasts (mmd takes 1 MiB for that); each slice costs a scan of the slots."""

_KINDS: dict[int, type[ZramError]] = {
    kind.code: kind
    for kind in (
        InvalidValue,
        OutOfRange,
        TooLong,
        NotSupported,
        DeviceBusy,
        NoMemory,
        NoBackingDevice,
        NoSpace,
        DeviceIOError,
        NotPermitted,
        NoSuchAttribute,
    )
}
_NAME = re.compile(r"zram[0-9]+", re.ASCII)


class KernelDevice:
    """One device of the kernel's zram, by its attributes. `features` says what it can do, by name (`FILES` and more).

    `sysfs`: where sysfs is mounted, or a plain directory tree of the same shape. `config`: the kernel's
    configuration, as `kernel_config` returns it.
    """

    def __init__(self, name: str, *, sysfs: Path = SYSFS, config: Mapping[str, str] | None = None) -> None:
        """Raises NoBackingDevice (ENODEV) when there is no such device."""
        self._name = name
        self._sysfs = sysfs
        self.directory = sysfs / "block" / name
        self.block_state = sysfs / "kernel" / "debug" / "zram" / name / "block_state"
        if not _NAME.fullmatch(name) or not self.directory.is_dir():
            raise NoBackingDevice(f"there is no {self.directory}", hint="zramN, a device of the kernel's zram")
        self.features: dict[str, Feature] = learn(self.directory, self.block_state, config)
        self._turn = threading.RLock()

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Taken for a pass with the limit that is set for it, by all who use this object."""
        return self._turn

    @property
    def slice_units(self) -> int | None:
        """What one pass of a policy writes at most, in units of 4 KiB; None where there is no limit to set."""
        return SLICE_UNITS if self.features["writeback_limit"].present else None

    @property
    def node(self) -> str:
        """Its block node; a plain tree may have one below ``dev``."""
        return str((Path("/dev") if self._sysfs == SYSFS else self._sysfs / "dev") / self._name)

    @property
    def disksize(self) -> int:
        """Its size in bytes; 0 before it is initialised. Raises ZramError."""
        return int(self.show("disksize"))

    def attributes(self) -> list[str]:
        """The attributes there are, by name."""
        known = [name for name in (*ALWAYS, *FILES) if self._file(name).exists()]
        return sorted([*known, "block_state"] if self.features["block_state"].present else known)

    @property
    def name(self) -> str:
        """The device's name, e.g. ``zram0``."""
        return self._name

    @property
    def capabilities(self) -> frozenset[str]:
        """The names of the features that are there: what policies ask for."""
        return frozenset(name for name, feature in self.features.items() if feature.present)

    @property
    def initialized(self) -> bool:
        """Whether disksize is set."""
        return self.show("initstate").strip() == "1"

    def show(self, attribute: str) -> str:
        """Read an attribute; block_state comes from debugfs.

        Raises NoSuchAttribute (ENOENT) saying what the kernel lacks, NotPermitted (EACCES) for a write-only one, and
        what read(2) says.
        """
        try:
            return sysfs_files.read_file(self._file(attribute))
        except OSError as error:
            raise self._error(error, attribute, None) from error

    def store(self, attribute: str, value: str) -> None:
        """Write an attribute with one write(2).

        Raises ZramError with the errno of write(2): BudgetExhausted (EIO) when writeback stops at its limit, other
        EIO is DeviceIOError; NoSuchAttribute (ENOENT) saying what the kernel lacks.
        """
        try:
            with self._turn if attribute in TAKING_TURNS else nullcontext():
                sysfs_files.write_file(self._file(attribute), value)
        except OSError as error:
            if attribute == "idle" and error.errno == errno.EINVAL:
                self._without_ages(value)
            raise self._error(error, attribute, value.removesuffix("\n")) from error

    def set_up(self, writes: Iterable[tuple[str, str]]) -> None:
        """Make the writes of a config, which are in the kernel's order, on a device that is as new; a plain file gets a
        loop device under it.

        Raises DeviceBusy (EBUSY) when it is initialised, and the ZramError of the first write that fails: it is reset
        then.
        """
        if self.initialized:
            raise DeviceBusy(f"{self.name} is set up already", hint="reset it first: that discards its data")
        writes = list(writes)
        try:
            self._renew({attribute for attribute, _ in writes})
            for attribute, value in writes:
                if attribute == "backing_dev":
                    self._back(value)
                elif attribute != "allocator":
                    self.store(attribute, value)
                elif value != "zsmalloc":
                    raise NotSupported("the kernel's zram has no other allocator than zsmalloc").at(attribute, value)
        except ZramError as error:
            try:
                self.reset()
            except ZramError as again:
                left = f"{self.name} stays half set up, its reset failed: {again.reason}"
                error.hint = f"{error.hint}; {left}" if error.hint else left
            raise

    def _renew(self, wanted: Container[str]) -> None:
        """Forget what others had set: reset, and what survives that (measured, Linux 7.3.4) unless it is `wanted`."""
        self.reset()
        for attribute, default in SURVIVORS.items():
            if attribute not in wanted and self._file(attribute).exists() and self.show(attribute).strip() != default:
                self.store(attribute, default)

    def reset(self, *, patience: float = PATIENCE, sleep: Callable[[float], object] = time.sleep) -> None:
        """Reset it: data, algorithms and backing device are gone. Waits up to `patience` seconds for who has it open.

        Raises DeviceBusy (EBUSY) after that.
        """
        sysfs_files.patiently(lambda: self.store("reset", "1"), patience, sleep)

    def _back(self, text: str) -> None:
        """Write backing_dev. The file is not created, nor a loop device made, on a kernel that cannot use it."""
        if not self.features["backing_dev"].present:
            raise self._missing("backing_dev").at("backing_dev", text)
        try:
            path = backing_path(text)
            if not is_plain_file(path):
                return self.store("backing_dev", path)
            loop = LoopDevice(path)
        except ZramError as error:
            raise error.at("backing_dev", text) from None
        try:
            self.store("backing_dev", loop.node)
        finally:
            loop.let_go()

    def _file(self, attribute: str) -> Path:
        if not attribute.isidentifier():
            raise NoSuchAttribute("is not the name of an attribute", attribute=attribute)
        if attribute == "block_state":
            return self.block_state
        file = self.directory / attribute
        if attribute in ALIASES and not file.exists():
            return self.directory / ALIASES[attribute]
        return file

    def _without_ages(self, value: str) -> None:
        """Learn from a refused `idle N` that pages have no ages here, unless it was refused for another reason."""
        feature = self.features["idle_age"]
        if feature.present and value.strip().isdigit() and self.initialized:
            self.features["idle_age"] = Feature("idle_age", False, feature.needs, "the kernel refused a number")

    def _missing(self, attribute: str) -> ZramError:
        feature = self.features.get(attribute)
        hint = f"it needs {feature.needs}" if feature else ""
        return NoSuchAttribute(f"{self.name} has no {attribute} on this kernel", hint=hint)

    def _error(self, error: OSError, attribute: str, value: str | None) -> ZramError:
        if isinstance(error, ZramError):
            return error.at(attribute, value)
        number = error.errno or errno.EIO
        if number in (errno.ENOENT, errno.ENOTDIR) and not self._file(attribute).exists():
            if not self.directory.is_dir():
                return NoBackingDevice(f"{self.name} is gone").at(attribute, value)
            return self._missing(attribute).at(attribute, value)
        kind = _KINDS.get(number, ZramError)
        if number == errno.EPERM:
            kind = NotPermitted
        if attribute == "writeback" and number == errno.EIO and self._budget_is_used_up():
            kind = BudgetExhausted
        if number == errno.EAGAIN and attribute in TAKING_TURNS:
            reason, hint = "another pass runs on it", "this kernel (6.13 to 6.19) has one at a time: try again"
            return kind(reason, errno=number, hint=hint).at(attribute, value)
        verb = "reading" if value is None else "writing"
        return kind(f"the kernel refused {verb} it: {os.strerror(number)}", errno=number).at(attribute, value)

    def _budget_is_used_up(self) -> bool:
        try:
            return int(self.show("writeback_limit_enable")) == 1 and int(self.show("writeback_limit")) == 0
        except (ZramError, ValueError):
            return False


class KernelControl:
    """The kernel's devices: which there are, adding and removing them. `sysfs` as for KernelDevice.

    `config`: the kernel's configuration; by default the running kernel's when `sysfs` is the real one.
    """

    def __init__(self, *, sysfs: Path = SYSFS, config: Mapping[str, str] | None = None) -> None:
        self.sysfs = sysfs
        self.directory = sysfs / "class" / "zram-control"
        self.config = kernel_config() if config is None and sysfs == SYSFS else config

    @property
    def records(self) -> Path:
        """Where it is written down what was set up; gone after a boot, as the devices are."""
        return Path("/run/zramcore-kernel") if self.sysfs == SYSFS else self.sysfs / "run"

    @property
    def present(self) -> bool:
        """Whether this kernel has zram, loaded."""
        return self.directory.is_dir()

    def names(self) -> list[str]:
        """The devices there are, by number."""
        found = [entry.name for entry in (self.sysfs / "block").glob("zram*") if _NAME.fullmatch(entry.name)]
        return sorted(found, key=lambda name: int(name[4:]))

    def features(self) -> dict[str, Feature]:
        """What a device of this kernel can do, by name; empty when there is none to look at."""
        return next((self.target(name).features for name in self.names()), {})

    def algorithms(self) -> list[str]:
        """The compression algorithms of this kernel; empty when there is no device to ask."""
        names = self.names()
        return self.target(names[0]).show("comp_algorithm").translate({91: None, 93: None}).split() if names else []

    def why_no_writeback(self) -> str:
        """Why the kernel's zram cannot be set up with a backing device here, in words; empty when it can. Nothing is
        touched: where there is no device to look at, the kernel's configuration says."""
        if not self.present:
            return "this kernel has no zram"
        features = self.features()
        configured = (self.config or {}).get("CONFIG_ZRAM_WRITEBACK") == "y"
        if not (features["writeback"].present if features else configured):
            return "this kernel's zram has no writeback"
        return "" if os.access(self.directory / "hot_remove", os.W_OK) else "only root sets up the kernel's zram"

    def target(self, name: str) -> KernelDevice:
        """The device called `name`. Raises NoBackingDevice (ENODEV)."""
        return KernelDevice(name, sysfs=self.sysfs, config=self.config)

    def hot_add(self) -> int:
        """Create a device; its number, the lowest free one. Raises NotSupported (EOPNOTSUPP) without zram, and what the
        kernel says: NotPermitted (EACCES), NoMemory (ENOMEM)."""
        try:
            return int(sysfs_files.read_file(self.directory / "hot_add", once=True))
        except OSError as error:
            raise self._error(error, "hot_add", None) from error
        except ValueError as error:
            raise DeviceIOError(f"hot_add answered {error}", attribute="hot_add") from error

    def hot_remove(self, number: int) -> None:
        """Reset and delete a device. Raises InvalidValue (EINVAL) for a negative number, NoBackingDevice (ENODEV) for
        an unknown one, DeviceBusy (EBUSY) while it is open, after waiting for who only looks at it."""
        if number < 0:
            raise InvalidValue("a device id is not negative", attribute="hot_remove", value=number)

        def remove() -> None:
            try:
                sysfs_files.write_file(self.directory / "hot_remove", str(number))
            except OSError as error:
                raise self._error(error, "hot_remove", number) from error

        sysfs_files.patiently(remove, PATIENCE, time.sleep)

    def claim(self, wanted: str | None = None) -> tuple[KernelDevice, bool]:
        """An uninitialised device that nothing uses, and whether it had to be added: `wanted`, or an existing one, or a
        new one. Raises DeviceBusy (EBUSY) when `wanted` is in use, InvalidValue (EINVAL) when the kernel would give
        another number, and as `hot_add`."""
        for name in self.names() if wanted is None else [wanted] if wanted in self.names() else []:
            device = self.target(name)
            if not device.initialized and not _is_open(self.sysfs, name):
                return device, False
            if wanted is not None:
                raise DeviceBusy(f"{wanted} is in use", hint="another label takes any free device")
        number = self.hot_add()
        if wanted is not None and wanted != f"zram{number}":
            self.hot_remove(number)
            raise InvalidValue(f"the kernel gives zram{number}, not {wanted}", hint="another label takes any")
        return self.target(f"zram{number}"), True

    def _error(self, error: OSError, attribute: str, value: object) -> ZramError:
        if isinstance(error, ZramError):
            return error.at(attribute, value)
        if not self.present:
            hint = "modprobe zram, where the kernel has it as a module"
            return NotSupported(f"this kernel has no zram: there is no {self.directory}", hint=hint)
        number = error.errno or errno.EIO
        kind = _KINDS.get(number, ZramError)
        return kind(f"the kernel refused it: {os.strerror(number)}", errno=number).at(attribute, value)


def sysfs_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Where sysfs is: ZRAMCORE_SYSFS, or /sys."""
    return Path(environment.get(VARIABLE) or SYSFS)


def _is_open(sysfs: Path, name: str) -> bool:
    """Whether something holds the node for itself; only the real sysfs has nodes."""
    if sysfs != SYSFS:
        return False
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
