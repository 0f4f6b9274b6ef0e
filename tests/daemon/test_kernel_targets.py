"""The kernel's zram in the daemon: beside zramcore devices, with their own names, in the API, metrics and reloads."""

import io
import json
import random
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from zramcore.config import check_file
from zramcore.control import Control
from zramcore.daemon.api import Api
from zramcore.daemon.fleet import LabelTaken
from zramcore.daemon.metrics import prometheus_text
from zramcore.daemon.reload import apply, plan
from zramcore.daemon.service import Options, Service
from zramcore.errors import NoBackingDevice, NotPermitted, ZramError
from zramcore.policy_state import StateFile
from zramcore.testing.sysfs import LivingTree

PAGE = 4096
BOTH = """
[device.disk]
disksize = "4M"
backing_dev = "file:disk.img,size=1M"
policy = [{ name = "huge" }]

[device.swap]
target = "kernel"
disksize = "4M"
backing_dev = "file:swap.img,size=1M"
policy = [{ name = "huge" }]
"""
LENT = '[device.lent]\ntarget = "kernel"\ndevice = "zram0"\npolicy = [{ name = "huge" }]\n'


@pytest.fixture
def tree(tmp_path, built_in):
    tree = LivingTree(tmp_path / "sys", built_in)
    with tree.alive() as kernel:
        tree.kernel = kernel
        yield tree


@pytest.fixture
def service(built_in, tree, tmp_path):
    options = Options(socket=str(tmp_path / "control.sock"), state=tmp_path / "state.json")
    service = Service(Control(built_in), options, tree.kernel)
    yield service
    assert service.fleet.close() == []


@pytest.fixture
def fleet(service):
    return service.fleet


@pytest.fixture
def read(fleet, tmp_path):
    def read(text):
        (tmp_path / "test.toml").write_text(text)
        control = fleet.control
        config, problems = check_file(tmp_path / "test.toml", control.catalogue, control.attributes, fleet.kernel)
        assert problems == []
        return config

    return read


@pytest.fixture
def ask(service):
    """Asks the API, without a socket between: status and body."""
    api = Api(service.fleet, service)

    def ask(method, path, body=b""):
        said = []
        path, _, query = path.partition("?")
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO(body)}
        text = b"".join(api(environ, lambda line, headers: said.append(line)))
        return said[0].split()[0], text.decode()

    return ask


def first_round(fleet, member, policies):
    """Have the policies make their first round, and no more; then their state is kept."""
    fleet.set_policies(member, policies)
    while not all(record.ticks for record in member.runner.records.values()):
        member.runner._scheduler._thread.join(0.01)
    member.runner.stop()
    return member.target.show("bd_stat").split()[2]


def without_policies(config):
    return replace(config, devices=tuple(replace(device, policies=()) for device in config.devices))


def test_both_kinds_run_their_policies_and_have_names_of_their_own(fleet, read, tree):
    config = read(BOTH)
    disk, swap = fleet.bring_up(without_policies(config))
    assert [(member.name, member.label) for member in fleet] == [("zram0", "disk"), ("kernel:zram0", "swap")]
    assert fleet.find("zram0") is disk
    assert fleet.find("kernel:zram0") is fleet.find("swap") is swap
    for number, device in enumerate((disk.device, tree.control.device("zram0"))):
        device.pwrite(0, random.Random(number).randbytes(10 * PAGE))
    for member, wanted in zip((disk, swap), config.devices, strict=True):
        assert first_round(fleet, member, wanted.policies) == "10"
        assert member.runner.records["huge"].written_back == 10 * PAGE
    fleet.take_down(swap)
    assert not tree.control.device("zram0").initialized
    assert [member.label for member in fleet] == ["disk"]


def test_a_label_like_zram0_leaves_that_name_to_the_kernels(fleet, read, tree):
    fleet.bring_up(read(BOTH.replace("device.swap", "device.zram0")))
    assert [(member.name, member.label) for member in fleet] == [("zram1", "disk"), ("kernel:zram0", "zram0")]
    assert fleet.hot_add() == 2
    with pytest.raises(LabelTaken):
        fleet.bring_up(read('[device.zram0]\ndisksize = "1M"\n'))
    fleet.take_down(fleet.find("zram0"))
    assert fleet.hot_add() == 0


