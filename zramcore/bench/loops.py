"""The bare codec: a loop that does nothing but compress or decompress pages. No device can be faster.

A loop in C is the true limit. Where a compressor has none, its own calls in a Python loop stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..interfaces import Buffer, Compressor, CompressorContext, CompressorParams
from .data import PAGE
from .rounds import Job


class BareLoop:
    """The codec of one compressor, called page by page from Python; the results are dropped."""

    def __init__(self, compressor: type[Compressor]) -> None:
        """Raises what the compressor says when it is set up without parameters."""
        self._compressor = compressor(CompressorParams(page_size=PAGE))
        self._contexts: list[CompressorContext] = []
        self.side = f"bare {compressor.name} calls"

    def objects(self, pages: Sequence[Buffer]) -> list[Buffer]:
        """The pages, compressed."""
        return [bytes(data) for data in self.context(0).compress_pages(pages)]

    def job(self, part: int, pages: Sequence[Buffer], objects: Sequence[Buffer]) -> Job:
        """Compress the pages and decompress the objects, in thread number `part`."""
        context = self.context(part)
        compress: Callable[[Buffer], Buffer] = context.compress_call
        decompress: Callable[[Buffer, int], Buffer] = context.decompress_call

        def run() -> None:
            for page in pages:
                compress(page)
            for data in objects:
                decompress(data, PAGE)

        return run

    def context(self, part: int) -> CompressorContext:
        """The context of thread number `part`: its scratch memory belongs to one thread."""
        while len(self._contexts) <= part:
            self._contexts.append(self._compressor.create_context())
        return self._contexts[part]
