"""Runs the tree of a script: expansion, control flow, pipes and redirections. What commands do is given from outside.

Everything runs in this process and in order: the stages of a pipe one after the other, each on the whole output of
the one before it; a command followed by `&` at once (only a `hold` then lasts while the script goes on).
"""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TextIO, TypeAlias

from ..errors import ZramError, did_you_mean
from .expand import Expander
from .tree import (
    AndOr,
    Case,
    Command,
    For,
    Function,
    Group,
    If,
    Pipeline,
    Redirection,
    ScriptError,
    Sequence,
    Simple,
    While,
)

_MAX_DEPTH = 40
"""Calls of functions within functions, far below what Python's own stack allows."""


@dataclass(frozen=True)
class Streams:
    """Where a command reads and writes its text."""

    stdin: TextIO
    out: TextIO
    err: TextIO


class Usage(Exception):
    """A command was given arguments it does not take; the message says which it takes."""


class Files(Protocol):
    """The named texts that redirections and `[ -e ]` see."""

    def read_text(self, path: str) -> str:
        """The whole text. Raises OSError."""
        ...

    def write_text(self, path: str, text: str, append: bool) -> None:
        """One write(2) of `text`. Raises OSError."""
        ...

    def exists(self, path: str) -> bool: ...


Run: TypeAlias = Callable[["Shell", list[str], Streams], int]
"""What a command does with its arguments; returns its exit status. Raises Usage."""


