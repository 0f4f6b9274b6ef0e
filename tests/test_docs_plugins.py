"""docs/plugins.md is true: its package is written to disk and used, and it says every hook with every argument."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from zramcore.native import PURE_VARIABLE
from zramcore.pluginset import EVENTS, FAMILIES, HOOKS

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
TEXT = PAGE.read_text()
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in FENCE.finditer(TEXT)]
FILES = {title: code for _, title, code in BLOCKS if title}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, with the metadata that `pip install .` would write beside them."""
    folder = tmp_path_factory.mktemp("zram-example")
    for name, code in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    declared = tomllib.loads(FILES["pyproject.toml"])["project"]
    info = folder / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n")
    entries = "".join(f"{name} = {value}\n" for name, value in declared["entry-points"]["zramcore"].items())
    (info / "entry_points.txt").write_text(f"[zramcore]\n{entries}")
    return folder


def run(project: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, by this interpreter, with the package on its path."""
    program, *arguments = shlex.split(command)
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def listing(project: Path, **environment: str) -> dict[str, dict[str, object]]:
    result = run(project, "zramcore plugins --json", **environment)
    assert result.returncode == 0, result.stderr
    return {row["name"]: row for row in json.loads(result.stdout)["plugins"] if row["distribution"] == "zram-example"}


def test_every_code_block_is_a_file_or_commands() -> None:
    assert TEXT.count("```") == 2 * len(BLOCKS)
    assert [language for language, title, _ in BLOCKS if not title] == ["sh"]
    assert len(FILES) == len(BLOCKS) - 1, "two blocks have one title"
    modules = {path.removesuffix(".py").replace("/", ".") for path in FILES if path.startswith("zram_example/")}
    declared = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]["zramcore"]
    assert modules - {"zram_example.__init__"} == set(declared.values())


def test_every_plugin_of_the_page_loads_and_every_kind_is_shown(project: Path) -> None:
    rows = listing(project)
    declared = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]["zramcore"]
    assert set(rows) == set(declared)
    assert [(name, row["reason"], row["warnings"]) for name, row in rows.items() if row["status"] != "ok"] == []
    offered = [(offer["family"], offer["name"]) for row in rows.values() for offer in row["provides"]]
    assert sorted(offered) == [
        ("allocators", "shelf"),
        ("attributes", "ratio"),
        ("backing_drivers", "ram"),
        ("cli_commands", "zeros"),
        ("compressors", "bz"),
        ("compressors", "swift"),
        ("policies", "crowded"),
    ]
    assert {family for family, _ in offered} == set(FAMILIES)
    assert any(row["observes"] for row in rows.values())


def test_they_work_together_in_one_device(project: Path) -> None:
    code = """
        from zramcore.control import Control
        from zramcore.pluginmanager import load_plugins
        from zramcore.registry import build_catalogue

        plugins = load_plugins()
        catalogue = build_catalogue(plugins)
        control = Control(catalogue, notify=plugins.notify, extra_attributes=plugins.extra_attributes)
        target = control.target(f"zram{control.hot_add()}")
        target.store("allocator", "shelf")
        target.store("comp_algorithm", "bz")
        target.store("backing_dev", "ram:scratch,blocks=8")
        target.store("disksize", "1M")
        device = target.device
        data = bytes(range(256)) * 16 + __import__("random").Random(1).randbytes(4096)
        device.pwrite(0, data)
        tick = catalogue.policies["crowded"]({"above": "1"}).tick(target, 0.0)
        for attribute, value in tick.writes:
            target.store(attribute, value)
        assert device.pread(0, 8192) == data
        print(target.show("ratio").strip(), target.show("bd_stat").split(), target.show("backing_dev").strip())
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    ratio, *rest = result.stdout.split(maxsplit=1)
    # One page compresses, the other is huge and was written back, out of compr_data_size.
    assert float(ratio) > 2
    assert rest == ["['1', '1', '1'] ram:scratch,blocks=8\n"]
    assert "zram0 wrote 1 pages back and freed 4096 bytes" in result.stderr


def test_the_c_functions_of_the_page_are_used_and_change_nothing_but_that(project: Path) -> None:
    code = """
        from zramcore.control import Control
        from zramcore.pluginmanager import load_plugins
        from zramcore.registry import build_catalogue
        from zramcore.testing.samples import make_pages

        control = Control(build_catalogue(load_plugins()))
        target = control.target(f"zram{control.hot_add()}")
        target.store("comp_algorithm", "swift")
        target.store("disksize", "1M")
        data = b"".join(make_pages(4096).values())
        target.device.pwrite(0, data)
        assert target.device.pread(0, len(data)) == data
        print(target.device.path.native)
        print(target.show("mm_stat"))
    """
    told = []
    for pure in ("", "1"):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": str(project), PURE_VARIABLE: pure},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        told.append(result.stdout.splitlines())
    compiled, python = told
    assert python[0] == "False"
    assert compiled[1:] == python[1:]
    if find_spec("zramcore._batch") is None:
        pytest.skip("the extension was not built")
    assert compiled[0] == "True"
    (line,) = re.findall(r"`(data path: [^`]+)`", TEXT)
    assert line in run(project, "zramcore plugins", **{PURE_VARIABLE: ""}).stdout.splitlines()


def test_the_conformance_tests_of_the_page_pass(project: Path) -> None:
    result = run(project, "pytest tests -q -p no:cacheprovider -W error")
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) > 60


def test_the_commands_of_the_page_work(project: Path) -> None:
    (commands,) = (code.splitlines() for language, _, code in BLOCKS if language == "sh")
    # `pip install` needs an index for setuptools (the metadata is there already), and pytest has a test of its own.
    assert [line for line in commands if not line.startswith("zramcore ")] == ["pip install .", "pytest tests"]
    for line in commands:
        if line.startswith("zramcore "):
            result = run(project, line)
            assert result.returncode == 0, result.stderr
            assert result.stdout
    (project / "zeros.bin").write_bytes(bytes(8192) + b"x")
    assert run(project, "zramcore zeros zeros.bin").stdout == "2\n"


def test_the_variable_of_the_page_switches_plugins_off(project: Path) -> None:
    (value,) = re.findall(r"`ZRAMCORE_DISABLE_PLUGINS=([^`]+)`", TEXT)
    rows = listing(project, ZRAMCORE_DISABLE_PLUGINS=value)
    assert {name: row["status"] for name, row in rows.items() if row["status"] != "ok"} == {
        "example-extras": "disabled"
    }


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_has_its_row_with_its_arguments(hook: str) -> None:
    (arguments,) = re.findall(rf"^\| `{hook}` \|([^|]*)\|", TEXT, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", arguments)) == HOOKS[hook]


def test_no_hook_is_mentioned_that_does_not_exist() -> None:
    mentioned = set(re.findall(r"\bzramcore_\w+", TEXT))
    assert mentioned == set(HOOKS)
    assert len(HOOKS) == len(FAMILIES) + len(EVENTS)
