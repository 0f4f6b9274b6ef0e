"""Bringing deployments up and taking them down: order, images, complete roll-back, errors on the way out."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from zramcore import deployed as deployed_module
from zramcore import deployment as deployment_module
from zramcore import image as image_module
from zramcore.config import check, load_config
from zramcore.control import Control
from zramcore.deployment import Deployment
from zramcore.device import Device
from zramcore.errors import DeviceBusy, InvalidValue, NoSpace, ZramError
from zramcore.hosting import Hosting
from zramcore.image import CHUNK, LoadCancelled, load_image, save_image
from zramcore.interfaces import Catalogue
from zramcore.pluginmanager import load_plugins
from zramcore.policy_state import StateFile
from zramcore.registry import build_catalogue
from zramcore.scheduler import Report, Scheduler
from zramcore.testing.faults import FaultyDriver, Gate
from zramcore.testing.policy import VirtualClock

PAGE = 4096


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue(load_plugins())


@pytest.fixture
def control(catalogue: Catalogue) -> Control:
    return Control(catalogue)


@pytest.fixture
def up(control: Control, tmp_path: Path) -> Callable[[str], Deployment]:
    def bring_up(text: str) -> Deployment:
        file = tmp_path / "test.toml"
        file.write_text(text)
        config = load_config(file)
        assert [str(problem) for problem in check(config, control.catalogue)] == []
        return Deployment.bring_up(config, control)

    return bring_up


def holes_and_data() -> bytes:
    """3 MiB and a bit: data, zero pages, a page zero but for its last byte, a partial page at the end."""
    source = random.Random(7)
    parts = [source.randbytes(3 * PAGE), bytes(PAGE * 300), b"words " * 4000, bytes(CHUNK), bytes(PAGE - 1), b"\1"]
    head = b"".join(parts)
    return head + bytes(-len(head) % PAGE) + source.randbytes(CHUNK) + b"tail"


DEVICE = '[device.zram0]\ndisksize = "8M"\n'


def test_devices_come_up_with_their_attributes(
    up: Callable[[str], Deployment], control: Control, tmp_path: Path
) -> None:
    deployment = up(
        '[device.swap]\nwriteback_limit_enable = true\nwriteback_limit = 77\ndisksize = "8M"\ncomp_algorithm = "zstd"\n'
        'recomp_algorithm = "algo=deflate priority=1"\nalgorithm_params = ["algo=zstd level=5"]\nallocator = "malloc"\n'
        'backing_dev = "file:swap.img,size=1M"\nwriteback_batch_size = 8\nmem_limit = "1M"\n'
        "[device.zram1]\npage_size = 16384\ndisksize = 20000\n"
    )
    swap, second = deployment.devices
    assert [swap.target.name, second.target.name] == ["zram0", "zram1"]
    assert [swap.label, second.label] == ["swap (zram0)", "zram1"]
    show = swap.target.show
    assert show("disksize") == f"{8 << 20}\n"
    assert "[zstd]" in show("comp_algorithm")
    assert "[deflate]" in show("recomp_algorithm")
    assert "[malloc]" in show("allocator")
    assert str(tmp_path / "swap.img") in show("backing_dev")
    assert [show(name) for name in ("writeback_limit", "writeback_limit_enable", "writeback_batch_size")] == [
        "77\n",
        "1\n",
        "8\n",
    ]
    assert show("mm_stat").split()[3] == str(1 << 20)
    assert (second.device.page_size, second.device.disksize) == (16384, 32768)
    deployment.take_down()
    assert control.devices == {}
    assert os.path.getsize(tmp_path / "swap.img") == 1 << 20


# Images -----------------------------------------------------------------------------------------------------------


def test_an_image_goes_in_and_out(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    content = holes_and_data()
    (tmp_path / "in.img").write_bytes(content)
    deployment = up(f"{DEVICE}image = {{load = 'in.img', save = 'out.img'}}\n")
    device = deployment.devices[0].device
    assert device.pread(0, len(content)) == content
    assert device.pread(len(content), PAGE * 2).strip(b"\0") == b""
    device.pwrite(5 << 20, b"written later")
    assert [deployed.label for deployed, _ in deployment.take_down()] == ["zram0"]
    expected = bytearray(content.ljust(8 << 20, b"\0"))
    expected[5 << 20 : (5 << 20) + 13] = b"written later"
    assert (tmp_path / "out.img").read_bytes() == expected
    assert (tmp_path / "in.img").read_bytes() == content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.img", "out.img", "test.toml"]


def test_zero_pages_and_holes_are_not_written(catalogue: Catalogue, tmp_path: Path) -> None:
    device = Device(catalogue)
    device.initialize(1 << 30)
    image = tmp_path / "sparse.img"
    with image.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(700 << 20)
        file.write(b"x" * 100 + bytes(PAGE * 3) + b"y")
    assert load_image(device, image) == 2 * PAGE
    assert device.pread((700 << 20) + 100 + PAGE * 3, 1) == b"y"
    assert device.stats.pages_stored == 2
    assert save_image(device, image) == 2 * PAGE
    assert image.stat().st_blocks * 512 <= 1 << 20
    assert image.stat().st_size == 1 << 30


def test_written_back_pages_are_saved_too(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    content = random.Random(1).randbytes(CHUNK)
    (tmp_path / "in.img").write_bytes(content)
    deployment = up(
        f"{DEVICE}backing_dev = 'file:b.img,size=2M'\nimage = {{load = 'in.img', save = 'in.img'}}\n"
        "policy = [{name = 'huge'}]\n"
    )
    reports: list[Report] = []
    scheduler = Scheduler(clock=VirtualClock(), on_report=reports.append)
    assert deployment.attach(scheduler) == 1
    scheduler.run_due()
    assert [(report.target, report.policy, report.written_back) for report in reports] == [("zram0", "huge", CHUNK)]
    assert reports[0].freed == CHUNK
    deployment.take_down()
    assert (tmp_path / "in.img").read_bytes() == content.ljust(8 << 20, b"\0")


def test_an_image_larger_than_its_memory(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    """Its policies make room while it is loaded, and end with that."""
    content = random.Random(1).randbytes(6 << 20)
    (tmp_path / "in.img").write_bytes(content)
    threads = threading.active_count()
    deployment = up(
        f"{DEVICE}backing_dev = 'file:b.img,size=8M'\nmem_limit = '1M'\nmem_limit_wait = 10000\n"
        "image = {load = 'in.img', save = 'out.img'}\npolicy = [{name = 'watermark'}]\n"
    )
    device = deployment.devices[0].device
    assert threading.active_count() == threads
    assert not device.stop_pass.is_set()
    peak = int(deployment.devices[0].target.show("mm_stat").split()[4])
    assert peak <= (1 << 20) + 8 * PAGE  # an object that does not fit counts, as in the kernel
    assert device.pread(0, len(content)) == content
    deployment.take_down()
    assert (tmp_path / "out.img").read_bytes() == content.ljust(8 << 20, b"\0")


def test_loading_waits_for_room_where_nothing_else_would(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    """What was spilled before it was saved can always be loaded."""
    content = random.Random(1).randbytes(6 << 20)
    (tmp_path / "in.img").write_bytes(content)
    deployment = up(
        f"{DEVICE}backing_dev = 'file:b.img,size=8M'\nmem_limit = '1M'\n"
        "image = {load = 'in.img'}\npolicy = [{name = 'watermark'}]\n"
    )
    device = deployment.devices[0].device
    assert device.pread(0, len(content)) == content
    assert deployment.devices[0].target.show("mem_limit_wait") == "0\n"


def test_policies_make_room_for_what_mounting_writes(
    up: Callable[[str], Deployment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that is played back, where loading has filled the memory."""
    (tmp_path / "in.img").write_bytes(random.Random(1).randbytes(2 << 20))
    journal = random.Random(2).randbytes(2 << 20)

    def mount(control: Control, name: str, *_: object) -> Hosting:
        assert control.device(name).pwrite(4 << 20, journal) == len(journal)
        return Hosting(name, tmp_path)

    monkeypatch.setattr(deployment_module, "host", mount)
    deployment = up(
        f"{DEVICE}backing_dev = 'file:b.img,size=8M'\nmem_limit = '1M'\nserve = 'unix:x.sock'\n"
        "image = {load = 'in.img'}\npolicy = [{name = 'watermark'}]\n"
    )
    assert deployment.devices[0].device.pread(4 << 20, len(journal)) == journal


