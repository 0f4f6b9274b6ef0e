"""The block layer in front of a device: what reaches it, and what is refused before."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore.errors import DeviceIOError, InvalidValue, NoMemory, NoSpace, NotSupported
from zramcore.script.block import KEEP_SIZE, NO_HIDE_STALE, PUNCH_HOLE, ZERO_RANGE, BlockFront, FsyncError

STEADY = settings(deadline=None, derandomize=True)

PAGES = 8
PAGE = 4096
SIZE = PAGES * PAGE


class FakeDevice:
    """A device that remembers the requests it got; those that `fails` names raise what a full pool raises."""

    disksize = SIZE
    page_size = PAGE

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.requests: list[tuple[str, int, int]] = []
        self.fails: set[str] = set()

    def _request(self, kind: str, offset: int, length: int) -> None:
        self.requests.append((kind, offset, length))
        if kind in self.fails:
            raise NoMemory("the pool is full")

    def pread(self, offset: int, length: int) -> bytes:
        self._request("read", offset, length)
        return bytes(self.data[offset : offset + length])

    def pwrite(self, offset: int, data: bytes) -> int:
        self._request("write", offset, len(data))
        self.data[offset : offset + len(data)] = data
        return len(data)

    def discard(self, offset: int, length: int) -> None:
        self._request("discard", offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._request("zeroes", offset, length)
        self.data[offset : offset + length] = bytes(length)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def front(device: FakeDevice) -> BlockFront:
    return BlockFront(device)


class TestDirect:
    # The rows of transcript 06 under "O_DIRECT partial".
    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 512), (512, 512), (0, 1024), (2048, 2048), (2048, 4096), (100, 4096), (4096, 6144), (0, 100)],
    )
    def test_partial_blocks_are_refused(self, front: BlockFront, device: FakeDevice, offset: int, length: int) -> None:
        with pytest.raises(InvalidValue):
            front.read(offset, length)
        with pytest.raises(InvalidValue):
            front.write(offset, bytes(length))
        assert device.requests == []

    def test_the_end(self, front: BlockFront, device: FakeDevice) -> None:
        assert front.read(SIZE, PAGE) == b""
        assert front.read(SIZE + 100, 7) == b""
        assert len(front.read(SIZE - PAGE, 2 * PAGE)) == PAGE
        assert front.write(SIZE - PAGE, bytes(2 * PAGE)) == PAGE
        assert device.requests == [("read", SIZE - PAGE, PAGE), ("write", SIZE - PAGE, PAGE)]
        with pytest.raises(NoSpace):
            front.write(SIZE, bytes(PAGE))
        assert front.write(SIZE, b"") == 0

    def test_a_full_pool_is_an_io_error(self, front: BlockFront, device: FakeDevice) -> None:
        device.fails = {"read", "write"}
        for request in (lambda: front.read(0, PAGE), lambda: front.write(0, bytes(PAGE))):
            with pytest.raises(DeviceIOError) as caught:
                request()
            assert caught.value.errno == errno.EIO


class TestBuffered:
    def test_a_part_of_a_page_is_read_changed_and_written_whole(self, front: BlockFront, device: FakeDevice) -> None:
        device.data[:] = bytes([7]) * SIZE
        assert front.write(512, b"x" * 1024, buffered=True) == 1024
        assert device.requests == [("read", 0, PAGE), ("write", 0, PAGE)]
        assert device.data == b"\7" * 512 + b"x" * 1024 + b"\7" * (SIZE - 1536)

    def test_only_the_ends_are_read(self, front: BlockFront, device: FakeDevice) -> None:
        front.write(100, bytes(3 * PAGE), buffered=True)
        assert device.requests == [("read", 0, PAGE), ("read", 3 * PAGE, PAGE), ("write", 0, 4 * PAGE)]

    def test_whole_pages_are_not_read(self, front: BlockFront, device: FakeDevice) -> None:
        front.write(PAGE, bytes(2 * PAGE), buffered=True)
        assert device.requests == [("write", PAGE, 2 * PAGE)]

    def test_a_read_takes_whole_pages_and_reads_ahead_at_the_start(self, front: BlockFront, device: FakeDevice) -> None:
        front.read(PAGE + 10, 20, buffered=True)
        front.read(10, 20, buffered=True)
        assert device.requests == [("read", PAGE, PAGE), ("read", 0, 4 * PAGE)]

    def test_a_write_that_fails_on_its_way_out_fails_in_fsync(self, front: BlockFront, device: FakeDevice) -> None:
        device.fails = {"write"}
        with pytest.raises(FsyncError):
            front.write(0, b"x", buffered=True)
        device.fails = {"read"}
        with pytest.raises(DeviceIOError) as caught:
            front.write(0, b"x", buffered=True)
        assert not isinstance(caught.value, FsyncError)

    @STEADY
    @given(st.lists(st.tuples(st.integers(0, SIZE + 10), st.binary(max_size=2 * PAGE)), max_size=6))
    def test_against_a_bytearray(self, writes: list[tuple[int, bytes]]) -> None:
        device = FakeDevice()
        front = BlockFront(device)
        model = bytearray(SIZE)
        for offset, data in writes:
            if data and offset >= SIZE:
                with pytest.raises(NoSpace):
                    front.write(offset, data, buffered=True)
                continue
            taken = front.write(offset, data, buffered=True)
            assert taken == min(len(data), max(SIZE - offset, 0))
            model[offset : offset + taken] = data[:taken]
            assert front.read(offset, len(data), buffered=True) == data[:taken]
        assert device.data == model


class TestRanges:
    @pytest.mark.parametrize(
        ("offset", "length"), [(512, PAGE), (0, 512), (0, 0), (SIZE, PAGE), (SIZE - PAGE, 2 * PAGE)]
    )
    def test_discard_and_zeroout_take_whole_blocks_within_the_device(
        self, front: BlockFront, device: FakeDevice, offset: int, length: int
    ) -> None:
        for request in (front.discard, front.zeroout):
            with pytest.raises(InvalidValue):
                request(offset, length)
        assert device.requests == []

    def test_they_reach_the_device(self, front: BlockFront, device: FakeDevice) -> None:
        front.discard(0, SIZE)
        front.zeroout(PAGE, PAGE)
        front.fallocate(PUNCH_HOLE | KEEP_SIZE, PAGE, 2 * PAGE)
        front.fallocate(ZERO_RANGE | KEEP_SIZE, SIZE - PAGE, 5 * PAGE)
        assert device.requests == [
            ("discard", 0, SIZE),
            ("zeroes", PAGE, PAGE),
            ("zeroes", PAGE, 2 * PAGE),
            ("zeroes", SIZE - PAGE, PAGE),
        ]

    @pytest.mark.parametrize(
        ("request_", "kind"),
        [
            (lambda front: front.fallocate(PUNCH_HOLE | KEEP_SIZE | NO_HIDE_STALE, 0, PAGE), NotSupported),
            (lambda front: front.fallocate(0, 0, PAGE), NotSupported),
            (lambda front: front.secure_discard(0, PAGE), NotSupported),
            (lambda front: front.fallocate(PUNCH_HOLE | KEEP_SIZE, 100, PAGE), InvalidValue),
            (lambda front: front.fallocate(PUNCH_HOLE | KEEP_SIZE, SIZE, PAGE), InvalidValue),
            (lambda front: front.fallocate(ZERO_RANGE, SIZE - PAGE, 2 * PAGE), InvalidValue),
            (lambda front: front.fallocate(ZERO_RANGE, 0, 0), InvalidValue),
        ],
    )
    def test_what_a_zram_has_not(
        self, front: BlockFront, request_: Callable[[BlockFront], None], kind: type[Exception]
    ) -> None:
        with pytest.raises(kind):
            request_(front)
