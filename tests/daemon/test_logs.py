"""Structured lines: one a record, `key=value`, quoted where needed, and nobody else's words twice."""

import io
import json
import logging
import re

import pytest

from zramcore.daemon.logs import event, pair, structured

LINE = re.compile(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(\w+) (.*)")


def logged(act, monkeypatch, journal=False):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1") if journal else monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    with structured(stream):
        act()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("plain", ["zram0", "file:/tmp/a,size=1M".replace("=", ":"), "lz4/zstd", "-3.5", "ünï"])
def test_plain_values_are_not_quoted(plain):
    assert pair("key", plain) == f"key={plain}"


@pytest.mark.parametrize("value", ["", "two words", 'a "quote"', "a=b", "line\nbreak", "back\\slash", "tab\t", "\x7f"])
def test_other_values_are_json(value):
    text = pair("key", value)
    assert json.loads(text.removeprefix("key=")) == value
    assert "\n" not in text


def test_an_event_is_one_line_without_fields_that_are_none(monkeypatch):
    (line,) = logged(lambda: event("device_up", device="zram0", loaded=None, note="two words"), monkeypatch)
    assert LINE.fullmatch(line).groups() == ("info", 'event=device_up device=zram0 note="two words"')


def test_the_journal_gets_levels_and_no_time(monkeypatch):
    lines = logged(lambda: [event("a"), event("b", level=logging.ERROR)], monkeypatch, journal=True)
    assert lines == ["<6>level=info event=a", "<3>level=error event=b"]


def test_other_records_of_zramcore_are_lines_too_with_their_traceback(monkeypatch):
    def act():
        logging.getLogger("zramcore.plugins").warning("plugin %s", "x y")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("zramcore.daemon").exception("it failed")

    first, second = logged(act, monkeypatch)
    assert first.endswith('level=warning event=log logger=zramcore.plugins message="plugin x y"')
    assert 'message="it failed"' in second
    assert "ValueError: broken" in second


def test_events_of_the_nbd_server_carry_its_name(monkeypatch):
    fields = {"event": "accept-failed", "fields": {"peer": "x"}}
    (line,) = logged(lambda: logging.getLogger("zramcore.nbd").error("in words", extra=fields), monkeypatch)
    assert line.endswith("level=error event=nbd_accept_failed peer=x")


def test_the_scheduler_tells_only_of_errors(monkeypatch):
    scheduler = logging.getLogger("zramcore.scheduler")
    lines = logged(lambda: [scheduler.info("a tick"), scheduler.warning("a tick"), scheduler.error("x")], monkeypatch)
    assert [line.rpartition("=")[2] for line in lines] == ["x"]


def test_the_loggers_are_put_back(monkeypatch):
    logger = logging.getLogger("zramcore")
    before = (logger.handlers, logger.level, logger.propagate)
    logged(lambda: event("x"), monkeypatch)
    assert (logger.handlers, logger.level, logger.propagate) == before
