"""The words of scripts that stand for what one does with a zram device: set it up, fill it, look at it.

They act on the device that `dev` chose: `$Z` is its sysfs directory, `$D` its node, `$DBG` its block_state, and `$P`
the file of data pages.
"""

from __future__ import annotations

import re
from collections import Counter

from .data import PAGE
from .machine import Machine
from .shell import Run, Shell, Streams, Usage
from .tool import Tool, verdict, whole

_SHOWN = ("initstate", "disksize", "comp_algorithm", "backing_dev")
_BLOCK_STATE_LINES = 40


def device_variables(number: int) -> dict[str, str]:
    """The variables that name device zram`number`."""
    name = f"zram{number}"
    return {
        "N": str(number),
        "Z": f"/sys/block/{name}",
        "D": f"/dev/{name}",
        "DBG": f"/sys/kernel/debug/zram/{name}/block_state",
    }


def squeeze(text: str) -> str:
    """Each run of blanks as one, without the newline at the end."""
    return re.sub(" +", " ", text).rstrip("\n")


class Words:
    """The words, bound to a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tool = Tool(machine)

    def table(self) -> dict[str, Run]:
        """Every word and what it runs."""
        device = ("pw", "pr", "discard", "zeroout", "secdiscard", "punch", "fzero", "noh", "info")
        return {
            "zt": self.tool.run,
            "w": self._attribute("w"),
            "wn": self._attribute("wn"),
            "c": self._attribute("r"),
            **{name: self._on_device(name) for name in device},
            "wr": self._write_page,
            "rdp": self._read_page,
            "disc": self._discard_pages,
            "put": self._put,
            "cmp": self._compare,
            "mm": self._stats("mm_stat"),
            "bd": self._stats("bd_stat"),
            "io": self._stats("io_stat"),
            "st": self._stats("mm_stat", "bd_stat", "io_stat"),
            "s": self._one_line,
            "bs": self._block_state,
            "bsc": self._census,
            "show": self._show,
            "reset": lambda shell, arguments, streams: self._store(shell, streams, "reset", "1"),
            "setup": self._setup,
            "mkloop": self._make_loop,
            "hot_add": self._hot_add,
            "hot_remove": self._hot_remove,
            "dev": self._choose,
            "pages": self._choose_pages,
            "hold": self._hold,
            "release": self._release,
            "sleep": self._sleep,
            "wait": self._wait,
            "kill": self._kill,
            "say": lambda shell, arguments, streams: _print(streams, f"\n### {' '.join(arguments)}"),
            "note": lambda shell, arguments, streams: _print(streams, f"# {' '.join(arguments)}"),
            "run": self._run,
        }

    # Attributes

    def _attribute(self, word: str) -> Run:
        def run(shell: Shell, arguments: list[str], streams: Streams) -> int:
            if len(arguments) != (1 if word == "r" else 2):
                raise Usage("c ATTRIBUTE" if word == "r" else f"{word} ATTRIBUTE VALUE")
            path = f"{shell.variables['Z']}/{arguments[0]}"
            return self.tool.run(shell, [word, path, *arguments[1:]], streams)

        return run

    def _store(self, shell: Shell, streams: Streams, name: str, value: str) -> int:
        return self.tool.run(shell, ["w", f"{shell.variables['Z']}/{name}", value], streams)

    def _setup(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) not in (2, 3):
            raise Usage("setup ALGORITHM SIZE [BACKING]")
        status = self._store(shell, streams, "reset", "1")
        status |= self._store(shell, streams, "comp_algorithm", arguments[0])
        if arguments[2:3] not in ([], [""]):
            status |= self._store(shell, streams, "backing_dev", arguments[2])
        return status | self._store(shell, streams, "disksize", arguments[1])

    def _shown(self, shell: Shell, name: str) -> str:
        """An attribute's text, or what cat(1) says when it cannot be read."""
        path = f"{shell.variables['Z']}/{name}"
        entry = self.machine.entry(path)
        if entry is None:
            return f"cat: can't open '{path}': No such file or directory"
        try:
            return entry.show() if entry.show else ""
        except OSError as error:
            return f"cat: read error: {verdict(error).partition(', ')[2][:-1]}"

    def _stats(self, *names: str) -> Run:
        def run(shell: Shell, arguments: list[str], streams: Streams) -> int:
            for name in names:
                streams.out.write(f"  {name}: {squeeze(self._shown(shell, name))}\n")
            return 0

        return run

    def _one_line(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        texts = (squeeze(self._shown(shell, name)) for name in ("mm_stat", "bd_stat", "io_stat"))
        return _print(streams, f"  = {' | '.join(texts)}")

    def _show(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        for name in _SHOWN:
            text = self._shown(shell, name).rstrip("\n")
            streams.out.write(f"  {name}: {text}\n")
        return self._stats("mm_stat", "bd_stat", "io_stat")(shell, [], streams)

    def _block_state(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        count = whole(arguments[0], "bs [LINES]") if arguments else _BLOCK_STATE_LINES
        streams.out.write("  block_state (raw | index flags):\n")
        entry = self.machine.entry(shell.variables["DBG"])
        if entry is None or entry.show is None:
            return _print(streams, "   (no file)")
        lines: list[str] = []
        try:
            lines = entry.show().splitlines()
        except OSError as error:
            streams.out.write(f"cat: read error: {verdict(error).partition(', ')[2][:-1]}\n")
        for line in lines[:count]:
            words = line.split()
            streams.out.write(f"   [{line}] | {words[0]} {words[-1]}\n")
        return _print(streams, f"   lines={len(lines)}")

    def _census(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        streams.out.write("  block_state flags census:\n")
        text = self.machine.read_text(shell.variables["DBG"])
        counts = Counter(line.split()[-1] for line in text.splitlines())
        for flags, count in sorted(counts.items()):
            streams.out.write(f"   {flags} {count}\n")
        return 0

    # Requests

    def _on_device(self, word: str) -> Run:
        def run(shell: Shell, arguments: list[str], streams: Streams) -> int:
            return self.tool.run(shell, [word, shell.variables["D"], *arguments], streams)

        return run

    def _write_page(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 2:
            raise Usage("wr PAGE SPEC")
        offset = whole(arguments[0], "wr PAGE SPEC") * PAGE
        return self._on_device("pw")(shell, [str(offset), str(PAGE), arguments[1]], streams)

    def _read_page(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 1:
            raise Usage("rdp PAGE")
        return self._on_device("pr")(shell, [str(whole(arguments[0], "rdp PAGE") * PAGE), str(PAGE)], streams)

    def _discard_pages(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 2:
            raise Usage("disc PAGE N")
        offset, length = (whole(text, "disc PAGE N") * PAGE for text in arguments)
        return self._on_device("discard")(shell, [str(offset), str(length)], streams)

    def _put(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 3:
            raise Usage("put DATAPAGE N PAGE")
        first, count, slot = (whole(text, "put DATAPAGE N PAGE") for text in arguments)
        streams.out.write(f"$ dd data pages {first}..+{count} -> zram page {slot} (4K O_DIRECT writes)\n")
        name = shell.variables["D"]
        data = self._data_pages(shell, first, count)
        try:
            node = self.machine.node(name)
        except OSError as error:
            return _print(streams, f"  dd: can't open '{name}': {verdict(error).partition(', ')[2][:-1]}", 1)
        try:
            for index in range(len(data) // PAGE):
                node.write((slot + index) * PAGE, data[index * PAGE : (index + 1) * PAGE])
        except OSError as error:
            return _print(streams, f"  dd: error writing '{name}': {verdict(error).partition(', ')[2][:-1]}", 1)
        return 0

    def _data_pages(self, shell: Shell, first: int, count: int) -> bytes:
        path = self.machine.resolve(shell.variables["P"])
        try:
            with path.open("rb") as file:
                file.seek(first * PAGE)
                return file.read(count * PAGE)
        except OSError as error:
            raise shell.error(
                f"cannot read the data pages {path}: {error.strerror}", hint="name them with `pages FILE` or --pages"
            ) from error

    def _compare(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 3:
            raise Usage("cmp PAGE DATAPAGE N")
        page, first, count = arguments
        return self.tool.run(shell, ["cmp", shell.variables["D"], page, shell.variables["P"], first, count], streams)

    # The machine

    def _make_loop(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 2:
            raise Usage("mkloop NAME PAGES")
        name, pages = arguments[0], whole(arguments[1], "mkloop NAME PAGES")
        self.machine.make_file(name, pages * PAGE)
        sectors = self.machine.node(name).size // 512
        return _print(streams, f"$ losetup {name} <{pages}-page tmpfs file> => rc=0 sectors={sectors}")

    def _hot_add(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if arguments:
            raise Usage("hot_add")
        return self.tool.run(shell, ["r", "/sys/class/zram-control/hot_add"], streams)

    def _hot_remove(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 1:
            raise Usage("hot_remove ID")
        return self.tool.run(shell, ["w", "/sys/class/zram-control/hot_remove", arguments[0]], streams)

    def _choose(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 1:
            raise Usage("dev ID")
        shell.variables.update(device_variables(whole(arguments[0], "dev ID")))
        return 0

    def _choose_pages(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if len(arguments) != 1:
            raise Usage("pages FILE")
        shell.variables["P"] = arguments[0]
        return 0

    def _hold(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        mode = arguments[0] if len(arguments) == 1 else ""
        if mode not in ("ro", "wr", "excl"):
            raise Usage("hold ro|wr|excl")
        name = shell.variables["D"]
        streams.out.write(f"$ open({name}, {mode}) held\n")
        try:
            self.machine.hold(name, mode)
        except OSError as error:
            return _print(streams, f"hold [open] => {verdict(error)}", 1)
        return 0

    def _release(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if arguments:
            raise Usage("release")
        self.machine.release(shell.variables["D"])
        return _print(streams, f"$ close({shell.variables['D']})")

    def _sleep(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        try:
            seconds = float(arguments[0]) if len(arguments) == 1 else -1.0
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise Usage("sleep SECONDS")
        self.machine.clock.sleep(seconds)
        return 0

    def _wait(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        self.machine.wait()
        return 0

    def _kill(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if not arguments:
            raise Usage("kill NUMBER... (of $!)")
        ended = sum(self.machine.end_hold(whole(text, "kill NUMBER")) for text in arguments)
        return int(ended < len(arguments))

    def _run(self, shell: Shell, arguments: list[str], streams: Streams) -> int:
        if not arguments:
            raise Usage("run COMMAND ...")
        streams.out.write(f"$ {' '.join(arguments)}\n")
        status = shell.call(arguments, streams)
        return _print(streams, f"  rc={status}")


def _print(streams: Streams, text: str, status: int = 0) -> int:
    streams.out.write(text + "\n")
    return status
