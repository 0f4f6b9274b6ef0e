"""Sample pages, and damaged forms of what a codec made of them; the same ones in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator

PAGE_SIZES = (4096, 16384, 65536)
"""The page sizes that a device may have, in bytes."""

WORDS = b"zram slot page handle idle huge writeback store fill swap limit device index block memory buffer".split()


def make_pages(page_size: int) -> dict[str, bytes]:
    """Pages by kind: zero, random, text, structured, and the ends of the scale in between. Always the same ones."""
    source = random.Random(page_size)
    words = b" ".join(source.choice(WORDS) for _ in range(page_size // 3))
    records = b"".join(
        (0xFFFF_8880_0000_0000 + source.randrange(1 << 20) * 64).to_bytes(8, "little") + number.to_bytes(8, "little")
        for number in range(page_size // 16)
    )
    return {
        "zero": bytes(page_size),
        "one byte at the end": bytes(page_size - 1) + b"\1",
        "repeated byte": b"\xa5" * page_size,
        "random": source.randbytes(page_size),
        "half random": source.randbytes(page_size // 2) + bytes(page_size // 2),
        "text": words[:page_size],
        "structured": records,
        "hexadecimal": source.randbytes(page_size // 2).hex().encode(),
    }


def damage(data: bytes, page_size: int) -> Iterator[tuple[str, bytes]]:
    """Damaged forms of an object, always the same ones: what was done, and the bytes."""
    source = random.Random(len(data))
    cuts = {1, 2, 3, 4, 5, 8, len(data) // 4, len(data) // 2, len(data) - 4, len(data) - 1}
    for length in sorted(cut for cut in cuts if 0 < cut < len(data)):
        yield f"cut to {length}", data[:length]
    yield "zeros", bytes(len(data))
    yield "ones", b"\xff" * len(data)
    yield "a tail of zeros", data + bytes(16)
    yield "doubled", data + data
    yield "without its first byte", data[1:] or b"\0"
    yield "other bytes", source.randbytes(min(len(data), page_size))
    for _ in range(40):
        flipped = bytearray(data)
        for _ in range(source.choice((1, 1, 2, 8))):
            flipped[source.randrange(min(len(data), 64) if source.random() < 0.5 else len(data))] ^= (
                1 << source.randrange(8)
            )
        yield "flipped bits", bytes(flipped)
