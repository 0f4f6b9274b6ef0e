"""The samples are what they are called, and the same in every run."""

from __future__ import annotations

from zramcore.testing import samples


def test_pages_are_what_they_are_called() -> None:
    for page_size in samples.PAGE_SIZES:
        pages = samples.make_pages(page_size)
        assert {len(page) for page in pages.values()} == {page_size}
        assert len(set(pages.values())) == len(pages)
        assert pages == samples.make_pages(page_size)


def test_damage_is_damage() -> None:
    data = samples.make_pages(4096)["text"]
    forms = list(samples.damage(data, 4096))
    assert len(forms) > 50
    assert all(form != data for _, form in forms)
    assert forms == list(samples.damage(data, 4096))
