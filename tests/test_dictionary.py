"""Training a dictionary: what is sampled, and that the gain is measured and true."""

from __future__ import annotations

import random

import pytest

from zramcore import dictionary
from zramcore.dictionary import HELD_OUT_SHARE, Sample, Sampler, measure, train
from zramcore.errors import CorruptPage, InvalidValue
from zramcore.interfaces import Catalogue

WORDS = [f"{word}_{number}".encode() for word in ("slot", "zspage", "handle", "block", "idle") for number in range(80)]


def text(pages: int, seed: int, page_size: int = 4096) -> bytes:
    source = random.Random(seed)
    return b" ".join(source.choices(WORDS, k=pages * page_size // 5))[: pages * page_size]


def test_a_sample_keeps_the_smallest_digests_once_and_in_order() -> None:
    sample = Sample(3)
    for digest in (9, 4, 9, 7, 1, 4, 8):
        sample.offer(digest, str(digest).encode())
    assert (len(sample), sample.pages()) == (3, [b"1", b"4", b"7"])


def sampled(pieces: list[bytes], page_size: int = 4096) -> Sampler:
    sampler = Sampler(4096, page_size)
    for piece in pieces:
        sampler.add(piece)
    return sampler


@pytest.mark.parametrize("page_size", [4096, 16384])
def test_pages_are_cut_whatever_the_pieces_are(page_size: int) -> None:
    data = text(40, 1, page_size) + b"an incomplete page"
    whole = sampled([data], page_size)
    cut = sampled([data[offset : offset + 1000] for offset in range(0, len(data), 1000)], page_size)
    assert cut.train.pages() == whole.train.pages()
    assert cut.held_out.pages() == whole.held_out.pages()
    expected = {data[offset : offset + page_size] for offset in range(0, 40 * page_size, page_size)}
    assert {*whole.train.pages(), *whole.held_out.pages()} == expected
    assert cut.pages_seen == 40


def test_same_filled_pages_and_duplicates_are_left_out() -> None:
    page = text(1, 2)
    sampler = sampled([bytes(3 * 4096) + b"abcdefgh" * 512 + page * 5])
    assert (sampler.pages_seen, sampler.same_filled) == (9, 4)
    assert len(sampler.train) + len(sampler.held_out) == 1


def test_about_one_page_of_eight_is_held_out_and_is_not_trained_on() -> None:
    sampler = sampled([text(800, 3)])
    assert not set(sampler.train.pages()) & set(sampler.held_out.pages())
    assert 0.5 < len(sampler.held_out) * HELD_OUT_SHARE / 800 < 1.5


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "TRAIN_BYTES", 40 * 4096)
    monkeypatch.setattr(dictionary, "HELD_OUT_BYTES", 10 * 4096)
    sampler = sampled([text(300, seed) for seed in range(4)])
    assert (len(sampler.train), len(sampler.held_out), sampler.pages_seen) == (40, 10, 1200)


def test_a_dictionary_helps_with_pages_like_those_it_was_trained_on(catalogue: Catalogue) -> None:
    sampler = sampled([text(400, 4)])
    trained = train(sampler, 3)
    assert 256 <= len(trained) <= 4096
    pages = sampler.held_out.pages()
    without, with_it = (
        measure(catalogue, pages, page_size=4096, level=3, dictionary=given) for given in (None, trained)
    )
    assert without.orig_data_size == with_it.orig_data_size == len(pages) * 4096
    assert with_it.ratio > 1.05 * without.ratio
    assert train(sampled([text(400, 4)]), 3) == trained, "the same data give the same dictionary"


@pytest.mark.parametrize("pages", [0, 1, 8])
def test_too_little_data_is_einval_and_says_how_much_is_needed(pages: int) -> None:
    with pytest.raises(InvalidValue, match=f"{pages} different pages .* about 73 are needed"):
        train(sampled([text(pages, 5)]))


def test_as_much_as_is_needed_is_enough(catalogue: Catalogue) -> None:
    assert train(sampled([text(110, 6)]))


def test_a_size_that_zstd_cannot_make_is_einval() -> None:
    with pytest.raises(InvalidValue, match="at least 256"):
        Sampler(255)


def test_a_level_that_zstd_does_not_have_is_einval(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidValue):
        measure(catalogue, [text(1, 7)], page_size=4096, level=99, dictionary=None)


def test_a_page_that_comes_back_different_is_reported(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(device: object, offset: int, length: int) -> bytes:
        return bytes(length)

    monkeypatch.setattr(dictionary.Device, "pread", lie)
    with pytest.raises(CorruptPage):
        measure(catalogue, [text(1, 8)], page_size=4096, level=3, dictionary=None)
