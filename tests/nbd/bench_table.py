"""The NBD server against nbdkit's memory plugin: speed by fio and nbdcopy, and resident memory. Run it by hand:

    python tests/nbd/bench_table.py [--rounds 3] [--seconds 1] [--mib 1024] [--disk /var/tmp]

It needs fio, libnbd-bin, nbdkit and a C compiler, 6 GiB of disk and about four times `--mib` of memory. Each server is
a process of its own on a unix socket: `zramcore daemon` with zstd and with lz4, all in memory; the same in a quarter of
that memory (mem_limit), with a backing file below `--disk` that `watermark` spills to; `nbdkit memory` with
allocator=zstd and allocator=malloc. In each round every server takes its turn at every job, so that a noisy machine
spoils all alike; what is printed are medians of the rounds, and ratios to allocator=zstd, each the median of its
rounds' ratios; "reach" is what we want of them, with zstd and with lz4.

The data are the files of this machine. They come in through nbdcopy; fio then overwrites them with the same, so that
what a page costs to compress stays real (see fio_data.c), and in the end each server's contents are compared with the
file. Then, in servers of their own, resident memory: when the data have come in by nbdcopy ("filled"), the most that it
was by then ("most", VmHWM), and when a quarter of the data was overwritten in random 4 KiB writes ("rewritten"); the
same with random bytes. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
FOLDERS = ("/usr/bin", "/usr/lib", "/usr/share", "/opt", str(Path.home()))
DATA = "fio_data.c"
JOBS = [(size, way, depth) for size in (4, 64) for way in ("write", "read") for depth in (1, 32)]
COPIES = ("in", "out")
PATIENCE = 30.0
RIVAL = "nbdkit zstd"
REACH = {
    "nbdcopy in": (0.7, 1.2),
    "4 KiB random write, depth 1": (2.0, 3.0),
    "4 KiB random write, depth 32": (2.0, 3.0),
    "4 KiB random read, depth 32": (1.0, 1.0),
    "64 KiB random write, depth 1": (0.7, 1.2),
    "64 KiB random write, depth 32": (0.7, 1.2),
}
"""What we want to reach, as ratios to the rival: with zstd, with lz4."""
BATCH = 256
"""Pages in flight of a spill."""


@dataclass
class Running:
    """A server that runs: where it serves, its process, what was measured."""

    name: str
    uri: str
    process: subprocess.Popen[bytes]
    figures: dict[str, list[float]] = field(default_factory=dict)
    resident: dict[str, float] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

    def weigh(self, when: str, field: str = "VmRSS") -> None:
        """Note its resident memory, in MiB: now, or with VmHWM the most that it was."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                self.resident[when] = int(line.split()[1]) / 1024
                return
        raise SystemExit(f"{self.name} has no {field}")


def our_command(folder: Path, socket: Path, compressor: str, mib: int, more: str = "") -> list[str]:
    config = folder / "zramcore.toml"
    config.write_text(f'[device.disk]\ncomp_algorithm = "{compressor}"\ndisksize = "{mib}M"\n{more}')
    control = str(folder / "control.sock")
    program = [sys.executable, "-m", "zramcore", "daemon", "--config", str(config)]
    return [*program, "--socket", control, "--nbd", f"unix:{socket}"]


def our_bounded_command(folder: Path, socket: Path, compressor: str, mib: int) -> list[str]:
    backing = f"backing_dev = 'direct:{folder}/backing,size={2 * mib}M'\nwriteback_batch_size = {BATCH}\n"
    limit = f"mem_limit = '{mib // 4}M'\nmem_limit_wait = 30000\n"
    policy = "[[device.disk.policy]]\nname = 'watermark'\n"
    return our_command(folder, socket, compressor, mib, backing + limit + policy)


def their_command(folder: Path, socket: Path, allocator: str, mib: int) -> list[str]:
    return ["nbdkit", "-f", "-U", str(socket), "memory", f"size={mib}M", f"allocator={allocator}"]


SERVERS = {
    "zramcore zstd": (our_command, "zstd"),
    "zramcore lz4": (our_command, "lz4"),
    "bounded zstd": (our_bounded_command, "zstd"),
    "bounded lz4": (our_bounded_command, "lz4"),
    RIVAL: (their_command, "zstd"),
    "nbdkit malloc": (their_command, "malloc"),
}


@contextlib.contextmanager
def running(name: str, folder: Path, mib: int) -> Iterator[Running]:
    """A server, until the block ends."""
    make, variant = SERVERS[name]
    own = folder / name.replace(" ", "-")
    own.mkdir(exist_ok=True)
    socket = own / "nbd.sock"
    socket.unlink(missing_ok=True)
    with (own / "log").open("ab") as log:
        process = subprocess.Popen(make(own, socket, variant, mib), stdout=log, stderr=log)
    try:
        uri = f"nbd+unix:///?socket={socket}"
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(["nbdinfo", "--size", uri], capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start: {(own / 'log').read_text()}")
            time.sleep(0.05)
        yield Running(name, uri, process)
    finally:
        process.terminate()
        process.wait()


def collect(target: Path, mib: int, folders: Sequence[str]) -> None:
    """Fill `target` with the contents of files, one after the other."""
    left = mib * MIB
    with target.open("wb") as out:
        for folder in folders:
            for root, below, names in os.walk(folder):
                below.sort()
                for name in sorted(names):
                    path = Path(root, name)
                    if path.is_symlink() or not path.is_file():
                        continue
                    with path.open("rb") as file:
                        while left and (data := file.read(min(left, MIB))):
                            left -= out.write(data)
                    if not left:
                        return
    raise SystemExit(f"the files below {' '.join(folders)} are {left // MIB} MiB too few: name more folders")


def random_bytes(target: Path, mib: int) -> None:
    with target.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))


