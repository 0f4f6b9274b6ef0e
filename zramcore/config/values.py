"""What the values of the kernel's attributes may be, before anything is touched: types, ranges, installed names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..errors import ZramError
from ..interfaces import Catalogue
from ..parse import memparse_rest
from .expressions import evaluate, is_expression

Problem = tuple[str, str]
Checker = Callable[[object, Catalogue], Iterator[Problem]]


def size_problems(value: object) -> Iterator[Problem]:
    """What is wrong with a size in bytes; problems are a reason and a hint."""
    hint = 'a number of bytes, or text such as "512M"'
    if isinstance(value, bool) or not isinstance(value, int | str):
        yield f"is {_show(value)}, not a size", hint
    elif isinstance(value, int) and not 0 <= value < 1 << 64:
        yield f"is {value}, out of range", hint
    elif isinstance(value, str) and is_expression(value):
        try:
            evaluate(value)
        except ZramError as error:
            yield error.reason, error.hint
    elif isinstance(value, str):
        size, rest = memparse_rest(value)
        if rest == value:
            yield f"{value!r} is not a size", hint
        elif rest.lower() not in ("", "b", "ib"):
            # the kernel ignores what follows: 1.5G would be one byte, rounded up to a page
            yield f"{value!r} would be read as {size} bytes", hint


def _size(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    yield from size_problems(value)


def _disksize(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    problems = list(_size(value, catalogue))
    yield from problems
    text = str(value)
    if not problems and (evaluate(text) if is_expression(text) else memparse_rest(text)[0]) == 0:
        yield "must be more than 0", 'a number of bytes, or text such as "2G"'


def _flag(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    if not isinstance(value, bool) and value not in (0, 1):
        yield f"is {_show(value)}, not true or false", "write true or false, without quotes"


def _count(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"is {_show(value)}, not a whole number", "write a number without quotes"
    elif not 0 <= value < 1 << 64:
        yield f"is {value}, out of range", "0 or more"


def text_problems(value: object) -> Iterator[Problem]:
    """What is wrong with a text; problems are a reason and a hint."""
    if not isinstance(value, str):
        yield f"is {_show(value)}, not text", "write it in quotes"
    elif not value.strip():
        yield "is empty", "leave the key out"


def _text(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    yield from text_problems(value)


def _compressor(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    yield from _name(value, "compression algorithm", "compressors", catalogue)


def _allocator(value: object, catalogue: Catalogue) -> Iterator[Problem]:
    yield from _name(value, "allocator", "allocators", catalogue)


def _name(value: object, word: str, family: str, catalogue: Catalogue) -> Iterator[Problem]:
    problems = list(text_problems(value))
    yield from problems
    if not problems and value not in getattr(catalogue, family):
        yield f"there is no {word} {value!r}", catalogue.hint(family, str(value))


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


VALUES: Mapping[str, Checker] = {
    "comp_algorithm": _compressor,
    "recomp_algorithm": _text,
    "algorithm_params": _text,
    "allocator": _allocator,
    "backing_dev": _text,
    "compressed_writeback": _flag,
    "disksize": _disksize,
    "mem_limit": _size,
    "mem_limit_wait": _count,
    "workers": _count,
    "writeback_batch_size": _count,
    "writeback_limit": _count,
    "writeback_limit_enable": _flag,
}
