"""lz4: conformance, the kernel's parameter rules and its sizes."""

from __future__ import annotations

import lz4.block
import pytest

from zramcore.errors import CorruptPage, InvalidValue, NotSupported
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Lz4, lz4_library


class TestConformance(CompressorConformance):
    levels = (1, 2, 10, 65537, 2**31 - 1)
    refused_levels = (0, -1, -(2**31))
    dictionaries = (b"8 bytes!", b"handle slot writeback " * 50, bytes(range(256)) * 256)

    def create(self, params: CompressorParams) -> Lz4:
        return Lz4(params)


def test_sizes_are_the_kernels(differences) -> None:
    assert differences("lz4", Lz4(CompressorParams())) == {}


def test_sizes_without_the_librarys_functions(differences, monkeypatch) -> None:
    """lz4.block's own calls take another table than the kernel: exactly these pages differ, (kernel, ours)."""
    monkeypatch.setattr(lz4_library, "find_library", lambda: None)
    assert Lz4(CompressorParams()).native_codec() is None
    assert differences("lz4", Lz4(CompressorParams())) == {
        10: (2633, 2665),
        11: (2640, 2624),
        16: (2863, 2575),
        17: (2479, 2039),
        21: (2513, 2537),
        22: (716, 706),
        23: (2214, 2215),
        24: (2737, 2743),
    }


def test_level_is_the_acceleration(monkeypatch) -> None:
    page = make_pages(4096)["text"]
    fast, faster = (Lz4(CompressorParams(level=level)).create_context().compress_page(page) for level in (1, 20))
    assert len(fast) < len(faster)
    monkeypatch.setattr(lz4_library, "find_library", lambda: None)
    objects = [bytes(Lz4(CompressorParams(level=level)).create_context().compress_page(page)) for level in (1, 20)]
    assert objects == [lz4.block.compress(page, store_size=False, mode="fast", acceleration=level) for level in (1, 20)]
    assert len(objects[0]) < len(objects[1])


class TestConformanceWithoutTheLibrary(TestConformance):
    """The same when only lz4.block's own calls are to be had."""

    @pytest.fixture(autouse=True)
    def no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lz4_library, "find_library", lambda: None)


def test_blocks_are_plain_lz4() -> None:
    page = make_pages(4096)["structured"]
    data = Lz4(CompressorParams()).create_context().compress_page(page)
    assert lz4.block.decompress(data, uncompressed_size=4096) == page


def test_dictionary_makes_pages_smaller_and_is_needed_to_read_them() -> None:
    page = make_pages(4096)["random"]
    context = Lz4(CompressorParams(dictionary=page)).create_context()
    data = context.compress_page(page)
    assert len(data) < 64
    with pytest.raises(CorruptPage):
        Lz4(CompressorParams()).create_context().decompress_page(data, 4096)
    with pytest.raises(CorruptPage):
        Lz4(CompressorParams()).create_context().decompress_pages([data], 4096)


@pytest.mark.parametrize("size", [1, 7, 65537])
def test_dictionary_sizes_that_the_kernel_refuses(size: int) -> None:
    with pytest.raises(InvalidValue, match=f"{size} bytes"):
        Lz4(CompressorParams(dictionary=bytes(size)))


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(InvalidValue) as level:
        Lz4(CompressorParams(level=0))
    assert level.value.hint == "use 1..2147483647"
    with pytest.raises(NotSupported) as winbits:
        Lz4(CompressorParams(winbits=11))
    assert winbits.value.hint == "it takes level, dict"


def test_a_short_block_is_found_in_a_batch() -> None:
    context = Lz4(CompressorParams()).create_context()
    short = lz4.block.compress(bytes(4095), store_size=False)
    whole = context.compress_page(bytes(4096))
    for batch in ([short], [whole, short], [short, whole, whole]):
        with pytest.raises(CorruptPage, match="shorter than 4096"):
            context.decompress_pages(batch, 4096)
    with pytest.raises(CorruptPage, match="4095 bytes came out"):
        context.decompress_page(short, 4096)
