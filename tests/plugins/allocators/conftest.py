"""Both forms of the zsmalloc pool: what the contract says is tested with each."""

from __future__ import annotations

import importlib

import pytest

from zramcore_plugins.allocators.pool import Pool
from zramcore_plugins.allocators.pure_pool import PurePool


def native_pool() -> type[Pool]:
    """The compiled pool; skips the test where it was not built."""
    try:
        module = importlib.import_module("zramcore_plugins.allocators.native_pool")
    except ImportError as error:
        pytest.skip(f"the compiled pool was not built: {error}")
    kind: type[Pool] = module.NativePool
    return kind


@pytest.fixture(scope="session")
def native() -> type[Pool]:
    return native_pool()


@pytest.fixture(scope="session", params=["pure", "native"])
def kind(request: pytest.FixtureRequest) -> type[Pool]:
    return PurePool if request.param == "pure" else native_pool()
