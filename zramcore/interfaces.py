"""The contracts a plugin implements: Compressor, Allocator, BackingDriver, WritebackPolicy.

Hooks only register classes of these kinds (see hookspecs.py); the device calls the objects directly, so nothing
here costs a hook call per page. Every contract is batch first: the device calls the batch method, and the base
class supplies the loop for an author who has only the one-page form.

A buffer handed to a plugin is valid until the call returns: a plugin must not keep a reference to it.
An exception that is not a ZramError is reported as EIO naming the plugin, and leaves the device consistent.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, ParamSpec, TypeAlias

from .errors import NoMemory, NotSupported, did_you_mean
from .options import API_VERSION as API_VERSION
from .options import Option as Option
from .options import OptionValue as OptionValue
from .options import read_options as read_options
from .policy_contract import PolicyTarget as PolicyTarget
from .policy_contract import Tick as Tick
from .policy_contract import WritebackPolicy as WritebackPolicy
from .policy_contract import can as can

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Readable bytes. Pages are C-contiguous and exactly one page long."""

# Compressors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompressorParams:
    """The parameters of one compression priority, as `algorithm_params` sets them; None means not set.

    `page_size` is the device's, in bytes. `dictionary` holds the bytes of the dict= file.
    """

    page_size: int = 4096
    level: int | None = None
    dictionary: bytes | None = None
    winbits: int | None = None


class CompressorContext(abc.ABC):
    """One thread's scratch state. Never shared between threads, so it may reuse streams and buffers.

    `compress_call` and `decompress_call` are what the device calls for a single page: these methods, unless a context
    sets them to something quicker that takes the same arguments, such as the library's own C function. What they
    raise is reported for them, naming the plugin.
    """

    workers: int = 1
    """Threads that `compress_pages` may use, the calling one included; the device sets it before a call."""

    @property
    def compress_call(self) -> Callable[[Buffer], Buffer]:
        """`compress_page`, or something quicker."""
        return self.compress_page

    @property
    def decompress_call(self) -> Callable[[Buffer, int], Buffer]:
        """`decompress_page`, or something quicker; the device checks the length of what it returns."""
        return self.decompress_page

    @abc.abstractmethod
    def compress_page(self, page: Buffer) -> Buffer:
        """The compressed form of one page. It may be longer than the page: the device then stores the page raw."""

    @abc.abstractmethod
    def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
        """The page (exactly `page_size` bytes) that `compress_page` was given. Raises on damaged data."""

    def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
        """The compressed forms of many pages, in order."""
        compress = self.compress_page
        return [compress(page) for page in pages]

    def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        """The pages of many compressed objects, in order."""
        decompress = self.decompress_page
        return [decompress(data, page_size) for data in objects]


@dataclass(frozen=True)
class NativeCodec:
    """A compressor's C functions, as addresses: the compiled batch path calls them without Python between the pages.

    ``int compress(void *state, const char *page, char *out, int page_size, int out_size, int level)`` returns the bytes
    written to `out` (`most_bytes` long), 0 or less when it fails. ``int decompress(const char *data, char *page, int
    data_size, int page_size)`` returns the bytes written, and must stay within both buffers whatever the data. Both
    are called by several threads at once, without the GIL, and compress the page to what `compress_page` would.
    """

    compress: int
    decompress: int
    most_bytes: int
    """Of a compressed page; more than the page where the algorithm expands what it cannot compress."""
    state_size: int = 0
    """Bytes of scratch for `compress`, aligned to 64; they hold anything, and each call prepares them itself."""
    level: int = 0
    quick: bool = False
    """A single page takes a few microseconds only: the GIL is then kept for it, for giving it up costs more."""
    library: object = None
    """Kept alive with the codec, so that the functions stay loaded."""


class Compressor(abc.ABC):
    """One algorithm with its parameters: immutable, shared by all threads of a device; contexts hold the rest.

    The three lifetimes are those of the kernel's zcomp: parameters (this object), context (a thread), call.
    """

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    summary: ClassVar[str] = ""

    def __init__(self, params: CompressorParams) -> None:
        """Check `params`; called when disksize is set. Raises InvalidValue (EINVAL) for a value this algorithm
        does not take and NotSupported (EOPNOTSUPP) for a parameter it does not have."""
        self.params = params

    @abc.abstractmethod
    def create_context(self) -> CompressorContext:
        """A new context for the calling thread."""

    def native_codec(self) -> NativeCodec | None:
        """The same algorithm with these parameters as C functions; None, the default, when there are none."""
        return None


# Allocators -------------------------------------------------------------------------------------------------------