def test_the_api_shows_it_like_any_other_and_stores(fleet, read, ask):
    fleet.bring_up(read(BOTH))
    assert ask("GET", "/sys/block/") == ("200", "zram0\nkernel:zram0\n")
    assert "mm_stat\n" in ask("GET", "/sys/block/swap/")[1]
    assert ask("PUT", "/sys/block/kernel:zram0/mem_limit", b"2M") == ("200", "")
    assert ask("GET", "/sys/block/swap/mm_stat")[1].split()[3] == str(2 << 20)
    device = json.loads(ask("GET", "/devices/swap")[1])
    assert (device["target"], device["name"], device["allocator"], device["nbd"]) == (
        "kernel",
        "kernel:zram0",
        "zsmalloc",
        [],
    )
    assert device["node"][0].endswith("/dev/zram0")
    assert device["open"] == 0
    assert "mm_stat" in json.loads(ask("GET", "/devices/swap/attributes")[1])
    status, text = ask("GET", "/devices/swap/map")
    assert (status, json.loads(text)["name"]) == ("422", "EOPNOTSUPP")
    assert ask("DELETE", "/devices/swap") == ("200", '{\n  "saved": null\n}\n')


def test_it_can_be_made_and_removed_through_the_api(fleet, ask, tree, tmp_path):
    device = {"target": "kernel", "disksize": "4M", "mem_limit": "1M"}
    request = json.dumps({"name": "made", "device": device, "directory": str(tmp_path)}).encode()
    assert json.loads(ask("POST", "/devices", request)[1])["name"] == "kernel:zram0"
    assert tree.control.device("zram0").disksize == 4 << 20
    wrong = json.dumps({"name": "wrong", "device": {**device, "image": {"save": "/x"}}}).encode()
    status, text = ask("POST", "/devices", wrong)
    assert (status, json.loads(text)["attribute"]) == ("400", "image")
    assert ask("DELETE", "/devices/made")[0] == "200"
    assert tree.control.device("zram0").disksize == 0


def test_one_of_somebody_else_takes_what_policies_write_and_stays_as_it_is(fleet, read, ask, tree, tmp_path):
    theirs = tree.control.target("zram0")
    theirs.store("backing_dev", f"file:{tmp_path}/theirs,size=1M")
    theirs.store("disksize", "4M")
    theirs.device.pwrite(0, random.Random(3).randbytes(4 * PAGE))
    config = read(LENT)
    (lent,) = fleet.bring_up(without_policies(config))
    assert first_round(fleet, lent, config.devices[0].policies) == "4"
    lent.store("idle", "all")
    for attribute in ("reset", "mem_limit", "disksize", "comp_algorithm", "writeback_batch_size"):
        with pytest.raises(NotPermitted, match="lent was set up by somebody else"):
            lent.store(attribute, "1")
    assert ask("PUT", "/sys/block/lent/reset", b"1")[0] == "403"
    assert ask("DELETE", "/devices/lent")[0] == "200"
    assert theirs.device.disksize == 4 << 20


def test_metrics_have_what_the_kernel_counts(fleet, read, tree, tmp_path, built_in):
    config = read(BOTH)
    fleet.bring_up(without_policies(config))
    first_round(fleet, fleet.find("swap"), config.devices[1].policies)
    samples = {
        (sample.name, sample.labels.get("label"), sample.labels.get("policy")): sample.value
        for family in text_string_to_metric_families(prometheus_text(fleet).decode())
        for sample in family.samples
    }
    assert samples["zramcore_disksize_bytes", "swap", None] == 4 << 20
    assert samples["zramcore_policy_ticks_total", "swap", "huge"] == 1
    assert samples["zramcore_bd_written_bytes_total", "swap", None] == 0
    old = LivingTree(tmp_path / "old", built_in, missing=("bd_stat", "writeback_batch_size", "backing_dev"))
    with old.alive() as kernel:
        fleet.kernel = kernel
        fleet.bring_up(read('[device.old]\ntarget = "kernel"\ndisksize = "1M"\n'))
        found = {
            sample.name
            for family in text_string_to_metric_families(prometheus_text(fleet).decode())
            for sample in family.samples
            if sample.labels["label"] == "old"
        }
        assert "zramcore_mem_used_bytes" in found
        assert not {"zramcore_bd_written_bytes_total", "zramcore_writeback_batch_pages"} & found
        assert fleet.take_down(fleet.find("old")) is None


# Reload ---------------------------------------------------------------------------------------------------------------


def test_a_reload_adds_changes_and_removes_it(fleet, read, tree):
    ours, _ = BOTH.split("[device.swap]")
    fleet.bring_up(read(ours))
    assert [change.refused for change in apply(fleet, read(BOTH))] == [""]
    changed = BOTH.replace('target = "kernel"\n', 'target = "kernel"\nmem_limit = "3M"\nwrites_per_day = "1M"\n')
    assert [(change.key, change.refused) for change in apply(fleet, read(changed))] == [
        ("mem_limit", ""),
        ("writes_per_day", ""),
    ]
    assert fleet.find("swap").target.show("mm_stat").split()[3] == str(3 << 20)
    assert fleet.find("swap").runner.daily.limit == 256
    assert plan(fleet, read(changed)) == []
    (target, *_) = plan(fleet, read(changed.replace('target = "kernel"\n', "")))
    assert (target.kind, target.before, target.after) == ("target", "kernel", "")
    assert "take the device out of the file" in target.refused
    tree.control.device("zram0").pwrite(0, b"precious" * 512)
    (gone,) = apply(fleet, read(ours))
    assert "it holds 4096 bytes that would be lost" in gone.refused
    tree.control.device("zram0").discard(0, PAGE)
    assert [change.refused for change in apply(fleet, read(ours))] == [""]
    assert not tree.control.device("zram0").initialized


