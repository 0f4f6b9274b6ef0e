"""Replays a transcript without its script, from the operations that it echoes.

Every `$ ...` line says what was done: it is done again and the answers are compared. Lines that show state are asked
again. What a script did silently (`setup ... >/dev/null`, `sleep`) cannot be known here, and shows up as differences.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from compare import Difference, Outcome, normalise
from differences import Explainer
from guest import BANNER, Guest

from zramcore.script import ScriptError, command_table
from zramcore.script.shell import Shell, Streams
from zramcore.script.words import device_variables

_VALUE = r"(?P<value>.*?)"
_DEVICE = r"(?P<device>/dev/\S+)"
_RANGE = r"off=(?P<offset>\S+) len=(?P<length>\S+)"
_FALLOCATE = {
    "PUNCH_HOLE|KEEP_SIZE": "punch",
    "ZERO_RANGE|KEEP_SIZE": "fzero",
    "PUNCH_HOLE|KEEP_SIZE|NO_HIDE_STALE": "noh",
}
_OPERATIONS: tuple[tuple[str, Callable[[dict[str, str]], list[str]]], ...] = (
    (rf"echo '{_VALUE}' > (?P<name>\S+)", lambda m: ["zt", "w", path_of(m["name"]), m["value"].replace("\\n", "\n")]),
    (rf"printf %s '{_VALUE}' > (?P<name>\S+)",
     lambda m: ["zt", "wn", path_of(m["name"]), m["value"].replace("\\n", "\n")]),
    (r"cat (?P<name>\S+)", lambda m: ["zt", "r", path_of(m["name"])]),
    (r"dd data pages (?P<first>\d+)\.\.\+(?P<count>\d+) -> zram page (?P<slot>\d+) \(.*",
     lambda m: ["put", m["first"], m["count"], m["slot"]]),
    (rf"pwrite {_DEVICE} {_RANGE} data=(?P<spec>\S+) \((?P<kind>\S+)\)",
     lambda m: ["zt", "pw", m["device"], m["offset"], m["length"], m["spec"], *["buf"] * (m["kind"] == "buffered")]),
    (rf"pread {_DEVICE} {_RANGE} \((?P<kind>\S+)\)",
     lambda m: ["zt", "pr", m["device"], m["offset"], m["length"], *["buf"] * (m["kind"] == "buffered")]),
    (rf"(?P<word>discard|zeroout|secdiscard) {_DEVICE} {_RANGE}",
     lambda m: ["zt", m["word"], m["device"], m["offset"], m["length"]]),
    (rf"fallocate (?P<mode>\S+) {_DEVICE} {_RANGE}",
     lambda m: ["zt", _FALLOCATE[m["mode"]], m["device"], m["offset"], m["length"]]),
    (rf"blockdev {_DEVICE}", lambda m: ["zt", "info", m["device"]]),
    (rf"open\({_DEVICE}, (?P<mode>\w+)\) held (?P<seconds>\d+) s in background",
     lambda m: ["zt", "hold", m["device"], m["seconds"], m["mode"]]),
    (rf"compare {_DEVICE} pages (?P<page>\d+)\.\. with data pages (?P<first>\d+)\.\. n=(?P<count>\d+)",
     lambda m: ["zt", "cmp", m["device"], m["page"], "pages.bin", m["first"], m["count"]]),
    (rf"losetup {_DEVICE} <(?P<pages>\d+)-page tmpfs file>", lambda m: ["mkloop", m["device"], m["pages"]]),
    (r"(?P<line>(?:mkswap|swapon|swapoff|blkdiscard) .*)", lambda m: ["run", *m["line"].split()]),
)  # fmt: skip
_CONTINUED = re.compile(r"  dd: |hold \[open\]|\\0|#[1-9]: |[0-9]+ +[0-9]+$|Setting up swap|UUID=|  rc=|\[no newline\]")
"""Further lines of what an operation printed."""
_SUMMARY = re.compile(r"  (?:-> )?(?:(?:initstate|disksize|sectors)=\d+ ?)+")
_BLOCK_STATE = re.compile(r" *\d+ +\d+\.\d{6} [.a-z]{6}")
_PAGE_ROW = re.compile(r" *(\d+) +\d+ +4096 +\d+ +\d+ +\d+ +\d+|page (\d+) write")


def path_of(name: str) -> str:
    """The file that an attribute's name in an echo stands for."""
    return f"/sys/class/zram-control/{name}" if name in ("hot_add", "hot_remove") else f"/sys/block/zram0/{name}"


