"""docs/nbd.md is true of the numbers it gives."""

from __future__ import annotations

import re
from pathlib import Path

from zramcore import extents
from zramcore.nbd import contexts, handshake, protocol, server

PAGE = (Path(__file__).parents[2] / "docs" / "nbd.md").read_text()


def test_every_bit_of_zram_state_has_its_line():
    listed = {int(bit): meaning for bit, meaning in re.findall(r"^\| (\d+) \| ([\w-]+(?: back)?)", PAGE, re.MULTILINE)}
    assert listed == {
        extents.SAME_FILLED: "same-filled",
        extents.COMPRESSED: "compressed",
        extents.STORED_HUGE: "huge",
        extents.STORED_IDLE: "idle",
        extents.WRITTEN_BACK: "written back",
    }


def test_limits_and_names():
    assert {context.name for context in contexts.CONTEXTS} == set(re.findall(r"^`(\w+:\w+)`", PAGE, re.MULTILINE))
    assert f"up to {contexts.MAX_EXTENTS:,} extents" in PAGE
    assert f"At most {server.MAX_CONNECTIONS} clients" in PAGE
    assert f"{server.HANDSHAKE_SECONDS:g} seconds (`handshake_timeout`)" in PAGE
    assert f"up to {protocol.MAX_PAYLOAD >> 20} MiB" in PAGE


def test_every_option_that_is_heard_is_named():
    heard = {name for name in vars(handshake) if name.startswith("OPT_")}
    assert len(heard) == 9
    assert {name.removeprefix("OPT_") for name in heard} <= set(re.findall(r"[A-Z_]{2,}", PAGE))
