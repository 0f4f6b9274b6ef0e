"""The compiled data path against the one in Python: the same operations, the same answers, figures and errors."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from zramcore import attributes, batch_path
from zramcore.batch_path import BatchPath
from zramcore.device import Device
from zramcore.errors import NoSpace, PluginFault, ZramError
from zramcore.interfaces import Catalogue, CompressorParams, NativeCodec
from zramcore.native import load_batch
from zramcore.slot_table import SIZE_MASK
from zramcore.testing.inspection import check_consistent, snapshot, stat
from zramcore.testing.walk import KINDS, make_page
from zramcore_plugins.compressors import Lz4

DeviceFactory = Callable[..., Device]
PAGE = 4096

pytestmark = pytest.mark.skipif(load_batch() is None, reason="the extension was not built, or ZRAMCORE_PURE is set")


@pytest.fixture
def both(device: DeviceFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Device, Device]]:
    """Two devices made alike, one with each data path: compiled, in Python."""

    def make(pages: int = 64, **settings: Any) -> tuple[Device, Device]:
        compiled = device(pages, disk="compiled", **settings)
        with monkeypatch.context() as patched:
            patched.setattr(batch_path, "load_batch", lambda: None)
            python = device(pages, disk="python", **settings)
        assert type(compiled.path) is BatchPath
        assert not python.path.native
        return compiled, python

    return make


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the errno of what it raises."""
    try:
        return call(*arguments)
    except ZramError as error:
        return type(error).__name__, error.errno


def figures(device: Device) -> dict[str, str]:
    found = snapshot(device)
    found["backing_dev"] = ""  # each has its own
    return found


