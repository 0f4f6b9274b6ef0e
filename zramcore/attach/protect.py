"""Keeping the processes behind a swap device in memory: what they hold must never have to be read from that device.

A process can lock only its own memory, so the daemon does that itself. Others are spared by the OOM killer, do not wait
for write-back of their own device (PR_SET_IO_FLUSHER), and are kept out of swap by a cgroup where there is cgroup v2.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# <sys/mman.h> and <linux/prctl.h>
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
PR_SET_IO_FLUSHER = 57
SPARED = -1000
"""oom_score_adj of a process that is never killed for want of memory."""
CGROUP = Path("/sys/fs/cgroup")
CGROUP_NAME = "zramcore-no-swap"


def protect_self() -> list[str]:
    """Lock this process's memory and have the OOM killer spare it; what could not be done, a sentence each.

    MCL_ONFAULT: pages are locked once they are touched. Without it the pool's and the slot table's reservations, which
    are as large as the device, would be filled at once.
    """
    missing = []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        reason = os.strerror(ctypes.get_errno())
        missing.append(f"the memory of process {os.getpid()} cannot be locked: {reason}")
    return missing + spare(os.getpid())


def spare(pid: int) -> list[str]:
    """Have the OOM killer spare a process; what could not be done."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(f"{SPARED}\n")
    except OSError as error:
        return [f"the OOM killer may end process {pid}: {error.strerror}"]
    return []


def keep_out_of_swap(pid: int, cgroup: Path = CGROUP) -> list[str]:
    """Move another process into a cgroup without swap; what could not be done. Needs cgroup v2 with memory control."""
    group = cgroup / CGROUP_NAME
    try:
        if "memory" not in (cgroup / "cgroup.subtree_control").read_text().split():
            return [f"process {pid} may be swapped out: the memory controller of cgroup v2 is off"]
        group.mkdir(exist_ok=True)
        (group / "memory.swap.max").write_text("0\n")
        (group / "cgroup.procs").write_text(f"{pid}\n")
    except OSError as error:
        return [f"process {pid} may be swapped out: no cgroup v2 for it ({error.strerror})"]
    return []


def forget_cgroup(cgroup: Path = CGROUP) -> None:
    """Remove the cgroup of `keep_out_of_swap`, if nobody is in it any more."""
    with suppress(OSError):
        (cgroup / CGROUP_NAME).rmdir()


@contextmanager
def io_flusher() -> Iterator[None]:
    """What this thread starts meanwhile serves block I/O: memory that it needs must not wait for that I/O (prctl(2)).

    Children inherit it, and it survives exec. Without CAP_SYS_RESOURCE nothing happens.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    changed = libc.prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        if changed:
            libc.prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0)
