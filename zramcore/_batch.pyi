"""What _batch.c offers; there are docstrings in the module."""

from typing import Any

CALLS: int
SIZE_MASK: int
SAME: int
WB: int
PP_SLOT: int
HUGE: int
IDLE: int
INCOMPRESSIBLE: int
PRIORITY_MASK: int

class Codec:
    def __init__(
        self, compress: int, decompress: int, state_size: int, level: int, most_bytes: int, quick: bool
    ) -> None: ...

class Pages:
    workers: int
    def __init__(
        self,
        codec: Codec,
        page_size: int,
        huge_class_size: int,
        flags: Any,
        handles: Any,
        ac_times: Any,
        positions: Any,
        memory: Any,
        workers: int,
        part_pages: int,
        replace_one: tuple[int, int],
    ) -> None: ...
    def compress(self, data: Any, packed: Any, offsets: Any, flags: Any, words: Any, /) -> None: ...
    def compress_page(self, page: bytes, /) -> int | bytes | None: ...
    def prepare(self, rows: Any, count: int, old_flags: Any, replaced: Any, handles: Any, /) -> int: ...
    def assign(self, rows: Any, count: int, flags: Any, handles: Any, words: Any, now: int, /) -> int: ...
    def read(self, first: int, count: int, now: int, /) -> bytes | None: ...
    def read_into(self, first: int, target: Any, now: int, /) -> int: ...
    def read_page(self, index: int, now: int, /) -> bytes | None: ...
    def take(self, slots: Any, target: Any, found: Any, as_stored: bool, /) -> int: ...
    def commit(
        self, slots: Any, blocks: Any, written: Any, kept: Any, handles: Any, keep_sizes: bool, /
    ) -> tuple[int, int, int]: ...
    def write_page(
        self, index: int, page: bytes, now: int, limit_pages: int, /
    ) -> int | tuple[int, int, int] | None: ...
    def release(self) -> None: ...

def change(old_flags: Any, flags: Any, count: int, /) -> tuple[int, int, int, int, int]: ...
def bare_compress(codec: Codec, data: Any, page_size: int, sizes: Any, /) -> int: ...
def bare_decompress(codec: Codec, packed: Any, offsets: Any, sizes: Any, page_size: int, out: Any, /) -> int: ...
