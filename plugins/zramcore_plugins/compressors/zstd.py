"""zstd: at every level the frames have the kernel's own sizes, so mm_stat can match a kernel's to the byte.

A dictionary may be trained (`zstd --train`) or any bytes: the library tells by its magic number. It is digested
once for the device and shared by its contexts; the streams belong to one context each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import zstandard

from zramcore.errors import CorruptPage, InvalidValue
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams, NativeCodec

from .parameters import check_range, check_supported
from .zstd_library import codec

DEFAULT_LEVEL = 3
MIN_LEVEL = -(1 << 17)
"""ZSTD_minCLevel(), which the binding does not tell: -ZSTD_TARGETLENGTH_MAX."""
THREADED_PAGES = 128
"""Pages that are worth the library's own threads, which start with each call: with two of them 256 pages take 15.2 us
each instead of 19.6, but 64 pages 20.9 instead of 19.8. Decompression gains nothing (zstandard 0.25, level 3)."""
MAX_LEVEL = zstandard.MAX_COMPRESSION_LEVEL


class ZstdContext(CompressorContext):
    """One compression and one decompression stream: a new one for each page would cost 30 % more."""

    def __init__(self, level: int, dictionary: zstandard.ZstdCompressionDict | None) -> None:
        compressor = zstandard.ZstdCompressor(level=level, dict_data=dictionary)
        self._compress = compressor.compress
        self._compress_many = compressor.multi_compress_to_buffer
        self._decompress = zstandard.ZstdDecompressor(dict_data=dictionary).decompress

    def compress_page(self, page: Buffer) -> bytes:
        return self._compress(page)

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        if self.workers > 1 and len(pages) >= THREADED_PAGES:
            packed = self._compress_many(list(pages), threads=self.workers)
            return [packed[position].tobytes() for position in range(len(packed))]
        compress = self._compress
        return [compress(page) for page in pages]

    def decompress_page(self, data: Buffer, page_size: int) -> bytes:
        try:
            # The library allocates what a frame claims to hold: believe only the right size. It then checks that
            # so much came out, and (last argument) that nothing follows the frame.
            if zstandard.frame_content_size(data) == page_size:
                return self._decompress(data, page_size, False, False)
        except zstandard.ZstdError as error:
            raise CorruptPage(f"zstd: {error}") from error
        raise CorruptPage(f"zstd: the frame does not hold {page_size} bytes")

    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        decompress = self._decompress
        try:
            if set(map(zstandard.frame_content_size, objects)) <= {page_size}:
                return [decompress(data, page_size, False, False) for data in objects]
        except zstandard.ZstdError as error:
            raise CorruptPage(f"zstd: {error}") from error
        raise CorruptPage(f"zstd: a frame does not hold {page_size} bytes")


class Zstd(Compressor):
    """level: -131072..22, default 3 (0 means 3 too); dict: trained or raw."""

    name: ClassVar[str] = "zstd"
    summary: ClassVar[str] = f"packs well; level {MIN_LEVEL}..{MAX_LEVEL} (default {DEFAULT_LEVEL}); dict"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        check_supported(self.name, params, level=True, dictionary=True)
        level = DEFAULT_LEVEL if params.level is None else params.level
        self._level = check_range(self.name, "level", level, MIN_LEVEL, MAX_LEVEL)
        self._dictionary = self._digest(params)

    def _digest(self, params: CompressorParams) -> zstandard.ZstdCompressionDict | None:
        """The dictionary, prepared for this level and page size as the kernel prepares its cdict."""
        if params.dictionary is None:
            return None
        try:
            dictionary = zstandard.ZstdCompressionDict(params.dictionary)
            dictionary.precompute_compress(
                compression_params=zstandard.ZstdCompressionParameters.from_level(
                    self._level, source_size=params.page_size, dict_size=len(params.dictionary)
                )
            )
            # The decompressing half is digested at first use: a damaged dictionary must fail here, not on a read.
            context = ZstdContext(self._level, dictionary)
            context.decompress_page(context.compress_page(bytes(params.page_size)), params.page_size)
        except (zstandard.ZstdError, CorruptPage) as error:
            raise InvalidValue(
                f"zstd cannot use the dictionary: {error}", hint="train it again, or give plain bytes"
            ) from error
        return dictionary

    def create_context(self) -> ZstdContext:
        return ZstdContext(self._level, self._dictionary)

    def native_codec(self) -> NativeCodec | None:
        return codec(self._level, self.params.page_size) if self._dictionary is None else None
