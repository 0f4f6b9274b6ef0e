"""The command `zt` of scripts: one attribute write or read, one request to a device, and what came back.

Each prints one line, `$ what was asked => what the kernel answered`, where an answer is OK with its value or the
errno's name, number and text.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Mapping

from ..errors import ZramError
from .block import KEEP_SIZE, NO_HIDE_STALE, PUNCH_HOLE, ZERO_RANGE, FsyncError
from .data import PAGE, make, number
from .machine import Entry, Machine, Node, missing
from .shell import Shell, Streams, Usage

_FALLOCATE = {
    "punch": ("PUNCH_HOLE|KEEP_SIZE", PUNCH_HOLE | KEEP_SIZE),
    "fzero": ("ZERO_RANGE|KEEP_SIZE", ZERO_RANGE | KEEP_SIZE),
    "noh": ("PUNCH_HOLE|KEEP_SIZE|NO_HIDE_STALE", PUNCH_HOLE | KEEP_SIZE | NO_HIDE_STALE),
}
_PAGE_TABLE = "# page compr_delta orig_delta mem_used_delta same_delta huge_delta huge_since_delta\n"


def verdict(error: OSError) -> str:
    """An errno as scripts print it: `EINVAL (22, Invalid argument)`."""
    code = error.errno or errno.EIO
    # One number has two names on Linux; the kernel's is not the one that Python lists.
    name = "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode.get(code, "?")
    return f"{name} ({code}, {os.strerror(code)})"


def whole(text: str, usage: str) -> int:
    """A number of a command's arguments. Raises Usage."""
    try:
        return number(text)
    except ValueError:
        raise Usage(f"{usage} ({text!r} is not a number)") from None


