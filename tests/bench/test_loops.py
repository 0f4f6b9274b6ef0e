"""The bare codec, in C and by calls: both do all pages that they are asked for, and what fails is an error."""

from __future__ import annotations

import numpy as np
import pytest

from zramcore.bench import loops
from zramcore.bench.data import PAGE, Data
from zramcore.bench.loops import BATCH, CallLoop, CompiledLoop, bare_loop
from zramcore.bench.rounds import Crew
from zramcore.errors import DeviceIOError
from zramcore.interfaces import Buffer, Catalogue, CompressorContext, CompressorParams
from zramcore.native import load_batch

needs_extension = pytest.mark.skipif(load_batch() is None, reason="the compiled extension is not there, or forbidden")


@pytest.fixture
def compiled(built_in: Catalogue, data: Data) -> CompiledLoop:
    loop = bare_loop(built_in.compressors["lz4"], data)
    if not isinstance(loop, CompiledLoop):
        pytest.skip("needs the compiled extension and liblz4")
    return loop


def test_without_the_extension_the_calls_stand_for_it(
    built_in: Catalogue, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "load_batch", lambda: None)
    loop = bare_loop(built_in.compressors["lz4"], data)
    assert isinstance(loop, CallLoop)
    assert loop.side == "bare lz4 by calls"
    seen: list[Buffer] = []

    class Context(CompressorContext):
        def compress_page(self, page: Buffer) -> Buffer:
            seen.append(page)
            return b""

        def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
            seen.append(data)
            return b""

    monkeypatch.setattr(loop.contexts, "of", lambda part: Context())
    loop.job(0, [5, 2], [0, 511])()
    assert seen == [data.pages[5], data.pages[2], loop.objects[0], loop.objects[511]]


def test_a_compressor_without_c_functions_is_called(built_in: Catalogue, data: Data) -> None:
    loop = bare_loop(built_in.compressors["deflate"], data)
    assert loop.side == "bare deflate by calls"
    context = built_in.compressors["deflate"](CompressorParams()).create_context()
    assert context.decompress_page(loop.objects[7], PAGE) == data.pages[7]
    assert loop.ratio() == pytest.approx(data.size / sum(map(len, loop.objects)))


def test_what_does_not_get_smaller_counts_as_a_page(built_in: Catalogue, data: Data) -> None:
    assert bare_loop(built_in.compressors["store"], data).ratio() == 1.0


def test_the_loop_in_c_takes_the_pages_asked_for(compiled: CompiledLoop, data: Data) -> None:
    assert compiled.side == "bare lz4 in C"
    took: list[bytes] = []
    gave: list[tuple[list[int], list[int]]] = []
    real = compiled._batch

    class Spy:
        @staticmethod
        def bare_compress(codec: object, pages: np.ndarray, page_size: int, sizes: np.ndarray) -> int:
            took.append(bytes(pages))
            done: int = real.bare_compress(codec, pages, page_size, sizes)
            assert sizes[:done].tolist() == [len(compiled.objects[number]) for number in chosen[:done]]
            del chosen[:done]
            return done

        @staticmethod
        def bare_decompress(
            codec: object, packed: bytes, offsets: np.ndarray, sizes: np.ndarray, page_size: int, out: memoryview
        ) -> int:
            gave.append((offsets.tolist(), sizes.tolist()))
            done: int = real.bare_decompress(codec, packed, offsets, sizes, page_size, out)
            assert out[: done * PAGE] == b"".join(data.pages[number] for number in objects[:done])
            del objects[:done]
            return done

    for wanted in (range(512), range(511, -1, -1), [3, 1, 4, 1, 5], range(100, 400)):
        chosen, objects = list(wanted), list(wanted)
        took.clear()
        compiled._batch = Spy
        compiled.job(0, list(wanted), list(wanted))()
        assert b"".join(took) == b"".join(data.pages[number] for number in wanted)
        assert max(map(len, took)) <= BATCH * PAGE
        assert not chosen
        assert not objects
    compiled._batch = real
    with Crew() as crew:
        crew.time([compiled.job(part, range(512), range(512)) for part in range(2)])


def test_a_page_that_fails_is_an_error(compiled: CompiledLoop) -> None:
    compiled._packed = bytes(len(compiled._packed))
    compiled.job(0, [0], [])()
    with pytest.raises(DeviceIOError, match="0 of 2 pages"):
        compiled.job(0, [], [0, 1])()


@needs_extension
def test_a_codec_that_is_not_offered_is_not_used(
    built_in: Catalogue, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    lz4 = built_in.compressors["lz4"]
    monkeypatch.setattr(lz4, "native_codec", lambda self: None)
    assert bare_loop(lz4, data).side == "bare lz4 by calls"
