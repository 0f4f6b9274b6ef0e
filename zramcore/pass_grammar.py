"""The grammars of `writeback` and `recompress`: text in, selections out. Nothing is touched here."""

from __future__ import annotations

from .errors import InvalidValue, OutOfRange, ZramError, did_you_mean
from .parse import kstrtoint, kstrtouint, kstrtoull, next_args
from .postprocess import EVERY_PAGE, MODES, Mode, Selection
from .recompress import RecompressRequest

SEED_MODES = {"1": "huge", "2": "idle", "3": "idle_or_huge"}
"""The seed patch's bits: 1 huge, 2 idle, 3 both, of which the union was meant."""

RECOMPRESS_MODES = ("idle", "huge", "huge_idle")


def _mode(word: str) -> Mode:
    mode = MODES.get(SEED_MODES.get(word, word))
    if mode is None:
        raise InvalidValue(f"there is no writeback mode {word!r}", hint=did_you_mean(word, [*MODES, *SEED_MODES]))
    return mode


def parse_writeback(text: str, nr_pages: int) -> list[Selection]:
    """The selections that a write to `writeback` asks for, in order; an empty one asks for nothing.

    Raises InvalidValue (EINVAL), OutOfRange (ERANGE) for an index outside the `nr_pages` of the device. Quirks of the
    kernel that are kept: a mode ends the parsing, a mode after a page range looks at that range only, an unknown
    key is ignored, a slot named twice is written twice.
    """
    selections: list[Selection] = []
    first, end = 0, nr_pages
    for key, value in next_args(text):
        if not value:
            selections.append(Selection(first, end, _mode(key)))
            break
        if key == "type":
            selections.append(Selection(first, end, _mode(value)))
            break
        if key == "page_index":
            first = _index(value, nr_pages)
            end = first + 1
        elif key == "page_indexes":
            low, dash, high = value.partition("-")
            if not dash:
                raise InvalidValue(f"page_indexes={value}: a range is FIRST-LAST")
            first, last = _index(low, nr_pages), _index(high, nr_pages)
            if first > last:
                raise OutOfRange(f"page_indexes={value}: the first page comes after the last")
            end = last + 1
        else:
            continue
        selections.append(Selection(first, end, EVERY_PAGE))
    return selections


def _index(text: str, nr_pages: int) -> int:
    index = kstrtoull(text)
    if index >= nr_pages:
        raise OutOfRange(f"page {index} is outside the device, which has {nr_pages} pages")
    return index


def parse_recompress(text: str) -> RecompressRequest:
    """What a write to `recompress` asks for. Raises InvalidValue (EINVAL), OutOfRange (ERANGE); an unknown key is
    ignored, one without a value is an error."""
    fields: dict[str, object] = {}
    for key, value in next_args(text):
        if not value:
            raise InvalidValue(f"{key!r} needs a value", hint="for example: type=idle priority=1")
        try:
            if key == "type":
                if value not in RECOMPRESS_MODES:
                    raise InvalidValue("there is no such type", hint=did_you_mean(value, RECOMPRESS_MODES))
                fields["mode"], fields["label"] = MODES[value], value
            elif key == "threshold":
                fields["threshold"] = kstrtouint(value)
            elif key == "max_pages":
                fields["max_pages"] = kstrtoull(value)
            elif key == "priority":
                fields["priority"] = kstrtoint(value)
            elif key == "algo":
                fields["algorithm"] = value
        except ZramError as error:
            error.reason = f"{key}={value}: {error.reason}"
            raise
    return RecompressRequest(**fields)  # type: ignore[arg-type]
