"""zsmalloc: the kernel's allocator for compressed pages, placed exactly as Linux 7.3.4 places them.

Which zspage an object goes into decides mem_used_total, so classes, fullness groups, free-list order and compaction
are the kernel's; the page counts agree with it after any sequence of operations. How it is held together:

    size -> ClassState (zspages.py) -> current Zspage -> payload offset in the Arena (arena.py)
    handle -> HandleTable (handles.py) -> payload offset -> arena.owners[page] -> Zspage

One lock per pool, taken once per batch; `view` and `views` take none. The kernel keeps the list of free objects inside
them, and so does this: a live object's first word is its handle, a free one's the offset of the next free one.

Order of statements: an object is filled first, in a place that is only looked at, and then committed by statements
among which there is no call, because only calls can let an interrupt in. So whatever ends `store`, no object is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from zramcore.errors import InvalidValue, NoMemory, NoSpace, ZramError
from zramcore.interfaces import Allocator, Buffer

from .arena import TRIM_PAGES, Arena
from .class_table import ClassRow, class_rows
from .compaction import compact_class
from .handles import CHAINED, SPARE_MOST, HandleTable
from .size_classes import FULL_GROUP, HANDLE_SIZE, class_index, distinct_classes, huge_class_size, merged_classes
from .zspages import UNLISTED, ClassState, Zspage

NO_LIMIT = 1 << 62


class Zsmalloc(Allocator):
    """A zsmalloc pool, chain size 8, for pages of 4096, 16384 or 65536 bytes."""

    name = "zsmalloc"
    summary = "the kernel's size classes and compaction, page for page; freed pages go back to the system"

    def __init__(self, page_size: int, max_objects: int) -> None:
        """Reserves address space, no memory. Raises InvalidValue for another page size, NoMemory when the address
        space is limited to less than 64 MiB."""
        super().__init__(page_size, max_objects)
        self.huge_class_size = huge_class_size(page_size)
        self._merged = merged_classes(page_size)
        self._classes = {each.index: ClassState(each) for each in distinct_classes(page_size)}
        self._class_of = [
            self._classes[self._merged[class_index(size + HANDLE_SIZE, page_size)].index]
            for size in range(page_size + 1)
        ]
        self._handles = HandleTable(max_objects)
        self._arena: Arena[Zspage] = Arena(page_size, max_objects)
        # The hot path's own references, one look-up instead of two.
        self._memory = self._arena.memory
        self._words = self._arena.words
        self._owners = self._arena.owners
        self._positions = self._handles.positions
        self._spare = self._handles.spare
        self._shift = self._arena.page_shift
        self._huge_class = self._class_of[page_size]
        self._huge_owner = Zspage(self._huge_class, 0, 0, FULL_GROUP)
        """Owns the page of every huge object: such a zspage has no state, so one stands for all."""
        self._pages = 0
        self._lock = threading.Lock()
        self._compacting = threading.Lock()

    @property
    def pages_used(self) -> int:
        return self._pages

    # One object ---------------------------------------------------------------------------------------------------

    def alloc(self, size: int) -> int:
        """Raises InvalidValue (EINVAL) for size 0, NoSpace (ENOSPC) for more than a page, NoMemory (ENOMEM)."""
        with self._lock:
            return self._place(size, None, 0)

    def write(self, handle: int, data: Buffer) -> None:
        position = self._handles.positions[handle]
        if not position:
            raise self._not_allocated(handle)
        self._arena.memory[position : position + len(data)] = data

    def view(self, handle: int, size: int) -> Buffer:
        """A window on the object in the arena, not a copy. Raises InvalidValue (EINVAL) for a handle that is free."""
        position = self._positions[handle]
        if not position:
            raise self._not_allocated(handle)
        return self._memory[position : position + size]

    def free(self, handle: int) -> None:
        """Raises InvalidValue (EINVAL) for a handle that is not allocated, as `free_many` does."""
        with self._lock:
            self._free(handle)
            self._settle()

    def store_one(self, data: Buffer, limit_pages: int) -> int:
        with self._lock:
            try:
                return self._place(len(data), data, limit_pages or NO_LIMIT)
            except NoMemory:
                return 0

    # Many objects -------------------------------------------------------------------------------------------------

    def views(self, handles: Sequence[int], sizes: Sequence[int]) -> list[Buffer]:
        memory = self._memory
        table = self._positions
        positions = [table[handle] for handle in handles]
        if not all(positions):
            raise self._not_allocated(handles[positions.index(0)])
        return [memory[position : position + size] for position, size in zip(positions, sizes, strict=True)]

    def free_many(self, handles: Sequence[int]) -> None:
        with self._lock:
            free = self._free
            for handle in handles:
                free(handle)
            self._settle()

    def store(
        self, objects: Sequence[Buffer | None], replaced: Sequence[int], limit_pages: int, handles: list[int]
    ) -> None:
        limit = limit_pages or NO_LIMIT
        already = len(handles)
        with self._lock:
            page_size = self.page_size
            class_of, spare, positions = self._class_of, self._spare, self._positions
            memory, words = self._memory, self._words
            place, free, report = self._place, self._free, handles.append
            try:
                for data, old in zip(objects, replaced, strict=True):
                    handle = 0
                    if data is not None:
                        size = len(data)
                        if not 0 < size <= page_size:
                            raise self._bad_size(size)
                        pool_class = class_of[size]
                        zspage = pool_class.current
                        if zspage is None or not spare:
                            handle = place(size, data, limit)
                        else:  # what _place does
                            pages = self._pages
                            if pages > self.peak_pages:
                                self.peak_pages = pages
                            if pages > limit:
                                return
                            position = zspage.free or zspage.fresh
                            memory[position : position + size] = data
                            word = position >> 3
                            handle = spare[-1]
                            if zspage.free:
                                zspage.free = words[word]
                            else:
                                zspage.fresh = position + pool_class.size
                            words[word] = handle
                            positions[handle] = position
                            del spare[-1]
                            zspage.inuse = inuse = zspage.inuse + 1
                            if inuse == pool_class.objects:
                                zspage.group = FULL_GROUP
                                zspage.fresh = 0
                                pool_class.current = None
                    report(handle)
                    if old:
                        free(old)
            except NoMemory:
                return
            except BaseException:
                # An interrupt may have come after a handle was reported and before its old object was freed.
                done = len(handles) - already
                if done and replaced[done - 1] and self._handles.positions[replaced[done - 1]]:
                    free(replaced[done - 1])
                raise
            finally:
                self._settle()

    # The two steps everything is made of; the caller holds the lock ------------------------------------------------

    def _place(self, size: int, data: Buffer | None, limit: int) -> int:
        """A handle for `size` bytes, filled with `data`. With a `limit` (pages), raises `peak_pages` and checks it.

        Raises NoMemory, also when over the limit, and whatever copying `data` raises; nothing has changed then,
        except `peak_pages`.
        """
        if not 0 < size <= self.page_size:
            raise self._bad_size(size)
        handles = self._handles
        spare = handles.spare
        if not spare:
            handles.refill()
        pool_class = self._class_of[size]
        zspage = pool_class.current
        if zspage is None:
            if not pool_class.mask:
                return self._place_in_new(pool_class, size, data, limit)
            zspage = pool_class.pick()
        if limit:
            pages = self._pages
            if pages > self.peak_pages:
                self.peak_pages = pages
            if pages > limit:
                raise NoMemory("mem_limit is reached")
        arena = self._arena
        words = arena.words
        position = zspage.free or zspage.fresh
        if data is not None:
            arena.memory[position : position + size] = data

        word = position >> 3
        handle = spare[-1]
        if zspage.free:
            zspage.free = words[word]
        else:
            zspage.fresh = position + pool_class.size
        words[word] = handle
        handles.positions[handle] = position
        del spare[-1]
        zspage.inuse = inuse = zspage.inuse + 1
        if inuse == pool_class.objects:
            zspage.group = FULL_GROUP
            zspage.fresh = 0
            pool_class.current = None
        return handle

    def _place_in_new(self, pool_class: ClassState, size: int, data: Buffer | None, limit: int) -> int:
        """`_place` into a new zspage."""
        pool_class.open()
        arena = self._arena
        runs = arena.free_run(pool_class.pages)
        total = self._pages + pool_class.pages
        if limit:
            if total > self.peak_pages:
                self.peak_pages = total
            if total > limit:
                raise NoMemory("mem_limit is reached")
        base = runs[-1]
        page = base >> self._shift
        if pool_class.huge:
            position = base
            owner = self._huge_owner
        else:
            position = base + HANDLE_SIZE
            owner = Zspage(pool_class, base, position + pool_class.size, UNLISTED)
            owner.prev = owner.next = pool_class.heads[0]
        if data is not None:
            arena.memory[position : position + size] = data

        was_dirty = runs is arena.dirty[pool_class.pages]
        spare = self._handles.spare
        handle = spare[-1]
        del spare[-1]
        del runs[-1]
        self._handles.positions[handle] = position
        self._pages = total
        pool_class.zspages += 1
        if was_dirty:
            arena.dirty_pages -= pool_class.pages
        if pool_class.huge:
            arena.owners[page] = owner
        else:
            arena.owners[page : page + pool_class.pages] = [owner] * pool_class.pages
            arena.words[position >> 3] = handle
            owner.inuse = 1
            pool_class.current = owner
        return handle

    def _free(self, handle: int) -> None:
        """Free an object. After the checks there is no call up to the end: it happens as a whole or not at all."""
        positions = self._positions
        try:
            position = positions[handle]
            zspage = self._owners[position >> self._shift]
        except IndexError:  # out of range, or chained with other free handles
            raise self._not_allocated(handle) from None
        if zspage is None:  # position 0: free
            raise self._not_allocated(handle)
        spare = self._spare
        if zspage is self._huge_owner:
            arena = self._arena
            runs = arena.dirty[1]
            runs += [position]
            arena.dirty_pages += 1
            self._huge_class.zspages -= 1
            self._pages -= 1
            positions[handle] = 0
            spare += [handle]
            return
        pool_class = zspage.pool_class
        word = position >> 3
        self._words[word] = zspage.free
        zspage.free = position
        zspage.inuse = inuse = zspage.inuse - 1
        positions[handle] = 0
        spare += [handle]
        group = pool_class.groups[inuse]
        if group == zspage.group:
            return

        # Take it out of its list. Which zspage is then the head, and which one goes (back) into a list?
        heads = pool_class.heads
        current = pool_class.current
        goes: Zspage | None = zspage
        if zspage is current:
            if inuse and not pool_class.mask >> group + 1:
                return
            pool_class.current = None
        else:
            if zspage.group != FULL_GROUP:
                before = zspage.prev
                after = zspage.next
                before.next = after
                after.prev = before
                if before is after:
                    pool_class.mask ^= 1 << zspage.group
                zspage.prev = zspage.next = heads[0]
            if current is None:
                overtakes = not pool_class.mask >> group + 1
            else:
                overtakes = group >= pool_class.groups[current.inuse]
            if inuse and overtakes:
                pool_class.current = zspage
                zspage.group = UNLISTED
                goes = current
                if current is not None:
                    group = pool_class.groups[current.inuse]
        if not inuse:
            arena = self._arena
            pages = pool_class.pages
            page = zspage.base >> self._shift
            arena.owners[page : page + pages] = [None] * pages
            runs = arena.dirty[pages]
            runs += [zspage.base]
            arena.dirty_pages += pages
            pool_class.zspages -= 1
            self._pages -= pages
        elif goes is not None:
            head = heads[group]
            first = head.next
            goes.group = group
            goes.prev = head
            goes.next = first
            first.prev = goes
            head.next = goes
            pool_class.mask |= 1 << group

    def _settle(self) -> None:
        """After frees: give memory back when enough of it waits."""
        if self._arena.dirty_pages > TRIM_PAGES:
            self._arena.trim()
        if len(self._handles.spare) > SPARE_MOST:
            self._handles.spill()

    def _not_allocated(self, handle: int) -> ZramError:
        return InvalidValue(f"zsmalloc: handle {handle} is not allocated", hint="it was freed, or never handed out")

    def _bad_size(self, size: int) -> ZramError:
        if size < 1:
            return InvalidValue(f"zsmalloc: an object of {size} bytes")
        return NoSpace(f"zsmalloc: an object of {size} bytes, more than a page of {self.page_size}")

    # The pool as a whole --------------------------------------------------------------------------------------------

    def size_class(self, size: int) -> int:
        """The kernel's zs_lookup_class_index: the merged class for `size` bytes, without room for a handle."""
        return self._merged[class_index(size, self.page_size)].index

    def class_table(self) -> list[ClassRow]:
        """What debugfs zsmalloc/zram0/classes shows, smallest class first."""
        with self._lock:
            return class_rows(self._classes.values())

    def compact(self) -> int:
        """One at a time, like zs_compact: a second caller gets 0. Handles stay valid; views do not."""
        if not self._compacting.acquire(blocking=False):
            return 0
        freed = 0
        try:
            for index in sorted(self._classes, reverse=True):
                with self._lock:
                    before = self._pages
                    try:
                        compact_class(self._classes[index], self._arena, self._handles.positions)
                    finally:
                        self._pages = sum(each.zspages * each.pages for each in self._classes.values())
                        self.pages_compacted += before - self._pages
                    freed += before - self._pages
            self.trim()
        finally:
            self._compacting.release()
        return freed

    def trim(self) -> None:
        """Give all memory that is free back to the system, also that of handles once no object is left."""
        with self._lock:
            if self._pages:
                self._arena.trim()
                self._arena.give_back_margin()
            else:
                self._arena.reset()
                self._handles.reset()

    def close(self) -> None:
        with self._lock:
            self._pages = 0
            self._arena.close()
            self._handles.close()
