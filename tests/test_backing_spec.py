"""What backing_dev accepts, and which driver it gets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zramcore.backing_spec import parse_backing_spec, system_error
from zramcore.errors import DeviceBusy, InvalidValue, NoSpace, NotPermitted, UnknownName, ZramError
from zramcore.interfaces import BackingDriver, BackingSpec
from zramcore.testing.faults import FaultyDriver


class File(FaultyDriver):
    name = "file"


class Direct(FaultyDriver):
    name = "direct"


DRIVERS: dict[str, type[BackingDriver]] = {"file": File, "direct": Direct}


def parse(text: str) -> tuple[type[BackingDriver], BackingSpec]:
    return parse_backing_spec(text, DRIVERS, 16384)


def error_of(text: str) -> ZramError:
    with pytest.raises(ZramError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize("ending", ["", "\n", "\0", "\n\0junk"])
def test_existing_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "disk"
    path.touch()
    assert parse(str(path) + ending) == (File, BackingSpec(str(path), {}, 16384, str(path)))


def test_only_one_newline_is_stripped(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    assert error_of(f"{tmp_path}/disk\n\n").errno == errno.ENOENT
    (tmp_path / "odd\n").touch()
    assert parse(f"{tmp_path}/odd\n\n")[1].path == f"{tmp_path}/odd\n"


def test_links_are_resolved_in_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").touch()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.chdir(tmp_path)
    spec = parse("link")[1]
    assert (spec.path, spec.text) == ("link", os.path.realpath(tmp_path / "disk"))


def test_block_device_goes_to_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def fake(path: str) -> os.stat_result:
        return os.stat_result((0o060660, *real(path)[1:]))

    path = tmp_path / "sda"
    path.touch()
    monkeypatch.setattr(os, "stat", fake)
    assert parse(str(path))[0] is Direct


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", errno.EISDIR),
        ("\n", errno.EISDIR),
        ("/tmp", errno.EISDIR),
        ("/dev/nope", errno.ENOENT),
        ("none", errno.ENOENT),
        ("/dev/null", errno.ENOTBLK),
        ("/dev/null/x", errno.ENOTDIR),
        ("/" + "x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_kernels_errors(text: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(text).errno == number
    assert os.listdir(tmp_path) == []


def test_missing_path_hints_at_how_to_create_it() -> None:
    assert "file:" in error_of("/dev/nope").hint


@pytest.mark.parametrize(
    ("text", "driver", "path", "options"),
    [
        ("file:/a/b", File, "/a/b", {}),
        ("file:/a/b\n", File, "/a/b", {}),
        ("direct:/dev/sda,size=1G", Direct, "/dev/sda", {"size": "1G"}),
        ("file:/a:b,size=64M,sparse=0,x=a=b", File, "/a:b", {"size": "64M", "sparse": "0", "x": "a=b"}),
        ("file:disk,size=", File, "disk", {"size": ""}),
    ],
)
def test_driver_form(text: str, driver: type[BackingDriver], path: str, options: dict[str, str]) -> None:
    assert parse(text) == (driver, BackingSpec(path, options, 16384, text.removesuffix("\n")))


@pytest.mark.parametrize(
    "text", ["file:", "file:,size=1M", "file:/a,size", "file:/a,=1", "file:/a,,b=1", "file:/a,b=1,b=2"]
)
def test_malformed_driver_form(text: str) -> None:
    assert isinstance(error_of(text), InvalidValue)


@pytest.mark.parametrize("name", ["a:b", "a,b=c", "files:x", "FILE:x", ":x", "mmap:x,size=1M"])
def test_a_path_with_such_characters_stays_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(name).errno == errno.ENOENT
    (tmp_path / name).touch()
    assert parse(name) == (File, BackingSpec(name, {}, 16384, os.path.realpath(name)))


def test_driver_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    with pytest.raises(UnknownName, match="'file'") as caught:
        parse_backing_spec(str(tmp_path / "disk"), {"direct": Direct}, 4096)
    assert "known: direct" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EBUSY, DeviceBusy),
        (errno.EACCES, NotPermitted),
        (errno.ENOSPC, NoSpace),
        (errno.EINVAL, InvalidValue),
        (errno.EROFS, ZramError),
    ],
)
def test_system_error(number: int, kind: type[ZramError]) -> None:
    error = system_error(OSError(number, "?"), "cannot open x", "try y")
    assert type(error) is kind
    assert (error.errno, error.reason, error.hint) == (number, "cannot open x", "try y")


def test_system_error_without_errno() -> None:
    assert system_error(OSError("odd"), "cannot open x").errno == errno.EIO
