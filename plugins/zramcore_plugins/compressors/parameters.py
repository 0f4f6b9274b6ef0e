"""Checks of compressor parameters that several algorithms share, with the kernel's errnos.

A parameter that an algorithm does not have is EOPNOTSUPP (measured, Linux 7.3.4: lzo-rle with a level makes
disksize fail so); a value outside its range is EINVAL, and so is a dictionary of no bytes.
"""

from __future__ import annotations

from zramcore.errors import InvalidValue, NotSupported
from zramcore.interfaces import CompressorParams


def check_supported(
    algorithm: str, params: CompressorParams, *, level: bool = False, dictionary: bool = False, winbits: bool = False
) -> None:
    """Refuse what `algorithm` does not have: each flag says whether it takes that parameter.

    Raises InvalidValue (EINVAL) for an empty dictionary, whatever the algorithm, and NotSupported (EOPNOTSUPP).
    """
    if params.dictionary is not None and not params.dictionary:
        raise InvalidValue("the dictionary is empty", hint="leave dict= away to compress without one")
    given = {
        "level": (params.level is not None, level),
        "dict": (params.dictionary is not None, dictionary),
        "deflate.winbits": (params.winbits is not None, winbits),
    }
    taken = [name for name, (_, takes) in given.items() if takes]
    for name, (is_set, takes) in given.items():
        if is_set and not takes:
            hint = f"it takes {', '.join(taken)}" if taken else "it takes no parameters"
            raise NotSupported(f"{algorithm} does not take {name}", hint=hint)


def check_range(algorithm: str, name: str, value: int, lowest: int, highest: int) -> int:
    """`value` when it lies in `lowest..highest`, both included. Raises InvalidValue (EINVAL)."""
    if not lowest <= value <= highest:
        raise InvalidValue(f"{algorithm} does not take {name}={value}", hint=f"use {lowest}..{highest}")
    return value


def check_dictionary_size(algorithm: str, dictionary: bytes | None, lowest: int, highest: int) -> None:
    """Raises InvalidValue (EINVAL) for a dictionary that does not have `lowest..highest` bytes; None is fine."""
    if dictionary is not None and not lowest <= len(dictionary) <= highest:
        raise InvalidValue(
            f"{algorithm} does not take a dictionary of {len(dictionary)} bytes", hint=f"use {lowest}..{highest} bytes"
        )
