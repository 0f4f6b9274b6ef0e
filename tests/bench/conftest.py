"""Data to measure with."""

from __future__ import annotations

from pathlib import Path

import pytest

from zramcore.bench.data import MIB, Data


@pytest.fixture
def data(compressible_file: Path) -> Data:
    """Two MiB of pages, as Data."""
    return Data([compressible_file.read_bytes()[: 2 * MIB]], 2 * MIB)
