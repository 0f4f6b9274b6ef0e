"""Recording a real device by its attributes: what was accessed is in the file, and the device does not notice."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zramcore import attributes
from zramcore.control import Target
from zramcore.device import Device
from zramcore.errors import DeviceIOError, InvalidValue, NotSupported
from zramcore.kernel import KernelControl
from zramcore.simulation.recorder import Recorder
from zramcore.simulation.state import parse_state, read_state
from zramcore.simulation.trace import FREE, HUGE, KNOWN, READ, SAME, SECOND, WRITE, Trace, load_trace
from zramcore.testing.inspection import Clock, snapshot
from zramcore.testing.samples import make_pages
from zramcore.testing.sysfs import make_sysfs

PAGE = 4096
KINDS = make_pages(PAGE)
TEXT, RANDOM = KINDS["text"], KINDS["random"]
DeviceFactory = Callable[..., Device]


class Recording:
    """A recorder of a device, and what it has recorded so far."""

    def __init__(self, device: Device, clock: Clock, path: Path) -> None:
        self.device = device
        self.clock = clock
        self.path = path
        self.file = io.BytesIO()
        self.recorder = Recorder(Target(device), self.file, period=1, clock=lambda: float(clock.now))

    def after(self, seconds: int) -> int:
        """Let time pass and look."""
        self.clock.now += seconds
        return self.recorder.look()

    def trace(self) -> Trace:
        """As it is loaded from a file."""
        self.path.write_bytes(self.file.getvalue())
        return load_trace(self.path)

    def write(self, page: int, data: bytes = TEXT) -> None:
        self.device.pwrite(page * PAGE, data)


@pytest.fixture
def recording(device: DeviceFactory, clock: Clock, tmp_path: Path) -> Recording:
    """Of a device that holds pages 0 (text, 100 s old) and 1 (random, now)."""
    new = device(16, comp_algorithm="lz4", recomp_algorithm="algo=zstd priority=1")
    new.pwrite(0, TEXT)
    clock.now += 100
    new.pwrite(PAGE, RANDOM)
    return Recording(new, clock, tmp_path / "trace")


def rows(trace: Trace) -> list[tuple[float, int, int]]:
    """Seconds, page, kind."""
    return list(zip((trace.time / SECOND).tolist(), trace.page.tolist(), trace.kind.tolist(), strict=True))


def test_what_was_there_is_as_old_as_it_is(recording: Recording) -> None:
    recording.after(5)
    trace = recording.trace()
    assert rows(trace) == [(-100.0, 0, WRITE), (-1e-6, 1, WRITE)]
    assert trace.classes is not None
    assert trace.classes[:2].tolist() == [KNOWN, KNOWN | HUGE]
    assert (trace.end, trace.nr_pages) == (5 * SECOND, 16)
    stored = int(attributes.show(recording.device, "mm_stat").split()[1])
    assert trace.mean_size == stored - PAGE


def test_new_touched_and_freed_pages_are_told_apart(recording: Recording) -> None:
    recording.clock.now += 2
    recording.write(5, bytes(PAGE))
    recording.clock.now += 1
    recording.device.pread(0, PAGE)
    assert recording.after(4) == 2
    recording.device.discard(PAGE, PAGE)
    assert recording.after(3) == 1
    assert recording.after(10) == 0
    trace = recording.trace()
    assert rows(trace)[2:] == [(2.0, 5, WRITE), (3.0, 0, READ), (10.0, 1, FREE)]
    assert trace.classes is not None
    assert trace.classes[5] == KNOWN | SAME
    assert recording.recorder.accesses == 3
    assert trace.end == 20 * SECOND


def test_reads_and_writes_of_written_back_pages_are_told_apart(recording: Recording) -> None:
    attributes.store(recording.device, "writeback", "page_indexes=0-1")
    recording.after(1)
    recording.device.pread(0, PAGE)
    recording.write(1, RANDOM)
    recording.after(1)
    assert rows(recording.trace())[2:] == [(1.0, 0, READ), (1.0, 1, WRITE)]


def test_policies_at_work_are_no_accesses(recording: Recording) -> None:
    for attribute, value in (("idle", "all"), ("recompress", "type=idle priority=1"), ("writeback", "huge")):
        attributes.store(recording.device, attribute, value)
        assert recording.after(1) == 0
    recording.device.pread(0, PAGE)
    assert recording.after(1) == 1, "an access of a page that recompression left without a time"


def test_the_device_does_not_notice(recording: Recording) -> None:
    attributes.store(recording.device, "idle", "50")
    before = snapshot(recording.device), attributes.show(recording.device, "block_state")
    recording.recorder.look()
    assert (snapshot(recording.device), attributes.show(recording.device, "block_state")) == before


def test_a_device_that_was_reset_and_made_larger_goes_on(recording: Recording) -> None:
    recording.device.reset()
    attributes.store(recording.device, "disksize", str(64 * PAGE))
    recording.write(40)
    recording.write(3)
    assert recording.after(1) == 3, "two that are gone, and one within the device that was recorded"
    assert rows(recording.trace())[2:] == [(0.0, 3, WRITE), (1.0, 0, FREE), (1.0, 1, FREE)]


def test_a_device_without_data_cannot_be_recorded(device: DeviceFactory) -> None:
    new = device(0)
    file = io.BytesIO()
    with pytest.raises(InvalidValue, match="zram0 is not initialised"):
        Recorder(Target(new), file, period=1)
    assert not file.getvalue()


def test_the_kernels_devices_say_what_is_missing(tmp_path: Path) -> None:
    control = KernelControl(sysfs=make_sysfs(tmp_path, missing=["block_state"]), config={})
    with pytest.raises(NotSupported, match="CONFIG_ZRAM_MEMORY_TRACKING"):
        read_state(control.target("zram0"))


def test_every_kernels_block_state_is_read(tmp_path: Path) -> None:
    state = read_state(KernelControl(sysfs=make_sysfs(tmp_path), config={}).target("zram0"))
    assert state.pages.tolist() == [0, 1]
    assert state.has("h").tolist() == [False, True]
    old = parse_state("           7           12.000345 s..i\n     1048576            0.999999 .wh.\n")
    assert old.accessed.tolist() == [12_000_345, 999_999]
    assert [old.has(letter).tolist() for letter in "swhirn"] == [
        [True, False], [False, True], [False, True], [True, False], [False, False], [False, False],
    ]  # fmt: skip
    assert old.in_memory.tolist() == [False, False]
    assert len(parse_state("").pages) == 0


@pytest.mark.parametrize("line", ["1 2.000000", "1 2.000000 ...... x", "x 2.000000 ......", "1 2.0000 ......"])
def test_a_text_that_is_no_block_state_is_refused(line: str) -> None:
    with pytest.raises(DeviceIOError, match="block_state has a line that is none"):
        parse_state(f"0 1.000000 ......\n{line}\n")


def test_many_pages_are_parsed_right() -> None:
    text = "".join(f"{page:12d} {page % 977:12d}.{0:06d} {'s' if page % 3 else '.'}.h...\n" for page in range(20_000))
    state = parse_state(text)
    assert np.array_equal(state.pages, np.arange(20_000))
    assert np.array_equal(state.accessed, np.arange(20_000) % 977 * SECOND)
    assert np.array_equal(state.has("s"), np.arange(20_000) % 3 > 0)
