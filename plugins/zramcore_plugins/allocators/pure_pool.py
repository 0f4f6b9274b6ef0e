"""The pool in Python. How it is held together:

    size -> ClassState (zspages.py) -> current Zspage -> payload offset in the Arena (arena.py)
    handle -> HandleTable (handles.py) -> payload offset -> arena.owners[page] -> Zspage

One lock per pool, taken once per batch; `view` and `views` take none. placement.py says where an object goes,
compaction.py how objects move together.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

from zramcore.errors import InvalidValue, NoMemory
from zramcore.interfaces import Buffer

from .class_table import ClassRow, class_rows
from .compaction import compact_class
from .placement import Placement
from .size_classes import FULL_GROUP, HANDLE_SIZE
from .zspages import ClassState, Zspage

NO_LIMIT = 1 << 62


class PurePool(Placement):
    """A zsmalloc pool, without compiled code."""

    # One object ---------------------------------------------------------------------------------------------------

    def alloc(self, size: int) -> int:
        """Raises InvalidValue (EINVAL) for size 0, NoSpace (ENOSPC) for more than a page, NoMemory (ENOMEM)."""
        with self._lock:
            return self._place(size, None, 0)

    def write(self, handle: int, data: Buffer) -> None:
        """Raises InvalidValue (EINVAL) for a handle that is free, and for more data than its class has room for."""
        position = self._find(handle)
        zspage = self._owners[position >> self._shift]
        length = len(data)
        room = zspage.pool_class.size - HANDLE_SIZE if zspage and zspage is not self._huge_owner else self.page_size
        if length > room:
            raise InvalidValue(f"zsmalloc: {length} bytes do not fit the {room} of handle {handle}")
        self._memory[position : position + length] = data

    def view(self, handle: int, size: int) -> Buffer:
        """A window on the object in the arena, not a copy. Raises InvalidValue (EINVAL) for a handle that is free."""
        try:
            position = self._positions[handle]
        except IndexError:
            position = 0
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
        try:
            positions = list(map(table.__getitem__, handles))
        except IndexError:
            positions = [self._find(handle) for handle in handles]
        if not all(positions):
            raise self._not_allocated(handles[positions.index(0)])
        return [memory[start:end] for start, end in zip(positions, map(add, positions, sizes), strict=True)]

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
                if done and replaced[done - 1] and positions[replaced[done - 1]]:
                    free(replaced[done - 1])
                raise
            finally:
                self._settle()

    # The pool as a whole --------------------------------------------------------------------------------------------

    def class_table(self) -> list[ClassRow]:
        with self._lock:
            return class_rows(self._classes.values())

    def pages_freed_by(self, handles: Sequence[int], sizes: Sequence[int]) -> int:
        """The pages of the zspages that would be left empty: exact while nobody allocates, frees or compacts.

        It takes no lock, for a large answer takes long: 0.3 us an object, 1.3 in random order (262,144 objects).
        """
        positions, owners, shift = self._positions, self._owners, self._shift
        freed = 0
        going: dict[Zspage, int] = {}
        for handle in handles:
            try:
                owner = owners[positions[handle] >> shift]
            except IndexError:  # freed meanwhile
                continue
            if owner is self._huge_owner:
                freed += 1
            elif owner is not None:
                going[owner] = going.get(owner, 0) + 1
        return freed + sum(zspage.pool_class.pages for zspage, count in going.items() if count >= zspage.inuse)

    def compact(self) -> int:
        """One at a time, like zs_compact: a second caller gets 0. Handles stay valid; views do not."""
        mine = False
        start = self.pages_compacted
        try:
            with self._lock:
                if self._compacting:
                    return 0
                self._compacting = mine = True
            for index in sorted(self._classes, reverse=True):
                pool_class = self._classes[index]
                if pool_class.zspages > 1:  # every zspage has an object: one alone cannot be emptied
                    with self._lock:
                        self._compact_class(pool_class)
            self.trim()
        finally:
            if mine:
                self._compacting = False
        return self.pages_compacted - start

    def _compact_class(self, pool_class: ClassState) -> None:
        before = pool_class.zspages
        try:
            compact_class(pool_class, self._arena, self._positions)
        finally:
            freed = (before - pool_class.zspages) * pool_class.pages
            self._pages -= freed
            self.pages_compacted += freed

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
