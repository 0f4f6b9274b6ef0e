"""The house: imports go down the floors only (contracts in pyproject.toml), and no file has grown beyond one idea."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_LINES = 420
"""About 400 lines: a file that passes it holds two ideas."""


def test_import_contracts_hold():
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run([sys.executable, "-c", linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert "0 broken" in run.stdout


def test_no_file_holds_two_ideas():
    sources = [*ROOT.glob("zramcore/**/*.py"), *ROOT.glob("plugins/*/**/*.py")]
    assert len(sources) > 60
    long = {str(path.relative_to(ROOT)): lines for path in sources if (lines := count(path)) > MOST_LINES}
    assert not long


def count(path: Path) -> int:
    return len(path.read_text().splitlines())
