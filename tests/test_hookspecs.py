from __future__ import annotations

import dataclasses
import inspect

import pluggy
import pytest

from zramcore import hookspecs
from zramcore.interfaces import Catalogue
from zramcore.pluginset import EVENTS, FAMILIES, HOOKS

SPECS = {name: value for name, value in vars(hookspecs).items() if name.startswith("zramcore_")}


def test_every_function_of_the_module_is_a_hook() -> None:
    assert set(HOOKS) == set(SPECS)
    manager = pluggy.PluginManager("zramcore")
    manager.add_hookspecs(hookspecs)
    assert {name for name in vars(manager.hook) if not name.startswith("_")} == set(HOOKS)


def test_a_hook_either_registers_a_family_or_observes_an_event() -> None:
    assert {f"zramcore_{name}" for name in (*FAMILIES, *EVENTS)} == set(HOOKS)
    assert not set(FAMILIES) & set(EVENTS)


def test_every_field_of_the_catalogue_has_its_hook() -> None:
    fields = {field.name for field in dataclasses.fields(Catalogue)} - {"advice"}
    assert set(FAMILIES) - fields == {"attributes", "cli_commands"}
    assert fields <= set(FAMILIES)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_hook_is_documented_and_typed(name: str) -> None:
    function = SPECS[name]
    assert (inspect.getdoc(function) or "").strip()
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        # pluggy passes only arguments without a default: one with a default would never reach an observer.
        assert parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_registration_hook_takes_no_arguments(family: str) -> None:
    assert HOOKS[f"zramcore_{family}"] == ()


@pytest.mark.parametrize("event", EVENTS)
def test_an_observer_is_told_the_device_first_and_returns_nothing(event: str) -> None:
    assert HOOKS[f"zramcore_{event}"][0] == "device"
    assert inspect.signature(SPECS[f"zramcore_{event}"]).return_annotation == "None"
