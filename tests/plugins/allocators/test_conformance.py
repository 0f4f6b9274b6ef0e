"""The built-in allocators through the conformance class, as a third party would run it."""

import pytest

from zramcore.interfaces import Allocator
from zramcore.testing.allocator import AllocatorConformance
from zramcore_plugins import allocators
from zramcore_plugins.allocators import Malloc
from zramcore_plugins.allocators.pool import Pool
from zramcore_plugins.allocators.pure_pool import PurePool


class TestPurePool(AllocatorConformance):
    def make(self, page_size: int, max_objects: int) -> Allocator:
        return PurePool(page_size, max_objects)


class TestNativePool(AllocatorConformance):
    @pytest.fixture(autouse=True)
    def built(self, native: type[Pool]) -> None:
        self.kind = native

    def make(self, page_size: int, max_objects: int) -> Allocator:
        return self.kind(page_size, max_objects)


class TestMalloc(AllocatorConformance):
    def make(self, page_size: int, max_objects: int) -> Allocator:
        return Malloc(page_size, max_objects)


def test_zsmalloc_is_registered_first() -> None:
    """The first allocator is a new device's default."""
    assert [each.name for each in allocators.zramcore_allocators()] == ["zsmalloc", "malloc"]
