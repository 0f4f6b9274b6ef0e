"""docs/patch-map.md names symbols and tests that exist, and every defect of the seed patch."""

import importlib
import re
from functools import reduce
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "patch-map.md").read_text()


def test_every_symbol_exists():
    symbols = re.findall(r"`(zramcore\w*(?:\.\w+)*):(\w+(?:\.\w+)*)`", PAGE)
    assert len(symbols) > 20
    for module, path in symbols:
        reduce(getattr, path.split("."), importlib.import_module(module))


def test_every_test_exists():
    named = set(re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE))
    assert len(named) > 20
    for file, name in named:
        assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_every_defect_has_its_row():
    assert re.findall(r"^\| B(\d+) \|", PAGE, re.MULTILINE) == [str(number) for number in range(1, 21)]
