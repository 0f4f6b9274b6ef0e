"""A plain directory tree in the shape of sysfs, with a zram that has everything: for tests without such a kernel.

Files keep what is written to them, whatever it is: a tree has no kernel behind it. What it shows is that the right
texts reach the right files, and what happens where a file is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