class Exit(Exception):
    """The script ends with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Return(Exit):
    """The function ends with this status."""


class Loop(Exception):
    """`break` (or `continue`) of the innermost loop."""

    def __init__(self, ends: bool) -> None:
        self.ends = ends


@dataclass
class Shell:
    """One running script: its variables, functions and position.

    `stop_on_error` ends it with status 1 at the first command that fails and whose status nobody looks at.
    """

    commands: Mapping[str, Run]
    files: Files
    file: str = "-"
    variables: dict[str, str] = field(default_factory=dict)
    stop_on_error: bool = False
    arguments: list[str] = field(default_factory=list)
    functions: dict[str, Command] = field(default_factory=dict)
    status: int = 0
    exited: bool = False
    line: int = 0
    _tested: int = field(default=0, init=False)
    _depth: int = field(default=0, init=False)
    in_background: bool = field(default=False, init=False)
    """Whether the command that runs now was followed by `&`."""

    def run(self, tree: Sequence, streams: Streams) -> int:
        """Run a script to its end or its `exit`; returns its status. Raises ScriptError where it makes no sense."""
        try:
            self.sequence(tree, streams)
        except Exit as end:
            self.status = end.status
            self.exited = True
        except Loop:
            raise self.error("break or continue outside of a loop") from None
        return self.status

    def error(self, reason: str, hint: str = "") -> ScriptError:
        """The error for the line that runs now."""
        return ScriptError(reason, file=self.file, line=self.line, hint=hint)

    # Control flow

    def sequence(self, tree: Sequence, streams: Streams) -> None:
        """Run commands within the running script. Raises Exit, ScriptError."""
        for item in tree.items:
            self._and_or(item, streams)

    def _and_or(self, item: AndOr, streams: Streams) -> None:
        self.in_background, kept = item.background, self.in_background
        try:
            self._and_or_here(item, streams)
        finally:
            self.in_background = kept

    def _and_or_here(self, item: AndOr, streams: Streams) -> None:
        with self._testing(bool(item.rest)):
            self._pipeline(item.first, streams)
        for index, (operator, pipeline) in enumerate(item.rest):
            if (self.status == 0) == (operator == "&&"):
                with self._testing(index < len(item.rest) - 1):
                    self._pipeline(pipeline, streams)

    @contextmanager
    def _testing(self, tested: bool) -> Iterator[None]:
        """While the status is looked at by the script itself, a failure does not stop it."""
        self._tested += tested
        try:
            yield
        finally:
            self._tested -= tested

    def _pipeline(self, pipeline: Pipeline, streams: Streams) -> None:
        stages = pipeline.commands
        with self._testing(pipeline.negated):
            if len(stages) == 1:
                self._command(stages[0], streams)
            else:
                self._stages(stages, streams)
        if pipeline.negated:
            self.status = int(self.status == 0)
        elif self.status and self.stop_on_error and not self._tested:
            raise Exit(1)

    def _stages(self, stages: tuple[Command, ...], streams: Streams) -> None:
        text = streams.stdin
        for stage in stages[:-1]:
            out = io.StringIO()
            with self._subshell(), self._testing(True):
                self._command(stage, Streams(text, out, streams.err))
            text = io.StringIO(out.getvalue())
        with self._subshell():
            self._command(stages[-1], replace(streams, stdin=text))

    @contextmanager
    def _subshell(self) -> Iterator[None]:
        """Variables, arguments and functions that change inside are as before outside; `exit` ends the inside."""
        kept = self.variables.copy(), self.arguments[:], self.functions.copy()
        try:
            yield
        except Exit as end:
            self.status = end.status
        finally:
            self.variables, self.arguments, self.functions = kept

    def capture(self, tree: Sequence, streams: Streams) -> str:
        """The output of commands in a sub-shell, as `$(...)` takes it."""
        out = io.StringIO()
        with self._subshell(), self._testing(True):
            self.sequence(tree, replace(streams, out=out))
        return out.getvalue()

    def _command(self, command: Command, streams: Streams) -> None:
        if isinstance(command, Simple):
            self._simple(command, streams)
        elif isinstance(command, Function):
            self.functions[command.name] = command.body
            self.status = 0
        else:
            self._redirected(command.redirections, streams, lambda inner: self._compound(command, inner))

    def _compound(self, command: Group | For | While | If | Case, streams: Streams) -> None:
        if isinstance(command, Group):
            if command.subshell:
                with self._subshell():
                    self.sequence(command.body, streams)
            else:
                self.sequence(command.body, streams)
        elif isinstance(command, Case):
            self._case(command, Expander(self, streams), streams)
        elif isinstance(command, If):
            self._if(command, streams)
        elif isinstance(command, For):
            expander = Expander(self, streams)
            words = self.arguments[:]
            if command.words is not None:
                words = [text for word in command.words for text in expander.fields(word)]
            self.status = 0
            self._loop(command.body, streams, iter(words), command.name)
        else:
            self._loop(command.body, streams, self._while(command, streams))

    def _while(self, command: While, streams: Streams) -> Iterator[str]:
        status = 0
        while True:
            with self._testing(True):
                self.sequence(command.condition, streams)
            if (self.status == 0) == command.until:
                self.status = status
                return
            yield ""
            status = self.status

    def _loop(self, body: Sequence, streams: Streams, turns: Iterator[str], name: str = "") -> None:
        for value in turns:
            if name:
                self.variables[name] = value
            try:
                self.sequence(body, streams)
            except Loop as jump:
                if jump.ends:
                    return

    def _if(self, command: If, streams: Streams) -> None:
        for condition, body in command.branches:
            with self._testing(True):
                self.sequence(condition, streams)
            if self.status == 0:
                self.sequence(body, streams)
                return
        self.status = 0
        if command.otherwise is not None:
            self.sequence(command.otherwise, streams)

    def _case(self, command: Case, expander: Expander, streams: Streams) -> None:
        subject = expander.text(command.subject)
        self.status = 0
        for patterns, body in command.branches:
            if any(fnmatch.fnmatchcase(subject, expander.text(pattern)) for pattern in patterns):
                self.sequence(body, streams)
                return

    # Simple commands

    def _simple(self, command: Simple, streams: Streams) -> None:
        self.line = command.line
        expander = Expander(self, streams)
        arguments = [text for word in command.words for text in expander.fields(word)]
        kept = {name: self.variables.get(name) for name, _ in command.assignments} if arguments else {}
        for name, word in command.assignments:
            self.variables[name] = expander.text(word)
        if not arguments and not expander.substituted:
            self.status = 0
        try:
            self._redirected(command.redirections, streams, lambda inner: self._call(arguments, inner))
        finally:
            self._restore(kept)

    def _restore(self, kept: Mapping[str, str | None]) -> None:
        """Variables that were set for one command only are as before it."""
        for name, value in kept.items():
            if value is None:
                self.variables.pop(name, None)
            else:
                self.variables[name] = value

    def _redirected(
        self, redirections: tuple[Redirection, ...], streams: Streams, body: Callable[[Streams], None]
    ) -> None:
        """Run `body` on streams redirected to files; a file is written once, when the command is done."""
        written: list[tuple[str, bool, io.StringIO]] = []
        for redirection in redirections:
            target = Expander(self, streams).text(redirection.target)
            if redirection.operator == ">&":
                copied = {"1": streams.out, "2": streams.err}.get(target)
                if copied is None or redirection.fd not in (1, 2):
                    raise self.error(f"cannot redirect {redirection.fd} to {target!r}")
                streams = replace(streams, out=copied) if redirection.fd == 1 else replace(streams, err=copied)
            elif redirection.operator == "<":
                try:
                    streams = replace(streams, stdin=io.StringIO(self.files.read_text(target)))
                except OSError as error:
                    streams.err.write(f"sh: can't open {target}: {_message(error)}\n")
                    self.status = 1
                    return
            else:
                text = io.StringIO()
                streams = replace(streams, out=text) if redirection.fd == 1 else replace(streams, err=text)
                if target != "/dev/null":
                    written.append((target, redirection.operator == ">>", text))
        try:
            body(streams)
        finally:
            for target, append, text in written:
                self._write(target, text.getvalue(), append, streams)

    def _write(self, target: str, text: str, append: bool, streams: Streams) -> None:
        try:
            self.files.write_text(target, text, append)
        except OSError as error:
            streams.err.write(f"sh: write error: {_message(error)}\n")
            self.status = 1

    def call(self, arguments: list[str], streams: Streams) -> int:
        """Run one command with its arguments; returns its status. Raises ScriptError."""
        self._call(arguments, streams)
        return self.status

    def _call(self, arguments: list[str], streams: Streams) -> None:
        if not arguments:
            return
        name = arguments[0]
        if name in self.functions:
            self._call_function(self.functions[name], arguments[1:], streams)
            return
        run = self.commands.get(name)
        if run is None:
            raise self.error(f"unknown command {name!r}", hint=did_you_mean(name, self.commands))
        try:
            self.status = run(self, arguments[1:], streams)
        except Usage as usage:
            raise self.error(f"usage: {usage}") from None
        except ScriptError:
            raise
        except OSError as error:
            streams.err.write(f"{name}: {_message(error)}\n")
            self.status = 1

    def _call_function(self, body: Command, arguments: list[str], streams: Streams) -> None:
        if self._depth >= _MAX_DEPTH:
            raise self.error(f"functions call each other more than {_MAX_DEPTH} deep")
        kept, self.arguments = self.arguments, arguments
        self._depth += 1
        try:
            self._command(body, streams)
        except Return as end:
            self.status = end.status
        finally:
            self._depth -= 1
            self.arguments = kept


def _message(error: OSError) -> str:
    return error.reason if isinstance(error, ZramError) else str(error.strerror)
