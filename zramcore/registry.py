"""Name -> class per family: judges what the plugins offer, and explains a name that nobody offers.

A class that breaks a rule of its contract, or whose name is taken, is refused with an error in its plugin's row; it is
never silently dropped and never replaces another.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .errors import IncompatibleApi, PluginError, UnknownName, did_you_mean
from .interfaces import (
    API_VERSION,
    Allocator,
    BackingDriver,
    Catalogue,
    Compressor,
    Option,
    WritebackPolicy,
)
from .pluginset import FAMILIES, Offer, PluginRow, PluginSet, describe, refuse_duplicates

CONTRACTS: Mapping[str, type[Any]] = {
    "compressors": Compressor,
    "allocators": Allocator,
    "backing_drivers": BackingDriver,
    "policies": WritebackPolicy,
}
"""The families whose offers are classes -> the contract they implement. The keys are the fields of Catalogue."""

KERNEL_ORDER = ("lzo-rle", "lzo", "lz4", "lz4hc", "zstd", "deflate", "842")
"""The order of comp_algorithm in the kernel (zcomp.c, `backends`); other compressors follow in loading order."""

NAME_MAX = 128
"""A name is shorter than this: CRYPTO_MAX_ALG_NAME, the kernel's limit for comp_algorithm."""

ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("compressors", "lzo"): "zramcore-lzo",
    ("compressors", "lzo-rle"): "zramcore-lzo",
}
"""Names that zramcore does not bring, and the distribution that does."""

_FORBIDDEN = "[]:,"  # comp_algorithm brackets the chosen name; backing_dev and config split at the others


def build_catalogue(plugins: PluginSet) -> Catalogue:
    """The classes a device may choose from, by name, as read-only mappings.

    Each class offered is judged first: a refused one gets an error in its plugin's row (IncompatibleApi for another
    API version, DuplicateName for a taken name, PluginError for anything else that breaks its contract). May be
    called again on the same plugins, with the same result.
    """
    families: dict[str, Mapping[str, Any]] = {}
    for family, contract in CONTRACTS.items():
        for row, offer in plugins.offers(family):
            offer.error = _judge(row, offer, contract)
        families[family] = {name: offer.value for name, offer in refuse_duplicates(plugins, family).items()}
    # sorted() is stable: names that the kernel does not have keep the order they were loaded in.
    names = sorted(families["compressors"], key=lambda name: _kernel_rank(name))
    families["compressors"] = {name: families["compressors"][name] for name in names}
    return Catalogue(
        **{family: MappingProxyType(dict(classes)) for family, classes in families.items()},
        advice=lambda family, name: explain_miss(family, name, plugins).hint,
    )


def default_compressor(catalogue: Catalogue) -> str:
    """The algorithm of a new device: the first one listed, as in the kernel, but `store` only when it is alone.

    Raises UnknownName (EINVAL) when there is none.
    """
    names = list(catalogue.compressors)
    if not names:
        raise UnknownName("no compressor is registered", hint="`zramcore plugins` says why")
    return next((name for name in names if name != "store"), names[0])


def default_allocator(catalogue: Catalogue) -> str:
    """zsmalloc, or the first allocator there is. Raises UnknownName (EINVAL) when there is none."""
    names = list(catalogue.allocators)
    if not names:
        raise UnknownName("no allocator is registered", hint="`zramcore plugins` says why")
    return "zsmalloc" if "zsmalloc" in names else names[0]


def explain_miss(family: str, name: str, plugins: PluginSet) -> UnknownName:
    """The error (returned, not raised) for a `name` that no plugin offers in `family`, a key of CONTRACTS.

    Its hint says what to do: the distribution to install, the plugin that offers it but was refused, failed or is
    switched off, or the closest known name.
    """
    known = getattr(build_catalogue(plugins), family)
    hints = []
    if (family, name) in ELSEWHERE:
        hints.append(f"install it with `pip install {ELSEWHERE[family, name]}`")
    hints.append(did_you_mean(name, known))
    culprits = _culprits(family, name, plugins)
    hints += [f"plugin {row.label} may have it: {row.reason}" for row in culprits[:2]]
    if len(culprits) > 2:
        hints.append(f"{len(culprits) - 2} more plugins are not working: see `zramcore plugins`")
    return UnknownName(f"no {FAMILIES[family]} is called {name!r}", value=name, hint="; ".join(hints))


def _kernel_rank(name: str) -> int:
    return KERNEL_ORDER.index(name) if name in KERNEL_ORDER else len(KERNEL_ORDER)


def _judge(row: PluginRow, offer: Offer, contract: Any) -> PluginError | None:
    try:
        return _contract_error(offer, contract)
    except Exception as error:  # a class with a metaclass or descriptors of its own
        return PluginError(f"{offer} of {row.label} cannot be examined: {describe(error)}")


def _contract_error(offer: Offer, contract: Any) -> PluginError | None:
    """What keeps the class from being used, or None."""
    word, value = FAMILIES[offer.family], offer.value
    if not inspect.isclass(value):
        return PluginError(f"{word} {value!r} is not a class", hint="return the class, not an object of it")
    where = f"{word} class {value.__qualname__}"
    if not issubclass(value, contract):
        return PluginError(f"{where} is not a subclass of zramcore.interfaces.{contract.__name__}")
    version = getattr(value, "api_version", None)
    if version != API_VERSION:
        return IncompatibleApi(
            f"{where} is written for API version {version!r}, this zramcore has version {API_VERSION}",
            hint="install a version of the plugin that fits",
        )
    name = getattr(value, "name", None)
    if not isinstance(name, str) or not name:
        return PluginError(f"{where} has no name", hint="set the class attribute `name`")
    if len(name) >= NAME_MAX:
        return PluginError(f"the name of {where} has {len(name)} characters, at most {NAME_MAX - 1} are allowed")
    if not name.isprintable() or any(char.isspace() or char in _FORBIDDEN for char in name):
        return PluginError(
            f"the name of {where}, {name!r}, has a blank, a control character or one of {_FORBIDDEN} in it"
        )
    if inspect.isabstract(value):
        missing = ", ".join(sorted(getattr(value, "__abstractmethods__", ())))
        return PluginError(f"{where} does not implement {missing}")
    options = getattr(value, "options", ())
    if not isinstance(options, Sequence) or not all(isinstance(option, Option) for option in options):
        return PluginError(f"the options of {where} are not a sequence of zramcore.interfaces.Option")
    return None


def _culprits(family: str, name: str, plugins: PluginSet) -> list[PluginRow]:
    """The plugins that may have offered `name`: those whose refused offer or own name says so, else all that failed."""
    broken = [row for row in plugins.rows if row.disabled or row.problems]
    needle = name.lower()
    likely = [
        row
        for row in broken
        if any(offer.family == family and offer.name == name and offer.error for offer in row.offers)
        or (not row.offers and needle in f"{row.name} {row.distribution} {row.entry_point}".lower())
    ]
    # What a plugin that never loaded would have offered is unknown: it may be any of them.
    return likely or [row for row in broken if row.disabled or row.errors]
