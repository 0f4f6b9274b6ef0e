"""plugins/zramcore-lzo as a third party ships it: built into a wheel, installed beside zramcore in a fresh venv, used.

Nothing of this checkout is importable there. It needs PyPI (or pip's cache), a compiler and LZO's headers.
"""

from __future__ import annotations

import json
import os
import random
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
    """The fresh venv: `source` is the copy of zramcore-lzo that `wheel` was built from; `run` runs its Python.

    With `without` in its environment it finds another build first, one that had no compiler.
    """

    source: Path
    wheel: Path
    without: dict[str, str]
    run: Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    work = tmp_path_factory.mktemp("zramcore-lzo")
    python = work / "venv" / "bin" / "python"
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "ZRAMCORE_"))}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "PIP_NO_COMPILE": "1"}

    def run(*arguments: str | Path, fails: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python, *arguments], cwd=work, env=environment | more, capture_output=True, text=True, timeout=300
        )
        assert (done.returncode != 0) == fails, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    # Building writes build/ and *.egg-info next to the sources: not into the checkout, where leftovers get packed.
    checkout = work / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "build", "dist", ".*")
    for name in ("zramcore", "plugins"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    source = checkout / "plugins" / "zramcore-lzo"
    bare = shutil.copytree(source, work / "bare")

    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    pip = ("-m", "pip")
    run(*pip, "install", "setuptools>=77", "wheel")  # once, instead of in an isolated environment for each build
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", work / "wheels", checkout, source)
    run(*pip, "install", "--no-build-isolation", "pytest>=8", *sorted((work / "wheels").glob("*.whl")))
    run(*pip, "install", "--no-build-isolation", "--no-deps", "--target", work / "without", bare, CC="false")
    (wheel,) = (work / "wheels").glob("zramcore_lzo-*.whl")
    yield Installed(source, wheel, {"PYTHONPATH": str(work / "without")}, run)
    shutil.rmtree(work)


def test_wheel_holds_the_modules_and_their_licence(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"zramcore_lzo"}
    files = ("__init__.py", "_codec.abi3.so", "_codec.pyi", "py.typed")
    assert {name for name in names if ".dist-info" not in name} == {f"zramcore_lzo/{name}" for name in files}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: GPL-2.0-or-later\n" in metadata


def test_its_own_tests_pass(installed: Installed) -> None:
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", installed.source)
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_its_own_tests_pass_without_a_compiler(installed: Installed) -> None:
    done = installed.run("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", installed.source, **installed.without)
    assert " passed" in done.stdout
    reasons = {line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("SKIPPED")}
    assert reasons == {
        "lzo hands over no C functions",
        "lzo-rle hands over no C functions",
        "the extension was not built: it needs a C compiler and LZO's headers",
    }


@pytest.mark.parametrize("compiled", [True, False])
def test_plugins_lists_it(installed: Installed, compiled: bool) -> None:
    environment = {} if compiled else installed.without
    listing = json.loads(installed.run("-m", "zramcore", "plugins", "--json", **environment).stdout)
    rows = listing["plugins"]
    (row,) = (row for row in rows if row["distribution"] == "zramcore-lzo")
    assert (row["status"], row["name"], row["entry_point"]) == ("ok", "lzo", "zramcore_lzo")
    assert [(offer["family"], offer["name"]) for offer in row["provides"]] == [
        ("compressors", "lzo-rle"),
        ("compressors", "lzo"),
    ]
    assert {row["status"] for row in rows} == {"ok"}
    ours = ["lzo-rle", "lzo"] if compiled else []
    assert listing["data_path"]["compressors"] == [*ours, "lz4", "lz4hc", "zstd"]


SCRIPT = """
c comp_algorithm
setup lzo 4M
c comp_algorithm
put 0 64 0
mm
zt cmp $D 0 $P 0 64
"""


@pytest.mark.parametrize("pure", ["", "1"])
def test_exec_fills_a_device(installed: Installed, tmp_path: Path, pure: str) -> None:
    """Of the 64 pages of transcript 04a the kernel makes 140886 bytes in 827392: ours are 2 less, in the same classes,
    by the compiled data path and by the one in Python. lzo-rle is the default now, as in the kernel."""
    pages = tmp_path / "pages.bin"
    installed.run(ROOT / "tests" / "conformance" / "gen_pages.py", pages)
    script = tmp_path / "lzo.sh"
    script.write_text(SCRIPT)
    done = installed.run("-m", "zramcore", "exec", script, "--pages", pages, ZRAMCORE_PURE=pure)
    assert done.stdout.splitlines() == [
        "$ cat comp_algorithm => [lzo-rle] lzo lz4 lz4hc zstd deflate store ",
        "$ echo '1' > reset => OK",
        "$ echo 'lzo' > comp_algorithm => OK",
        "$ echo '4M' > disksize => OK",
        "$ cat comp_algorithm => lzo-rle [lzo] lz4 lz4hc zstd deflate store ",
        "$ dd data pages 0..+64 -> zram page 0 (4K O_DIRECT writes)",
        "  mm_stat:  262144 140884 827392 0 827392 4 0 14 14",
        "$ compare /dev/zram0 pages 0.. with data pages 0.. n=64 => 0 differ (first -1), 0 read errors",
    ]


def test_run_brings_a_deployment_up(installed: Installed, tmp_path: Path) -> None:
    """An image goes through lzo-rle and a writeback pass, and comes out as it went in."""
    source = random.Random(3)
    words = b" ".join(source.choice((b"zram", b"slot", b"page", b"handle", b"huge")) for _ in range(100_000))
    content = words[: 512 << 10] + source.randbytes(1 << 18)
    (tmp_path / "disk.img").write_bytes(content)
    config = tmp_path / "lzo.toml"
    config.write_text("""
        [device.zram0]
        comp_algorithm = "lzo-rle"
        disksize = "2M"
        backing_dev = "file:backing.img,size=1M"
        image = {load = "disk.img", save = "saved.img"}
        policy = [{name = "huge"}]
    """)
    assert installed.run("-m", "zramcore", "config", "check", config).stdout == f"{config}: ok\n"
    lines = installed.run("-m", "zramcore", "run", config, "--once").stdout.splitlines()
    assert lines[0] == f"zram0: 2097152 bytes, {len(content)} bytes loaded"
    assert lines[-1] == "stopped"
    assert (tmp_path / "saved.img").read_bytes() == content.ljust(2 << 20, b"\0")


def test_config_check_refuses_a_level(installed: Installed, tmp_path: Path) -> None:
    config = tmp_path / "lzo.toml"
    config.write_text('[device.zram0]\ncomp_algorithm = "lzo"\nalgorithm_params = "level=9"\ndisksize = "2M"\n')
    done = installed.run("-m", "zramcore", "config", "check", config, fails=True)
    assert "device.zram0.algorithm_params: lzo does not take level; it takes no parameters" in done.stdout + done.stderr


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
