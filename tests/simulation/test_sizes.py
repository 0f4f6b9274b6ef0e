"""Compressed sizes of pages: the default ones, drawn by a seed, and fitted to what a recording says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zramcore.errors import InvalidValue
from zramcore.simulation.sizes import Samples, default_samples, draw, spread
from zramcore.simulation.trace import HUGE, KNOWN, SAME, WRITE

from .conftest import make_trace

TRACE = make_trace([(0, 0, WRITE)], end=1)
SAMPLES = Samples(("lz4", "zstd"), np.array([[0, 0], [1000, 600], [2000, 1200], [4096, 4000]]))


def test_the_default_sizes_are_sizes() -> None:
    samples = default_samples()
    assert {"lz4", "zstd", "lzo-rle"} <= set(samples.algorithms)
    assert samples.sizes.shape[0] == 512
    assert samples.sizes.min() == 0
    assert samples.sizes.max() <= 4096
    mean = dict(zip(samples.algorithms, samples.sizes.mean(axis=0), strict=True))
    assert mean["zstd"] < mean["lz4hc"] < mean["lz4"] < 4096 / 2


def test_an_algorithm_that_nobody_measured_says_what_to_do() -> None:
    with pytest.raises(InvalidValue, match="nobody measured the sizes of 842") as caught:
        default_samples().of(["842"])
    assert "--sizes PATH" in caught.value.hint


def test_pages_get_the_sizes_of_a_row_by_their_number_and_the_seed() -> None:
    one = draw(SAMPLES, TRACE, 1000, 1, 4096, 3625).sizes
    assert np.array_equal(one, draw(SAMPLES, TRACE, 1000, 1, 4096, 3625).sizes)
    assert np.array_equal(one[:, :500], draw(SAMPLES, TRACE, 500, 1, 4096, 3625).sizes), "and nothing else"
    assert not np.array_equal(one, draw(SAMPLES, TRACE, 1000, 2, 4096, 3625).sizes)
    rows, counts = np.unique(one.T, axis=0, return_counts=True)
    assert rows.tolist() == SAMPLES.sizes.tolist()
    assert counts.min() > 200


def test_what_a_recording_knows_of_pages_is_kept() -> None:
    classes = np.array([KNOWN, KNOWN | SAME, KNOWN | HUGE, 0] * 100, np.uint8)
    trace = replace(TRACE, classes=classes, mean_size=1000.0)
    lz4, zstd = draw(SAMPLES, trace, 400, 1, 4096, 3625).sizes
    assert set(lz4[1::4].tolist()) == set(zstd[1::4].tolist()) == {0}
    assert set(lz4[2::4].tolist()) == {4096}
    assert ((lz4[0::4] > 0) & (lz4[0::4] < 3625)).all()
    plain = (lz4 > 0) & (lz4 < 3625)
    assert lz4[plain].mean() == pytest.approx(1000, rel=0.01)
    assert (zstd[plain] / lz4[plain]).mean() == pytest.approx(0.6, rel=0.01)


def test_samples_without_such_pages_still_give_them() -> None:
    plain = Samples(("lz4",), np.array([[1000]]))
    trace = replace(TRACE, classes=np.array([KNOWN | SAME, KNOWN | HUGE], np.uint8))
    assert draw(plain, trace, 2, 1, 4096, 3625).sizes.tolist() == [[0, 4096]]


def test_samples_are_spread_over_the_data() -> None:
    assert spread([bytes([number]) for number in range(10)], 4) == [b"\0", b"\3", b"\6", b"\t"]
