"""Zspages, and the fullness lists of a size class: which zspage the next object goes into.

The kernel's order: a zspage that enters a fullness group goes to the head of that group's list, one whose group does
not change stays where it is, and an object goes to the head of the fullest group that is not full.

That head is kept out of the lists, as `current`, and its moves are not made while it fills: it can only rise, and a
rising head stays the head. It is put back (`demote`) when another zspage overtakes it. Full zspages are in no list:
nothing ever picks one.
"""

from __future__ import annotations

from .size_classes import FULL_GROUP, SizeClass, fullness_group

UNLISTED = -1
"""`group` of the current zspage: it belongs to fullness_group(inuse), and is in no list."""


class Zspage:
    """`pages` contiguous pages of objects of one class; also the head that closes a group's ring of zspages.

    `base`: offset of the first page. `free`: payload offset of the last freed object, which holds the one before in
    its handle word (0 ends the chain). `fresh`: payload offset of the first object never used; 0 when all were.
    """

    __slots__ = ("base", "free", "fresh", "group", "inuse", "next", "pool_class", "prev")

    base: int
    fresh: int
    free: int
    group: int
    inuse: int
    next: Zspage
    prev: Zspage
    pool_class: ClassState

    def __init__(self, pool_class: ClassState, base: int, fresh: int, group: int) -> None:
        self.pool_class = pool_class
        self.base = base
        self.fresh = fresh
        self.free = 0
        self.group = group
        self.inuse = 0

    def __repr__(self) -> str:
        return f"<zspage at {self.base:#x}, class {self.pool_class.index}, {self.inuse} in use>"


class ClassState:
    """One size class of one pool. Guarded by the pool's lock."""

    __slots__ = ("current", "groups", "heads", "huge", "index", "mask", "objects", "pages", "size", "zspages")

    def __init__(self, size_class: SizeClass) -> None:
        self.index = size_class.index
        self.size = size_class.size
        self.pages = size_class.pages
        self.objects = size_class.objects
        self.huge = size_class.huge
        self.groups = [fullness_group(inuse, self.objects) for inuse in range(self.objects + 1)]
        """Fullness group by objects in use."""
        self.zspages = 0
        """Zspages of this class, full ones included."""
        self.mask = 0
        """Bit g is set while the list of group g is not empty."""
        self.heads: list[Zspage] = []
        """The ring of each group, made when the class gets its first zspage: most classes of most pools have none."""
        self.current: Zspage | None = None

    def link(self, zspage: Zspage, group: int) -> None:
        """Put a zspage that is in no list at the head of a group (1..10)."""
        head = self.heads[group]
        first = head.next
        zspage.group = group
        zspage.prev = head
        zspage.next = first
        first.prev = zspage
        head.next = zspage
        self.mask |= 1 << group

    def unlink(self, zspage: Zspage) -> None:
        """Take a zspage out of its group's list."""
        before = zspage.prev
        after = zspage.next
        before.next = after
        after.prev = before
        if before is after:  # only a ring's head is its own neighbour
            self.mask ^= 1 << zspage.group
        # A zspage out of the lists must not keep its old neighbours alive, nor they theirs.
        zspage.prev = zspage.next = self.heads[0]
        zspage.group = UNLISTED

    def demote(self) -> None:
        """Put the current zspage, if there is one, at the head of its group."""
        zspage = self.current
        if zspage is not None:
            self.link(zspage, self.groups[zspage.inuse])
            self.current = None

    def pick(self) -> Zspage:
        """Make the head of the fullest list current; there is one (`mask`), and no current zspage."""
        zspage = self.heads[self.mask.bit_length() - 1].next
        self.unlink(zspage)
        self.current = zspage
        return zspage

    def open(self) -> None:
        """Make the rings, if they are not there yet."""
        if not self.heads:
            heads = [Zspage(self, 0, 0, group) for group in range(FULL_GROUP)]
            for head in heads:
                head.prev = head.next = head
            self.heads = heads

    def listed(self, group: int) -> list[Zspage]:
        """The zspages in the list of a group, first to last."""
        found: list[Zspage] = []
        if self.heads:
            head = self.heads[group]
            zspage = head.next
            while zspage is not head:
                found.append(zspage)
                zspage = zspage.next
        return found

    def counts(self) -> list[int]:
        """Zspages per fullness group, 0..11."""
        counts = [len(self.listed(group)) for group in range(FULL_GROUP)] + [0]
        if self.current is not None:
            counts[self.groups[self.current.inuse]] += 1
        counts[FULL_GROUP] = self.zspages - sum(counts)
        return counts

    def objects_used(self) -> int:
        """Live objects of this class."""
        partial = [zspage for group in range(FULL_GROUP) for zspage in self.listed(group)]
        if self.current is not None:
            partial.append(self.current)
        return (self.zspages - len(partial)) * self.objects + sum(zspage.inuse for zspage in partial)
