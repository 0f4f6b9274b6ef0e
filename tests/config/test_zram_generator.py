"""Conversion of zram-generator.conf: what it comes to, and what becomes a comment."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from zramcore.cli.config import command
from zramcore.config import check_file
from zramcore.config.expressions import evaluate
from zramcore.config.zram_generator import Converted, convert, from_mebibytes
from zramcore.errors import ConfigError, InvalidValue
from zramcore.testing.sysfs import make_sysfs

COMPRESSORS = ("zstd", "lz4", "deflate")


@pytest.fixture
def converted(tmp_path: Path):
    def make(text: str) -> tuple[dict, Converted]:
        file = tmp_path / "zram-generator.conf"
        file.write_text(text)
        result = convert(file, COMPRESSORS)
        assert all(f"# {comment.partition(': ')[2]}" in result.text or comment in result.text
                   for comment in result.comments)  # fmt: skip
        return tomllib.loads(result.text)["device"], result

    return make


def test_the_defaults(converted):
    devices, result = converted("[zram0]\n")
    assert devices == {
        "zram0": {"disksize": "min(ram / 2, 4096M)", "swap": {"priority": 100, "discard": True}},
    }
    assert result.comments == []


def test_swap_with_everything(converted, catalogue, tmp_path):
    devices, result = converted(
        "# a comment\n; another\n[zram0]\nzram-size = min(ram / 10, 2048)\nzram-resident-limit=ram/20\n"
        "compression-algorithm = zstd(level=3) lz4 deflate(level=9,deflate.winbits=-12)\n"
        "swap-priority = 5\noptions =\nhost-memory-limit = none\n"
    )
    assert devices["zram0"] == {
        "comp_algorithm": "zstd",
        "recomp_algorithm": ["algo=lz4 priority=1", "algo=deflate priority=2"],
        "algorithm_params": ["priority=0 level=3", "priority=2 level=9 deflate.winbits=-12"],
        "disksize": "min(ram / 10, 2048M)",
        "mem_limit": "ram / 20",
        "swap": {"priority": 5, "discard": False},
    }
    assert result.comments == []
    (tmp_path / "out.toml").write_text(result.text)
    assert check_file(tmp_path / "out.toml", catalogue)[1] == []


def test_a_mounted_device(converted):
    devices, _ = converted("[zram0]\nmount-point = /var/cache\noptions = rw,nosuid\n[zram1]\nfs-type = ext4\n")
    assert devices["zram0"]["mkfs"] == "ext2"
    assert devices["zram0"]["mount"] == {"directory": "/var/cache", "options": "rw,nosuid"}
    assert devices["zram1"]["mkfs"] == "ext4"
    assert "swap" not in devices["zram0"] | devices["zram1"]
    assert "mount" not in devices["zram1"]


def test_a_backing_device_stays_and_the_obsolete_size_options_too(converted):
    devices, _ = converted("[zram0]\nwriteback-device = /dev/vdb\nzram-fraction = 0.25\nmax-zram-size = 2048\n")
    assert devices["zram0"]["backing_dev"] == "/dev/vdb"
    assert devices["zram0"]["disksize"] == "min(ram * 0.25, 2048M)"
    devices, _ = converted("[zram0]\nmax-zram-size = none\nzram-size = 3\n")
    assert devices["zram0"]["disksize"] == "ram * 0.5"


def test_ids_follow_each_other(converted):
    devices, _ = converted("[zram2]\n[zram0]\n[zram1]\n")
    assert list(devices) == ["zram0", "zram1", "zram2"]
    devices, _ = converted("[zram3]\n[zram10]\n")
    assert list(devices) == ["from-zram3", "from-zram10"]


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ("host-memory-limit = 9048", "left out on machines with more than 9048 MiB"),
        ("memory-limit = 1024", "more than 1024 MiB"),
        ("compression-algorithm = lzo-rle", "lzo-rle: is not here"),
        (
            "compression-algorithm = zstd lz4(type=idle,threshold=3)",
            "lz4(type=idle,threshold=3): when to recompress is for a policy",
        ),
        ("compression-algorithm = zstd (type=huge)", "(type=huge): when to recompress is for a policy"),
        ("compression-algorithm = zstd lz4 lz4 lz4 lz4", "three secondary algorithms at most"),
        ("compression-algorithm = zstd)", "is neither NAME nor NAME(PARAMETERS)"),
        ("zram-size = ram ^ 2", "'^' means nothing here"),
        ("zram-size = ram * maxhotplug", "there is no 'maxhotplug'"),
        ("zram-size = 4KB + ram", "'4KB' is not a number that zram-generator knows"),
        ("zram-resident-limit = sqrt(ram)", "there is no 'sqrt'"),
        ("mount-point = /m\nswap-priority = 3", "this device is not swap"),
        ("fs-type = f2fs", "zramcore makes ext4, xfs, btrfs, ext2"),
        ("fs-type = f2fs\nmount-point = /m", "mount-point = /m: needs a file system"),
        ("swap-priority = high", "is no number"),
        ("options = nofail", "not an option of swap"),
        ("colour = red\n  and green", "colour = red and green: not an option that zramcore knows"),
    ],
)
def test_what_has_no_counterpart_is_a_comment(converted, line, comment):
    devices, result = converted(f"[zram0]\n{line}\n")
    assert any(comment in text for text in result.comments), result.comments
    assert set(devices) == {"zram0"}


def test_lines_that_are_about_no_device(converted):
    _, result = converted("set!big = echo 3\n[other]\nkey = value\n[zram0]\n")
    assert result.comments == [
        "set!big = echo 3: outside a section, which is about no device",
        "key = value: of section [other], which is about no device",
    ]


def test_files_that_are_none(tmp_path):
    file = tmp_path / "x.conf"
    for text, reason in (("", "has no section like"), ("[zram0]\nno equals\n", "is no ini file"), (None, "cannot be")):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            convert(file, COMPRESSORS)
    file.write_bytes(b"[zram0]\nx = \xff\n")
    with pytest.raises(ConfigError, match="is no ini file"):
        convert(file, COMPRESSORS)


MEBIBYTES = [
    "ram / 2",
    "min(ram / 2, 4096)",
    "min(min(ram, 4096) + max(ram - 4096, 0) / 2, 32 * 1024)",
    "ram * 0.75",
    "0.25 * ram + 512",
    "(ram + 512) / 3",
    "ram - (1024 - 512)",
    "1024 * 4 / 2",
    "512",
    "2k + ram / 4",
    "3 * (ram - 100) / (2 + 2)",
    "ram * ram / 32768",
    "ram / (ram / 4096)",
    "1048576 * 1024 / ram",
    "max(ram - 2048, 256) / 2 - 1",
]


@pytest.mark.parametrize("text", MEBIBYTES)
@pytest.mark.parametrize("mebibytes", [512, 4096, 16384])
def test_sizes_mean_the_same_in_bytes(text, mebibytes):
    plain = text.replace("2k", "2000")
    wanted = eval(plain, {"ram": Fraction(mebibytes), "min": min, "max": max})
    assert evaluate(from_mebibytes(text), mebibytes << 20) == int(Fraction(wanted) * (1 << 20))


def test_a_size_that_cannot_be_said():
    with pytest.raises(InvalidValue):
        from_mebibytes("0x10 * ram")


def test_the_command(tmp_path):
    source, target = tmp_path / "z.conf", tmp_path / "out.toml"
    source.write_text("[zram0]\nzram-size = ram / 4\nhost-memory-limit = 9048\n")
    shown = CliRunner().invoke(command, ["import", str(source)])
    assert shown.exit_code == 0
    assert 'disksize = "ram / 4"' in shown.stdout
    assert shown.stderr.startswith(f"{source}: zram0: host-memory-limit = 9048: ")
    written = CliRunner().invoke(command, ["import", str(source), "-o", str(target)])
    assert (written.exit_code, written.stdout) == (0, "")
    assert target.read_text() == shown.stdout
    again = CliRunner().invoke(command, ["import", str(source), "-o", str(target)])
    assert isinstance(again.exception, FileExistsError)
    assert (
        CliRunner().invoke(command, ["show", str(target)]).stdout.splitlines()[-1]
        == "# zram0: attach, swap priority 100"
    )


# For the kernel's zram ------------------------------------------------------------------------------------------------


def test_a_section_is_that_very_device_of_the_kernels(tmp_path):
    file = tmp_path / "zram-generator.conf"
    file.write_text("[zram3]\nzram-size = 64\ncompression-algorithm = 842\n[zram1]\nzram-size = 64\n")
    devices = tomllib.loads(convert(file, ("842",), "kernel").text)["device"]
    assert list(devices) == ["zram1", "zram3"]
    assert devices["zram3"] == {
        "target": "kernel",
        "comp_algorithm": "842",
        "disksize": "64M",
        "swap": {"priority": 100, "discard": True},
    }


def test_the_command_asks_the_kernel_for_its_algorithms(tmp_path, monkeypatch):
    file = tmp_path / "zram-generator.conf"
    file.write_text("[zram0]\ncompression-algorithm = lzo-rle zstd deflate\n")
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(make_sysfs(tmp_path / "sys")))
    result = CliRunner().invoke(command, ["import", "--target", "kernel", str(file)])
    assert 'comp_algorithm = "lzo-rle"\n' in result.stdout
    assert "compression-algorithm deflate: is not here (`zramcore kernel` lists what is)" in result.stderr
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(tmp_path))  # nobody to ask: any that a kernel may have
    result = CliRunner().invoke(command, ["import", "--target", "kernel", str(file)])
    assert result.stderr == ""
    result = CliRunner().invoke(command, ["import", "--target", "auto", str(file)])
    assert 'target = "auto"' in result.stdout
