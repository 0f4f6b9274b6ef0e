"""One device of a deployment that is up, zramcore's own or the kernel's, and taking it down.

Taking down saves before it forgets: what cannot be saved, or is in use, stays up, so that nothing is lost by retrying.
"""

from __future__ import annotations

from dataclasses import dataclass

from .attach.direct import DirectUse, leave_node
from .config import DeviceConfig
from .control import Control, Target
from .device import Device
from .errors import ZramError
from .hosting import Hosting
from .image import save_image
from .kernel import KernelControl, KernelDevice
from .kernel_record import KernelRecord


def of_device(device: str, error: ZramError) -> ZramError:
    """The error, with the device in front of its attribute."""
    error.attribute = device if error.attribute is None else f"{device}/{error.attribute}"
    return error


@dataclass(frozen=True)
class TakenDown:
    """What came of taking a device down: the bytes stored for its image, if it has one to save; the first error."""

    stored: int | None = None
    error: ZramError | None = None


@dataclass(frozen=True)
class Deployed:
    """A zramcore device of a deployment: what the file says, its id on the Control, and the device."""

    config: DeviceConfig
    id: int
    target: Target
    loaded: int
    """Bytes that its image brought."""
    hosting: Hosting | None = None
    """What serves it and where it is attached, if the config says so."""

    @property
    def device(self) -> Device:
        return self.target.device

    @property
    def disksize(self) -> int:
        """Its size in bytes; 0 without one."""
        return self.device.disksize

    @property
    def label(self) -> str:
        """How messages name it: ``zram0``, or ``swap (zram0)`` where the file calls it otherwise."""
        name = self.target.name
        return name if self.config.name == name else f"{self.config.name} ({name})"

    def lines(self) -> list[str]:
        """Where it is, for people."""
        return list(self.hosting.lines()) if self.hosting is not None else []

    def interrupt(self) -> None:
        """Have a pass that runs end after the batch it is at, and each that begins, until `go_on`."""
        self.device.stop_pass.set()

    def go_on(self) -> None:
        """Let passes run again."""
        self.device.stop_pass.clear()

    def release(self) -> None:
        """Detach it and stop serving it. Raises DeviceBusy (EBUSY)."""
        if self.hosting is not None:
            self.hosting.release()

    def take_down(self, control: Control, *, save: bool = True) -> TakenDown:
        """Detach, save the image, reset and remove. One whose node is in use stays, but its image is saved, as after a
        crash of what uses it."""
        error: ZramError | None = None
        stored = None
        try:
            try:
                self.release()
            except ZramError as busy:
                error = busy
                if self.hosting is not None:
                    self.hosting.synchronize()
            image = self.config.image
            if save and image is not None and image.save is not None:
                self.device.flush()
                stored = save_image(self.device, image.save)
            if error is None:
                self.target.store("reset", "1")
                control.hot_remove(self.id)
        except ZramError as failed:
            error = error or failed
        return TakenDown(stored, error)


@dataclass(frozen=True)
class KernelDeployed:
    """A device of the kernel's zram in a deployment. `record`: it was set up here, and so goes with it; None for one
    that somebody else set up, which is only lent to policies. `added`: it was not there before; `taken_over`: a process
    before this one set it up, and did not take it down."""

    config: DeviceConfig
    kernel: KernelControl
    target: KernelDevice
    record: KernelRecord | None = None
    added: bool = False
    taken_over: bool = False
    use: DirectUse | None = None
    loaded: int = 0

    @property
    def disksize(self) -> int:
        """Its size in bytes."""
        return self.target.disksize

    @property
    def ours(self) -> bool:
        """Whether it goes with the deployment."""
        return self.record is not None

    @property
    def name(self) -> str:
        """Its name beside those of zramcore devices: ``kernel:zram0``."""
        return f"kernel:{self.target.name}"

    @property
    def label(self) -> str:
        """How messages name it: ``swap (kernel:zram0)``, or ``zram0`` where that is its label too."""
        return self.config.name if self.config.name == self.target.name else f"{self.config.name} ({self.name})"

    def lines(self) -> list[str]:
        """Where it is, for people."""
        if not self.ours:
            return [f"{self.target.node}, as it is: policies only"]
        line = self.target.node if self.use is None else self.use.line()
        return [f"{line}, taken over as it was left" if self.taken_over else line]

    def interrupt(self) -> None:
        """A pass in the kernel cannot be interrupted: a policy's has slices, and no other begins once it is stopped."""

    def go_on(self) -> None:
        """Nothing was stopped."""

    def release(self) -> None:
        """Stop swapping to it, unmount it. Raises DeviceBusy (EBUSY)."""
        if self.use is not None:
            leave_node(self.use)

    def take_down(self, control: Control, *, save: bool = True) -> TakenDown:
        """Undo the use, reset it, and remove it if it was added; one that somebody else set up stays as it is."""
        number = int(self.target.name.removeprefix("zram"))
        try:
            if self.record is not None:
                self.release()
                self.target.reset()
                if self.added:
                    self.kernel.hot_remove(number)
                self.record.forget()
                self.record.close()
        except ZramError as error:
            return TakenDown(error=error)
        if self.config.name == self.target.name:
            control.avoided.discard(number)
        return TakenDown()


AnyDeployed = Deployed | KernelDeployed
