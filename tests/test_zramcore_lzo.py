"""plugins/zramcore-lzo as a third party ships it: built into a wheel, installed beside zramcore in a fresh venv, used.

Nothing of this checkout is importable there. It needs PyPI (or pip's cache) and LZO's headers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INCLUDE = ["/usr/include", "/usr/local/include", *filter(None, os.environ.get("CPATH", "").split(":"))]

pytestmark = pytest.mark.skipif(
    not any(Path(folder, "lzo", "lzo1x.h").is_file() for folder in INCLUDE),
    reason="python-lzo builds from source and lzo/lzo1x.h is missing (Debian: apt-get install liblzo2-dev)",
)


@dataclass
class Installed:
    """The fresh venv: `source` is the copy of zramcore-lzo that `wheel` was built from; `run` runs its Python."""

    source: Path
    wheel: Path
    run: Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    work = tmp_path_factory.mktemp("zramcore-lzo")
    python = work / "venv" / "bin" / "python"
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "ZRAMCORE_"))}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}

    def run(*arguments: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python, *arguments], cwd=work, env=environment, capture_output=True, text=True, timeout=300
        )
        assert (done.returncode != 0) == fails, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    # Building writes build/ and *.egg-info next to the sources: not into the checkout, where leftovers get packed.
    checkout = work / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")
    for name in ("zramcore", "plugins"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    source = checkout / "plugins" / "zramcore-lzo"

    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    pip = ("-m", "pip")
    run(*pip, "install", "setuptools>=77", "wheel")  # once, instead of in an isolated environment for each build
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", work / "wheels", checkout, source)
    run(*pip, "install", "--no-build-isolation", "pytest>=8", *sorted((work / "wheels").glob("*.whl")))
    (wheel,) = (work / "wheels").glob("zramcore_lzo-*.whl")
    yield Installed(source, wheel, run)
    shutil.rmtree(work)


def test_wheel_holds_the_module_and_its_licence(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"zramcore_lzo"}
    assert {name for name in names if ".dist-info" not in name} == {"zramcore_lzo/__init__.py", "zramcore_lzo/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: GPL-2.0-or-later\n" in metadata


def test_its_own_tests_pass(installed: Installed) -> None:
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", installed.source)
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_sizes_against_the_kernel(installed: Installed) -> None:
    """lzo differs from the kernel's on exactly these pages, (kernel, ours); lzo-rle gives the sizes of lzo."""
    script = """
import importlib.util, sys
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.interfaces import CompressorParams

spec = importlib.util.spec_from_file_location("gen_pages", sys.argv[1])
gen_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gen_pages)
pages = gen_pages.build()[0][:64]
compressors = build_catalogue(load_plugins()).compressors
for name in ("lzo", "lzo-rle"):
    print(*map(len, compressors[name](CompressorParams()).create_context().compress_pages(pages)))
"""
    plain, alias = installed.run("-c", script, ROOT / "tests" / "conformance" / "gen_pages.py").stdout.splitlines()
    assert plain == alias
    ours = [size if size < 3625 else 4096 for size in map(int, plain.split())]
    table = (ROOT / "tests" / "data" / "kernel-page-sizes.txt").read_text().splitlines()
    names, *rows = [line.split() for line in table if not line.startswith("#")]
    kernel = [int(row[names.index("lzo")]) for row in rows]
    differ = {page: pair for page, pair in enumerate(zip(kernel, ours, strict=True)) if pair[0] and pair[0] != pair[1]}
    assert differ == {10: (2223, 2224), 11: (2222, 2221), 21: (2017, 2016), 22: (671, 670)}
