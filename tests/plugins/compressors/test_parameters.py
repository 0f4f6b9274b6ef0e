"""The checks that compressors share."""

from __future__ import annotations

import errno

import pytest

from zramcore.errors import InvalidValue, NotSupported
from zramcore.interfaces import CompressorParams
from zramcore_plugins.compressors.parameters import check_dictionary_size, check_range, check_supported


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (CompressorParams(level=3), "level"),
        (CompressorParams(dictionary=b"words"), "dict"),
        (CompressorParams(winbits=-11), "deflate.winbits"),
    ],
)
def test_a_parameter_that_is_not_taken_is_named(params: CompressorParams, named: str) -> None:
    with pytest.raises(NotSupported) as caught:
        check_supported("none", params)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert caught.value.reason == f"none does not take {named}"
    assert caught.value.hint == "it takes no parameters"


def test_parameters_that_are_taken_pass() -> None:
    params = CompressorParams(level=0, dictionary=b"words", winbits=0)
    check_supported("all", params, level=True, dictionary=True, winbits=True)
    check_supported("none", CompressorParams(page_size=65536))


@pytest.mark.parametrize("taken", [True, False])
def test_an_empty_dictionary_is_einval(taken: bool) -> None:
    with pytest.raises(InvalidValue, match="the dictionary is empty") as caught:
        check_supported("any", CompressorParams(dictionary=b""), dictionary=taken)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("value", [1, 5, 9])
def test_range_holds_its_ends(value: int) -> None:
    assert check_range("any", "level", value, 1, 9) == value


@pytest.mark.parametrize("value", [0, 10, -5])
def test_out_of_range(value: int) -> None:
    with pytest.raises(InvalidValue, match=f"any does not take level={value} .*use 1..9"):
        check_range("any", "level", value, 1, 9)


def test_dictionary_size() -> None:
    for dictionary in (None, b"12", b"1234"):
        check_dictionary_size("any", dictionary, 2, 4)
    for dictionary in (b"1", b"12345"):
        with pytest.raises(InvalidValue, match=r"use 2\.\.4 bytes"):
            check_dictionary_size("any", dictionary, 2, 4)
