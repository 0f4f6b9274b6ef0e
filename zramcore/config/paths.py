"""Paths in a deployment: a relative one means relative to the file that says it, wherever the program was started."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..parse import next_args

_DRIVER = re.compile(r"[A-Za-z0-9_-]+:", re.ASCII)


def absolute_path(text: str, base: Path) -> str:
    """`text` as an absolute path, seen from the directory `base`."""
    return os.path.abspath(base / text)


def absolute_backing(text: str, base: Path) -> str:
    """A backing_dev (``PATH`` or ``driver:PATH,option=value``) with an absolute path; ``none`` and no path are kept."""
    driver = _DRIVER.match(text)
    prefix = driver[0] if driver else ""
    path, comma, options = text[len(prefix) :].partition(",") if prefix else (text, "", "")
    if not path or text == "none":
        return text
    return prefix + absolute_path(path, base) + comma + options


def absolute_dict(text: str, base: Path) -> str:
    """An algorithm_params whose ``dict=`` is an absolute path."""
    arguments = next_args(text)
    if not any(key == "dict" and value and not os.path.isabs(value) for key, value in arguments):
        return text
    return " ".join(
        _argument(key, absolute_path(value, base) if key == "dict" and value else value) for key, value in arguments
    )


def _argument(key: str, value: str | None) -> str:
    if value is None:
        return key
    return f'{key}="{value}"' if re.search(r"\s", value) else f"{key}={value}"
