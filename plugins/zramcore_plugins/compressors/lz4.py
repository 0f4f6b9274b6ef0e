"""lz4: the level is the kernel's acceleration, where more is faster and packs less; dictionaries of up to 64 KiB.

`BlockContext` is the whole of the hot path and serves lz4hc too: the two differ in three arguments of one call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import lz4.block

from zramcore.errors import CorruptPage
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams, NativeCodec

from .lz4_library import block_codec, compress_function
from .parameters import check_dictionary_size, check_range, check_supported

DEFAULT_ACCELERATION = 1
MAX_LEVEL = 2**31 - 1
"""algorithm_params reads an s32; lz4 itself treats all above 65537 alike."""
MIN_DICTIONARY = 8
MAX_DICTIONARY = 65536
"""LZ4_loadDict takes no shorter dictionary and only the end of a longer one; the kernel then answers EINVAL."""

_compress: Callable[..., bytes] = lz4.block.compress
_decompress: Callable[..., bytes] = lz4.block.decompress


class BlockContext(CompressorContext):
    """Raw lz4 blocks without a size header.

    Everything goes by position: keywords cost lz4.block 0.3 us a call (6.04 against 6.44 us to compress a page of
    real binaries, Python 3.11, lz4 4.4.5), so these loops are quicker than the obvious one.
    """

    def __init__(self, algorithm: str, mode: str, acceleration: int, compression: int, dictionary: bytes | None):
        self._algorithm = algorithm
        self._mode = mode
        self._acceleration = acceleration
        self._compression = compression
        self._dictionary = dictionary

    @property
    def decompress_call(self) -> Callable[[Buffer, int], Buffer]:
        """The library's function itself where it takes the same arguments: 0.2 us less a page."""
        return _decompress if self._dictionary is None else self.decompress_page

    def compress_page(self, page: Buffer) -> bytes:
        return _compress(page, self._mode, False, self._acceleration, self._compression, False, self._dictionary)

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        compress, mode, acceleration = _compress, self._mode, self._acceleration
        compression, dictionary = self._compression, self._dictionary
        return [compress(page, mode, False, acceleration, compression, False, dictionary) for page in pages]

    def decompress_page(self, data: Buffer, page_size: int) -> bytes:
        try:
            page = _decompress(data, page_size, False, self._dictionary)
        except lz4.block.LZ4BlockError as error:
            raise CorruptPage(f"{self._algorithm}: {error}") from error
        if len(page) != page_size:
            raise CorruptPage(f"{self._algorithm}: {len(page)} bytes came out where {page_size} went in")
        return page

    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        decompress, dictionary = _decompress, self._dictionary
        try:
            pages: list[Buffer] = [decompress(data, page_size, False, dictionary) for data in objects]
        except lz4.block.LZ4BlockError as error:
            raise CorruptPage(f"{self._algorithm}: {error}") from error
        # No page can be longer than asked for, so the total is right only when every length is.
        if sum(map(len, pages)) != page_size * len(pages):
            raise CorruptPage(f"{self._algorithm}: a page came out shorter than {page_size} bytes")
        return pages


class LibraryContext(BlockContext):
    """BlockContext by the function that the compiled path calls, so that both pack a page to the same bytes.

    The sizes are the kernel's on all 64 varied pages of transcript 04a, and 3 or 4 bytes off on 3 of 64 pages of text.
    lz4.block calls LZ4_compress_fast_continue, whose table is another: it differs on 8 of those 64 varied pages.
    A call through ctypes costs 1.2 us a page more than lz4.block's (7.6 against 6.4 us, Python 3.11).
    """

    def __init__(self, algorithm: str, codec: NativeCodec, page_size: int) -> None:
        super().__init__(algorithm, "fast", codec.level, 0, None)
        self._call = compress_function(codec)
        self._longest = page_size
        self._state = ctypes.create_string_buffer(codec.state_size)
        self._out: Any = ctypes.create_string_buffer(codec.most_bytes)
        # Addresses, because ctypes converts an int faster than an array: 0.2 us a page.
        self._fixed = ctypes.addressof(self._state), ctypes.addressof(self._out)

    def compress_page(self, page: Buffer) -> bytes:
        return self._compress_bytes(page if type(page) is bytes else bytes(page))

    def _compress_bytes(self, page: bytes) -> bytes:
        if len(page) > self._longest:
            return super().compress_page(page)
        state, out = self._fixed
        size = self._call(state, page, out, len(page), len(self._out), self._acceleration)
        if size <= 0:
            raise ValueError(f"{self._algorithm}: the page could not be compressed")
        packed: bytes = self._out[:size]
        return packed

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        compress = self._compress_bytes
        return [compress(bytes(page)) for page in pages]


class Lz4(Compressor):
    """LZ4_compress_fast. level: 1 and up, default 1; dict: 8..65536 bytes."""

    name: ClassVar[str] = "lz4"
    summary: ClassVar[str] = "fast; level is the acceleration (1 and up, default 1); dict"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        check_supported(self.name, params, level=True, dictionary=True)
        level = DEFAULT_ACCELERATION if params.level is None else params.level
        self._acceleration = check_range(self.name, "level", level, DEFAULT_ACCELERATION, MAX_LEVEL)
        check_dictionary_size(self.name, params.dictionary, MIN_DICTIONARY, MAX_DICTIONARY)

    def create_context(self) -> BlockContext:
        codec = self.native_codec()
        if codec is not None:
            return LibraryContext(self.name, codec, self.params.page_size)
        return BlockContext(self.name, "fast", self._acceleration, 0, self.params.dictionary)

    def native_codec(self) -> NativeCodec | None:
        if self.params.dictionary is not None:
            return None
        names = ("LZ4_compress_fast_extState", "LZ4_sizeofState")
        return block_codec(*names, self._acceleration, self.params.page_size, quick=self.params.page_size == 4096)
