"""Where objects go: the two steps everything zsmalloc does is made of, placing one object and freeing one.

Which zspage an object goes into decides mem_used_total, so this follows the kernel's order to the letter. The kernel
keeps the list of a zspage's free objects inside them, and so does this: a live object's first word is its handle, a
free one's the offset of the one freed before it.

Order of statements: an object is filled first, in a place that is only looked at, and then committed by statements
among which there is no call, because only calls can let an interrupt in. So whatever ends a step, no object is lost.
"""

from __future__ import annotations

import threading

from zramcore.errors import InvalidValue, NoMemory, NoSpace, ZramError
from zramcore.interfaces import Buffer

from .arena import TRIM_PAGES, Arena
from .handles import SPARE_MOST, HandleTable
from .pool import Pool
from .size_classes import FULL_GROUP, HANDLE_SIZE, class_index, distinct_classes
from .zspages import UNLISTED, ClassState, Zspage


class Placement(Pool):
    """The state of a pool, and the steps on it. Every method here expects the caller to hold `_lock`."""

    def __init__(self, page_size: int, max_objects: int) -> None:
        super().__init__(page_size, max_objects)
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
        self.arena = (self._positions, self._memory)
        self._shift = self._arena.page_shift
        self._huge_class = self._class_of[page_size]
        self._huge_owner = Zspage(self._huge_class, 0, 0, FULL_GROUP)
        """Owns the page of every huge object: such a zspage has no state, so one stands for all."""
        self._pages = 0
        self._lock = threading.Lock()
        self._compacting = False

    @property
    def pages_used(self) -> int:
        return self._pages

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

    def _find(self, handle: int) -> int:
        """Offset of the object's payload."""
        try:
            position = self._positions[handle]
            zspage = self._owners[position >> self._shift]
        except IndexError:  # out of range, or chained with other free handles
            raise self._not_allocated(handle) from None
        if zspage is None:  # position 0: free
            raise self._not_allocated(handle)
        return position