class Tool:
    """`zt SUBCOMMAND ...` on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.subcommands: Mapping[str, tuple[Callable[[list[str], Shell, Streams], int], str, int]] = {
            "w": (self._write_attribute, "zt w PATH VALUE", 2),
            "wn": (self._write_attribute, "zt wn PATH VALUE", 2),
            "r": (self._read_attribute, "zt r PATH", 1),
            "pw": (self._pwrite, "zt pw DEVICE OFFSET LENGTH SPEC [buf]", 4),
            "pr": (self._pread, "zt pr DEVICE OFFSET LENGTH [buf]", 3),
            "discard": (self._range, "zt discard DEVICE OFFSET LENGTH", 3),
            "zeroout": (self._range, "zt zeroout DEVICE OFFSET LENGTH", 3),
            "secdiscard": (self._range, "zt secdiscard DEVICE OFFSET LENGTH", 3),
            "punch": (self._fallocate, "zt punch DEVICE OFFSET LENGTH", 3),
            "fzero": (self._fallocate, "zt fzero DEVICE OFFSET LENGTH", 3),
            "noh": (self._fallocate, "zt noh DEVICE OFFSET LENGTH", 3),
            "info": (self._info, "zt info DEVICE", 1),
            "hold": (self._hold, "zt hold DEVICE SECONDS ro|wr|excl", 3),
            "pages": (self._pages, "zt pages DEVICE DATA FIRST N SLOT MM_STAT", 6),
            "cmp": (self._compare, "zt cmp DEVICE PAGE DATA DATAPAGE N", 5),
        }

    def run(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        """The command. Raises Usage for an unknown subcommand or wrong arguments."""
        name = arguments[0] if arguments else ""
        if name not in self.subcommands:
            raise Usage(f"zt {'|'.join(self.subcommands)} ...")
        method, usage, count = self.subcommands[name]
        given = len(arguments) - 1
        if given == count + 1 and name in ("pw", "pr") and arguments[-1] == "buf":
            given = count
        if given != count:
            raise Usage(usage)
        return method(arguments, shell, streams)

    # Attributes

    def _entry(self, path: str, writing: bool) -> Entry:
        entry = self.machine.entry(path)
        if entry is None:
            raise missing(path)
        if (entry.store if writing else entry.show) is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return entry

    def _write_attribute(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        word, path, value = arguments
        text = value if word == "wn" else value + "\n"
        echo = "printf %s" if word == "wn" else "echo"
        shown = value.replace("\n", "\\n")
        streams.out.write(f"$ {echo} '{shown}' > {path.rpartition('/')[2]}")
        try:
            entry = self._entry(path, writing=True)
        except OSError as error:
            streams.out.write(f" [open] => {verdict(error)}\n")
            return 1
        try:
            if entry.store is not None and text:
                entry.store(text)
        except OSError as error:
            streams.out.write(f" => {verdict(error)}\n")
            return 1
        streams.out.write(" => OK\n")
        return 0

    def _read_attribute(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        path = arguments[1]
        streams.out.write(f"$ cat {path.rpartition('/')[2]}")
        try:
            entry = self._entry(path, writing=False)
        except OSError as error:
            streams.out.write(f" [open] => {verdict(error)}\n")
            return 1
        try:
            text = entry.show() if entry.show else ""
        except OSError as error:
            streams.out.write(f" => {verdict(error)}\n")
            return 1
        end = "" if text.endswith("\n") else "[no newline]\n"
        streams.out.write(" => " + text.replace("\0", "\\0") + end)
        return 0

    # Requests

    def _answer(self, streams: Streams, name: str, ask: Callable[[Node], str]) -> int:
        """Finish the line with what `ask` makes of the device: its text after OK, or the errno."""
        try:
            node = self.machine.node(name)
        except OSError as error:
            streams.out.write(f" [open] => {verdict(error)}\n")
            return 1
        try:
            answer = ask(node)
        except FsyncError as error:
            streams.out.write(f" [fsync] => {verdict(error)}\n")
            return 1
        except OSError as error:
            streams.out.write(f" => {verdict(error)}\n")
            return 1
        streams.out.write(f" => OK {answer}\n")
        return 0

    def _data(self, spec: str, length: int) -> bytes:
        try:
            return make(spec, length, self.machine.resolve)
        except (ValueError, EOFError, OSError) as error:
            raise Usage(f"pw OFFSET LENGTH SPEC ({error})") from error

    def _pwrite(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name, spec, buffered = arguments[1], arguments[4], len(arguments) == 6
        offset, length = (whole(text, self.subcommands["pw"][1]) for text in arguments[2:4])
        data = self._data(spec, length)
        kind = "buffered" if buffered else "O_DIRECT"
        streams.out.write(f"$ pwrite {name} off={offset} len={length} data={spec} ({kind})")
        return self._answer(streams, name, lambda node: str(node.write(offset, data, buffered=buffered)))

    def _pread(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name, buffered = arguments[1], len(arguments) == 5
        offset, length = (whole(text, self.subcommands["pr"][1]) for text in arguments[2:4])
        streams.out.write(f"$ pread {name} off={offset} len={length} ({'buffered' if buffered else 'O_DIRECT'})")

        def ask(node: Node) -> str:
            data = node.read(offset, length, buffered=buffered)
            return f"{len(data)} crc32={zlib.crc32(data):08x} first8={data[:8].ljust(8, bytes(1)).hex()}"

        return self._answer(streams, name, ask)

    def _range(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        word, name = arguments[:2]
        offset, length = (whole(text, self.subcommands[word][1]) for text in arguments[2:])
        streams.out.write(f"$ {word} {name} off={arguments[2]} len={arguments[3]}")

        def ask(node: Node) -> str:
            method = {"discard": node.discard, "zeroout": node.zeroout, "secdiscard": node.secure_discard}[word]
            method(offset, length)
            return "0"

        return self._answer(streams, name, ask)

    def _fallocate(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        word, name = arguments[:2]
        shown, mode = _FALLOCATE[word]
        offset, length = (whole(text, self.subcommands[word][1]) for text in arguments[2:])
        streams.out.write(f"$ fallocate {shown} {name} off={arguments[2]} len={arguments[3]}")

        def ask(node: Node) -> str:
            node.fallocate(mode, offset, length)
            return "0"

        return self._answer(streams, name, ask)

    def _info(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name = arguments[1]
        try:
            size = self.machine.node(name).size
        except OSError:
            size = 0
        streams.out.write(f"$ blockdev {name} => size64={size} ssz={PAGE} pbsz={PAGE}\n")
        return 0

    def _hold(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name, mode = arguments[1], arguments[3]
        seconds = whole(arguments[2], self.subcommands["hold"][1])
        streams.out.write(f"$ open({name}, {mode}) held {arguments[2]} s in background\n")
        try:
            shell.variables["!"] = str(self.machine.hold(name, mode, seconds))
        except OSError as error:
            streams.out.write(f"hold [open] => {verdict(error)}\n")
            return 1
        if not shell.in_background:
            self.machine.clock.sleep(seconds)
            self.machine.wait()
        return 0

    # Many pages

    def _compare(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name, path = arguments[1], arguments[3]
        page, first, count = (whole(arguments[index], self.subcommands["cmp"][1]) for index in (2, 4, 5))
        differ, first_differing, failed = 0, -1, 0
        try:
            node = self.machine.node(name)
            with self.machine.resolve(path).open("rb") as file:
                file.seek(first * PAGE)
                expected = file.read(count * PAGE)
        except ZramError:
            raise
        except OSError as error:
            raise Usage(f"{self.subcommands['cmp'][1]} ({error})") from error
        for index in range(count):
            try:
                data = node.read((page + index) * PAGE, PAGE)
            except OSError:
                data = b""
            if len(data) != PAGE:
                failed += 1
            elif data != expected[index * PAGE : (index + 1) * PAGE]:
                differ += 1
                first_differing = index if first_differing < 0 else first_differing
        streams.out.write(
            f"$ compare {name} pages {arguments[2]}.. with data pages {arguments[4]}.. n={count} => "
            f"{differ} differ (first {first_differing}), {failed} read errors\n"
        )
        return int(differ > 0 or failed > 0)

    def _pages(self, arguments: list[str], shell: Shell, streams: Streams) -> int:
        name, path, mm_stat = arguments[1], arguments[2], arguments[6]
        first, count, slot = (whole(arguments[index], self.subcommands["pages"][1]) for index in (3, 4, 5))

        def counters() -> list[int]:
            return [int(text) for text in self.machine.read_text(mm_stat).split()]

        streams.out.write(_PAGE_TABLE)
        node = self.machine.node(name)
        before = counters()
        for index in range(count):
            data = self._data(f"file:{path}:{first + index}", PAGE)
            try:
                node.write((slot + index) * PAGE, data)
            except OSError as error:
                streams.out.write(f"page {first + index} write => {verdict(error)}\n")
            now = counters()
            orig, compr, used, same, huge, since = (now[k] - before[k] for k in (0, 1, 2, 5, 7, 8))
            streams.out.write(f"{first + index:3d} {compr:5d} {orig:5d} {used:6d} {same:3d} {huge:3d} {since:3d}\n")
            before = now
        return 0
