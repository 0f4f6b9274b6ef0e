"""zstd: conformance, sizes equal to the kernel's on every page, dictionaries, and frames that lie about their size."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard

from zramcore.errors import CorruptPage, InvalidValue
from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import WORDS, make_pages
from zramcore_plugins.compressors import Zstd
from zramcore_plugins.compressors.zstd import THREADED_PAGES


def train() -> bytes:
    source = random.Random(7)
    samples = [b" ".join(source.choice(WORDS) for _ in range(200)) for _ in range(400)]
    return zstandard.train_dictionary(4096, samples).as_bytes()


TRAINED = train()


class TestConformance(CompressorConformance):
    levels = (-131072, -5, -1, 0, 1, 3, 9, 19, 22)
    refused_levels = (23, 100, 2**31 - 1, -131073, -(2**31))
    dictionaries = (TRAINED, b"x", b"handle slot writeback " * 50, bytes(range(256)) * 1024)

    def create(self, params: CompressorParams) -> Zstd:
        return Zstd(params)


@pytest.mark.parametrize(("column", "level"), [("zstd", None), ("zstd", 3), ("zstd", 0), ("zstd-1", 1), ("zstd-9", 9)])
def test_sizes_are_the_kernels(differences, column: str, level: int | None) -> None:
    assert differences(column, Zstd(CompressorParams(level=level))) == {}


def test_batch_sizes_are_those_of_fresh_streams(varied_pages) -> None:
    """Reusing a stream carries nothing over from page to page."""
    pages = varied_pages * 2
    reused = Zstd(CompressorParams()).create_context().compress_pages(pages)
    assert reused == [zstandard.ZstdCompressor(level=3).compress(page) for page in pages]


@pytest.mark.parametrize("dictionary", [None, TRAINED, b"handle slot writeback " * 50])
@pytest.mark.parametrize("level", [-5, 3, 12])
def test_threads_change_no_byte(varied_pages, level: int, dictionary: bytes | None) -> None:
    pages = [memoryview(page) for page in [*varied_pages, *make_pages(4096).values()] * 3]
    assert len(pages) >= THREADED_PAGES
    one, several = (Zstd(CompressorParams(level=level, dictionary=dictionary)).create_context() for _ in range(2))
    several.workers = 3
    assert several.compress_pages(pages) == one.compress_pages(pages)
    assert several.compress_pages(pages[:5]) == one.compress_pages(pages[:5])


def test_trained_dictionary_is_recognised_and_helps() -> None:
    page = make_pages(4096)["text"]
    with_it = Zstd(CompressorParams(dictionary=TRAINED)).create_context().compress_page(page)
    without = Zstd(CompressorParams()).create_context().compress_page(page)
    assert len(with_it) < len(without)
    assert zstandard.get_frame_parameters(with_it).dict_id == zstandard.ZstdCompressionDict(TRAINED).dict_id() != 0


def test_raw_dictionary_has_no_id() -> None:
    page = make_pages(4096)["random"]
    context = Zstd(CompressorParams(dictionary=page)).create_context()
    data = context.compress_page(page)
    assert len(data) < 64
    assert zstandard.get_frame_parameters(data).dict_id == 0
    assert context.decompress_page(data, 4096) == page


def test_page_of_another_dictionary_is_corrupt() -> None:
    page = make_pages(4096)["text"]
    data = Zstd(CompressorParams(dictionary=TRAINED)).create_context().compress_page(page)
    for other in (None, b"handle slot writeback " * 50):
        context = Zstd(CompressorParams(dictionary=other)).create_context()
        with pytest.raises(CorruptPage):
            context.decompress_page(data, 4096)
        with pytest.raises(CorruptPage):
            context.decompress_pages([data], 4096)


def test_damaged_trained_dictionary_fails_at_disksize() -> None:
    """The magic number says that tables follow: they must be there when the device is set up, not at a read."""
    with pytest.raises(InvalidValue, match="cannot use the dictionary") as caught:
        Zstd(CompressorParams(dictionary=TRAINED[:8] + b"\xff" * 200))
    assert caught.value.hint


def test_level_applies_with_a_dictionary() -> None:
    page = make_pages(65536)["text"]
    sizes = [
        len(Zstd(CompressorParams(65536, level, TRAINED)).create_context().compress_page(page))
        for level in (-50, 3, 19)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("claimed", [0, 4095, 4097, 1 << 30, (1 << 63) - 1])
def test_a_frame_that_claims_another_size_allocates_nothing(claimed: int) -> None:
    context = Zstd(CompressorParams()).create_context()
    frame = b"\x28\xb5\x2f\xfd\xe0" + claimed.to_bytes(8, "little") + b"\x01\x00\x00"
    tracemalloc.start()
    try:
        with pytest.raises(CorruptPage, match="does not hold 4096"):
            context.decompress_page(frame, 4096)
        with pytest.raises(CorruptPage, match="does not hold 4096"):
            context.decompress_pages([context.compress_page(bytes(4096)), frame], 4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_frames_without_a_size_and_skippable_frames_are_no_pages() -> None:
    context = Zstd(CompressorParams()).create_context()
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4096))
    skippable = b"\x50\x2a\x4d\x18" + (4096).to_bytes(4, "little") + bytes(4096)
    for frame in (unsized, skippable):
        with pytest.raises(CorruptPage):
            context.decompress_page(frame, 4096)
        with pytest.raises(CorruptPage):
            context.decompress_pages([frame], 4096)


def test_nothing_may_follow_the_frame() -> None:
    context = Zstd(CompressorParams()).create_context()
    data = context.compress_page(bytes(4096)) + b"\0"
    with pytest.raises(CorruptPage):
        context.decompress_page(data, 4096)
    with pytest.raises(CorruptPage):
        context.decompress_pages([data], 4096)
