"""The guest in which the transcripts were recorded, as far as its scripts look at it: commands beside exec's own.

awk and sed are this host's own, fed by pipes; everything else is played on the script's machine.
"""

from __future__ import annotations

import struct
import subprocess
import uuid

from zramcore.script import Machine
from zramcore.script.data import PAGE, number
from zramcore.script.shell import Run, Shell, Streams, Usage
from zramcore.script.text import KERNEL_RELEASE, read
from zramcore.script.tool import verdict

DISK_SIZE = 64 << 20
"""Bytes of /dev/vda."""
BANNER = f"kernel: {KERNEL_RELEASE}\n"
"""What guest-lib.sh prints before the script starts."""

_DISK_FILES = (
    *("alignment_offset", "bdi", "capability", "dev", "discard_alignment", "diskseq", "events", "events_async"),
    *("events_poll_msecs", "ext_range", "hidden", "holders", "inflight", "partscan", "queue", "range", "removable"),
    *("ro", "size", "slaves", "subsystem", "uevent"),
)
"""What any disk has in sysfs beside the attributes of its driver."""


_DEBUG_FILES = ("block_state", "zsmalloc_classes")
"""Attributes that the kernel has in debugfs."""


class Guest(Machine):
    """A machine with /dev/vda, and the programs that the recorded scripts use."""

    def prepare(self) -> None:
        """What exists when a script starts."""
        self.make_file("/dev/vda", DISK_SIZE)
        self.control.hot_add()

    def commands(self) -> dict[str, Run]:
        """The commands by name. One that is used in a way that is not played here is refused with its line."""
        return {name: _or_refuse(name, run) for name, run in self._commands().items()}

    def _commands(self) -> dict[str, Run]:
        return {
            "dd": self._dd,
            "losetup": self._losetup,
            "mkloop": self._mkloop,
            "ls": self._ls,
            "rm": lambda shell, arguments, streams: 0,
            "awk": self._filter("awk"),
            "sed": self._filter("sed"),
            "mkswap": self._mkswap,
            "swapon": self._swapon,
            "swapoff": self._swapoff,
            "blkdiscard": self._blkdiscard,
            "sync": lambda shell, arguments, streams: 0,
            ".": self._source,
        }

    # Files and disks

    def _dd(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        block = int(options.get("bs", "512").replace("k", "000").replace("M", "000000"))
        count = int(options.get("count", "0"))
        skip, seek = int(options.get("skip", "0")), int(options.get("seek", "0"))
        source, target = options["if"], options["of"]
        direct = "direct" in options.get("oflag", "")
        if source == "/dev/zero":
            data = bytes(block * count)
        elif source in self.names or source.startswith("/dev/zram"):
            data = self.node(source).read(skip * block, block * count, buffered=True)
        else:
            with self.resolve(source).open("rb") as file:
                file.seek(skip * block)
                data = file.read(block * count if count else -1)
        done = 0
        status = 0
        if target == "/dev/null":
            done = len(data)
        elif not target.startswith("/dev/"):
            self.make_file(target, 0).write_bytes(data)
            done = len(data)
        else:
            try:
                while done < len(data):
                    piece = data[done : done + block]
                    done += self.node(target).write(seek * block + done, piece, buffered=not direct)
            except OSError as error:
                streams.err.write(f"dd: error writing '{target}': {verdict(error).partition(', ')[2][:-1]}\n")
                status = 1
        streams.err.write(f"{-(-len(data) // block)}+0 records in\n{done // block}+0 records out\n")
        return status

    def _losetup(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        arguments = [argument for argument in arguments if argument != "-r"]
        if arguments[:1] == ["-d"]:
            known = self.names.pop(arguments[1], None)
            if known is None:
                streams.err.write(f"losetup: {arguments[1]}: No such device or address\n")
            return int(known is None)
        name, file = arguments
        if name in self.names:
            streams.err.write(f"losetup: {name}: Device or resource busy\n")
            return 1
        self.names[name] = self.resolve(file)
        return 0

    def _mkloop(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        name, pages = arguments
        self.make_file(f"loop.{pages}", int(pages) * PAGE)
        status = self._losetup(shell, [name, f"loop.{pages}"], streams)
        sectors = self.node(name).size // 512
        streams.out.write(f"$ losetup {name} <{pages}-page tmpfs file> => rc={status} sectors={sectors}\n")
        return 0

    def _ls(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        path = arguments[-1].rstrip("/")
        if arguments[:1] == ["-l"]:
            mode = "lrwxrwxrwx" if path == "/sys/block/zram0" else "-r--------"
            arrow = " -> ../devices/virtual/block/zram0" if mode[0] == "l" else ""
            streams.out.write(f"{mode}    1 0        0                0 Jan  1 00:00 {path}{arrow}\n")
            return 0
        names = self._listing(path)
        if names is None:
            streams.err.write(f"ls: {path}: No such file or directory\n")
            return 1
        streams.out.write("".join(f"{name}\n" for name in sorted(names)))
        return 0

    def _listing(self, path: str) -> list[str] | None:
        devices = {device.name: device for device in self.control.devices.values()}
        if path == "/sys/block":
            return [*devices, *(name.removeprefix("/dev/") for name in self.names if name.startswith("/dev/"))]
        if path == "/sys/kernel/debug/zsmalloc":
            return [name for name, device in devices.items() if device.initialized]
        if path.removeprefix("/sys/block/") not in devices:
            return None
        ours = [name for name, attribute in self.control.attributes.items() if attribute.since != "-"]
        return [*_DISK_FILES, *(name for name in ours if name not in _DEBUG_FILES)]

    def _filter(self, name: str) -> Run:
        """A filter of this host, on texts of the script's own."""

        def run(shell: Shell, arguments: list[str], streams: Streams) -> int:
            program, files = arguments[:1], arguments[1:]
            text = "".join(read(self, file, streams) or "" for file in files) if files else streams.stdin.read()
            try:
                done = subprocess.run([name, *program], input=text, capture_output=True, text=True, check=False)
            except OSError as error:
                raise shell.error(f"this host has no {name}: {error}") from error
            streams.out.write(done.stdout)
            streams.err.write(done.stderr)
            return done.returncode

        return run

    def _source(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if arguments[-1:] and arguments[-1].endswith("guest-lib.sh"):
            return 0
        raise Usage(". guest-lib.sh")

    # Swap

    def _mkswap(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        node = self.node(arguments[-1])
        if node.size < 10 * PAGE:
            streams.err.write("mkswap: device is too small\n")
            return 1
        identity = uuid.UUID("5a3d1c97-2f60-4b8e-9d14-7c6be20f83a5")
        page = bytearray(PAGE)
        page[1024:1036] = struct.pack("<III", 1, node.size // PAGE - 1, 0)
        page[1036:1052] = identity.bytes
        page[PAGE - 10 :] = b"SWAPSPACE2"
        node.write(0, bytes(page), buffered=True)
        streams.out.write(f"Setting up swapspace version 1, size = {node.size - PAGE} bytes\nUUID={identity}\n")
        return 0

    def _swapon(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        self.hold(arguments[-1], "excl")
        return 0

    def _swapoff(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        self.release(arguments[-1])
        return 0

    def _blkdiscard(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        options = dict(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
        node = self.node(arguments[-1])
        offset = number(options.get("-o", "0"))
        try:
            node.discard(offset, number(options["-l"]) if "-l" in options else node.size - offset)
        except OSError as error:
            streams.err.write(f"blkdiscard: {arguments[-1]}: {verdict(error).partition(', ')[2][:-1]}\n")
            return 1
        return 0


def _or_refuse(name: str, run: Run) -> Run:
    def guarded(shell: Shell, arguments: list[str], streams: Streams) -> int:
        try:
            return run(shell, arguments, streams)
        except (ValueError, KeyError, IndexError) as error:
            raise shell.error(f"{name} {' '.join(arguments)}: not understood ({error})") from error

    return guarded
