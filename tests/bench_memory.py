"""What a filled device costs: growth of resident memory against mem_used_total plus the slot rows that were touched.

Run it by hand: ``python tests/bench_memory.py [--mib N] [--comp NAME] [DIRECTORY...]``. The data are the files of this
machine, read a MiB at a time, so that nothing but the device grows. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

MIB = 1 << 20
ROW = 16


def resident() -> int:
    """Bytes of anonymous memory of this process: what files it maps does not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no RssAnon in /proc/self/status")


def chunks(folders: list[str]) -> Iterator[bytes]:
    """The contents of all files below, a MiB at a time."""
    rest = b""
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(root, name)
                if path.is_symlink() or not path.is_file():
                    continue
                with path.open("rb") as file:
                    while data := file.read(MIB - len(rest)):
                        rest += data
                        if len(rest) == MIB:
                            yield rest
                            rest = b""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--comp", default="lz4")
    parser.add_argument("folders", nargs="*", default=["/usr/lib", "/usr/share", "/usr/bin", str(Path.home())])
    options = parser.parse_args()
    control = Control(build_catalogue(load_plugins()))
    device = control.devices[control.hot_add()]
    target = control.target(device.name)
    target.store("comp_algorithm", options.comp)
    target.store("disksize", f"{options.mib}M")
    device.pwrite(0, os.urandom(MIB))
    device.pread(0, MIB)
    device.discard(0, MIB)
    gc.collect()
    before = resident()
    offset = 0
    for data in chunks(options.folders):
        offset += device.pwrite(offset, data)
        if offset >= device.disksize:
            break
    del data
    path = device.path
    assert path is not None
    path.allocator.trim()
    gc.collect()
    grown = resident() - before
    used = int(target.show("mm_stat").split()[2])
    rows = sum(end - start for start, end in path.table.touched_ranges()) * ROW
    print(
        f"{offset / MIB:.0f} MiB of files, {options.comp}: "
        f"mem_used_total {used / MIB:.1f} MiB, slot rows {rows / MIB:.1f} MiB"
    )
    print(f"resident memory grew by {grown / MIB:.1f} MiB: {grown / (used + rows):.3f} of the two together")


if __name__ == "__main__":
    main()
