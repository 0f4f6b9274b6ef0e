"""The conformance class must find what is wrong with C functions: each pair here has one defect.

They are Python functions behind real addresses.
"""

from __future__ import annotations

import ctypes
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from zramcore.errors import CorruptPage, NotSupported
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams, NativeCodec
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.native_codec import COMPRESS, DECOMPRESS, NativeCodecConformance

PAGE = 4096
STATE = 64


def unpacked(data: bytes, page_size: int) -> bytes:
    """The page, or b"" when there is none."""
    stream = zlib.decompressobj()
    try:
        page = stream.decompress(data, page_size + 1)
    except zlib.error:
        return b""
    return page if len(page) == page_size and stream.eof and not stream.unused_data else b""


class SoundContext(CompressorContext):
    def compress_page(self, page: Buffer) -> Buffer:
        return zlib.compress(page, 1)

    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        page = unpacked(bytes(data), page_size)
        if not page:
            raise CorruptPage("damaged")
        return page


class Sound(Compressor):
    """C functions without a defect. Those of subclasses replace what goes in or comes out."""

    name = "sound"
    most_bytes = 2 * 65536

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        if (params.level, params.dictionary, params.winbits) != (None, None, None):
            raise NotSupported("no parameters")

    def create_context(self) -> CompressorContext:
        return SoundContext()

    def packed(self, state: int, page: int, page_size: int) -> bytes:
        return zlib.compress(ctypes.string_at(page, page_size), 1)

    def compress(self, state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
        data = self.packed(state, page, page_size)
        ctypes.memmove(out, data, len(data))
        return len(data)

    def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
        content = unpacked(ctypes.string_at(data, data_size), page_size)
        ctypes.memmove(page, content, len(content))
        return len(content) or -1

    def native_codec(self) -> NativeCodec | None:
        calls = COMPRESS(self.compress), DECOMPRESS(self.decompress)
        compress, decompress = (ctypes.cast(call, ctypes.c_void_p).value or 0 for call in calls)
        return NativeCodec(compress, decompress, self.most_bytes, STATE, library=calls)


class TestSound(CompressorConformance):
    """The yardstick: without a defect, everything passes, and nothing is skipped."""

    def create(self, params: CompressorParams) -> Sound:
        return Sound(params)


def finds(test: str, kind: Callable[[CompressorParams], Compressor], *arguments: object) -> str:
    """Run one conformance test; it must fail. Returns what it says."""
    kit = type("Kit", (NativeCodecConformance,), {"create": staticmethod(kind)})()
    with pytest.raises(AssertionError) as caught:
        getattr(kit, test)(*arguments)
    return str(caught.value)


PACKS, UNPACKS = "test_c_functions_pack_as_compress_page_does", "test_c_functions_give_pages_back"
KEEPS, THREADS = "test_c_functions_keep_to_their_buffers_whatever_the_data", "test_c_functions_run_in_several_threads"
SIZES = "test_c_functions_know_a_page_of_another_size"


def test_other_bytes_than_the_context_makes() -> None:
    class Harder(Sound):
        def packed(self, state: int, page: int, page_size: int) -> bytes:
            return zlib.compress(ctypes.string_at(page, page_size), 9)

    assert "compress_page makes something else" in finds(PACKS, Harder, PAGE)


def test_scratch_that_is_taken_to_be_cleared() -> None:
    class Trusting(Sound):
        def packed(self, state: int, page: int, page_size: int) -> bytes:
            level = 9 if any(ctypes.string_at(state, STATE)) else 1
            return zlib.compress(ctypes.string_at(page, page_size), level)

    assert "compress_page makes something else" in finds(PACKS, Trusting, PAGE)


@pytest.mark.parametrize(("behind", "size"), [(1, 1), (-1, 1), (0, 4096)])
def test_writing_past_the_state(behind: int, size: int) -> None:
    class Spills(Sound):
        def packed(self, state: int, page: int, page_size: int) -> bytes:
            ctypes.memset(state - 1 if behind < 0 else state + STATE, 0, size)
            return super().packed(state, page, page_size)

    assert finds(PACKS, Spills, PAGE) == "compress wrote past the ends of a buffer"


def test_writing_past_the_output() -> None:
    class Spills(Sound):
        most_bytes = 100

        def compress(self, state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
            return min(super().compress(state, page, out, page_size, out_size, level), out_size)

    assert finds(UNPACKS, Spills, PAGE) == "compress wrote past the ends of a buffer"


def test_more_bytes_than_there_are() -> None:
    class Boasts(Sound):
        def compress(self, state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
            return out_size + 1

    assert "more than most_bytes (131072)" in finds(PACKS, Boasts, PAGE)


def test_a_page_that_cannot_be_packed() -> None:
    class Fails(Sound):
        def compress(self, state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
            return 0

    assert finds(PACKS, Fails, PAGE) == "compress failed with 0"


def test_writing_to_what_was_given() -> None:
    class Scribbles(Sound):
        def packed(self, state: int, page: int, page_size: int) -> bytes:
            data = super().packed(state, page, page_size)
            ctypes.memset(page + 7, 0x77, 1)
            return data

    class Consumes(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            size = super().decompress(data, page, data_size, page_size)
            ctypes.memset(data, 0, 1)
            return size

    assert finds(PACKS, Scribbles, PAGE) == "compress changed the page"
    assert finds(UNPACKS, Consumes, PAGE) == "decompress changed the data"


def test_another_page_than_was_packed() -> None:
    class Wrong(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            size = super().decompress(data, page, data_size, page_size)
            ctypes.memset(page + page_size - 1, 0x77, 1)
            return size

    assert "zero" in finds(UNPACKS, Wrong, PAGE)


def test_damaged_data_that_writes_past_the_page() -> None:
    class Spills(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            size = super().decompress(data, page, data_size, page_size)
            if size < 0:
                ctypes.memset(page, 0, page_size + 1)
            return size

    assert finds(KEEPS, Spills, PAGE) == "decompress wrote past the ends of a buffer"


def test_damaged_data_that_gives_more_than_a_page() -> None:
    class Boasts(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            size = super().decompress(data, page, data_size, page_size)
            return page_size + 1 if size < 0 else size

    assert finds(KEEPS, Boasts, PAGE) == "decompress says 4097 bytes, more than a page"


def test_damaged_data_that_only_decompress_page_finds() -> None:
    class Accepts(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            return abs(super().decompress(data, page, data_size, page_size)) and page_size

    assert "decompress_page answers something else" in finds(KEEPS, Accepts, PAGE)
    assert "were taken for" in finds(SIZES, Accepts)


def test_data_that_is_read_past_its_end() -> None:
    class ReadsOn(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            behind = ctypes.string_at(data + data_size, 1)
            return -1 if behind == b"\xff" else super().decompress(data, page, data_size, page_size)

    said = finds(KEEPS, ReadsOn, PAGE)
    assert "looks at bytes behind the data" in said


def test_a_page_that_is_cut_to_what_was_asked() -> None:
    class Cuts(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            stream = zlib.decompressobj()
            content = stream.decompress(ctypes.string_at(data, data_size), page_size)
            ctypes.memmove(page, content, len(content))
            return len(content)

    assert "16384 bytes were taken for 4096" in finds(SIZES, Cuts)


def test_an_empty_object_that_is_taken_for_a_page() -> None:
    class Zeros(Sound):
        def decompress(self, data: int, page: int, data_size: int, page_size: int) -> int:
            return super().decompress(data, page, data_size, page_size) if data_size else page_size

    assert finds(SIZES, Zeros) == "an empty object was taken for a page"


def test_scratch_that_belongs_to_the_first_thread() -> None:
    """Whoever is not the thread that called first gets what another would have left there."""
    owner: list[int] = []

    class Shared(Sound):
        def packed(self, state: int, page: int, page_size: int) -> bytes:
            owner.append(threading.get_ident())
            return super().packed(state, page, page_size) if owner[-1] == owner[0] else b"another's"

    assert "thread 0" in finds(THREADS, Shared)


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"compress": 0}, "the address of compress is 0"),
        ({"decompress": 0}, "the address of decompress is 0"),
        ({"most_bytes": 0}, "a page may become no byte at all"),
        ({"state_size": -1}, "the size of the state is negative"),
    ],
)
def test_a_codec_that_cannot_be_called(claim: dict[str, int], said: str) -> None:
    class Odd(Sound):
        def native_codec(self) -> NativeCodec | None:
            codec = super().native_codec()
            assert codec is not None
            return replace(codec, **claim)  # type: ignore[arg-type]

    assert finds(UNPACKS, Odd, PAGE) == said


def test_every_kind_of_parameters_is_tried() -> None:
    """A level that the C functions do not know of shows, and one without C functions is left out."""

    class Levels(Sound):
        def __init__(self, params: CompressorParams) -> None:
            Compressor.__init__(self, params)

        def packed(self, state: int, page: int, page_size: int) -> bytes:
            level = 9 if self.params.level == 9 else 1
            return zlib.compress(ctypes.string_at(page, page_size), level)

        def native_codec(self) -> NativeCodec | None:
            return None if self.params.dictionary else super().native_codec()

    def kit(levels: tuple[int, ...]) -> NativeCodecConformance:
        claims = {"levels": levels, "dictionaries": (b"words" * 10,), "create": staticmethod(Levels)}
        made: NativeCodecConformance = type("Kit", (NativeCodecConformance,), claims)()
        return made

    kit((1, 2)).test_c_functions_pack_as_compress_page_does(PAGE)
    with pytest.raises(AssertionError, match="level=9"):
        kit((1, 9)).test_c_functions_pack_as_compress_page_does(PAGE)


def test_a_compressor_without_c_functions_is_skipped() -> None:
    class Without(Sound):
        def native_codec(self) -> NativeCodec | None:
            return None

    kit = type("Kit", (NativeCodecConformance,), {"create": staticmethod(Without)})()
    with pytest.raises(pytest.skip.Exception, match="sound hands over no C functions"):
        kit.test_c_functions_run_in_several_threads()
