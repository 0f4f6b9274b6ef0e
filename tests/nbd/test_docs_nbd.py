"""docs/nbd.md is true of the numbers it gives."""

from __future__ import annotations

import importlib.util
import re
import sys
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


def test_the_table_is_what_the_script_prints():
    spec = importlib.util.spec_from_file_location("bench_table", Path(__file__).with_name("bench_table.py"))
    script = importlib.util.module_from_spec(spec)
    sys.modules["bench_table"] = script  # dataclasses look there for the module that a class is of
    spec.loader.exec_module(script)
    (printed,) = re.findall(r"^```\n(MiB/s .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = printed.splitlines()
    assert lines[0].split("  ")[0] == "MiB/s"
    assert [name for name in script.SERVERS if name not in lines[0]] == []
    rows = [line[:30].rstrip() for line in lines[1 : lines.index("")]]
    assert rows == [f"nbdcopy {way}" for way in script.COPIES] + [script.label(job) for job in script.JOBS]
    for row, line in zip(rows, lines[1:], strict=False):
        reach = line.split("x")[-1].split()
        assert reach == [f"{least:.1f}" for least in script.REACH.get(row, ())]
    assert set(script.REACH) <= set(rows)
