"""docs/performance.md: its commands run, and print what it shows but for the numbers."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from zramcore.cli import BUILTIN
from zramcore.native import load_batch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text()
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def shape(text: str) -> list[str]:
    """Lines without their numbers and the width of these."""
    return [" ".join(NUMBER.sub("", line).split()) for line in text.splitlines()]


@pytest.mark.skipif(load_batch() is None, reason="the page shows the compiled data path")
def test_the_steps_of_a_small_request_are_printed_as_shown() -> None:
    shown = PAGE.partition("$ python tests/bench_one_page.py\n")[2].partition("```")[0]
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "bench_one_page.py", "--mib", "1", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shape(run.stdout) == shape(shown)


def test_the_commands_of_the_page_are_understood() -> None:
    """They take minutes, so they are only parsed here; tests of bench run them on less data."""
    commands = re.findall(r"^zramcore bench (\w+)(.*)$", PAGE, re.MULTILINE)
    assert [name for name, _ in commands] == ["device", "writeback", "scan", "latency"]
    bench = BUILTIN["bench"]
    assert isinstance(bench, click.Group)
    for name, arguments in commands:
        command = bench.commands[name]
        assert command.make_context(name, shlex.split(arguments)).params
