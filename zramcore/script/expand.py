"""Expansion of a script's words: parameters, command output, arithmetic, and splitting at blanks."""

from __future__ import annotations

import ast
import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .tree import Arithmetic, Literal, Part, Variable, Word

if TYPE_CHECKING:
    from .shell import Shell, Streams


class Expander:
    """Expands words as the shell does, except that nothing is a glob."""

    def __init__(self, shell: Shell, streams: Streams) -> None:
        self.shell = shell
        self.streams = streams
        self.substituted = False
        """Whether a `$(...)` was run: the status is then that of its last command."""

    def text(self, word: Word) -> str:
        """The word as one text, not split."""
        return "".join(self._value(part) for part in word.parts)

    def fields(self, word: Word) -> list[str]:
        """The words it becomes: unquoted expansions are split at blanks, `"$@"` gives one for each argument."""
        fields: list[str] = []
        current: str | None = None
        for part in word.parts:
            if isinstance(part, Variable) and part.name == "@" and part.quoted:
                pieces = self.shell.arguments
                leading = trailing = False
            elif isinstance(part, Literal) or part.quoted:
                current = (current or "") + self._value(part)
                continue
            else:
                value = self._value(part)
                pieces = value.split()
                leading, trailing = value[:1].isspace(), value[-1:].isspace()
            if leading and current is not None:
                fields.append(current)
                current = None
            for piece in pieces[:-1]:
                fields.append((current or "") + piece)
                current = None
            if pieces:
                current = (current or "") + pieces[-1]
                if trailing:
                    fields.append(current)
                    current = None
        if current is not None:
            fields.append(current)
        return fields

    def _value(self, part: Part) -> str:
        if isinstance(part, Literal):
            return part.text
        if isinstance(part, Variable):
            return self._variable(part)
        if isinstance(part, Arithmetic):
            return str(self._arithmetic(self.text(part.expression)))
        self.substituted = True
        return self.shell.capture(part.body, self.streams).rstrip("\n")

    def _variable(self, part: Variable) -> str:
        value = self._parameter(part.name)
        if part.operator == "length":
            return str(len(value))
        if part.operator == "":
            return value
        argument = self.text(part.argument) if part.argument else ""
        if part.operator == ":-":
            return value or argument
        return _strip(value, part.operator, argument)

    def _parameter(self, name: str) -> str:
        shell = self.shell
        if name.isdigit():
            index = int(name)
            if index == 0:
                return shell.file
            return shell.arguments[index - 1] if index <= len(shell.arguments) else ""
        if name in ("*", "@"):
            return " ".join(shell.arguments)
        special = {"#": len(shell.arguments), "?": shell.status, "$": 1}
        return str(special[name]) if name in special else shell.variables.get(name, "")

    def _arithmetic(self, text: str) -> int:
        try:
            return compute(text, lambda name: self._parameter(name) or "0")
        except (ValueError, SyntaxError, ZeroDivisionError) as error:
            raise self.shell.error(f"cannot compute {text!r}: {error}") from None


def _strip(value: str, operation: str, pattern: str) -> str:
    """`value` without its shortest (doubled: longest) start (#) or end (%) that matches `pattern`."""
    matches = re.compile(fnmatch.translate(pattern)).match
    lengths = range(len(value) + 1) if len(operation) == 1 else range(len(value), -1, -1)
    for length in lengths:
        if operation[0] == "#" and matches(value[:length]):
            return value[length:]
        if operation[0] == "%" and matches(value[len(value) - length :]):
            return value[: len(value) - length]
    return value


# Arithmetic -------------------------------------------------------------------------------------------------------


def _divide(left: int, right: int) -> int:
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


_BINARY: Mapping[type[ast.AST], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: _divide,
    ast.Mod: lambda left, right: left - right * _divide(left, right),
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UNARY: Mapping[type[ast.AST], Callable[[int], int]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}


def compute(text: str, variable: Callable[[str], str]) -> int:
    """The value of a C integer expression without assignments or `?:`; `variable` gives the text of a name.

    Raises ValueError, SyntaxError or ZeroDivisionError.
    """
    if not text.strip():
        return 0
    python = re.sub(r"\b0([0-7]+)\b", r"0o\1", text).replace("&&", " and ").replace("||", " or ")
    python = re.sub(r"!(?!=)", " not ", python).replace("/", "//")
    return _compute(ast.parse(python.strip(), mode="eval").body, variable)


def _compute(node: ast.expr, variable: Callable[[str], str]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return int(variable(node.id), 0)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_compute(node.left, variable), _compute(node.right, variable))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return int(_UNARY[type(node.op)](_compute(node.operand, variable)))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _BINARY:
        return int(_BINARY[type(node.ops[0])](_compute(node.left, variable), _compute(node.comparators[0], variable)))
    if isinstance(node, ast.BoolOp):
        values = (_compute(value, variable) != 0 for value in node.values)
        return int(all(values) if isinstance(node.op, ast.And) else any(values))
    raise ValueError("not an integer expression")
