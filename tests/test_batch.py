"""The extension `_batch`: arguments that would reach past a buffer, codecs that misbehave, workers, and forks."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from zramcore import slot_table
from zramcore.interfaces import CompressorParams
from zramcore.native import PURE_VARIABLE, load_batch
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Lz4, Lz4hc

PAGE = 4096
HUGE_CLASS = 3625
COMPRESS = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3, *[ctypes.c_int] * 3)
REPLACE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_uint64,
    ctypes.POINTER(ctypes.c_uint64),
)
DECOMPRESS = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int] * 2)


@pytest.fixture(scope="module")
def batch() -> ModuleType:
    module = load_batch()
    if module is None:
        pytest.skip(f"the extension was not built, or {PURE_VARIABLE} is set")
    return module  # type: ignore[no-any-return]


def codec_of(batch: ModuleType, compressor: type[Lz4] | type[Lz4hc] = Lz4, page_size: int = PAGE) -> Any:
    native = compressor(CompressorParams(page_size=page_size)).native_codec()
    assert native is not None
    return batch.Codec(
        native.compress, native.decompress, native.state_size, native.level, native.most_bytes, native.quick
    )


class Rows:
    """A tiny device: columns, an arena in which handle h lies at `positions[h]`, and Pages over both."""

    def __init__(self, batch: ModuleType, codec: Any, count: int = 64, *, workers: int = 0, part: int = 32) -> None:
        self.count = count
        self.flags, self.ac_times = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        self.handles = np.zeros(count, np.uint64)
        self.positions = np.zeros(count + 1, np.uint64)
        self.memory = bytearray(8 + count * 2 * PAGE)
        self.stored: list[tuple[bytes, int, int]] = []
        """Object, limit and replaced handle of each call of the allocator; its answer is `says`."""
        self.says = 0
        self._replace = REPLACE(self._keep)
        self.pages = batch.Pages(
            codec,
            PAGE,
            HUGE_CLASS,
            self.flags,
            self.handles,
            self.ac_times,
            self.positions,
            self.memory,
            workers,
            part,
            (ctypes.cast(self._replace, ctypes.c_void_p).value, 0x1234),
        )

    def _keep(self, pool: int, data: int | None, size: int, limit: int, replaced: int, handle: Any) -> int:
        assert pool == 0x1234
        if not self.says:
            self.stored.append((ctypes.string_at(data, size) if size else b"", limit, replaced))
            if size:
                handle[0] = 1000 + len(self.stored)
        return self.says

    def compress(self, data: bytes) -> tuple[Any, Any, Any, Any]:
        count = len(data) // PAGE
        packed, words = np.zeros(count * 5000, np.uint8), np.zeros(count, np.uint64)
        offsets, flags = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        self.pages.compress(data, packed, offsets, flags, words)
        return packed, offsets, flags, words

    def put(self, data: bytes) -> None:
        """Pages from row 0 on, object n with handle n + 1."""
        packed, offsets, flags, words = self.compress(data)
        end = 8
        for index, row in enumerate(flags.tolist()):
            size = row & slot_table.SIZE_MASK
            if size:
                self.memory[end : end + size] = packed[offsets[index] : offsets[index] + size].tobytes()
                self.positions[index + 1] = end
                end += size
            self.handles[index] = words[index] if row & slot_table.SAME else index + 1
            self.flags[index] = row


@pytest.fixture
def rows(batch: ModuleType) -> Rows:
    return Rows(batch, codec_of(batch))


def sample(count: int) -> bytes:
    kinds = list(make_pages(PAGE).values())
    return b"".join(kinds[n % len(kinds)] for n in range(count))


def test_the_layout_is_that_of_the_slot_table(batch: ModuleType) -> None:
    for name in ("SIZE_MASK", "SAME", "WB", "PP_SLOT", "HUGE", "IDLE", "PRIORITY_MASK", "INCOMPRESSIBLE"):
        assert getattr(batch, name) == getattr(slot_table, name), name


@pytest.mark.parametrize("compressor", [Lz4, Lz4hc])
def test_a_batch_is_what_the_plugin_makes_page_by_page(batch: ModuleType, compressor: type[Lz4]) -> None:
    rows = Rows(batch, codec_of(batch, compressor))
    context = compressor(CompressorParams()).create_context()
    data = sample(40)
    packed, offsets, flags, words = rows.compress(data)
    for index in range(40):
        page = data[index * PAGE : (index + 1) * PAGE]
        alone = rows.pages.compress_page(page)
        if page == page[:8] * 512:
            assert flags[index] == slot_table.SAME
            assert words[index] == alone == int.from_bytes(page[:8], "little")
            continue
        expected = bytes(context.compress_page(page))
        size = int(flags[index]) & slot_table.SIZE_MASK
        stored = packed[offsets[index] : offsets[index] + size].tobytes()
        if len(expected) < HUGE_CLASS:
            assert flags[index] == len(expected)
            assert stored == alone == expected
        else:
            assert flags[index] == PAGE | slot_table.HUGE
            assert stored == page
            assert alone is None


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_gives_back_every_page_and_marks_it(batch: ModuleType, workers: int) -> None:
    rows = Rows(batch, codec_of(batch), 300, workers=workers, part=16)
    data = sample(256)
    rows.put(data)
    rows.flags[:256] |= slot_table.IDLE | slot_table.PP_SLOT
    assert rows.pages.read(0, 300, 77) == data + bytes(44 * PAGE)
    assert not (rows.flags & (slot_table.IDLE | slot_table.PP_SLOT)).any()
    assert rows.ac_times.tolist() == [77] * 256 + [0] * 44
    target = bytearray(PAGE * 5)
    assert rows.pages.read_into(2, target, 78) == 0
    assert target == data[2 * PAGE : 7 * PAGE]
    assert rows.pages.read_page(3, 79) == data[3 * PAGE : 4 * PAGE]
    assert rows.ac_times[2:7].tolist() == [78, 79, 78, 78, 78]
    rows.pages.release()


def test_a_list_of_pages_is_compressed_as_a_buffer_is(rows: Rows) -> None:
    data = sample(40)
    pages = [memoryview(data)[at : at + PAGE] for at in range(0, len(data), PAGE)]
    packed, offsets = np.zeros(40 * 5000, np.uint8), np.zeros(40, np.uint32)
    flags, words = np.zeros(40, np.uint32), np.zeros(40, np.uint64)
    rows.pages.compress(pages, packed, offsets, flags, words)
    joined = rows.compress(data)
    assert (flags == joined[2]).all()
    assert (words == joined[3]).all()
    assert packed.tobytes() == joined[0].tobytes()
    for broken in ([b"x"], [bytes(PAGE), bytearray(PAGE + 1)], [bytes(PAGE), None]):
        with pytest.raises((ValueError, TypeError)):
            rows.pages.compress(broken, packed, offsets, flags, words)


def test_rows_may_be_named_one_by_one(rows: Rows) -> None:
    old, replaced, handles = np.zeros(3, np.uint32), np.zeros(3, np.uint64), np.zeros(3, np.uint64)
    where = np.array([7, 63, 0], np.uint64)
    rows.flags[[7, 63, 0]] = 70, 630 | slot_table.WB, 1
    rows.handles[[7, 63, 0]] = 77, 66, 11
    assert rows.pages.prepare(where, 3, old, replaced, handles) == 1
    assert (old.tolist(), replaced.tolist()) == ([70, 630 | slot_table.WB, 1], [77, 0, 11])
    handles[:2] = 5, 6
    assert rows.pages.assign(where, 3, np.array([1, 2, 3], np.uint32), handles, replaced, 9) == 2
    assert np.flatnonzero(rows.ac_times).tolist() == [7, 63]
    assert rows.flags[[7, 63, 0]].tolist() == [1, 2, 1]
    for bad in (np.array([64], np.uint64), np.array([2**64 - 1], np.uint64)):
        with pytest.raises(IndexError):
            rows.pages.prepare(bad, 1, old, replaced, handles)
    with pytest.raises(ValueError, match="bytes, needs"):
        rows.pages.prepare(where[:2].copy(), 3, old, replaced, handles)
    with pytest.raises(IndexError):
        rows.pages.prepare(where, -1, old, replaced, handles)


@pytest.mark.parametrize("where", [slot_table.WB, 1 << slot_table.PRIORITY_SHIFT])
def test_pages_that_are_elsewhere_are_left_to_the_caller(rows: Rows, where: int) -> None:
    data = sample(8)
    rows.put(data)
    rows.flags[3] |= where
    rows.flags[:8] |= slot_table.IDLE
    assert rows.pages.read(0, 8, 5) is None
    assert rows.pages.read_page(3, 5) is None
    target = bytearray(b"\xee" * 8 * PAGE)
    assert rows.pages.read_into(0, target, 5) == 1
    assert target == data[: 3 * PAGE] + b"\xee" * PAGE + data[4 * PAGE :]
    assert (rows.flags[:8] & slot_table.IDLE).all()
    assert not rows.ac_times.any()


def test_objects_outside_the_arena_are_never_read(rows: Rows) -> None:
    rows.put(sample(8))
    size = int(rows.flags[3]) & slot_table.SIZE_MASK
    length = len(rows.memory)
    for handle, position in (
        (4, 0), (4, length), (4, length - size + 1), (4, 2**64 - 1), (4, 2**63), (65, 8), (2**64 - 1, 8),
    ):  # fmt: skip
        rows.handles[3], rows.positions[4] = handle, position
        with pytest.raises(ValueError, match="page 3 does not decompress"):
            rows.pages.read(0, 8, 1)
        with pytest.raises(ValueError, match="page 3 does not"):
            rows.pages.read_page(3, 1)
    assert not rows.ac_times.any()


def test_a_huge_object_must_be_a_whole_page(rows: Rows) -> None:
    rows.put(make_pages(PAGE)["random"])
    rows.flags[0] = 100 | slot_table.HUGE
    with pytest.raises(ValueError, match="page 0"):
        rows.pages.read(0, 1, 1)


def test_arguments_that_do_not_fit_are_refused(rows: Rows) -> None:
    pages = rows.pages
    u32, u64 = np.zeros(4, np.uint32), np.zeros(4, np.uint64)
    for first, count in ((-1, 1), (0, -1), (0, 65), (64, 1), (2**62, 1), (1, 2**62)):
        with pytest.raises(IndexError):
            pages.read(first, count, 0)
        with pytest.raises(IndexError):
            pages.prepare(first, count, u32, u64, u64)
        with pytest.raises(IndexError):
            pages.assign(first, count, u32, u64, u64, 0)
    with pytest.raises(IndexError):
        pages.read_page(64, 0)
    with pytest.raises(IndexError):
        pages.read_into(63, bytearray(2 * PAGE), 0)
    for short in range(3):
        arrays = [np.zeros(5, np.uint32), np.zeros(5, np.uint64), np.zeros(5, np.uint64)]
        arrays[short] = arrays[short][:4].copy()
        with pytest.raises(ValueError, match="bytes, needs"):
            pages.prepare(0, 5, *arrays)
        with pytest.raises(ValueError, match="bytes, needs"):
            pages.assign(0, 5, *arrays, 0)
    good: list[Any] = [np.zeros(3 * 5000, np.uint8), u32, u32.copy(), u64]
    for position, length in ((0, 3 * 4127), (1, 2), (2, 2), (3, 2)):
        bad = [array[:length].copy() if at == position else array for at, array in enumerate(good)]
        with pytest.raises(ValueError, match="bytes, needs"):
            pages.compress(sample(3), *bad)
    with pytest.raises((TypeError, BufferError, ValueError)):
        pages.read_into(0, bytes(PAGE), 0)
    for page in (bytearray(PAGE), bytes(PAGE - 1), None):
        with pytest.raises(ValueError, match="one page"):
            pages.compress_page(page)
    for workers in (-1, 1025):
        with pytest.raises(ValueError, match="workers"):
            pages.workers = workers
    for method in (pages.compress, pages.prepare, pages.assign, pages.read, pages.read_into, pages.read_page):
        with pytest.raises(TypeError):
            method()


def test_columns_must_agree(batch: ModuleType) -> None:
    codec = codec_of(batch)
    flags, handles, times = np.zeros(4, np.uint32), np.zeros(4, np.uint64), np.zeros(4, np.uint32)
    with pytest.raises(ValueError, match="columns differ"):
        batch.Pages(codec, PAGE, HUGE_CLASS, flags, handles[:3].copy(), times, handles, bytearray(8), 0, 32, (1, 1))
    with pytest.raises(ValueError, match="bad page size"):
        batch.Pages(codec, 12, HUGE_CLASS, flags, handles, times, handles, bytearray(8), 0, 0, (1, 1))
    with pytest.raises(ValueError, match="replace_one"):
        batch.Pages(codec, PAGE, HUGE_CLASS, flags, handles, times, handles, bytearray(8), 0, 32, (0, 1))
    with pytest.raises(ValueError, match="two addresses"):
        batch.Codec(0, 1, 0, 0, 1, False)


def test_nothing_works_after_release(rows: Rows) -> None:
    rows.put(sample(4))
    rows.pages.release()
    rows.pages.release()
    for call in (lambda: rows.pages.read(0, 1, 0), lambda: rows.pages.read_page(0, 0)):
        with pytest.raises(ValueError, match="was reset"):
            call()
    rows.memory.clear()  # nobody holds it any longer
    assert rows.compress(sample(4))[2][0] == slot_table.SAME  # compressing needs no rows


def test_assign_stops_at_the_first_handle_that_is_not_set(rows: Rows) -> None:
    old, replaced, handles = np.zeros(4, np.uint32), np.zeros(4, np.uint64), np.zeros(4, np.uint64)
    rows.flags[:4] = 100, slot_table.SAME, 200 | slot_table.WB, PAGE | slot_table.HUGE
    rows.handles[:4] = 11, 12, 13, 14
    assert rows.pages.prepare(0, 4, old, replaced, handles) == 1
    assert replaced.tolist() == [11, 0, 0, 14]
    assert old.tolist() == rows.flags[:4].tolist()
    assert handles.tolist() == [2**64 - 1] * 4
    new = np.array([50, slot_table.SAME, 60, 70], np.uint32)
    handles[:3] = 21, 0, 23
    words = np.array([1, 99, 1, 1], np.uint64)
    for _ in range(2):
        assert rows.pages.assign(0, 4, new, handles, words, 9) == 3
        assert rows.flags[:4].tolist() == [50, slot_table.SAME, 60, PAGE | slot_table.HUGE]
        assert rows.handles[:4].tolist() == [21, 99, 23, 14]
        assert rows.ac_times[:4].tolist() == [9, 9, 9, 0]


def test_change_counts_what_the_counters_count(batch: ModuleType) -> None:
    old = np.array([0, 100, slot_table.SAME, slot_table.WB, 90 | slot_table.WB, PAGE | slot_table.HUGE], np.uint32)
    new = np.array([70, slot_table.SAME, PAGE | slot_table.HUGE, 30, 0, 80], np.uint32)
    assert batch.change(old, new, 6) == (0, 70 + PAGE + 30 + 80 - 100 - PAGE, 0, 0, 1)
    assert batch.change(old, new, 1) == (1, 70, 0, 0, 0)
    assert batch.change(old, new, 0) == (0, 0, 0, 0, 0)
    for count in (-1, 7):
        with pytest.raises(ValueError, match=r"bytes, needs|negative"):
            batch.change(old, new, count)


def test_a_page_written_alone_is_stored_and_given_its_row(rows: Rows) -> None:
    kinds = make_pages(PAGE)
    text, packed = kinds["text"], rows.pages.compress_page(kinds["text"])
    write = rows.pages.write_page
    assert write(5, text, 70, 9) == (0, len(packed), 0)
    assert rows.stored == [(packed, 9, 0)]
    assert (rows.flags[5], rows.handles[5], rows.ac_times[5]) == (len(packed), 1001, 70)
    rows.flags[5] |= slot_table.IDLE | slot_table.PP_SLOT
    assert write(5, kinds["structured"], 71, 0) == len(rows.stored[1][0]) - len(packed)
    assert rows.stored[1][1:] == (0, 1001)
    small = int(rows.flags[5])
    assert write(5, kinds["random"], 72, 0) == (small, PAGE | slot_table.HUGE, 1002)
    assert rows.stored[2] == (kinds["random"], 0, 1002)
    assert write(5, b"\7" * PAGE, 73, 0) == (PAGE | slot_table.HUGE, slot_table.SAME, 1003)
    assert rows.stored[3] == (b"", 0, 1003)
    assert (rows.flags[5], rows.handles[5]) == (slot_table.SAME, int.from_bytes(b"\7" * 8, "little"))
    rows.flags[5], rows.handles[5] = 90 | slot_table.WB, 44
    assert write(5, text, 74, 0) == (90 | slot_table.WB, len(packed), 44)
    assert rows.stored[4] == (packed, 0, 0)


def test_a_page_that_cannot_be_stored_leaves_its_row(rows: Rows) -> None:
    text = make_pages(PAGE)["text"]
    rows.flags[3], rows.handles[3], rows.ac_times[3] = 50, 7, 1
    rows.says = 1
    assert rows.pages.write_page(3, text, 2, 0) is None
    rows.says = -1
    with pytest.raises(RuntimeError, match="handle 7 of page 3"):
        rows.pages.write_page(3, text, 2, 0)
    assert (rows.flags[3], rows.handles[3], rows.ac_times[3]) == (50, 7, 1)
    for arguments in ((64, text, 0, 0), (-1, text, 0, 0)):
        with pytest.raises(IndexError):
            rows.pages.write_page(*arguments)
    for page in (text[:-1], bytearray(text), None):
        with pytest.raises(ValueError, match="one page"):
            rows.pages.write_page(0, page, 0, 0)


# Codecs that misbehave ------------------------------------------------------------------------------------------------


@pytest.fixture
def made_of(batch: ModuleType) -> Callable[..., Rows]:
    """Rows whose codec is two Python functions: by address, called from worker threads too."""
    kept = []

    def make(compress: Callable[..., int], decompress: Callable[..., int], **options: int) -> Rows:
        kept.extend([COMPRESS(compress), DECOMPRESS(decompress)])
        addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in kept[-2:]]
        return Rows(batch, batch.Codec(*addresses, 100, 7, 4128, False), **options)

    return make


def copy_out(state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
    assert (page_size, out_size, level) == (PAGE, 4128, 7)
    ctypes.memmove(out, page, 50)
    return 50


@pytest.mark.parametrize("answer", [0, -1, -(2**31), 4129, 2**31 - 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_codec_that_fails_fails_the_batch(made_of: Callable[..., Rows], answer: int, workers: int) -> None:
    calls = []

    def compress(*arguments: int) -> int:
        calls.append(arguments)
        return answer if len(calls) == 20 else copy_out(*arguments)

    rows = made_of(compress, lambda *_: PAGE, workers=workers, part=4)
    data = random.Random(1).randbytes(40 * PAGE)
    with pytest.raises(ValueError, match=r"page \d+ of the batch could not be compressed"):
        rows.compress(data)
    calls[:] = [()] * 19
    with pytest.raises(ValueError, match="could not be compressed"):
        rows.pages.compress_page(data[:PAGE])
    calls[:] = [()] * 19
    with pytest.raises(ValueError, match="could not be compressed"):
        rows.pages.write_page(0, data[:PAGE], 0, 0)
    assert not rows.flags.any()
    assert rows.pages.compress_page(data[:PAGE]) == data[:50]
    rows.pages.release()


@pytest.mark.parametrize("answer", [-1, 0, PAGE - 1, PAGE + 1])
def test_a_page_that_comes_out_in_another_length_is_an_error(made_of: Callable[..., Rows], answer: int) -> None:
    rows = made_of(copy_out, lambda *_: answer)
    rows.put(random.Random(2).randbytes(8 * PAGE))
    with pytest.raises(ValueError, match=r"page \d does not decompress to 4096 bytes"):
        rows.pages.read(0, 8, 0)


def test_threads_share_the_workers(batch: ModuleType) -> None:
    """Several requests at once: one has the workers, the others do without, and all are right."""
    rows = Rows(batch, codec_of(batch), 256, workers=2, part=8)
    data = sample(256)
    rows.put(data)
    wrong = []

    def work() -> None:
        for _ in range(30):
            if rows.pages.read(0, 256, 1) != data or rows.compress(data)[2].tolist() != rows.flags.tolist():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    rows.pages.release()


def tasks() -> int:
    return len(os.listdir("/proc/self/task"))


def test_workers_come_with_the_first_large_request_and_go_with_release(batch: ModuleType) -> None:
    gc.collect()  # the workers of other tests
    before = tasks()
    rows = Rows(batch, codec_of(batch), 64, workers=3, part=8)
    rows.compress(sample(8))
    assert tasks() == before
    rows.compress(sample(64))
    assert tasks() == before + 3
    rows.pages.release()
    assert tasks() == before
    rows.compress(sample(64))
    assert tasks() == before


def test_no_more_workers_than_are_wanted_take_part(made_of: Callable[..., Rows]) -> None:
    seen: set[int] = set()

    def compress(*arguments: int) -> int:
        seen.add(threading.get_native_id())
        return copy_out(*arguments)

    rows = made_of(compress, lambda *_: PAGE, workers=3, part=1)
    data = random.Random(4).randbytes(64 * PAGE)
    for workers in (3, 1, 0):
        rows.pages.workers = workers
        seen.clear()
        rows.compress(data)
        assert len(seen) <= workers + 1
    rows.pages.release()


def test_release_waits_for_a_running_job(made_of: Callable[..., Rows]) -> None:
    entered, go = threading.Event(), threading.Event()

    def compress(*arguments: int) -> int:
        entered.set()
        go.wait()
        return copy_out(*arguments)

    rows = made_of(compress, lambda *_: PAGE, workers=2, part=1)
    done = []
    data = random.Random(3).randbytes(8 * PAGE)
    job = threading.Thread(target=lambda: done.append(rows.compress(data)[2].tolist()))
    job.start()
    entered.wait()
    release = threading.Thread(target=rows.pages.release)
    release.start()
    assert not done
    go.set()
    job.join()
    release.join()
    assert done == [[50] * 8]


def test_a_forked_child_works_alone(batch: ModuleType) -> None:
    rows = Rows(batch, codec_of(batch), 64, workers=2, part=8)
    data = sample(64)
    rows.put(data)
    child = os.fork()
    if not child:
        right = rows.pages.read(0, 64, 1) == data and rows.compress(data)[2].tolist() == rows.flags.tolist()
        rows.pages.release()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rows.pages.read(0, 64, 1) == data
    rows.pages.release()


def test_the_bare_loops_check_their_arguments(batch: ModuleType) -> None:
    codec = codec_of(batch)
    data = sample(8)
    sizes = np.zeros(8, np.uint32)
    assert batch.bare_compress(codec, data, PAGE, sizes) == 8
    packed = b"".join(
        bytes(Lz4(CompressorParams()).create_context().compress_page(data[at : at + PAGE]))
        for at in range(0, len(data), PAGE)
    )
    offsets = np.zeros(8, np.uint32)
    offsets[1:] = np.cumsum(sizes)[:-1]
    out = bytearray(len(data))
    assert batch.bare_decompress(codec, packed, offsets, sizes, PAGE, out) == 8
    assert out == data
    for arguments in (
        (packed[:-1], offsets, sizes, PAGE, out),
        (packed, offsets[:7].copy(), sizes, PAGE, out),
        (packed, offsets, sizes, PAGE, bytearray(8 * PAGE - 1)),
        (packed, offsets, sizes, 0, out),
    ):
        with pytest.raises(ValueError, match=r"needs|more than 0"):
            batch.bare_decompress(codec, *arguments)
    with pytest.raises(ValueError, match="needs"):
        batch.bare_compress(codec, data, PAGE, sizes[:7].copy())
