"""deflate: conformance, window bits, the kernel's sizes, and streams that would grow without end."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from zramcore.errors import CorruptPage, InvalidValue, NotSupported
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Deflate


class TestConformance(CompressorConformance):
    levels = (-1, 0, 1, 6, 9)
    refused_levels = (-2, 10, -(2**31), 2**31 - 1)
    winbits = (-15, -12, -11, -9, 9, 11, 15)

    def create(self, params: CompressorParams) -> Deflate:
        return Deflate(params)


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng searches differently from zlib")
def test_sizes_against_the_kernel(differences) -> None:
    """Exactly this page differs from the kernel's older zlib, (kernel, ours)."""
    assert differences("deflate", Deflate(CompressorParams())) == {24: (2389, 2388)}


def test_default_is_raw_with_11_window_bits() -> None:
    page = make_pages(65536)["text"]
    data = Deflate(CompressorParams(page_size=65536)).create_context().compress_page(page)
    stream = zlib.compressobj(wbits=-11, memLevel=9)
    assert data == stream.compress(page) + stream.flush()
    assert zlib.decompress(data, wbits=-11) == page


def test_a_larger_window_packs_tighter() -> None:
    page = make_pages(4096)["random"] * 4
    sizes = [
        len(Deflate(CompressorParams(16384, winbits=winbits)).create_context().compress_page(page))
        for winbits in (-11, -15)
    ]
    assert sizes[0] > 16384 > 8192 > sizes[1]


def test_positive_winbits_add_zlibs_header_and_checksum() -> None:
    page = make_pages(4096)["text"]
    raw = Deflate(CompressorParams(winbits=-11)).create_context().compress_page(page)
    context = Deflate(CompressorParams(winbits=11)).create_context()
    wrapped = context.compress_page(page)
    assert wrapped[2:-4] == raw
    with pytest.raises(CorruptPage, match="incorrect data check"):
        context.decompress_page(wrapped[:-1] + bytes([wrapped[-1] ^ 1]), 4096)


@pytest.mark.parametrize("winbits", [-(2**31), -16, -8, -1, 0, 8, 16, 27, 31, 47, 2**31 - 1])
def test_winbits_out_of_range(winbits: int) -> None:
    """8 is out as well, and so are zlib's numbers for gzip."""
    with pytest.raises(InvalidValue) as caught:
        Deflate(CompressorParams(winbits=winbits))
    assert caught.value.hint == "use -15..-9 (raw) or 9..15 (with zlib's header)"


def test_dictionary_is_not_supported() -> None:
    with pytest.raises(NotSupported) as caught:
        Deflate(CompressorParams(dictionary=b"words"))
    assert caught.value.hint == "it takes level, deflate.winbits"


def test_a_bomb_is_cut_off_after_one_page() -> None:
    context = Deflate(CompressorParams()).create_context()
    stream = zlib.compressobj(9, zlib.DEFLATED, -11)
    bomb = stream.compress(bytes(4_000_000)) + stream.flush()
    assert len(bomb) < 4096
    tracemalloc.start()
    try:
        for decompress in (context.decompress_page, lambda data, size: context.decompress_pages([data], size)):
            with pytest.raises(CorruptPage, match="exactly 4096"):
                decompress(bomb, 4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_an_unfinished_stream_is_corrupt() -> None:
    """All bytes of the page are there, but the end of the stream is not."""
    context = Deflate(CompressorParams()).create_context()
    stream = zlib.compressobj(-1, zlib.DEFLATED, -11, 9)
    data = stream.compress(bytes(4096)) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert zlib.decompressobj(-11).decompress(data) == bytes(4096)
    with pytest.raises(CorruptPage):
        context.decompress_page(data, 4096)
