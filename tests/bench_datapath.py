"""Device.pwrite and pread against a bare loop over lz4.block calls, on the same data in the same run.

Run it by hand: ``python tests/bench_datapath.py [--mib N] [--rounds N] [FILE...]``. The sides alternate, MiB by MiB, so
that both meet the same noise; microseconds per 4 KiB page and the ratio are medians of the rounds.
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


Work = Callable[[int], None]
"""Something done to the MiB that starts at a page."""


def timed(work: Work, start: int) -> float:
    begin = time.perf_counter()
    work(start)
    return time.perf_counter() - begin


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

    buffer = bytearray(MIB)
    chunk = range(MIB // PAGE)

    def bare_write(start: int) -> None:
        for page in pages[start : start + MIB // PAGE]:
            compress(page, store_size=False)

    def bare_read(start: int) -> None:
        for item in packed[start : start + MIB // PAGE]:
            decompress(item, uncompressed_size=PAGE)

    def discard(start: int) -> None:
        device.discard(start * PAGE, MIB)

    def write(start: int) -> None:
        device.pwrite(start * PAGE, view[start * PAGE : start * PAGE + MIB])

    def write_pages(start: int) -> None:
        for page in chunk:
            device.pwrite((start + page) * PAGE, pages[start + page])

    def read(start: int) -> None:
        device.pread(start * PAGE, MIB)

    def read_into(start: int) -> None:
        device.pread_into(start * PAGE, buffer)

    def read_pages(start: int) -> None:
        for page in chunk:
            device.pread((start + page) * PAGE, PAGE)

    works: list[tuple[str, Work, Work | None, Work]] = [
        ("write 1 MiB, empty", bare_write, discard, write),
        ("read 1 MiB", bare_read, None, read),
        ("read 1 MiB into", bare_read, None, read_into),
        ("read 4 KiB", bare_read, None, read_pages),
        ("write 1 MiB, over", bare_write, None, write),
        ("write 4 KiB, over", bare_write, None, write_pages),
    ]
    print(f"{len(pages)} pages, lz4 to {sum(map(len, packed)) / len(data):.0%}, {options.rounds} rounds")
    print(f"{'work':<20} {'us/page':>8} {'bare':>8} {'ratio':>8} {'min':>7} {'max':>7}")
    for name, bare, prepare, ours in works:
        mine, theirs = [], []
        for _ in range(options.rounds):
            spent = [0.0, 0.0]
            for start in range(0, len(pages), MIB // PAGE):
                if prepare:
                    prepare(start)
                spent[0] += timed(bare, start)
                spent[1] += timed(ours, start)
            theirs.append(spent[0] / len(pages) * 1e6)
            mine.append(spent[1] / len(pages) * 1e6)
        ratios = [m / t for m, t in zip(mine, theirs, strict=True)]
        middle = statistics.median
        print(f"{name:<20} {middle(mine):8.2f} {middle(theirs):8.2f} {middle(ratios):8.2f}", end="")
        print(f" {min(ratios):7.2f} {max(ratios):7.2f}")
    assert b"".join(device.pread(start, MIB) for start in range(0, len(data), MIB)) == data


if __name__ == "__main__":
    main()
