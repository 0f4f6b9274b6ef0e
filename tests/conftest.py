"""What tests share: the real built-in plugins, devices made of them, a clock, a driver that fails, a kernel device."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zramcore import attributes, kernel
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.interfaces import Allocator, Buffer, Catalogue, Compressor, CompressorContext, CompressorParams
from zramcore.kernel import KernelControl, KernelDevice
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.testing.faults import FaultyDriver
from zramcore.testing.inspection import Clock

DeviceFactory = Callable[..., Device]


@pytest.fixture(autouse=True, scope="session")
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where policies keep their state: never in the place of a machine that really runs them."""
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(directory))
        yield directory


@pytest.fixture(scope="session")
def built_in() -> Catalogue:
    """The catalogue of the installed plugins."""
    return build_catalogue(load_plugins())


@pytest.fixture(scope="session")
def catalogue(built_in: Catalogue) -> Catalogue:
    """The installed plugins, and FaultyDriver."""
    return replace(built_in, backing_drivers={**built_in.backing_drivers, FaultyDriver.name: FaultyDriver})


@pytest.fixture
def clock() -> Clock:
    """Boot seconds that stand still until a test sets `now`."""
    return Clock()


@pytest.fixture
def device(catalogue: Catalogue, clock: Clock) -> Iterator[DeviceFactory]:
    """Makes initialised devices: `pages` of memory, `blocks` of a FaultyDriver called "disk" (0: no backing device),
    other attributes by name, written in the order given, before disksize. All are closed at the end."""
    made: list[Device] = []

    def make(pages: int = 64, *, blocks: int = 64, page_size: int = 4096, uses: Catalogue | None = None,
             disk: str = "disk", **settings: str) -> Device:  # fmt: skip
        new = Device(uses or catalogue, f"zram{len(made)}", page_size=page_size, clock=clock)
        made.append(new)
        for name, text in settings.items():
            attributes.store(new, name, text)
        if blocks:
            attributes.store(new, "backing_dev", f"faulty:{disk},blocks={blocks}")
        if pages:
            attributes.store(new, "disksize", str(pages * page_size))
        return new

    yield make
    for each in made:
        each.holders = 0
        each.reset()
    FaultyDriver.reset()


@pytest.fixture
def disk() -> Callable[[], FaultyDriver]:
    """The driver that was opened last as "disk"."""
    return lambda: FaultyDriver.named("disk")


def own_zram0() -> KernelDevice:
    """The machine's own zram0; the test is skipped where it is missing or not ours to use."""
    control = KernelControl()
    if "zram0" not in control.names():
        pytest.skip("this kernel has no zram0")
    if os.geteuid() != 0:
        pytest.skip("zram0 needs root")
    return control.target("zram0")


@pytest.fixture
def zram0() -> Iterator[KernelDevice]:
    """The machine's own zram0, reset before and after; skipped where it is missing, in use or not ours to use."""
    device = own_zram0()
    if device.initialized or kernel._is_open(kernel.SYSFS, "zram0"):
        pytest.skip("zram0 is in use")
    try:
        device.reset()
        yield device
    finally:
        device.reset()


class Rogue:
    """Plugins called "rogue" that work (lz4 and malloc) until `acts` says what one of their methods does instead.

    A key of `acts` is the name of a method ("compress_page", "free", ...); its value is called with the method's
    arguments in place of it. `calls` counts the calls by name.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.acts: dict[str, Callable[..., Any]] = {}
        self.calls: dict[str, int] = {}
        self.catalogue = replace(
            catalogue,
            compressors={**catalogue.compressors, "rogue": self._compressor(catalogue.compressors["lz4"])},
            allocators={**catalogue.allocators, "rogue": self._allocator(catalogue.allocators["malloc"])},
        )

    def raises(self, method: str, error: BaseException) -> None:
        """Let a method raise."""

        def act(*arguments: Any) -> Any:
            raise error

        self.acts[method] = act

    def returns(self, method: str, value: Any) -> None:
        """Let a method return what it must not."""
        self.acts[method] = lambda *arguments: value

    def heal(self) -> None:
        """Let everything work again."""
        self.acts.clear()

    def _wrap(self, owner: type[Any], name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def method(plugin: Any, *arguments: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            act = self.acts.get(name)
            return real(plugin, *arguments) if act is None else act(*arguments)

        return method

    def _compressor(self, real: type[Compressor]) -> type[Compressor]:
        rogue = self

        class Context(CompressorContext):
            def __init__(self, inner: CompressorContext) -> None:
                self.inner = inner

            def compress_page(self, page: Buffer) -> Buffer:
                return rogue.act("compress_page", self.inner.compress_page, page)

            def decompress_page(self, data: Buffer, page_size: int) -> Buffer:
                return rogue.act("decompress_page", self.inner.decompress_page, data, page_size)

            def compress_pages(self, pages: Sequence[Buffer]) -> list[Buffer]:
                return rogue.act("compress_pages", super().compress_pages, pages)

            def decompress_pages(self, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
                return rogue.act("decompress_pages", super().decompress_pages, objects, page_size)

        class RogueCompressor(Compressor):
            name = "rogue"

            def __init__(self, params: CompressorParams) -> None:
                rogue.act("new_compressor", super().__init__, params)
                self.inner = real(params)

            def create_context(self) -> CompressorContext:
                return rogue.act("create_context", lambda: Context(self.inner.create_context()))

        return RogueCompressor

    def act(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        """Call the method, or what `acts` has in its place."""
        self.calls[name] = self.calls.get(name, 0) + 1
        return self.acts.get(name, real)(*arguments)

    def _allocator(self, real: type[Allocator]) -> type[Allocator]:
        methods = (
            "alloc", "write", "view", "views", "free", "free_many", "store", "store_one", "compact", "trim", "close",
            "size_class", "__init__",
        )  # fmt: skip
        return type("RogueAllocator", (real,), {"name": "rogue", **{name: self._wrap(real, name) for name in methods}})


@pytest.fixture
def rogue(catalogue: Catalogue) -> Rogue:
    """Plugins that misbehave on demand."""
    return Rogue(catalogue)


@pytest.fixture
def free_zram0() -> Iterator[KernelDevice]:
    """The machine's zram0, which nobody uses before and must not be in use after; skipped where that cannot be."""
    device = own_zram0()
    if device.initialized:
        pytest.skip("zram0 is in use")
    yield device
    left = device.show("disksize")
    try:
        device.reset()
    except ZramError as error:
        pytest.fail(f"zram0 is still in use: {error}")
    assert left == "0\n", "zram0 was not reset"


@pytest.fixture(scope="session")
def compressible_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 3 MiB that compresses to about half, no page of it same-filled, no two alike."""
    path = tmp_path_factory.mktemp("bench") / "text"
    chance = random.Random(3)
    path.write_bytes(b"".join(chance.randbytes(32) * 2 for _ in range((3 << 20) // 64)))
    return path
