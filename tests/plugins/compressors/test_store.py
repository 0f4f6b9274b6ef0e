"""store: conformance, and pages that stay what they are."""

from __future__ import annotations

from zramcore.interfaces import CompressorParams
from zramcore.testing.compressor import CompressorConformance
from zramcore.testing.samples import make_pages
from zramcore_plugins.compressors import Store


class TestConformance(CompressorConformance):
    def create(self, params: CompressorParams) -> Store:
        return Store(params)


def test_the_object_is_the_page() -> None:
    context = Store(CompressorParams()).create_context()
    pages = list(make_pages(4096).values())
    assert context.compress_pages(pages) == pages
    assert context.compress_page(pages[3]) is pages[3], "bytes need no copy"
