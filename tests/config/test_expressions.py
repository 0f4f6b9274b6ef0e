"""Sizes over ram: values, precedence, and errors that say where."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zramcore.config.expressions import DEEPEST, LONGEST, evaluate, has_ram, is_expression, parse, total_ram
from zramcore.errors import InvalidValue, OutOfRange

RAM = 24 << 30

VALUES = [
    ("min(ram / 2, 4G)", 4 << 30),
    ("max(ram / 2, 4G)", 12 << 30),
    ("ram", RAM),
    (" ( ram ) ", RAM),
    ("ram * 0.75", 18 << 30),
    ("0.1*ram", RAM // 10),
    ("min(min(ram, 4096M) + max(ram - 4096M, 0) / 2, 32 * 1024M)", (4 << 30) + (10 << 30)),
    ("2 + 3 * 4", 14),
    ("(2 + 3) * 4", 20),
    ("100 - 10 - 5", 85),
    ("64 / 4 / 2", 8),
    ("7 / 2", 3),
    ("7 / 2 * 2", 7),
    ("1.5G + 0", 3 << 29),
    ("1k+1m+1g+1t", (1 << 10) + (1 << 20) + (1 << 30) + (1 << 40)),
    ("1MiB * 2", 2 << 20),
    ("1MB * 2", 2 << 20),
    ("0x10 * 2", 32),
    ("min(5, 3, 9)", 3),
    ("max(5)", 5),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: int) -> None:
    assert is_expression(text)
    assert evaluate(text, RAM) == value


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("min(ram / 2, 4G", 4, "this bracket is not closed"),
        ("(1", 1, "this bracket is not closed"),
        ("1)", 2, "closed that was not opened"),
        ("1 / 0", 3, "divides by 0"),
        ("1 / (ram - ram)", 3, "divides by 0"),
        ("ram +", 6, "it ends where a number is missing"),
        ("ram * * 2", 7, "a number is missing before '*'"),
        ("-1 + ram", 1, "a number is missing before '-'"),
        ("max()", 5, "a number is missing before ')'"),
        ("rma / 2", 1, "there is no 'rma'"),
        ("ram / sqrt(4)", 7, "there is no 'sqrt'"),
        ("min + 1", 1, "min needs its arguments"),
        ("ram % 2", 5, "'%' means nothing here"),
        ("ram 2", 5, "an operator is missing before '2'"),
        ("3Gx * 2", 2, "an operator is missing before 'Gx'"),
        ("(1, 2)", 1, "this bracket is not closed"),
        ("ram * 1e3", 8, "an operator is missing before 'e3'"),
        ("ram;1", 4, "';' means nothing here"),
        ("ram * \u0663", 7, "means nothing here"),
    ],
)
def test_errors_say_where(text: str, column: int, reason: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        evaluate(text, RAM)
    assert f"{text!r}, column {column}: " in raised.value.reason
    assert reason in raised.value.reason
    assert raised.value.hint


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(InvalidValue) as raised:
        evaluate("rma / 2", RAM)
    assert "did you mean 'ram'?" in raised.value.hint


@pytest.mark.parametrize("text", ["1 - 2", "ram - 2 * ram", "16E * 1", "ram * ram"])
def test_a_size_is_a_size(text: str) -> None:
    with pytest.raises(OutOfRange, match="comes to"):
        evaluate(text, RAM)


@pytest.mark.parametrize("text", ["", "4096", "512M", "1.5M", "0x100000", "lots", "G", "-1", "+5", "1MiB", "8m "])
def test_what_memparse_reads_is_left_to_it(text: str) -> None:
    assert not is_expression(text)


def test_neither_deep_nor_long_ones_hurt() -> None:
    assert evaluate("(" * DEEPEST + "1" + ")" * DEEPEST) == 1
    with pytest.raises(InvalidValue, match="brackets within each other"):
        parse("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1))
    with pytest.raises(InvalidValue, match=f"at most {LONGEST}"):
        parse("1+" * LONGEST + "1")
    assert evaluate("1+" * (LONGEST // 2 - 1) + "1") == LONGEST // 2


def test_ram_is_the_machines(tmp_path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        1000 kB\nMemFree: 3 kB\n")
    assert total_ram(meminfo) == 1000 << 10
    assert evaluate("ram / 2") == total_ram() // 2
    assert has_ram(parse("min(1, 2 * ram)"))
    assert not has_ram(parse("min(1, 2)"))
    for file in (tmp_path / "absent", tmp_path / "empty"):
        (tmp_path / "empty").write_text("")
        with pytest.raises(InvalidValue, match=r"cannot be read|has no MemTotal"):
            total_ram(file)


@given(st.text(alphabet="0123456789.KMGram in(),+-*/x%", max_size=40))
def test_any_text_is_a_size_or_one_of_our_errors(text: str) -> None:
    with suppress(InvalidValue, OutOfRange):
        assert 0 <= evaluate(text, RAM) < 1 << 64


@st.composite
def _sums(draw, depth: int = 3) -> str:
    """Expressions that Python reads alike."""
    if depth == 0 or draw(st.booleans()):
        return str(draw(st.integers(0, 999)))
    left, right = draw(_sums(depth - 1)), draw(_sums(depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "(", "min", "max"]))
    if kind == "(":
        return f"({left})"
    return f"{kind}({left}, {right})" if kind in ("min", "max") else f"{left} {kind} {right}"


@given(_sums())
def test_precedence_is_arithmetics(text: str) -> None:
    wanted = Fraction(eval(text, {"min": min, "max": max}))
    if wanted < 0:
        with pytest.raises(OutOfRange):
            evaluate(text)
    else:
        assert evaluate(text) == wanted
