"""The counters are shown while a recompression is in the middle of a page; test_insight.py has writeback."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from zramcore import attributes
from zramcore.device import Device
from zramcore.interfaces import Buffer, Catalogue
from zramcore.testing.faults import Gate
from zramcore.testing.walk import make_page
from zramcore_plugins.compressors.store import StoreContext


def test_the_counters_do_not_even_wait_for_the_page_at_hand(
    catalogue: Catalogue, device: Callable[..., Device]
) -> None:
    """A recompression holds its page's lock while it compresses: whoever reads rows there waits, they do not."""
    with Gate(timeout=10) as gate:

        class Context(StoreContext):
            def compress_page(self, page: Buffer) -> bytes:
                gate(0, 1)
                return super().compress_page(page)

        class Slow(catalogue.compressors["store"]):  # type: ignore[name-defined,misc]
            name = "slow"

            def create_context(self) -> Context:
                return Context()

        new = device(
            8, uses=replace(catalogue, compressors={**catalogue.compressors, "slow": Slow}),
            recomp_algorithm="algo=slow",
        )  # fmt: skip
        new.pwrite(0, make_page("half", 1, 4096))
        pass_ = threading.Thread(target=attributes.store, args=(new, "recompress", "priority=1"))
        pass_.start()
        gate.wait()
        for name in ("mm_stat", "bd_stat", "io_stat", "debug_stat", "stat", "writeback_preview", "zsmalloc_classes"):
            attributes.show(new, name)
        assert pass_.is_alive()
        gate.open()
        pass_.join(10)
    assert ".n" in attributes.show(new, "block_state")