def test_loading_that_waits_for_room_can_be_given_up(control: Control, tmp_path: Path) -> None:
    (tmp_path / "in.img").write_bytes(random.Random(1).randbytes(2 << 20))
    (tmp_path / "test.toml").write_text(
        f"{DEVICE}mem_limit = '1M'\nmem_limit_wait = 600000\n"
        "image = {load = 'in.img'}\npolicy = [{name = 'none'}]\n"
    )
    looks = itertools.count()
    with pytest.raises(LoadCancelled):
        Deployment.bring_up(load_config(tmp_path / "test.toml"), control, cancelled=lambda: next(looks) > 5)
    assert control.devices == {}


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_written_while_an_image_is_loaded_counts(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Also when it ends with that, and at the next start."""
    (tmp_path / "in.img").write_bytes(random.Random(1).randbytes(3 << 20))
    limit, rest = "writes_per_day = '4M'\n", "backing_dev = 'file:b.img,size=8M'\nmem_limit = '1M'\n"
    rest += "image = {load = 'in.img'}\npolicy = [{name = 'watermark'}]\n"
    (tmp_path / "test.toml").write_text(limit + DEVICE + rest if shared else DEVICE + limit + rest)
    monkeypatch.setattr(deployment_module, "LOAD_WAIT_MS", 2000)
    config = load_config(tmp_path / "test.toml")
    file = StateFile(tmp_path / "state.json")
    deployment = Deployment.bring_up(config, control, state=file)
    deployment.attach(Scheduler(state=file))
    written = int(deployment.devices[0].target.show("bd_stat").split()[2])
    budget = deployment.budgets["zram0"]
    assert budget is not None
    assert budget.left(time.monotonic()) == 1024 - written < written
    deployment.take_down()
    with pytest.raises(ZramError, match="no memory for page"):  # it would have to write as much again
        Deployment.bring_up(config, control, state=StateFile(tmp_path / "state.json"))
    assert control.devices == {}
    kept = StateFile(tmp_path / "state.json").kept("writes_per_day" if shared else "zram0 writes_per_day")
    assert kept is not None
    assert sum(units for _, units in kept[0]["written"]) == 1024


def test_an_image_that_does_not_fit_into_its_memory(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    (tmp_path / "in.img").write_bytes(random.Random(1).randbytes(2 << 20))
    with pytest.raises(ZramError, match="no memory for page") as caught:
        up(f"{DEVICE}mem_limit = '1M'\nimage = {{load = 'in.img', save = 'out.img'}}\n")
    assert "image" in str(caught.value)


def test_an_optional_image_may_be_missing(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    deployment = up(f"{DEVICE}image = {{load = 'disk.img', save = 'disk.img', optional = true}}\n")
    assert deployment.devices[0].loaded == 0
    deployment.devices[0].device.pwrite(0, b"first")
    deployment.take_down()
    again = up(f"{DEVICE}image = {{load = 'disk.img', save = 'disk.img', optional = true}}\n")
    assert again.devices[0].loaded == PAGE
    assert again.devices[0].device.pread(0, 5) == b"first"
    again.take_down()


def test_an_image_keeps_its_permissions_and_its_link(catalogue: Catalogue, tmp_path: Path) -> None:
    device = Device(catalogue)
    device.initialize(PAGE)
    real = tmp_path / "real.img"
    real.write_bytes(b"old")
    real.chmod(0o640)
    (tmp_path / "link.img").symlink_to(real)
    save_image(device, tmp_path / "link.img")
    assert (tmp_path / "link.img").is_symlink()
    assert real.read_bytes() == bytes(PAGE)
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace"])
def test_an_image_is_whole_or_untouched(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    device = Device(catalogue)
    device.initialize(1 << 20)
    device.pwrite(0, b"new")
    image = tmp_path / "disk.img"
    image.write_bytes(b"old")
    monkeypatch.setattr(image_module.os, call, fail)
    with pytest.raises(NoSpace, match=r"cannot save image .*disk\.img: No space left"):
        save_image(device, image)
    assert image.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk.img"]


def test_an_image_that_does_not_fit(catalogue: Catalogue, tmp_path: Path) -> None:
    device = Device(catalogue)
    device.initialize(PAGE)
    (tmp_path / "big.img").write_bytes(b"x" * (PAGE + 1))
    with pytest.raises(InvalidValue, match="has 4097 bytes, zram0 4096"):
        load_image(device, tmp_path / "big.img")
    with pytest.raises(ZramError, match="cannot load image") as raised:
        load_image(device, tmp_path / "absent.img")
    assert raised.value.errno == errno.ENOENT


def test_loading_can_be_given_up(catalogue: Catalogue, tmp_path: Path) -> None:
    device = Device(catalogue)
    device.initialize(4 * CHUNK)
    (tmp_path / "disk.img").write_bytes(b"x" * (3 * CHUNK))
    answers = iter([False, True])
    with pytest.raises(LoadCancelled):
        load_image(device, tmp_path / "disk.img", lambda: next(answers))
    assert device.stats.pages_stored == CHUNK // PAGE


# Roll-back --------------------------------------------------------------------------------------------------------


def test_a_failed_write_takes_everything_back(
    up: Callable[[str], Deployment], control: Control, tmp_path: Path
) -> None:
    (tmp_path / "kept.img").write_bytes(bytes(1 << 20))
    taken = control.hot_add()
    control.target(f"zram{taken}").store("backing_dev", f"file:{tmp_path}/taken.img,size=1M")
    with pytest.raises(DeviceBusy) as raised:
        up(
            f"{DEVICE}backing_dev = 'file:made.img,size=1M'\n"
            "[device.second]\ndisksize = '1M'\nbacking_dev = 'kept.img'\n"
            "[device.third]\ndisksize = '1M'\nbacking_dev = 'file:taken.img'\n"
        )
    assert raised.value.attribute == "third/backing_dev"
    assert str(raised.value).startswith("third/backing_dev: ")
    assert list(control.devices) == [taken]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["kept.img", "taken.img", "test.toml"]
    control.hot_remove(taken)


def test_a_failed_image_takes_everything_back(
    up: Callable[[str], Deployment], control: Control, tmp_path: Path
) -> None:
    (tmp_path / "disk.img").write_bytes(random.Random(3).randbytes(CHUNK))
    with pytest.raises(ZramError, match=r"^zram0/image: ") as raised:
        up(f"{DEVICE}mem_limit = '64K'\nimage = {{load = 'disk.img'}}\nbacking_dev = 'file:made.img,size=1M'\n")
    assert raised.value.errno in (errno.ENOMEM, errno.EIO)
    assert control.devices == {}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["disk.img", "test.toml"]


def test_giving_up_takes_everything_back(control: Control, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * PAGE)
    (tmp_path / "test.toml").write_text(f"{DEVICE}image = {{load = 'disk.img', save = 'disk.img'}}\n")
    with pytest.raises(LoadCancelled):
        Deployment.bring_up(load_config(tmp_path / "test.toml"), control, cancelled=lambda: True)
    assert control.devices == {}
    assert (tmp_path / "disk.img").read_bytes() == b"x" * PAGE


# Taking down ------------------------------------------------------------------------------------------------------


def test_a_device_whose_image_cannot_be_saved_stays_up(
    up: Callable[[str], Deployment], control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = up(
        f"{DEVICE}image = {{save = 'a.img'}}\n[device.zram1]\ndisksize = '1M'\nimage = {{save = 'b.img'}}\n"
    )
    deployment.devices[0].device.pwrite(0, b"precious")

    def full(device: Device, path: Path) -> int:
        if path.name == "a.img":
            raise NoSpace("the disk is full")
        return save_image(device, path)

    monkeypatch.setattr(deployed_module, "save_image", full)
    with pytest.raises(NoSpace, match="zram0: the disk is full"):
        deployment.take_down()
    assert list(control.devices) == [0]
    assert (tmp_path / "b.img").exists()
    assert deployment.devices[0].device.pread(0, 8) == b"precious"
    monkeypatch.undo()
    deployment.take_down()
    assert control.devices == {}
    assert (tmp_path / "a.img").read_bytes().startswith(b"precious")


def test_an_open_device_stays_up_until_it_is_closed(up: Callable[[str], Deployment], control: Control) -> None:
    deployment = up(DEVICE)
    with deployment.devices[0].device.open(), pytest.raises(DeviceBusy):
        deployment.take_down()
    assert list(control.devices) == [0]
    deployment.take_down()
    assert control.devices == {}
    assert deployment.take_down() == []


def test_taking_down_stops_the_policies_first(up: Callable[[str], Deployment]) -> None:
    deployment = up(f"{DEVICE}backing_dev = 'file:b.img,size=1M'\npolicy = [{{name = 'idle', age = '10ms'}}]\n")
    reports: list[Report] = []
    scheduler = Scheduler(on_report=reports.append)
    deployment.attach(scheduler)
    scheduler.start()
    deployment.take_down()
    assert scheduler.stop(timeout=0)
    assert all(report.error == "" for report in reports)


def test_taking_down_does_not_wait_for_a_long_pass(catalogue: Catalogue, tmp_path: Path) -> None:
    """The pass ends after the batch it is at; the image is saved with what was written back and what was not."""
    content = random.Random(2).randbytes(512 * PAGE)
    (tmp_path / "in.img").write_bytes(content)
    (tmp_path / "test.toml").write_text(
        "[device.disk]\ndisksize = '2M'\nwriteback_batch_size = 8\nbacking_dev = 'faulty:disk,blocks=512'\n"
        "image = {load = 'in.img', save = 'out.img'}\npolicy = [{name = 'huge'}]\n"
    )
    control = Control(replace(catalogue, backing_drivers={**catalogue.backing_drivers, "faulty": FaultyDriver}))
    deployment = Deployment.bring_up(load_config(tmp_path / "test.toml"), control)
    device = deployment.devices[0].target.device
    reports: list[Report] = []
    scheduler = Scheduler(on_report=reports.append)
    deployment.attach(scheduler)
    with Gate() as gate:
        FaultyDriver.named(str(tmp_path / "disk")).on_write = gate
        scheduler.start()
        gate.wait()
        down = threading.Thread(target=deployment.take_down)
        down.start()
        while not device.stop_pass.wait(0.001):
            assert down.is_alive()
        gate.open()
        down.join(30)
    FaultyDriver.reset()
    (report,) = reports
    assert 0 < (report.written_back or 0) <= 3 * 8 * PAGE, "what was in flight when it was told"
    assert report.decision().endswith("stopped: told to stop")
    assert control.devices == {}
    assert (tmp_path / "out.img").read_bytes() == content


# Budgets --------------------------------------------------------------------------------------------------------------

SPENDING = """
backing_dev = "file:{name}.img,size=1M"
disksize = "8M"
policy = [{{name = "huge", period = "1h"}}, {{name = "idle", age = "1h", period = "1h"}}]
"""


@pytest.mark.parametrize(
    ("shared", "own", "written"),
    [(None, None, [100, 100]), (40, None, [40, 0]), (None, 30, [30, 100]), (40, 30, [30, 40]), (150, None, [100, 50])],
)
def test_the_policies_of_a_device_or_of_all_share_a_day(
    up: Callable[[str], Deployment], shared: int | None, own: int | None, written: list[int]
) -> None:
    deployment = up(
        ("" if shared is None else f"writes_per_day = {shared * PAGE}\n")
        + f"[device.a]{SPENDING.format(name='a')}"
        + ("" if own is None else f"writes_per_day = {own * PAGE}\n")
        + f"[device.b]{SPENDING.format(name='b')}"
    )
    for number, deployed in enumerate(deployment.devices):
        deployed.target.device.pwrite(0, random.Random(number).randbytes(100 * PAGE))
    scheduler = Scheduler(clock=VirtualClock())
    assert deployment.attach(scheduler) == 4
    scheduler.run(until=3 * 3600.0)
    assert [int(deployed.target.show("bd_stat").split()[2]) for deployed in deployment.devices] == written
    deployment.take_down()


def test_a_day_goes_on_after_a_restart(up: Callable[[str], Deployment], tmp_path: Path) -> None:
    text = f"[device.a]{SPENDING.format(name='a')}writes_per_day = '160K'\n"
    written = []
    for hour in (0, 1, 25):
        deployment = up(text)
        deployment.devices[0].target.device.pwrite(0, random.Random(hour).randbytes(100 * PAGE))
        state = StateFile(tmp_path / "state.json", wall=lambda hour=hour: 1e9 + hour * 3600.0)
        scheduler = Scheduler(clock=VirtualClock(), state=state)
        deployment.attach(scheduler)
        scheduler.run_due()
        written.append(int(deployment.devices[0].target.show("bd_stat").split()[2]))
        deployment.take_down()
    assert written == [40, 0, 40]
