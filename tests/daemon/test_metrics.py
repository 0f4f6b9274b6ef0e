"""The metrics parse, have every stat and policy, and say the numbers of the attributes."""

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from zramcore.config import PolicyConfig, Where, check, read_device
from zramcore.daemon.metrics import prometheus_text
from zramcore.daemon.status import STAT_COLUMNS


def samples(fleet):
    """Value by metric name and its labels in order."""
    found = {}
    for family in text_string_to_metric_families(prometheus_text(fleet).decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def up(fleet, tmp_path, name="swap"):
    table = {"disksize": "4M", "backing_dev": "file:b.img,size=4M", "mem_limit": "3M"}
    config, problems = read_device(name, table, tmp_path)
    assert problems + check(config, fleet.control.catalogue) == []
    (member,) = fleet.bring_up(config, "create")
    return member


def test_an_empty_fleet_has_metrics_that_parse(fleet):
    assert samples(fleet) == {}


def test_every_stat_is_there_with_the_attributes_numbers(fleet, tmp_path):
    member = up(fleet, tmp_path)
    fleet.hot_add()
    device = member.target.device
    device.pwrite(0, os.urandom(3 * 4096) + bytes(4096) + b"text" * 1024)
    device.pread(0, 8192)
    member.target.store("writeback", "huge")
    device.pread(0, 4096)
    found = samples(fleet)
    memory = [int(text) for text in member.target.show("mm_stat").split()]
    names = ["orig_data_bytes", "compr_data_bytes", "mem_used_bytes", "mem_limit_bytes", "mem_used_max_bytes"]
    names += ["same_pages", "pages_compacted_total", "huge_pages", "huge_pages_since_total"]
    assert [found[f"zramcore_{name}", "zram0", "swap"] for name in names] == memory
    assert memory[0] == 5 * 4096
    backing = [int(text) * 4096 for text in member.target.show("bd_stat").split()]
    names = ["bd_count_bytes", "bd_read_bytes_total", "bd_written_bytes_total"]
    assert [found[f"zramcore_{name}", "zram0", "swap"] for name in names] == backing
    assert backing == [3 * 4096, 4096, 3 * 4096]
    assert found["zramcore_written_bytes_total", "zram0", "swap"] == 5 * 4096
    assert found["zramcore_disksize_bytes", "zram1", "zram1"] == 0
    stats = sum(bool(name) for columns in STAT_COLUMNS.values() for name in columns)
    assert len({key[0] for key in found if key[1] == "zram0"}) == stats + 5  # open, and four settings


def test_policies_have_their_own_and_labels_are_escaped(fleet, tmp_path):
    member = up(fleet, tmp_path)
    fleet.set_policies(member, [PolicyConfig("none", {}, Where("x", "y")), PolicyConfig("huge", {}, Where("x", "y"))])
    member.runner.stop()
    found = samples(fleet)
    assert {key[3] for key in found if key[0] == "zramcore_policy_ticks_total"} == {"none", "huge"}
    assert found["zramcore_policy_failures_total", "zram0", "swap", "huge"] == 0


@pytest.mark.parametrize("directory", ['a"quote', "back\\slash"])
def test_a_backing_path_is_escaped(fleet, tmp_path, directory):
    place = tmp_path / directory
    place.mkdir()
    member = up(fleet, place)
    (info,) = [key for key in samples(fleet) if key[0] == "zramcore_device_info"]
    assert member.target.show("backing_dev").strip() in info
