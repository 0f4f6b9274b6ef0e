"""The grammars of writeback and recompress, and what they refuse. Nothing here needs a device."""

from __future__ import annotations

import errno

import pytest

from zramcore.errors import InvalidValue, OutOfRange, ZramError
from zramcore.pass_grammar import SEED_MODES, parse_recompress, parse_writeback
from zramcore.postprocess import EVERY_PAGE, MODES, Selection
from zramcore.recompress import NO_LIMIT, RecompressRequest
from zramcore.slot_table import HUGE, IDLE, INCOMPRESSIBLE


@pytest.mark.parametrize("word", MODES)
@pytest.mark.parametrize("form", ["{}", "{}\n", " {} ", "type={}", 'type="{}"', '"type={}"'])
def test_modes(word: str, form: str) -> None:
    assert parse_writeback(form.format(word), 10) == [Selection(0, 10, MODES[word])]


def test_what_the_modes_mean() -> None:
    assert {name: (mode.all_of, mode.any_of) for name, mode in MODES.items()} == {
        "idle": (IDLE, 0),
        "huge": (HUGE, 0),
        "huge_idle": (HUGE | IDLE, 0),
        "incompressible": (INCOMPRESSIBLE, 0),
        "idle_or_huge": (0, IDLE | HUGE),
    }


@pytest.mark.parametrize(("bits", "mode"), [("1", "huge"), ("2", "idle"), ("3", "idle_or_huge")])
def test_the_bits_of_the_seed(bits: str, mode: str) -> None:
    assert SEED_MODES[bits] == mode
    assert parse_writeback(bits + "\n", 10) == [Selection(0, 10, MODES[mode])]


@pytest.mark.parametrize("text", ["", "\n", "   ", "foo=bar", "foo=bar baz=1\n"])
def test_nothing_to_do(text: str) -> None:
    assert parse_writeback(text, 10) == []


def test_pages_and_ranges() -> None:
    assert parse_writeback("page_index=3 page_indexes=0-9 page_index=3", 10) == [
        Selection(3, 4, EVERY_PAGE),
        Selection(0, 10, EVERY_PAGE),
        Selection(3, 4, EVERY_PAGE),
    ]


def test_a_mode_ends_the_parsing() -> None:
    assert parse_writeback("huge page_index=99 junk", 10) == [Selection(0, 10, MODES["huge"])]
    assert parse_writeback("type=idle nonsense", 10) == [Selection(0, 10, MODES["idle"])]


def test_a_mode_after_a_range_looks_at_that_range() -> None:
    """A quirk of the kernel that scripts may have come to rely on."""
    assert parse_writeback("page_indexes=2-5 type=huge", 10) == [
        Selection(2, 6, EVERY_PAGE),
        Selection(2, 6, MODES["huge"]),
    ]


@pytest.mark.parametrize("text", ["page_index=10", "page_indexes=0-10", "page_indexes=5-4", f"page_index={1 << 70}"])
def test_out_of_range(text: str) -> None:
    with pytest.raises(OutOfRange):
        parse_writeback(text, 10)


WRONG = (
    "all",
    "IDLE",
    "idles",
    "type=all",
    "page_index",
    "page_index=",
    "page_index=1x",
    "page_indexes=1",
    "page_indexes=1-x",
)


@pytest.mark.parametrize("text", WRONG)
def test_invalid(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_writeback(text, 10)
    assert caught.value.errno == errno.EINVAL


def test_a_misspelled_mode_gets_a_hint() -> None:
    with pytest.raises(InvalidValue, match="did you mean 'huge_idle'"):
        parse_writeback("hugeidle", 10)


def test_recompress_defaults() -> None:
    assert parse_recompress("") == RecompressRequest()
    assert RecompressRequest() == RecompressRequest(EVERY_PAGE, "all", 0, 1, None, NO_LIMIT)


def test_recompress_fields() -> None:
    text = "type=huge_idle threshold=3000 priority=2 algo=zstd max_pages=7 colour=red"
    assert parse_recompress(text) == RecompressRequest(MODES["huge_idle"], "huge_idle", 3000, 2, "zstd", 7)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("type", errno.EINVAL),
        ("type=", errno.EINVAL),
        ("idle", errno.EINVAL),
        ("type=all", errno.EINVAL),
        ("threshold=-1", errno.EINVAL),
        (f"threshold={1 << 32}", errno.ERANGE),
        ("max_pages=many", errno.EINVAL),
        ("priority=one", errno.EINVAL),
    ],
)
def test_recompress_refuses(text: str, number: int) -> None:
    with pytest.raises(ZramError) as caught:
        parse_recompress(text)
    assert caught.value.errno == number
