"""Train a zstd dictionary for a device's pages, and measure on pages it was not trained on whether it helps.

Memory is bounded whatever the amount of data: of all different pages those with the smallest digests are kept, which
is a fair sample of them, the same for the same data in any order. A page's digest also says whether it is for training
or held out: equal pages are on one side, or duplicates would flatter the dictionary. Same-filled pages never
reach a compressor and are left out.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from . import attributes, samefill
from .device import Device
from .errors import CorruptPage, InvalidValue
from .interfaces import Buffer, Catalogue

TRAIN_BYTES = 16 << 20
"""Pages kept for training. Twice as many gained 0.2 % on 240 MiB of binaries and took twice as long (2.6 s)."""
HELD_OUT_BYTES = 4 << 20
HELD_OUT_SHARE = 8
"""One page of so many is held out."""
LEAST_HELD_OUT = 8
LEAST_TIMES = 10
"""Data for training that a dictionary needs, in times its size; zstd's advice is 100."""
LEAST_SIZE = 256
"""ZDICT_DICTSIZE_MIN."""
CHUNK_PAGES = 256


class Sample:
    """Up to `capacity` different pages: those with the smallest digests of all that were offered."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._pages: dict[int, bytes] = {}
        self._largest: list[int] = []  # the digests, negated: heapq keeps the smallest at hand

    def offer(self, digest: int, page: bytes) -> None:
        """Keep the page, if its digest is small enough and new."""
        if digest in self._pages:
            return
        if len(self._pages) < self.capacity:
            heapq.heappush(self._largest, -digest)
        elif digest < -self._largest[0]:
            del self._pages[-heapq.heapreplace(self._largest, -digest)]
        else:
            return
        self._pages[digest] = page

    def pages(self) -> list[bytes]:
        """The pages, in the order of their digests."""
        return [self._pages[digest] for digest in sorted(self._pages)]

    def __len__(self) -> int:
        return len(self._pages)


class Sampler:
    """Cuts data into pages of `page_size` bytes, and keeps some to train a dictionary of `size` bytes and some to
    measure it with."""

    def __init__(self, size: int, page_size: int = 4096) -> None:
        """Raises InvalidValue (EINVAL) for a size below 256 bytes."""
        if size < LEAST_SIZE:
            raise InvalidValue(f"a dictionary has at least {LEAST_SIZE} bytes, not {size}")
        self.size = size
        self.page_size = page_size
        self.train = Sample(max(TRAIN_BYTES, LEAST_TIMES * size + page_size) // page_size)
        self.held_out = Sample(HELD_OUT_BYTES // page_size)
        self.pages_seen = 0
        self.same_filled = 0
        self._rest = b""

    def add(self, data: bytes) -> None:
        """More data; what follows continues its last page. An incomplete page at the very end is left out."""
        data = self._rest + data
        size = self.page_size
        end = len(data) - len(data) % size
        for offset in range(0, end, size):
            self._add_page(data[offset : offset + size])
        self._rest = data[end:]

    def _add_page(self, page: bytes) -> None:
        self.pages_seen += 1
        if samefill.same_word(page) is not None:
            self.same_filled += 1
            return
        digest = int.from_bytes(hashlib.blake2b(page, digest_size=8).digest(), "big")
        (self.train if digest % HELD_OUT_SHARE else self.held_out).offer(digest, page)


def train(sampler: Sampler, level: int = 3) -> bytes:
    """A dictionary of at most the sampler's size, tuned for compressing at `level`.

    Raises InvalidValue (EINVAL) when there is too little data, and when zstd cannot make one of it.
    """
    size = sampler.size
    pages: list[Buffer] = [*sampler.train.pages()]
    least = -(-size * LEAST_TIMES // sampler.page_size)
    if len(pages) < least or len(sampler.held_out) < LEAST_HELD_OUT:
        kept = len(pages) + len(sampler.held_out)
        needed = max(least, LEAST_HELD_OUT * HELD_OUT_SHARE) * HELD_OUT_SHARE // (HELD_OUT_SHARE - 1)
        raise InvalidValue(
            f"too little data for a dictionary of {size} bytes: {kept} different pages of {sampler.page_size} bytes "
            f"that are not same-filled, about {needed} are needed",
            hint="give more data, or a smaller size",
        )
    try:
        return zstandard.train_dictionary(size, pages, level=level).as_bytes()
    except zstandard.ZstdError as error:
        raise InvalidValue(f"zstd cannot make a dictionary of this data: {error}", hint="give more data") from error


@dataclass(frozen=True)
class Measure:
    """What mm_stat said of some pages, in bytes. Not mem_used_total: of so few pages it shows how full the last zspages
    happen to be."""

    orig_data_size: int
    compr_data_size: int

    @property
    def ratio(self) -> float:
        """orig_data_size to compr_data_size."""
        return self.orig_data_size / self.compr_data_size


def measure(
    catalogue: Catalogue, pages: Sequence[bytes], *, page_size: int, level: int, dictionary: bytes | None
) -> Measure:
    """Write `pages` to a zstd device with these parameters, and read them back.

    Raises what its attributes raise (a level that zstd does not have: EINVAL), CorruptPage when a page came back
    different.
    """
    device = Device(catalogue, "dictionary", page_size=page_size)
    attributes.store(device, "comp_algorithm", "zstd")
    with tempfile.NamedTemporaryFile(prefix="zramcore-dict-") as file:
        params = f"level={level}"
        if dictionary is not None:
            file.write(dictionary)
            file.flush()
            params += f' dict="{file.name}"'
        attributes.store(device, "algorithm_params", params)
    attributes.store(device, "disksize", str(len(pages) * page_size))
    try:
        for first in range(0, len(pages), CHUNK_PAGES):
            data = b"".join(pages[first : first + CHUNK_PAGES])
            device.pwrite(first * page_size, data)
            if device.pread(first * page_size, len(data)) != data:
                raise CorruptPage("a page came back different", hint="do not use this dictionary")
        columns = attributes.show(device, "mm_stat").split()
        return Measure(int(columns[0]), int(columns[1]))
    finally:
        device.reset()
