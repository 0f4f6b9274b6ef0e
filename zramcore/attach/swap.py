"""Swap on a node."""

from __future__ import annotations

from .filesystems import check_kind, signature
from .programs import run
from .tables import is_swap
from .wanted import Swap

SWAPOFF_SECONDS = 1800.0
"""Everything that was swapped out is read back."""


def swap_on(node: str, wanted: Swap) -> None:
    """Make a swap area where there is none, and use it. Raises InvalidValue (EINVAL) when there is anything else on
    the node, ProgramFailed (EIO)."""
    there = signature(node)
    if there:
        check_kind(node, there, "swap")
    else:
        run("mkswap", node)
    if is_swap(node):
        return
    priority = () if wanted.priority is None or wanted.priority < 0 else ("--priority", str(wanted.priority))
    run("swapon", *(("--discard",) if wanted.discard else ()), *priority, node)


def swap_off(node: str) -> bool:
    """Stop swapping to a node; whether it was swap. Raises ProgramFailed (EIO)."""
    if not is_swap(node):
        return False
    run("swapoff", node, seconds=SWAPOFF_SECONDS)
    return True
