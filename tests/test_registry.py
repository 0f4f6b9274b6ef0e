from __future__ import annotations

import abc
import dataclasses
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from zramcore.errors import DuplicateName, IncompatibleApi, PluginError, UnknownName
from zramcore.interfaces import (
    API_VERSION,
    Allocator,
    BackingDriver,
    Catalogue,
    Compressor,
    CompressorContext,
    Option,
    WritebackPolicy,
)
from zramcore.pluginset import DISABLE_VARIABLE, Offer, PluginRow, PluginSet
from zramcore.registry import (
    CONTRACTS,
    KERNEL_ORDER,
    build_catalogue,
    default_allocator,
    default_compressor,
    explain_miss,
)


class Base(Compressor):
    def create_context(self) -> CompressorContext:
        raise NotImplementedError


def compressor(name: object, base: type[Any] = Base, **fields: object) -> type[Any]:
    return type(f"C_{name}".replace("\x00", "0"), (base,), {"name": name, **fields})


def concrete(contract: type[Any], name: str, **fields: object) -> type[Any]:
    """A class of `contract` with every abstract method filled in."""
    methods = {method: lambda self, *_: None for method in contract.__abstractmethods__}
    return type(f"{contract.__name__}_{name}", (contract,), {**methods, "name": name, **fields})


def row(distribution: str, family: str, *values: object) -> PluginRow:
    offers = [Offer(family, value, str(getattr(value, "name", value))) for value in values]
    return PluginRow("plug", f"{distribution}.mod", distribution, "1.0", offers=offers)


def plugin_set(*rows: PluginRow) -> PluginSet:
    return PluginSet(rows, {})


def refusal(value: object, family: str = "compressors") -> PluginError:
    plugins = plugin_set(row("zram-bad", family, value), row("zram-good", "compressors", compressor("good")))
    catalogue = build_catalogue(plugins)
    assert list(catalogue.compressors) == ["good"]
    assert getattr(catalogue, family).keys() <= {"good"}
    (error,) = plugins.rows[0].problems
    assert plugins.rows[0].status == "failed"
    assert plugins.rows[1].status == "ok"
    return error


# The catalogue ------------------------------------------------------------------------------------------------------


def test_compressors_are_listed_in_the_kernels_order_then_as_loaded() -> None:
    names = ["zz", "842", "store", "zstd", "lz4", "aa", "deflate", "lz4hc", "lzo", "lzo-rle"]
    catalogue = build_catalogue(plugin_set(row("a", "compressors", *map(compressor, names))))
    assert list(catalogue.compressors) == [*KERNEL_ORDER, "zz", "store", "aa"]


@pytest.mark.parametrize("family", ["allocators", "backing_drivers", "policies"])
def test_the_other_families_are_listed_as_loaded(family: str) -> None:
    classes = [concrete(CONTRACTS[family], name) for name in ("zeta", "alpha")]
    catalogue = build_catalogue(plugin_set(row("a", family, classes[0]), row("b", family, classes[1])))
    assert dict(getattr(catalogue, family)) == {"zeta": classes[0], "alpha": classes[1]}
    assert list(getattr(catalogue, family)) == ["zeta", "alpha"]


def test_the_catalogue_cannot_be_changed() -> None:
    catalogue = build_catalogue(plugin_set(row("a", "compressors", compressor("lz4"))))
    assert {field.name for field in dataclasses.fields(Catalogue)} == {*CONTRACTS, "advice"}
    for family in CONTRACTS:
        with pytest.raises(TypeError, match="does not support item assignment"):
            getattr(catalogue, family)["lz4"] = Base


def test_a_taken_name_is_refused_naming_both_owners_and_the_first_stays() -> None:
    first, second, other = compressor("lz4"), compressor("lz4"), compressor("fine")
    plugins = plugin_set(row("zram-a", "compressors", first), row("zram-b", "compressors", second, other))
    for _ in range(2):  # building again changes nothing
        catalogue = build_catalogue(plugins)
        assert dict(catalogue.compressors) == {"lz4": first, "fine": other}
        assert [row.status for row in plugins.rows] == ["ok", "conflict"]
        (error,) = plugins.rows[1].problems
        assert isinstance(error, DuplicateName)
        assert error.errno_name == "EEXIST"
        assert error.reason == ("compressor 'lz4' is registered by plug (zram-a 1.0) and again by plug (zram-b 1.0)")
        assert [str(offer) for offer in plugins.rows[1].provides] == ["compressors:fine"]


