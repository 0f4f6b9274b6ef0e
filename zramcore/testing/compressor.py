"""Conformance of a Compressor, for pytest. A plugin's test module is little more than::

    from zramcore.testing.compressor import CompressorConformance

    class TestMine(CompressorConformance):
        levels = (1, 9)
        refused_levels = (0, 10)

        def create(self, params):
            return Mine(params)

Parameters that the subclass does not mention must be EOPNOTSUPP. C functions that `native_codec` hands over are tested
too (native_codec.py).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import pytest

from ..errors import InvalidValue, NotSupported, ZramError
from ..interfaces import API_VERSION, Buffer, Compressor, CompressorContext, CompressorParams
from .native_codec import NativeCodecConformance
from .samples import PAGE_SIZES, damage, make_pages

S32_MIN, S32_MAX = -(2**31), 2**31 - 1
MAX_NAME = 127
ANSWERS = (errno.EINVAL, errno.EOPNOTSUPP)


class CompressorConformance(NativeCodecConformance):
    """Everything the device relies on. A subclass gives `create`, and says which parameters it takes."""

    levels: ClassVar[Sequence[int]] = ()
    """Levels that are taken; pages must come back with each of them."""
    refused_levels: ClassVar[Sequence[int]] = ()
    """Levels that are EINVAL; they are not looked at when `levels` is empty: every level is EOPNOTSUPP then."""
    dictionaries: ClassVar[Sequence[bytes]] = ()
    """Dictionaries that are taken; when empty, any dictionary is EOPNOTSUPP."""
    winbits: ClassVar[Sequence[int]] = ()
    """Values of deflate.winbits that are taken; when empty, any value is EOPNOTSUPP."""

    def context(
        self,
        *,
        page_size: int = 4096,
        level: int | None = None,
        dictionary: bytes | None = None,
        winbits: int | None = None,
    ) -> CompressorContext:
        """A context of a compressor with these parameters."""
        return self.create(CompressorParams(page_size, level, dictionary, winbits)).create_context()

    # Identity

    def test_name_fits_a_listing(self) -> None:
        """comp_algorithm separates names by blanks and puts one in brackets."""
        name = self.create(CompressorParams()).name
        assert name, "a compressor has a name"
        assert len(name) <= MAX_NAME, f"comp_algorithm refuses names of more than {MAX_NAME} characters"
        assert name.isascii(), f"{name!r} is not plain ASCII"
        assert name.isprintable(), f"{name!r} does not print"
        assert not set(name) & set(" []="), f"{name!r} has a blank, a bracket or an equals sign"

    def test_api_version_is_the_one_it_was_written_for(self) -> None:
        compressor = self.create(CompressorParams())
        assert compressor.api_version == API_VERSION
        assert isinstance(compressor.summary, str)

    def test_parameters_are_kept(self) -> None:
        params = CompressorParams(page_size=16384)
        assert self.create(params).params == params, "call super().__init__(params)"

    # Round trips

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_pages_come_back(self, page_size: int) -> None:
        context = self.context(page_size=page_size)
        check_round_trip(context, make_pages(page_size).values(), page_size)

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_objects_stay_within_two_pages(self, page_size: int) -> None:
        """The bound of the kernel's output buffer: a compressor may expand a page, but not without end."""
        context = self.context(page_size=page_size)
        for kind, page in make_pages(page_size).items():
            assert 0 < len(context.compress_page(page)) <= 2 * page_size, kind

    @pytest.mark.parametrize("page_size", PAGE_SIZES)
    def test_batch_is_the_same_as_one_by_one(self, page_size: int) -> None:
        context = self.context(page_size=page_size)
        pages = list(make_pages(page_size).values())
        objects = context.compress_pages(pages)
        assert list(map(bytes, objects)) == [bytes(context.compress_page(page)) for page in pages]
        assert list(map(bytes, context.decompress_pages(objects, page_size))) == pages
        assert [bytes(context.decompress_page(data, page_size)) for data in objects] == pages

    def test_empty_batch(self) -> None:
        context = self.context()
        assert list(context.compress_pages([])) == []
        assert list(context.decompress_pages([], 4096)) == []

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_will_do(self, kind: Callable[[bytes], Buffer]) -> None:
        """A page may be a slice of a request, an object a view into the allocator's arena."""
        context = self.context()
        for page in make_pages(4096).values():
            data = bytes(context.compress_page(kind(page)))
            assert data == bytes(context.compress_page(page))
            assert bytes(context.decompress_page(kind(data), 4096)) == page
            assert bytes(context.compress_pages([kind(page)])[0]) == data
            assert bytes(context.decompress_pages([kind(data)], 4096)[0]) == page

    def test_slices_of_one_buffer(self) -> None:
        context = self.context()
        pages = list(make_pages(4096).values())
        request = memoryview(bytearray(b"".join(pages)))
        slices = [request[start : start + 4096] for start in range(0, len(request), 4096)]
        objects = context.compress_pages(slices)
        check_same(context.decompress_pages(objects, 4096), pages)

    # Who owns which memory

    def test_results_outlive_later_calls(self) -> None:
        """A context that reuses an output buffer must not hand it out: the device keeps a whole batch at once."""
        context = self.context()
        pages = list(make_pages(4096).values())
        objects, copies = keep(context.compress_page, pages)
        results, _ = keep(lambda data: context.decompress_page(data, 4096), copies)
        assert list(map(bytes, objects)) == copies, "a later call changed the result of an earlier compress_page"
        check_same(results, pages)

    def test_batches_outlive_later_batches(self) -> None:
        context = self.context()
        pages = list(make_pages(4096).values())
        batches = [pages, pages[::-1]]
        objects = [context.compress_pages(batch) for batch in batches]
        for batch, data in zip(batches, objects, strict=True):
            alone = [bytes(context.compress_page(page)) for page in batch]
            assert list(map(bytes, data)) == alone, "a later call changed the result of an earlier compress_pages"
        results = [context.decompress_pages(data, 4096) for data in objects]
        for batch, result in zip(batches, results, strict=True):
            check_same(result, batch)

    def test_nothing_refers_to_the_input(self) -> None:
        """A buffer handed to a plugin is valid until the call returns: results must not be views of it."""
        context = self.context()
        for page in make_pages(4096).values():
            given = bytearray(page)
            data, batch = context.compress_page(memoryview(given)), context.compress_pages([memoryview(given)])
            given[:] = bytes(byte ^ 0xFF for byte in given)
            assert bytes(context.decompress_page(data, 4096)) == page
            stored = bytearray(batch[0])
            one, many = context.decompress_page(stored, 4096), context.decompress_pages([memoryview(stored)], 4096)
            stored[:] = bytes(byte ^ 0xFF for byte in stored)
            assert bytes(one) == bytes(many[0]) == page

    def test_input_is_left_alone(self) -> None:
        context = self.context()
        for page in make_pages(4096).values():
            given = bytearray(page)
            data = bytearray(context.compress_page(given))
            before = bytes(data)
            context.decompress_page(data, 4096)
            assert given == page, "compress_page changed the page"
            assert data == before, "decompress_page changed the object"

    # Contexts and threads

    def test_any_context_reads_what_another_wrote(self) -> None:
        """A page is compressed in one thread and read in another."""
        compressor = self.create(CompressorParams())
        pages = list(make_pages(4096).values())
        objects = compressor.create_context().compress_pages(pages)
        check_same(compressor.create_context().decompress_pages(objects, 4096), pages)
        check_same(self.context().decompress_pages(objects, 4096), pages)

    def test_threads_do_not_disturb_each_other(self) -> None:
        compressor = self.create(CompressorParams())
        kinds = list(make_pages(4096).values())
        expected = list(map(bytes, compressor.create_context().compress_pages(kinds)))
        start = threading.Barrier(4)
        failures: list[str] = []

        def work(first: int) -> None:
            try:
                order = [(first + step) % len(kinds) for step in range(len(kinds))]
                start.wait(timeout=30)
                context = compressor.create_context()
                for _ in range(25):
                    objects = context.compress_pages([kinds[kind] for kind in order])
                    assert list(map(bytes, objects)) == [expected[kind] for kind in order]
                    check_same(context.decompress_pages(objects, 4096), [kinds[kind] for kind in order])
            except BaseException as error:
                failures.append(f"thread {first}: {error!r}")

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    # Damaged data

    @pytest.mark.parametrize("page_size", [4096, 65536])
    def test_damaged_data_is_an_error_or_a_whole_page(self, page_size: int) -> None:
        """Bits that flip may go unseen, but a page of another length, or an exception of the library, may not."""
        context = self.context(page_size=page_size)
        for kind, page in make_pages(page_size).items():
            for what, data in damage(bytes(context.compress_page(page)), page_size):
                check_answer(context, data, page_size, f"{kind}, {what}")

    def test_an_empty_object_is_no_page(self) -> None:
        context = self.context()
        with pytest.raises(ZramError) as one:
            context.decompress_page(b"", 4096)
        with pytest.raises(ZramError) as many:
            context.decompress_pages([bytes(context.compress_page(bytes(4096))), b""], 4096)
        assert (one.value.errno, many.value.errno) == (errno.EIO, errno.EIO)

    def test_a_page_of_another_size_is_an_error(self) -> None:
        """An object holds what was stored, and is asked for that and nothing else."""
        for stored, asked in ((4096, 16384), (16384, 4096)):
            context = self.context(page_size=asked)
            for kind, page in make_pages(stored).items():
                data = context.compress_page(page)
                for decompress in (one_page, in_a_batch):
                    with pytest.raises(ZramError) as caught:
                        decompress(context, data, asked)
                    assert caught.value.errno == errno.EIO, kind

    def test_a_context_survives_damaged_data(self) -> None:
        context = self.context()
        pages = list(make_pages(4096).values())
        objects = list(map(bytes, context.compress_pages(pages)))
        for _, data in damage(objects[5], 4096):
            check_answer(context, data, 4096, "text")
            check_same(context.decompress_pages(objects[5:7], 4096), pages[5:7])
        assert list(map(bytes, context.compress_pages(pages))) == objects

    # Parameters

    def test_levels(self) -> None:
        for level in self.levels:
            check_round_trip(self.context(level=level), make_pages(4096).values(), 4096, f"level {level}")
        for level in self.refused_levels if self.levels else (S32_MIN, -1, 0, 1, 9, S32_MAX):
            check_refused(self.create, CompressorParams(level=level), InvalidValue if self.levels else NotSupported)

    @pytest.mark.parametrize("level", [S32_MIN, -131073, -8, -1, 0, 1, 3, 9, 12, 13, 22, 23, 100, S32_MAX])
    def test_any_level_is_taken_or_refused(self, level: int) -> None:
        """algorithm_params passes any s32 on: a compressor answers EINVAL or EOPNOTSUPP, or works."""
        try:
            context = self.context(level=level)
        except ZramError as error:
            if error.errno not in ANSWERS or not error.reason:
                raise AssertionError(f"level {level}: {error}") from error
        else:
            check_round_trip(context, make_pages(4096).values(), 4096, f"level {level}")

    def test_dictionaries(self) -> None:
        for dictionary in self.dictionaries:
            for page_size in PAGE_SIZES:
                context = self.context(page_size=page_size, dictionary=dictionary)
                pages = [*make_pages(page_size).values(), (dictionary * (page_size // len(dictionary) + 1))[:page_size]]
                check_round_trip(context, pages, page_size, f"a dictionary of {len(dictionary)} bytes")
        if not self.dictionaries:
            check_refused(self.create, CompressorParams(dictionary=b"zram " * 100), NotSupported)

    def test_dictionary_serves_every_context(self) -> None:
        for dictionary in self.dictionaries:
            compressor = self.create(CompressorParams(dictionary=dictionary))
            pages = list(make_pages(4096).values())
            objects = compressor.create_context().compress_pages(pages)
            again = self.create(CompressorParams(dictionary=dictionary))
            check_same(compressor.create_context().decompress_pages(objects, 4096), pages)
            check_same(again.create_context().decompress_pages(objects, 4096), pages)

    def test_an_empty_dictionary_is_refused(self) -> None:
        with pytest.raises(ZramError) as caught:
            self.create(CompressorParams(dictionary=b""))
        assert caught.value.errno in ANSWERS

    def test_winbits(self) -> None:
        for winbits in self.winbits:
            check_round_trip(self.context(winbits=winbits), make_pages(4096).values(), 4096, f"winbits {winbits}")
        if not self.winbits:
            check_refused(self.create, CompressorParams(winbits=-11), NotSupported)


# What the tests ask -----------------------------------------------------------------------------------------------


def one_page(context: CompressorContext, data: Buffer, page_size: int) -> Buffer:
    """The object by itself."""
    return context.decompress_page(data, page_size)


def in_a_batch(context: CompressorContext, data: Buffer, page_size: int) -> Buffer:
    """The object between two sound ones, which must come back whole."""
    sound = bytes(context.compress_page(b"\x5a" * page_size))
    first, page, last = context.decompress_pages([sound, data, sound], page_size)
    check_same([first, last], [b"\x5a" * page_size] * 2)
    return page


def keep(call: Callable[[bytes], Buffer], items: Sequence[bytes]) -> tuple[list[Buffer], list[bytes]]:
    """What the call returns for each item, as it is, and a copy made at once."""
    kept, copies = [], []
    for item in items:
        kept.append(call(item))
        copies.append(bytes(kept[-1]))
    return kept, copies


def check_same(results: Sequence[Buffer], pages: Sequence[bytes]) -> None:
    """The results are these pages, in order."""
    assert len(results) == len(pages), f"{len(pages)} pages gave {len(results)}"
    for number, (result, page) in enumerate(zip(results, pages, strict=True)):
        assert bytes(result) == page, f"page {number} of {len(pages)} came back different"


def check_round_trip(
    context: CompressorContext, pages: Iterable[bytes], page_size: int, what: str = "default parameters"
) -> None:
    """Each page comes back, by itself and in a batch."""
    given = list(pages)
    for page in given:
        data = context.compress_page(page)
        assert bytes(context.decompress_page(data, page_size)) == page, what
    check_same(context.decompress_pages(context.compress_pages(given), page_size), given)


def check_answer(context: CompressorContext, data: bytes, page_size: int, what: str) -> None:
    """Damaged data gives EIO or exactly one page, alone and in a batch."""
    for decompress in (one_page, in_a_batch):
        try:
            page = decompress(context, data, page_size)
        except ZramError as error:
            if error.errno != errno.EIO:
                raise AssertionError(f"{what}: {error} is not EIO") from error
        except Exception as error:
            raise AssertionError(f"{what}: {error!r} is not a ZramError") from error
        else:
            assert len(page) == page_size, f"{what}: {len(page)} bytes"


def check_refused(
    create: Callable[[CompressorParams], Compressor], params: CompressorParams, kind: type[ZramError]
) -> None:
    """Creating the compressor fails with this class of error, and a sentence."""
    with pytest.raises(kind) as caught:
        create(params)
    assert caught.value.reason
