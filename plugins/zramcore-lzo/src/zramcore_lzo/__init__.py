"""lzo and lzo-rle for zramcore: LZO1X-1, the kernel's algorithm, by python-lzo.

lzo-rle is the same codec under the name of the kernel's default, so that a script or a configuration which says
`lzo-rle` works unchanged. The kernel's variant writes runs of zeros in a form that liblzo2 does not have: pages that
end in zeros take 2 or 3 % more here than in a kernel, some others take less.

The extension `_codec` has the same functions for zramcore's compiled data path. Without it python-lzo does all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import ClassVar

import lzo
from zramcore.errors import CorruptPage, InvalidValue, NotSupported
from zramcore.hookspecs import hookimpl
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams, NativeCodec

__all__ = ["Lzo", "LzoRle", "zramcore_compressors"]

LZO1X_1 = 1
"""python-lzo's level of the algorithm that the kernel has; its only other one, 9, is LZO1X-999."""

_compress: Callable[[bytes, int, bool], bytes] = lzo.compress
_decompress: Callable[[bytes, bool, int], bytes] = lzo.decompress


def load_codec() -> ModuleType | None:
    """The extension with the C functions; None when it was not built, or its liblzo2 is not python-lzo's.

    Another version may make other bytes of a page, and nobody is to see from the sizes which path a device takes.
    """
    try:
        found = import_module("._codec", __name__)
    except ImportError:
        return None
    return found if found.lzo_version == lzo.LZO_VERSION_STRING.decode() else None


codec = load_codec()


class LzoContext(CompressorContext):
    """Raw LZO1X blocks. python-lzo takes nothing but bytes, and bytes() of bytes is no copy."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm

    def compress_page(self, page: Buffer) -> bytes:
        return _compress(bytes(page), LZO1X_1, False)

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        compress = _compress
        return [compress(bytes(page), LZO1X_1, False) for page in pages]

    def decompress_page(self, data: Buffer, page_size: int) -> bytes:
        try:
            page = _decompress(bytes(data), False, page_size)
        except lzo.error as error:
            raise CorruptPage(f"{self._algorithm}: {error}") from error
        if len(page) != page_size:
            raise CorruptPage(f"{self._algorithm}: {len(page)} bytes came out where {page_size} went in")
        return page

    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        decompress = _decompress
        try:
            pages: list[Buffer] = [decompress(bytes(data), False, page_size) for data in objects]
        except lzo.error as error:
            raise CorruptPage(f"{self._algorithm}: {error}") from error
        # No page can be longer than asked for, so the total is right only when every length is.
        if sum(map(len, pages)) != page_size * len(pages):
            raise CorruptPage(f"{self._algorithm}: a page came out shorter than {page_size} bytes")
        return pages


class Lzo(Compressor):
    """LZO1X-1. It has no parameters: any is EOPNOTSUPP, as in the kernel; an empty dictionary is EINVAL."""

    name: ClassVar[str] = "lzo"
    summary: ClassVar[str] = "LZO1X-1, fast; no parameters"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        if params.dictionary == b"":
            raise InvalidValue("the dictionary is empty")
        given = {"level": params.level, "dict": params.dictionary, "deflate.winbits": params.winbits}
        for name, value in given.items():
            if value is not None:
                raise NotSupported(f"{self.name} does not take {name}", hint="it takes no parameters")

    def create_context(self) -> LzoContext:
        return LzoContext(self.name)

    def native_codec(self) -> NativeCodec | None:
        if codec is None:
            return None
        return NativeCodec(
            compress=codec.compress,
            decompress=codec.decompress,
            most_bytes=codec.most_bytes(self.params.page_size),
            state_size=codec.state_size,
            quick=self.params.page_size == 4096,
            library=codec,
        )


class LzoRle(Lzo):
    """The same codec under the name of the kernel's default algorithm; sizes differ from the kernel's."""

    name: ClassVar[str] = "lzo-rle"
    summary: ClassVar[str] = "the same as lzo, under the kernel's default name"


@hookimpl
def zramcore_compressors() -> Iterable[type[Compressor]]:
    """lzo-rle and lzo, in the kernel's order."""
    return [LzoRle, Lzo]
