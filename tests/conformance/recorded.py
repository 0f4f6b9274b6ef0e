"""Test-only compressors whose sizes are the kernel's: under the kernel's names, for replaying transcripts.

What they compress to is a token of the right length: the page itself is kept aside and found again by the token. The
sizes are those that transcript 04a records for pages 0 to 63 of pages.bin, else those of the models in sizes.py.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

import gen_pages
import sizes

from zramcore.errors import NotSupported
from zramcore.interfaces import Catalogue, Compressor, CompressorContext, CompressorParams

KERNEL_ORDER = ("lzo-rle", "lzo", "lz4", "lz4hc", "zstd", "deflate", "842")
_TABLE = Path(__file__).parent / "transcripts" / "04a-per-page-sizes.txt"
_TAG = 8
"""Bytes of a token that name its page."""


@functools.cache
def data_pages() -> list[bytes]:
    """The 512 pages of pages.bin."""
    return gen_pages.build()[0]


@functools.cache
def recorded_sizes() -> dict[tuple[str, bytes], int]:
    """(algorithm, page) -> compressed length, from transcript 04a; 4096 stands for a page kept as it is."""
    found: dict[tuple[str, bytes], int] = {}
    algorithm = ""
    for line in _TABLE.read_text().splitlines():
        if line.startswith("### "):
            algorithm = line.removeprefix("### algo ") if line.startswith("### algo ") else ""
        row = re.match(r" *([0-9]+) +([0-9]+) +4096 ", line)
        if row and algorithm and int(row[2]):
            found[algorithm, data_pages()[int(row[1])]] = int(row[2])
    return found


class _Context(CompressorContext):
    def __init__(self, name: str) -> None:
        self.name = name

    def compress_page(self, page: bytes | bytearray | memoryview) -> bytes:
        return _token(self.name, bytes(page))

    def decompress_page(self, data: bytes | bytearray | memoryview, page_size: int) -> bytes:
        return _PAGES[bytes(data[:_TAG])]


_PAGES: dict[bytes, bytes] = {}


@functools.lru_cache(maxsize=4096)
def _token(name: str, page: bytes) -> bytes:
    tag = hashlib.blake2b(page, digest_size=_TAG).digest()
    _PAGES[tag] = page
    size = recorded_sizes().get((name, page)) or sizes.MODELS[name](page)
    return tag.ljust(size, b"\0")


class Recorded(Compressor):
    """The base of them all."""

    takes_parameters = False

    def __init__(self, params: CompressorParams) -> None:
        if not self.takes_parameters and (params.level, params.dictionary, params.winbits) != (None, None, None):
            raise NotSupported(f"{self.name} takes no parameters")
        super().__init__(params)

    def create_context(self) -> CompressorContext:
        return _Context(self.name)


def with_recorded(catalogue: Catalogue) -> Catalogue:
    """`catalogue` with the kernel's algorithms in the kernel's order: its own zstd, the recorded others."""
    compressors: dict[str, type[Compressor]] = {}
    for name in KERNEL_ORDER:
        takes = name in ("lz4", "lz4hc", "deflate")
        compressors[name] = type(f"Recorded {name}", (Recorded,), {"name": name, "takes_parameters": takes})
    compressors["zstd"] = catalogue.compressors["zstd"]
    return Catalogue(compressors, catalogue.allocators, catalogue.backing_drivers, catalogue.policies)
