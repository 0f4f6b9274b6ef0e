"""A device and the reference model side by side: each operation on both, and everything they say compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from reference_model import Model, Refused
from walkgen import STORE, Op, Shape

from zramcore.control import Control, Target
from zramcore.errors import ZramError
from zramcore.interfaces import Catalogue
from zramcore.script.data import make


@dataclass
class Side:
    """A model or a device behind one face: what an operation answered, and what the statistics say then."""

    data: bytes
    page_size: int
    write: Callable[[int, bytes], object]
    read: Callable[[int, int], bytes]
    discard: Callable[[int, int], object]
    zeroout: Callable[[int, int], object]
    store: Callable[[str, str], object]
    refused: type[Exception]

    def apply(self, op: Op) -> tuple[str, object]:
        """OK or the name of the errno, and what came back."""
        try:
            return "OK", self._call(*op)
        except self.refused as error:
            return getattr(error, "name", "") or getattr(error, "errno_name", ""), None

    def _call(self, kind: str, *args: object) -> object:
        match kind, *args:
            case "put", first, count, slot:
                for k in range(count):
                    at = (first + k) * self.page_size
                    self.write((slot + k) * self.page_size, self.data[at : at + self.page_size])
                return None
            case "pwrite", offset, length, spec:
                return self.write(offset, make(spec, length))
            case "store", attribute, value:
                return self.store(attribute, value) and None
            case _:
                return getattr(self, {"pread": "read"}.get(kind, kind))(*args)


def model_side(model: Model, data: bytes) -> Side:
    return Side(
        data,
        model.page_size,
        model.write,
        model.read,
        model.discard,
        model.discard,
        model.store,
        Refused,
    )


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


@dataclass
class Pair:
    """The device and the model in lockstep. Every step compares answers and all statistics."""

    model: Model
    target: Target
    sides: tuple[Side, Side]
    now: list[int]
    store_path: Path
    steps: int = 0
    history: list[Op] = field(default_factory=list)

    def step(self, op: Op) -> None:
        self.steps += 1
        self.history.append(op)
        if op[0] == "sleep":
            self.now[0] += op[1]
            return
        expected, actual = (side.apply(op) for side in self.sides)
        assert actual == expected, self.why(op)
        for name in ("mm_stat", "bd_stat", "io_stat"):
            assert numbers(self.target.show(name)) == getattr(self.model, name)(), self.why(op, name)
        assert self.target.show("writeback_limit") == f"{self.model.write_limit}\n", self.why(op)
        if self.steps % 20 == 0:
            self.compare_slots()

    def compare_slots(self) -> None:
        """block_state line by line; the block that each written-back page went to."""
        if not self.model.nr_pages:
            return
        lines = [f"{i:12d} {time:12d}.000000 {flags}\n" for i, time, flags in self.model.block_state()]
        assert self.target.show("block_state").splitlines(keepends=True) == lines, self.why(self.history[-1])
        on_disk = [slot for slot in self.model.slots.values() if slot.block is not None]
        if on_disk and self.target.show("compressed_writeback") == "0\n":
            size = self.model.page_size
            with self.store_path.open("rb") as stored:
                for slot in on_disk:
                    stored.seek(slot.block * size)
                    assert stored.read(size) == slot.page, self.why(self.history[-1])

    def finish(self) -> None:
        """Look at everything once more, read the whole device back, and give it up."""
        self.compare_slots()
        page = self.model.page_size
        for index in range(self.model.nr_pages):
            self.step(("pread", index * page, page))
        self.step(("store", "reset", "1"))

    def why(self, op: Op, *what: str) -> str:
        return f"step {self.steps}: {op} {what}"


def new_pair(catalogue: Catalogue, data: bytes, shape: Shape, tmp_path: Path) -> Pair:
    now = [1000]
    store_path = tmp_path / "store"
    store_path.write_bytes(bytes(shape.blocks * shape.page_size))
    model = Model(shape.page_size, lambda: now[0], {STORE: shape.blocks})
    control = Control(catalogue, page_size=shape.page_size, clock=lambda: now[0])
    target = control.target(f"zram{control.hot_add()}")
    device = target.device

    def store(attribute: str, value: str) -> None:
        target.store(attribute, str(store_path) if value == STORE else value)

    real = Side(
        data, shape.page_size, device.pwrite, device.pread, device.discard, device.write_zeroes, store, ZramError
    )
    return Pair(model, target, (model_side(model, data), real), now, store_path)