def test_one_plugin_may_not_use_a_name_twice_but_families_have_names_of_their_own() -> None:
    policy = concrete(WritebackPolicy, "lz4")
    plugins = plugin_set(
        row("zram-a", "compressors", compressor("lz4"), compressor("lz4")), row("zram-b", "policies", policy)
    )
    catalogue = build_catalogue(plugins)
    assert [row.status for row in plugins.rows] == ["conflict", "ok"]
    assert dict(catalogue.policies) == {"lz4": policy}


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [API_VERSION + 1, 0, "1", None])
def test_another_api_version_is_refused(version: object) -> None:
    error = refusal(compressor("bad", api_version=version))
    assert isinstance(error, IncompatibleApi)
    assert f"is written for API version {version!r}, this zramcore has version {API_VERSION}" in error.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "has no name"),
        ("", "has no name"),
        (5, "has no name"),
        ("a b", "has a blank, a control character or one of []:,"),
        ("a\n", "has a blank, a control character or one of []:,"),
        ("a\x00", "has a blank, a control character or one of []:,"),
        ("[a", "has a blank, a control character or one of []:,"),
        ("a]", "has a blank, a control character or one of []:,"),
        ("a:b", "has a blank, a control character or one of []:,"),
        ("a,b", "has a blank, a control character or one of []:,"),
        ("x" * 128, "has 128 characters, at most 127 are allowed"),
    ],
)
def test_a_name_that_attributes_cannot_carry_is_refused(name: object, reason: str) -> None:
    assert reason in refusal(compressor(name)).reason


def test_the_longest_name_is_accepted() -> None:
    catalogue = build_catalogue(plugin_set(row("a", "compressors", compressor("x" * 127))))
    assert list(catalogue.compressors) == ["x" * 127]


def test_a_class_without_a_name_is_refused() -> None:
    assert "has no name" in refusal(type("Nameless", (Base,), {})).reason


def test_missing_methods_are_named() -> None:
    incomplete = type("Incomplete", (Compressor,), {"name": "incomplete"})
    assert refusal(incomplete).reason.endswith("Incomplete does not implement create_context")
    error = refusal(type("Half", (BackingDriver,), {"name": "half", "close": lambda self: None}), "backing_drivers")
    assert error.reason.endswith("does not implement discard_blocks, flush, read_blocks, write_blocks")


@pytest.mark.parametrize("family", sorted(CONTRACTS))
def test_only_subclasses_of_the_contract_are_accepted(family: str) -> None:
    stranger = concrete(Allocator if family != "allocators" else WritebackPolicy, "stranger")
    contract = CONTRACTS[family].__name__
    assert refusal(stranger, family).reason.endswith(f"is not a subclass of zramcore.interfaces.{contract}")
    assert refusal(SimpleNamespace(name="x"), family).reason.endswith("is not a class")


def test_options_must_be_options() -> None:
    for options in (5, ["path"], [Option("a", int, 1, "good"), None]):
        error = refusal(concrete(WritebackPolicy, "odd", options=options), "policies")
        assert error.reason.endswith("are not a sequence of zramcore.interfaces.Option")


def test_a_class_that_cannot_be_examined_is_refused() -> None:
    class Meta(abc.ABCMeta):
        @property
        def api_version(cls) -> int:
            raise RuntimeError("not today")

    odd = Meta("Odd", (Base,), {"name": "odd"})
    assert refusal(odd).reason.endswith("cannot be examined: RuntimeError: not today")


# Defaults -----------------------------------------------------------------------------------------------------------


def catalogue_of(family: str, *names: str) -> Catalogue:
    values = [compressor(name) if family == "compressors" else concrete(CONTRACTS[family], name) for name in names]
    return build_catalogue(plugin_set(row("a", family, *values)))


@pytest.mark.parametrize(
    ("names", "default"),
    [
        (["zstd", "lz4", "store"], "lz4"),
        (["lz4", "lzo", "lzo-rle"], "lzo-rle"),
        (["store", "mine"], "mine"),
        (["store"], "store"),
    ],
)
def test_the_default_compressor_is_the_first_listed_but_store_only_when_alone(names: list[str], default: str) -> None:
    assert default_compressor(catalogue_of("compressors", *names)) == default


