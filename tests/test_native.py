"""Which path moves the pages, as `zramcore plugins` says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from zramcore import native
from zramcore.interfaces import Catalogue, Compressor, CompressorContext, CompressorParams, NativeCodec
from zramcore.native import PURE_VARIABLE, load_batch, report


class Unable(Compressor):
    """A compressor that cannot be made."""

    name = "unable"

    def __init__(self, params: CompressorParams) -> None:
        raise OSError("no library")

    def create_context(self) -> CompressorContext:
        raise AssertionError

    def native_codec(self) -> NativeCodec | None:
        raise AssertionError


def listing(**environment: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "zramcore", "plugins", "--json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(result.stdout)["data_path"]
    return found


def test_the_listing_says_which_path_is_active(built_in: Catalogue) -> None:
    found = listing()
    assert found["compiled"] == (load_batch() is not None)
    if not found["compiled"]:
        pytest.skip(found["reason"])
    assert found["compressors"] == ["lz4", "lz4hc", "zstd"]
    assert found["allocators"] == ["zsmalloc"]
    assert str(report(built_in)) == "data path: compiled with lz4, lz4hc, zstd and zsmalloc, else in Python"


def test_the_environment_forbids_compiled_code(built_in: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing(**{PURE_VARIABLE: "1"})["reason"] == f"{PURE_VARIABLE} is set"
    monkeypatch.setenv(PURE_VARIABLE, "1")
    assert load_batch() is None
    assert str(report(built_in)) == f"data path: in Python, for {PURE_VARIABLE} is set"


def test_without_the_extension_it_says_how_to_get_it(built_in: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    monkeypatch.delenv(PURE_VARIABLE, raising=False)
    monkeypatch.setattr(native, "import_module", fail)
    assert "install a C compiler" in str(report(built_in))


def test_an_extension_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE_VARIABLE, raising=False)
    monkeypatch.setattr(native, "import_module", lambda name: object())
    assert load_batch() is None


def test_a_compressor_that_cannot_be_made_has_no_codec(built_in: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE_VARIABLE, raising=False)
    monkeypatch.setattr(native, "load_batch", lambda: native)
    found = report(replace(built_in, compressors={"unable": Unable}))
    assert found.compressors == ()
    assert str(found) == "data path: in Python, for no compressor and allocator have what the compiled one needs"
