"""Real data for a trial: files, folders and a process's memory, taken once and then the same for every algorithm.

The data are copied to a spool first (memory, beyond SPOOL_MEMORY a temporary file without a name), with a digest of
each chunk: a file or a process may change while the trial runs, and what comes back from a device is compared with
what was taken.

Files follow one another without gaps; only the last page of all is filled up with zeroes (`Corpus.padding`). Starting
each file on a page of its own would fill a fifth of a Python installation with zeroes, and the ratio with hot air.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import InvalidValue

PAGE = 4096
CHUNK = 1 << 20
"""Bytes of a request, and of what one digest covers."""
SPOOL_MEMORY = 64 << 20
"""A larger corpus is spooled to a temporary file."""

Unreadable = Callable[[str, OSError], None]
Extent = tuple[str, Iterator[bytes]]
"""A file (or a mapping of a process): its name, and its contents piece by piece."""


@dataclass
class Corpus:
    """What was gathered: `size` bytes (whole pages) in `spool`, a digest for each CHUNK of them."""

    spool: IO[bytes]
    size: int = 0
    digests: list[bytes] = field(default_factory=list)
    sources: int = 0
    """Files, and mappings of a process, that are in it."""
    padding: int = 0
    truncated: bool = False
    """Whether the size limit left something out."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """What could not be read, with the reason."""

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Offset and contents of each chunk, in order."""
        self.spool.seek(0)
        for offset in range(0, self.size, CHUNK):
            yield offset, self.spool.read(min(CHUNK, self.size - offset))

    def matches(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        """Whether `data` is the chunk that was taken at `offset`."""
        return digest(data) == self.digests[offset // CHUNK]

    def close(self) -> None:
        """Forget the data."""
        self.spool.close()


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """What a chunk is recognised by."""
    return hashlib.blake2b(data, digest_size=16).digest()


def gather(
    extents: Callable[[Unreadable], Iterable[Extent]],
    limit: int,
    folder: str,
    progress: Callable[[int], None] = lambda size: None,
) -> Corpus:
    """Take up to `limit` bytes (rounded up to a page) from `extents`; a large spool goes to `folder`.

    `extents` is given a function to report what cannot be read; `progress` is told the bytes taken so far, once a
    chunk. Raises InvalidValue (EINVAL) when there is nothing.
    """
    corpus = Corpus(tempfile.SpooledTemporaryFile(SPOOL_MEMORY, dir=folder))  # noqa: SIM115 - Corpus.close
    try:
        _fill(corpus, extents, -(-limit // PAGE) * PAGE, progress)
        if not corpus.size:
            reasons = [f"{name}: {reason}" for name, reason in corpus.unreadable]
            raise InvalidValue("there is nothing to try: no data in what was given", hint="; ".join(reasons[:3]))
    except BaseException:
        corpus.close()
        raise
    return corpus


def _fill(
    corpus: Corpus,
    extents: Callable[[Unreadable], Iterable[Extent]],
    limit: int,
    progress: Callable[[int], None],
) -> None:
    pending = bytearray()

    def put(data: bytes | memoryview) -> None:
        pending.extend(data)
        corpus.size += len(data)
        while len(pending) >= CHUNK:
            flush(CHUNK)

    def flush(length: int) -> None:
        chunk = bytes(pending[:length])
        del pending[:length]
        corpus.digests.append(digest(chunk))
        corpus.spool.write(chunk)
        progress(corpus.size)

    def unreadable(name: str, error: OSError) -> None:
        corpus.unreadable.append((name, error.strerror or type(error).__name__))

    for name, pieces in extents(unreadable):
        if corpus.truncated:
            break
        start = corpus.size
        try:
            for piece in pieces:
                room = limit - corpus.size
                put(memoryview(piece)[:room])
                if len(piece) > room:
                    corpus.truncated = True
                    break
        except OSError as error:
            unreadable(name, error)
        if corpus.size > start:
            corpus.sources += 1
    corpus.padding = -corpus.size % PAGE
    put(bytes(corpus.padding))
    if pending:
        flush(len(pending))


# Files ----------------------------------------------------------------------------------------------------------------


def file_extents(paths: Sequence[str | os.PathLike[str]], unreadable: Unreadable) -> Iterator[Extent]:
    """The files at `paths` and in the folders among them, in alphabetical order; each file once.

    Links and special files inside folders are left out, named explicitly they are followed and read.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        name = os.fspath(path)
        try:
            status = os.stat(name)
        except OSError as error:
            unreadable(name, error)
            continue
        if stat.S_ISDIR(status.st_mode):
            for found in _walk(name, unreadable):
                yield from _once(found.path, found.stat(follow_symlinks=False), seen)
        else:
            yield from _once(name, status, seen)


def _once(name: str, status: os.stat_result, seen: set[tuple[int, int]]) -> Iterator[Extent]:
    identity = (status.st_dev, status.st_ino)
    if identity not in seen:
        seen.add(identity)
        yield name, _read(name)


def _read(name: str) -> Iterator[bytes]:
    with open(name, "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            yield data


def _walk(folder: str, unreadable: Unreadable) -> Iterator[os.DirEntry[str]]:
    """The regular files that are not empty in a folder and below."""
    folders = [folder]
    while folders:
        current = folders.pop()
        try:
            with os.scandir(current) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            unreadable(current, error)
            continue
        folders += [entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]
        for entry in entries:
            try:
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size:
                    yield entry
            except OSError as error:
                unreadable(entry.path, error)


def python_installation() -> list[Path]:
    """The interpreter, its standard library and its installed packages."""
    paths = [Path(sys.executable)] if sys.executable else []
    paths += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found: list[Path] = []
    for path in paths:
        real = path.resolve()
        if real.exists() and not any(real == other or other in real.parents for other in found):
            found.append(real)
    return found
