"""What a device is for: the keys serve, attach, mkfs, mount and swap. Their shape, and what excludes what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..attach.wanted import FILE_SYSTEMS, MOUNT_OPTIONS, PRIORITIES, Mount, Swap, Use, conflicts
from ..errors import did_you_mean
from .daemon import absolute_listener
from .paths import absolute_path
from .where import Where

USE_KEYS = ("serve", "attach", "mkfs", "mount", "swap")
MOUNT_KEYS = ("directory", "options")
SWAP_KEYS = ("priority", "discard")


@dataclass(frozen=True)
class UseConfig:
    """`serve`: ``unix:PATH`` or ``tcp:HOST:PORT`` of NBD servers for this device only; `attached`: it gets a node;
    `where`: the places of the keys."""

    serve: tuple[str, ...] = ()
    attached: bool = False
    use: Use = field(default_factory=Use)
    where: Mapping[str, Where] = field(default_factory=dict)

    def text(self) -> str:
        """It in one line, for people and for comparing; empty when there is nothing."""
        use = self.use
        parts = [f"serve {spec}" for spec in self.serve]
        if self.attached:
            parts.append("attach" + ("" if use.path is None else f" {use.path}"))
        if use.mkfs is not None:
            parts.append(f"mkfs {use.mkfs}")
        if use.mount is not None:
            parts.append(f"mount {use.mount.directory}" + (f" ({use.mount.options})" if use.mount.options else ""))
        if use.swap is not None:
            priority = "" if use.swap.priority is None else f" priority {use.swap.priority}"
            parts.append(f"swap{priority}{'' if use.swap.discard else ' without discard'}")
        return ", ".join(parts)


class Problem(NamedTuple):
    """What is wrong with a key; `keys`: below the device."""

    keys: tuple[str, ...]
    reason: str
    hint: str = ""


def read_use(
    table: Mapping[str, Any], where: Mapping[str, Where], *, has_image: bool
) -> tuple[UseConfig, list[Problem]]:
    """The keys of a device's table in types, and what is wrong with them; `where`: the place of each, whose directory
    its paths are relative to; `has_image`: an image is loaded, so there may be a file system."""
    problems = [*_shapes(table)]
    if problems:
        return UseConfig(), problems
    base = {key: Path(place.file).parent for key, place in where.items()}
    serve = table.get("serve", [])
    specs = [absolute_listener(spec, base["serve"]) for spec in (serve if isinstance(serve, list) else [serve])]
    node = table.get("attach", False)
    use = Use(
        path=absolute_path(node, base["attach"]) if isinstance(node, str) else None,
        mkfs=table.get("mkfs"),
        mount=_mount(table.get("mount"), base["mount"]),
        swap=_swap(table.get("swap", False)),
    )
    used = [key for key in ("mkfs", "mount", "swap") if table.get(key, False) is not False]
    if table.get("attach") is False and used:
        problems.append(Problem(("attach",), f"is false, and {used[0]} needs a node", "leave attach out"))
    problems += [Problem((key,), reason, hint) for key, reason, hint in conflicts(use, has_contents=has_image)]
    return UseConfig(tuple(specs), node is not False or bool(used), use, where), problems


def _mount(value: object, base: Path) -> Mount | None:
    if isinstance(value, str):
        return Mount(absolute_path(value, base))
    if isinstance(value, dict):
        return Mount(absolute_path(value["directory"], base), value.get("options", MOUNT_OPTIONS))
    return None


def _swap(value: object) -> Swap | None:
    if isinstance(value, dict):
        return Swap(value.get("priority"), value.get("discard", True))
    return Swap() if value else None


def _shapes(table: Mapping[str, object]) -> Iterator[Problem]:
    serve = table.get("serve", [])
    specs = serve if isinstance(serve, list) else [serve]
    if not all(isinstance(spec, str) and spec.startswith(("unix:", "tcp:")) for spec in specs):
        yield Problem(("serve",), "is not where a server can listen", "unix:PATH or tcp:HOST:PORT")
    if not isinstance(table.get("attach", False), bool) and not _is_path(table["attach"]):
        yield Problem(("attach",), "is neither true nor a path", 'attach = true, or attach = "/dev/zramcore/scratch"')
    kind = table.get("mkfs", FILE_SYSTEMS[0])
    if kind not in FILE_SYSTEMS:
        yield Problem(("mkfs",), f"there is no file system {kind!r} to make", did_you_mean(str(kind), FILE_SYSTEMS))
    if "mount" in table:
        yield from _mount_shape(table["mount"])
    if "swap" in table:
        yield from _swap_shape(table["swap"])


def _mount_shape(value: object) -> Iterator[Problem]:
    if not isinstance(value, dict):
        if not _is_path(value):
            yield Problem(("mount",), "is not a directory", 'mount = "/mnt/scratch"')
        return
    yield from _unknown("mount", value, MOUNT_KEYS)
    if not _is_path(value.get("directory")):
        yield Problem(("mount", "directory"), "is not a directory", 'directory = "/mnt/scratch"')
    if not isinstance(value.get("options", ""), str):
        yield Problem(("mount", "options"), "is not text", 'options = "discard,noatime"')


def _swap_shape(value: object) -> Iterator[Problem]:
    if not isinstance(value, dict):
        if not isinstance(value, bool):
            yield Problem(("swap",), "is not true or false", "swap = true, or a table with its priority")
        return
    yield from _unknown("swap", value, SWAP_KEYS)
    priority = value.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        yield Problem(("swap", "priority"), f"is not between {PRIORITIES[0]} and {PRIORITIES[-1]}", "priority = 100")
    if not isinstance(value.get("discard", True), bool):
        yield Problem(("swap", "discard"), "is not true or false", "discard = true")


def _unknown(table: str, value: Mapping[str, object], known: tuple[str, ...]) -> Iterator[Problem]:
    for key in value:
        if key not in known:
            yield Problem((table, key), f"is not a key of {table}", did_you_mean(key, known))


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value
