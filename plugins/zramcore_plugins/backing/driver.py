"""MediumDriver: what the built-in drivers have in common: their options, their bounds, their way to open and close."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from zramcore.errors import DeviceIOError, InvalidValue, OutOfRange
from zramcore.interfaces import BackingDriver, BackingSpec, Buffer, Option, Verdicts, read_options, verdict_of
from zramcore.parse import kstrtobool, memparse_rest

from .medium import Medium

IOV_MAX = os.sysconf("SC_IOV_MAX")
_MAX_SIZE = (1 << 63) - 1  # off_t


def read_size(text: str) -> int:
    """A size in bytes with memparse's suffixes, and nothing behind it. Raises InvalidValue."""
    size, rest = memparse_rest(text)
    if rest or not 0 < size <= _MAX_SIZE:
        raise InvalidValue(
            f"{text!r} is not a size", hint="a number of bytes, or one with K, M, G, T, P or E behind it"
        )
    return size


SIZE = Option("size", read_size, 0, "bytes to use, e.g. 64M; creates the file, lengthens a shorter one; default: all")
DISCARD = Option("discard", kstrtobool, False, "1: give the space of blocks no longer needed back at once; default 0")


def sparse_option(default: bool) -> Option:
    """The option `sparse`, whose default differs between drivers."""
    text = "1: allocate blocks as they are written, 0: all of them at once"
    return Option("sparse", kstrtobool, default, f"{text}; default {default:d}")


class MediumDriver(BackingDriver):
    """Blocks on a Medium. A subclass adds `start`, `write_blocks` and `read_blocks`.

    Errors of opening are those of Medium, and EINVAL for a bad option or a medium smaller than one block.
    """

    options: ClassVar[Sequence[Option]] = (SIZE, sparse_option(True), DISCARD)

    def __init__(self, spec: BackingSpec) -> None:
        super().__init__(spec)
        values = read_options(f"backing driver {self.name}", self.options, spec.options)
        size = int(values["size"])
        self.sparse = bool(values["sparse"])
        self.discard_on_release = bool(values["discard"])
        self.check_options()
        if 0 < size < self.block_size:
            raise self._too_small(size)
        self.medium = Medium(spec.path, size, self.sparse)
        try:
            used = size or self.medium.size
            if used < self.block_size:
                raise self._too_small(used)
            self.nr_blocks = used // self.block_size
            self.start()
        except BaseException:
            self.medium.undo()
            raise

    def _too_small(self, size: int) -> InvalidValue:
        return InvalidValue(f"{self.spec.path}: {size} bytes are less than one block of {self.block_size}")

    def check_options(self) -> None:
        """Refuse options that do not go together, before anything is opened."""

    def start(self) -> None:
        """Prepare for I/O once `medium` and `nr_blocks` are set. The medium is undone when this raises."""

    def offset(self, block: int, count: int) -> int:
        """Offset of a run in bytes. Raises OutOfRange (ERANGE) when the run is not wholly on the medium."""
        if block < 0 or count < 1 or block + count > self.nr_blocks:
            raise OutOfRange(f"{self.spec.path} has no {count} blocks at block {block}: it has {self.nr_blocks}")
        return block * self.block_size

    def parts(self, runs: Sequence[tuple[int, int]], data: memoryview) -> list[tuple[int, memoryview]]:
        """For each of `runs` its offset and what of `data` belongs there. Raises OutOfRange as `offset` does, and
        InvalidValue when `data` has another length."""
        size, end = self.block_size, 0
        parts: list[tuple[int, memoryview]] = []
        for block, count in runs:
            start, end = end, end + count * size
            parts.append((self.offset(block, count), data[start:end]))
        if end != len(data):
            raise InvalidValue(f"{len(data)} bytes are not the {end} of the runs")
        return parts

    def begin_write(self, runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts]:
        verdicts = [verdict_of(self.write_run, offset, part) for offset, part in self.parts(runs, data)]
        return lambda: verdicts

    def write_run(self, offset: int, data: memoryview) -> None:
        """Write page-aligned memory to an offset, without a copy."""
        write_all(self.medium.fd, [data], offset)

    def discard_blocks(self, block: int, count: int) -> None:
        self.medium.discard(self.offset(block, count), count * self.block_size)

    def flush(self) -> None:
        self.medium.flush()

    def close(self) -> None:
        self.medium.close()


# Python repeats a call that a signal interrupted, so EINTR never shows below; a short transfer does.


def write_all(fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    """Write `buffers` one after the other from `offset` on, in as many calls as it takes. Raises OSError."""
    for first in range(0, len(buffers), IOV_MAX):
        batch: Sequence[Buffer] = buffers[first : first + IOV_MAX]
        while batch:
            written = os.pwritev(fd, batch, offset)
            if not written:
                raise DeviceIOError(f"nothing could be written at byte {offset}")
            offset += written
            batch = _rest(batch, written)


def _rest(buffers: Sequence[Buffer], done: int) -> list[Buffer]:
    """What is left of `buffers` after their first `done` bytes."""
    for index, buffer in enumerate(buffers):
        if done < len(buffer):
            return [memoryview(buffer)[done:], *buffers[index + 1 :]]
        done -= len(buffer)
    return []


def read_all(fd: int, buffers: Sequence[memoryview], offset: int) -> None:
    """Fill `buffers` one after the other from `offset` on, in as many calls as it takes. Raises OSError, also when the
    file ends before."""
    for first in range(0, len(buffers), IOV_MAX):
        batch: Sequence[Buffer] = buffers[first : first + IOV_MAX]
        left = sum(map(len, batch))
        while left:
            got = os.preadv(fd, batch, offset)
            if not got:
                raise DeviceIOError(f"the file ends at byte {offset}", hint="it was truncated while it was in use")
            offset += got
            left -= got
            if left:
                batch = _rest(batch, got)


class Run(NamedTuple):
    """Neighbouring blocks from `block` on, and their positions in the request."""

    block: int
    positions: list[int]


def runs_of(blocks: Sequence[int]) -> Iterator[Run]:
    """Different blocks, given in any order, as runs of neighbours in ascending order."""
    positions: list[int] = []
    start = following = -1
    for position in sorted(range(len(blocks)), key=blocks.__getitem__):
        block = blocks[position]
        if block != following:
            if positions:
                yield Run(start, positions)
            start, positions = block, []
        positions.append(position)
        following = block + 1
    if positions:
        yield Run(start, positions)
