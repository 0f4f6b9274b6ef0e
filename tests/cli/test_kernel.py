"""`zramcore kernel`: what the kernel's zram can do here, on trees of other kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from zramcore.cli.kernel import command
from zramcore.testing.sysfs import make_sysfs


def said(monkeypatch: pytest.MonkeyPatch, sysfs: Path, *arguments: str) -> str:
    monkeypatch.setenv("ZRAMCORE_SYSFS", str(sysfs))
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_a_kernel_that_has_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_sysfs(tmp_path, ["zram0", "zram1"])
    (tree / "block/zram1/disksize").write_text("1073741824\n")
    (tree / "block/zram1/backing_dev").write_text("/dev/sdb1\n")
    lines = said(monkeypatch, tree).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "zram0: not initialised, lzo-rle lzo [lz4] zstd",
        "zram1: 1G, backing /dev/sdb1, lzo-rle lzo [lz4] zstd",
        f'target = "auto" is the kernel\'s zram here, below {tree}',
    ]
    assert "  recompress: yes" in lines


def test_what_is_missing_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_sysfs(tmp_path, missing=["writeback", "backing_dev", "recompress"])
    lines = said(monkeypatch, tree).splitlines()
    assert "  writeback: no, it needs CONFIG_ZRAM_WRITEBACK" in lines
    assert "  recompress: no, it needs CONFIG_ZRAM_MULTI_COMP" in lines
    assert lines[-1] == 'target = "auto" is a zramcore device here: this kernel\'s zram has no writeback'
    found = json.loads(said(monkeypatch, tree, "--json"))
    assert (found["auto"], found["why"]) == ("zramcore", "this kernel's zram has no writeback")
    assert {feature["name"]: feature["present"] for feature in found["devices"][0]["features"]}["idle"] is True
    assert found["devices"][0]["backing_dev"] is None


def test_a_kernel_without_zram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, tmp_path) == 'target = "auto" is a zramcore device here: this kernel has no zram\n'