class Allocator(abc.ABC):
    """Memory for compressed objects of 1..page_size bytes. A handle is an int > 0; 0 means no object.

    Locking: calls may come from several threads at once and the allocator serialises what it must. A view is
    valid while the caller holds the lock of the slot that owns the object; `compact` is called only when nobody
    holds a view. `pages_used` counts pool pages of `page_size` bytes (mm_stat's mem_used_total).

    `peak_pages` is mem_used_max: raised to `pages_used` after every allocation that `store` makes and before the
    limit is checked (measured, Linux 7.3.4), never by `alloc`, and assignable.
    """

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    summary: ClassVar[str] = ""

    huge_class_size: int
    """Compressed objects of this many bytes or more are stored raw, as a whole page (3625 for 4 KiB zsmalloc)."""

    arena: tuple[memoryview, memoryview] | None = None
    """(positions, memory) of an allocator whose objects lie in one buffer: while it lives, object `h` of `n` bytes is
    ``memory[positions[h] : positions[h] + n]``. The device then reads single objects without a call; else by `view`."""

    store_packed: Callable[..., int] | None = None
    """Optional: ``store_packed(packed, offsets, sizes, replaced, limit_pages, handles) -> int``, which is `store` of
    the objects ``packed[offset : offset + size]``. Buffers: `offsets` and `sizes` of uint32 (size 0: nothing to store),
    `replaced` and `handles` of uint64. Handles are written into `handles` as far as it gets; returns how many
    positions are done, fewer than there are for ENOMEM. Bad arguments raise InvalidValue (EINVAL) or NoSpace (ENOSPC),
    and nothing has changed then. No signal handler runs in the middle. Nothing may change the buffers meanwhile."""

    replace_one: tuple[int, int] | None = None
    """Optional, beside `store_packed`: addresses of a C function and of what it gets as `pool`. ``int replace(void
    *pool, const char *data, uint32_t size, uint64_t limit_pages, uint64_t replaced, uint64_t *handle)`` is `store` of a
    single object (size 0: nothing to store, `handle` is left alone), called with the GIL, which it may give up and take
    back. It returns 0, 1 for ENOMEM, or -1 for a handle or size that cannot be; then nothing has changed."""

    peak_pages: int = 0
    pages_compacted: int = 0
    """Pages that all calls of `compact` have freed."""

    def __init__(self, page_size: int, max_objects: int) -> None:
        """`max_objects` bounds how many objects are alive at once (slots of the device plus a margin)."""
        self.page_size = page_size
        self.max_objects = max_objects

    @property
    @abc.abstractmethod
    def pages_used(self) -> int:
        """Pages the pool holds now."""

    @abc.abstractmethod
    def alloc(self, size: int) -> int:
        """A handle for `size` bytes (1..page_size). Raises NoMemory (ENOMEM)."""

    @abc.abstractmethod
    def write(self, handle: int, data: Buffer) -> None:
        """Fill the object; len(data) is the size it was allocated with."""

    @abc.abstractmethod
    def view(self, handle: int, size: int) -> Buffer:
        """The object's bytes, without a copy where possible."""

    @abc.abstractmethod
    def free(self, handle: int) -> None:
        """Give the object back."""

    @abc.abstractmethod
    def compact(self) -> int:
        """Move objects together; returns the pages freed and adds them to `pages_compacted`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give all memory back; no other call follows."""

    def size_class(self, size: int) -> int:
        """Class that an object of `size` bytes is compared by when recompressing; the default is `size` itself."""
        return size

    def views(self, handles: Sequence[int], sizes: Sequence[int]) -> list[Buffer]:
        """`view` of many objects, in order."""
        view = self.view
        return [view(handle, size) for handle, size in zip(handles, sizes, strict=True)]

    def free_many(self, handles: Sequence[int]) -> None:
        """`free` many objects, in order."""
        for handle in handles:
            self.free(handle)

    def store(
        self, objects: Sequence[Buffer | None], replaced: Sequence[int], limit_pages: int, handles: list[int]
    ) -> None:
        """Store objects one after the other, each time freeing the one it replaces, as the kernel does in a bio.

        For each position: allocate and fill `objects[i]` (None: nothing to store, its handle is 0), raise
        `peak_pages`, append the handle to `handles`, then free `replaced[i]` (0: nothing to free). When an
        allocation fails, or leaves the pool over `limit_pages` (0: no limit), that object is given back, its old
        one kept, and the call returns: a short `handles` means ENOMEM at that position. `handles` is filled as it
        goes so that the caller can commit what was done even when an exception ends the call.
        """
        for data, old in zip(objects, replaced, strict=True):
            handle = 0
            if data is not None:
                handle = self.store_one(data, limit_pages)
                if not handle:
                    return
            handles.append(handle)
            if old:
                self.free(old)

    def store_one(self, data: Buffer, limit_pages: int) -> int:
        """Allocate, raise `peak_pages`, check `limit_pages`, fill; 0 means ENOMEM. Frees nothing else."""
        try:
            handle = self.alloc(len(data))
        except NoMemory:
            return 0
        if self.pages_used > self.peak_pages:
            self.peak_pages = self.pages_used
        if limit_pages and self.pages_used > limit_pages:
            self.free(handle)
            return 0
        try:
            self.write(handle, data)
        except BaseException:
            self.free(handle)
            raise
        return handle

    def pages_freed_by(self, handles: Sequence[int], sizes: Sequence[int]) -> int:
        """Pages that freeing these objects would give back now; nothing is freed. `writeback_preview` shows it.

        The default is an estimate: their bytes, in whole pages. Nobody's locks are held, so a handle may have been
        freed or given to another object since: that may make the answer wrong, and must do no other harm.
        """
        return sum(sizes) // self.page_size

    def classes(self) -> str:
        """The text of debugfs zsmalloc/zram0/classes: a header, a line for each size class, totals.

        Raises NotSupported (EOPNOTSUPP): the default, for an allocator without such classes.
        """
        raise NotSupported(f"allocator {self.name} has no size classes", hint="zsmalloc has")

    def trim(self) -> None:  # noqa: B027 - an allocator without anything to trim has nothing to do
        """Give memory that is free back to the system now; the device calls it after bulk work."""


