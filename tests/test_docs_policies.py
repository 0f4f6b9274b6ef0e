"""docs/policies.md is true: every policy and option is in it with its default, and its examples check."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from zramcore.cli import main
from zramcore.config import check_file
from zramcore.interfaces import Catalogue
from zramcore.kernel import KernelControl
from zramcore.testing.sysfs import make_sysfs
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


# Examples -------------------------------------------------------------------------------------------------------------

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LACKING = ("backing_dev", "bd_stat", "recomp_algorithm", "recompress", "writeback", "writeback_batch_size",
           "writeback_limit", "writeback_limit_enable", "compressed_writeback", "block_state")  # fmt: skip
"""What the kernel of the page's examples has not."""


@pytest.fixture
def kernel(tmp_path: Path) -> KernelControl:
    """The kernel of the page's examples: Linux 6.18 without writeback, as a tree; its zram0 is set up by somebody."""
    tree = make_sysfs(tmp_path / "sys", missing=LACKING)
    (tree / "block/zram0/comp_algorithm").write_text("[lzo-rle] lzo lz4 \n")
    return KernelControl(sysfs=tree, config={})


def set_up(kernel: KernelControl) -> None:
    kernel.target("zram0").store("disksize", f"{64 << 20}\n")
    kernel.target("zram0").store("initstate", "1\n")


def test_the_deployments_check(tmp_path: Path, built_in: Catalogue) -> None:
    everything = KernelControl(sysfs=make_sysfs(tmp_path / "all"))
    set_up(everything)
    examples = [text for language, _, text in BLOCK.findall(TEXT) if language == "toml"]
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example.replace("/var/tmp", str(tmp_path)))
        assert check_file(file, built_in, kernel=everything)[1] == []


def test_every_example_prints_what_the_page_says(
    kernel: KernelControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("kernel", "config", "run"):
        monkeypatch.setattr(f"zramcore.cli.{module}.open_kernel", lambda: kernel)
    seen = []
    for language, title, text in BLOCK.findall(TEXT):
        if language == "toml" and title:
            (tmp_path / title).write_text(text)
        for example in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] if language == "console" else ():
            command, _, printed = example.partition("\n")
            program, *words = command.split()
            if program != "zramcore" or words[0] not in ("kernel", "config", "run"):
                continue
            if words[0] != "kernel":
                set_up(kernel)
            assert main(words) == 0
            said = capfd.readouterr().out.replace(f"{tmp_path}/sys/dev/", "/dev/")
            assert re.fullmatch(re.escape(printed.rstrip()).replace(re.escape("..."), ".*"), said.rstrip()), said
            seen.append(words[0])
    assert {"kernel", "config", "run"} <= set(seen)


def test_the_python_example_runs(kernel: KernelControl, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [text for language, _, text in BLOCK.findall(TEXT) if language == "python" and "kernel" in text]
    exec(code, {"__name__": "example"})
    for name in KernelControl().names():
        assert f"{name} compact: " in capsys.readouterr().out
