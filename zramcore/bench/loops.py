"""The bare codec: a loop that does nothing but compress or decompress pages. No device can be faster.

A loop in C, without Python between the pages, is the true limit; it needs the compiled extension and a compressor that
hands over its C functions. Elsewhere the compressor's own calls in a Python loop stand for it. The side's name says
which it is.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from ..errors import DeviceIOError
from ..interfaces import Buffer, Compressor, CompressorContext, CompressorParams, NativeCodec
from ..native import load_batch
from .data import MIB, PAGE, Data, aligned_buffer
from .rounds import Job

BATCH = MIB // PAGE
"""Pages of one call: what it reads or writes then stays in the cache, as it does for a device."""


class BareLoop(abc.ABC):
    """The codec of one compressor without parameters, on some pages and what they are compressed. Nothing is kept."""

    how: str

    def __init__(self, name: str, contexts: Contexts, data: Data) -> None:
        self.side = f"bare {name} {self.how}"
        self.contexts = contexts
        self.objects: list[Buffer] = list(contexts.of(0).compress_pages(data.pages))

    @abc.abstractmethod
    def job(self, part: int, compress: Sequence[int], decompress: Sequence[int]) -> Job:
        """Compress pages and decompress objects of these numbers, by thread number `part`."""

    def ratio(self) -> float:
        """Bytes of the pages for each byte of the objects; one that is not smaller counts as the page."""
        return len(self.objects) * PAGE / sum(min(len(data), PAGE) for data in self.objects)


class Contexts:
    """A compressor's contexts, one for each thread by its number: their scratch memory belongs to one thread."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self._made: list[CompressorContext] = []

    def of(self, part: int) -> CompressorContext:
        """That of thread number `part`."""
        while len(self._made) <= part:
            self._made.append(self._compressor.create_context())
        return self._made[part]


def bare_loop(compressor: type[Compressor], data: Data) -> BareLoop:
    """The best loop there is. Raises what the compressor says when it is set up without parameters."""
    made = compressor(CompressorParams(page_size=PAGE))
    codec = made.native_codec() if load_batch() is not None else None
    contexts = Contexts(made)
    return CallLoop(made.name, contexts, data) if codec is None else CompiledLoop(made.name, contexts, data, codec)


class CallLoop(BareLoop):
    """The compressor's calls for a single page, in a Python loop."""

    how = "by calls"

    def __init__(self, name: str, contexts: Contexts, data: Data) -> None:
        super().__init__(name, contexts, data)
        self._pages = data.pages

    def job(self, part: int, compress: Sequence[int], decompress: Sequence[int]) -> Job:
        context = self.contexts.of(part)
        compress_call, decompress_call = context.compress_call, context.decompress_call
        pages = [self._pages[number] for number in compress]
        objects = [self.objects[number] for number in decompress]

        def run() -> None:
            for page in pages:
                compress_call(page)
            for data in objects:
                decompress_call(data, PAGE)

        return run


class CompiledLoop(BareLoop):
    """The codec's C functions in a loop in C, which lets other threads of Python run."""

    how = "in C"

    def __init__(self, name: str, contexts: Contexts, data: Data, codec: NativeCodec) -> None:
        super().__init__(name, contexts, data)
        self._batch = load_batch()
        self._library = codec.library
        self._codec = self._batch.Codec(
            codec.compress, codec.decompress, codec.state_size, codec.level, codec.most_bytes, codec.quick
        )
        self._pages = np.frombuffer(data.view, np.uint8).reshape(-1, PAGE)
        self._packed = b"".join(self.objects)
        self._sizes = np.array([len(data) for data in self.objects], np.uint32)
        self._offsets = (np.cumsum(self._sizes) - self._sizes).astype(np.uint32)
        self._targets: list[memoryview] = []

    def job(self, part: int, compress: Sequence[int], decompress: Sequence[int]) -> Job:
        while len(self._targets) <= part:
            self._targets.append(aligned_buffer(MIB))
        target, sizes = self._targets[part], np.empty(BATCH, np.uint32)
        pages = [_together(self._pages, compress[start : start + BATCH]) for start in range(0, len(compress), BATCH)]
        objects = [
            (self._offsets[chosen], self._sizes[chosen])
            for start in range(0, len(decompress), BATCH)
            for chosen in [list(decompress[start : start + BATCH])]
        ]
        bare_compress, bare_decompress = self._batch.bare_compress, self._batch.bare_decompress
        codec, packed, expected = self._codec, self._packed, len(compress) + len(decompress)

        def run() -> None:
            done = 0
            for each in pages:
                done += bare_compress(codec, each, PAGE, sizes)
            for offsets, lengths in objects:
                done += bare_decompress(codec, packed, offsets, lengths, PAGE, target)
            if done != expected:
                raise DeviceIOError(f"{self.side}: {done} of {expected} pages were worked on")

        return run


def _together(pages: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """These pages one after the other: in place if they are, else copied, which is not timed."""
    first = numbers[0]
    if list(numbers) == list(range(first, first + len(numbers))):
        return pages[first : first + len(numbers)].reshape(-1)
    return pages[list(numbers)].reshape(-1)