def test_a_lent_one_can_go_at_any_time(fleet, read, tree):
    theirs = tree.control.target("zram0")
    theirs.store("disksize", "4M")
    theirs.device.pwrite(0, b"theirs" * 1000)
    fleet.bring_up(read(BOTH.split("[device.swap]")[0] + LENT))
    assert [change.refused for change in apply(fleet, read(BOTH.split("[device.swap]")[0]))] == [""]
    assert theirs.device.pread(0, 6) == b"theirs"


def test_one_that_is_gone_is_an_error_and_no_crash(fleet, read, ask, tree):
    tree.control.target("zram0").store("disksize", "4M")
    (lent,) = fleet.bring_up(read(LENT))
    tree.control.hot_remove(0)
    tree._forget("zram0")
    with pytest.raises(NoBackingDevice):
        lent.target.show("mm_stat")
    assert ask("GET", "/sys/block/lent/mm_stat")[0] == "404"
    device = json.loads(ask("GET", "/devices/lent")[1])
    assert (device["initialized"], device["disksize"], device["mm_stat"]["orig_data_size"]) == (False, 0, 0)
    assert ask("GET", "/metrics")[0] == "200"
    assert ask("DELETE", "/devices/lent")[0] == "200"


# Budgets --------------------------------------------------------------------------------------------------------------


def test_a_budget_of_the_file_is_shared_by_both_kinds_and_goes_on_over_reloads_and_restarts(
    built_in, fleet, read, ask, tree, tmp_path
):
    config = read(f"writes_per_day = {16 * PAGE}\n{BOTH}")
    disk, swap = fleet.bring_up(without_policies(config))
    huge = config.devices[0].policies
    assert disk.runner.daily is swap.runner.daily is fleet.writes_per_day
    for device in (disk.device, tree.control.device("zram0")):
        device.pwrite(0, random.Random(5).randbytes(10 * PAGE))
    assert [first_round(fleet, member, huge) for member in (disk, swap)] == ["10", "6"]
    assert json.loads(ask("GET", "/devices/swap")[1])["writes_left"] == 0
    assert 'zramcore_policy_budget_left_bytes{device="zram0",label="disk"} 0.0' in ask("GET", "/metrics")[1]
    (more,) = apply(fleet, read(f"writes_per_day = {18 * PAGE}\n{BOTH}"))
    assert (more.device, more.key, more.before, more.after) == ("", "writes_per_day", "64 KiB", "72 KiB")
    assert first_round(fleet, swap, huge) == "8"
    kept = StateFile(tmp_path / "state.json").kept("writes_per_day")
    assert kept is not None
    assert sum(amount for _, amount in kept[0]["written"]) == 18
    (none,) = apply(fleet, read(BOTH))
    assert (none.after, swap.runner.daily) == ("", None)


def test_a_reload_does_not_make_a_policy_forget_its_day(fleet, read, tree, tmp_path):
    adaptive = BOTH.replace('name = "huge"', 'name = "adaptive", first = 0, backoff = 0, min_round = 0, modes = "huge"')
    config = read(adaptive)
    disk, _ = fleet.bring_up(without_policies(config))
    disk.device.pwrite(0, random.Random(5).randbytes(10 * PAGE))
    policies = [
        replace(config.devices[0].policies[0], options={**config.devices[0].policies[0].options, "per_day": "24K"})
    ]
    assert first_round(fleet, disk, policies) == "6"
    assert StateFile(tmp_path / "state.json").kept("disk adaptive") is not None
    assert first_round(fleet, disk, policies) == "6"
    assert "the day's 24 KiB are written" in disk.runner.records["adaptive"].last_reason


def test_a_device_that_cannot_be_set_up_leaves_nothing(fleet, read, tree):
    with tree.control.device("zram0").open():
        tree.control.target("zram0").store("disksize", "1M")
        with pytest.raises(ZramError):
            fleet.bring_up(read(BOTH.replace("device.swap", "device.zram0")))
    assert list(fleet) == []
    assert fleet.control.devices == {}
    tree.control.target("zram0").store("reset", "1")
