"""Device.pwrite and pread against a bare loop over lz4.block calls, on the same data in the same run.

Run it by hand: ``python tests/bench_datapath.py [--mib N] [--rounds N] [FILE...]``. The sides alternate, each row is
the median of the rounds, in microseconds per 4 KiB page, and its ratio to the bare loop. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import lz4.block

from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue

PAGE = 4096
MIB = 1 << 20


def corpus(files: list[str], size: int) -> bytes:
    """`size` bytes of the files, or of this machine's shared libraries: no page of it same-filled."""
    paths = [Path(name) for name in files] or sorted(Path("/usr/lib").rglob("*.so*"))
    paths += sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    data = bytearray()
    for path in paths:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            for start in range(0, len(content) - PAGE + 1, PAGE):
                page = content[start : start + PAGE]
                if page != page[:8] * (PAGE // 8):
                    data += page
            if len(data) >= size:
                return bytes(data[:size])
    sys.exit(f"only {len(data)} bytes of data found")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    data = corpus(options.files, options.mib * MIB)
    view = memoryview(data)
    pages = [data[start : start + PAGE] for start in range(0, len(data), PAGE)]
    control = Control(build_catalogue(load_plugins()))
    device = control.devices[control.hot_add()]
    target = control.target(device.name)
    target.store("comp_algorithm", "lz4")
    target.store("disksize", str(len(data)))
    compress, decompress = lz4.block.compress, lz4.block.decompress
    packed = [compress(page, store_size=False) for page in pages]

    def bare_write() -> None:
        for page in pages:
            compress(page, store_size=False)

    def bare_read() -> None:
        for item in packed:
            decompress(item, uncompressed_size=PAGE)

    def write(request: int) -> None:
        for start in range(0, len(data), request):
            device.pwrite(start, view[start : start + request])

    def write_pages() -> None:
        offset = 0
        for page in pages:
            device.pwrite(offset, page)
            offset += PAGE

    def read(request: int) -> None:
        for start in range(0, len(data), request):
            device.pread(start, request)

    buffer = bytearray(MIB)

    def read_into() -> None:
        for start in range(0, len(data), MIB):
            device.pread_into(start, buffer)

    works: dict[str, Callable[[], object]] = {
        "bare write": bare_write,
        "first write 1 MiB": lambda: write(MIB),
        "overwrite 1 MiB": lambda: write(MIB),
        "overwrite 4 KiB": write_pages,
        "bare read": bare_read,
        "read 1 MiB": lambda: read(MIB),
        "read 1 MiB into": read_into,
        "read 4 KiB": lambda: read(PAGE),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):
        device.discard(0, len(data))
        for name, work in works.items():
            times[name].append(timed(work))
    assert b"".join(device.pread(start, MIB) for start in range(0, len(data), MIB)) == data
    ratio = sum(map(len, packed)) / len(data)
    print(f"{len(pages)} pages, lz4 to {ratio:.0%}, {options.rounds} rounds, medians")
    print(f"{'work':<20} {'us/page':>8} {'min':>7} {'max':>7} {'to bare':>8}")
    for name, spent in times.items():
        bare = times["bare read" if "read" in name else "bare write"]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(spent, bare, strict=True))
        us = [seconds / len(pages) * 1e6 for seconds in spent]
        print(f"{name:<20} {statistics.median(us):8.2f} {min(us):7.2f} {max(us):7.2f} {ratio:8.2f}")


if __name__ == "__main__":
    main()
