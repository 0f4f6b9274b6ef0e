"""Run a command in a virtual machine with Debian's kernel: one with nbd, and with zram that has writeback. By hand:

    python tests/in_vm.py 'modprobe nbd && zramcore --version'
    python tests/in_vm.py --modules nbd,loop,fuse .venv/bin/pytest -q tests/attach
    python tests/in_vm.py --modules zram,loop .venv/bin/pytest -q tests/test_kernel_deployment.py

The machine has this one's files, as they are; what it changes is in its memory and gone afterwards. The command runs
as root in this folder, with the PATH of here, and its exit status is that of the script. File systems load their
modules themselves. Everything is emulated, so some twenty times slower: tests/attach took 5 minutes on two cores,
more beside other work. It needs root, apt (for the kernel's package, kept in --folder), qemu-system-x86 and kmod.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("busybox-static",)
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What it takes to see this machine's files."""
MARK = "in-vm-exit-status="
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /rw /new
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /order); do insmod /modules/$module || echo "no $module"; done
share() { mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose "$@"; }
share host /host
mount -t tmpfs -o size=75% rw /rw; mkdir -p /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /new
mkdir -p /new/lib/modules/$(uname -r); share modules /new/lib/modules/$(uname -r)
for folder in proc sys dev; do mount --move /$folder /new/$folder; done
for folder in run tmp dev/shm; do mkdir -p /new/$folder; mount -t tmpfs tmpfs /new/$folder; done
mkdir -p /new/dev/pts; mount -t devpts devpts /new/dev/pts
mount -t debugfs debugfs /new/sys/kernel/debug
ip link set lo up
echo /load > /new/proc/sys/kernel/modprobe
cp /job /new/run/job
chroot /new /bin/bash /run/job
poweroff -f
"""

LOAD = """#!/bin/busybox sh
exec chroot /new modprobe "$@"
"""
"""What the kernel runs for a module that it misses, as to mount a file system. It does so outside of /new."""


def command(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def kernel_package() -> str:
    """The name of the package of Debian's newest kernel for PCs."""
    names = re.findall(
        r"^(linux-image-[\d.-]+(?:\+bpo)?-amd64-unsigned) ", command("apt-cache", "search", "linux-image"), re.M
    )
    if not names:
        raise SystemExit("apt knows no kernel: apt-get update")
    return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def unpack(folder: Path) -> tuple[Path, Path]:
    """Fetch and unpack kernel and busybox, once; the kernel and its modules."""
    root = folder / "root"
    if not root.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", kernel_package(), *PACKAGES], cwd=folder, check=True)
        fresh = folder / "fresh"
        for package in folder.glob("*.deb"):
            command("dpkg", "-x", str(package), str(fresh))
        (version,) = (fresh / "lib/modules").iterdir()
        command("depmod", "-b", str(fresh), version.name)
        fresh.rename(root)
    (modules,) = (root / "lib/modules").iterdir()
    return root / "boot" / f"vmlinuz-{modules.name}", modules


def in_order(modules: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The files of modules, each after those that it needs."""
    lines = [line.split(":") for line in (modules / "modules.dep").read_text().splitlines()]
    needs = {Path(file).stem.partition(".")[0]: [file, *others.split()] for file, others in lines}
    order: list[Path] = []
    for name in wanted:
        for file in reversed(needs.get(name, [])):
            if modules / file not in order:
                order.append(modules / file)
    return order


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive (newc) of executable files and their folders, as the kernel unpacks it."""
    parts = []
    folders = {str(parent): None for name in files for parent in reversed(Path(name).parents) if str(parent) != "."}
    entries = [(name, 0o040755, b"") for name in folders] + [(name, 0o100755, data) for name, data in files.items()]
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return gzip.compress(b"".join(parts), 1)


def job(modules: str, words: list[str]) -> str:
    """The script that runs in the machine."""
    lines = [f"modprobe {shlex.quote(name)}" for name in modules.split(",") if name]
    what = words[0] if len(words) == 1 else shlex.join(words)
    exports = [f"export {name}={shlex.quote(os.environ.get(name, ''))}" for name in ("PATH", "HOME")]
    exports.append("export ZRAMCORE_IN_VM=1")
    # A file system of memory hides what is in /tmp here: work where that is not.
    return "\n".join([*exports, *lines, f"cd {shlex.quote(os.getcwd())}", f"( {what} )", f"echo {MARK}$?\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path.home() / ".cache/zramcore-vm", help="where the kernel is kept"
    )
    parser.add_argument("--modules", default="", metavar="NAME,...", help="to load before the command")
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--cpus", default="2")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("no command")
    if shutil.which("qemu-system-x86_64") is None:
        raise SystemExit("needs qemu-system-x86_64: apt install qemu-system-x86")
    kernel, modules = unpack(options.folder)
    files = {
        "init": INIT.encode(),
        "load": LOAD.encode(),
        "bin/busybox": (options.folder / "root/bin/busybox").read_bytes(),
    }
    order = in_order(modules, BOOT_MODULES)
    files |= {f"modules/{path.name}": path.read_bytes() for path in order}
    files["order"] = "\n".join(path.name for path in order).encode()
    files["job"] = job(options.modules, options.command).encode()
    with tempfile.NamedTemporaryFile() as initrd:
        initrd.write(archive(files))
        initrd.flush()
        shares = [
            f"local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap"
            for tag, path in (("host", "/"), ("modules", modules))
        ]
        machine = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", options.memory),
                *("-smp", options.cpus, "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"),
                *(
                    "-kernel",
                    str(kernel),
                    "-initrd",
                    initrd.name,
                    "-append",
                    "console=ttyS0 quiet panic=-1 rdinit=/init",
                ),
                *("-virtfs", shares[0], "-virtfs", shares[1]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert machine.stdout is not None
        said = b""
        while part := os.read(machine.stdout.fileno(), 1 << 16):
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            said = (said + part)[-(1 << 16) :]
        machine.wait()
    found = re.findall(rb"^%b(\d+)" % MARK.encode(), said, re.MULTILINE)
    sys.exit(int(found[-1]) if found else 1)


if __name__ == "__main__":
    main()
