"""Loads the plugins one by one and keeps what failed as a row with its reason.

Every plugin gets a pluggy manager of its own. So a misspelled hook or a wrong argument belongs to the plugin that has
it, a registration hook or an observer that raises cannot keep the next plugin from being called, and a plugin that is
refused leaves nothing behind. Nothing is loaded on import: the program calls `load_plugins` and passes the result on.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from types import FunctionType, ModuleType
from typing import Any

import pluggy

from . import hookspecs
from .errors import DuplicateName, PluginError
from .interfaces import Option
from .pluginset import (
    DISABLE_VARIABLE,
    EVENTS,
    FAMILIES,
    GROUP,
    HOOKS,
    Observer,
    Offer,
    PluginRow,
    PluginSet,
    describe,
    logger,
    refuse_duplicates,
)

__all__ = ["PluginRow", "PluginSet", "load_plugins"]

_MODES = {"ro": ("show",), "wo": ("store",), "rw": ("show", "store")}


def load_plugins(entry_points: Iterable[EntryPoint] | None = None) -> PluginSet:
    """Load the plugins of group ``zramcore``: zramcore's own first, then the others by distribution name.

    `entry_points` replaces the installed ones (for tests). No failure of a plugin is raised: an import that raises
    (SystemExit too), an object without hooks, an unknown hook or argument, or a registration hook that raises becomes
    an error in its row, and the rest is loaded. ZRAMCORE_DISABLE_PLUGINS switches plugins off by name.
    """
    rows: list[PluginRow] = []
    found = sorted(_installed(rows) if entry_points is None else entry_points, key=_loading_order)
    disabled = {_normalize(name) for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}
    unused = set(disabled)
    observers: dict[str, list[tuple[PluginRow, Observer]]] = {event: [] for event in EVENTS}
    loaded: dict[int, tuple[object, PluginRow]] = {}
    for entry_point in found:
        row = _new_row(entry_point)
        rows.append(row)
        name, owner = _normalize(row.name), _normalize(row.distribution)
        if matched := disabled & {name, owner, f"{owner}:{name}"}:
            unused -= matched
            row.disabled = True
            continue
        plugin = _load(entry_point, row)
        if plugin is None:
            continue
        if id(plugin) in loaded:
            first = loaded[id(plugin)][1].label
            row.errors.append(DuplicateName(f"{row.entry_point} is already loaded as {first}"))
            continue
        loaded[id(plugin)] = plugin, row  # keeps the object alive, so that its id stays its own
        manager = _register(plugin, row)
        if manager is not None:
            _collect(manager, row, observers)
    for name in sorted(unused):
        logger.warning("%s: no plugin or distribution is called %r", DISABLE_VARIABLE, name)
    result = PluginSet(rows, observers)
    for family in ("attributes", "cli_commands"):
        refuse_duplicates(result, family)
    return result


def _normalize(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _installed(rows: list[PluginRow]) -> list[EntryPoint]:
    """The entry points of every distribution on sys.path; one with unreadable metadata becomes a failed row.

    importlib.metadata.entry_points() reads all of them in one go, so one damaged file would hide every plugin.
    Only distributions that mention the group are looked at closely: parsing all their metadata costs 0.5 ms each.
    """
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for candidate in distributions():
        if f"[{GROUP}]" not in (candidate.read_text("entry_points.txt") or ""):
            continue
        name, version = _identity(candidate)
        if _normalize(name) in seen:
            continue
        try:
            # Of several copies on sys.path the first is the one that is imported, also when it has no plugins.
            in_force = distribution(name) if name else candidate
            found += in_force.entry_points.select(group=GROUP)
        except Exception as error:
            row = PluginRow(name or "?", "entry_points.txt", name, version)
            row.fail(f"its entry points cannot be read: {describe(error)}", error)
            rows.append(row)
        if name:
            seen.add(_normalize(name))
    return found


def _identity(owner: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution; empty where its metadata does not say."""
    if owner is None:
        return "", ""
    try:
        metadata = owner.metadata
        return metadata["Name"] or "", metadata["Version"] or ""
    except Exception as error:
        logger.debug("unreadable metadata of %r: %s", owner, describe(error))
        return "", ""


def _loading_order(entry_point: EntryPoint) -> tuple[bool, str]:
    name = _normalize(_identity(entry_point.dist)[0])
    return name != GROUP, name


def _new_row(entry_point: EntryPoint) -> PluginRow:
    name, version = _identity(entry_point.dist)
    row = PluginRow(entry_point.name, entry_point.value, name, version)
    top = entry_point.value.partition(":")[0].partition(".")[0].strip()
    try:
        spec = importlib.util.find_spec(top)  # of the top level name, so nothing is imported here
    except (ImportError, ValueError, AttributeError):
        spec = None
    row.file = (spec.origin or "") if spec else ""
    return row


def _load(entry_point: EntryPoint, row: PluginRow) -> object | None:
    """Import the plugin; None (and an error in its row) when that fails or it cannot be a plugin."""
    if entry_point.pattern.match(entry_point.value) is None:
        row.fail(f"{entry_point.value!r} is not an entry point", hint="write module or module:object")
        return None
    try:
        plugin: object = entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a stranger's module raises, SystemExit too
        row.fail(f"import failed: {describe(error)}", error)
        return None
    module = plugin if isinstance(plugin, ModuleType) else sys.modules.get(entry_point.module)
    row.file = getattr(module, "__file__", None) or row.file
    if inspect.isclass(plugin):
        row.fail(f"{entry_point.value} is a class", hint="name a module, or an instance of the class")
        return None
    if plugin is None:
        row.fail(f"{entry_point.value} is None, not a module or an object with hooks")
    return plugin


