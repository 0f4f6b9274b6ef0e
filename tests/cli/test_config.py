"""`zramcore config check` and `zramcore config show`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from zramcore.cli.config import command

GOOD = """[device.zram0]
disksize = "1M"
comp_algorithm = "zstd"
backing_dev = "file:b.img,size=1M"
image = {load = "disk.img", save = "disk.img", optional = true}
policy = [{name = "idle", age = "3h"}]
"""


def test_check_says_ok(tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    result = CliRunner().invoke(command, ["check", str(file)])
    assert (result.exit_code, result.output) == (0, f"{file}: ok\n")


def test_check_prints_every_problem_on_a_line_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[device.zram0]\ndisksize = "1M"\ncomp_algorithm = "zsdt"\nidle = "all"\nfoo = 1\n')
    result = CliRunner().invoke(command, ["check", str(file)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "device.zram0.idle",
        "device.zram0.foo",
        "device.zram0.comp_algorithm",
    ]
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert "did you mean 'zstd'?" in lines[2]


def test_check_of_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["check", str(tmp_path / "absent.toml")])
    assert result.exit_code == 1
    assert result.output == f"{tmp_path}/absent.toml: cannot be read: No such file or directory\n"


def test_show_prints_the_writes_in_order(tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    result = CliRunner().invoke(command, ["show", str(file)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "zram0/comp_algorithm = zstd",
        f"zram0/backing_dev = file:{tmp_path}/b.img,size=1M",
        "zram0/disksize = 1M",
        f"# zram0: load {tmp_path}/disk.img if it exists",
        "# zram0: policy idle age=3h",
        f"# zram0: save {tmp_path}/disk.img at the end",
    ]


def test_show_of_a_wrong_file_shows_nothing_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[device.zram0]\ndisksize = 0\n")
    result = CliRunner().invoke(command, ["show", str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f'{file}: device.zram0.disksize: must be more than 0; a number of bytes, or text such as "2G"',
    ]
