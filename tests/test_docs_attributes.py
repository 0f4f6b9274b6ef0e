"""docs/attributes.md is what the attribute table says."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_generated_from_the_table():
    made = subprocess.run([sys.executable, DOCS / "make_attributes.py"], capture_output=True, text=True, check=True)
    assert (DOCS / "attributes.md").read_text() == made.stdout, (
        "run: python docs/make_attributes.py > docs/attributes.md"
    )
