"""README.md, docs/try.md and docs/bench.md are true: what they show is run and printed again, but for the numbers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from zramcore.cli import BUILTIN

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "try.md", ROOT / "docs" / "bench.md")
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(page.name, *match.groups()) for page in PAGES for match in FENCE.finditer(page.read_text())]
NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?(?:e-?\d+)?(?!\w)")
QUICK = {
    "try": "--size 4M",
    "bench": "--size 2M --rounds 2",
    "bench memory": "--size 2M",
    "bench scan": "--slots 65536 --allocated 4096 --rounds 2",
}
"""The data that these commands of a page are given here, whatever the page gives them: their numbers vary."""
LOOP = re.compile(r"in\\s\+C|by\\s\+calls")
"""Which loop is the limit of `bench`: that depends on what was compiled."""


def examples() -> list[tuple[str, str, str]]:
    """Page, command and what it printed, of every console block."""
    found = []
    for page, language, _, text in BLOCKS:
        if language == "console":
            for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, printed = example.partition("\n")
                found.append((page, command, printed))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the pages."""
    created = tmp_path_factory.mktemp("pages")
    for _, _, title, text in BLOCKS:
        if title:
            (created / title).write_text(text)
    return created


def environment() -> dict[str, str]:
    """That of somebody who installed zramcore alone."""
    others = {entry.dist.name for entry in entry_points(group="zramcore") if entry.dist} - {"zramcore"}
    return {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "ZRAMCORE_DISABLE_PLUGINS": ",".join(others),
        "TMPDIR": "/var/tmp",
    }


def pattern(printed: str, numbers_vary: bool) -> str:
    """A regular expression for what was printed, wherever its lines break; `...` stands for anything."""
    words = []
    for word in printed.split():
        parts = []
        for part in word.split("..."):
            pieces = [re.escape(piece) for piece in NUMBER.split(part)] if numbers_vary else [re.escape(part)]
            parts.append(r"-?\d+(?:\.\d+)?(?:e-?\d+)?".join(pieces))
        words.append(".*".join(parts))
    return LOOP.sub(r"(?:in\\s+C|by\\s+calls)", r"\s+".join(words))


def skip_unless_possible(command: str) -> None:
    """Skip an example that needs what this machine does not have."""
    if "--against nbdkit" in command and shutil.which("nbdkit") is None:
        pytest.skip("needs nbdkit")
    if "--against kernel" in command:
        disksize = Path("/sys/block/zram0/disksize")
        if os.geteuid() or not disksize.exists() or disksize.read_text() != "0\n":
            pytest.skip("needs root and the kernel's zram0, which nobody uses")


@pytest.mark.parametrize(("page", "command", "printed"), examples(), ids=lambda value: value[:40])
def test_an_example_prints_what_the_page_says(page: str, command: str, printed: str, folder: Path) -> None:
    skip_unless_possible(command)
    words = shlex.split(command)
    quick = QUICK.get(" ".join(words[1:3]), QUICK.get(words[1]))
    if quick:
        words += quick.split()
    result = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd=folder,
        env=environment(),
        check=False,
    )
    assert re.fullmatch(pattern(printed, quick is not None), result.stdout.strip()), result.stdout
    assert result.returncode == (1 if printed.startswith("zramcore: ") else 0)


def test_the_examples_are_found() -> None:
    commands = [command for _, command, _ in examples()]
    assert "zramcore try" in commands
    assert len(commands) >= 7
    assert all(command.split()[1] in BUILTIN for command in commands)


def test_a_pattern_refuses_other_words_and_numbers_that_must_not_vary() -> None:
    assert re.fullmatch(pattern("lz4 1.5 MiB\n  a...z", True), "lz4 22.75 MiB a-to-z")
    assert not re.fullmatch(pattern("lz4 1.5 MiB", True), "lz5 1.5 MiB")
    assert not re.fullmatch(pattern("lz4 1.5 MiB", True), "lz4 many MiB")
    assert not re.fullmatch(pattern("lz4 1.5 MiB", False), "lz4 1.6 MiB")


def test_the_library_example_runs() -> None:
    (code,) = [text for page, language, _, text in BLOCKS if (page, language) == ("README.md", "python")]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split()[0] == str(-(-600_000 // 4096) * 4096)


def test_the_two_commands_are_one_line_each_and_install_from_a_clone() -> None:
    """.ci/run takes the first line of the README that says pytest, and runs it on a clean checkout."""
    show, test = [text for page, language, _, text in BLOCKS if (page, language) == ("README.md", "sh")]
    for command in (show, test):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert show.endswith("install -q . && .venv/bin/zramcore try\n")
    first = next(line for line in (ROOT / "README.md").read_text().splitlines() if "pytest" in line)
    assert test == f"{first}\n"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["try", "bench"])
def test_every_option_is_described_and_no_other(name: str) -> None:
    command = BUILTIN[name]
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    options = {
        option for each in commands for parameter in each.params for option in parameter.opts if option.startswith("--")
    }
    described = set(re.findall(r"`(--[a-z]+)", (ROOT / "docs" / f"{name}.md").read_text()))
    assert described == options


def test_every_subcommand_of_bench_has_its_heading() -> None:
    command = BUILTIN["bench"]
    assert isinstance(command, click.Group)
    named = re.findall(r"^## `zramcore bench (\w+)`$", (ROOT / "docs" / "bench.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(command.commands)
