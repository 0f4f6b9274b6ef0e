"""The contract of a writeback policy; plugin authors import it from `interfaces`."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from .machine import Machine
from .options import API_VERSION, Option, read_options


class PolicyTarget(Protocol):
    """Whatever has attributes: a zramcore device, the kernel's own zram, a simulated one."""

    @property
    def name(self) -> str: ...

    def show(self, attribute: str) -> str:
        """The attribute's text, as read(2) would return it."""
        ...


def can(target: PolicyTarget, capability: str) -> bool:
    """Whether a target has `capability`, the name of an attribute or one of ``idle_age`` (idle takes seconds) and
    ``idle_or_huge``. A target with a set of names `capabilities` (the kernel's zram) has those; others have all."""
    known = getattr(target, "capabilities", None)
    return known is None or capability in known


@dataclass(frozen=True)
class Tick:
    """What a policy decided: attribute writes to make now, in order; seconds until it wants the next tick; why; the
    units of 4 KiB that its writebacks may write together (None: any number); bytes of mem_used_total above which it
    wants the next tick at once (None: it only waits). Only a zramcore device tells: on others time alone counts."""

    writes: Sequence[tuple[str, str]] = ()
    next_in: float = 60.0
    reason: str = ""
    budget: int | None = None
    wake_above: int | None = None


class WritebackPolicy(abc.ABC):
    """Decides when a device marks pages idle and writes them back. It acts only through attributes.

    Time comes from outside (`now`, in seconds, monotonic, from any origin): the same policy runs live and in a
    simulation. One object serves one target.
    """

    name: ClassVar[str]
    api_version: ClassVar[int] = API_VERSION
    summary: ClassVar[str] = ""
    options: ClassVar[Sequence[Option]] = ()
    writes: ClassVar[Sequence[str]] = ("idle", "writeback")
    """The attributes a tick may write: the scheduler refuses others, and `writeback` makes a backing_dev required."""
    machine: Machine = Machine()
    """The machine around the target; who runs the policy sets it before the first tick."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Read the options. Raises InvalidValue (EINVAL) naming the option."""
        self.values = read_options(f"policy {self.name}", self.options, options)

    @abc.abstractmethod
    def tick(self, target: PolicyTarget, now: float) -> Tick:
        """Look at the target and decide; called at start and then when the last tick asked for it.

        A call may also come early or late: after a write that failed, or a machine that slept.
        """

    def settle(self, target: PolicyTarget, now: float) -> None:  # noqa: B027 - most policies need not look back
        """Look at what came of the tick; called right after its writes, also when one of them failed."""

    def state(self, now: float) -> Mapping[str, Any]:
        """What is worth keeping over a restart, for JSON; times as ages in seconds, `now` has another origin then."""
        return {}

    def restore(self, state: Mapping[str, Any], now: float, elapsed: float) -> None:  # noqa: B027 - as for settle
        """Take back what `state` returned `elapsed` seconds ago, before the first tick. What cannot be used is ignored:
        another version may have written it."""
