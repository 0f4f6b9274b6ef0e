"""Comparisons: every policy has a label of its own."""

from __future__ import annotations

from zramcore.config import PolicyConfig, Where
from zramcore.simulation.compare import labels


def named(*policies: tuple[str, dict[str, str]]) -> list[str]:
    """The labels of these policies."""
    return labels([PolicyConfig(name, options, Where("a test", name)) for name, options in policies])


def test_policies_of_different_names_are_called_so() -> None:
    assert named(("idle", {"age": "3h"}), ("huge", {})) == ["idle", "huge"]


def test_several_of_a_name_are_told_apart_by_their_options() -> None:
    same = {"period": "10m"}
    assert named(("idle", {"age": "1h", **same}), ("huge", {}), ("idle", {"age": "2h", **same})) == [
        "idle age=1h", "huge", "idle age=2h",
    ]  # fmt: skip
    assert named(("idle", {}), ("idle", {"age": "2h"})) == ["idle", "idle age=2h"]


def test_equal_ones_are_numbered() -> None:
    assert named(("huge", {}), ("huge", {}), ("huge", {})) == ["huge", "huge #2", "huge #3"]
