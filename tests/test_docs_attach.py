"""docs/attach.md names every option of the two commands, and no other."""

import re
from pathlib import Path

from zramcore.cli.attach import attach, detach

PAGE = (Path(__file__).parent.parent / "docs" / "attach.md").read_text()


def options(command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")} - {"--help"}


def test_every_option_is_named_and_no_other():
    named = set(re.findall(r"`(--[a-z]+)", PAGE))
    assert named == options(attach) | options(detach)
