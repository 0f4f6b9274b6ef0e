"""The conformance class must find what it promises to find: each compressor here has one defect."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence

import pytest

from zramcore.errors import CorruptPage, InvalidValue, NotSupported, PluginFault
from zramcore.interfaces import Buffer, Compressor, CompressorContext, CompressorParams
from zramcore.testing.compressor import CompressorConformance


class SoundContext(CompressorContext):
    def compress_page(self, page: Buffer) -> Buffer:
        return zlib.compress(page, 1)

    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        try:
            page = zlib.decompress(data)
        except zlib.error as error:
            raise CorruptPage(str(error)) from error
        if len(page) != page_size:
            raise CorruptPage(f"{len(page)} bytes")
        return page


class Sound(Compressor):
    name = "sound"
    context: type[CompressorContext] = SoundContext

    def __init__(self, params: CompressorParams) -> None:
        super().__init__(params)
        if (params.level, params.dictionary, params.winbits) != (None, None, None):
            raise NotSupported("no parameters")

    def create_context(self) -> CompressorContext:
        return self.context()


class TestSound(CompressorConformance):
    """The yardstick: without a defect, everything passes."""

    def create(self, params: CompressorParams) -> Sound:
        return Sound(params)


def finds(test: str, create: Callable[[CompressorParams], Compressor], *arguments: object, **claims: object) -> str:
    """Run one conformance test; it must fail. Returns what it says."""
    kit = type("Kit", (CompressorConformance,), {"create": staticmethod(create), **claims})()
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        getattr(kit, test)(*arguments)
    return str(caught.value)


def with_context(context: type[CompressorContext]) -> type[Compressor]:
    return type("Broken", (Sound,), {"context": context})


class ReusesItsBuffer(SoundContext):
    """One output buffer for all calls: the second overwrites the first."""

    def __init__(self) -> None:
        self.output = bytearray(200_000)

    def keep(self, data: bytes) -> memoryview:
        self.output[: len(data)] = data
        return memoryview(self.output)[: len(data)]

    def compress_page(self, page: Buffer) -> Buffer:
        return self.keep(bytes(super().compress_page(page)))


class ReusesItsPage(ReusesItsBuffer):
    def compress_page(self, page: Buffer) -> Buffer:
        return SoundContext.compress_page(self, page)

    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        return self.keep(bytes(super().decompress_page(data, page_size)))


@pytest.mark.parametrize("test", ["test_results_outlive_later_calls", "test_batches_outlive_later_batches"])
@pytest.mark.parametrize("context", [ReusesItsBuffer, ReusesItsPage])
def test_reused_output_buffer(test: str, context: type[CompressorContext]) -> None:
    finds(test, with_context(context))


class ReturnsTheInput(SoundContext):
    """Right bytes, as long as the caller's buffer lasts."""

    def compress_page(self, page: Buffer) -> Buffer:
        return page

    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        if len(data) != page_size:
            raise CorruptPage("length")
        return data


def test_result_that_is_a_view_of_the_input() -> None:
    finds("test_nothing_refers_to_the_input", with_context(ReturnsTheInput))


class WritesToTheInput(SoundContext):
    def compress_page(self, page: Buffer) -> Buffer:
        data = super().compress_page(page)
        if isinstance(page, bytearray):
            page[0] ^= 1
        return data


def test_scribbling_on_the_page() -> None:
    assert "changed the page" in finds("test_input_is_left_alone", with_context(WritesToTheInput))


class LetsExceptionsOut(SoundContext):
    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        return zlib.decompress(data)


def test_exception_of_the_library() -> None:
    kind = with_context(LetsExceptionsOut)
    assert "is not a ZramError" in finds("test_damaged_data_is_an_error_or_a_whole_page", kind, 4096)


class SaysEinval(SoundContext):
    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        try:
            return super().decompress_page(data, page_size)
        except CorruptPage as error:
            raise InvalidValue("damaged") from error


def test_damage_with_another_errno() -> None:
    assert "is not EIO" in finds("test_damaged_data_is_an_error_or_a_whole_page", with_context(SaysEinval), 4096)


