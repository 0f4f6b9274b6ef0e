"""Conformance of the C functions that a compressor hands over: the part of CompressorConformance for `native_codec`.

The functions are called through ctypes, as the compiled data path calls them: without the GIL, with scratch that holds
anything, and with buffers that lie anywhere. What lies around each buffer is known, and looked at after the call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from ..errors import ZramError
from ..interfaces import Compressor, CompressorContext, CompressorParams, NativeCodec
from .samples import PAGE_SIZES, damage, make_pages

COMPRESS = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3, *[ctypes.c_int] * 3)
DECOMPRESS = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int] * 2)

GUARD = 4096
"""Bytes before and behind each buffer that a function must leave alone."""
STATE_ALIGNMENT = 64
"""Of the scratch that the data path gives; pages and objects lie anywhere."""


class Guarded:
    """A buffer with guard bytes on both sides. It begins `shift` bytes past an aligned address."""

    def __init__(self, content: bytes, guard: int, shift: int) -> None:
        self.size = len(content)
        self._before, self._behind = bytes([guard]) * GUARD, bytes([guard]) * GUARD
        self._memory = ctypes.create_string_buffer(len(content) + 2 * GUARD + 2 * STATE_ALIGNMENT)
        start = ctypes.addressof(self._memory) + GUARD
        self.address = start + -start % STATE_ALIGNMENT + shift
        ctypes.memmove(self.address - GUARD, self._before + content + self._behind, len(content) + 2 * GUARD)

    def read(self, size: int) -> bytes:
        """Its first bytes."""
        return ctypes.string_at(self.address, size)

    def check(self, what: str) -> None:
        """Nothing around it was written to."""
        before = ctypes.string_at(self.address - GUARD, GUARD)
        behind = ctypes.string_at(self.address + self.size, GUARD)
        assert (before, behind) == (self._before, self._behind), f"{what} wrote past the ends of a buffer"


class CodecCalls:
    """One codec, to be called from any thread."""

    def __init__(self, codec: NativeCodec) -> None:
        assert codec.compress, "the address of compress is 0"
        assert codec.decompress, "the address of decompress is 0"
        assert codec.most_bytes >= 1, "a page may become no byte at all"
        assert codec.state_size >= 0, "the size of the state is negative"
        self._codec = codec
        self._compress, self._decompress = COMPRESS(codec.compress), DECOMPRESS(codec.decompress)

    def compress(self, page: bytes, scratch: int = 0) -> bytes:
        """What the page becomes, with a state and an output full of bytes `scratch`."""
        codec, filler = self._codec, bytes([scratch])
        state = Guarded(filler * codec.state_size, 0x5A, 0)
        given, out = Guarded(page, scratch, 1), Guarded(filler * codec.most_bytes, 0x5A, 3)
        size = self._compress(state.address, given.address, out.address, len(page), codec.most_bytes, codec.level)
        for buffer in (state, given, out):
            buffer.check("compress")
        assert given.read(len(page)) == page, "compress changed the page"
        assert size > 0, f"compress failed with {size}"
        assert size <= codec.most_bytes, f"compress says {size} bytes, more than most_bytes ({codec.most_bytes})"
        return out.read(size)

    def decompress(self, data: bytes, page_size: int, around: int = 0) -> bytes | None:
        """The page, or None when the function finds that there is none; bytes `around` lie around the data."""
        given, page = Guarded(data, around, 1), Guarded(b"\xc3" * page_size, 0x5A, 0)
        size = self._decompress(given.address, page.address, len(data), page_size)
        for buffer in (given, page):
            buffer.check("decompress")
        assert given.read(len(data)) == data, "decompress changed the data"
        assert size <= page_size, f"decompress says {size} bytes, more than a page"
        return page.read(page_size) if size == page_size else None


class NativeCodecConformance:
    """What the compiled data path relies on; each test is skipped when there are no C functions."""

    levels: ClassVar[Sequence[int]] = ()
    dictionaries: ClassVar[Sequence[bytes]] = ()
    winbits: ClassVar[Sequence[int]] = ()

    def create(self, params: CompressorParams) -> Compressor:
        """The compressor under test."""
        raise NotImplementedError("a subclass of CompressorConformance defines create(params)")

    def native(self, params: CompressorParams) -> tuple[CodecCalls, CompressorContext]:
        """The C functions with these parameters, and the context that must do the same."""
        compressor = self.create(params)
        codec = compressor.native_codec()
        if codec is None:
            pytest.skip(f"{compressor.name} hands over no C functions")
        return CodecCalls(codec), compressor.create_context()

    def _with_parameters(self, page_size: int) -> Iterator[CompressorParams]:
        """Every kind of parameters that is taken and has C functions; the default ones come first."""
        yield CompressorParams(page_size)
        for params in (
            *(CompressorParams(page_size, level=level) for level in self.levels),
            *(CompressorParams(page_size, dictionary=dictionary) for dictionary in self.dictionaries),
            *(CompressorParams(page_size, winbits=winbits) for winbits in self.winbits),
        ):
            if self.create(params).native_codec() is not None:
                yield params

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_c_functions_pack_as_compress_page_does(self, page_size: int) -> None:
        """To the byte, whatever the scratch holds: which path a device takes must not show in its sizes."""
        for params in self._with_parameters(page_size):
            calls, context = self.native(params)
            for kind, page in make_pages(page_size).items():
                expected = bytes(context.compress_page(page))
                for scratch in (0x00, 0x5A, 0xFF):
                    packed = calls.compress(page, scratch)
                    assert packed == expected, f"{kind}, {params}: compress_page makes something else of it"

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_c_functions_give_pages_back(self, page_size: int) -> None:
        for params in self._with_parameters(page_size):
            calls, context = self.native(params)
            for kind, page in make_pages(page_size).items():
                packed = calls.compress(page)
                assert calls.decompress(packed, page_size) == page, f"{kind}, {params}"
                assert bytes(context.decompress_page(packed, page_size)) == page, f"{kind}, {params}"

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_c_functions_keep_to_their_buffers_whatever_the_data(self, page_size: int) -> None:
        """Damaged data makes them read and write nothing else, and they take for a page what decompress_page does."""
        calls, context = self.native(CompressorParams(page_size))
        for kind, page in make_pages(page_size).items():
            for what, data in damage(calls.compress(page), page_size):
                answers = [calls.decompress(data, page_size, around) for around in (0x00, 0xFF)]
                assert answers[0] == answers[1], f"{kind}, {what}: decompress looks at bytes behind the data"
                try:
                    expected = bytes(context.decompress_page(data, page_size))
                except ZramError:
                    expected = None
                assert answers[0] == expected, f"{kind}, {what}: decompress_page answers something else"

    def test_c_functions_know_a_page_of_another_size(self) -> None:
        for stored, asked in ((4096, 16384), (16384, 4096), (4096, 4095)):
            writer, _ = self.native(CompressorParams(stored))
            reader, _ = self.native(CompressorParams(max(asked, 4096)))
            for kind, page in make_pages(stored).items():
                answer = reader.decompress(writer.compress(page), asked)
                assert answer is None, f"{kind}: {stored} bytes were taken for {asked}"
        assert reader.decompress(b"", 4096) is None, "an empty object was taken for a page"

    def test_c_functions_run_in_several_threads(self) -> None:
        calls, _ = self.native(CompressorParams())
        pages = list(make_pages(4096).values())
        expected = list(map(calls.compress, pages))
        start = threading.Barrier(4)
        failures: list[str] = []

        def work(first: int) -> None:
            try:
                start.wait(timeout=30)
                for step in range(25 * len(pages)):
                    number = (first + step) % len(pages)
                    assert calls.compress(pages[number], first) == expected[number], f"page {number} was packed"
                    assert calls.decompress(expected[number], 4096) == pages[number], f"page {number} was unpacked"
            except BaseException as error:
                failures.append(f"thread {first}: {error!r}")

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
