"""Priorities, their parameters, and contexts: one for each thread."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from zramcore.errors import CorruptPage, InvalidValue, TooLong
from zramcore.interfaces import Catalogue, CompressorParams
from zramcore.zcomp import NR_PRIORITIES, PRIMARY, ZcompConfig

PAGE = bytes(range(256)) * 16


@pytest.fixture
def config(catalogue: Catalogue) -> ZcompConfig:
    return ZcompConfig(catalogue)


def test_the_default_is_the_first_compressor(config: ZcompConfig, catalogue: Catalogue) -> None:
    assert config.names == [next(iter(catalogue.compressors)), None, None, None]
    assert config.params == [CompressorParams()] * NR_PRIORITIES


def test_choosing(config: ZcompConfig) -> None:
    config.choose(0, "zstd")
    config.choose(2, "lz4hc")
    assert config.listing(0) == "lz4 lz4hc [zstd] deflate store "
    assert config.listing(1) == "lz4 lz4hc zstd deflate store "
    assert config.listing(2) == "lz4 [lz4hc] zstd deflate store "
    assert (config.priority_of("zstd"), config.priority_of("lz4hc")) == (0, 2)
    config.choose(3, "zstd")
    assert config.priority_of("zstd") == 0
    config.forget()
    assert config.names[1:] == [None, None, None]


def test_choosing_forgets_the_parameters_of_that_priority_only(config: ZcompConfig) -> None:
    config.choose(1, "zstd")
    config.params[0] = config.params[1] = CompressorParams(level=3)
    config.choose(0, "zstd")
    assert [params.level for params in config.params] == [None, 3, None, None]


@pytest.mark.parametrize("name", ["", "lz", "LZ4", "zstd ", "x" * 127])
def test_an_unknown_algorithm_is_einval(config: ZcompConfig, name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        config.choose(0, name)
    assert caught.value.errno == errno.EINVAL
    assert "lz4, lz4hc, zstd, deflate, store" in caught.value.hint
    assert config.names[0] == "lz4"


def test_a_name_of_128_characters_is_e2big(config: ZcompConfig) -> None:
    with pytest.raises(TooLong) as caught:
        config.choose(0, "x" * 128)
    assert caught.value.errno == errno.E2BIG


def test_a_priority_that_is_not_chosen(config: ZcompConfig) -> None:
    with pytest.raises(InvalidValue, match="deflate"):
        config.priority_of("deflate")
    with pytest.raises(InvalidValue, match="priority 2"):
        config.create(4096).context(2)


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_the_page_size_reaches_the_algorithm(config: ZcompConfig, page_size: int) -> None:
    config.choose(3, "zstd")
    made = config.create(page_size)
    assert [compressor and compressor.params.page_size for compressor in made.compressors] == [
        page_size, None, None, page_size,
    ]  # fmt: skip


def test_every_priority_decompresses_its_own(config: ZcompConfig) -> None:
    for priority, name in enumerate(("lz4", "zstd", "deflate", "lz4hc")):
        config.choose(priority, name)
    made = config.create(4096)
    for priority in range(NR_PRIORITIES):
        data = made.context(priority).compress_page(PAGE)
        assert bytes(made.decompress(priority, [data, data], 4096)[1]) == PAGE


def test_a_context_belongs_to_one_thread(config: ZcompConfig) -> None:
    made = config.create(4096)
    contexts: list[Any] = []
    both = threading.Barrier(2)

    def work() -> None:
        contexts.append(made.context(PRIMARY))
        assert made.context(PRIMARY) is contexts[-1] or made.context(PRIMARY) in contexts
        both.wait(30)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contexts.append(made.context(PRIMARY))
    assert len({id(context) for context in contexts}) == 3


def test_damaged_data_is_eio_and_names_the_algorithm(config: ZcompConfig) -> None:
    made = config.create(4096)
    with pytest.raises(CorruptPage, match="lz4") as caught:
        made.decompress(PRIMARY, [b"\xff" * 50], 4096)
    assert caught.value.errno == errno.EIO
