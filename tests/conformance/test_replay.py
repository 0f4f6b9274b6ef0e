"""Every recorded transcript replays without a difference that the table does not explain; and the replayer can tell."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
TRANSCRIPTS = sorted(HERE.glob("transcripts/*.txt")) + sorted(HERE.glob("walks/*.txt"))
ECHOED = (
    "01a-order-errors",
    "02-data-classes",
    "04a-per-page-sizes",
    "06-partial-io-limits",
    "walk1",
    "walk2",
    "walk3",
)
"""Transcripts whose script does nothing that matters and is not echoed."""


def lines_of(transcript: Path) -> int:
    return sum(1 for line in transcript.read_text().splitlines() if line)


def named(stem: str) -> Path:
    return next(path for path in TRANSCRIPTS if path.stem == stem)


def test_the_data_pages_are_those_of_the_recording(pages: Path) -> None:
    digest = hashlib.sha256(pages.read_bytes()).hexdigest()
    assert digest == "fc09b16bae077642c9c5145d49236782f751ada02493f8c5fcdf1977320abd16"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(replay: ModuleType, pages: Path, transcript: Path) -> None:
    script = replay.find_script(transcript)
    outcome = replay.replay_script(transcript, script, pages)
    assert [str(difference) for difference in outcome.unexplained] == []
    assert outcome.compared == lines_of(transcript)
    assert len(outcome.explained) <= 10


@pytest.mark.parametrize("stem", ECHOED)
def test_from_the_echoes_alone(replay: ModuleType, pages: Path, stem: str) -> None:
    transcript = named(stem)
    outcome = replay.replay(transcript, pages, echo=True)
    assert [str(difference) for difference in outcome.unexplained] == []
    headings = sum(line.startswith(("# ", "### ")) for line in transcript.read_text().splitlines())
    tables = transcript.read_text().count("# page compr_delta")
    assert outcome.compared == lines_of(transcript) - headings + tables


def test_every_row_of_the_differences_table_is_needed(replay: ModuleType, pages: Path) -> None:
    used = set()
    for stem in ("01a-order-errors", "01b-backing-writeback-values", "03b-backing-full-limit"):
        outcome = replay.replay(named(stem), pages)
        used |= {difference.reason for difference in outcome.explained}
    assert used == {row.reason for row in sys.modules["differences"].ROWS}


# What the replayer does with a transcript that is wrong


def doctored(tmp_path: Path, stem: str, *changes: tuple[str, str]) -> Path:
    """A copy of a transcript, with its script beside it, in which texts are replaced once each."""
    transcript = named(stem)
    text = transcript.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    copy = tmp_path / transcript.name
    copy.write_text(text)
    script = next(path for path in HERE.glob(f"*/{stem}.sh"))
    shutil.copy(script, tmp_path)
    return copy


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "replay.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_as_a_program(pages: Path) -> None:
    done = run("--pages", pages, named("06-partial-io-limits"), named("walk2"))
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "1111 lines compared, 0 differ"
    assert done.returncode == 0


def test_a_wrong_figure_is_found_and_named_with_its_line(tmp_path: Path) -> None:
    transcript = doctored(tmp_path, "06-partial-io-limits", ("3118 28672", "3119 28672"), ("=> OK 8192", "=> OK 8193"))
    done = run(transcript)
    wrong = [
        number for number, line in enumerate(transcript.read_text().splitlines(), 1) if "3119" in line or "8193" in line
    ]
    assert [f"{transcript}:{number}: differs" in done.stdout for number in wrong] == [True, True]
    assert "3119 28672" in done.stdout
    assert "3118 28672" in done.stdout
    assert done.stdout.splitlines()[-1] == "105 lines compared, 2 differ"
    assert done.returncode == 1


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ("  =  135168 45022 ", "  =  135168 45023 ", 1),
        ("  dd: error writing '/dev/zram0': Input/output error\n", "", 1),
        ("$ echo 'all' > idle => OK", "$ echo 'all' > idle => EINVAL (22, Invalid argument)", 1),
        ("1.000000 ...i..] | 16 ...i..", "0.000000 ...i..] | 16 ...i..", 1),
        ("   lines=24", "   lines=25", 1),
    ],
)
def test_one_wrong_line_is_one_difference(
    replay: ModuleType, pages: Path, tmp_path: Path, old: str, new: str, differ: int, echo: bool
) -> None:
    transcript = doctored(tmp_path, "walk1", (old, new))
    assert len(replay.replay(transcript, pages, echo=echo).unexplained) == differ


def test_a_missing_end_is_found(replay: ModuleType, pages: Path, tmp_path: Path) -> None:
    transcript = doctored(tmp_path, "walk1")
    lines = transcript.read_text().splitlines(keepends=True)
    transcript.write_text("".join(lines[:-3]))
    assert len(replay.replay(transcript, pages).unexplained) == 3


def test_a_script_that_is_not_understood_falls_back_to_the_echoes(pages: Path, tmp_path: Path) -> None:
    transcript = doctored(tmp_path, "walk2")
    script = tmp_path / "walk2.sh"
    script.write_text(script.read_text() + "\ncat <<EOF\nEOF\n")
    done = run("--pages", pages, transcript)
    assert "here-documents are not supported: replaying from the echoed operations instead" in done.stderr
    assert done.stdout.splitlines()[-1] == "1005 lines compared, 0 differ"
    assert done.returncode == 0


def test_a_line_that_no_replay_understands_is_a_difference(replay: ModuleType, pages: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "odd.txt"
    transcript.write_text("kernel: 7.3.4\n$ frobnicate /dev/zram0 => OK\nsome output\n  mm_stat:  0 0 0 0 0 0 0 0 0\n")
    outcome = replay.replay(transcript, pages)
    assert [difference.number for difference in outcome.unexplained] == [2, 3]
    assert outcome.compared == 4


def test_the_generator_makes_the_recorded_walks() -> None:
    for number in (1, 2, 3):
        recorded = (HERE / "walks" / f"walk{number}.sh").read_text()
        arguments = [str(number), "200"]
        if "mkloop" in recorded:
            arguments.append(recorded.partition("mkloop /dev/loop0 ")[2].split()[0])
        made = subprocess.run(
            [sys.executable, str(HERE / "gen_walk.py"), *arguments], capture_output=True, text=True, check=True
        )
        assert made.stdout.strip() == recorded.strip()
