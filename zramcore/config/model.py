"""Config: what a document says, in types. Only its shape is judged here; what the values mean is check's business."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ZramError, did_you_mean
from .daemon import DAEMON_KEYS, DaemonConfig, read_daemon
from .document import Document, KeyPath, dotted, read_document
from .expressions import evaluate, is_expression
from .paths import absolute_backing, absolute_dict, absolute_path
from .target import TARGET_KEYS, TargetConfig, read_target, read_writes_per_day, writes_per_day_problems
from .use import USE_KEYS, UseConfig, read_use
from .where import Where

DEPLOYMENT_KEYS = ("device", "daemon", "writes_per_day")
PAGE_SIZES = (4096, 16384, 65536)
DEVICE_KEYS = ("page_size", "image", "policy", *TARGET_KEYS, *USE_KEYS)
"""The keys of a device that are not attributes."""
IMAGE_KEYS = ("load", "save", "optional")
SIZES = ("disksize", "mem_limit")
"""Attributes whose values may be expressions over ram."""

_LABEL = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


@dataclass(frozen=True)
class Setting:
    """An attribute of a device: `raw` as the file says it, `texts` what is written, one write each."""

    key: str
    raw: object
    texts: tuple[str, ...]
    where: Where


@dataclass(frozen=True)
class ImageConfig:
    """Absolute paths of the image to load at start and to save at the end; `optional`: it need not exist yet."""

    load: Path | None
    save: Path | None
    optional: bool
    where: Where


@dataclass(frozen=True)
class PolicyConfig:
    """A policy of a device and its options as texts."""

    name: str
    options: Mapping[str, str]
    where: Where


@dataclass(frozen=True)
class DeviceConfig:
    """A device: its label in the file, its page size in bytes, its attributes in file order."""

    name: str
    page_size: int
    settings: Mapping[str, Setting]
    image: ImageConfig | None
    policies: tuple[PolicyConfig, ...]
    where: Where
    use: UseConfig = field(default_factory=UseConfig)
    target: TargetConfig = field(default_factory=TargetConfig)


@dataclass(frozen=True)
class Config:
    """A deployment: its devices in file order, and the files it was read from. `writes_per_day`: units of 4 KiB that
    the policies of all devices without such a limit of their own may write together in 24 hours; None: any number."""

    path: Path
    files: tuple[Path, ...]
    devices: tuple[DeviceConfig, ...]
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    writes_per_day: int | None = None


def load_config(path: str | Path) -> Config:
    """Read a deployment and its drop-ins. Raises ConfigError (EINVAL) for the first thing wrong with its shape.

    Whether names and values mean anything is for `check` to say.
    """
    config, problems = read_config(path)
    if problems:
        raise problems[0]
    return config


def read_config(path: str | Path) -> tuple[Config, list[ConfigError]]:
    """Read a deployment; what is well formed of it, and everything that is not.

    Raises ConfigError when a file cannot be read, is not TOML, or contradicts another in kind.
    """
    document = read_document(Path(path))
    return _Reader(document).config()


def read_device(name: str, table: Mapping[str, Any], directory: Path) -> tuple[Config, list[ConfigError]]:
    """A deployment of one device that no file says: `table` holds its keys, `directory` is what paths are relative to.

    As `read_config`; errors name ``DIRECTORY/create`` as the file.
    """
    document = Document(directory / "create", ())
    document.merge({"device": {name: dict(table)}}, document.path)
    return _Reader(document).config()


@dataclass
class _Reader:
    document: Document
    problems: list[ConfigError] = field(default_factory=list)

    def where(self, *keys: str) -> Where:
        return Where(str(self.document.origin(keys)), dotted(keys))

    def wrong(self, reason: str, *keys: str, hint: str = "") -> None:
        self.problems.append(self.where(*keys).error(reason, hint=hint))

    def config(self) -> tuple[Config, list[ConfigError]]:
        document = self.document
        for key in document.tree:
            if key not in DEPLOYMENT_KEYS:
                self.wrong("is not a key of a deployment", key, hint=did_you_mean(key, DEPLOYMENT_KEYS))
        tables = document.tree.get("device", {})
        devices: list[DeviceConfig] = []
        if not isinstance(tables, dict):
            self.wrong("is not a table", "device", hint="declare a device as [device.zram0]")
        elif not tables and "daemon" not in document.tree:
            self.problems.append(
                ConfigError("declares no device", file=str(document.path), hint="begin with [device.zram0]")
            )
        else:
            devices = [self.device(name, table) for name, table in tables.items() if self.is_device(name, table)]
        return Config(
            document.path, document.files, tuple(devices), self.daemon(), self.writes_per_day()
        ), self.problems

    def writes_per_day(self) -> int | None:
        problems = list(writes_per_day_problems(self.document.tree))
        for key, reason, hint in problems:
            self.wrong(reason, key, hint=hint)
        return None if problems else read_writes_per_day(self.document.tree)

    def daemon(self) -> DaemonConfig:
        base = {key: self.document.origin(("daemon", key)).parent for key in DAEMON_KEYS}
        daemon, problems = read_daemon(self.document.tree.get("daemon", {}), base)
        for key, reason, hint in problems:
            self.wrong(reason, "daemon", *([] if key is None else [key]), hint=hint)
        return daemon

    def is_device(self, name: str, table: object) -> bool:
        if not isinstance(table, dict):
            self.wrong("is not a table", "device", name, hint="declare a device as [device.zram0]")
            return False
        if not _LABEL.fullmatch(name):
            self.wrong("is not a name for a device", "device", name, hint="use letters, digits, '_', '-' and '.'")
            return False
        return True

    def device(self, name: str, table: dict[str, Any]) -> DeviceConfig:
        keys: KeyPath = ("device", name)
        page_size = table.get("page_size", PAGE_SIZES[0])
        if isinstance(page_size, bool) or page_size not in PAGE_SIZES:
            sizes = ", ".join(map(str, PAGE_SIZES))
            self.wrong(f"is {_kind(page_size)}, not a page size", *keys, "page_size", hint=f"one of {sizes}")
            page_size = PAGE_SIZES[0]
        settings = {
            key: setting
            for key, raw in table.items()
            if key not in DEVICE_KEYS and (setting := self.setting((*keys, key), raw)) is not None
        }
        image = self.image((*keys, "image"), table["image"]) if "image" in table else None
        policies = self.policies((*keys, "policy"), table.get("policy", []))
        use = self.use(keys, table, image)
        target, problems = read_target(table)
        for key, reason, hint in problems:
            self.wrong(reason, *keys, key, hint=hint)
        return DeviceConfig(name, page_size, settings, image, policies, self.where(*keys), use, target)

    def use(self, keys: KeyPath, table: Mapping[str, Any], image: ImageConfig | None) -> UseConfig:
        where = {key: self.where(*keys, key) for key in USE_KEYS}
        use, problems = read_use(table, where, has_image=image is not None and image.load is not None)
        for below, reason, hint in problems:
            self.wrong(reason, *keys, *below, hint=hint)
        return use

    def setting(self, keys: KeyPath, raw: object) -> Setting | None:
        values = raw if isinstance(raw, list) else [raw]
        texts = [to_text(value) for value in values]
        if any(text is None for text in texts) or any(text and "\n" in text for text in texts):
            hint = did_you_mean(keys[-1], DEVICE_KEYS) if _has_tables(raw) else "write a number, text, true or false"
            self.wrong(f"is {_kind(raw)}, not the value of an attribute", *keys, hint=hint)
            return None
        base = self.document.origin(keys).parent
        written = [_resolved(keys[-1], text, base) for text in texts if text is not None]
        return Setting(keys[-1], raw, tuple(written), self.where(*keys))

    def image(self, keys: KeyPath, table: object) -> ImageConfig | None:
        if not isinstance(table, dict):
            self.wrong(
                f"is {_kind(table)}, not a table", *keys, hint='write [device.NAME.image] with load = "disk.img"'
            )
            return None
        for key in table:
            if key not in IMAGE_KEYS:
                self.wrong("is not a key of an image", *keys, key, hint=did_you_mean(key, IMAGE_KEYS))
        optional = table.get("optional", False)
        if not isinstance(optional, bool):
            self.wrong(f"is {_kind(optional)}, not true or false", *keys, "optional")
            optional = False
        load, save = self.path((*keys, "load"), table), self.path((*keys, "save"), table)
        if not load and optional:
            self.wrong("means nothing without load", *keys, "optional", hint='add load = "disk.img"')
        if not {"load", "save"} & table.keys():
            self.wrong("names no file", *keys, hint='add load = "disk.img", save = "disk.img" or both')
        return ImageConfig(load, save, optional, self.where(*keys))

    def path(self, keys: KeyPath, table: Mapping[str, object]) -> Path | None:
        value = table.get(keys[-1])
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            self.wrong(f"is {_kind(value)}, not a path", *keys)
            return None
        return Path(absolute_path(value, self.document.origin(keys).parent))

    def policies(self, keys: KeyPath, tables: object) -> tuple[PolicyConfig, ...]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.wrong(f"is {_kind(tables)}, not a list of tables", *keys, hint="write [[device.NAME.policy]]")
            return ()
        policies = [self.policy((*keys, f"[{index}]"), table) for index, table in enumerate(tables)]
        return tuple(policy for policy in policies if policy is not None)

    def policy(self, keys: KeyPath, table: Mapping[str, object]) -> PolicyConfig | None:
        name = table.get("name")
        if not isinstance(name, str):
            reason = "has no name" if name is None else f"has a name that is {_kind(name)}, not text"
            self.wrong(reason, *keys, hint='add name = "idle"')
            return None
        options: dict[str, str] = {}
        for key, raw in table.items():
            if key == "name":
                continue
            text = to_text(raw)
            if text is None:
                self.wrong(f"is {_kind(raw)}, not the value of an option", *keys, key)
            else:
                options[key] = text
        return PolicyConfig(name, options, self.where(*keys))


def to_text(value: object) -> str | None:
    """What is written for a TOML value: true is 1, false is 0; None for what is no number, text or boolean."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | float | str):
        return str(value)
    return None


def _has_tables(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _resolved(key: str, text: str, base: Path) -> str:
    """What is written for an attribute: paths absolute, sizes that are expressions as numbers."""
    if key in SIZES and is_expression(text):
        try:
            return str(evaluate(text))
        except ZramError:
            return text  # for check to say
    if key == "backing_dev":
        return absolute_backing(text, base)
    return absolute_dict(text, base) if key == "algorithm_params" else text


def _kind(value: object) -> str:
    """A value as a message names it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, int | float | str) else "a date or time"
