"""The data specs of scripts, against checksums that the recording tool printed."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from zramcore.script.data import PAGE, make, number


@pytest.mark.parametrize(
    ("spec", "length", "crc32", "start"),
    [
        # transcripts 01c, 02 and 06
        ("rand:0", 4096, "1ee458a4", "1d619900510c693c"),
        ("zero", 4096, "c71c0011", "0000000000000000"),
        ("randz:7:1000", 4096, "c6cb8181", "80eeec0d86dc0fc7"),
        ("randz:5:1000", 65536, "8025e55b", "06948d9b43d7c198"),
        ("word:deadbeefcafebabe", 4096, "4bd7ed93", "bebafecaefbeadde"),
        ("word:5a5a5a5a5a5a5a5a", 1024, "a9da8aa6", "5a5a5a5a5a5a5a5a"),
        ("word:41", 50, "92bcaf98", "4100000000000000"),
    ],
)
def test_recorded_checksums(spec: str, length: int, crc32: str, start: str) -> None:
    data = make(spec, length)
    assert len(data) == length
    assert f"{zlib.crc32(data):08x}" == crc32
    assert data[:8].hex() == start


def test_randz_goes_on_with_the_next_seed_on_each_page() -> None:
    data = make("randz:7:100", 2 * PAGE)
    assert data[:100] == make("rand:7", 100)
    assert data[PAGE : PAGE + 100] == make("rand:8", 100)
    assert not any(data[100:PAGE])


def test_pages_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data:1.bin"
    path.write_bytes(b"a" * PAGE + b"b" * PAGE)
    assert make(f"file:{path}:1", PAGE) == b"b" * PAGE
    assert make("file:it:0", PAGE, resolve=lambda name: path) == b"a" * PAGE
    with pytest.raises(EOFError, match="ends before"):
        make(f"file:{path}:2", PAGE)
    with pytest.raises(FileNotFoundError):
        make(f"file:{tmp_path}/none:0", PAGE)


@pytest.mark.parametrize("spec", ["", "rand", "rand:", "rand:x", "word:", "word:xyz", "randz:1", "file:x", "ones:1"])
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make(spec, 8)


def test_numbers() -> None:
    assert [number(text) for text in ("0", "10", "0x10", "010")] == [0, 10, 16, 8]
    for text in ("-1", "", "x", "1.5"):
        with pytest.raises(ValueError, match=r".+"):
            number(text)
