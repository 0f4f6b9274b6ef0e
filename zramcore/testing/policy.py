"""PolicyConformance: what every WritebackPolicy must do. Subclass it, give a factory, and pytest does the rest::

    class TestMyPolicy(PolicyConformance):
        def create(self, options):
            return MyPolicy(options)

FakeTarget and VirtualClock are for a policy's own tests too: a target that remembers what was written, and time that
passes only when it is told to.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from unittest import mock

import pytest

from ..attributes import ATTRIBUTES
from ..errors import InvalidValue, NoSuchAttribute, NotPermitted
from ..interfaces import API_VERSION, PolicyTarget, Tick, WritebackPolicy
from ..machine import Machine

READ_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")
"""The functions of module time that a policy must not call: time is an argument of tick."""


class VirtualClock:
    """Time that passes only by `advance`, or by a `wait` that nobody cuts short; `waits` records those."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self.waits: list[float] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Pass `seconds` at once, unless `event` is set."""
        if event.is_set():
            return True
        self.waits.append(seconds)
        self.advance(seconds)
        return False


def example_values() -> dict[str, str]:
    """The readable attributes of a device in use, as a kernel prints them."""
    return {
        "disksize": "1073741824\n",
        "initstate": "1\n",
        "comp_algorithm": "lz4 [zstd] \n",
        "backing_dev": "/dev/sdb1\n",
        "mm_stat": "268435456 80530636 83886080        0 92274688     1024       10     4096     5000\n",
        "io_stat": "       0        0 0        0\n",
        "bd_stat": "       0        0        0\n",
        "writeback_limit": "0\n",
        "writeback_limit_enable": "0\n",
        "writeback_batch_size": "32\n",
        "block_state": "           0          100.000000 ......\n           1          100.000000 ..h...\n",
    }


class FakeTarget:
    """A target of plain texts. `values` is what attributes show; `written` collects (attribute, value) pairs.

    A write of an attribute that is in `values` shows from then on; an attribute named in `errors` raises that error
    when it is written. Reading what is not in `values` raises NoSuchAttribute (ENOENT), writing what no device has
    too, and writing a read-only attribute NotPermitted (EACCES).
    """

    def __init__(self, name: str = "zram0", values: Mapping[str, str] | None = None) -> None:
        self._name = name
        self.values = dict(example_values() if values is None else values)
        self.written: list[tuple[str, str]] = []
        self.errors: dict[str, OSError] = {}

    @property
    def name(self) -> str:
        return self._name

    def show(self, attribute: str) -> str:
        """The text of an attribute."""
        try:
            return self.values[attribute]
        except KeyError:
            raise NoSuchAttribute(f"there is no attribute {attribute!r}", attribute=attribute) from None

    def store(self, attribute: str, value: str) -> None:
        """Write an attribute."""
        known = ATTRIBUTES.get(attribute)
        if known is None:
            raise NoSuchAttribute(f"there is no attribute {attribute!r}", attribute=attribute)
        if "w" not in known.mode:
            raise NotPermitted("read-only", attribute=attribute)
        if attribute in self.errors:
            raise self.errors[attribute]
        self.written.append((attribute, value))
        if attribute in self.values:
            self.values[attribute] = f"{value}\n"


