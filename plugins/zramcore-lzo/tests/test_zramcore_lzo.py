"""zramcore-lzo, tested as any plugin is: by the conformance class that zramcore ships, and by what is its own."""

from __future__ import annotations

import lzo
import pytest
from zramcore.errors import CorruptPage, NotSupported
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import make_pages

from zramcore_lzo import Lzo, LzoRle, zramcore_compressors


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
