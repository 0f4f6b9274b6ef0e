"""Packages that are broken in every way we know are installed beside zramcore: each command works as without them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
w comp_algorithm zstd
w backing_dev file:backing.img,size=64K
w disksize 1M
wr 0 rand:1
wr 1 zero
rdp 0
w idle all
w writeback idle
rdp 0
zt r /sys/block/zram0/bd_stat
zt r /sys/block/zram0/comp_algorithm
w reset 1
"""

CONFIG = """
[device.zram0]
comp_algorithm = "zstd"
disksize = "1M"
backing_dev = "file:backing.img,size=1M"

[[device.zram0.policy]]
name = "idle"
"""

HEAD = "from zramcore.hookspecs import hookimpl\nfrom zramcore.interfaces import Compressor, CompressorContext\n"

COMPRESSOR = """
class Context(CompressorContext):
    def compress_page(self, page):
        return bytes(page)
    def decompress_page(self, data, page_size):
        return data

class Mine(Compressor):
    name = "{name}"
    summary = "keeps pages as they are"
    {extra}
    def create_context(self):
        return Context()

@hookimpl
def zramcore_compressors():
    return [Mine]
"""


def compressor(name: str, extra: str = "") -> str:
    return HEAD + COMPRESSOR.format(name=name, extra=extra)


@dataclass(frozen=True)
class Broken:
    """A plugin's source, and what `zramcore plugins` says of it."""

    source: str
    reason: str
    status: str = "failed"
    error: str = "PluginError"


BROKEN: Mapping[str, Broken] = {
    "import_raises": Broken("raise RuntimeError('no such library')", "import failed: RuntimeError: no such library"),
    "import_exits": Broken("import sys\nsys.exit('goodbye')", "import failed: SystemExit: goodbye"),
    "syntax_error": Broken(
        "def zramcore_compressors(:\n", r"import failed: SyntaxError: .*zbad_syntax_error\.py, line 1\)"
    ),
    "no_hooks": Broken("x = 1", "no hooks in it; mark its functions with @hookimpl"),
    "duplicate_name": Broken(
        compressor("zstd"),
        r"compressor 'zstd' is registered by compressors \(zramcore \d\S*\) and again by plug "
        r"\(zbad-duplicate-name 1\.0\); the first one stays",
        status="conflict",
        error="DuplicateName",
    ),
    "wrong_api": Broken(
        compressor("future", "api_version = 99"),
        "compressor class Mine is written for API version 99, this zramcore has version 1; install a version .*",
        error="IncompatibleApi",
    ),
    "misspelled_hook": Broken(
        compressor("lost").replace("def zramcore_compressors", "def zramcore_compresors"),
        r"unknown hook 'zramcore_compresors'; did you mean 'zramcore_compressors'\?",
    ),
    "wrong_arguments": Broken(
        HEAD + "@hookimpl\ndef zramcore_device_added(device, size):\n    pass\n",
        r".*zramcore_device_added\(device, size\).*; the arguments of zramcore_device_added are: device",
    ),
    "hook_raises": Broken(
        HEAD + "@hookimpl\ndef zramcore_policies():\n    raise OSError(5, 'disk on fire')\n",
        r"zramcore_policies raised OSError: \[Errno 5\] disk on fire",
    ),
    "observer_raises": Broken(
        HEAD + "@hookimpl\ndef zramcore_writeback_done(device, pages):\n    raise LookupError(f'{device} {pages}')\n",
        "its observers raised 1 times, last zramcore_writeback_done: LookupError: check 1",
        error="",
    ),
}

OBSERVER_LOG = "plugin plug (zbad-observer-raises 1.0): observer zramcore_writeback_done raised LookupError: zram0 1"


def install(site: Path, name: str, source: str) -> None:
    """What `pip install` leaves: a module and its dist-info with an entry point."""
    site.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zramcore]\nplug = {name}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n" + "".join(f"{info.name}/{path.name},,\n" for path in info.iterdir()))


COMMANDS = (("exec", "script.sh"), ("config", "check", "deployment.toml"), ("plugins", "--json"))

DRIVER = """
import contextlib, io, json, sys
from zramcore.cli import main
answers = []
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(command)
    answers.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Result:
    stdout: str
    stderr: str


def start(folder: Path, site: Path | None, *arguments: str) -> subprocess.Popen[str]:
    """This interpreter with `arguments`, in a folder with a script and a config, the packages of `site` installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.sh").write_text(SCRIPT)
    (folder / "deployment.toml").write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if name != "ZRAMCORE_DISABLE_PLUGINS"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Result:
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stdout + stderr
    return Result(stdout, stderr)


def run_commands(folder: Path, site: Path | None) -> list[Result]:
    """Each of COMMANDS as a process of its own."""
    processes = [
        start(folder / str(number), site, "-m", "zramcore", *command) for number, command in enumerate(COMMANDS)
    ]
    return [finish(process) for process in processes]


def run_in_one_process(folder: Path, site: Path) -> list[Result]:
    """The same, one after the other in one process: most of the time of a command is its imports."""
    answers = json.loads(finish(start(folder, site, "-c", DRIVER, json.dumps(COMMANDS))).stdout)
    assert [status for status, _, _ in answers] == [0] * len(COMMANDS), answers
    return [Result(stdout, stderr) for _, stdout, stderr in answers]


