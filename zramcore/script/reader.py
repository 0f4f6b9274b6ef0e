"""The grammar of `zramcore exec` scripts: a small subset of the POSIX shell, read into a tree.

Simple commands with redirections, `;` `&` `&&` `||` `!` and pipes, `{ }` and `( )` groups, functions, `for`, `while`,
`until`, `if` and `case`; in words both kinds of quotes, `$name`, `${name:-text}`, `${name%pattern}`,
`${name#pattern}`, `$(...)` and `$((...))`. Everything else of the shell (here-documents, backquotes, globs, ...) is
refused with its line.
"""

from __future__ import annotations

import bisect
import re

from .tree import (
    AndOr,
    Arithmetic,
    Case,
    Command,
    For,
    Function,
    Group,
    If,
    Literal,
    Part,
    Pipeline,
    Redirection,
    ScriptError,
    Sequence,
    Simple,
    Substitution,
    Variable,
    While,
    Word,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[#*@?$!]")
_REDIRECTION = re.compile(r"([0-9]?)(>>|>&|>|<)")
_RESERVED = re.compile(r"(for|while|until|if|do|done|then|elif|else|fi|in|case|esac|function|\{|\}|!)(?=[\s;&|()<>]|$)")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)*")
_DELIMITERS = " \t\n;&|<>()"


def parse_script(text: str, file: str) -> Sequence:
    """The tree of a whole script. Raises ScriptError with the line of what it does not understand."""
    return _Reader(text, file).script()


class _Reader:
    """Reads the text once, from left to right; each method leaves the position behind what it read."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self.line_ends = [match.start() for match in re.finditer("\n", text)]

    def script(self) -> Sequence:
        body = self.sequence()
        if self.at < len(self.text):
            raise self.error(f"unexpected {self.text[self.at]!r}")
        return body

    def error(self, reason: str, hint: str = "") -> ScriptError:
        return ScriptError(reason, file=self.file, line=self.line(), hint=hint)

    def line(self) -> int:
        return bisect.bisect_left(self.line_ends, self.at) + 1

    def looking_at(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def accept(self, text: str) -> bool:
        if self.looking_at(text):
            self.at += len(text)
            return True
        return False

    def blanks(self) -> None:
        match = _BLANKS.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.looking_at("#"):
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end

    def newlines(self, also: str = "") -> None:
        while True:
            self.blanks()
            if self.looking_at(";;"):
                return
            if self.at < len(self.text) and self.text[self.at] in "\n" + also:
                self.at += 1
            else:
                return

    def reserved(self) -> str:
        match = _RESERVED.match(self.text, self.at)
        return match.group(1) if match else ""

    def expect(self, word: str, after: str) -> None:
        self.newlines(";")
        if self.reserved() != word and not (word == ")" and self.looking_at(")")):
            raise self.error(f"expected {word!r} to end {after!r}")
        self.at += len(word)

    def sequence(self) -> Sequence:
        """Commands up to the end, a closing parenthesis, or a reserved word that cannot start a command."""
        items: list[AndOr] = []
        while True:
            self.newlines(";")
            stop = self.at >= len(self.text) or self.looking_at(")") or self.looking_at(";;")
            if stop or self.reserved() in ("do", "done", "then", "elif", "else", "fi", "}", "esac"):
                return Sequence(tuple(items))
            items.append(self.and_or())

    def and_or(self) -> AndOr:
        first = self.pipeline()
        rest: list[tuple[str, Pipeline]] = []
        while True:
            self.blanks()
            operator = "&&" if self.accept("&&") else "||" if self.accept("||") else ""
            if not operator:
                return AndOr(first, tuple(rest), background=self.accept("&"))
            self.newlines()
            rest.append((operator, self.pipeline()))

    def pipeline(self) -> Pipeline:
        self.blanks()
        negated = self.reserved() == "!"
        if negated:
            self.at += 1
        commands = [self.command()]
        while True:
            self.blanks()
            if self.looking_at("||") or not self.accept("|"):
                return Pipeline(tuple(commands), negated)
            self.newlines()
            commands.append(self.command())

    def command(self) -> Command:
        self.blanks()
        word = self.reserved()
        if word in ("function", "in"):
            raise self.error(f"{word!r} is not supported here")
        if self.accept("("):
            body = self.sequence()
            self.expect(")", "(")
            return Group(body, self.redirections(), subshell=True)
        if not word:
            return self.simple()
        self.at += len(word)
        if word == "{":
            body = self.sequence()
            self.expect("}", "{")
            return Group(body, self.redirections())
        if word == "for":
            return self.for_loop()
        if word == "if":
            return self.conditional()
        if word == "case":
            return self.case()
        if word not in ("while", "until"):
            raise self.error(f"unexpected {word!r}")
        condition = self.sequence()
        self.expect("do", word)
        body = self.sequence()
        self.expect("done", word)
        return While(condition, body, word == "until", self.redirections())

    def for_loop(self) -> For:
        self.blanks()
        match = _NAME.match(self.text, self.at)
        if not match:
            raise self.error("expected a name after 'for'")
        self.at = match.end()
        self.blanks()
        words: list[Word] | None = None
        if self.reserved() == "in":
            self.at += 2
            words = []
            while True:
                self.blanks()
                if self.at >= len(self.text) or self.text[self.at] in ";\n":
                    break
                words.append(self.word())
        self.expect("do", "for")
        body = self.sequence()
        self.expect("done", "for")
        return For(match.group(), None if words is None else tuple(words), body, self.redirections())

    def conditional(self) -> If:
        branches: list[tuple[Sequence, Sequence]] = []
        while True:
            condition = self.sequence()
            self.expect("then", "if")
            branches.append((condition, self.sequence()))
            self.newlines(";")
            word = self.reserved()
            self.at += len(word)
            if word == "elif":
                continue
            otherwise = self.sequence() if word == "else" else None
            if word == "else":
                self.expect("fi", "if")
            elif word != "fi":
                raise self.error("expected 'fi' to end 'if'")
            return If(tuple(branches), otherwise, self.redirections())

    def case(self) -> Case:
        self.blanks()
        subject = self.word()
        self.newlines()
        if self.reserved() != "in":
            raise self.error("expected 'in' after the subject of 'case'")
        self.at += 2
        branches: list[tuple[tuple[Word, ...], Sequence]] = []
        while True:
            self.newlines()
            if self.reserved() == "esac":
                self.at += len("esac")
                return Case(subject, tuple(branches), self.redirections())
            if self.at >= len(self.text):
                raise self.error("expected 'esac' to end 'case'")
            self.accept("(")
            patterns = [self.pattern()]
            while self.accept("|"):
                patterns.append(self.pattern())
            if not self.accept(")"):
                raise self.error("expected ')' after a pattern of 'case'")
            branches.append((tuple(patterns), self.sequence()))
            self.newlines()
            self.accept(";;")

    def pattern(self) -> Word:
        self.blanks()
        word = self.word()
        self.blanks()
        return word

    def redirections(self) -> tuple[Redirection, ...]:
        found: list[Redirection] = []
        while True:
            self.blanks()
            redirection = self.redirection()
            if redirection is None:
                return tuple(found)
            found.append(redirection)

    def redirection(self) -> Redirection | None:
        match = _REDIRECTION.match(self.text, self.at)
        if not match:
            return None
        if self.text.startswith("<<", match.start(2)):
            raise self.error("here-documents are not supported")
        if match.group(1) > "2":
            raise self.error(f"cannot redirect {match.group(1)}", hint="there are 0, 1 and 2")
        self.at = match.end()
        operator = match.group(2)
        fd = int(match.group(1)) if match.group(1) else int(operator != "<")
        self.blanks()
        return Redirection(fd, operator, self.word())

    def simple(self) -> Simple | Function:
        line = self.line()
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while True:
            self.blanks()
            redirection = self.redirection()
            if redirection is not None:
                redirections.append(redirection)
                continue
            if self.at >= len(self.text) or self.text[self.at] in "\n;&|)":
                break
            if self.looking_at("("):
                return self.function(words)
            assignment = None if words else _ASSIGNMENT.match(self.text, self.at)
            if assignment:
                self.at = assignment.end()
                assignments.append((assignment.group(1), self.word(empty=True)))
            else:
                words.append(self.word())
        if not (assignments or words or redirections):
            raise self.error("expected a command")
        return Simple(line, tuple(assignments), tuple(words), tuple(redirections))

    def function(self, words: list[Word]) -> Function:
        name = words[0].literal if len(words) == 1 else None
        if name is None or not self.accept("("):
            raise self.error("unexpected '('")
        self.blanks()
        if not self.accept(")"):
            raise self.error("unexpected '('", hint="a function is defined as name() { ...; }")
        self.newlines()
        body = self.command()
        if not isinstance(body, Group):
            raise self.error(f"the body of {name}() must be a {{ }} group")
        return Function(name, body)

    # Words

    def word(self, empty: bool = False) -> Word:
        parts: list[Part] = []
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _DELIMITERS:
            parts.extend(self.part())
        if self.at == start and not empty:
            raise self.error("expected a word")
        return Word(tuple(parts))

    def part(self) -> list[Part]:
        character = self.text[self.at]
        if character == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise self.error("a single quote is not closed")
            text = self.text[self.at + 1 : end]
            self.at = end + 1
            return [Literal(text, True)]
        if character == '"':
            self.at += 1
            parts = self.until('"', "a double quote is not closed")
            return parts or [Literal("", True)]
        if character == "\\":
            self.at += 2
            return [Literal(self.text[self.at - 1 : self.at], True)] if self.text[self.at - 1 : self.at] != "\n" else []
        if character == "`":
            raise self.error("backquotes are not supported", hint="use $(...)")
        if character == "$":
            return [self.dollar(quoted=False)]
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _DELIMITERS + "'\"\\$`":
            self.at += 1
        return [Literal(self.text[start : self.at], False)]

    def until(self, end: str, unclosed: str) -> list[Part]:
        """Parts as inside double quotes, up to `end`, which is read too; parentheses pair up before `))`."""
        parts: list[Part] = []
        text: list[str] = []
        depth = 0

        def flush() -> None:
            if text:
                parts.append(Literal("".join(text), True))
                text.clear()

        while depth or not self.accept(end):
            if self.at >= len(self.text):
                raise self.error(unclosed)
            character = self.text[self.at]
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in ("$", "`", '"', "\\", "\n"):
                text.append(self.text[self.at + 1].replace("\n", ""))
                self.at += 2
            elif character == "$":
                flush()
                parts.append(self.dollar(quoted=True))
            elif character == "`":
                raise self.error("backquotes are not supported", hint="use $(...)")
            else:
                if end == "))":
                    depth += (character == "(") - (character == ")")
                text.append(character)
                self.at += 1
        flush()
        return parts

    def dollar(self, quoted: bool) -> Part:
        self.at += 1
        if self.accept("(("):
            return Arithmetic(Word(tuple(self.until("))", "'$((' is not closed"))), quoted)
        if self.accept("("):
            body = self.sequence()
            self.expect(")", "$(")
            return Substitution(body, quoted)
        if self.accept("{"):
            return self.braced(quoted)
        match = _PARAMETER.match(self.text, self.at)
        if not match:
            return Literal("$", quoted)
        self.at = match.end()
        return Variable(match.group(), quoted)

    def braced(self, quoted: bool) -> Variable:
        length = self.looking_at("#") and not self.looking_at("#}")
        self.at += length
        match = re.compile(_PARAMETER.pattern.replace("[0-9]", "[0-9]+")).match(self.text, self.at)
        if not match:
            raise self.error("expected a name after '${'")
        self.at = match.end()
        if self.accept("}"):
            return Variable(match.group(), quoted, "length" if length else "")
        for operator in (":-", "%%", "%", "##", "#"):
            if not length and self.accept(operator):
                argument = Word(tuple(self.until("}", "'${' is not closed")))
                return Variable(match.group(), quoted, operator, argument)
        raise self.error("this form of '${' is not supported")
