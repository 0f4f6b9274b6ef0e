"""docs/daemon.md is true: its examples run in order against a daemon of its own config and print what it says, up to
the numbers that vary; every command, option, resource and config key is in it, and no other."""

from __future__ import annotations

import random
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from zramcore.cli import BUILTIN, main
from zramcore.config.daemon import DAEMON_KEYS
from zramcore.control import Control
from zramcore.daemon.api import Api
from zramcore.daemon.service import Options, Service
from zramcore.interfaces import Catalogue
from zramcore.testing.daemon import RunningDaemon

PAGE = (Path(__file__).parents[1] / "docs" / "daemon.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
VARIES = re.compile(TIME + r"|(?<![a-zA-Z])\d+(?:\.\d+)?(?:e\+\d+)?[BKMG]?|[▁▂▃▄▅▆▇█]+")
VARIABLE = rf"(?>{TIME}|[0-9]+(?:\.[0-9]+)?(?:e\+[0-9]+)?[BKMG]?|[▁▂▃▄▅▆▇█]+)"
MAP = re.compile(r"[.scHiw]{80}")
OURS = ("create", "daemon", "get", "idle", "list", "map", "recompress", "reload", "remove", "reset", "set", "show",
        "systemd", "top", "writeback")  # fmt: skip


def examples(text: str) -> Iterator[tuple[str, str]]:
    """Command and what it printed."""
    for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = example.partition("\n")
        yield command, printed


def pattern(line: str) -> str:
    """A regular expression for a line: `...` is anything; numbers and their units vary, and so do a map's cells."""
    if MAP.fullmatch(line):
        return MAP.pattern
    words = []
    for word in line.split():
        parts = [VARIES.split(part) for part in word.split("...")]
        words.append(".*".join(VARIABLE.join(re.escape(piece) for piece in part) for part in parts))
    return r"\s*" + r"\s+".join(words) + r"\s*"


def agrees(said: str, printed: str) -> bool:
    """Whether the lines said are those printed, in order; a line `...` stands for any number of them."""
    lines = said.splitlines()
    skipping = False
    for expected in printed.splitlines():
        if expected == "...":
            skipping = True
            continue
        while skipping and lines and not re.fullmatch(pattern(expected), lines[0]):
            del lines[0]
        if not lines or not re.fullmatch(pattern(expected), lines.pop(0)):
            return False
        skipping = False
    return skipping or not lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image: 6 MiB that compress, 1 MiB that do not, 1 MiB of zeroes and 1 MiB of one byte."""
    created = tmp_path_factory.mktemp("page")
    words = random.Random(1).choices([b"page ", b"slot ", b"handle ", b"block "], k=1 << 20)
    noise = random.Random(2).randbytes(1 << 20)
    (created / "disk.img").write_bytes(b"".join(words)[: 6 << 20] + noise + bytes(1 << 20) + b"\xff" * (1 << 20))
    return created


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_example_prints_what_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    others = {entry.dist.name for entry in entry_points(group="zramcore") if entry.dist} - {"zramcore"}
    monkeypatch.chdir(folder)
    for key, value in {
        "ZRAMCORE_DISABLE_PLUGINS": ",".join(others),
        "ZRAMCORE_SOCKET": str(folder / "control.sock"),
        "COLUMNS": "80",
        "LINES": "24",
    }.items():
        monkeypatch.setenv(key, value)
    daemon = None
    seen = 0
    try:
        for language, title, text in BLOCK.findall(PAGE):
            if title:
                (folder / title).write_text(text)
            for command, printed in examples(text) if language == "console" else ():
                program, *words = shlex.split(command)
                if words[0] == "daemon":
                    daemon = RunningDaemon(folder, *words[1:])
                    said = daemon.log_file.read_text()
                    # a policy's thread says its first word before or after the main thread's next
                    assert all(re.search(pattern(line), said) for line in printed.splitlines()), said
                else:
                    status = main(words) if program == "zramcore" else subprocess.run([program, *words]).returncode
                    said = "".join(capfd.readouterr())
                    assert agrees(said, printed.rstrip()), f"$ {command}\n{said}"
                    assert status == (1 if printed.startswith("zramcore: ") or "refused" in printed else 0)
                seen += 1
        assert daemon is not None
        assert daemon.stop() == 0
    finally:
        if daemon is not None:
            daemon.kill()
    assert seen > 20
    assert (folder / "disk.png").read_bytes().startswith(b"\x89PNG")


def test_the_comparison_tells_words_and_lines_apart() -> None:
    assert agrees("disk: wrote back 12.5K, freed it a=7\n", "disk: wrote back 1M, ... a=2.5")
    assert not agrees("disk: freed 1M", "disk: wrote back 1M")
    assert not agrees("mem_limt 1", "mem_limit 1")
    assert not agrees("zram1", "zram0")
    assert agrees("time=2026-11-26T23:59:59.999Z level=info", "time=2026-11-23T00:30:08.563Z level=info")
    assert agrees("a\nb\nc\nd", "a\n...\nd")
    assert not agrees("a\nb\nc", "a\n...\nd")
    assert not agrees("a\nb", "a")
    assert not agrees("a", "a\nb")


def test_every_command_and_no_other_has_its_heading() -> None:
    named = {
        word for line in re.findall(r"^### (.*)$", PAGE, re.MULTILINE) for word in re.findall(r"zramcore (\w+)", line)
    }
    assert named | {"daemon"} == set(OURS)
    assert set(OURS) <= set(BUILTIN)


@pytest.mark.parametrize("name", OURS)
def test_every_option_of_a_command_is_named(name: str) -> None:
    command = BUILTIN[name]
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    for each in commands:
        for parameter in each.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[-1]}" in PAGE or f" {parameter.opts[-1]} " in PAGE, parameter.opts
    for option in re.findall(r"`(--[a-z-]+)", PAGE):
        known = {opt for each in BUILTIN.values() for opt in all_options(each)}
        assert option in known, option


def all_options(command: click.Command) -> set[str]:
    inner = command.commands.values() if isinstance(command, click.Group) else []
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(all_options(each) for each in inner))


def test_every_resource_is_in_the_table(built_in: Catalogue, tmp_path: Path) -> None:
    service = Service(Control(built_in), Options(socket=str(tmp_path / "c.sock")))
    table = PAGE[PAGE.index("| resource |") : PAGE.index("NAME is the kernel's name")]
    cells = [row.split("|")[1] for row in table.splitlines()[2:] if row.startswith("|")]
    paths = [path for cell in cells for path in re.findall(r"(/[\w/-]*)[`?]", cell)]
    told = {"/" + re.sub(r"NAME|ATTRIBUTE", "([^/]+)", path).strip("/") for path in paths}
    assert told == {f"/{pattern.pattern}" for pattern, _ in Api(service.fleet, service)._routes}


def test_every_key_of_the_daemon_table_is_named() -> None:
    assert all(f"`{key}`" in PAGE for key in DAEMON_KEYS)