OPERATIONS: tuple[tuple[int, Callable[[Random, int], tuple[str, tuple[Any, ...]]]], ...] = (
    (30, lambda r, n: ("pwrite", (r.randrange(n) * PAGE, pages(r, r.randrange(1, 24))))),
    (20, lambda r, n: ("pwrite", (r.randrange(n) * PAGE, pages(r, 1)))),
    (8, lambda r, n: ("pwrite", (r.randrange(n * PAGE), r.randbytes(r.randrange(1, 3 * PAGE))))),
    (30, lambda r, n: ("pread", (r.randrange(n) * PAGE, r.randrange(1, 40) * PAGE))),
    (20, lambda r, n: ("pread", (r.randrange(n) * PAGE, PAGE))),
    (15, lambda r, n: ("write_scattered", scattered(r, n))),
    (15, lambda r, n: ("read_scattered", scattered(r, n)[:1])),
    (5, lambda r, n: ("discard", (r.randrange(n // 2) * PAGE, r.randrange(1, n // 2) * PAGE))),
    (6, lambda r, n: ("store", ("idle", "all"))),
    (4, lambda r, n: ("store", ("writeback", r.choice(("idle", "huge", "3", "page_indexes=3-9"))))),
    (3, lambda r, n: ("store", ("recompress", "priority=1"))),
    (2, lambda r, n: ("store", ("mem_limit", r.choice(("0", "0", "96K"))))),
    (2, lambda r, n: ("store", ("compact", "1"))),
    (2, lambda r, n: ("store", ("workers", str(r.randrange(1, 4))))),
)


def scattered(random: Random, size: int) -> tuple[list[int], list[bytes]]:
    """Places, now and then one of them twice or past the end, and a page for each."""
    count = random.randrange(1, 12)
    places = [random.randrange(size + (random.random() < 0.1)) * PAGE for _ in range(count)]
    return places, [pages(random, 1) for _ in places]


def pages(random: Random, count: int) -> bytes:
    return b"".join(make_page(random.choice(KINDS), random.randrange(50), PAGE) for _ in range(count))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("algorithm", ["lz4", "lz4hc", "zstd"])
def test_a_walk_ends_alike(both: Callable[..., tuple[Device, Device]], algorithm: str, seed: int) -> None:
    size = 70
    devices = both(size, blocks=40, comp_algorithm=algorithm, recomp_algorithm="algo=deflate priority=1")
    random = Random(seed)
    weights, makers = zip(*OPERATIONS, strict=True)
    for step in range(250):
        name, arguments = random.choices(makers, weights)[0](random, size)
        answers = []
        for each in devices:
            call = getattr(each, name) if name != "store" else lambda *a, each=each: attributes.store(each, *a)
            answers.append(outcome(call, *arguments))
        assert answers[0] == answers[1], (step, name)
        if step % 25 == 0:
            assert figures(devices[0]) == figures(devices[1]), (step, name)
    for each in devices:
        check_consistent(each)
    assert figures(devices[0]) == figures(devices[1])


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_larger_pages(both: Callable[..., tuple[Device, Device]], page_size: int) -> None:
    devices = both(40, page_size=page_size, comp_algorithm="lz4")
    data = b"".join(make_page(KINDS[n % len(KINDS)], n, page_size) for n in range(40))
    for each in devices:
        each.pwrite(0, data)
        buffer = bytearray(len(data))
        assert each.pread_into(0, buffer) == len(data)
        assert buffer == data == each.pread(0, len(data))
        assert each.pread(page_size * 3, page_size) == data[3 * page_size : 4 * page_size]
    assert figures(devices[0]) == figures(devices[1])


def test_a_request_larger_than_a_batch_and_one_after_a_smaller(both: Callable[..., tuple[Device, Device]]) -> None:
    """Scratches are kept by size: a larger request after a smaller one gets a new one."""
    devices = both(1500)
    data = pages(Random(9), 50) * 30
    for each in devices:
        each.pwrite(0, data[: 3 * PAGE])
        each.pwrite(0, data)
        each.pwrite(7 * PAGE, data[7 * PAGE : 9 * PAGE])
        assert each.pread(0, len(data)) == data
    assert figures(devices[0]) == figures(devices[1])


def test_the_path_is_compiled_only_when_all_three_allow_it(device: DeviceFactory) -> None:
    assert type(device(4, blocks=0, comp_algorithm="lz4", allocator="zsmalloc").path) is BatchPath
    assert type(device(4, blocks=0, comp_algorithm="deflate", allocator="zsmalloc").path) is not BatchPath
    assert type(device(4, blocks=0, comp_algorithm="lz4", allocator="malloc").path) is not BatchPath


def spoil(device: Device, index: int) -> None:
    """Damage the object of a page, in the pool: an lz4 block that ends at once."""
    path = device.path
    assert path is not None
    assert path.allocator.arena is not None
    positions, memory = path.allocator.arena
    position = positions[path.table.handles_row[index]]
    size = path.table.flags_row[index] & SIZE_MASK
    ctypes.memset(np.frombuffer(memory, np.uint8).ctypes.data + position, 0xFF, size)


def test_damaged_data_is_never_returned(device: DeviceFactory) -> None:
    made = device(16, comp_algorithm="lz4")
    made.pwrite(0, b"".join(make_page("text", n, PAGE) for n in range(16)))
    spoil(made, 5)
    for offset, length in ((0, 16 * PAGE), (5 * PAGE, PAGE), (5 * PAGE + 7, 9), (4 * PAGE, 2 * PAGE)):
        with pytest.raises(ZramError) as caught:
            made.pread(offset, length)
        assert caught.value.errno == 5
        assert "lz4" in str(caught.value)
    with pytest.raises(ZramError):
        made.pread_into(0, bytearray(16 * PAGE))
    assert made.pread(0, 5 * PAGE) == b"".join(make_page("text", n, PAGE) for n in range(5))
    assert stat(made, "io_stat")[0] == 5


COMPRESS = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3, *[ctypes.c_int] * 3)


class Failing:
    """A catalogue with lz4 whose C function fails for pages that begin with `bad`."""

    def __init__(self, catalogue: Catalogue, bad: bytes) -> None:
        real = Lz4(CompressorParams()).native_codec()
        assert real is not None
        work = COMPRESS(real.compress)

        def compress(state: int, page: int, out: int, page_size: int, out_size: int, level: int) -> int:
            if ctypes.string_at(page, len(bad)) == bad:
                return 0
            return int(work(state, page, out, page_size, out_size, level))

        callback = COMPRESS(compress)
        address = ctypes.cast(callback, ctypes.c_void_p).value or 0
        codec = replace(real, compress=address, quick=False, library=(real.library, callback))

        class Codec(Lz4):
            def native_codec(self) -> NativeCodec | None:
                return codec

        self.catalogue = replace(catalogue, compressors={"lz4": Codec})


def test_a_codec_that_fails_keeps_the_old_data(device: DeviceFactory, catalogue: Catalogue) -> None:
    made = device(16, uses=Failing(catalogue, b"bad page").catalogue)
    old = b"".join(make_page("half", n, PAGE) for n in range(16))
    made.pwrite(0, old)
    before = stat(made, "mm_stat")
    bad = b"bad page" + make_page("half", 99, PAGE)[8:]
    for data in (bad, make_page("half", 98, PAGE) + bad):
        with pytest.raises(ZramError) as caught:
            made.pwrite(3 * PAGE, data)
        assert caught.value.errno == 5
        assert "lz4" in str(caught.value)
    assert made.pread(0, len(old)) == old
    assert stat(made, "mm_stat") == before
    check_consistent(made)


def test_a_compressor_that_fails_to_say_whether_it_has_functions(device: DeviceFactory, catalogue: Catalogue) -> None:
    class Broken(Lz4):
        def native_codec(self) -> NativeCodec | None:
            raise OSError("no library")

    with pytest.raises(PluginFault, match="no library"):
        device(4, uses=replace(catalogue, compressors={"lz4": Broken}))


def test_interrupts_leave_every_row_with_an_object_of_its_own(device: DeviceFactory) -> None:
    """A signal handler raises at all kinds of moments of a write; afterwards counters, rows and pool agree."""
    made = device(64, comp_algorithm="lz4")
    random = Random(5)
    content = [pages(random, 32) for _ in range(4)]

    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    hits = turn = 0
    try:
        while hits < 60:
            turn += 1
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 6e-4))
                    for _ in range(4):
                        made.pwrite(0, content[turn % 4])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except (
                Interrupted,
                PluginFault,
            ):  # the fault: it came while a plugin was at work, and is told as its failure
                hits += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    for page in range(32):
        assert made.pread(page * PAGE, PAGE) in {
            data[page * PAGE : (page + 1) * PAGE] for data in [*content, bytes(32 * PAGE)]
        }


def test_after_reset_nothing_is_written_and_workers_are_gone(device: DeviceFactory) -> None:
    made = device(600, comp_algorithm="lz4", workers="3")
    made.pwrite(0, pages(Random(1), 20) * 30)
    path = made.path
    assert path is not None
    made.reset()
    with pytest.raises(ZramError):
        path.write_pages(0, memoryview(bytes(PAGE) + pages(Random(2), 3)))
    with pytest.raises(ZramError):
        path.read_pages(0, 4)
    with pytest.raises(ZramError):
        path.read_page(0, PAGE)
    with pytest.raises(NoSpace):
        made.pwrite(0, bytes(PAGE))
    assert made.workers == 3


@pytest.mark.parametrize("text", ["0", "1025", "-1", "two", ""])
def test_workers_refuses(device: DeviceFactory, text: str) -> None:
    made = device(4)
    before = attributes.show(made, "workers")
    with pytest.raises(ZramError) as caught:
        attributes.store(made, "workers", text)
    assert (caught.value.errno, caught.value.attribute) == (22, "workers")
    assert attributes.show(made, "workers") == before