def _register(plugin: object, row: PluginRow) -> pluggy.PluginManager | None:
    """A manager with this one plugin; None (and an error in its row) when its hooks are not those of hookspecs.py."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, row.name)
        unmarked = _unmarked_hooks(plugin)
    except pluggy.PluginValidationError as error:
        row.fail("; ".join(line.strip() for line in str(error).splitlines()), hint=_arguments_hint(str(error)))
        return None
    except Exception as error:
        row.fail(f"its hooks cannot be read: {describe(error)}", error)
        return None
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if not caller.has_spec() and not implementation.optionalhook:
                row.fail(f"unknown hook {caller.name!r}", hint=_hook_hint(caller.name))
            elif implementation.wrapper or implementation.hookwrapper:
                row.fail(f"hook {caller.name!r} is a wrapper", hint="each plugin is called alone, with nothing to wrap")
            elif implementation.tryfirst or implementation.trylast:
                row.warnings.append(f"tryfirst and trylast of {caller.name} have no effect: the order is fixed")
    row.warnings += [f"{name} has no @hookimpl: it is never called" for name in unmarked]
    if not callers:
        row.fail("no hooks in it", hint=row.warnings[0] if unmarked else "mark its functions with @hookimpl")
    return None if row.errors else manager


def _unmarked_hooks(plugin: object) -> list[str]:
    """Functions named like a hook that carry no marker (nor are the hookspecs themselves)."""
    names = []
    for name in dir(plugin):
        if name.startswith(f"{GROUP}_"):
            value = inspect.getattr_static(plugin, name, None)
            function = getattr(value, "__func__", value)  # of a staticmethod or classmethod; either may be marked
            marked = any(hasattr(it, f"{GROUP}_{mark}") for it in (value, function) for mark in ("impl", "spec"))
            if isinstance(function, FunctionType) and not marked:
                names.append(name)
    return names


def _hook_hint(name: str) -> str:
    close = difflib.get_close_matches(name, HOOKS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the hooks are {', '.join(HOOKS)}"


def _arguments_hint(message: str) -> str:
    """The arguments of the hook that a validation error is about."""
    for name, arguments in HOOKS.items():
        if f"{name!r}" in message:
            return f"the arguments of {name} are: {', '.join(arguments)}" if arguments else f"{name} takes no arguments"
    return ""


def _collect(
    manager: pluggy.PluginManager, row: PluginRow, observers: dict[str, list[tuple[PluginRow, Observer]]]
) -> None:
    """Call the plugin's registration hooks, and remember its observers."""
    for family in FAMILIES:
        hook = f"{GROUP}_{family}"
        caller = getattr(manager.hook, hook)
        if not caller.get_hookimpls():
            continue
        try:
            results = caller()
            offers = [_new_offer(family, value) for result in results for value in result]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code
            row.fail(f"{hook} raised {describe(error)}", error)
            continue
        if not results:
            row.fail(f"{hook} returned None, not a list")
        row.offers += offers
    for event in EVENTS:
        observer = getattr(manager.hook, f"{GROUP}_{event}")
        if observer.get_hookimpls():
            row.observes += (event,)
            observers[event].append((row, observer))


def _new_offer(family: str, value: Any) -> Offer:
    """What can be said about `value` without trusting it; it is judged afterwards."""
    name = getattr(value, "name", None)
    summary = getattr(value, "summary", None) or getattr(value, "short_help", None)
    if not summary and family == "cli_commands":
        summary = str(getattr(value, "help", None) or "").strip().partition("\n")[0]
    options = getattr(value, "options", None)
    declared = [option for option in options if isinstance(option, Option)] if isinstance(options, Sequence) else []
    offer = Offer(family, value, name if isinstance(name, str) else repr(value), str(summary or ""), tuple(declared))
    if family in _CHECKS:  # classes are judged by registry.build_catalogue
        offer.error = _CHECKS[family](offer)
    return offer


def _attribute_error(offer: Offer) -> PluginError | None:
    """Attribute lives on a higher floor, so its shape is checked, not its class."""
    value = offer.value
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(getattr(value, "name", ""))):
        return PluginError(f"attribute {offer.name!r} is not a file name", hint="use letters, digits and _")
    needed = _MODES.get(str(getattr(value, "mode", "")))
    if needed is None:
        return PluginError(f"attribute {offer.name!r} has no mode", hint=f"one of {', '.join(_MODES)}")
    missing = [part for part in needed if not callable(getattr(value, part, None))]
    if missing:
        return PluginError(f"attribute {offer.name!r} is {value.mode} but has no {' and no '.join(missing)} function")
    return None


def _command_error(offer: Offer) -> PluginError | None:
    import click  # here: the library does not need it, and a plugin that has a command has imported it

    if not isinstance(offer.value, click.Command):
        return PluginError(f"{offer.name} is not a click.Command", hint="decorate it with @click.command()")
    if not offer.value.name:
        return PluginError("a command has no name")
    return None


_CHECKS = {"attributes": _attribute_error, "cli_commands": _command_error}
