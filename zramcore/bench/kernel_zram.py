"""The kernel's own /dev/zram0: taken when nobody uses it, read and written by direct I/O, always reset afterwards."""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DeviceBusy, InvalidValue, NotPermitted, ZramError
from ..kernel import SYSFS, KernelControl, KernelDevice

NAME = "zram0"
BLKDISCARD = 0x1277
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class KernelZram:
    """The device while it is ours. Nothing happens to it before `start`; `close` resets it if `start` began."""

    def __init__(self, *, name: str = NAME, sysfs: Path = SYSFS, nodes: Path = Path("/dev")) -> None:
        """Raises NotPermitted (EACCES) without root, NoBackingDevice (ENODEV) without such a device, DeviceBusy (EBUSY)
        when it is in use."""
        self.control = KernelControl(sysfs=sysfs)
        self.device: KernelDevice = self.control.target(name)
        self.node = nodes / name
        if not os.access(self.device.directory / "disksize", os.W_OK) or not os.access(self.node, os.R_OK | os.W_OK):
            raise NotPermitted(f"comparing with the kernel's {name} needs root", hint="run it with sudo")
        reason = self._use()
        if reason:
            raise DeviceBusy(f"{self.node} is in use: {reason}", hint="comparing would destroy its contents")
        self.algorithm = ""
        self.fd = -1
        self._ours = False

    def _use(self) -> str:
        """What the device is used for; empty when it is free."""
        if self.device.initialized:
            return f"its disksize is {self.device.show('disksize').strip()}"
        holders = sorted(entry.name for entry in (self.device.directory / "holders").glob("*"))
        if holders:
            return f"{', '.join(holders)} stands on it"
        if any(line.split()[0] == str(self.node) for line in Path("/proc/swaps").read_text().splitlines()[1:]):
            return "it is swap space"
        try:
            os.close(os.open(self.node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError:
            return "it is mounted, or another program holds it"
        return ""

    def start(self, algorithm: str, size: int) -> None:
        """Initialise and open it. Raises InvalidValue (EINVAL) for an algorithm that the kernel lacks, ZramError."""
        offered = self.device.show("comp_algorithm").replace("[", "").replace("]", "").split()
        if algorithm not in offered:
            raise InvalidValue(
                f"the kernel's {self.device.name} has no {algorithm}",
                hint=f"it has {', '.join(offered)}: --against kernel:{offered[0]} compares with that",
            )
        atexit.register(self.close)  # for a signal that ends a `finally` before its first step
        self._ours = True
        self.algorithm = algorithm
        self.device.set_up([("comp_algorithm", algorithm), ("disksize", str(size))])
        try:
            self.fd = os.open(self.node, os.O_RDWR | os.O_DIRECT | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise ZramError(f"cannot open {self.node}: {error.strerror}", errno=error.errno) from error

    def discard(self, offset: int, length: int) -> None:
        """Free the pages of a range."""
        fcntl.ioctl(self.fd, BLKDISCARD, struct.pack("QQ", offset, length))

    def mem_used_total(self) -> int:
        """Bytes, as mm_stat says."""
        return int(self.device.show("mm_stat").split()[2])

    def close(self) -> None:
        """Reset it. A signal that would end the program waits until that is done."""
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
            if self._ours:
                self.device.reset()
                self._ours = False
                atexit.unregister(self.close)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextmanager
def kernel_zram(wanted: bool) -> Iterator[KernelZram | None]:
    """The kernel's device if it is wanted; reset at the end, whatever ends the block."""
    kernel = KernelZram() if wanted else None
    try:
        yield kernel
    finally:
        if kernel is not None:
            kernel.close()