class ShortInABatch(SoundContext):
    """Checks the length of one page, and forgets it in the batch."""

    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        return [zlib.decompressobj().decompress(data, page_size) for data in objects]


def test_wrong_length_in_a_batch() -> None:
    class PadsNothing(ShortInABatch):
        def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
            try:
                return super().decompress_pages(objects, page_size)
            except zlib.error as error:
                raise CorruptPage(str(error)) from error

    said = finds("test_damaged_data_is_an_error_or_a_whole_page", with_context(PadsNothing), 4096)
    assert said.split(": ")[-1].endswith(" bytes")


class LosesOrder(SoundContext):
    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        return super().compress_pages(pages)[::-1]


class LosesOne(SoundContext):
    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        return super().decompress_pages(objects, page_size)[1:]


@pytest.mark.parametrize("context", [LosesOrder, LosesOne])
def test_batch_that_differs(context: type[CompressorContext]) -> None:
    finds("test_batch_is_the_same_as_one_by_one", with_context(context), 4096)


class Expands(SoundContext):
    def compress_page(self, page: Buffer) -> Buffer:
        return bytes(super().compress_page(page)).ljust(2 * len(page) + 1, b"\0")


def test_boundless_output() -> None:
    finds("test_objects_stay_within_two_pages", with_context(Expands), 4096)


class WantsBytes(SoundContext):
    def compress_page(self, page: Buffer) -> Buffer:
        if not isinstance(page, bytes):
            raise PluginFault("mine", "only bytes")
        return super().compress_page(page)


def test_buffer_types_that_are_not_taken() -> None:
    kit = type("Kit", (CompressorConformance,), {"create": staticmethod(with_context(WantsBytes))})()
    kit.test_any_buffer_will_do(bytes)
    for kind in (bytearray, memoryview):
        with pytest.raises(PluginFault):
            kit.test_any_buffer_will_do(kind)


def test_scratch_shared_between_threads() -> None:
    """One context for all: whoever is not the thread that used it first gets what another would have left there."""
    owner: list[int] = []

    class Shared(SoundContext):
        def compress_page(self, page: Buffer) -> Buffer:
            owner.append(threading.get_ident())
            return super().compress_page(page if owner[-1] == owner[0] else bytes(len(page)))

    assert "thread 0" in finds("test_threads_do_not_disturb_each_other", with_context(Shared))


class Lenient(Sound):
    def __init__(self, params: CompressorParams) -> None:
        Compressor.__init__(self, params)


class RaisesValueError(Sound):
    def __init__(self, params: CompressorParams) -> None:
        Compressor.__init__(self, params)
        if params.level is not None:
            raise ValueError("bad level")


def test_parameters_that_are_ignored() -> None:
    for test in ("test_levels", "test_dictionaries", "test_winbits", "test_an_empty_dictionary_is_refused"):
        assert "DID NOT RAISE" in finds(test, Lenient)


def test_parameters_that_are_promised_but_refused() -> None:
    for test, claim in (("test_levels", {"levels": (1,)}), ("test_winbits", {"winbits": (-11,)})):
        kit = type("Kit", (CompressorConformance,), {"create": staticmethod(Sound), **claim})()
        with pytest.raises(NotSupported):
            getattr(kit, test)()


def test_level_that_is_a_python_error() -> None:
    kit = type("Kit", (CompressorConformance,), {"create": staticmethod(RaisesValueError)})()
    with pytest.raises(ValueError, match="bad level"):
        kit.test_any_level_is_taken_or_refused(3)


def test_params_that_are_dropped() -> None:
    class Drops(Sound):
        def __init__(self, params: CompressorParams) -> None:
            super().__init__(CompressorParams())

    assert "super().__init__(params)" in finds("test_parameters_are_kept", Drops)


@pytest.mark.parametrize("name", ["", "two words", "[mine]", "a=b", "n" * 128, "é", "tab\t"])
def test_names_that_do_not_fit(name: str) -> None:
    finds("test_name_fits_a_listing", type("Named", (Sound,), {"name": name}))


def test_another_api_version() -> None:
    finds("test_api_version_is_the_one_it_was_written_for", type("Old", (Sound,), {"api_version": 0}))
