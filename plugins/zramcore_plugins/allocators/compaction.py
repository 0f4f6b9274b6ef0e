"""Compaction of one size class: move objects from the emptiest zspages to the fullest, in the kernel's order.

Destination: the head of the fullest group below full. Source: the head of the emptiest group. Objects move in index
order until the destination is full or the source empty; the source goes to the head of its new group or is released,
the destination goes back once full, or at the end. It goes on while moving could free a whole zspage. Handles stay:
the handle table is rewritten.
"""

from __future__ import annotations

from .arena import Arena
from .size_classes import FULL_GROUP, HANDLE_SIZE
from .zspages import UNLISTED, ClassState, Zspage


def can_compact(pool_class: ClassState) -> int:
    """Pages that moving objects together could free: the kernel's zs_can_compact, `freeable` in the class table."""
    wasted = pool_class.zspages * pool_class.objects - pool_class.objects_used()
    return wasted // pool_class.objects * pool_class.pages


def compact_class(pool_class: ClassState, arena: Arena[Zspage], positions: memoryview) -> None:
    """Compact a class; the caller holds the pool's lock, and sees by `zspages` what was freed.

    An interrupt may end it anywhere: both zspages at hand go back where they belong."""
    spare_zspages = can_compact(pool_class) // pool_class.pages
    if not spare_zspages:
        return
    pool_class.demote()
    target: Zspage | None = None
    source: Zspage | None = None
    try:
        while spare_zspages:
            if target is None:
                if not pool_class.mask:
                    break
                target = pool_class.heads[pool_class.mask.bit_length() - 1].next
                pool_class.unlink(target)
            if not pool_class.mask:
                break
            emptiest = pool_class.mask & -pool_class.mask
            source = pool_class.heads[emptiest.bit_length() - 1].next
            pool_class.unlink(source)
            migrate(source, target, arena, positions)
            if not source.inuse:
                spare_zspages -= 1
            put_back(source, arena)
            source = None
            if target.inuse == pool_class.objects:
                put_back(target, arena)
                target = None
    finally:
        for zspage in (source, target):
            if zspage is not None:
                put_back(zspage, arena)


def migrate(source: Zspage, target: Zspage, arena: Arena[Zspage], positions: memoryview) -> None:
    """Move objects in index order until `target` is full or `source` is empty; both are in no list."""
    pool_class = source.pool_class
    memory, words = arena.memory, arena.words
    step = pool_class.size
    free = set()
    chain = source.free
    while chain:
        free.add(chain)
        chain = words[chain >> 3]
    first = source.base + HANDLE_SIZE
    end = source.fresh or first + pool_class.objects * step
    for old in range(first, end, step):
        if old in free:
            continue
        new = target.free or target.fresh
        memory[new : new + step - HANDLE_SIZE] = memory[old : old + step - HANDLE_SIZE]
        handle = words[old >> 3]
        if target.free:
            target.free = words[new >> 3]
        else:
            target.fresh = new + step
        words[new >> 3] = handle
        positions[handle] = new
        target.inuse += 1
        words[old >> 3] = source.free
        source.free = old
        source.inuse -= 1
        if target.inuse == pool_class.objects or not source.inuse:
            return


def put_back(zspage: Zspage, arena: Arena[Zspage]) -> None:
    """Into the list of its group, or out of the pool when it is empty."""
    pool_class = zspage.pool_class
    if zspage.inuse == pool_class.objects:
        zspage.group = FULL_GROUP
        zspage.fresh = 0
    elif zspage.inuse:
        if zspage.group == UNLISTED:
            pool_class.link(zspage, pool_class.groups[zspage.inuse])
    else:
        arena.release(zspage.base, pool_class.pages)
        pool_class.zspages -= 1
