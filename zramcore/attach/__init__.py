"""Real block nodes out of NBD exports, and what they are used for: a file system, a mount, swap.

`attachment` makes and undoes them in order; `node` turns an export into a node, `state` remembers what was made so that
it can be undone after a crash, `tables` asks the kernel what there really is. docs/attach.md describes it for users.
"""

from __future__ import annotations

from .attachment import Export, attach, detach, detach_served, needed_programs, prepare
from .state import Record, attachments, default_directory
from .wanted import FILE_SYSTEMS, Mount, Swap, Use, conflicts

__all__ = [
    "FILE_SYSTEMS",
    "Export",
    "Mount",
    "Record",
    "Swap",
    "Use",
    "attach",
    "attachments",
    "conflicts",
    "default_directory",
    "detach",
    "detach_served",
    "needed_programs",
    "prepare",
]
