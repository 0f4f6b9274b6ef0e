"""Where the microseconds of a 4 KiB request go: each step of it by itself, on the same pages, in the same run.

Run it by hand: ``python tests/bench_one_page.py [--mib N] [--rounds N]``. Figures are CPU time of this thread, the
least of the rounds: what a step costs when nobody disturbs it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping

import lz4.block
from bench_datapath import MIB, PAGE, corpus

from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue


def least(work: Callable[[], object], rounds: int, pages: int) -> float:
    """Microseconds a page."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.thread_time()
        work()
        best = min(best, time.thread_time() - begin)
    return best * 1e6 / pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    data = corpus([], options.mib * MIB)
    pages = [data[start : start + PAGE] for start in range(0, len(data), PAGE)]
    order = list(range(len(pages)))
    random.Random(1).shuffle(order)
    control = Control(build_catalogue(load_plugins()))
    target = control.target(f"zram{control.hot_add()}")
    for name, text in (("comp_algorithm", "lz4"), ("disksize", str(len(data)))):
        target.store(name, text)
    device, path = target.device, target.device.path
    assert path is not None
    device.pwrite(0, data)
    compress_one, store_one, free = path.compress_one, path.allocator.store_one, path.allocator.free
    objects = [compress_one(page) for page in pages]
    packed = [lz4.block.compress(page, store_size=False) for page in pages]

    def store_all() -> None:
        for stored, _ in objects:
            free(store_one(stored, 0))

    steps: Mapping[str, Callable[[], object]] = {
        "bare lz4.block.compress": lambda: [lz4.block.compress(page, store_size=False) for page in pages],
        "write: same-filled test, compress": lambda: [compress_one(page) for page in pages],
        "write: place and free an object": store_all,
        "write: both, lock, row, counters": lambda: [path.write_page(index * PAGE, pages[index]) for index in order],
        "write: all of Device.pwrite": lambda: [device.pwrite(index * PAGE, pages[index]) for index in order],
        "bare lz4.block.decompress": lambda: [lz4.block.decompress(item, uncompressed_size=PAGE) for item in packed],
        "read: lock, row, decompress": lambda: [path.read_page(index * PAGE, PAGE) for index in order],
        "read: all of Device.pread": lambda: [device.pread(index * PAGE, PAGE) for index in order],
    }
    print(f"{len(pages)} pages in random order, data path {'compiled' if path.native else 'in Python'}")
    for name, work in steps.items():
        print(f"{name:<36} {least(work, options.rounds, len(pages)):6.2f} us")


if __name__ == "__main__":
    main()
