"""Structured log lines: ``time=... level=info event=device_up device=zram0``, one line an event, on one stream."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO

LOGGER = "zramcore"
"""The logger that everything of zramcore is below."""

log = logging.getLogger("zramcore.daemon")

_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f]+")
_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Syslog's numbers, as sd-daemon(3) wants them in front of a line."""


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event. Fields that are None are left out."""
    log.log(level, "%s", name, extra={"fields": fields})


def pair(key: str, value: object) -> str:
    """``key=value``, the value in JSON's quotes where it is empty or has blanks, quotes, '=' or control characters."""
    text = str(value)
    return f"{key}={text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)}"


class KeyValue(logging.Formatter):
    """Formats what `event` logs, and any other record as ``event=log logger=NAME message="..."``.

    `journal`: the reader is systemd's journal, which has the time itself and takes the level from a ``<6>`` in front.
    """

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        parts = [pair("level", level)]
        if not self.journal:
            now = datetime.fromtimestamp(record.created, UTC)
            parts.insert(0, pair("time", f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"))
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            name = str(getattr(record, "event", record.getMessage())).replace("-", "_")
            parts.append(pair("event", name if record.name == log.name else f"{record.name.rpartition('.')[2]}_{name}"))
            parts += [pair(key, value) for key, value in fields.items() if value is not None]
        else:
            parts += [pair("event", "log"), pair("logger", record.name), pair("message", record.getMessage())]
        if record.exc_info:
            parts.append(pair("traceback", self.formatException(record.exc_info)))
        line = " ".join(parts)
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self.journal else line


def _is_news(record: logging.LogRecord) -> bool:
    """The scheduler tells of each tick in words; the daemon logs the same as an event of its own."""
    return record.name != "zramcore.scheduler" or record.levelno >= logging.ERROR


@contextlib.contextmanager
def structured(stream: IO[str], verbose: bool = False) -> Iterator[None]:
    """While it lasts, everything that zramcore and its HTTP server log goes to `stream` as structured lines only.

    `verbose`: events of level debug too.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(KeyValue(journal=bool(os.environ.get("JOURNAL_STREAM"))))
    handler.addFilter(_is_news)
    loggers = [logging.getLogger(name) for name in (LOGGER, "waitress")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger, level in zip(loggers, (logging.DEBUG if verbose else logging.INFO, logging.ERROR), strict=True):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