def run(command: Sequence[str], **environment: str) -> bytes:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout


def copy(server: Running, data: Path, way: str) -> float:
    """MiB a second of nbdcopy."""
    ends = [str(data), server.uri] if way == "in" else [server.uri, "null:"]
    start = time.monotonic()
    run(["nbdcopy", *ends])
    return data.stat().st_size / MIB / (time.monotonic() - start)


def same_contents(server: Running, data: Path) -> bool:
    """Whether the server holds what the file does."""
    reader = subprocess.Popen(["nbdcopy", server.uri, "-"], stdout=subprocess.PIPE)
    compared = subprocess.run(["cmp", "-", str(data)], stdin=reader.stdout)
    return not reader.wait() and not compared.returncode


def fio(server: Running, data: Path, library: Path, job: tuple[int, str, int], *amount: str) -> float:
    """MiB a second of one random job; `amount` is for how long, in fio's words."""
    size, way, depth = job
    output = run(
        [
            *("fio", "--name=job", "--output-format=json", "--ioengine=nbd", f"--uri={server.uri}", "--norandommap"),
            *(f"--rw=rand{way}", f"--bs={size}k", f"--iodepth={depth}", f"--size={data.stat().st_size}", *amount),
        ],
        LD_PRELOAD=str(library),
        FIO_DATA=str(data),
    )
    result = json.loads(output[output.index(b"{") :])["jobs"][0]
    if result["error"]:
        raise SystemExit(f"fio: error {result['error']} from {server.name}")
    return float(result[way]["bw_bytes"]) / MIB


def label(job: tuple[int, str, int]) -> str:
    return f"{job[0]} KiB random {job[1]}, depth {job[2]}"


def measure(servers: Sequence[Running], data: Path, library: Path, rounds: int, seconds: float) -> None:
    """All jobs, in rounds in which all servers take their turns."""
    for turn in range(rounds):
        for way in COPIES:
            for server in servers:
                server.note(f"nbdcopy {way}", copy(server, data, way))
        for job in JOBS:
            for server in servers:
                server.note(label(job), fio(server, data, library, job, "--time_based", f"--runtime={seconds}s"))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr)
    for server in servers:
        if not same_contents(server, data):
            raise SystemExit(f"{server.name} does not hold what was written")


def weigh(server: Running, data: Path, what: str, library: Path) -> None:
    """Note the memory that data take, before and after a quarter of them was written again, a page here and there."""
    server.weigh("empty")
    copy(server, data, "in")
    server.weigh(f"{what}, filled")
    server.weigh(f"{what}, most", "VmHWM")
    fio(server, data, library, (4, "write", 32), f"--io_size={data.stat().st_size // 4}")
    server.weigh(f"{what}, rewritten")


def table(servers: Sequence[Running]) -> None:
    """Print the medians, and their ratios to the rival's."""
    rival = next((server for server in servers if server.name == RIVAL), None)
    print(f"{'MiB/s':30}" + "".join(f"{server.name:>17}" for server in servers) + "       reach")
    for what in servers[0].figures:
        cells = []
        for server in servers:
            cell = f"{statistics.median(server.figures[what]):,.0f}"
            if rival and server is not rival:
                pairs = zip(server.figures[what], rival.figures[what], strict=True)
                cell += f"{statistics.median([one / other for one, other in pairs]):7.2f} x"
            cells.append(f"{cell:>17}")
        reach = "{:.1f} {:.1f}".format(*REACH[what]) if what in REACH else ""
        print(f"{what:30}{''.join(cells)}{reach:>12}".rstrip())
    print()
    print(f"{'resident MiB':30}" + "".join(f"{server.name:>17}" for server in servers))
    for when in servers[0].resident:
        cells = []
        for server in servers:
            cell = f"{server.resident[when]:,.0f}"
            if rival and server is not rival:
                cell += f"{server.resident[when] / rival.resident[when]:7.2f} x"
            cells.append(f"{cell:>17}")
        print(f"{when:30}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each fio job")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--disk", default="/var/tmp", help="a folder on a disk, for the data and the backing files")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one; repeatable")
    parser.add_argument("--folder", action="append", help="where the data are; repeatable")
    options = parser.parse_args()
    names = options.server or list(SERVERS)
    with tempfile.TemporaryDirectory(dir=options.disk) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        library = folder / "fio_data.so"
        run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name(DATA))])
        data = folder / "data"
        collect(data, options.mib, options.folder or FOLDERS)
        servers = [stack.enter_context(running(each, folder, options.mib)) for each in names]
        measure(servers, data, library, options.rounds, options.seconds)
        stack.close()
        for what in ("files", "random bytes"):
            if what != "files":
                random_bytes(data, options.mib)
            for server in servers:
                with running(server.name, folder, options.mib) as fresh:
                    weigh(fresh, data, what, library)
                    server.resident |= fresh.resident
        table(servers)


if __name__ == "__main__":
    main()