class _Replay:
    """One transcript, from its first line to its last."""

    def __init__(self, transcript: Path, guest: Guest) -> None:
        self.lines = transcript.read_text().splitlines()
        self.explainer = Explainer(transcript.name)
        self.guest = guest
        commands = {**command_table(guest), **guest.commands()}
        self.shell = Shell(commands, guest, str(transcript), {**device_variables(0), "P": "pages.bin"})
        self.at = 0
        self.last_written = ""
        self.compared = 0
        self.found: list[Difference] = []

    def run(self) -> Outcome:
        while self.at < len(self.lines):
            self.step(self.lines[self.at])
        return Outcome(self.compared, tuple(self.found))

    def ask(self, *words: str) -> list[str]:
        """The lines that a command prints."""
        out = io.StringIO()
        self.shell.in_background = words[:2] == ("zt", "hold")
        try:
            self.shell.call(list(words), Streams(io.StringIO(), out, out))
        except ScriptError as error:
            out.write(f"({error})\n")
        return out.getvalue().removesuffix("\n").split("\n")

    def cat(self, path: str) -> str:
        return "\n".join(self.ask("cat", path))

    def hold_against(self, count: int, actual: list[str]) -> None:
        """Compare the next `count` lines with what came, and go behind them."""
        expected = self.lines[self.at : self.at + count]
        for offset, (mine, yours) in enumerate(itertools.zip_longest(expected, actual)):
            self.compared += bool(mine)
            reason = self.explainer.see(mine, yours, mine is not None and yours is not None and
                                        normalise(mine) == normalise(yours))  # fmt: skip
            if reason is not None:
                self.found.append(Difference(self.at + min(offset, count - 1) + 1, mine, yours, reason))
        self.at += count

    def run_length(self, belongs: Callable[[str], object]) -> int:
        """How many lines after this one belong to it."""
        rest = self.lines[self.at + 1 :]
        return sum(1 for _ in itertools.takewhile(belongs, rest))

    def step(self, line: str) -> None:
        names = re.match(r"((?:zram\d+ )+)\$ ", line)
        if names:  # the output of ls without a newline, before the echo
            self.lines[self.at] = line = line[names.end() - 2 :]
            if names[1].split() != self.devices():
                self.found.append(Difference(self.at + 1, names[1], " ".join(self.devices()), ""))
        if line.startswith("$ "):
            self.operation(line)
        elif line == "" or (line.startswith("# ") and not line.startswith("# page compr_delta")):
            self.at += 1
        elif line.startswith("### "):
            self.guest.wait()
            self.at += 1
        else:
            self.state(line)

    def devices(self) -> list[str]:
        return sorted(device.name for device in self.guest.control.devices.values())

    def operation(self, line: str) -> None:
        asked = line[2:].partition(" => ")[0].removesuffix(" [open]")
        for pattern, command in _OPERATIONS:
            match = re.fullmatch(pattern, asked)
            if match:
                words = command(match.groupdict())
                break
        else:
            self.unknown(line)
            return
        self.last_written = words[2] if words[:2] in (["zt", "w"], ["zt", "wn"]) else self.last_written
        count = 1 + self.run_length(_CONTINUED.match)
        actual = self.ask(*words)
        if (
            "EBUSY" in actual[0]
            and "EBUSY" not in line
            and "EBUSY" not in "".join(self.lines[self.at : self.at + count])
        ):
            self.guest.wait()  # what held it open in the background had ended by then
            actual = self.ask(*words)
        self.hold_against(count, actual)

    def unknown(self, line: str) -> None:
        self.compared += 1
        self.found.append(Difference(self.at + 1, line, "(this replay does not understand the line)", ""))
        self.at += 1

    def state(self, line: str) -> None:
        """A line that shows state: ask for it again."""
        named = re.match(r"  ([a-z_/]+): ", line + " ")
        if line.startswith("  mm_stat:"):
            self.hold_against(1, self.ask("mm"))
        elif line.startswith("  bd_stat:"):
            self.hold_against(1, self.ask("bd"))
        elif line.startswith("  io_stat:"):
            self.hold_against(1, self.ask("io"))
        elif line.startswith("  = "):
            self.hold_against(1, self.ask("s"))
        elif line.startswith("  block_state (raw"):
            inside = self.run_length(lambda text: text.startswith(("   [", "   lines=", "   (no file", "cat: ")))
            shown = sum(text.startswith("   [") for text in self.lines[self.at : self.at + 1 + inside])
            self.hold_against(1 + inside, self.ask("bs", str(shown or 40)))
        elif line.startswith("  block_state flags census"):
            self.hold_against(1 + self.run_length(lambda text: re.match(r"   \S+ \d+$", text)), self.ask("bsc"))
        elif line.startswith("   flags: "):
            rows = [row.split() for row in self.cat("/sys/kernel/debug/zram/zram0/block_state").splitlines()]
            self.hold_against(1, ["   flags: " + "".join(f"{row[0]}:{row[-1]} " for row in rows)])
        elif _BLOCK_STATE.fullmatch(line):
            count = 1 + self.run_length(_BLOCK_STATE.fullmatch)
            self.hold_against(count, self.cat("/sys/kernel/debug/zram/zram0/block_state").splitlines()[:count])
        elif line.startswith("# page compr_delta"):
            rows = self.lines[self.at + 1 : self.at + 1 + self.run_length(_PAGE_ROW.match)]
            match = _PAGE_ROW.match(rows[0]) if rows else None
            first = (match[1] or match[2]) if match else "0"
            words = ["pages.bin", first, str(len(rows)), first, "/sys/block/zram0/mm_stat"]
            self.hold_against(1 + len(rows), self.ask("zt", "pages", "/dev/zram0", *words))
        elif _SUMMARY.fullmatch(line):
            value = {name: self.cat(f"/sys/block/zram0/{name}") for name in ("initstate", "disksize", "size")}
            self.hold_against(
                1, [re.sub(r"(\w+)=\d+", lambda m: f"{m[1]}={value[m[1].replace('sectors', 'size')]}", line)]
            )
        elif line.startswith("  -> "):
            self.hold_against(1, [f"  -> {self.cat(self.last_written)}"])
        elif named:
            self.hold_against(1, [f"  {named[1]}: {self.cat(f'/sys/block/zram0/{named[1]}')}"])
        elif line.startswith("kernel: "):
            self.hold_against(1, [BANNER.rstrip("\n")])
        elif re.fullmatch(r"\(no attr (\w+)\)", line):
            entry = self.guest.entry(f"/sys/block/zram0/{line[9:-1]}")
            self.hold_against(1, [line if entry is None or entry.show is None else f"{line[9:-1]} can be read"])
        elif " comp_algorithm " in line and " disksize " in line:
            self.hold_against(1, [" ".join(self.ask("ls", "/sys/block/zram0")) + " "])
        elif line.endswith("/block_state") and line.startswith("-r"):
            self.hold_against(1, self.ask("ls", "-l", "/sys/kernel/debug/zram/zram0/block_state"))
        elif re.fullmatch(r"zram\d+", line):
            self.hold_against(1 + self.run_length(lambda text: re.fullmatch(r"zram\d+", text)), self.devices())
        elif re.fullmatch(r"\d+", line):
            self.hold_against(1, [str(len(self.devices()))])
        else:
            self.unknown(line)


def replay_echo(transcript: Path, guest: Guest) -> Outcome:
    """Replay a transcript from its echoes alone."""
    return _Replay(transcript, guest).run()
