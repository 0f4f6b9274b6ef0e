"""A reference model of zram's accounting: slow, obvious, and written from the record of the kernel, not from zramcore.

It knows every figure of mm_stat, bd_stat and io_stat, the lines of block_state, the errno of each operation and the
block each page went to. Plain lists and dicts; whatever can be counted from the state is counted anew each time and
not kept. Nothing here imports zramcore. Sizes come from the compression libraries themselves.
"""

from __future__ import annotations

import ctypes
import functools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import lz4.block
import zstandard
from reference_zsmalloc import Object, Pool

BUCKET_BYTES = 64
"""Post-processing takes the slots with the biggest objects first, in steps of this size."""

TYPES = {"idle": ("idle",), "huge": ("huge",), "huge_idle": ("huge", "idle")}
"""The flags that a `type=` asks for, all of them."""
WRITEBACK_TYPES = {**TYPES, "incompressible": ("incompressible",)}


class Refused(Exception):
    """The operation failed; `name` is its errno's, ``EINVAL``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@functools.cache
def compressed_size(algorithm: str, level: int | None, page: bytes) -> int:
    """Bytes that `page` takes with an algorithm at a level (None: the kernel's default)."""
    if algorithm == "zstd":
        return len(zstandard.ZstdCompressor(level=3 if level is None else level).compress(page))
    if algorithm == "deflate":
        stream = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, -11, 9)
        return len(stream.compress(page) + stream.flush())
    if algorithm == "lz4":
        library = ctypes.CDLL(lz4.block._block.__file__)  # lz4.block itself calls another function than the kernel
        out = ctypes.create_string_buffer(2 * len(page))
        return int(library.LZ4_compress_fast(page, out, len(page), len(out), 1 if level is None else level))
    raise ValueError(algorithm)


