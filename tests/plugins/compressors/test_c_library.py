"""Finding the C functions of lz4 and zstd: where they are, and what happens where they are not."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from zramcore.interfaces import CompressorParams
from zramcore_plugins.compressors import Lz4, Zstd, c_library, lz4_library, zstd_library


def test_the_library_in_the_package_is_found() -> None:
    library = c_library.find_library("lz4.block._block", "libnone.so", ["LZ4_versionString"], lambda _: True)
    assert library is not None
    assert "_block" in library._name
    assert all(c_library.addresses(library, ["LZ4_versionString"]).values())


def test_without_it_the_systems_is_taken() -> None:
    library = c_library.find_library("no.such.module", "libc.so.6", ["strlen"], lambda _: True)
    assert library is not None
    assert library._name == "libc.so.6"


@pytest.mark.parametrize(
    ("extension", "system", "function", "right_version"),
    [
        ("lz4.block._block", "libnone.so", "no_such_function", True),
        ("lz4.block._block", "libnone.so", "LZ4_versionString", False),
        ("json", "libnone.so", "strlen", True),  # not a library at all
        ("lz4.no_such_part", "libnone.so", "strlen", True),
    ],
)
def test_anything_else_is_none(extension: str, system: str, function: str, right_version: bool) -> None:
    assert c_library.find_library(extension, system, [function], lambda _: right_version) is None


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lz4_found, zstd_found = lz4_library.find_library(), zstd_library.find_functions()
    if lz4_found is not None:
        monkeypatch.setattr("lz4.library_version_string", lambda: "0.0.1")
        assert not lz4_library._has_version(lz4_found)
    if zstd_found is not None:
        library: ctypes.CDLL = zstd_found[2]
        assert zstd_library._has_version(library)
        monkeypatch.setattr("zstandard.ZSTD_VERSION", (1, 0, 0))
        assert not zstd_library._has_version(library)


def test_a_dictionary_needs_python() -> None:
    for kind in (Lz4, Zstd):
        assert kind(CompressorParams(dictionary=b"some words for a dictionary")).native_codec() is None


def test_without_the_extension_zstd_has_no_functions() -> None:
    code = """
import sys
sys.modules["zramcore_plugins.compressors._zstd_codec"] = None
from zramcore.interfaces import CompressorParams
from zramcore_plugins.compressors import Zstd
print(Zstd(CompressorParams()).native_codec())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "None\n"


@pytest.mark.skipif(zstd_library.codec(3, 4096) is None, reason="zstd's C functions are not there, or forbidden")
def test_contexts_end_with_their_threads() -> None:
    """A thousand threads that each pack and unpack a page leave no contexts behind: half a megabyte each, else."""
    code = """
import ctypes, resource, threading
from zramcore.interfaces import CompressorParams
from zramcore.testing.native_codec import CodecCalls
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Zstd
calls, page = CodecCalls(Zstd(CompressorParams()).native_codec()), make_pages(4096)["text"]
def work():
    assert calls.decompress(calls.compress(page), 4096) == page
def run(count):
    for _ in range(count):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(50)
print(run(1000) - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 20_000  # KiB
