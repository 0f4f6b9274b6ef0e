"""A directory tree in the shape of sysfs, with a zram that has everything: for tests without such a kernel.

Files of a plain tree keep what is written to them, whatever it is. What it shows is that the right texts reach the
right files, and what happens where a file is missing. `LivingTree` has zramcore devices behind the files: writes do
what the kernel's do, and are refused as there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from .. import kernel, sysfs_files
from ..control import Control
from ..errors import ZramError
from ..interfaces import Catalogue

FILES = {
    "algorithm_params": "",
    "backing_dev": "none\n",
    "bd_stat": "       0        0        0\n",
    "comp_algorithm": "lzo-rle lzo [lz4] zstd \n",
    "compact": "",
    "compressed_writeback": "0\n",
    "debug_stat": "version: 1\n0        0\n",
    "disksize": "0\n",
    "idle": "",
    "initstate": "0\n",
    "io_stat": "       0        0 0        0\n",
    "mem_limit": "",
    "mem_used_max": "",
    "mm_stat": "268435456 80530636 83886080        0 92274688     1024       10     4096     5000\n",
    "recomp_algorithm": "",
    "recompress": "",
    "reset": "",
    "writeback": "",
    "writeback_batch_size": "32\n",
    "writeback_limit": "0\n",
    "writeback_limit_enable": "0\n",
}
"""The attributes of a device that has everything -> what they show at first."""

BLOCK_STATE = "           0          100.000000 ......\n           1          100.000000 ..h...\n"


def make_sysfs(root: Path, names: Iterable[str] = ("zram0",), missing: Iterable[str] = ()) -> Path:
    """Make the tree below `root`, without the files in `missing`; returns `root`, the `sysfs` of a KernelControl."""
    absent = set(missing)
    control = root / "class" / "zram-control"
    control.mkdir(parents=True)
    for name in ("hot_add", "hot_remove"):
        (control / name).write_text("")
    for name in names:
        add_device(root, name, absent)
    return root


def add_device(root: Path, name: str, missing: Iterable[str] = ()) -> Path:
    """Add one device to the tree; its directory."""
    absent = set(missing)
    device = root / "block" / name
    device.mkdir(parents=True)
    for attribute, text in FILES.items():
        if attribute not in absent:
            (device / attribute).write_text(text)
    if "block_state" not in absent:
        state = root / "kernel" / "debug" / "zram" / name
        state.mkdir(parents=True)
        (state / "block_state").write_text(BLOCK_STATE)
    return device


class LivingTree:
    """A tree whose devices live: what KernelDevice reads and writes there goes to zramcore devices (`control`), while
    `alive` lasts, in this process. A plain file as backing device needs no loop device.

    `names`: the devices there are, zram0 and on. `missing`: attributes that this kernel has not. `written`: the writes
    made, as (device or "", attribute, text).
    """

    def __init__(
        self, root: Path, catalogue: Catalogue, names: Iterable[str] = ("zram0",), missing: Iterable[str] = ()
    ) -> None:
        self.root = make_sysfs(root, (), missing)
        self.control = Control(catalogue)
        self.written: list[tuple[str, str, str]] = []
        self._missing = tuple(missing)
        self._read = sysfs_files.read_file
        for _ in names:
            self._add()

    @contextlib.contextmanager
    def alive(self) -> Iterator[kernel.KernelControl]:
        """The kernel's devices, as KernelControl has them."""
        with (
            mock.patch.object(sysfs_files, "read_file", self._show),
            mock.patch.object(sysfs_files, "write_file", self._store),
            mock.patch.object(kernel, "is_plain_file", return_value=False),
        ):
            yield kernel.KernelControl(sysfs=self.root)

    def _add(self) -> int:
        number = self.control.hot_add()
        add_device(self.root, f"zram{number}", self._missing)
        return number

    def _show(self, path: Path, *, once: bool = False) -> str:
        if path.name == "hot_add":
            return f"{self._add()}\n"
        self._read(path)  # there must be such a file
        with _as_the_kernel_says():
            return self.control.target(path.parent.name).show(path.name)

    def _store(self, path: Path, text: str) -> None:
        with _as_the_kernel_says():
            if path.name == "hot_remove":
                self.written.append(("", path.name, text))
                self.control.hot_remove(int(text))
                self._forget(f"zram{int(text)}")
                return
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            self.written.append((path.parent.name, path.name, text))
            self.control.target(path.parent.name).store(path.name, text)

    def _forget(self, name: str) -> None:
        shutil.rmtree(self.root / "block" / name)
        shutil.rmtree(self.root / "kernel" / "debug" / "zram" / name, ignore_errors=True)


@contextlib.contextmanager
def _as_the_kernel_says() -> Iterator[None]:
    """An error as write(2) and read(2) have it: a number."""
    try:
        yield
    except ZramError as error:
        number = error.errno or errno.EIO
        raise OSError(number, os.strerror(number)) from None