def number(text: str, suffixes: str = "") -> int:
    """A decimal number, with one of the suffixes or none, or EINVAL."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None or match[2] not in suffixes:
        raise Refused("EINVAL")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


@dataclass(eq=False)
class Slot:
    """One allocated slot. Its data is in one of three places: nowhere (`same`), the pool (`obj`), or a `block`."""

    page: bytes
    same: bool = False
    obj: Object | None = None
    block: int | None = None
    size: int = 0
    huge: bool = False
    idle: bool = False
    priority: int = 0
    incompressible: bool = False
    ac_time: int = 0

    @property
    def letters(self) -> str:
        """The flags as block_state prints them."""
        is_set = (self.same, self.block is not None, self.huge, self.idle, self.priority > 0, self.incompressible)
        return "".join(letter if on else "." for letter, on in zip("swhirn", is_set, strict=True))


def biggest_first(slots: Iterable[Slot]) -> list[Slot]:
    """The order of post-processing: biggest bucket first, the last one scanned first inside a bucket."""
    last_first = list(slots)[::-1]
    return sorted(last_first, key=lambda slot: -(slot.size // BUCKET_BYTES))


class Model:
    """One device. `clock` gives boot seconds; `stores` says how many blocks each path of a backing store has."""

    def __init__(self, page_size: int, clock: Callable[[], int], stores: Mapping[str, int]) -> None:
        self.page_size = page_size
        self.units = page_size // 4096
        self.clock = clock
        self.stores = stores
        self.limit_enable = False
        self.write_limit = 0
        self.batch_size = 32
        self._reset("1")

    def store(self, attribute: str, value: str) -> None:
        """Write an attribute. Raises Refused."""
        getattr(self, f"_{attribute}")(value)

    # What can be looked at

    def mm_stat(self) -> tuple[int, ...]:
        """The nine columns."""
        slots = self.slots.values()
        stored = sum(slot.size for slot in slots if slot.obj)
        huge = sum(slot.huge for slot in slots if slot.obj)
        same = sum(slot.same for slot in slots)
        used, limit, peak = (self.page_size * n for n in (self.pool.pages, self.limit_pages, self.max_pages))
        counts = (same, self.pool.pages_compacted, huge, self.huge_since)
        return (len(slots) * self.page_size, stored, used, limit, peak, *counts)

    def bd_stat(self) -> tuple[int, ...]:
        """Blocks in use, reads and writes, in units of 4 KiB."""
        return tuple(self.units * count for count in (len(self.blocks_used), self.bd_reads, self.bd_writes))

    def io_stat(self) -> tuple[int, ...]:
        """failed_reads, failed_writes, invalid_io, notify_free."""
        return (0, self.failed_writes, 0, self.notify_free)

    def block_state(self) -> list[tuple[int, int, str]]:
        """Index, access time and flags of every allocated slot."""
        return [(index, slot.ac_time, slot.letters) for index, slot in sorted(self.slots.items())]

    # I/O

    def read(self, offset: int, length: int) -> bytes:
        """The bytes; short at the end of the device."""
        end = min(offset + length, self.nr_pages * self.page_size)
        out = b""
        while offset < end:
            index, start = divmod(offset, self.page_size)
            part = self._load(index)[start : start + end - offset]
            self._accessed(index)
            out += part
            offset += len(part)
        return out

    def write(self, offset: int, data: bytes) -> int:
        """Bytes written; short at the end of the device. Stops at the first page that fails, with EIO."""
        end = min(offset + len(data), self.nr_pages * self.page_size)
        if offset >= end:
            raise Refused("ENOSPC")
        data = data[: end - offset]
        position = 0
        while position < len(data):
            index, start = divmod(offset + position, self.page_size)
            part = data[position : position + self.page_size - start]
            page = part
            if len(part) < self.page_size:
                old = self._load(index)
                page = old[:start] + part + old[start + len(part) :]
            self._write_page(index, page)
            self._accessed(index)
            position += len(part)
        return len(data)

    def discard(self, offset: int, length: int) -> None:
        """Free the pages that lie inside the range; also zeroout."""
        if offset + length > self.nr_pages * self.page_size:
            raise Refused("EINVAL")
        for index in range(-(-offset // self.page_size), (offset + length) // self.page_size):
            self._free(index)
            self.notify_free += 1

    def _load(self, index: int) -> bytes:
        slot = self.slots.get(index)
        if slot is None:
            return bytes(self.page_size)
        self.bd_reads += slot.block is not None
        return slot.page

    def _accessed(self, index: int) -> None:
        if index in self.slots:
            self.slots[index].idle = False
            self.slots[index].ac_time = self.clock()

    def _write_page(self, index: int, page: bytes) -> None:
        if page == page[:8] * (len(page) // 8):
            new = Slot(page, same=True)
        else:
            size = compressed_size(*self.algorithms[0], page)
            huge = size >= self.pool.huge_class_size
            size = self.page_size if huge else size
            obj = self.pool.malloc(size)
            self.max_pages = max(self.max_pages, self.pool.pages)
            if self.limit_pages and self.pool.pages > self.limit_pages:
                self.pool.free(obj)
                self.failed_writes += 1
                raise Refused("EIO")
            new = Slot(page, obj=obj, size=size, huge=huge)
            self.huge_since += huge
        self._free(index)
        self.slots[index] = new

    def _free(self, index: int) -> None:
        slot = self.slots.pop(index, None)
        if slot is not None and slot.obj is not None:
            self.pool.free(slot.obj)
        if slot is not None and slot.block is not None:
            self.blocks_used.remove(slot.block)

    # Attributes

    def _initialised(self) -> None:
        if not self.nr_pages:
            raise Refused("EINVAL")

    def _not_initialised(self) -> None:
        if self.nr_pages:
            raise Refused("EBUSY")

    def _reset(self, _: str) -> None:
        """Forget all but the writeback limit and the batch size."""
        self.nr_pages = 0
        self.algorithms: dict[int, tuple[str, int | None]] = {0: ("lzo-rle", None)}
        self.slots: dict[int, Slot] = {}
        self.pool = Pool(self.page_size)
        self.limit_pages = self.max_pages = self.huge_since = 0
        self.blocks: int | None = None
        self.blocks_used: set[int] = set()
        self.bd_reads = self.bd_writes = self.failed_writes = self.notify_free = 0

    def _comp_algorithm(self, name: str) -> None:
        self._not_initialised()
        self.algorithms[0] = (name, None)

    def _recomp_algorithm(self, text: str) -> None:
        self._not_initialised()
        given = dict(word.split("=") for word in text.split())
        self.algorithms[int(given["priority"])] = (given["algo"], None)

    def _algorithm_params(self, text: str) -> None:
        self._not_initialised()
        given = dict(word.split("=") for word in text.split())
        priority = int(given["priority"])
        self.algorithms[priority] = (self.algorithms[priority][0], int(given["level"]))

    def _backing_dev(self, path: str) -> None:
        self._not_initialised()
        self.blocks = self.stores[path]

    def _compressed_writeback(self, text: str) -> None:
        """What a block holds changes; nothing that is counted does."""
        number(text)
        self._not_initialised()

    def _disksize(self, text: str) -> None:
        size = number(text, "KMG")
        self._not_initialised()
        self.nr_pages = -(-size // self.page_size)

    def _mem_limit(self, text: str) -> None:
        self.limit_pages = -(-number(text, "KMG") // self.page_size)

    def _mem_used_max(self, text: str) -> None:
        if text != "0":
            raise Refused("EINVAL")
        self.max_pages = self.pool.pages

    def _writeback_limit(self, text: str) -> None:
        self.write_limit = number(text) // self.units * self.units

    def _writeback_limit_enable(self, text: str) -> None:
        self.limit_enable = bool(number(text))

    def _writeback_batch_size(self, text: str) -> None:
        if not number(text):
            raise Refused("EINVAL")
        self.batch_size = number(text)

    def _idle(self, text: str) -> None:
        before = None if text == "all" else self.clock() - number(text)
        self._initialised()
        for slot in self.slots.values():
            if slot.obj:
                slot.idle = before is None or before > slot.ac_time

    def _compact(self, _: str) -> None:
        self._initialised()
        self.pool.compact()

    # Post-processing

    def _writeback(self, text: str) -> None:
        self._initialised()
        if self.blocks is None:
            raise Refused("ENODEV")
        error = None
        submitted: list[tuple[Slot, int]] = []
        for slot in biggest_first(self._writeback_scan(text)):
            if self.limit_enable and not self.write_limit:
                error = "EIO"
                break
            # The block comes first, as the kernel's fix of a reserved but unused block tells.
            block = next((block for block in range(self.blocks) if block not in self.blocks_used), None)
            if block is None:
                error = "ENOSPC"
                break
            if slot.obj is None:
                continue  # named twice, and written in an earlier batch
            self.blocks_used.add(block)
            self.write_limit -= self.units * self.limit_enable
            submitted.append((slot, block))
            if len(submitted) == self.batch_size:
                self._complete(submitted)
        self._complete(submitted)
        if error:
            raise Refused(error)

    def _writeback_scan(self, text: str) -> list[Slot]:
        """The slots that `text` names, in the order they are met, some perhaps twice."""
        found: list[Slot] = []
        low, high = 0, self.nr_pages - 1
        wanted: tuple[str, ...] = ()
        for word in text.split():
            key, _, value = word.partition("=")
            if key == "type" or not value:
                if (value or key) not in WRITEBACK_TYPES:
                    raise Refused("EINVAL")
                wanted = WRITEBACK_TYPES[value or key]
            elif key == "page_index":
                low = high = number(value)
            elif key == "page_indexes":
                first, dash, last = value.partition("-")
                if not dash:
                    raise Refused("EINVAL")
                low, high = number(first), number(last)
            else:
                continue
            if low > high or high >= self.nr_pages:
                raise Refused("ERANGE")
            found += [slot for slot in self._stored(low, high) if all(getattr(slot, flag) for flag in wanted)]
            if wanted:
                break
        return found

    def _stored(self, low: int, high: int) -> list[Slot]:
        return [slot for index, slot in sorted(self.slots.items()) if low <= index <= high and slot.obj]

    def _complete(self, submitted: list[tuple[Slot, int]]) -> None:
        for slot, block in submitted:
            self.bd_writes += 1
            if slot.obj is None:
                self.blocks_used.remove(block)  # written twice at once: the first one counts
                continue
            self.pool.free(slot.obj)
            slot.obj, slot.block, slot.idle = None, block, False
        submitted.clear()

    def _recompress(self, text: str) -> None:
        wanted: tuple[str, ...] = ()
        threshold, priority, attempts = 0, 1, None
        for word in text.split():
            key, _, value = word.partition("=")
            if not value or (key == "type" and value not in TYPES):
                raise Refused("EINVAL")
            if key == "type":
                wanted = TYPES[value]
            elif key == "threshold":
                threshold = number(value)
            elif key == "max_pages":
                attempts = number(value)
            elif key == "priority":
                priority = number(value)
            elif key == "algo":
                priority = next((p for p, (name, _) in self.algorithms.items() if p and name == value), 0)
        self._initialised()
        if threshold >= self.pool.huge_class_size or priority == 0 or priority not in self.algorithms:
            raise Refused("EINVAL")
        chosen = [
            slot
            for slot in self._stored(0, self.nr_pages - 1)
            if not slot.incompressible and slot.priority < priority and all(getattr(slot, flag) for flag in wanted)
        ]
        for slot in biggest_first(chosen):
            if attempts == 0:
                break
            if slot.size < threshold:
                continue
            if attempts is not None:
                attempts -= 1
            self._try_again(slot, priority, threshold)

    def _try_again(self, slot: Slot, priority: int, threshold: int) -> None:
        """Compress a slot with another algorithm; it keeps what it has unless the new object is of a smaller class."""
        slot.idle = False
        size = compressed_size(*self.algorithms[priority], slot.page)
        smaller = self.pool.size_class(size) < self.pool.size_class(slot.size)
        if not smaller or (threshold and size >= threshold):
            slot.incompressible = True
            return
        old, slot.obj = slot.obj, self.pool.malloc(size)
        self.pool.free(old)
        slot.size, slot.priority, slot.huge, slot.ac_time = size, priority, False, 0
