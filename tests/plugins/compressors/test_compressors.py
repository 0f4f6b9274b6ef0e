"""All built-in compressors: how they register, and a round trip of whatever hypothesis thinks of."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore.interfaces import Compressor, CompressorParams
from zramcore_plugins import compressors

BUILT_IN = list(compressors.zramcore_compressors())


def test_order_is_the_kernels() -> None:
    """comp_algorithm lists them so, and the first is the default of a device."""
    assert [compressor.name for compressor in BUILT_IN] == ["lz4", "lz4hc", "zstd", "deflate", "store"]


def test_summaries_fit_a_line() -> None:
    for compressor in BUILT_IN:
        assert 0 < len(compressor.summary) <= 100, compressor.name


PIECES = st.tuples(st.sampled_from(("run", "word", "random", "copy")), st.integers(1, 4096), st.integers(0, 2**24 - 1))


def build(pieces: list[tuple[str, int, int]]) -> bytes:
    """A page of pieces (kind, length, number), filled up with zeros: what compressors find easy, hard or odd."""
    out = bytearray()
    for kind, length, number in pieces:
        if kind == "run":
            out += bytes([number & 0xFF]) * length
        elif kind == "word":
            out += (number.to_bytes(3, "little") * length)[:length]
        elif kind == "random":
            out += random.Random(number).randbytes(length)
        elif out:
            start = number % len(out)
            out += out[start : start + length]
    return bytes(out[:4096]).ljust(4096, b"\0")


@pytest.mark.parametrize("compressor", BUILT_IN, ids=lambda compressor: compressor.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(batch=st.lists(st.lists(PIECES, max_size=8).map(build), min_size=1, max_size=4))
def test_round_trip(compressor: type[Compressor], batch: list[bytes]) -> None:
    context = compressor(CompressorParams()).create_context()
    objects = context.compress_pages(batch)
    assert list(map(bytes, objects)) == [bytes(context.compress_page(page)) for page in batch]
    assert context.decompress_pages(objects, 4096) == batch
