"""Where zramcore answers otherwise than Linux 7.3.4 on purpose: the one table, with the reason for each row.

A difference in accounting is never explained: a row is about an answer that is meant to be another one, and where it
`spreads`, about the state shown right behind that answer, up to the next operation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A difference is explained when transcript name, recorded line and our line fully match the three patterns."""

    transcript: str
    expected: str
    actual: str
    reason: str
    spreads: bool = False


ROWS = (
    Row(
        ".*",
        r"\$ (?:echo|printf %s) '.*' > disksize => ENOMEM .*",
        r"\$ (?:echo|printf %s) '.*' > disksize => OK",
        "the slot table is lazy: a disksize that needs more memory than the guest had costs nothing until written",
        spreads=True,
    ),
    Row(
        ".*",
        r"\$ (?:echo|printf %s) '.*' > backing_dev => ENOTBLK .*",
        r"\$ (?:echo|printf %s) '.*' > backing_dev => OK",
        "plain files are accepted as backing devices: that is what zramcore is for",
        spreads=True,
    ),
    Row(
        "01b-backing-writeback-values.txt",
        "  -> none",
        "  -> /tmp/plainfile",
        "the plain file that was accepted two steps before is still there: refused values change nothing",
    ),
    Row(
        ".*",
        r"\$ (?:echo|printf %s) '[123]' > writeback => EINVAL .*",
        r"\$ (?:echo|printf %s) '[123]' > writeback => (?:OK|ENODEV .*|ENOSPC .*|EIO .*)",
        "1, 2 and 3 are the writeback modes of the seed patch, which work beside the words",
        spreads=True,
    ),
    Row(
        ".*",
        r"\$ pread /dev/loop\d+ .* first8=1101[0-9a-f]{12}",
        r"\$ pread /dev/loop\d+ .* => OK 4096 crc32=.*",
        "compressed_writeback puts the object itself on the device; the recorded lzo-rle knows its size, not its bytes",
    ),
)


class Explainer:
    """Holds pairs of lines of one transcript against the table, in order."""

    def __init__(self, transcript: str) -> None:
        self.transcript = transcript
        self._spreading = ""

    def see(self, expected: str | None, actual: str | None, same: bool) -> str | None:
        """None when the lines are the `same`, else the reason for the difference, empty when there is none."""
        if expected is not None and expected.startswith(("$ ", "#")):
            self._spreading = ""
        if same:
            return None
        for row in ROWS:
            pairs = ((row.transcript, self.transcript), (row.expected, expected or ""), (row.actual, actual or ""))
            if all(re.fullmatch(pattern, text) for pattern, text in pairs):
                self._spreading = row.reason if row.spreads else self._spreading
                return row.reason
        return self._spreading
