"""FaultyDriver: a backing driver in memory that fails on request, and stops where a race test wants to act.

A device opens it like any other, and the test finds the open driver again by the name in the path::

    catalogue = replace(catalogue, backing_drivers={**catalogue.backing_drivers, "faulty": FaultyDriver})
    device.store("backing_dev", "faulty:disk,blocks=16")
    driver = FaultyDriver.named("disk")
    driver.fail_write(2, errno.EIO)             # the second write from now on
    driver.bad_blocks[5] = errno.EIO            # every write or read that touches block 5
    with Gate() as gate:
        driver.on_write = gate                  # writers stop inside write_blocks, before anything is stored
        ...                                     # start the pass in a thread
        gate.wait()                             # it is inside now: overwrite the slot, reset, ...
        gate.open()

The contents of a name outlive the driver, as a disk's do, until `FaultyDriver.reset()`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import ClassVar, TypeAlias

from zramcore.errors import DeviceBusy, InvalidValue, OutOfRange
from zramcore.interfaces import BackingDriver, BackingSpec, Buffer, Option, Verdicts, read_options
from zramcore.parse import kstrtouint

Fault: TypeAlias = "int | Exception"
"""What a call fails with: an errno, raised as OSError, or the exception itself (any kind)."""

Callback: TypeAlias = Callable[[int, int], None]
"""Called with the first block and the number of blocks of a run."""


class Gate:
    """A callback that stops whoever calls it until `open`; leaving the with-block opens it too.

    `wait` returns when somebody has arrived. Both sides raise TimeoutError after `timeout` seconds, so that a test
    that went wrong ends.
    """

    def __init__(self, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, block: int, count: int) -> None:
        self._arrived.release()
        if not self._open.wait(self.timeout):
            raise TimeoutError(f"the gate stayed shut for {self.timeout} s")

    def wait(self) -> None:
        """Return when one more caller has arrived."""
        if not self._arrived.acquire(timeout=self.timeout):
            raise TimeoutError(f"nobody came to the gate in {self.timeout} s")

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()


def _raise(fault: Fault) -> None:
    if isinstance(fault, int):
        raise OSError(fault, os.strerror(fault))
    raise fault


class FaultyDriver(BackingDriver):
    """Blocks in memory, in the name of ``spec.path``. Thread-safe; callbacks run without a lock held.

    `write_runs`, `read_runs` and `discard_runs` list the runs (first block, count) asked for, in order, those that
    failed included; `writes`, `reads`, `discards` and `flushes` count the calls. `on_write`, `on_read`, `on_discard`
    and `on_flush` are called from inside the call before anything happens, `after_write` and `after_read` when the
    data has been stored or fetched but the call has not returned; what they raise, the call raises.

    With ``deferred=1`` what `begin_write` began (`begun` counts its calls) happens when its end is waited for:
    everything above then comes in between, as on a medium that takes its time.
    """

    name = "faulty"
    summary = "blocks in memory that fail on request, for tests"
    options: ClassVar[Sequence[Option]] = (
        Option("blocks", kstrtouint, 64, "number of blocks; default 64"),
        Option("discard", kstrtouint, 0, "1: have released blocks discarded; default 0"),
        Option("deferred", kstrtouint, 0, "1: let a write that was begun happen only when it is waited for; default 0"),
        Option("fail_open", kstrtouint, 0, "errno that opening fails with; default 0: it does not"),
    )

    _registry_lock: ClassVar[threading.Lock] = threading.Lock()
    _drivers: ClassVar[dict[str, FaultyDriver]] = {}

    def __init__(self, spec: BackingSpec) -> None:
        super().__init__(spec)
        values = read_options(f"backing driver {self.name}", self.options, spec.options)
        if values["fail_open"]:
            _raise(int(values["fail_open"]))
        self.nr_blocks = int(values["blocks"])
        if not self.nr_blocks:
            raise InvalidValue(f"{spec.path} has no block")
        self.discard_on_release = bool(values["discard"])
        self.deferred = bool(values["deferred"])
        self.begun = 0
        self.closed = False
        self.write_runs: list[tuple[int, int]] = []
        self.read_runs: list[tuple[int, int]] = []
        self.discard_runs: list[tuple[int, int]] = []
        self.flushes = 0
        self.bad_blocks: dict[int, Fault] = {}
        self.on_write: Callback | None = None
        self.on_read: Callback | None = None
        self.on_discard: Callback | None = None
        self.on_flush: Callable[[], None] | None = None
        self.after_write: Callback | None = None
        self.after_read: Callback | None = None
        self._lock = threading.Lock()
        self._write_faults: dict[int, tuple[Fault, int]] = {}
        self._read_faults: dict[int, Fault] = {}
        self._short_reads: dict[int, int] = {}
        self._discard_fault: Fault | None = None
        with self._registry_lock:
            before = self._drivers.get(spec.path)
            if before is not None and not before.closed:
                raise DeviceBusy(f"{spec.path} is in use")
            self._blocks: dict[int, bytes] = {} if before is None else before._blocks
            self._drivers[spec.path] = self

    # Finding it again ---------------------------------------------------------------------------------------------

    @classmethod
    def named(cls, name: str) -> FaultyDriver:
        """The driver that was opened last under `name`. Raises KeyError."""
        with cls._registry_lock:
            return cls._drivers[name]

    @classmethod
    def reset(cls) -> None:
        """Forget all names and their contents; a driver still open goes on working, under no name."""
        with cls._registry_lock:
            cls._drivers.clear()

    @classmethod
    def forget(cls, name: str) -> None:
        """Forget one name and its contents."""
        with cls._registry_lock:
            cls._drivers.pop(name, None)

    # The script ---------------------------------------------------------------------------------------------------

    def fail_write(self, nth: int, fault: Fault, times: int = 1, stored: int = 0) -> None:
        """Let the `nth` write from now (1 is the next) and `times - 1` more after it fail with `fault`.

        `stored` blocks of the run are stored all the same: a short write.
        """
        with self._lock:
            for call in range(len(self.write_runs) + nth, len(self.write_runs) + nth + times):
                self._write_faults[call] = fault, stored

    def fail_read(self, nth: int, fault: Fault, times: int = 1) -> None:
        """Let the `nth` read from now and `times - 1` more after it fail with `fault`."""
        with self._lock:
            for call in range(len(self.read_runs) + nth, len(self.read_runs) + nth + times):
                self._read_faults[call] = fault

    def shorten_read(self, nth: int, size: int) -> None:
        """Let the `nth` read from now return only its first `size` bytes, against the contract."""
        with self._lock:
            self._short_reads[len(self.read_runs) + nth] = size

    def fail_discards(self, fault: Fault | None) -> None:
        """Let every discard from now on fail with `fault`; None: none."""
        self._discard_fault = fault

    def heal(self) -> None:
        """Forget every failure that is still to come, bad blocks included."""
        with self._lock:
            self._write_faults.clear()
            self._read_faults.clear()
            self._short_reads.clear()
        self._discard_fault = None
        self.bad_blocks.clear()

    @property
    def writes(self) -> int:
        """Calls of write_blocks so far."""
        return len(self.write_runs)

    @property
    def reads(self) -> int:
        """Calls of read_blocks so far."""
        return len(self.read_runs)

    @property
    def discards(self) -> int:
        """Calls of discard_blocks so far."""
        return len(self.discard_runs)

    def peek(self, block: int) -> bytes:
        """What `block` holds, without a read; zeros when it was never written or was discarded."""
        return self._blocks.get(block, bytes(self.block_size))

    def poke(self, block: int, data: Buffer) -> None:
        """Change what `block` holds, without a write: damage it."""
        self._blocks[block] = bytes(data)

    # The contract -------------------------------------------------------------------------------------------------

    def write_blocks(self, block: int, blocks: Sequence[Buffer]) -> None:
        count = len(blocks)
        with self._lock:
            self.write_runs.append((block, count))
            fault, stored = self._write_faults.pop(len(self.write_runs), (None, count))
        self._check(block, count)
        if self.on_write is not None:
            self.on_write(block, count)
        for index in range(min(stored, count)):
            self._fail_if_bad(block + index)
            self._blocks[block + index] = bytes(blocks[index])
        if fault is not None:
            _raise(fault)
        if self.after_write is not None:
            self.after_write(block, count)

    def begin_write(self, runs: Sequence[tuple[int, int]], data: memoryview) -> Callable[[], Verdicts]:
        write = partial(super().begin_write, runs, data)
        if not self.deferred:
            return write()
        self.begun += 1
        return lambda: write()()

    def read_blocks(self, block: int, count: int) -> Buffer:
        with self._lock:
            self.read_runs.append((block, count))
            fault = self._read_faults.pop(len(self.read_runs), None)
            size = self._short_reads.pop(len(self.read_runs), count * self.block_size)
        self._check(block, count)
        if self.on_read is not None:
            self.on_read(block, count)
        if fault is not None:
            _raise(fault)
        parts: list[bytes] = []
        for index in range(block, block + count):
            self._fail_if_bad(index)
            parts.append(self.peek(index))
        data = b"".join(parts)
        if self.after_read is not None:
            self.after_read(block, count)
        return data[:size]

    def discard_blocks(self, block: int, count: int) -> None:
        with self._lock:
            self.discard_runs.append((block, count))
        self._check(block, count)
        if self.on_discard is not None:
            self.on_discard(block, count)
        if self._discard_fault is not None:
            _raise(self._discard_fault)
        for index in range(block, block + count):
            self._blocks.pop(index, None)

    def flush(self) -> None:
        with self._lock:
            self.flushes += 1
        if self.on_flush is not None:
            self.on_flush()

    def close(self) -> None:
        self.closed = True

    def _check(self, block: int, count: int) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "the driver was closed before this call")
        if block < 0 or count < 1 or block + count > self.nr_blocks:
            raise OutOfRange(f"{self.spec.path} has no {count} blocks at block {block}: it has {self.nr_blocks}")

    def _fail_if_bad(self, block: int) -> None:
        fault = self.bad_blocks.get(block)
        if fault is not None:
            _raise(fault)
