"""Running the system's programs: which Debian package has them, how long they may take, what they say at failure."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Collection, Iterable

from ..errors import ZramError

PACKAGES = {
    "nbdfuse": "libnbd-bin",
    "nbd-client": "nbd-client",
    "fusermount3": "fuse3",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
    "swapon": "mount",
    "swapoff": "mount",
    "mkswap": "util-linux",
    "blkid": "util-linux",
    "modprobe": "kmod",
    "mkfs.ext2": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
}
"""Program -> the Debian package that has it."""

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where a user's PATH does not look and these programs are."""
SECONDS = 60.0
"""What a program may take, unless it is said."""
_GRACE = 2.0
"""Seconds that a killed program is waited for: one that hangs in the kernel does not even die then."""


class MissingProgram(ZramError):
    """ENOENT: a program is not installed; the hint names its package."""

    code = errno.ENOENT

    def __init__(self, program: str) -> None:
        package = PACKAGES.get(program)
        super().__init__(f"{program} is not installed", hint=f"apt install {package}" if package else "")
        self.program = program


class ProgramFailed(ZramError):
    """EIO: a program failed, or took too long."""

    code = errno.EIO


def find(program: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM}")


def require(programs: Iterable[str]) -> None:
    """Raises MissingProgram (ENOENT) for the first program that is not installed."""
    for program in programs:
        if find(program) is None:
            raise MissingProgram(program)


def run(*words: str, seconds: float = SECONDS, good: Collection[int] = (0,)) -> str:
    """Run a program without input and return what it prints.

    Raises MissingProgram (ENOENT), or ProgramFailed (EIO) with what it said on stderr when its status is not `good` or
    it takes longer than `seconds`.
    """
    path = find(words[0])
    if path is None:
        raise MissingProgram(words[0])
    # not subprocess.run: after a timeout that waits until the program is dead, and one in the kernel may never be
    process = subprocess.Popen(
        words,
        executable=path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        output, complaint = process.communicate(timeout=seconds)
    except BaseException as error:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise ProgramFailed(
            f"{' '.join(words)} took longer than {seconds:g} s", hint="the device does not answer: does its server?"
        ) from error
    if process.returncode not in good:
        said = " ".join(complaint.decode(errors="replace").split()) or f"exit status {process.returncode}"
        raise ProgramFailed(f"{' '.join(words)}: {said}")
    return output.decode(errors="replace")
