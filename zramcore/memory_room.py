"""MemoryRoom: what a device does when its pool may not grow. It tells those who can free memory, and has writes wait.

The pool knows one limit: mem_limit, or a mark below it that somebody watches. So a mark costs a write nothing: when the
limit is met and was only a mark, it is lifted, those who watch it are told, and the write goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep
from weakref import WeakSet

from .datapath import DataPath
from .errors import NoMemory

LOOK_SECONDS = 0.002
"""Between two looks of a write that waits: a pass has written some batches by then."""
TRY_SECONDS = 0.02
"""A write tries again after this even if less was freed than it could need at worst."""


class Patience:
    """Of one write that waits: for how long no page has been written back."""

    def __init__(self, written_back: int) -> None:
        self._written_back, self._since = written_back, monotonic()
        self.counted = False

    def used(self, written_back: int) -> float:
        """Seconds; it starts anew when the number of pages written back is another."""
        if written_back != self._written_back:
            self._written_back, self._since = written_back, monotonic()
        return monotonic() - self._since


def _progress(path: DataPath) -> tuple[int, ...]:
    """What changes when there is hope again: pages were written back, discarded, or no longer need their block."""
    return path.stats.bd_writes, path.stats.notify_free, path.backing.bd_count if path.backing is not None else 0


def _never() -> bool:
    return False


class MemoryRoom:
    """The limits of one device's pool. Thread-safe."""

    def __init__(self) -> None:
        self.limit_pages = 0
        """mem_limit in pages of the device; 0: none."""
        self.wait_ms = 0
        """How long a write waits at mem_limit, in milliseconds; 0: not at all, as in the kernel."""
        self.waits = 0
        """Writes that waited since the last reset."""
        self.waited = 0.0
        """Seconds that they did, together."""
        self.waits_in_vain = 0
        """Those of them that failed after all."""
        self.given_up: Callable[[], bool] = _never
        """Asked by writes that wait: true ends all of them."""
        self._dismissed: WeakSet[threading.Thread] = WeakSet()
        self._limits = 0
        """How often the pool was given a limit: another write may have lifted the one that a write has met."""
        self._path: DataPath | None = None
        self._watches: dict[object, tuple[int, Callable[[], None]]] = {}
        self._in_vain: tuple[int, ...] | None = None
        """`_progress` when a write had waited in vain: until that changes, or somebody is told, no other one waits."""
        self._lock = threading.Lock()

    def serve(self, path: DataPath | None) -> None:
        """Limit the pool of this data path from now on; None: the device is reset, and so are the limits."""
        with self._lock:
            self._path, self._in_vain = path, None
            if path is None:
                self.limit_pages = self.wait_ms = self.waits = self.waits_in_vain = 0
                self.waited = 0.0
            self._apply()

    def set_limit(self, pages: int) -> None:
        """Let the pool have this many pages at most; 0: any number. Takes effect at once."""
        with self._lock:
            self.limit_pages, self._in_vain = pages, None
            self._apply()

    def set_wait(self, milliseconds: int) -> None:
        """Have writes wait so long at mem_limit while no page is written back; those that wait already notice."""
        self.wait_ms, self._in_vain = milliseconds, None

    def dismiss(self, thread: threading.Thread) -> None:
        """Have no write of this thread wait any more: its client is sent away, and the thread is to end."""
        self._dismissed.add(thread)

    def watch(self, owner: object, pages: int | None, tell: Callable[[], None]) -> None:
        """Have `tell` called when a write makes the pool larger than `pages` pages, or meets mem_limit: once, on the
        thread of the write, which holds no lock. An owner has one watch, the last it asked for; None: none."""
        with self._lock:
            self._watches.pop(owner, None)
            if pages is not None:
                self._watches[owner] = max(pages, 1), tell
            self._apply()

    # Writes -----------------------------------------------------------------------------------------------------------

    def write_pages(self, path: DataPath, index: int, data: memoryview) -> None:
        """Write whole pages, each as soon as there is room for it. Raises NoMemory (ENOMEM) at the first for which none
        was made, and what else `DataPath.write_pages` raises."""
        patience: Patience | None = None
        while True:
            limits = self._limits
            done = path.write_pages(index, data)
            index += done
            data = data[done * path.page_size :]
            if not data:
                return
            patience = self._wait(path, index, len(data) // path.page_size, limits, patience)

    def write_partial(self, path: DataPath, index: int, start: int, data: memoryview) -> None:
        """The same for a part of a page."""
        patience: Patience | None = None
        while True:
            limits = self._limits
            try:
                return path.write_partial(index, start, data)
            except NoMemory:
                patience = self._wait(path, index, 1, limits, patience)

    def _wait(self, path: DataPath, index: int, wanted: int, limits: int, patience: Patience | None) -> Patience:
        """After page `index`, and `wanted` - 1 after it, found no room: wait until there may be some. `limits` is what
        `_limits` was before. Returns what the write gives as `patience` if it fails again. Raises NoMemory (ENOMEM)."""
        patience = patience or Patience(path.stats.bd_writes)
        told, too_early = self._tell(path, limits)
        if too_early:
            return patience
        hopeless = not self.wait_ms or (self._in_vain == _progress(path) and not told)
        if hopeless or not self._wait_patiently(path, wanted, patience):
            raise NoMemory(f"no memory for page {index}", hint="raise mem_limit, or write pages back")
        return patience

    def _wait_patiently(self, path: DataPath, wanted: int, patience: Patience) -> bool:
        """Wait until there may be room for `wanted` pages; False: there is none, and patience is at an end."""
        margin = min(wanted, self.limit_pages >> 4)
        began = now = monotonic()
        in_vain = True
        try:
            while not path.closed and not self._ended():
                sleep(LOOK_SECONDS)  # first: what has just failed would fail again
                now = monotonic()
                if patience.used(path.stats.bd_writes) >= self.wait_ms / 1000:
                    self._in_vain = _progress(path)
                    break
                if now >= began + TRY_SECONDS or path.allocator.pages_used + margin <= self.limit_pages:
                    in_vain = False
                    return True
            return False
        finally:
            with self._lock:
                self.waited += now - began
                self.waits += not patience.counted
                self.waits_in_vain += in_vain
            patience.counted = True

    def _ended(self) -> bool:
        return self.given_up() or threading.current_thread() in self._dismissed

    def _tell(self, path: DataPath, limits: int) -> tuple[int, bool]:
        """Tell those whose mark was met, or all of them at mem_limit: how many, and whether it was not mem_limit."""
        with self._lock:
            if limits != self._limits:
                return 0, True
            met = path.limit_pages
            only_a_mark = met != self.limit_pages
            owners = [owner for owner, (pages, _) in self._watches.items() if pages <= met or not only_a_mark]
            calls = [self._watches.pop(owner)[1] for owner in owners]
            if calls:
                self._apply()
        for tell in calls:
            tell()
        return len(calls), only_a_mark

    def _apply(self) -> None:
        if self._path is not None:
            limits = [pages for pages, _ in self._watches.values()]
            limits += [self.limit_pages] if self.limit_pages else []
            self._path.limit_pages = min(limits, default=0)
            self._limits += 1
