"""The pages that real kernels compressed for us, and how many bytes they took there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from zramcore.interfaces import Compressor

TESTS = Path(__file__).parents[2]
HUGE_CLASS_SIZE = 3625

Difference = Mapping[int, tuple[int, int]]


@pytest.fixture(scope="session")
def varied_pages() -> list[bytes]:
    """The first 64 pages of gen_pages.py, which transcript 04a wrote one by one."""
    spec = importlib.util.spec_from_file_location("gen_pages", TESTS / "conformance" / "gen_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: list[bytes] = module.build()[0][:64]
    return pages


@pytest.fixture(scope="session")
def kernel_sizes() -> dict[str, list[int]]:
    """Bytes per page, by the column of tests/data/kernel-page-sizes.txt."""
    text = (TESTS / "data" / "kernel-page-sizes.txt").read_text()
    names, *rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: [int(row[column]) for row in rows] for column, name in enumerate(names) if column}


@pytest.fixture(scope="session")
def differences(
    varied_pages: Sequence[bytes], kernel_sizes: Mapping[str, Sequence[int]]
) -> Callable[[str, Compressor], Difference]:
    """page number -> (the kernel's size, ours), wherever they differ, sizes as mm_stat counts them."""

    def compare(column: str, compressor: Compressor) -> Difference:
        kernel = kernel_sizes[column]
        assert len(kernel) == len(varied_pages) == 64
        sizes = [len(data) for data in compressor.create_context().compress_pages(varied_pages)]
        stored = [size if size < HUGE_CLASS_SIZE else 4096 for size in sizes]
        # A same-filled page (0 in the table) never reaches a compressor.
        return {
            page: pair for page, pair in enumerate(zip(kernel, stored, strict=True)) if pair[0] and pair[0] != pair[1]
        }

    return compare
