"""What policies keep over a restart: the file, and the scheduler that writes and reads it."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zramcore.allowance import DailyBudget
from zramcore.interfaces import PolicyTarget, Tick, WritebackPolicy
from zramcore.policy_state import KEPT_SECONDS, StateFile, default_state_directory, default_state_file
from zramcore.scheduler import Scheduler
from zramcore.testing.policy import FakeTarget, VirtualClock


class Counts(WritebackPolicy):
    """Keeps how often it was asked, and since when."""

    name = "counts"
    writes = ("idle",)

    def __init__(self) -> None:
        super().__init__({})
        self.count, self.age = 0, 0.0

    def tick(self, target: PolicyTarget, now: float) -> Tick:
        self.count += 1
        return Tick((("idle", "all"),), 60.0)

    def state(self, now: float) -> Mapping[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any], now: float, elapsed: float) -> None:
        self.count, self.age = state["count"], elapsed


def kept(path: Path) -> dict[str, Any]:
    """What the file holds, by owner."""
    return {owner: entry["state"] for owner, entry in json.loads(path.read_text())["kept"].items()}


@pytest.fixture
def wall() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def file(tmp_path: Path, wall: list[float]) -> StateFile:
    return StateFile(tmp_path / "deep" / "state.json", wall=lambda: wall[0])


def test_a_policy_goes_on_where_it_was(file: StateFile, wall: list[float]) -> None:
    scheduler = Scheduler(clock=VirtualClock(), state=file)
    first, twin = Counts(), Counts()
    scheduler.add(FakeTarget(), first)
    scheduler.add(FakeTarget(), twin)
    twin.count = 100
    scheduler.run(until=120.0)
    assert (first.count, twin.count) == (3, 103)
    wall[0] += 5000.0
    again = Scheduler(clock=VirtualClock(7.0), state=StateFile(file.path, wall=lambda: wall[0]))
    policies = [Counts(), Counts(), Counts()]
    for target, policy in zip((FakeTarget(), FakeTarget(), FakeTarget("zram1")), policies, strict=True):
        again.add(target, policy)
    assert [policy.count for policy in policies] == [3, 103, 0]
    assert [policy.age for policy in policies] == [5000.0, 5000.0, 0.0]


def test_a_daily_budget_goes_on_too(file: StateFile, wall: list[float]) -> None:
    daily, target = DailyBudget(100), FakeTarget()
    scheduler = Scheduler(clock=VirtualClock(), state=file)
    scheduler.add(target, Counts(), daily)
    daily.look(target, 0.0)
    target.values["bd_stat"] = "0 0 60\n"
    daily.look(target, 0.0)
    scheduler.run_due()
    wall[0] += 3600.0
    fresh = DailyBudget(100)
    again = Scheduler(clock=VirtualClock(), state=StateFile(file.path, wall=lambda: wall[0]))
    again.add(target, Counts(), fresh)
    again.add(target, Counts(), fresh)
    assert fresh.left(0.0) == 40
    assert fresh.left(82_799.0) == 40
    assert fresh.left(82_801.0) == 100, "an hour of the day passed while nothing ran"


def test_a_new_device_counts_from_0_whatever_the_one_before_had_written(file: StateFile, wall: list[float]) -> None:
    file.save({"writes_per_day": {"written": [], "seen": {"zram0": 500}}})
    target, daily, clock = FakeTarget(), DailyBudget(1000), VirtualClock()
    scheduler = Scheduler(clock=clock, state=file)
    scheduler.add(target, Counts(), daily)
    target.values["bd_stat"] = "0 0 600\n"  # by hand, before any policy wrote
    daily.look(target, 1.0)
    assert daily.left(1.0) == 400


def test_a_round_without_writes_touches_no_file(file: StateFile) -> None:
    policy = Counts()
    policy.tick = lambda target, now: Tick((), 60.0)  # type: ignore[method-assign]  # it decides to do nothing
    scheduler = Scheduler(clock=VirtualClock(), state=file)
    scheduler.add(FakeTarget(), policy)
    scheduler.run_due()
    assert not file.path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 1}', '{"version": 2, "kept": {}}', "[" * 100_000,
     '{"version": 1, "kept": {"a": 1}}', '{"version": 1, "kept": {"a": {"at": "x", "state": {}}}}',
     '{"version": 1, "kept": []}', "\udcff"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_logged_and_ignored(
    file: StateFile, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        assert StateFile(file.path).kept("a") is None
    assert "budgets begin anew" in caplog.text


def test_entries_that_are_none_are_left_out(file: StateFile, wall: list[float]) -> None:
    file.path.parent.mkdir()
    kept = {"a": {"at": wall[0] - 5, "state": {"b": 1}}, "c": {"at": wall[0], "state": 7}}
    file.path.write_text(json.dumps({"version": 1, "kept": kept}))
    again = StateFile(file.path, wall=lambda: wall[0])
    assert again.kept("a") == ({"b": 1}, 5.0)
    assert again.kept("c") is None


def test_owners_keep_their_own_ages_and_those_of_long_ago_are_dropped(file: StateFile, wall: list[float]) -> None:
    file.save({"a": {"n": 1}})
    wall[0] += 100.0
    file.save({"b": {"n": 2}})
    again = StateFile(file.path, wall=lambda: wall[0] + 7.0)
    assert (again.kept("a"), again.kept("b")) == (({"n": 1}, 107.0), ({"n": 2}, 7.0))
    late = StateFile(file.path, wall=lambda: wall[0] - 50.0 + KEPT_SECONDS)
    assert (late.kept("a"), late.kept("b") is None) == (None, False)


def test_the_file_is_replaced_as_a_whole_or_not_at_all(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.save({"a": {"count": 1}})
    assert file.path.stat().st_mode & 0o777 == 0o600

    def crash(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    file.save({"a": {"count": 2}})
    assert kept(file.path) == {"a": {"count": 1}}
    assert list(file.path.parent.iterdir()) == [file.path], "nothing half written is left"


def test_a_file_that_cannot_be_written_is_logged_once(file: StateFile, caplog: pytest.LogCaptureFixture) -> None:
    file.path.parent.write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        file.save({"a": {}})
        file.save({"a": {}})
    assert len(caplog.messages) == 1
    assert "would forget the day's writes" in caplog.text


class Forgetful(Counts):
    name = "forgetful"

    def state(self, now: float) -> Mapping[str, Any]:
        raise RuntimeError("what was I doing")


def test_a_policy_that_cannot_say_its_state_does_not_keep_others_from_it(
    file: StateFile, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = Scheduler(clock=VirtualClock(), state=file)
    scheduler.add(FakeTarget(), Forgetful())
    scheduler.add(FakeTarget(), Counts())
    with caplog.at_level(logging.WARNING):
        scheduler.run_due()
    assert kept(file.path) == {"zram0 counts": {"count": 1}}
    assert "policy forgetful" in caplog.text


def test_a_policy_that_cannot_take_its_state_back_begins_anew(
    file: StateFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.save({"zram0 counts": {"of another version": 1}})
    scheduler, policy = Scheduler(clock=VirtualClock(), state=file), Counts()
    with caplog.at_level(logging.WARNING):
        scheduler.add(FakeTarget(), policy)
    assert "zram0 counts begins anew" in caplog.text
    scheduler.run_due()
    assert policy.count == 1


def test_where_state_goes() -> None:
    assert default_state_directory({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    assert default_state_directory({"XDG_STATE_HOME": "/home/x/.state"}) == Path("/home/x/.state/zramcore")
    home = Path("/var/lib/zramcore") if os.geteuid() == 0 else Path.home() / ".local/state/zramcore"
    assert default_state_directory({}) == home


def test_each_deployment_has_a_file_of_its_own(tmp_path: Path) -> None:
    where = {"STATE_DIRECTORY": str(tmp_path)}
    paths = [default_state_file(tmp_path / name, where) for name in ("a/swap.toml", "b/swap.toml", "a/odd name.toml")]
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {tmp_path}
    assert [path.name.rpartition("-")[0] for path in paths] == ["swap", "swap", "odd_name"]
    assert default_state_file(tmp_path / "a/../a/swap.toml", where) == paths[0]
