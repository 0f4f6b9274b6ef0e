"""What is installed: a wheel with two packages and nothing else, on every Python that we promise and this machine has.

Needs pip, and the network for the dependencies.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13")


def interpreter(version: str) -> str | None:
    """A python of this version on the machine, which really starts."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in [sys.executable, shutil.which(f"python{version}"), *map(str, pyenv)]:
        if candidate:
            run = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if run.returncode == 0 and run.stdout.startswith(f"Python {version}."):
                return candidate
    return None


def build_wheel(folder: Path, **environment: str) -> Path:
    """The wheel, built from a copy of the checkout so that nothing is left in it."""
    source = folder / "source"
    left = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "*.egg-info", "build", "*.so")
    shutil.copytree(ROOT, source, ignore=left)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(pip, check=True, capture_output=True, env={**os.environ, **environment})
    return next(folder.glob("zramcore-*.whl"))


def extensions(wheel: Path) -> set[str]:
    """The compiled modules in a wheel; one file serves all Pythons."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_the_two_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not re.fullmatch(r"zramcore-.*\.dist-info", top)} == {"zramcore", "zramcore_plugins"}
    assert {"zramcore/py.typed", "zramcore_plugins/py.typed"} <= set(names)
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("zramcore/**/*.py")}
    sources |= {str(path.relative_to(ROOT / "plugins")) for path in ROOT.glob("plugins/zramcore_plugins/**/*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".c")]


@pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler (gcc) on this machine")
def test_wheel_holds_every_extension(wheel):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    assert extensions(wheel) == {each["name"].replace(".", "/") + ".abi3.so" for each in declared}
    assert all(each["optional"] for each in declared)


def test_without_a_compiler_it_installs_all_the_same(tmp_path):
    wheel = build_wheel(tmp_path, CC="/bin/false")
    assert extensions(wheel) == set()
    assert "zramcore_plugins/allocators/zsmalloc.py" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.parametrize("version", VERSIONS)
def test_installed_wheel_works(wheel, tmp_path, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", venv], check=True, capture_output=True)
    subprocess.run([venv / "bin" / "pip", "install", "-q", wheel], check=True, capture_output=True)
    site = next(venv.glob("lib/python*/site-packages"))
    assert not [name for name in ("plugins", "tests", "docs") if (site / name).exists()]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    data = tmp_path / "data"
    data.write_bytes(b"idle and huge pages " * 40000 + os.urandom(200_000))
    command = [venv / "bin" / "zramcore", "try", data, "--comp", "lz4,zstd", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, env=clean, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["verified"] is True
    assert [row["comp_algorithm"] for row in told["results"]] == ["lz4", "zstd"]
    module = subprocess.run(
        [venv / "bin" / "python", "-m", "zramcore", "--version"],
        capture_output=True,
        text=True,
        env=clean,
        cwd=tmp_path,
    )
    assert module.returncode == 0
    assert "0." in module.stdout
