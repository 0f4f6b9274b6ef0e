"""A folder for direct I/O."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def has_direct_io(folder: Path) -> bool:
    path = folder / "probe"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        return False
    finally:
        os.close(fd)
        path.unlink()
    return True


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a file system with O_DIRECT: a usual one, or one in /var/tmp when that is an old tmpfs."""
    path = tmp_path_factory.mktemp("direct")
    if has_direct_io(path):
        yield path
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        if not has_direct_io(Path(name)):
            pytest.skip("neither the temporary folder nor /var/tmp has O_DIRECT")
        yield Path(name)