# Backing drivers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackingSpec:
    """What `backing_dev` was given: a path, the options after it, and the block size (the device's page size).

    `text` is what `backing_dev` shows afterwards; empty means the path.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    block_size: int = 4096
    text: str = ""


Verdicts: TypeAlias = Sequence[Exception | None]
"""One for each run of blocks, in the same order. None: it is written; otherwise what its write raised."""

_P = ParamSpec("_P")


def verdict_of(write: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> Exception | None:
    """The verdict on one run, which `write` writes."""
    try:
        write(*args, **kwargs)
    except Exception as error:
        return error
    return None


class BackingDriver(abc.ABC):
    """Blocks of `block_size` bytes, numbered from 0, on something that outlives memory.

    The store above it hands out block numbers and serialises nothing: reads and writes of different blocks may
    come from several threads at once. Any OSError of a write means that none of the run is known to be stored.
    """

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    summary: ClassVar[str] = ""
    options: ClassVar[Sequence[Option]] = ()

    nr_blocks: int
    discard_on_release: bool = False
    """Whether the store is to call `discard_blocks` for blocks it no longer needs."""

    def __init__(self, spec: BackingSpec) -> None:
        """Open it. Raises ZramError with the kernel's errno: ENOENT, EACCES, EISDIR, EBUSY (held by another
        device), EINVAL (smaller than a block, or a bad option), and leaves nothing behind when it does."""
        self.spec = spec
        self.block_size = spec.block_size

    @abc.abstractmethod
    def write_blocks(self, block: int, blocks: Sequence[Buffer]) -> None:
        """Write a contiguous run that starts at `block`, whole or not at all as far as the caller is concerned."""

    @abc.abstractmethod
    def read_blocks(self, block: int, count: int) -> Buffer:
        """`count` contiguous blocks. Raises OSError, also when fewer bytes come back."""

    def begin_write(self, runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts]:
        """Start writing `data` to `runs` of (first block, count), one at least, which ascend and do not overlap; the
        blocks of all of them lie one after the other in `data`, which is page-aligned.

        Returns a function, called once at most, that waits until all of them have ended and gives a verdict for each.
        `data` and the blocks are used for nothing else before. Whatever either of them raises concerns all the runs,
        and then nothing is under way any more; so it is when the function is dropped without being called. The default
        has written everything by `write_blocks` when it returns.
        """
        size = self.block_size
        verdicts: list[Exception | None] = []
        start = 0
        for block, count in runs:
            end = start + count * size
            pages = [data[first : first + size] for first in range(start, end, size)]
            verdicts.append(verdict_of(self.write_blocks, block, pages))
            start = end
        return lambda: verdicts

    def read_scattered(self, blocks: Sequence[int], target: memoryview) -> bool:
        """Fill `target`, which is page-aligned, with `blocks`: different ones, in any order, one after the other.
        Raises what `read_blocks` raises. The default is to return False: the store then calls that, run by run."""
        return False

    @abc.abstractmethod
    def discard_blocks(self, block: int, count: int) -> None:
        """The contents are no longer needed: give the space back where the medium can."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Return when everything written is on stable storage."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the medium and its lock; no other call follows."""


# What a device is built from --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catalogue:
    """The factories a device may choose from, by name, in the order `comp_algorithm` lists them."""

    compressors: Mapping[str, type[Compressor]]
    allocators: Mapping[str, type[Allocator]]
    backing_drivers: Mapping[str, type[BackingDriver]]
    policies: Mapping[str, type[WritebackPolicy]] = field(default_factory=dict)
    advice: Callable[[str, str], str] | None = field(default=None, compare=False, repr=False)
    """What to do about a missing (family, name); `registry.build_catalogue` gives one that knows the plugins."""

    def hint(self, family: str, name: str) -> str:
        """The hint of an error about a `name` that is not in `family` (one of the fields above, ``compressors``)."""
        return self.advice(family, name) if self.advice else did_you_mean(name, getattr(self, family))
