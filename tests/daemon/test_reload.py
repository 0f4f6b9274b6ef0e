"""Reload: the difference between a file and what runs, what of it is made, and why the rest is refused."""

from pathlib import Path

import pytest

from zramcore.config import check_file
from zramcore.daemon.reload import apply, plan
from zramcore.errors import DeviceBusy

BASE = """
[device.swap]
disksize = "4M"
comp_algorithm = "lz4"
backing_dev = "file:b.img,size=1M"
mem_limit = "1M"

[[device.swap.policy]]
name = "idle"
age = "3h"
"""


@pytest.fixture
def read(fleet, tmp_path: Path):
    """Reads a text as a checked config file."""

    def read(text):
        file = tmp_path / "zramcore.toml"
        file.write_text(text)
        config, problems = check_file(file, fleet.control.catalogue, fleet.control.attributes)
        assert problems == []
        return config

    return read


@pytest.fixture
def swap(fleet, read):
    """The device of BASE, up."""
    (member,) = fleet.bring_up(read(BASE))
    return member


def told(changes):
    return [(change.device, change.kind, change.key, change.before, change.after) for change in changes]


def test_the_same_file_changes_nothing(fleet, read, swap):
    assert plan(fleet, read(BASE)) == []
    assert apply(fleet, read(BASE.replace('"1M"\n', '"1M"   # the same\n'))) == []


def test_a_plan_touches_nothing(fleet, read, swap):
    wanted = read(BASE.replace('mem_limit = "1M"', 'mem_limit = "2M"') + '[device.more]\ndisksize = "1M"\n')
    assert told(plan(fleet, wanted)) == [
        ("swap", "set", "mem_limit", "1M", "2M"),
        ("more", "add", "", "", "1M"),
    ]
    assert len(list(fleet)) == 1
    assert swap.target.show("mm_stat").split()[3] == str(1 << 20)


def test_what_can_be_live_is_and_then_nothing_is_left(fleet, read, swap):
    text = BASE.replace('mem_limit = "1M"', "writeback_limit = 100\nwriteback_limit_enable = true")
    text = text.replace('"3h"', '"4h"') + '[device.swap.image]\nsave = "s.img"\n'
    changes = apply(fleet, read(text))
    assert [(change.key, change.refused) for change in changes] == [
        ("mem_limit", ""),
        ("writeback_limit", ""),
        ("writeback_limit_enable", ""),
        ("policy", ""),
        ("image", ""),
    ]
    assert swap.target.show("mm_stat").split()[3] == "0"
    assert swap.target.show("writeback_limit") == "100\n"
    assert swap.runner.configs[0].options == {"age": "4h"}
    assert plan(fleet, read(text)) == []
    back = apply(fleet, read(BASE))
    assert [change.refused for change in back] == [""] * 5
    assert swap.target.show("writeback_limit_enable") == "0\n"


@pytest.mark.parametrize(
    ("line", "other", "key"),
    [
        ('disksize = "4M"', 'disksize = "8M"', "disksize"),
        ('comp_algorithm = "lz4"', 'comp_algorithm = "zstd"', "comp_algorithm"),
        ('comp_algorithm = "lz4"', "", "comp_algorithm"),
        ('disksize = "4M"', 'disksize = "4M"\nallocator = "malloc"', "allocator"),
        ('"file:b.img,size=1M"', '"file:c.img,size=1M"', "backing_dev"),
        ('disksize = "4M"', 'disksize = "4M"\ncompressed_writeback = true', "compressed_writeback"),
        ('disksize = "4M"', 'disksize = "4M"\npage_size = 16384', "page_size"),
    ],
)
def test_what_is_fixed_at_the_start_is_refused_and_the_rest_is_made(fleet, read, swap, line, other, key, tmp_path):
    assert line in BASE
    changes = apply(fleet, read(BASE.replace(line, other).replace('mem_limit = "1M"', 'mem_limit = "2M"')))
    by_key = {change.key: change.refused for change in changes}
    assert set(by_key) == {key, "mem_limit"}
    assert by_key["mem_limit"] == ""
    assert "take the device out of the file" in by_key[key]
    assert not (tmp_path / "c.img").exists()
    again = plan(fleet, read(BASE.replace(line, other).replace('mem_limit = "1M"', 'mem_limit = "2M"')))
    assert [change.key for change in again] == [key]  # it is still not what runs


