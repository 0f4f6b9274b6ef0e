"""What is known of the plugins of one program: a row for each, what it offers, and the observers to be told of events.

`PluginRow` is one entry point; the classes it offers are judged by `registry.build_catalogue`. pluginmanager fills it.
"""

from __future__ import annotations

import inspect
import logging
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import hookspecs
from .errors import DuplicateName, PluginError
from .interfaces import Option

GROUP = hookspecs.PROJECT
"""The entry point group of plugins; also the distribution whose plugins, the built-in ones, come first."""

DISABLE_VARIABLE = "ZRAMCORE_DISABLE_PLUGINS"
"""Environment variable: entry point names, distribution names or ``distribution:name``, separated by commas."""

FAMILIES: Mapping[str, str] = {
    "compressors": "compressor",
    "allocators": "allocator",
    "backing_drivers": "backing driver",
    "policies": "policy",
    "attributes": "attribute",
    "cli_commands": "command",
}
"""What a plugin may offer: the hook's name without ``zramcore_`` -> the word for one of them."""

HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if hasattr(function, f"{GROUP}_spec")
}
"""Every hook of hookspecs.py -> the names of its arguments."""

EVENTS: tuple[str, ...] = tuple(
    event for event in (name.removeprefix(f"{GROUP}_") for name in HOOKS) if event not in FAMILIES
)
"""The events `PluginSet.notify` takes: the observer hooks without ``zramcore_``."""

TRIAL: Mapping[str, object] = {
    "device": "check",
    "disksize": 4096,
    "mode": "check",
    "pages": 1,
    "freed": 4096,
    "error": "",
}
"""What `try_observers` tells: a device that does not exist, of one page. The keys are all arguments of observers."""

logger = logging.getLogger("zramcore.plugins")


class Observer(Protocol):
    def __call__(self, **fields: object) -> object: ...


@dataclass(eq=False)
class Offer:
    """One thing a plugin offers. `value` is the class, attribute or command; `error` says why it was refused."""

    family: str
    value: Any
    name: str
    summary: str = ""
    options: Sequence[Option] = ()
    error: PluginError | None = None

    def __str__(self) -> str:
        return f"{self.family}:{self.name}"


