"""The set of devices: ids, hot_add and hot_remove, and targets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from zramcore.attributes import Attribute
from zramcore.control import Control, Target
from zramcore.errors import DeviceBusy, InvalidValue, NoBackingDevice, NoSuchAttribute, NotPermitted, ZramError
from zramcore.interfaces import Catalogue
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock


@pytest.fixture
def events() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def control(catalogue: Catalogue, clock: Clock, events: list[tuple[str, str]]) -> Iterator[Control]:
    extra = Attribute("colour", lambda device: f"{device.name} is red\n", None, "-", "What colour it is.")
    made = Control(
        catalogue,
        clock=clock,
        notify=lambda event, **fields: events.append((event, fields["device"])),
        extra_attributes=[extra],
    )
    yield made
    for number in list(made.devices):
        made.hot_remove(number)
    FaultyDriver.reset()


def test_ids_are_dense_from_0_and_reused(control: Control) -> None:
    assert [control.show("hot_add") for _ in range(3)] == ["0\n", "1\n", "2\n"]
    control.store("hot_remove", "1\n")
    assert sorted(control.devices) == [0, 2]
    assert control.hot_add() == 1
    assert control.hot_add() == 3
    assert [device.name for _, device in sorted(control.devices.items())] == ["zram0", "zram1", "zram2", "zram3"]


def test_a_removed_device_is_reset(control: Control, events: list[tuple[str, str]]) -> None:
    control.hot_add()
    target = control.target("zram0")
    target.store("backing_dev", "faulty:gone,blocks=4")
    target.store("disksize", "1M")
    control.hot_remove(0)
    assert FaultyDriver.named("gone").closed
    assert not target.device.initialized
    assert [event for event, _ in events] == ["device_added", "device_initialized", "device_reset", "device_removed"]
    assert {name for _, name in events} == {"zram0"}


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("-1", InvalidValue, errno.EINVAL),
        ("7", NoBackingDevice, errno.ENODEV),
        ("", InvalidValue, errno.EINVAL),
        ("zram0", InvalidValue, errno.EINVAL),
        ("99999999999", ZramError, errno.ERANGE),
    ],
)
def test_hot_remove_refuses(control: Control, text: str, kind: type[ZramError], number: int) -> None:
    control.hot_add()
    with pytest.raises(kind) as caught:
        control.store("hot_remove", text + "\n")
    assert caught.value.errno == number
    assert caught.value.attribute == "hot_remove"
    assert str(caught.value.value) == text
    assert sorted(control.devices) == [0]


def test_an_open_device_cannot_be_removed(control: Control) -> None:
    control.hot_add()
    with control.device("zram0").open(), pytest.raises(DeviceBusy) as caught:
        control.store("hot_remove", "0")
    assert (caught.value.errno, caught.value.attribute) == (errno.EBUSY, "hot_remove")
    control.store("hot_remove", "0")
    assert not control.devices


def test_class_attributes_have_one_direction_each(control: Control) -> None:
    with pytest.raises(NotPermitted):
        control.store("hot_add", "1")
    with pytest.raises(NotPermitted):
        control.show("hot_remove")
    for call in (lambda: control.show("hot_ad"), lambda: control.store("hot_ad", "1")):
        with pytest.raises(NoSuchAttribute) as caught:
            call()
        assert "hot_add" in caught.value.hint
    assert not control.devices


def test_devices_by_name(control: Control) -> None:
    control.hot_add()
    assert control.device("zram0") is control.devices[0]
    with pytest.raises(NoBackingDevice) as caught:
        control.device("zram1")
    assert caught.value.errno == errno.ENODEV
    assert "zram0" in caught.value.hint


def test_a_target_is_a_device_as_its_attributes(control: Control) -> None:
    control.hot_add()
    target = control.target("zram0")
    assert isinstance(target, Target)
    assert target.name == "zram0"
    target.store("disksize", "1M")
    assert target.show("disksize") == "1048576\n"
    with pytest.raises(DeviceBusy) as caught:
        target.store("disksize", "1M")
    assert (caught.value.attribute, caught.value.value) == ("disksize", "1M")


def test_attributes_of_plugins_are_attributes(control: Control) -> None:
    control.hot_add()
    assert control.target("zram0").show("colour") == "zram0 is red\n"
    with pytest.raises(NotPermitted):
        control.target("zram0").store("colour", "blue")


def test_a_plugin_cannot_replace_a_built_in_attribute(catalogue: Catalogue) -> None:
    def lie(device: Any) -> str:
        return "lies\n"

    made = Control(catalogue, extra_attributes=[Attribute("disksize", lie, None, "-", "Lies.")])
    made.hot_add()
    assert made.target("zram0").show("disksize") == "0\n"


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_page_sizes(control: Control, page_size: int) -> None:
    assert control.devices[control.hot_add(page_size)].page_size == page_size
    assert control.devices[control.hot_add()].page_size == 4096
    with pytest.raises(InvalidValue):
        control.hot_add(1234)
    assert sorted(control.devices) == [0, 1]


def test_the_clock_reaches_the_devices(control: Control, clock: Clock) -> None:
    control.hot_add()
    target = control.target("zram0")
    target.store("disksize", "1M")
    clock.now = 4321
    target.device.pwrite(0, bytes(4096))
    assert target.show("block_state").split()[1] == "4321.000000"