class FakeMachine(Machine):
    """A machine of plain texts: `files` by path, and `slept` seconds of suspend."""

    def __init__(self, files: Mapping[str, str] | None = None, slept: float = 0.0) -> None:
        self.files = dict(files or {})
        self.slept = slept

    def read(self, path: str) -> str:
        """The text of a file; FileNotFoundError for one that is not there."""
        return self.files[path] if path in self.files else super().read(path)

    def suspended(self) -> float:
        return self.slept

    def set_free(self, part: float, total_kb: int = 1 << 23) -> None:
        """Have /proc/meminfo say that `part` of the memory is available."""
        self.files["/proc/meminfo"] = (
            f"MemTotal:       {total_kb} kB\nMemFree:        12 kB\nMemAvailable:   {round(part * total_kb)} kB\n"
        )

    def set_stall(self, microseconds: int, path: str = "/proc/pressure/memory") -> None:
        """Have a PSI file say how long some tasks stalled since start; all tasks at once for half as long."""
        self.files[path] = "".join(
            f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n"
            for kind, total in (("some", microseconds), ("full", microseconds // 2))
        )


def play(policy: WritebackPolicy, target: FakeTarget, clock: VirtualClock, ticks: int) -> list[Tick]:
    """Tick `policy` that many times at the times it asks for, making its writes; what it decided."""
    decided = []
    for _ in range(ticks):
        tick = policy.tick(target, clock.now())
        for attribute, value in tick.writes:
            target.store(attribute, value)
        policy.settle(target, clock.now())
        decided.append(tick)
        clock.advance(tick.next_in)
    return decided


@contextlib.contextmanager
def no_real_time(policy: WritebackPolicy) -> Iterator[None]:
    """Make every clock of module `time` raise, also where the policy's own modules imported it by name."""

    def forbidden(*_args: object) -> float:
        raise AssertionError(f"policy {policy.name} reads the real time: use tick's `now`")

    originals = {getattr(time, name) for name in READ_CLOCKS}
    with contextlib.ExitStack() as stack:
        for name in READ_CLOCKS:
            stack.enter_context(mock.patch.object(time, name, forbidden))
        for module in {sys.modules[kind.__module__] for kind in type(policy).__mro__ if kind.__module__ in sys.modules}:
            for name, value in list(vars(module).items()):
                if module is not time and callable(value) and _is_one_of(value, originals):
                    stack.enter_context(mock.patch.object(module, name, forbidden))
        yield


def _is_one_of(value: object, functions: set[object]) -> bool:
    return any(value is function for function in functions)


class PolicyConformance:
    """Tests of one policy. `create` is all a subclass must give; `ticks` is how far each test plays."""

    ticks = 50

    def create(self, options: Mapping[str, str]) -> WritebackPolicy:
        """A new policy with these options, empty for its defaults."""
        raise NotImplementedError(f"{type(self).__name__} must define create(options)")

    def test_says_what_it_is(self) -> None:
        kind = type(self.create({}))
        assert kind.name
        assert kind.name == kind.name.strip().lower(), "the name is typed into config files: lower case, no blanks"
        assert kind.summary, "the summary is what `zramcore plugins` prints"
        assert kind.api_version == API_VERSION

    def test_options_are_documented(self) -> None:
        policy = self.create({})
        names = [option.name for option in policy.options]
        assert len(names) == len(set(names)), f"an option is declared twice: {names}"
        for option in policy.options:
            assert option.help, f"option {option.name} has no help"
            assert policy.values[option.name] == option.default

    def test_unknown_option_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidValue, match="no_such_option"):
            self.create({"no_such_option": "1"})

    def test_declares_attributes_that_can_be_written(self) -> None:
        for attribute in type(self.create({})).writes:
            assert attribute in ATTRIBUTES, f"`writes` declares {attribute!r}, which no device has"
            assert "w" in ATTRIBUTES[attribute].mode, f"`writes` declares {attribute!r}, which is read-only"

    def test_ticks_keep_the_contract(self) -> None:
        policy = self.create({})
        for tick in play(policy, FakeTarget(), VirtualClock(), self.ticks):
            assert isinstance(tick, Tick)
            assert math.isfinite(tick.next_in), f"next_in is {tick.next_in}"
            assert tick.next_in > 0, f"next_in is {tick.next_in}"
            for attribute, value in tick.writes:
                assert attribute in policy.writes, f"{attribute!r} is written but not declared in `writes`"
                assert isinstance(value, str)
                assert "\n" not in value

    def test_reads_no_real_time(self) -> None:
        policy = self.create({})
        with no_real_time(policy):
            play(policy, FakeTarget(), VirtualClock(), self.ticks)

    def test_is_deterministic(self) -> None:
        first = play(self.create({}), FakeTarget(), VirtualClock(), self.ticks)
        second = play(self.create({}), FakeTarget(), VirtualClock(), self.ticks)
        assert _decisions(first) == _decisions(second)

    def test_any_origin_of_time_will_do(self) -> None:
        early = play(self.create({}), FakeTarget(), VirtualClock(0.0), self.ticks)
        late = play(self.create({}), FakeTarget(), VirtualClock(1_000_000.0), self.ticks)
        assert [tick.writes for tick in early] == [tick.writes for tick in late]
        for one, other in zip(early, late, strict=True):
            assert math.isclose(one.next_in, other.next_in, rel_tol=1e-6, abs_tol=1e-3)

    def test_objects_share_nothing(self) -> None:
        alone = play(self.create({}), FakeTarget(), VirtualClock(), self.ticks)
        one, other = self.create({}), self.create({})
        targets, clocks = (FakeTarget("zram0"), FakeTarget("zram1")), (VirtualClock(), VirtualClock(7.0))
        together: list[Tick] = []
        for _ in range(self.ticks):
            together += play(one, targets[0], clocks[0], 1)
            play(other, targets[1], clocks[1], 1)
        assert _decisions(alone) == _decisions(together)

    def test_survives_a_target_without_attributes(self) -> None:
        policy, clock = self.create({}), VirtualClock()
        bare = FakeTarget(values={})
        for _ in range(self.ticks):
            tick = policy.tick(bare, clock.now())
            assert isinstance(tick, Tick)
            assert tick.next_in > 0
            policy.settle(bare, clock.now())
            clock.advance(tick.next_in)

    def test_survives_writes_that_fail_and_odd_times(self) -> None:
        """The scheduler then calls early (after its own back-off) or late (the machine slept)."""
        policy, clock = self.create({}), VirtualClock()
        for step in range(self.ticks):
            tick = policy.tick(FakeTarget(), clock.now())
            policy.settle(FakeTarget(), clock.now())
            assert math.isfinite(tick.next_in)
            assert tick.next_in > 0
            clock.advance(tick.next_in * (0.0, 0.1, 1.0, 50.0)[step % 4])

    def test_state_is_json_and_comes_back(self) -> None:
        policy, clock = self.create({}), VirtualClock(50.0)
        play(policy, FakeTarget(), clock, self.ticks)
        state = json.loads(json.dumps(dict(policy.state(clock.now()))))
        again = self.create({})
        again.restore(state, 7.0, 0.0)
        assert again.state(7.0) == state

    def test_state_of_another_version_is_ignored(self) -> None:
        for state in ({}, {"no_such_key": 1}, dict.fromkeys(self.create({}).state(0.0), "odd")):
            policy = self.create({})
            policy.restore(state, 0.0, 3600.0)
            assert policy.tick(FakeTarget(), 0.0).next_in > 0

    def test_leaves_the_target_to_the_scheduler(self) -> None:
        target = FakeTarget()
        self.create({}).tick(_ReadOnly(target), 0.0)
        assert target.written == []


class _ReadOnly:
    """A target as a policy may use it: it has a name and shows attributes, and nothing else."""

    def __init__(self, target: PolicyTarget) -> None:
        self._target = target

    @property
    def name(self) -> str:
        return self._target.name

    def show(self, attribute: str) -> str:
        return self._target.show(attribute)


def _decisions(ticks: Sequence[Tick]) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    return [(tuple(tick.writes), tick.next_in) for tick in ticks]