def test_a_device_that_is_not_initialised_can_be_completed(fleet, read):
    fleet.bring_up(read('[device.zram0]\ncomp_algorithm = "lz4"\n'))
    changes = apply(fleet, read('[device.zram0]\ncomp_algorithm = "zstd"\ndisksize = "1M"\n'))
    assert [(change.key, change.refused) for change in changes] == [("comp_algorithm", ""), ("disksize", "")]
    assert fleet.find("zram0").target.show("disksize") == "1048576\n"
    assert "[zstd]" in fleet.find("zram0").target.show("comp_algorithm")


def test_devices_come_and_go(fleet, read, swap):
    changes = apply(fleet, read('[device.other]\ndisksize = "1M"\nbacking_dev = "file:b.img,size=1M"\n'))
    assert told(changes) == [("other", "add", "", "", "1M"), ("swap", "remove", "", "", "")]
    assert [change.refused for change in changes] == ["", ""]  # the file was free: removals come first
    assert [(member.name, member.label) for member in fleet] == [("zram0", "other")]


def test_a_device_that_holds_data_nobody_saves_stays(fleet, read, swap):
    swap.target.device.pwrite(0, b"precious" * 512)
    (gone,) = [change for change in apply(fleet, read('[device.other]\ndisksize = "1M"\n')) if change.kind == "remove"]
    assert "holds 4096 bytes that no image would save; `zramcore remove swap`" in gone.refused
    assert swap.target.device.pread(0, 8) == b"precious"


def test_a_device_with_an_image_is_saved_when_it_goes(fleet, read, tmp_path):
    (member,) = fleet.bring_up(read('[device.a]\ndisksize = "1M"\nimage = {save = "a.img"}\n'))
    member.target.device.pwrite(4096, b"precious" * 512)
    apply(fleet, read('[device.b]\ndisksize = "1M"\n'))
    assert (tmp_path / "a.img").read_bytes()[4096:8192] == b"precious" * 512


def test_an_open_device_stays(fleet, read, swap):
    with swap.target.device.open():
        changes = apply(fleet, read('[device.other]\ndisksize = "1M"\n'))
        assert "it is open 1 times" in changes[-1].refused
        with pytest.raises(DeviceBusy):
            fleet.take_down(swap)
    assert [member.label for member in fleet] == ["swap", "other"]
    assert apply(fleet, read('[device.other]\ndisksize = "1M"\n'))[0].refused == ""


def test_what_fails_is_refused_with_the_error_and_the_rest_is_made(fleet, read, swap, tmp_path):
    wanted = read(
        BASE.replace('mem_limit = "1M"', 'mem_limit = "2M"')
        + '[device.two]\ndisksize = "1M"\nbacking_dev = "file:c.img,size=1M"\n[device.three]\ndisksize = "1M"\n'
    )
    (tmp_path / "c.img").mkdir()
    limit, two, three = apply(fleet, wanted)
    assert (limit.refused, three.refused) == ("", "")
    assert "two/backing_dev" in two.refused
    assert "EISDIR" in two.refused
    assert [member.label for member in fleet] == ["swap", "three"]


def test_devices_of_create_are_not_the_files(fleet, read, swap):
    swap.origin = "create"
    changes = plan(fleet, read(BASE))
    assert [(change.kind, change.refused) for change in changes] == [
        ("add", "zram0 was made by create: it is not the file's to change")
    ]
    assert plan(fleet, read('[device.other]\ndisksize = "1M"\n'))[-1].kind == "add"
