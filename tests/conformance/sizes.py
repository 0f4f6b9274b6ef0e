"""How long the kernel's compressors make a page: models that compute the length only, not the bytes.

`lzo` and `lz4` follow the kernel's choice of matches exactly: they agree with every size in the transcripts. lz4hc and
deflate ask this machine's libraries, which the kernel's disagree with on a few pages of transcript 04a; 842 is
interpolated. recorded.py therefore prefers what was recorded.
"""

from __future__ import annotations

import zlib

import lz4.block

PAGE = 4096
_ZERO_RUN_MAX = 2051


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _same(data: bytes, left: int, right: int, end: int) -> int:
    """How many bytes from `left` on, before `end`, equal those from `right` on."""
    at = left
    while at < end and data[at] == data[right]:
        at += 1
        right += 1
    return at - left


# LZO1X-1 ----------------------------------------------------------------------------------------------------------


def _lzo_literals(count: int) -> int:
    if count <= 3:
        return count
    return count + (1 if count <= 18 else 1 + -(-(count - 18) // 255))


def _lzo_match(length: int, distance: int) -> int:
    if length <= 8 and distance <= 0x800:
        return 2
    return 3 if length <= 33 else 3 + -(-(length - 33) // 255)


def lzo(page: bytes, zero_runs: bool) -> int:
    """Length of `page` compressed with lzo, or with lzo-rle when `zero_runs`."""
    length = len(page)
    end = length - 20  # no match starts later
    padded = page + bytes(64)
    seen = [0] * 8192
    header = size = 2 if zero_runs else 0
    at, done = 4, 0
    at += 1
    while at < end:
        word = _word(padded, at)
        if word == 0 and zero_runs:
            limit = min(end, at + _ZERO_RUN_MAX + 1)
            run = 4
            while at + run < limit and padded[at + run] == 0:
                run += 1
            size += _lzo_literals(at - done) + 4
            at += min(run, _ZERO_RUN_MAX)
        else:
            slot = ((word * 0x1824429D) & 0xFFFFFFFF) >> 19
            match, seen[slot] = seen[slot], at
            if word != _word(padded, match):
                at += 1 + ((at - done) >> 5)
                continue
            size += _lzo_literals(at - done)
            found = 4
            # Eight bytes at a time; equal ones that reach the end of the input end the match there.
            while padded[at + found : at + found + 8] == padded[match + found : match + found + 8]:
                found += 8
                if at + found >= end:
                    break
            else:
                found += _same(padded, at + found, match + found, len(padded))
            size += _lzo_match(found, at - match)
            at += found
        done = at
    rest = length - done
    if rest:
        size += 1 + rest if size == header and rest <= 238 else _lzo_literals(rest)
    return size + 3


# LZ4 --------------------------------------------------------------------------------------------------------------


def _lz4_extra(value: int) -> int:
    return 0 if value < 15 else 1 + (value - 15) // 255


def fast_lz4(page: bytes) -> int:
    """Length of `page` compressed with lz4 at acceleration 1."""
    length = len(page)
    last_start, last_match = length - 12, length - 5
    seen = [0] * 8192

    def slot(at: int) -> int:
        return ((_word(page, at) * 2654435761) & 0xFFFFFFFF) >> 19

    seen[slot(0)] = 0
    size = done = 0
    at = 1
    while True:
        found = _lz4_search(page, seen, slot, at, last_start)
        if found is None:
            break
        at, match = found
        while at > done and match > 0 and page[at - 1] == page[match - 1]:
            at, match = at - 1, match - 1
        size += 1 + _lz4_extra(at - done) + at - done
        while True:
            more = _same(page, at + 4, match + 4, last_match)
            size += 2 + _lz4_extra(more)
            at = done = at + 4 + more
            if at > last_start:
                break
            seen[slot(at - 2)] = at - 2
            place = slot(at)
            match, seen[place] = seen[place], at
            if page[match : match + 4] != page[at : at + 4]:
                break
            size += 1
        if at > last_start:
            break
        at += 1
    return size + 1 + _lz4_extra(length - done) + length - done


def _lz4_search(page: bytes, seen: list[int], slot, start: int, last_start: int) -> tuple[int, int] | None:
    """The next position with an earlier equal word, and that one; steps grow while nothing is found."""
    ahead, step, tries = start, 1, 64
    place = slot(start)
    while True:
        at, ahead = ahead, ahead + step
        step = tries >> 6
        tries += 1
        if ahead > last_start:
            return None
        match, seen[place] = seen[place], at
        place = slot(ahead)
        if page[match : match + 4] == page[at : at + 4]:
            return at, match


# The others -------------------------------------------------------------------------------------------------------


def high_lz4(page: bytes) -> int:
    """About the length of `page` compressed with lz4hc at level 9."""
    return len(lz4.block.compress(page, mode="high_compression", compression=9, store_size=False))


def deflate(page: bytes) -> int:
    """About the length of `page` as raw deflate with 11 window bits."""
    stream = zlib.compressobj(-1, zlib.DEFLATED, -11, 9)
    return len(stream.compress(page) + stream.flush())


def about_842(page: bytes) -> int:
    """Roughly the length of `page` compressed with 842: random bytes cost 17 bits for 16, zeros next to nothing."""
    return len(page.rstrip(b"\0")) * 17 // 16 + 24


MODELS = {
    "lzo-rle": lambda page: lzo(page, True),
    "lzo": lambda page: lzo(page, False),
    "lz4": fast_lz4,
    "lz4hc": high_lz4,
    "deflate": deflate,
    "842": about_842,
}
EXACT = ("lzo-rle", "lzo", "lz4")
"""The models that are right for any page."""
