"""What a script of `zramcore exec` is read into: the nodes of its tree, and the error that names a place in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import InvalidValue


class ScriptError(InvalidValue):
    """EINVAL: a script cannot be read or run. `file` and `line` say where."""

    def __init__(self, reason: str, *, file: str, line: int, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Literal:
    text: str
    quoted: bool


@dataclass(frozen=True)
class Variable:
    """`$name`, or `${name OP argument}` where OP is one of :- % %% # ## or empty; `${#name}` has OP `length`."""

    name: str
    quoted: bool
    operator: str = ""
    argument: Word | None = None


@dataclass(frozen=True)
class Substitution:
    """`$(...)`: the output of the commands."""

    body: Sequence
    quoted: bool


@dataclass(frozen=True)
class Arithmetic:
    """`$((...))`; the expression is a word of its own, expanded before it is computed."""

    expression: Word
    quoted: bool


Part: TypeAlias = Literal | Variable | Substitution | Arithmetic


@dataclass(frozen=True)
class Word:
    parts: tuple[Part, ...]

    @property
    def literal(self) -> str | None:
        """The text of a word that needs no expansion, else None."""
        texts = [part.text for part in self.parts if isinstance(part, Literal)]
        return "".join(texts) if len(texts) == len(self.parts) else None


@dataclass(frozen=True)
class Redirection:
    """`fd` 0 to 2; `operator` one of < > >> >&."""

    fd: int
    operator: str
    target: Word


@dataclass(frozen=True)
class Simple:
    line: int
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class Group:
    """`{ ...; }`, or `( ... )` when it runs in a sub-shell."""

    body: Sequence
    redirections: tuple[Redirection, ...] = ()
    subshell: bool = False


@dataclass(frozen=True)
class For:
    name: str
    words: tuple[Word, ...] | None
    body: Sequence
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class While:
    condition: Sequence
    body: Sequence
    until: bool
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class If:
    """Branches of condition and body, tried in order, then the else body."""

    branches: tuple[tuple[Sequence, Sequence], ...]
    otherwise: Sequence | None
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class Case:
    """The first branch with a pattern that matches the subject runs."""

    subject: Word
    branches: tuple[tuple[tuple[Word, ...], Sequence], ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True)
class Function:
    name: str
    body: Command


@dataclass(frozen=True)
class Pipeline:
    commands: tuple[Command, ...]
    negated: bool = False


@dataclass(frozen=True)
class AndOr:
    """The first pipeline, then each next one with the `&&` or `||` before it."""

    first: Pipeline
    rest: tuple[tuple[str, Pipeline], ...] = ()
    background: bool = False


@dataclass(frozen=True)
class Sequence:
    items: tuple[AndOr, ...] = field(default=())


Command: TypeAlias = Simple | Group | For | While | If | Case | Function
