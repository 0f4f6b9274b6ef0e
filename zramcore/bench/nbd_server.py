"""The server of `bench nbd`, a process of its own as in life: ``python -m zramcore.bench.nbd_server SOCKET COMP SIZE``.

It says ``ready`` when it listens, and ends when its standard input does: whoever started it is gone then.
"""

from __future__ import annotations

import sys

from ..control import Control
from ..nbd import Server, listen
from ..pluginmanager import load_plugins
from ..registry import build_catalogue


def main(socket: str, comp: str, size: str) -> None:
    """Serve a device until standard input ends."""
    control = Control(build_catalogue(load_plugins()))
    target = control.target(f"zram{control.hot_add()}")
    target.store("comp_algorithm", comp)
    target.store("disksize", size)
    with Server(control, listen(f"unix:{socket}")):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