@dataclass(eq=False)
class PluginRow:
    """One plugin, loaded or not: what `zramcore plugins` prints a row of.

    `entry_point` is what its metadata names (``module`` or ``module:object``), `file` where that was found (empty
    when unknown). `errors` are its own; those of a single offer are in the offer. `traceback` is that of the first
    failure. `observes` lists the events it is told about.
    """

    name: str
    entry_point: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    disabled: bool = False
    errors: list[PluginError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    observes: tuple[str, ...] = ()
    observer_errors: int = 0
    last_observer_error: str = ""
    traceback: str = ""

    @property
    def label(self) -> str:
        """How messages name it: ``mine (zram-mine 1.0)``."""
        owner = f"{self.distribution} {self.version}".strip()
        return f"{self.name} ({owner})" if owner else self.name

    @property
    def origin(self) -> str:
        """Module and file."""
        return f"{self.entry_point} ({self.file})" if self.file else self.entry_point

    @property
    def provides(self) -> list[Offer]:
        """The offers that were not refused."""
        return [offer for offer in self.offers if offer.error is None]

    @property
    def problems(self) -> list[PluginError]:
        """Its own errors, then those of its offers."""
        return self.errors + [offer.error for offer in self.offers if offer.error is not None]

    @property
    def status(self) -> str:
        """``ok``, ``disabled``, ``conflict`` when a taken name is all that is wrong, else ``failed``."""
        if self.disabled:
            return "disabled"
        if self.observer_errors:
            return "failed"
        problems = self.problems
        if not problems:
            return "ok"
        return "conflict" if all(isinstance(error, DuplicateName) for error in problems) else "failed"

    @property
    def reason(self) -> str:
        """Why it is not ``ok``; empty when it is."""
        if self.disabled:
            return f"switched off by {DISABLE_VARIABLE}"
        reasons = [f"{error.reason}; {error.hint}" if error.hint else error.reason for error in self.problems]
        if self.observer_errors:
            reasons.append(f"its observers raised {self.observer_errors} times, last {self.last_observer_error}")
        return "; ".join(reasons)

    def fail(self, reason: str, error: BaseException | None = None, *, hint: str = "") -> None:
        """Record a failure, and the traceback of `error` unless there is one already."""
        self.errors.append(PluginError(reason, hint=hint))
        if error is not None:
            self.keep_traceback(error)

    def keep_traceback(self, error: BaseException) -> None:
        """Keep the traceback of the first failure."""
        if not self.traceback:
            self.traceback = "".join(traceback.format_exception(error))


class PluginSet:
    """The plugins of one program: their rows in loading order, what they offer, and the observers."""

    def __init__(
        self, rows: Sequence[PluginRow], observers: Mapping[str, Sequence[tuple[PluginRow, Observer]]]
    ) -> None:
        self.rows = list(rows)
        self._observers = {event: tuple(observers.get(event, ())) for event in EVENTS}
        self._lock = threading.Lock()  # observers of several devices may fail at once: the counts stay exact

    def offers(self, family: str) -> Iterator[tuple[PluginRow, Offer]]:
        """Every offer of one family with its plugin, in loading order, refused ones too."""
        for row in self.rows:
            for offer in row.offers:
                if offer.family == family:
                    yield row, offer

    @property
    def extra_attributes(self) -> tuple[Any, ...]:
        """The attributes plugins add (``zramcore.attributes.Attribute``), without the refused ones."""
        return tuple(offer.value for _, offer in self.offers("attributes") if offer.error is None)

    @property
    def cli_commands(self) -> tuple[Any, ...]:
        """The ``click.Command`` objects plugins add, without the refused ones."""
        return tuple(offer.value for _, offer in self.offers("cli_commands") if offer.error is None)

    def reserve(self, family: str, names: Iterable[str]) -> None:
        """Refuse offers of `family` whose name zramcore itself uses: attributes.ATTRIBUTES, the commands of the CLI.

        The names live on floors above this one, so their owners say them. May be called again.
        """
        taken = dict.fromkeys(names, GROUP)
        for row, offer in self.offers(family):
            if offer.error is None and offer.name in taken:
                offer.error = duplicate_name(offer, taken[offer.name], row.label)

    def notify(self, event: str, /, **fields: object) -> None:
        """Tell every observer of `event` (one of EVENTS), in loading order, in the caller's thread.

        An observer that raises is logged with its plugin's name and counted in its row; the next one is called.
        Raises ValueError for an event that has no hook and TypeError for fields that are not the hook's arguments.
        """
        try:
            observers = self._observers[event]
        except KeyError:
            raise ValueError(f"no hook zramcore_{event}: the events are {', '.join(EVENTS)}") from None
        if not observers:
            return
        wanted = HOOKS[f"{GROUP}_{event}"]
        if fields.keys() != set(wanted):
            raise TypeError(f"event {event} has the fields {', '.join(wanted)}, not {', '.join(fields)}")
        for row, observer in observers:
            failure = self._tell(row, observer, event, fields)
            if failure is not None:
                count, error = failure
                # One traceback a plugin: an observer that fails at every pass must not bury everything else.
                logger.error(
                    "plugin %s: observer zramcore_%s raised %s",
                    row.label,
                    event,
                    describe(error),
                    exc_info=error if count == 1 else None,
                )

    def try_observers(self) -> None:
        """Tell every observer of every event once, about the made-up device of TRIAL; what fails is in its row.

        Events happen in the process that has the device: this is how another one finds observers that cannot work.
        """
        for event, observers in self._observers.items():
            fields = {name: TRIAL[name] for name in HOOKS[f"{GROUP}_{event}"]}
            for row, observer in observers:
                self._tell(row, observer, event, fields)

    def _tell(
        self, row: PluginRow, observer: Observer, event: str, fields: Mapping[str, object]
    ) -> tuple[int, BaseException] | None:
        """Call one observer. If it raised: how often its plugin's observers have by now, and what it was."""
        try:
            observer(**fields)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: an observer does not end the program
            with self._lock:
                row.observer_errors += 1
                row.last_observer_error = f"{GROUP}_{event}: {describe(error)}"
                row.keep_traceback(error)
                return row.observer_errors, error
        return None


def describe(error: BaseException) -> str:
    """Type and text of an exception in one line, whatever its ``__str__`` does."""
    try:
        text = " ".join(str(error).split())
    except Exception as broken:
        text = f"(its text cannot be read: {type(broken).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def duplicate_name(offer: Offer, first: str, second: str) -> DuplicateName:
    """The error of an offer whose name is taken; `first` keeps it."""
    return DuplicateName(
        f"{FAMILIES[offer.family]} {offer.name!r} is registered by {first} and again by {second}",
        hint="the first one stays",
    )


def refuse_duplicates(plugins: PluginSet, family: str) -> dict[str, Offer]:
    """The accepted offers of `family` by name. Of several with one name the first stays; the others get an error."""
    accepted: dict[str, Offer] = {}
    owners: dict[str, str] = {}
    for row, offer in plugins.offers(family):
        if offer.error is None:
            if offer.name in accepted:
                offer.error = duplicate_name(offer, owners[offer.name], row.label)
            else:
                accepted[offer.name] = offer
                owners[offer.name] = row.label
    return accepted
