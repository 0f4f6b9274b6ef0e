"""Each policy on one generated trace (hot set, cold set, change of phase), beside an oracle that knows the future."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from zramcore.config import PolicyConfig, Where
from zramcore.interfaces import Catalogue
from zramcore.simulation.compare import Comparison, Judged
from zramcore.simulation.example import example
from zramcore.simulation.sizes import default_samples, draw
from zramcore.simulation.trace import Trace

MIB = 1 << 20
PAGES, DAYS, ACCESSES = 1024, 2.0, 12_000

POLICIES: dict[str, tuple[str, dict[str, str], float]] = {
    "idle": ("idle", {"age": "2h"}, 0.75),
    "idle by age": ("idle", {"age": "2h", "period": "30m"}, 0.75),
    "idle_or_huge": ("idle_or_huge", {"age": "2h", "period": "30m"}, 0.75),
    "coldness": ("coldness", {"period": "5m"}, 0.75),
    "pressure": ("pressure", {"interval": "1m"}, 0.75),
    "adaptive": ("adaptive", {"min_age": "4h", "max_age": "5h", "min_round": "0"}, 0.75),
    "adaptive, mmd": ("adaptive", {"min_round": "0"}, 0.25),
    "watermark": ("watermark", {"high": "1M", "low": "768K", "pace": "1m", "period": "5m"}, 0.75),
    "huge": ("huge", {}, 0.1),
    "recompress": ("recompress", {}, 0.1),
    "recompress, then": ("recompress", {"then": "idle", "then_age": "4h"}, 0.75),
}
"""Label -> policy, options, and the least part of the oracle's saving that it reaches: what docs/policies.md states."""


@pytest.fixture(scope="module")
def comparison(compare: Callable[..., Comparison]) -> Comparison:
    trace = example(5, PAGES, DAYS, ACCESSES)
    return compare(trace, sizes=draw(default_samples().of(["lz4", "zstd"]), trace, PAGES, 1, 4096, 3625))


@pytest.fixture(scope="module")
def run(comparison: Comparison, built_in: Catalogue) -> Callable[[str], Judged]:
    """Runs one of POLICIES, once."""
    known: dict[str, Judged] = {}

    def judged(label: str) -> Judged:
        if label not in known:
            name, options, _ = POLICIES[label]
            known[label] = comparison.run(label, [PolicyConfig(name, options, Where("a test", label))], built_in)
        return known[label]

    return judged


@pytest.mark.parametrize("label", POLICIES)
def test_no_policy_beats_the_oracle_and_good_ones_come_near_it(run: Callable[[str], Judged], label: str) -> None:
    judged = run(label)
    assert judged.outcome.activity[POLICIES[label][0]].failures == 0
    assert judged.saved > 0
    assert judged.saved <= judged.best
    assert judged.of_best is not None
    assert judged.of_best >= POLICIES[label][2], f"{judged.of_best:.2f} of the best"


def test_the_yardstick_saves_nothing(comparison: Comparison, built_in: Catalogue) -> None:
    judged = comparison.run("none", [PolicyConfig("none", {}, Where("a test", "none"))], built_in)
    assert judged.saved == pytest.approx(0, abs=1e-9)
    assert judged.outcome.rereads == judged.outcome.written == 0


def test_the_watermark_bounds_the_memory(run: Callable[[str], Judged]) -> None:
    assert run("idle").outcome.peak > 1.7 * MIB
    memory = run("watermark").outcome.series[:, 1]
    late = memory[len(memory) // 4 :]
    assert late.max() <= 1.1 * MIB


def test_a_change_of_phase_costs_rereads_and_is_over_again(run: Callable[[str], Judged]) -> None:
    """What was cold and written back grows hot: it is read back until it is written again."""
    series = run("idle by age").outcome.series

    def rereads(hour: int) -> float:
        """In the two hours from then on."""
        start, end = np.interp([hour * 3600, (hour + 2) * 3600], series[:, 0], series[:, 4])
        return float(end - start)

    assert rereads(24) > 1.5 * max(rereads(20), rereads(22))
    assert rereads(24) > 1.5 * max(rereads(44), rereads(46))


def test_the_younger_pages_go_the_more_is_saved_and_read_again(comparison: Comparison, built_in: Catalogue) -> None:
    ages = [
        comparison.run(age, [PolicyConfig("idle", {"age": age, "period": "10m"}, Where("a test", age))], built_in)
        for age in ("20m", "2h", "12h")
    ]
    assert ages[0].saved > ages[1].saved > ages[2].saved
    assert ages[0].outcome.rereads > ages[1].outcome.rereads > ages[2].outcome.rereads


def test_a_budget_for_a_day_holds_for_all_policies_together(
    compare: Callable[..., Comparison], built_in: Catalogue
) -> None:
    trace: Trace = example(5, PAGES, DAYS, ACCESSES)
    comparison = compare(trace, per_day=100)
    policies = [
        PolicyConfig("idle", {"age": "1h", "period": "10m"}, Where("a test", "idle")),
        PolicyConfig("adaptive", {"min_age": "1h", "max_age": "1h", "min_round": "0"}, Where("a test", "adaptive")),
    ]
    *_, together = comparison.run_all(policies, built_in)
    seconds, written = together.outcome.series[:, 0], together.outcome.series[:, 3]
    assert together.outcome.label == "together"
    assert 100 < written[-1] <= 300
    for start in range(0, 86400, 3600):
        assert np.interp(start + 86000, seconds, written) - np.interp(start, seconds, written) <= 100