def rows(listing: str) -> dict[str, dict[str, Any]]:
    """The rows of `plugins --json` by distribution (for zramcore's own: by plugin)."""
    found = json.loads(listing)["plugins"]
    return {row["name"] if row["distribution"] == "zramcore" else row["distribution"]: row for row in found}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """What the commands print without any other package."""
    results = run_commands(tmp_path_factory.mktemp("clean"), None)
    assert "lz4hc [zstd] deflate" in results[0].stdout
    assert "$ cat bd_stat =>        1        1        1\n" in results[0].stdout
    assert results[1].stdout == "deployment.toml: ok\n"
    assert [result.stderr for result in results] == ["", "", ""]
    return results


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_package_changes_nothing_but_the_listing(kind: str, clean: list[Result], tmp_path: Path) -> None:
    broken = BROKEN[kind]
    install(tmp_path / "site", f"zbad_{kind}", broken.source)
    executed, checked, listed = run_in_one_process(tmp_path, tmp_path / "site")
    assert executed.stdout == clean[0].stdout
    assert checked == clean[1]
    if kind == "observer_raises":
        assert OBSERVER_LOG in executed.stderr
    else:
        assert executed.stderr == ""
    assert listed.stderr == ""
    before, after = rows(clean[2].stdout), rows(listed.stdout)
    row = after.pop(f"zbad-{kind.replace('_', '-')}")
    assert after == before
    assert row["status"] == broken.status
    assert re.fullmatch(broken.reason, row["reason"])
    assert row["errors"] == ([broken.error] if broken.error else [])
    assert row["provides"] == []
    assert row["file"] == str(tmp_path / "site" / f"zbad_{kind}.py")


def test_all_of_them_at_once_beside_one_that_works(clean: list[Result], tmp_path: Path) -> None:
    site = tmp_path / "site"
    for kind, broken in BROKEN.items():
        install(site, f"zbad_{kind}", broken.source)
    install(site, "zgood", compressor("good"))
    text = start(tmp_path / "text", site, "-m", "zramcore", "plugins")
    verbose = start(tmp_path / "verbose", site, "-m", "zramcore", "plugins", "-v", "--no-trial")
    executed, checked, listed = run_commands(tmp_path, site)
    assert executed.stdout == clean[0].stdout.replace("deflate store", "deflate store good")
    assert OBSERVER_LOG in executed.stderr
    assert checked == clean[1]
    found = rows(listed.stdout)
    assert {name for name, row in found.items() if row["status"] != "ok"} == {
        f"zbad-{kind.replace('_', '-')}" for kind in BROKEN
    }
    assert [offer["name"] for offer in found["zgood"]["provides"]] == ["good"]
    check_text(finish(text).stdout, tmp_path)
    shown = finish(verbose).stdout
    assert "RuntimeError: no such library" in shown
    assert f"from {site}/zgood.py" in shown
    assert "LookupError" not in shown


def check_text(text: str, tmp_path: Path) -> None:
    """What a person reads: within 100 columns, broken plugins first, every reason there."""
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    marks = [line.split()[0] for line in lines[:-2] if not line.startswith(" ")]
    assert marks == ["FAILED"] * 9 + ["CONFLICT"] + ["ok"] * 5
    assert lines[-2].startswith("data path: ")
    assert lines[-1] == "15 plugins: 5 ok, 1 conflict, 9 failed"
    joined = " ".join(text.split())
    for kind, broken in BROKEN.items():
        assert f"plug (zbad-{kind.replace('_', '-')} 1.0) zbad_{kind}" in joined
        assert re.search(broken.reason, joined)
    assert "compressor good: keeps pages as they are" in joined
    assert "policy idle: " in joined
    assert re.search(r" age=\S+ how long ", joined)  # options with their defaults and help


BACKEND = '''
"""A build backend without requirements: zips one module and its metadata."""
import pathlib
import zipfile

INFO = "zreal-1.0.dist-info"
FILES = {
    "zreal.py": pathlib.Path("zreal.py").read_text(),
    f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: zreal\\nVersion: 1.0\\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    f"{INFO}/entry_points.txt": "[zramcore]\\nreal = zreal\\n",
}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "zreal-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{INFO}/RECORD", "".join(f"{path},,\\n" for path in [*FILES, f"{INFO}/RECORD"]))
    return name
'''


def test_a_package_that_pip_built_and_installed_is_loaded(clean: list[Result], tmp_path: Path) -> None:
    pytest.importorskip("pip")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "zreal.py").write_text(compressor("real"))
    (source / "backend.py").write_text(BACKEND)
    (source / "pyproject.toml").write_text(
        textwrap.dedent("""
            [build-system]
            requires = []
            build-backend = "backend"
            backend-path = ["."]

            [project]
            name = "zreal"
            version = "1.0"
        """)
    )
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert pip.returncode == 0, pip.stderr
    executed, checked, listed = run_commands(tmp_path, site)
    row = rows(listed.stdout)["zreal"]
    assert (row["name"], row["version"], row["status"]) == ("real", "1.0", "ok")
    assert [offer["name"] for offer in row["provides"]] == ["real"]
    assert executed.stdout == clean[0].stdout.replace("deflate store", "deflate store real")
    assert checked == clean[1]
