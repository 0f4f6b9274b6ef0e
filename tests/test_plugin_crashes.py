"""A crash inside a plugin: that request fails with EIO and names the plugin, and nothing else is hurt.

Every method of a compressor and of an allocator is made to misbehave under every operation that may call it. What must
hold afterwards is always the same, so it is written down once, in `survives`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import NoMemory, PluginFault, ZramError
from zramcore.testing.inspection import check_consistent, peek, stat

PAGE = 4096
PAGES = 12


def page(number: int, noise: int = 700) -> bytes:
    return (number.to_bytes(8, "little") + Random(number).randbytes(noise)).ljust(PAGE, b"\0")


OLD = [page(index, 4088 if index % 4 == 3 else 700) for index in range(PAGES)]
NEW = [page(100 + index, 4088 if index % 4 == 2 else 600) for index in range(PAGES)]


def store(device: Device, name: str, text: str) -> None:
    attributes.store(device, name, text)


OPERATIONS: dict[str, Callable[[Device], object]] = {
    "write a page": lambda device: device.pwrite(0, NEW[0]),
    "write a page of a bytearray": lambda device: device.pwrite(0, bytearray(NEW[0])),
    "write a same-filled page": lambda device: device.pwrite(0, b"\7" * PAGE),
    "write pages": lambda device: device.pwrite(0, b"".join(NEW)),
    "write a part": lambda device: device.pwrite(10, b"part"),
    "write a part of a written-back page": lambda device: device.pwrite(11 * PAGE + 10, b"part"),
    "read a page": lambda device: device.pread(0, PAGE),
    "read pages": lambda device: device.pread(0, PAGES * PAGE),
    "read primary pages": lambda device: device.pread(0, 2 * PAGE),
    "read into a buffer": lambda device: device.pread_into(0, bytearray(PAGES * PAGE)),
    "read a written-back page": lambda device: device.pread(11 * PAGE, PAGE),
    "discard": lambda device: device.discard(0, PAGES * PAGE),
    "zero a part": lambda device: device.write_zeroes(100, 5 * PAGE),
    "compact": lambda device: store(device, "compact", "1"),
    "write back": lambda device: store(device, "writeback", "idle"),
    "recompress": lambda device: store(device, "recompress", "priority=1"),
}


@pytest.fixture
def made(device: Callable[..., Device], rogue: Any) -> Iterator[Device]:
    """Twelve pages of every kind, all idle, the last two written back, with rogue plugins everywhere."""
    new = device(
        PAGES, uses=rogue.catalogue, comp_algorithm="rogue", recomp_algorithm="algo=zstd", allocator="rogue",
        compressed_writeback="1",
    )  # fmt: skip
    new.pwrite(0, b"".join(OLD))
    store(new, "writeback", "page_indexes=10-11")
    store(new, "idle", "all")
    yield new
    rogue.heal()


def survives(device: Device, rogue: Any, operation: Callable[[Device], object]) -> ZramError | None:
    """Do it; whatever came of it, rows and counters agree, no page holds anything but old or new bytes, and once the
    plugin is well every page can be read and written. Returns the error."""
    failed: ZramError | None = None
    try:
        operation(device)
    except ZramError as error:
        failed = error
    rogue.heal()
    check_consistent(device)
    for index in range(PAGES):
        now = peek(device, index)
        known = (OLD[index], NEW[index], bytes(PAGE), b"\7" * PAGE)
        pieces = zip(now, *known, strict=True)
        assert now in known or all(byte in others or byte in b"part" for byte, *others in pieces), index
        assert device.pread(index * PAGE, PAGE) == now
    device.pwrite(0, b"".join(NEW))
    assert device.pread(0, PAGES * PAGE) == b"".join(NEW)
    store(device, "idle", "all")
    store(device, "writeback", "idle")
    assert device.pread(0, PAGES * PAGE) == b"".join(NEW)
    check_consistent(device)
    device.discard(0, PAGES * PAGE)
    assert stat(device, "mm_stat")[:2] == [0, 0]
    assert stat(device, "bd_stat")[0] == 0
    return failed


BAD_RETURNS: dict[str, list[Any]] = {
    "compress_page": [b"", None, 7, "text" * 9],
    "compress_pages": [[], [b"x"], None, [None] * PAGES, ["text"] * PAGES, [b""] * PAGES, iter([b"x"] * PAGES)],
    "decompress_page": [b"", None, 7, b"x" * (PAGE - 1), b"x" * (PAGE + 1), "x" * PAGE],
    "decompress_pages": [[], None, [b"x" * PAGE] * 99, [b"x"] * PAGES, [None] * PAGES, ["x" * PAGE] * PAGES],
}
COMPRESSOR_CALLS = ["compress_page", "decompress_page", "compress_pages", "decompress_pages"]
ALLOCATOR_CALLS = ["alloc", "write", "view", "views", "free", "free_many", "store", "store_one", "compact", "trim"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("method", COMPRESSOR_CALLS)
def test_the_compressor_raises(made: Device, rogue: Any, method: str, operation: str) -> None:
    rogue.calls.clear()
    rogue.raises(method, RuntimeError("boom"))
    error = survives(made, rogue, OPERATIONS[operation])
    assert error is None or (error.errno == errno.EIO and "plugin rogue: RuntimeError: boom" in str(error))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("method", "value"),
    [(method, value) for method, values in BAD_RETURNS.items() for value in values],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else repr(value)[:24],
)
def test_the_compressor_returns_rubbish(made: Device, rogue: Any, method: str, value: Any, operation: str) -> None:
    rogue.returns(method, value)
    error = survives(made, rogue, OPERATIONS[operation])
    assert error is None or (isinstance(error, PluginFault) and error.errno == errno.EIO)
    assert error is None or error.plugin == "rogue"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("method", ALLOCATOR_CALLS)
def test_the_allocator_raises(made: Device, rogue: Any, method: str, operation: str) -> None:
    rogue.raises(method, RuntimeError("boom"))
    error = survives(made, rogue, OPERATIONS[operation])
    assert error is None or (error.errno == errno.EIO and "plugin rogue: RuntimeError: boom" in str(error))


def test_every_method_above_is_called_by_some_operation(made: Device, rogue: Any) -> None:
    """Or the tests above would prove nothing of it."""
    for operation in OPERATIONS.values():
        operation(made)
        made.pwrite(0, b"".join(OLD))
        store(made, "idle", "all")
    assert rogue.calls.keys() >= {*COMPRESSOR_CALLS, *ALLOCATOR_CALLS} - {"views", "free_many", "store_one", "alloc"}


@pytest.mark.parametrize("value", [None, 7, "text"])
@pytest.mark.parametrize("pages", [1, 3])
def test_rubbish_of_a_compressor_is_not_blamed_on_the_allocator(
    device: Callable[..., Device], rogue: Any, value: Any, pages: int
) -> None:
    made = device(PAGES, uses=rogue.catalogue, comp_algorithm="rogue", allocator="zsmalloc")
    rogue.returns("compress_page", value)
    with pytest.raises(PluginFault, match="plugin rogue"):
        made.pwrite(0, b"".join(NEW[:pages]))
    assert made.pread(0, pages * PAGE) == bytes(pages * PAGE)
    rogue.heal()
    made.pwrite(0, b"".join(NEW[:pages]))
    rogue.returns("decompress_page", value)
    with pytest.raises(PluginFault, match="plugin rogue"):
        made.pread(0, pages * PAGE)


@pytest.mark.parametrize("pages", [1, 3])
def test_a_crash_of_the_allocator_is_not_blamed_on_the_compressor(
    device: Callable[..., Device], rogue: Any, pages: int
) -> None:
    made = device(PAGES, uses=rogue.catalogue, allocator="rogue")
    made.pwrite(0, b"".join(OLD))
    for method in ("view", "views"):
        rogue.raises(method, IndexError(5))
    with pytest.raises(PluginFault, match="plugin rogue: IndexError: 5"):
        made.pread(0, pages * PAGE)


@pytest.mark.parametrize("method", ["alloc", "store_one"])
def test_the_allocator_has_no_memory(made: Device, rogue: Any, method: str) -> None:
    """ENOMEM becomes EIO, as for any request to a block device; the old page stays."""
    rogue.raises(method, NoMemory("none left")) if method == "alloc" else rogue.returns(method, 0)
    for request in (NEW[0], b"".join(NEW)):
        with pytest.raises(ZramError) as caught:
            made.pwrite(0, request)
        assert caught.value.errno == errno.EIO
        assert peek(made, 0) == OLD[0]
    assert stat(made, "io_stat")[1] == 2
    check_consistent(made)


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), RecursionError("deep")])
def test_the_constructor_of_a_compressor_raises(device: Callable[..., Device], rogue: Any, error: Exception) -> None:
    made = device(0, uses=rogue.catalogue)
    for method in ("new_compressor", "create_context"):
        store(made, "comp_algorithm", "rogue")
        rogue.raises(method, error)
        with pytest.raises(PluginFault, match="plugin rogue") as caught:
            store(made, "disksize", "1M")
        assert (caught.value.errno, caught.value.attribute) == (errno.EIO, "disksize")
        assert not made.initialized
        assert "[lz4]" in attributes.show(made, "comp_algorithm"), "the choice is forgotten, as in the kernel"
        rogue.heal()
    store(made, "disksize", "1M")
    assert made.initialized


def test_the_constructor_of_an_allocator_raises(device: Callable[..., Device], rogue: Any) -> None:
    made = device(0, uses=rogue.catalogue, allocator="rogue", blocks=0)
    rogue.raises("__init__", RuntimeError("boom"))
    with pytest.raises(PluginFault, match="plugin rogue: RuntimeError: boom"):
        store(made, "disksize", "1M")
    assert not made.initialized
    rogue.heal()
    store(made, "disksize", "1M")
    assert made.pwrite(0, NEW[0]) == PAGE


def test_an_allocator_that_cannot_be_closed_does_not_stop_a_reset(made: Device, rogue: Any) -> None:
    driver = made.backing.driver if made.backing else None
    rogue.raises("close", RuntimeError("boom"))
    with pytest.raises(PluginFault, match="plugin rogue: RuntimeError: boom"):
        store(made, "reset", "1")
    assert not made.initialized
    assert made.backing is None
    assert getattr(driver, "closed", False)
    assert stat(made, "mm_stat") == [0] * 9
    rogue.heal()
    store(made, "disksize", "1M")
    assert made.pread(0, PAGE) == bytes(PAGE)


def test_a_context_that_cannot_be_made_in_a_second_thread(made: Device, rogue: Any) -> None:
    """Contexts belong to threads: the first request of a thread fails, and a later one may work."""
    import threading

    rogue.raises("create_context", RuntimeError("boom"))
    answers: list[object] = []

    def request() -> None:
        for _ in range(2):
            try:
                answers.append(made.pread(0, PAGE))
            except PluginFault as error:
                answers.append(error.plugin)
                rogue.heal()

    thread = threading.Thread(target=request)
    thread.start()
    thread.join()
    assert answers == ["rogue", OLD[0]]
