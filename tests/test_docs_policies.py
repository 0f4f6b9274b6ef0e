"""docs/policies.md is true: every policy and option is in it with its default, and its examples check."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from zramcore.config import check_file
from zramcore.interfaces import Catalogue
from zramcore_plugins.policies import zramcore_policies
from zramcore_plugins.policies.options import read_size
from zramcore_plugins.policies.presets import PRESETS

TEXT = (Path(__file__).parents[1] / "docs" / "policies.md").read_text()


def rows() -> dict[str, dict[str, str]]:
    """Policy -> option -> default, from the tables."""
    found: dict[str, dict[str, str]] = {}
    policy = ""
    pattern = r"^\| (?:`([a-z_]+)`)? ?\| (?:`([a-z_]+)`)? ?\| .* \| (?:`([^`]*)`|preset)? ?\|$"
    for name, option, default in re.findall(pattern, TEXT, re.MULTILINE):
        policy = name or policy
        found.setdefault(policy, {}).update({option: default} if option else {})
    return found


def test_every_option_of_every_policy_is_documented_with_its_default() -> None:
    kinds = {kind.name: kind for kind in zramcore_policies()}
    documented = rows()
    assert set(documented) == set(kinds)
    for name, options in documented.items():
        assert list(options) == [option.name for option in kinds[name].options]
        for option in kinds[name].options:
            text = options[option.name]
            assert (option.read(text) if text else "") == option.default, f"{name}: {option.name}"


def test_the_presets_are_documented() -> None:
    for name, preset in PRESETS.items():
        line = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` | "))
        assert line.endswith(f"| {preset.modes.replace(',', ', ')} |")
        values = asdict(preset)
        sizes = [read_size(size) for size in re.findall(r"\b\d+[MG]\b", line)]
        assert sizes == [values[key] for key in ("min_round", "max_round", "per_day") if values[key]]
        assert f"| {values['first'] / 3600:.0f}h, {values['period'] / 3600:.0f}h |" in line


def test_the_examples_check(tmp_path: Path, built_in: Catalogue) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example.replace("/var/tmp", str(tmp_path)))
        assert check_file(file, built_in)[1] == []
