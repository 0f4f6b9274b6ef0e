"""deflate: the system's zlib, raw by default, with 11 window bits and the most memory, as the kernel's zram has it.

deflate.winbits goes to zlib as it is given: -9..-15 is raw deflate with that window, 9..15 adds zlib's header and
checksum (6 bytes). zlib has no window of 8 bits (it takes +8 for 9, and the kernel's refuses it): EINVAL.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

from zramcore.errors import CorruptPage, InvalidValue
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams

from .parameters import check_range, check_supported

DEFAULT_WINBITS = -11
MIN_WINBITS = 9
MAX_WINBITS = zlib.MAX_WBITS
MEM_LEVEL = 9
"""MAX_MEM_LEVEL, the kernel's choice; zlib's own default is 8."""


class DeflateContext(CompressorContext):
    """A new zlib stream for each page: copying a prepared one takes longer (187 against 180 us a page of real
    binaries, zlib 1.2.13), because the copy moves 256 KiB that a new stream only partly clears."""

    def __init__(self, level: int, winbits: int) -> None:
        self._level = level
        self._winbits = winbits

    def compress_page(self, page: Buffer) -> bytes:
        stream = zlib.compressobj(self._level, zlib.DEFLATED, self._winbits, MEM_LEVEL)
        return stream.compress(page) + stream.flush()

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        create, level, method, winbits = zlib.compressobj, self._level, zlib.DEFLATED, self._winbits
        objects: list[Buffer] = []
        for page in pages:
            stream = create(level, method, winbits, MEM_LEVEL)
            objects.append(stream.compress(page) + stream.flush())
        return objects

    def decompress_page(self, data: Buffer, page_size: int) -> bytes:
        stream = zlib.decompressobj(self._winbits)
        try:
            # One byte more than a page: enough to see the end of the stream, and all that damaged data can claim.
            page = stream.decompress(data, page_size + 1)
        except zlib.error as error:
            raise CorruptPage(f"deflate: {error}") from error
        if len(page) != page_size or not stream.eof or stream.unused_data:
            raise CorruptPage(f"deflate: the object does not hold exactly {page_size} bytes")
        return page


class Deflate(Compressor):
    """level: -1..9, default -1 (zlib's own, 6); deflate.winbits: 9..15 or -15..-9, default -11.

    A dictionary is EOPNOTSUPP: the kernel's deflate has none either.
    """

    name: ClassVar[str] = "deflate"
    summary: ClassVar[str] = "packs well, slowly; level -1..9 (default -1); deflate.winbits -15..-9 raw, 9..15 zlib"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        check_supported(self.name, params, level=True, winbits=True)
        level = zlib.Z_DEFAULT_COMPRESSION if params.level is None else params.level
        self._level = check_range(self.name, "level", level, zlib.Z_DEFAULT_COMPRESSION, zlib.Z_BEST_COMPRESSION)
        self._winbits = DEFAULT_WINBITS if params.winbits is None else params.winbits
        if not MIN_WINBITS <= abs(self._winbits) <= MAX_WINBITS:
            raise InvalidValue(
                f"deflate does not take deflate.winbits={self._winbits}",
                hint=f"use -{MAX_WINBITS}..-{MIN_WINBITS} (raw) or {MIN_WINBITS}..{MAX_WINBITS} (with zlib's header)",
            )

    def create_context(self) -> DeflateContext:
        return DeflateContext(self._level, self._winbits)