def test_the_default_allocator_is_zsmalloc_or_else_the_first() -> None:
    assert default_allocator(catalogue_of("allocators", "malloc", "zsmalloc")) == "zsmalloc"
    assert default_allocator(catalogue_of("allocators", "malloc", "arena")) == "malloc"


@pytest.mark.parametrize("default", [default_compressor, default_allocator])
def test_without_any_there_is_no_default(default: Any) -> None:
    with pytest.raises(UnknownName, match="is registered"):
        default(build_catalogue(plugin_set()))


# Explaining a miss --------------------------------------------------------------------------------------------------


def test_a_miss_names_the_closest_and_all_known() -> None:
    plugins = plugin_set(row("a", "compressors", compressor("lz4"), compressor("zstd")))
    error = explain_miss("compressors", "zsdt", plugins)
    assert isinstance(error, UnknownName)
    assert (error.errno_name, error.value) == ("EINVAL", "zsdt")
    assert error.reason == "no compressor is called 'zsdt'"
    assert error.hint == "did you mean 'zstd'? known: lz4, zstd"


def test_a_catalogue_gives_the_same_hint() -> None:
    plugins = plugin_set(row("a", "compressors", compressor("lz4")), failed("zram-brotli", "no brotli"))
    catalogue = build_catalogue(plugins)
    hint = catalogue.hint("compressors", "brotli")
    assert hint == explain_miss("compressors", "brotli", plugins).hint
    assert hint == "known: lz4; plugin plug (zram-brotli 1.0) may have it: no brotli"
    assert Catalogue(catalogue.compressors, {}, {}).hint("compressors", "lz5") == "did you mean 'lz4'? known: lz4"


@pytest.mark.parametrize("name", ["lzo", "lzo-rle"])
def test_a_missing_lzo_names_the_distribution_to_install(name: str) -> None:
    plugins = plugin_set(row("a", "compressors", compressor("lz4")))
    hint = explain_miss("compressors", name, plugins).hint
    assert hint.startswith("install it with `pip install zramcore-lzo`; ")
    assert "zramcore-lzo" not in explain_miss("allocators", name, plugins).hint


def failed(distribution: str, reason: str) -> PluginRow:
    broken = PluginRow("plug", distribution.replace("-", "_"), distribution, "1.0")
    broken.fail(reason)
    return broken


def test_a_plugin_that_failed_to_load_is_mentioned_with_its_reason() -> None:
    plugins = plugin_set(failed("zram-brotli", "import failed: no brotli"), failed("zram-other", "import failed: x"))
    hint = explain_miss("compressors", "brotli", plugins).hint
    assert "plugin plug (zram-brotli 1.0) may have it: import failed: no brotli" in hint
    assert "zram-other" not in hint


def test_any_failed_plugin_may_have_had_the_name() -> None:
    rows = [failed(f"zram-{letter}", f"reason {letter}") for letter in "abcd"]
    hint = explain_miss("policies", "nightly", plugin_set(*rows)).hint
    assert hint == (
        "none is registered; plugin plug (zram-a 1.0) may have it: reason a; plugin plug (zram-b 1.0) may have it: "
        "reason b; 2 more plugins are not working: see `zramcore plugins`"
    )


def test_a_refused_class_of_that_name_is_the_culprit() -> None:
    plugins = plugin_set(
        failed("zram-other", "unrelated"), row("zram-new", "compressors", compressor("future", api_version=9))
    )
    hint = explain_miss("compressors", "future", plugins).hint
    assert "plugin plug (zram-new 1.0) may have it: compressor class C_future is written for API version 9" in hint
    assert "unrelated" not in hint


def test_a_plugin_that_is_switched_off_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    from zramcore.pluginmanager import load_plugins

    monkeypatch.setenv(DISABLE_VARIABLE, "brotli")
    plugins = load_plugins([EntryPoint("brotli", "zram_brotli", "zramcore")])
    hint = explain_miss("compressors", "brotli", plugins).hint
    assert "plugin brotli may have it: switched off by ZRAMCORE_DISABLE_PLUGINS" in hint
