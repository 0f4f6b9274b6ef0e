"""docs/dependencies.md has a line for every dependency, and for nothing else."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[ ]", requirement)[0] for requirement in requirements} - {"zramcore"}


def test_every_dependency_is_justified():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = names(project["dependencies"])
    extras = {extra: names(listed) for extra, listed in project["optional-dependencies"].items()}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "dependencies.md").read_text().splitlines()
        if line.startswith("|") and "---" not in line
    ]
    core = [row for row in rows if row[0] in declared]
    assert {row[0] for row in core} == declared
    assert all(row[1] and row[2] for row in core)
    for extra, wanted in extras.items():
        told = {name.strip() for row in rows if row[0] == f"`{extra}`" for name in row[1].split(",")}
        assert wanted <= told, extra
