"""Compare: every policy of a device alone, and all of them together, on one trace, beside doing nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..allowance import DailyBudget
from ..config import PolicyConfig
from ..interfaces import Catalogue
from .accesses import Accesses
from .device import Setup, SimulatedDevice
from .oracle import Oracle
from .pool import PoolModel
from .replay import NOTHING, TOGETHER, Outcome, World, replay
from .sizes import PageSizes
from .trace import Trace
from .world import SimulationClock


@dataclass(frozen=True)
class Judged:
    """An outcome, and how good it is: the part of compr_data_size that it saved over the trace, 0 to 1, and the most
    that could be saved with as many re-reads, by the oracle."""

    outcome: Outcome
    saved: float
    best: float
    waited: float
    """Seconds that tasks waited for pages that were read back."""

    @property
    def of_best(self) -> float | None:
        """The part of the best saving; None where nothing can be saved."""
        return self.saved / self.best if self.best > 0 else None


class Comparison:
    """What the replays of one trace share. `pool` makes an empty pool; `per_day`: the units of 4 KiB that all policies
    of a replay may write in 24 hours."""

    def __init__(
        self,
        trace: Trace,
        setup: Setup,
        sizes: PageSizes,
        pool: Callable[[], PoolModel],
        world: World,
        per_day: int | None = None,
    ) -> None:
        self.accesses = Accesses(trace)
        self.setup = setup
        self.sizes = sizes
        self.world = world
        self._per_day = per_day
        self._pool = pool
        primary, *secondary = sizes.sizes
        huge = pool().huge_class_size
        stored = primary.copy()
        stored[primary >= huge] = setup.page_size
        self._oracle = Oracle(trace, stored)
        self._dense_oracle = Oracle(trace, stored, sizes.sizes.min(axis=0)) if secondary else self._oracle

    def run(self, label: str, policies: Sequence[PolicyConfig], catalogue: Catalogue) -> Judged:
        """Replay with new objects of these policies."""
        clock = SimulationClock()
        device = SimulatedDevice(self.setup, self._pool(), self.sizes, self.accesses, clock.boot_seconds)
        made = [catalogue.policies[each.name](each.options) for each in policies]
        daily = None if self._per_day is None else DailyBudget(self._per_day)
        outcome = replay(label, device, clock, made, self.world, daily)
        oracle = self._dense_oracle if outcome.recompressed else self._oracle
        whole = oracle.whole
        saved = 1 - outcome.data_seconds / whole if whole else 0.0
        best = oracle.best(outcome.rereads) / whole if whole else 0.0
        return Judged(outcome, saved, best, outcome.rereads * self.world.latency)

    def run_all(self, policies: Sequence[PolicyConfig], catalogue: Catalogue) -> Iterator[Judged]:
        """Nothing, each policy alone, and all of them, where they are several."""
        yield self.run(NOTHING, (), catalogue)
        for label, policy in zip(labels(policies), policies, strict=True):
            yield self.run(label, [policy], catalogue)
        if len(policies) > 1:
            yield self.run(TOGETHER, policies, catalogue)


def labels(policies: Sequence[PolicyConfig]) -> list[str]:
    """A different name for each policy: its own; where several have it, with the options in which they differ; where
    those are none, with a number."""
    found: list[str] = []
    for policy in policies:
        alike = [other.options for other in policies if other.name == policy.name]
        differing = [
            f"{key}={value}" for key, value in policy.options.items() if any(other.get(key) != value for other in alike)
        ]
        label = " ".join([policy.name, *differing])
        again = sum(each == label or each.startswith(f"{label} #") for each in found)
        found.append(f"{label} #{again + 1}" if again else label)
    return found
