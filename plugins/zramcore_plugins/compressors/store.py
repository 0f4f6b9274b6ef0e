"""store: no compression at all. Every page that is not same-filled becomes a huge one: for tests and yardsticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from zramcore.errors import CorruptPage
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams

from .parameters import check_supported


class StoreContext(CompressorContext):
    """Pages as they are. They are copied unless they are bytes, for the caller's buffers end with the call."""

    def compress_page(self, page: Buffer) -> bytes:
        return bytes(page)

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        return [bytes(page) for page in pages]

    def decompress_page(self, data: Buffer, page_size: int) -> bytes:
        if len(data) != page_size:
            raise CorruptPage(f"store: the object has {len(data)} bytes, not {page_size}")
        return bytes(data)


class Store(Compressor):
    """The page itself; no parameters."""

    name: ClassVar[str] = "store"
    summary: ClassVar[str] = "no compression: every page is huge; for tests"

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        check_supported(self.name, params)

    def create_context(self) -> StoreContext:
        return StoreContext()
