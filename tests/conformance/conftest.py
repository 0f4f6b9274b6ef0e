"""The replayer as a fixture: its modules import each other by name, as when replay.py runs as a program."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def replay() -> ModuleType:
    """tests/conformance/replay.py."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module("replay")


@pytest.fixture(scope="session")
def pages(replay: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pages.bin."""
    path = tmp_path_factory.mktemp("conformance") / "pages.bin"
    path.write_bytes(b"".join(replay.gen_pages.build()[0]))
    return path
