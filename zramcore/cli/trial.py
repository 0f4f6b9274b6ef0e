"""One algorithm tried on real data: fill, read, mark idle, write back, verify. Only through attributes and I/O."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from ..control import Control, Target
from ..device import Device
from ..errors import DeviceIOError, NoSpace
from .corpus import CHUNK, PAGE, Corpus

IN_USE = 4
"""One part in so many, from the start, is read again after all pages were marked idle: those pages are in use."""

PHASES = 3
"""How often a trial goes through the whole corpus: fill, read, verify."""

Progress = Callable[[str, int], None]
"""Told what is being done, and of each chunk (bytes) that it is done with."""


@dataclass(frozen=True)
class Result:
    """What one algorithm did. Sizes in bytes, counts in pages of 4 KiB, speeds in microseconds a page.

    The first five are mm_stat's after the fill; `freed_by_writeback` is by how much mem_used_total fell,
    `written_back` bd_stat's first column. `different` lists the offsets of the chunks that did not come back.
    """

    comp_algorithm: str
    orig_data_size: int
    compr_data_size: int
    mem_used_total: int
    same_pages: int
    huge_pages: int
    freed_by_writeback: int
    written_back: int
    write_us_per_page: float
    read_us_per_page: float
    writeback_us_per_page: float
    different: tuple[int, ...]

    @property
    def verified(self) -> bool:
        """Whether every byte came back, before and after writeback."""
        return not self.different


def run_trial(control: Control, algorithm: str, corpus: Corpus, folder: str, progress: Progress) -> Result:
    """Try `algorithm` on `corpus`, with a backing file without a name in `folder`; the device is removed at the end.

    Raises ZramError: what the device says, or ENOSPC when the folder has no room for the backing file.
    """
    number = control.hot_add(PAGE)
    try:
        return _Trial(control.target(f"zram{number}"), algorithm, corpus, progress).run(folder)
    finally:
        control.hot_remove(number)


class _Trial:
    def __init__(self, target: Target, algorithm: str, corpus: Corpus, progress: Progress) -> None:
        self.target = target
        self.device: Device = target.device
        self.algorithm = algorithm
        self.corpus = corpus
        self.progress = progress
        self.pages = corpus.size // PAGE
        self.different: set[int] = set()
        self.buffer = bytearray(CHUNK)

    def run(self, folder: str) -> Result:
        store = self.target.store
        store("comp_algorithm", self.algorithm)
        self._open_backing(folder)
        store("disksize", str(self.corpus.size))
        write_seconds = self._fill()
        original, compressed, used, _, _, same, _, huge, _ = self._numbers("mm_stat")
        read_seconds = self._compare("reading")
        store("idle", "all")
        self._reread()
        self.progress(f"{self.algorithm}: writing back", 0)
        start = perf_counter()
        store("writeback", "idle")
        store("writeback", "huge")
        writeback_seconds = perf_counter() - start
        freed = used - self._numbers("mm_stat")[2]
        written_back = self._numbers("bd_stat")[0]
        self._compare("verifying")
        return Result(
            comp_algorithm=self.algorithm,
            orig_data_size=original,
            compr_data_size=compressed,
            mem_used_total=used,
            same_pages=same,
            huge_pages=huge,
            freed_by_writeback=freed,
            written_back=written_back,
            write_us_per_page=write_seconds * 1e6 / self.pages,
            read_us_per_page=read_seconds * 1e6 / self.pages,
            writeback_us_per_page=writeback_seconds * 1e6 / max(written_back, 1),
            different=tuple(sorted(self.different)),
        )

    def _open_backing(self, folder: str) -> None:
        """Give the device a sparse backing file that has room for every page, and no name any more once it is open:
        nothing is left behind, however this process ends."""
        with tempfile.NamedTemporaryFile(prefix="zramcore-try-", dir=folder) as file:
            os.ftruncate(file.fileno(), self.corpus.size)
            self.target.store("backing_dev", file.name)

    def _fill(self) -> float:
        """Write the corpus; the seconds spent in the device."""
        seconds = 0.0
        for offset, data in self.corpus.chunks():
            start = perf_counter()
            written = self.device.pwrite(offset, data)
            seconds += perf_counter() - start
            if written != len(data):
                raise DeviceIOError(f"a write of {len(data)} bytes at {offset} ended after {written}")
            self.progress(f"{self.algorithm}: writing", len(data))
        return seconds

    def _compare(self, what: str) -> float:
        """Read everything and compare it with the corpus; the seconds spent in the device."""
        seconds = 0.0
        for offset in range(0, self.corpus.size, CHUNK):
            start = perf_counter()
            data = self._read(offset, self.corpus.size)
            seconds += perf_counter() - start
            if not self.corpus.matches(offset, data):
                self.different.add(offset)
            self.progress(f"{self.algorithm}: {what}", len(data))
        return seconds

    def _read(self, offset: int, end: int) -> memoryview:
        """One request: a chunk, or less where `end` comes before it; valid until the next call."""
        view = memoryview(self.buffer)[: min(CHUNK, end - offset)]
        return view[: self.device.pread_into(offset, view)]

    def _reread(self) -> None:
        """Use a part of the pages, which are idle no more then."""
        end = self.pages // IN_USE * PAGE
        for offset in range(0, end, CHUNK):
            self._read(offset, end)

    def _numbers(self, attribute: str) -> list[int]:
        return [int(word) for word in self.target.show(attribute).split()]


def scratch_folder(size: int) -> str:
    """A folder for temporary files with `size` bytes to spare: $TMPDIR when set, else /var/tmp, then /tmp.

    /var/tmp comes first because /tmp is often in memory. Raises NoSpace (ENOSPC) when no folder will do.
    """
    candidates = [os.environ["TMPDIR"]] if os.environ.get("TMPDIR") else ["/var/tmp", tempfile.gettempdir()]
    reasons = []
    for folder in candidates:
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        if not os.access(folder, os.W_OK | os.X_OK):
            reasons.append(f"{folder}: not writable")
        elif free < size:
            reasons.append(f"{folder}: {free >> 20} MiB free")
        else:
            return folder
    raise NoSpace(
        f"no room for {size >> 20} MiB of temporary files ({', '.join(reasons)})",
        hint="name a folder with room in TMPDIR, or try less data with --size",
    )
