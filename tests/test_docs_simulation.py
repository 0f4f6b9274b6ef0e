"""What docs/policies.md prints of `policy simulate`, `preview` and `record` was printed: each example runs again.

`python tests/test_docs_simulation.py` prints the examples and draws the pictures into docs/images again.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zramcore.testing.daemon import RunningDaemon
from zramcore.testing.samples import WORDS

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "policies.md").read_text()
EXAMPLES = [
    tuple(example)
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for example in re.findall(r"^\$ (zramcore (?:policy|record) .*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
AGES = """
[device.zram0]
disksize = "8M"
comp_algorithm = "lz4"
backing_dev = "file:/var/tmp/zram0.img,size=8M"
""" + "".join(
    f'\n[[device.zram0.policy]]\nname = "idle"\nage = "{age}"\nperiod = "10m"\n' for age in ("20m", "2h", "12h")
)


def prepare(folder: Path) -> None:
    """The files of the examples."""
    choose = next(each for each in re.findall(r"^```toml\n(.*?)^```", TEXT, re.M | re.S) if "coldness" in each)
    (folder / "choose.toml").write_text(choose)
    (folder / "ages.toml").write_text(AGES)
    disk = next(each for each in re.findall(r"^```toml\n(.*?)^```", TEXT, re.M | re.S) if "[device.disk]" in each)
    (folder / "disk.toml").write_text(disk)


def serve(folder: Path) -> RunningDaemon:
    """A daemon with a device called disk, which holds a mebibyte of text."""
    daemon = RunningDaemon(folder, "--nbd", "unix:nbd.sock")
    table = {"disksize": "8M", "comp_algorithm": "lz4", "backing_dev": "file:disk.img,size=8M"}
    source = random.Random(1)
    (folder / "data").write_bytes(b" ".join(source.choice(WORDS) for _ in range(1 << 18))[: 1 << 20])
    with daemon.client() as client:
        client.create("disk", table, [], str(folder))
    uri = f"nbd+unix:///zram0?socket={folder}/nbd.sock"
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", folder / "data", uri], check=True)
    return daemon


def zramcore(command: str, folder: Path) -> str:
    """What a command prints."""
    words = [sys.executable, "-m", *shlex.split(command)]
    environment = {**os.environ, "ZRAMCORE_SOCKET": str(folder / "control.sock")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation")
    prepare(folder)
    return folder


def test_the_page_has_its_examples() -> None:
    assert [command.split()[1:3] for command, _ in EXAMPLES] == [
        ["policy", "example"], ["policy", "simulate"], ["policy", "simulate"], ["policy", "preview"],
        ["record", "disk"],
    ]  # fmt: skip


@pytest.mark.parametrize(("command", "printed"), EXAMPLES[:3])
def test_a_simulation_prints_what_the_page_says(command: str, printed: str, folder: Path) -> None:
    if "--plot" in command:
        pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'zramcore[plot]')")
    if "simulate" in command and not (folder / "example.trace").exists():
        zramcore(EXAMPLES[0][0], folder)
    assert zramcore(command, folder) == printed
    if "--plot" in command:
        picture = command.split()[-1]
        assert f"](images/{picture})" in TEXT
        assert size((DOCS / "images" / picture).read_bytes()) == size((folder / picture).read_bytes())


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Path]:
    with serve(folder) as running:
        yield folder
        assert running.stop() == 0


@pytest.mark.parametrize(("command", "printed"), EXAMPLES[3:])
def test_a_command_on_a_device_prints_what_the_page_says(command: str, printed: str, daemon: Path) -> None:
    shape = re.sub(r"\d+(?:\\\.\d+)?", r"\\d+(?:\\.\\d+)?", re.escape(printed.strip()))
    shape = shape.replace(re.escape("..."), ".*")
    assert re.fullmatch(shape, zramcore(command, daemon).strip(), re.DOTALL)


def test_the_file_is_read_as_the_page_says(daemon: Path) -> None:
    if not (daemon / "disk.trace").exists():
        zramcore(EXAMPLES[4][0], daemon)
    block = next(each for each in re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S) if "memmap" in each)
    done = subprocess.run([sys.executable, "-c", block], cwd=daemon, capture_output=True, text=True, check=True)
    assert done.stdout == "2048\n"


def test_what_the_page_says_of_the_comparison_is_so() -> None:
    """At least three quarters of the oracle's saving for each that writes pages back; and what else is said there."""
    rows = {line.split()[0]: line for line in EXAMPLES[1][1].splitlines()[2:]}
    of_best = {name: int(re.findall(r"(\d+)%", row)[-1]) for name, row in rows.items()}
    rereads = {name: int(row.split()[-3]) for name, row in rows.items()}
    good = ("idle", "adaptive", "coldness", "pressure", "watermark")
    assert all(of_best[name] >= 75 for name in good)
    assert min(good, key=lambda name: rereads[name]) == "adaptive"
    assert rereads["recompress"] == 0
    youngest, middle, oldest = (line for line in EXAMPLES[2][1].splitlines()[3:6])
    assert int(oldest.split()[-3]) < int(middle.split()[-3]) / 3
    assert float(oldest.split()[2].rstrip("M")) / float(middle.split()[2].rstrip("M")) == pytest.approx(1.7, rel=0.05)
    assert youngest.split()[1] == "age=20m"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        prepare(here)
        with serve(here):
            for each, _ in EXAMPLES:
                sys.stdout.write(f"$ {each}\n{zramcore(each, here)}")
        for picture in here.glob("*.png"):
            (DOCS / "images" / picture.name).write_bytes(picture.read_bytes())
