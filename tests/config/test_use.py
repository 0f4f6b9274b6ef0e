"""The keys serve, attach, mkfs, mount and swap, and sizes over ram, in a deployment file."""

from __future__ import annotations

from pathlib import Path

import pytest

from zramcore.attach import Mount, Swap, Use
from zramcore.config import UseConfig, check_file, load_config, plan
from zramcore.config.expressions import total_ram
from zramcore.errors import ConfigError


@pytest.fixture
def problems(tmp_path: Path, catalogue):
    def find(text: str) -> list[ConfigError]:
        (tmp_path / "test.toml").write_text(text)
        return check_file(tmp_path / "test.toml", catalogue)[1]

    return find


def use_of(folder: Path, lines: str) -> UseConfig:
    (folder / "test.toml").write_text(f"[device.zram0]\ndisksize = '64M'\n{lines}\n")
    return load_config(folder / "test.toml").devices[0].use


def test_what_the_keys_come_to(tmp_path):
    bare = use_of(tmp_path, "")
    assert (bare.serve, bare.attached, bare.use, bare.text()) == ((), False, Use(), "")
    served = use_of(tmp_path, "serve = 'unix:a.sock'")
    assert (served.serve, served.attached) == ((f"unix:{tmp_path}/a.sock",), False)
    assert use_of(tmp_path, "serve = ['unix:/a', 'tcp:127.0.0.1:1']").serve == ("unix:/a", "tcp:127.0.0.1:1")
    assert use_of(tmp_path, "attach = true").attached
    linked = use_of(tmp_path, "attach = '/dev/x'")
    assert (linked.attached, linked.use) == (True, Use(path="/dev/x"))
    mounted = use_of(tmp_path, "mkfs = 'xfs'\nmount = 'mnt'")
    assert (mounted.attached, mounted.use) == (True, Use(mkfs="xfs", mount=Mount(f"{tmp_path}/mnt", "discard")))
    assert mounted.text() == f"attach, mkfs xfs, mount {tmp_path}/mnt (discard)"
    table = use_of(tmp_path, "mkfs = 'ext4'\nmount = {directory = '/mnt', options = ''}")
    assert table.use.mount == Mount("/mnt", "")
    assert use_of(tmp_path, "swap = true").use.swap == Swap()
    assert use_of(tmp_path, "swap = {priority = 7, discard = false}").use.swap == Swap(7, discard=False)
    assert not use_of(tmp_path, "swap = false").attached
    assert use_of(tmp_path, "image = {load = 'i', optional = true}\nmount = '/mnt'").use.mount == Mount("/mnt")


@pytest.mark.parametrize(
    ("lines", "key", "reason", "hint"),
    [
        ("serve = 3", "serve", "is not where a server can listen", "unix:PATH"),
        ("serve = ['/run/x']", "serve", "is not where a server can listen", ""),
        ("attach = 3", "attach", "is neither true nor a path", ""),
        ("attach = ''", "attach", "is neither true nor a path", ""),
        ("attach = false\nswap = true", "attach", "is false, and swap needs a node", "leave attach out"),
        ("mkfs = 'ext5'", "mkfs", "there is no file system 'ext5'", "did you mean 'ext4'?"),
        ("mkfs = true", "mkfs", "there is no file system", ""),
        ("mount = true", "mount", "is not a directory", ""),
        (
            "mkfs = 'xfs'\nmount = {direktory = '/mnt'}",
            "mount.direktory",
            "is not a key of mount",
            "did you mean 'directory'?",
        ),
        ("mkfs = 'xfs'\nmount = {options = 'ro'}", "mount.directory", "is not a directory", ""),
        ("mkfs = 'xfs'\nmount = {directory = '/m', options = 3}", "mount.options", "is not text", ""),
        ("mount = '/mnt'", "mount", "finds no file system on an empty device", 'mkfs = "ext4"'),
        ("swap = 3", "swap", "is not true or false", ""),
        ("swap = {prio = 3}", "swap.prio", "is not a key of swap", "did you mean 'priority'?"),
        ("swap = {priority = 32768}", "swap.priority", "is not between -1 and 32767", ""),
        ("swap = {priority = true}", "swap.priority", "is not between", ""),
        ("swap = {discard = 'once'}", "swap.discard", "is not true or false", ""),
        ("swap = true\nmkfs = 'ext4'", "mkfs", "excludes swap", "two devices"),
        ("mkfss = 'ext4'", "mkfss", "is not a key of a device", "did you mean 'mkfs'?"),
        ("mem_limit = 'ram / 0'", "mem_limit", "column 5: divides by 0", ""),
        ("mem_limit = 'rma / 2'", "mem_limit", "there is no 'rma'", "did you mean 'ram'?"),
    ],
)
def test_mistakes(problems, tmp_path, lines, key, reason, hint):
    found = problems(f"[device.zram0]\ndisksize = '64M'\n{lines}\n")
    (problem,) = [each for each in found if each.key == f"device.zram0.{key}"]
    assert problem.file == str(tmp_path / "test.toml")
    assert reason in problem.reason
    assert hint in problem.hint


@pytest.mark.parametrize("line", ["serve = 'unix:/x'", "attach = true", "swap = true", "mkfs = 'xfs'"])
def test_they_need_a_disksize(problems, line):
    (problem,) = problems(f"[device.zram0]\n{line}\n")
    assert problem.key == f"device.zram0.{line.partition(' ')[0]}"
    assert "comes after disksize" in problem.reason


def test_a_problem_names_the_drop_in(problems, tmp_path):
    (tmp_path / "test.toml.d").mkdir()
    (tmp_path / "test.toml.d" / "a.toml").write_text("[device.zram0]\nswap = true\n")
    (problem,) = problems("[device.zram0]\ncomp_algorithm = 'lz4'\n")
    assert (problem.file, problem.key) == (str(tmp_path / "test.toml.d" / "a.toml"), "device.zram0.swap")


def test_devices_share_nothing(problems):
    lines = "disksize = '64M'\nserve = 'unix:/x'\nattach = '/dev/x'\nmkfs = 'xfs'\nmount = '/m'\n"
    found = problems(f"[device.a]\n{lines}[device.b]\n{lines}")
    assert sorted(problem.key for problem in found) == ["device.b.attach", "device.b.mount", "device.b.serve"]


def test_sizes_over_ram_are_planned_in_bytes(problems, tmp_path):
    assert problems("[device.zram0]\ndisksize = 'min(ram / 2, 64M)'\nmem_limit = 'ram / 100'\n") == []
    writes = {write.attribute: write.value for write in plan(load_config(tmp_path / "test.toml"))}
    assert writes == {"disksize": str(64 << 20), "mem_limit": str(total_ram() // 100)}
    (problem,) = problems("[device.zram0]\ndisksize = 'ram - ram'\n")
    assert problem.reason == "must be more than 0"
