"""zramcore-lzo, tested as any plugin is: by the conformance class that zramcore ships, and by what is its own."""

from __future__ import annotations

import ctypes
import sys

import lzo
import pytest
from zramcore.errors import CorruptPage, NotSupported
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.native_codec import COMPRESS, DECOMPRESS
from zramcore.testing.samples import PAGE_SIZES, make_pages

import zramcore_lzo
from zramcore_lzo import Lzo, LzoRle, load_codec, zramcore_compressors

with_c_functions = pytest.mark.skipif(
    load_codec() is None, reason="the extension was not built: it needs a C compiler and LZO's headers"
)


class TestLzo(CompressorConformance):
    def create(self, params: CompressorParams) -> Lzo:
        return Lzo(params)


class TestLzoRle(CompressorConformance):
    def create(self, params: CompressorParams) -> LzoRle:
        return LzoRle(params)


def test_names_in_the_kernels_order():
    assert [compressor.name for compressor in zramcore_compressors()] == ["lzo-rle", "lzo"]


def test_the_algorithm_is_lzo1x_1_without_a_header():
    page = make_pages(4096)["text"]
    data = Lzo(CompressorParams()).create_context().compress_page(page)
    assert data == lzo.compress(page, 1, False, algorithm="LZO1X")
    assert data != lzo.compress(page, 9, False)


def test_lzo_rle_is_an_alias():
    pages = list(make_pages(4096).values())
    plain, alias = (kind(CompressorParams()).create_context() for kind in (Lzo, LzoRle))
    objects = alias.compress_pages(pages)
    assert objects == plain.compress_pages(pages)
    assert plain.decompress_pages(objects, 4096) == pages


def test_a_short_block_is_found_in_a_batch():
    context = LzoRle(CompressorParams()).create_context()
    short = lzo.compress(bytes(4095), 1, False)
    whole = context.compress_page(bytes(4096))
    for batch in ([short], [whole, short], [short, whole, whole]):
        with pytest.raises(CorruptPage, match="lzo-rle: a page came out shorter than 4096"):
            context.decompress_pages(batch, 4096)
    with pytest.raises(CorruptPage, match="4095 bytes came out"):
        context.decompress_page(short, 4096)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (CompressorParams(level=1), "level"),
        (CompressorParams(dictionary=b"words"), "dict"),
        (CompressorParams(winbits=-11), "deflate.winbits"),
    ],
)
def test_a_refused_parameter_is_named(params: CompressorParams, named: str):
    with pytest.raises(NotSupported) as caught:
        LzoRle(params)
    assert caught.value.reason == f"lzo-rle does not take {named}"


# C functions; what holds for those of any compressor is in the conformance class


@with_c_functions
@pytest.mark.parametrize("kind", [Lzo, LzoRle])
def test_c_functions_are_handed_over(kind: type[Lzo]):
    codec = kind(CompressorParams(page_size=16384)).native_codec()
    assert codec is not None
    assert codec.state_size == 16384 * ctypes.sizeof(ctypes.c_void_p)
    assert codec.most_bytes == 16384 + 16384 // 16 + 64 + 3


@with_c_functions
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_nothing_is_written_to_an_output_that_might_be_too_short(page_size: int):
    """lzo1x_1_compress is not told where its output ends."""
    codec = Lzo(CompressorParams(page_size=page_size)).native_codec()
    assert codec is not None
    state = ctypes.create_string_buffer(codec.state_size)
    out = ctypes.create_string_buffer(b"\xa5" * codec.most_bytes, codec.most_bytes)
    for size in (codec.most_bytes - 1, page_size, 1, 0, -1):
        assert COMPRESS(codec.compress)(ctypes.addressof(state), bytes(page_size), out, page_size, size, 0) == 0
    assert out.raw == b"\xa5" * codec.most_bytes
    assert COMPRESS(codec.compress)(ctypes.addressof(state), bytes(page_size), out, page_size, len(out), 0) > 0


@with_c_functions
def test_sizes_below_zero_are_errors():
    codec = Lzo(CompressorParams()).native_codec()
    assert codec is not None
    page = ctypes.create_string_buffer(b"\xa5" * 4096, 4096)
    data = lzo.compress(bytes(4096), 1, False)
    assert DECOMPRESS(codec.decompress)(data, page, -1, 4096) < 0
    assert DECOMPRESS(codec.decompress)(data, page, len(data), -1) < 0
    assert page.raw == b"\xa5" * 4096


@with_c_functions
@pytest.mark.parametrize("page_size", [0, -1, (1 << 24) + 1])
def test_the_bound_of_a_page_that_no_device_has(page_size: int):
    codec = load_codec()
    assert codec is not None
    with pytest.raises(ValueError, match="16 MiB"):
        codec.most_bytes(page_size)


@with_c_functions
def test_another_version_than_python_lzos_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lzo, "LZO_VERSION_STRING", b"2.09")
    assert load_codec() is None


def test_without_the_extension_python_lzo_does_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "zramcore_lzo._codec", None)
    monkeypatch.setattr(zramcore_lzo, "codec", load_codec())
    assert Lzo(CompressorParams()).native_codec() is None
    assert LzoRle(CompressorParams()).native_codec() is None
