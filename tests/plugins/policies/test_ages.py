"""Ages of pages from idle_histogram and from block_state, and the sleep that does not make them old."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zramcore import attributes
from zramcore.device import Device
from zramcore.testing.inspection import Clock
from zramcore.testing.policy import FakeMachine, FakeTarget
from zramcore_plugins.policies.ages import MAX_AGE, Ages, Sleep, read_ages


class OnDevice:
    """A device as a target; with `hidden` it does not show that attribute."""

    name = "zram0"

    def __init__(self, device: Device, hidden: str = "") -> None:
        self.device, self.hidden = device, hidden

    def show(self, attribute: str) -> str:
        return attributes.show(self.device, attribute if attribute != self.hidden else "none_such")


def test_block_state_gives_the_same_ages_as_the_histogram(device: Callable[..., Device], clock: Clock) -> None:
    made = device(64)
    for page in range(40):
        clock.now = 1000 + page * page * 4
        made.pwrite(page * 4096, (page.to_bytes(2, "big") * 1000 + bytes(range(256)) * 16)[:4096])
    made.pwrite(50 * 4096, b"\x07" * 4096)  # same-filled: no age
    clock.now = 10_000
    by_histogram = read_ages(OnDevice(made), FakeMachine())
    machine = FakeMachine({"/proc/uptime": "10000.73 9999.00\n"})
    assert by_histogram is not None
    assert read_ages(OnDevice(made, hidden="idle_histogram"), machine) == by_histogram
    assert by_histogram.total == 40


@pytest.mark.parametrize("uptime", [None, "", "soon\n"])
def test_without_either_there_are_no_ages(uptime: str | None) -> None:
    machine = FakeMachine({} if uptime is None else {"/proc/uptime": uptime})
    assert read_ages(FakeTarget(), machine) is None
    assert read_ages(FakeTarget(values={}), FakeMachine({"/proc/uptime": "5.0 1.0"})) is None


def test_the_coldest_pages_are_those_above_the_largest_edge_that_has_enough() -> None:
    ages = Ages((0, 10, 60, 600), (5, 4, 3, 2))
    assert (ages.older(10), ages.older(11), ages.older(601), ages.total) == (9, 5, 0, 14)
    assert [ages.coldest(wanted) for wanted in (1, 2, 3, 5, 6, 10, 99)] == [600, 600, 60, 60, 10, 0, 0]
    assert ages.coldest(99, least=30) == 30
    assert ages.coldest(1, least=700) == 700


def test_an_age_is_rounded_up_and_fits_into_a_u32() -> None:
    sleep = Sleep()
    assert sleep.lengthen(59.2, 100.0) == 60
    assert sleep.lengthen(1e12, 0.0) == MAX_AGE


def test_sleep_within_an_age_lengthens_it_and_sleep_before_it_does_not() -> None:
    machine, sleep = FakeMachine(), Sleep()
    sleep.note(machine, 1000.0, 600.0)
    machine.slept = 3600.0  # the lid was closed for an hour
    sleep.note(machine, 1100.0, 600.0)
    assert sleep.lengthen(300.0, 1200.0) == 300 + 3600
    assert sleep.lengthen(50.0, 1200.0) == 50
    for now in range(1200, 2000, 100):
        sleep.note(machine, float(now), 600.0)
    assert sleep.lengthen(600.0, 1900.0) == 600, "the sleep was longer ago than the age"


def test_sleep_before_the_first_look_counts_as_long_as_it_may_lie_within_the_age() -> None:
    machine, sleep = FakeMachine(slept=500.0), Sleep()
    sleep.note(machine, 1000.0, 300.0)
    assert sleep.lengthen(300.0, 1100.0) == 800
    assert sleep.lengthen(300.0, 1300.0) == 300
