"""`zramcore dict train`."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from zramcore import attributes
from zramcore.cli import BUILTIN, main
from zramcore.cli.dict_ import command
from zramcore.device import Device
from zramcore.interfaces import Catalogue

WORDS = [f"{word}_{number}".encode() for word in ("slot", "zspage", "handle", "block") for number in range(80)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with 479 pages of text in three files, one of them below, and an empty one."""
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    source = random.Random(1)
    for name, pages in (("a", 240), ("b", 160), ("below/c", 80)):
        words = b" ".join(source.choices(WORDS, k=pages * 1024))
        (folder / name).write_bytes(words[: pages * 4096 - 100])
    (folder / "empty").touch()
    return folder


def test_it_trains_writes_and_measures(data: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "the dictionary"
    result = CliRunner().invoke(command, ["train", str(data), "-o", str(file), "--size", "4K"])
    assert result.exit_code == 0, result.output
    first, second, without, with_it, verdict = result.stdout.splitlines()
    assert re.fullmatch(
        rf"{file}: {file.stat().st_size} bytes, trained on \d+ of 479 pages \(0 .*\) from 3 files", first
    )
    assert re.fullmatch(r"\d+ pages that were held out, zstd level 3:", second)
    sizes = [int(re.search(r" (\d+) bytes, ratio (\d\.\d+)$", line)[1]) for line in (without, with_it)]  # type: ignore[index]
    gain = 100 * (1 - sizes[1] / sizes[0])
    assert gain > 3
    assert verdict == f"The dictionary makes them {gain:.1f} % smaller."
    assert file.stat().st_size <= 4096
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", file.name]

    device = Device(catalogue)
    attributes.store(device, "comp_algorithm", "zstd")
    attributes.store(device, "algorithm_params", f'dict="{file}"')
    attributes.store(device, "disksize", "1M")
    page = (data / "a").read_bytes()[:4096]
    device.pwrite(0, page)
    assert device.pread(0, 4096) == page
    device.reset()


def test_page_size_and_level_are_used(data: Path, tmp_path: Path) -> None:
    words = ["train", str(data), "-o", str(tmp_path / "d"), "--size", "1K", "--page-size", "16384", "--level", "19"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert "of 119 pages" in result.stdout
    assert "zstd level 19:" in result.stdout


def test_a_dictionary_that_does_not_help_is_called_that(tmp_path: Path) -> None:
    source = random.Random(2)
    (tmp_path / "noise").write_bytes(b"".join(4 * source.randbytes(1024) for _ in range(200)))
    result = CliRunner().invoke(command, ["train", str(tmp_path / "noise"), "-o", str(tmp_path / "d"), "--size", "2K"])
    assert result.exit_code == 0, result.output
    assert re.search(
        r"The dictionary makes them \d+\.\d % larger: do not use it for data like these\.\n$", result.stdout
    )


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["train", "DATA/below/c", "-o", "OUT"], 1, "zramcore: too little data for a dictionary of 65536 bytes: "),
        (["train", "DATA/none", "-o", "OUT"], 1, "No such file or directory"),
        (["train", "DATA", "-o", "DATA/none/d", "--size", "1K"], 1, "No such file or directory"),
        (["train", "DATA", "-o", "OUT", "--size", "1K", "--level", "99"], 1, "level"),
        (["train", "DATA", "-o", "OUT", "--size", "100"], 2, "'100' is not a size"),
        (["train", "DATA", "-o", "OUT", "--size", "4Kx"], 2, "'4Kx' is not a size"),
        (["train", "DATA"], 2, "--output"),
        (["train", "-o", "OUT"], 2, "DATA"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, complaint: str
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"older")
    given = [word.replace("DATA", str(data)).replace("OUT", str(out)) for word in words]
    assert main(["dict", *given]) == status
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert "Traceback" not in captured.err
    assert out.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_what_cannot_be_read_is_named_and_left_out(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def refuse(name: object, *rest: object, **more: object) -> object:
        if str(name).endswith("/b"):
            raise PermissionError(13, "Permission denied", name)
        return real(name, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("zramcore.cli.corpus.open", refuse, raising=False)
    result = CliRunner().invoke(command, ["train", str(data), "-o", str(tmp_path / "d"), "--size", "1K"])
    assert result.exit_code == 0, result.output
    assert f"left out {data}/b: Permission denied" in result.stderr
    assert "from 2 files" in result.stdout


def test_it_is_a_command() -> None:
    assert BUILTIN["dict"] is command
