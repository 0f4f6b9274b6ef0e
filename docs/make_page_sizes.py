"""Measures zramcore/data/page-sizes.txt: the compressed sizes that simulations draw from.

    python docs/make_page_sizes.py PID... > zramcore/data/page-sizes.txt

Takes 512 pages, evenly from the memory of these processes, with every compressor of Linux that is installed.
"""

from __future__ import annotations

import platform
import sys
from datetime import date

from zramcore.cli.process import process_extents
from zramcore.interfaces import CompressorParams
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.samefill import same_word
from zramcore.simulation.sizes import spread

ALGORITHMS = ("lzo-rle", "lzo", "lz4", "lz4hc", "zstd", "deflate")
PAGE, PAGES = 4096, 512


def pages_of(pid: int) -> list[bytes]:
    """The pages of a process that are its own: anonymous memory, as goes to swap."""
    found = []
    for name, pieces in process_extents(pid):
        if "/" in name:  # a file's
            continue
        for piece in pieces:
            found += [bytes(piece[at : at + PAGE]) for at in range(0, len(piece) - PAGE + 1, PAGE)]
    return found


def main() -> None:
    """Print the file."""
    pages = [page for pid in sys.argv[1:] for page in spread(pages_of(int(pid)), 1 << 14)]
    chosen = spread(pages, PAGES)
    compressors = build_catalogue(load_plugins()).compressors
    names = [name for name in ALGORITHMS if name in compressors]
    contexts = [compressors[name](CompressorParams(page_size=PAGE)).create_context() for name in names]
    print(f"# Compressed sizes of {len(chosen)} pages of {PAGE} bytes, one a line, in bytes; 0: same-filled.")
    print(
        "# Anonymous memory of four processes: mypy that checked this project, Python that drew a plot with matplotlib,"
    )
    print(
        "# Python that holds 10 MB of gzip and PNG files, a shell. Default parameters. Made by docs/make_page_sizes.py,"
    )
    print(f"# {platform.machine()}, {date.today()}, by docs/make_page_sizes.py.")
    print(*names)
    for page in chosen:
        same = same_word(page) is not None
        print(*(0 if same else min(PAGE, len(context.compress_page(page))) for context in contexts))


if __name__ == "__main__":
    main()
