"""lz4hc: lz4's format, searched for longer when compressing; decompression is lz4's own."""

from __future__ import annotations

from typing import ClassVar

from zramcore.interfaces import Compressor, CompressorParams, NativeCodec

from .lz4 import MAX_DICTIONARY, BlockContext
from .lz4_library import block_codec
from .parameters import check_dictionary_size, check_range, check_supported

DEFAULT_LEVEL = 9
MIN_LEVEL = 1
MAX_LEVEL = 16
"""The kernel's range; the library stops at 12 and takes 13..16 as 12."""


class Lz4hc(Compressor):
    """LZ4_compress_HC. level: 1..16, default 9; dict: 1..65536 bytes.

    The kernel takes a longer dictionary and then fails every write with EINVAL; here disksize fails.
    """

    name: ClassVar[str] = "lz4hc"
    summary: ClassVar[str] = "lz4's format, packed tighter and slower; level 1..16 (default 9); dict"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        check_supported(self.name, params, level=True, dictionary=True)
        level = DEFAULT_LEVEL if params.level is None else params.level
        self._level = check_range(self.name, "level", level, MIN_LEVEL, MAX_LEVEL)
        check_dictionary_size(self.name, params.dictionary, 1, MAX_DICTIONARY)

    def create_context(self) -> BlockContext:
        return BlockContext(self.name, "high_compression", 1, self._level, self.params.dictionary)

    def native_codec(self) -> NativeCodec | None:
        if self.params.dictionary is not None:
            return None
        names = ("LZ4_compress_HC_extStateHC", "LZ4_sizeofStateHC")
        return block_codec(*names, self._level, self.params.page_size, quick=False)
