"""lz4hc: conformance, the kernel's parameter rules and its sizes."""

from __future__ import annotations

import lz4.block
import pytest

from zramcore.errors import CorruptPage, InvalidValue
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Lz4, Lz4hc


class TestConformance(CompressorConformance):
    levels = (1, 2, 3, 9, 12, 16)
    refused_levels = (0, -1, 17, -(2**31), 2**31 - 1)
    dictionaries = (b"x", b"handle slot writeback " * 50, bytes(range(256)) * 256)

    def create(self, params: CompressorParams) -> Lz4hc:
        return Lz4hc(params)


def test_sizes_against_the_kernel(differences) -> None:
    """python-lz4 carries a newer lz4 than the kernel: exactly these pages differ, (kernel, ours)."""
    assert differences("lz4hc", Lz4hc(CompressorParams())) == {
        6: (31, 30),
        11: (2432, 2427),
        17: (1214, 1213),
        22: (531, 521),
        23: (2213, 2211),
        24: (2703, 2685),
    }


def test_default_level_is_9() -> None:
    page = make_pages(4096)["text"]
    expected = lz4.block.compress(page, store_size=False, mode="high_compression", compression=9)
    assert Lz4hc(CompressorParams()).create_context().compress_page(page) == expected


def test_levels_pack_tighter() -> None:
    page = make_pages(65536)["text"]
    sizes = [len(Lz4hc(CompressorParams(level=level)).create_context().compress_page(page)) for level in (1, 9, 12, 16)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] == sizes[3], "the library stops at 12"


def test_lz4_reads_it() -> None:
    page = make_pages(4096)["text"]
    data = Lz4hc(CompressorParams()).create_context().compress_page(page)
    assert Lz4(CompressorParams()).create_context().decompress_page(data, 4096) == page


def test_dictionary_of_more_than_64_kib_is_refused() -> None:
    with pytest.raises(InvalidValue, match="65537 bytes"):
        Lz4hc(CompressorParams(dictionary=bytes(65537)))


def test_errors_name_the_algorithm() -> None:
    with pytest.raises(CorruptPage, match="lz4hc: "):
        Lz4hc(CompressorParams()).create_context().decompress_page(b"\xff" * 40, 4096)
