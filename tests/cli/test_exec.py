"""`zramcore exec` as a command: its input, its options, its exit status, and the page that describes the language."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zramcore.cli import main
from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.script import VirtualClock, command_table, new_machine
from zramcore.script.tool import Tool

RECORDED = Path(__file__).parents[1] / "conformance"
DOCS = Path(__file__).parents[2] / "docs" / "exec.md"


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script.sh"
    path.write_text(text)
    return str(path)


def test_a_script_runs_on_through_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", write(tmp_path, "w disksize 0\nsetup lz4 64K\nwr 0 rand:1\nmm\n")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        "$ echo '0' > disksize => EINVAL (22, Invalid argument)",
        "$ echo '1' > reset => OK",
        "$ echo 'lz4' > comp_algorithm => OK",
        "$ echo '64K' > disksize => OK",
        "$ pwrite /dev/zram0 off=0 len=4096 data=rand:1 (O_DIRECT) => OK 4096",
        "  mm_stat:  4096 4096 4096 0 4096 0 0 1 1",
    ]


def test_stop_on_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "-e", write(tmp_path, "w disksize 0; w disksize 1M")]) == 1
    assert capsys.readouterr().out == "$ echo '0' > disksize => EINVAL (22, Invalid argument)\n"


def test_exit_gives_the_status(tmp_path: Path) -> None:
    assert main(["exec", write(tmp_path, "exit 7")]) == 7


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [("w disksize 1M\nw disksiz", 2, "usage: w ATTRIBUTE"), ("\n\nput 'a", 3, "single quote"), ("wx 1", 1, "unknown")],
)
def test_a_malformed_line_is_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: int, says: str
) -> None:
    script = write(tmp_path, text)
    assert main(["exec", script]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"zramcore: {script}:{line}: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"echo\n\xff")
    assert main(["exec", str(path)]) == 1
    assert f"{path}:2: not UTF-8" in capsys.readouterr().err
    assert main(["exec", str(tmp_path / "none")]) == 2


def test_standard_input_and_time() -> None:
    script = "w disksize 1M; wr 0 rand:1; sleep 3000; w idle 2000; bsc"
    done = subprocess.run(
        [sys.executable, "-m", "zramcore", "exec", "--virtual-time", "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.endswith("   ..hi.. 1\n")
    assert done.returncode == 0


def test_data_pages_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = tmp_path / "data"
    pages.write_bytes(b"\1" * 4096 + bytes(range(256)) * 16)
    script = write(tmp_path, f"w disksize 64K; put 0 2 0; cmp 0 0 2; wr 3 file:{pages}:1; zt cmp $D 3 $P 1 1")
    assert main(["exec", "--pages", str(pages), script]) == 0
    assert capsys.readouterr().out.count("=> 0 differ (first -1), 0 read errors") == 2
    assert main(["exec", "--pages", str(tmp_path / "none"), script]) == 1
    assert f"{script}:1: cannot read the data pages" in capsys.readouterr().err


def test_a_backing_file_by_the_name_the_script_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write(tmp_path, "setup lz4 1M /dev/vda; cat /sys/block/vda/size; wr 0 rand:1; w writeback huge; bd; show")
    assert main(["exec", "--backing", "/dev/vda=64K", script]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "128" in lines
    assert "  bd_stat:  1 0 1" in lines
    assert "  backing_dev: /dev/vda" in lines
    for wrong in ("vda", "=1M", "vda=", "vda=x"):
        assert main(["exec", "--backing", wrong, script]) == 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_script_recorded_on_a_kernel_runs_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    pages = tmp_path / "pages.bin"
    subprocess.run([sys.executable, str(RECORDED / "gen_pages.py"), str(pages)], check=True, capture_output=True)
    walk = RECORDED / "walks" / f"walk{number}"
    assert main(["exec", "--pages", str(pages), "--backing", "/dev/vda=64M", f"{walk}.sh"]) == 0
    expected = walk.with_suffix(".txt").read_text().splitlines()[1:]  # the first line is not the script's
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(expected)
    different = [(mine, ours) for mine, ours in zip(expected, printed, strict=True) if timeless(mine) != timeless(ours)]
    assert [mine.partition(":")[0] for mine, ours in different] == ["  comp_algorithm"]  # other plugins are installed


def timeless(line: str) -> str:
    return re.sub(r" +[0-9]+\.000000 ", " ", line)


class TestDocs:
    def test_every_command_is_described_and_every_description_is_of_a_command(self) -> None:
        catalogue = build_catalogue(load_plugins())
        with new_machine(lambda clock: Control(catalogue, clock=clock), VirtualClock()) as machine:
            known = set(command_table(machine)) - {":", "true", "false"}
            requests = set(Tool(machine).subcommands)
        rows = re.findall(r"^\| `([^`]+)`", DOCS.read_text(), re.MULTILINE)
        described = {row.split()[0] for row in rows}
        assert described == known
        assert {row.split()[1] for row in rows if row.startswith("zt ")} == requests

    def test_the_example_prints_what_the_page_says(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        script, output = re.findall(r"```(?:sh|text)\n(.*?)```", DOCS.read_text(), re.DOTALL)[:2]
        assert main(["exec", "--virtual-time", write(tmp_path, script)]) == 0
        assert capsys.readouterr().out == output
