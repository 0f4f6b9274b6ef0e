"""Zcomp: the four compression priorities of a device, their parameters, and each thread's contexts.

Priority 0 is the primary algorithm (comp_algorithm); 1..3 are the secondary ones (recomp_algorithm). As in the
kernel, choosing an algorithm forgets the parameters of that priority, and values are checked by the algorithm
itself, when disksize is set.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import replace

from .errors import InvalidValue, PluginFault, TooLong, ZramError, did_you_mean
from .interfaces import Buffer, Catalogue, Compressor, CompressorContext, CompressorParams, NativeCodec

NR_PRIORITIES = 4
PRIMARY = 0
MAX_NAME = 128
"""Names of this length or more are E2BIG (ZRAM_MAX_ALGO_NAME_SZ)."""
MAX_DICTIONARY = (1 << 31) - 1


def read_dictionary(path: str) -> bytes:
    """The contents of a dict= file. Raises InvalidValue (EINVAL) for whatever is wrong with it: it cannot be read, is
    not a regular file (a pipe would never end), is empty or larger than INT_MAX."""
    try:
        # Opening a pipe that nobody writes to must not block.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidValue(f"the dictionary {path} is not a file")
            if status.st_size > MAX_DICTIONARY:
                raise InvalidValue(f"the dictionary {path} is larger than {MAX_DICTIONARY} bytes")
            content = file.read(MAX_DICTIONARY)
    except ZramError:
        raise
    except OSError as error:
        raise InvalidValue(f"the dictionary {path} cannot be read: {error.strerror}") from error
    if not content:
        raise InvalidValue(f"the dictionary {path} is empty")
    return content


class ZcompConfig:
    """What comp_algorithm, recomp_algorithm and algorithm_params have chosen, before the device is initialised."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._compressors = catalogue.compressors
        self.forget()

    def forget(self) -> None:
        """Back to the default primary algorithm, no secondary ones, no parameters."""
        default = next(iter(self._compressors), None)
        self.names: list[str | None] = [default, None, None, None]
        self.params = [CompressorParams() for _ in range(NR_PRIORITIES)]

    def check_name(self, text: str) -> str:
        """The name that `text` is, one newline at its end aside. Raises TooLong (E2BIG) or InvalidValue (EINVAL)."""
        name = text.removesuffix("\n")
        if len(text) >= MAX_NAME:  # the kernel counts the newline too
            raise TooLong(f"the name of an algorithm has fewer than {MAX_NAME} characters", value=name)
        if name not in self._compressors:
            hint = self._catalogue.hint("compressors", name)
            raise InvalidValue(f"there is no compression algorithm {name!r}", hint=hint)
        return name

    def choose(self, priority: int, name: str) -> None:
        """Set the algorithm of a priority and forget its parameters (mm tree, August 2026)."""
        self.names[priority] = self.check_name(name)
        self.params[priority] = CompressorParams()

    def priority_of(self, name: str) -> int:
        """The first priority that uses `name`. Raises InvalidValue (EINVAL)."""
        for priority, chosen in enumerate(self.names):
            if chosen == name:
                return priority
        chosen_names = [chosen for chosen in self.names if chosen]
        raise InvalidValue(f"algorithm {name!r} is not chosen for any priority", hint=did_you_mean(name, chosen_names))

    def listing(self, priority: int) -> str:
        """The line that comp_algorithm shows: every name, the chosen one in brackets, a blank after each."""
        chosen = self.names[priority]
        return "".join(f"[{name}] " if name == chosen else f"{name} " for name in self._compressors)

    def create(self, page_size: int) -> Zcomp:
        """Make the compressors. Raises the compressor's own error (ZramError), or PluginFault."""
        made: list[Compressor | None] = []
        for name, params in zip(self.names, self.params, strict=True):
            if name is None:
                made.append(None)
                continue
            try:
                made.append(self._compressors[name](replace(params, page_size=page_size)))
            except ZramError:
                raise
            except Exception as error:
                raise PluginFault(name, f"cannot be set up: {error!r}") from error
        if made[PRIMARY] is None:
            raise InvalidValue("no compression algorithm is installed", hint="reinstall zramcore")
        return Zcomp(made)


class Contexts(threading.local):
    """One thread's contexts by priority, and the calls of the primary one, which every page needs."""

    def __init__(self, zcomp: Zcomp) -> None:
        primary = zcomp.new_context(PRIMARY)
        self.compress_page = primary.compress_call
        self.decompress_page = primary.decompress_call
        self.by_priority: list[CompressorContext | None] = [primary, None, None, None]


class Zcomp:
    """The compressors of an initialised device. A plugin's exception becomes PluginFault (EIO) naming it."""

    def __init__(self, compressors: Sequence[Compressor | None]) -> None:
        self.compressors = compressors
        self.workers = 1
        """Threads that a context may use for a batch."""
        self.contexts = Contexts(self)

    def context(self, priority: int) -> CompressorContext:
        """The calling thread's context for a priority."""
        by_priority = self.contexts.by_priority
        context = by_priority[priority]
        if context is None:
            context = by_priority[priority] = self.new_context(priority)
        return context

    def new_context(self, priority: int) -> CompressorContext:
        """A context of a priority's compressor. Raises PluginFault (EIO)."""
        compressor = self.compressors[priority]
        if compressor is None:
            raise InvalidValue(f"priority {priority} has no algorithm")
        try:
            return compressor.create_context()
        except ZramError:
            raise
        except Exception as error:
            raise PluginFault(compressor.name, f"create_context raised {error!r}") from error

    def native_codec(self) -> NativeCodec | None:
        """The C functions of the primary algorithm, if it hands any over. Raises PluginFault (EIO)."""
        compressor = self.compressors[PRIMARY]
        try:
            return compressor.native_codec() if compressor is not None else None
        except Exception as error:
            raise self.fault(PRIMARY, error) from error

    def fault(self, priority: int, error: Exception) -> ZramError:
        """What to raise for an exception of this priority's compressor."""
        if isinstance(error, ZramError):
            return error
        compressor = self.compressors[priority]
        name = compressor.name if compressor else f"priority {priority}"
        return PluginFault(name, f"{type(error).__name__}: {error}", hint="the request failed, the old data is kept")

    def compress(self, pages: Sequence[Buffer]) -> list[Buffer]:
        """Compress with the primary algorithm; one object per page, in order."""
        try:
            context = self.context(PRIMARY)
            context.workers = self.workers
            objects = context.compress_pages(pages)
            if len(objects) != len(pages):
                raise ValueError(f"{len(pages)} pages gave {len(objects)} objects")
            _check_types(objects)
        except Exception as error:
            raise self.fault(PRIMARY, error) from error
        return objects

    def decompress(self, priority: int, objects: Sequence[Buffer], page_size: int) -> list[Buffer]:
        """The pages of compressed objects, each exactly `page_size` bytes."""
        try:
            pages = self.context(priority).decompress_pages(objects, page_size)
            _check_types(pages)
            if len(pages) != len(objects) or set(map(len, pages)) - {page_size}:
                raise ValueError("decompress_pages did not return one page per object")
        except Exception as error:
            raise self.fault(priority, error) from error
        return pages


def _check_types(buffers: Sequence[Buffer]) -> None:
    """Raises TypeError for anything that is not bytes: it would fail later, where nobody knows whose fault it is."""
    for kind in set(map(type, buffers)) - {bytes}:
        if not issubclass(kind, (bytes, bytearray, memoryview)):
            raise TypeError(f"a compressor gave {kind.__name__}, not bytes")
