"""The language of `zramcore exec`: what scripts mean, and which lines are refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zramcore.script.builtins import BUILTINS
from zramcore.script.expand import compute
from zramcore.script.reader import parse_script
from zramcore.script.shell import Shell, Streams
from zramcore.script.text import TEXT_WORDS
from zramcore.script.tree import ScriptError

STEADY = settings(deadline=None, derandomize=True)


class Texts:
    """Files for a script, in a dict; /forbidden can neither be read nor written."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {"/known": "1 2\n3 4\n"}

    def read_text(self, path: str) -> str:
        if path == "/forbidden":
            raise PermissionError(13, "Permission denied")
        if path not in self.texts:
            raise FileNotFoundError(2, "No such file or directory")
        return self.texts[path]

    def write_text(self, path: str, text: str, append: bool) -> None:
        if path == "/forbidden":
            raise PermissionError(13, "Permission denied")
        self.texts[path] = self.texts.get(path, "") * append + text

    def exists(self, path: str) -> bool:
        return path in self.texts


def run(text: str, *, stop_on_error: bool = False) -> tuple[str, str, int]:
    """Standard output, standard error and status of a script."""
    out, err = io.StringIO(), io.StringIO()
    shell = Shell({**BUILTINS, **TEXT_WORDS}, Texts(), "test.sh", {}, stop_on_error)
    status = shell.run(parse_script(text, "test.sh"), Streams(io.StringIO(), out, err))
    return out.getvalue(), err.getvalue(), status


@pytest.mark.parametrize(
    ("script", "output"),
    [
        ("echo a  'b  c' \"d $((1+1))\"", "a b  c d 2\n"),
        ("echo a # no comment in the output", "a\n"),
        ("echo a#b '#' \\#", "a#b # #\n"),
        ("x='a b'; echo $x; echo \"$x\"; echo '$x' \\$x", "a b\na b\n$x $x\n"),
        ("x='a  b'; echo $x:$x", "a b:a b\n"),
        ("echo -n a; echo b", "ab\n"),
        ("echo ''; echo", "\n\n"),
        ("echo ${x:-def} ${#x}", "def 0\n"),
        ("x=64:random; echo ${x%:*} ${x#*:} ${x%%a*} ${x##*m}", "64 random 64:r\n"),
        ("x=/dev/loop0; echo ${x#/dev/}", "loop0\n"),
        ("for i in 1 2 3; do echo $i; done", "1\n2\n3\n"),
        ("for i in $(seq 2 4) 'a b'; do echo \"$i\"; done", "2\n3\n4\na b\n"),
        ("n=3; while [ $n -gt 0 ]; do n=$((n-1)); [ $n = 1 ] && continue; echo $n; done", "2\n0\n"),
        ("until false; do echo once; break; done", "once\n"),
        ("if false; then echo a; elif [ -n x ]; then echo b; else echo c; fi", "b\n"),
        ("if false; then echo a; else\necho c\nfi", "c\n"),
        ("case abc in x|y) echo 1;; a*) echo 2;; *) echo 3;; esac", "2\n"),
        ("f() { echo $1 $#; shift; echo $1; return 3; echo no; }; f a b; echo $?", "a 2\nb\n3\n"),
        ("f() { echo \"[$1]\"; }; g() { for a in \"$@\"; do f \"$a\"; done; }; g 'a b' c", "[a b]\n[c]\n"),
        ("set -- a b c; echo $# $2 $*", "3 b a b c\n"),
        ("echo a | tr a b | cat", "b\n"),
        ("echo x | { read v; echo got $v; }; echo \"[$v]\"", "got x\n[]\n"),
        ("cat /known | while read a b; do echo $b-$a; done", "2-1\n4-3\n"),
        ("cat /known | while IFS= read -r l; do set -- $l; eval \"last=\\${$#}\"; echo $last; done", "2\n4\n"),
        ("n=$(wc -l < /known); echo $n", "2\n"),
        ("echo hi > /f; echo ho >> /f; cat /f", "hi\nho\n"),
        ("echo hi > /dev/null; { echo a; echo b; } > /f; cat /f", "a\nb\n"),
        ("cat /missing 2>&1", "cat: can't open '/missing': No such file or directory\n"),
        ("cat /missing 2>/dev/null || echo none", "none\n"),
        ("true && echo a || echo b; false && echo c || echo d", "a\nd\n"),
        ("! false && echo yes", "yes\n"),
        ("( x=1; echo $x ); echo [$x]", "1\n[]\n"),
        ("x=5; y=$x$(echo 6); echo $y", "56\n"),
        ("false; echo $?; true; echo $?", "1\n0\n"),
        ("x=$(false); echo $?", "1\n"),
        ("[ -e /known ] && echo there; [ -e /x ] || echo not there", "there\nnot there\n"),
        ("[ 1 -lt 2 -a x != y ] && test -z '' && echo ok", "ok\n"),
        ("echo one \\\n  two", "one two\n"),
        ("V=1 echo [$V]; echo [$V]", "[]\n[]\n"),
        ("echo $(( (1+2)*3 )) $((7/2)) $((-7/2)) $((010)) $((0x10)) $((1<<4|1)) $((3>2&&0))", "9 3 -3 8 16 17 0\n"),
        ("printf '%s:%s ' 1 a 2 b", "1:a 2:b "),
        ("echo b a | tr ' ' '\\n' | sort | head -1", "a\n"),
        ("cat /known | grep -c 1; cat /known | tail -n 1; grep -v 1 /known", "1\n3 4\n3 4\n"),
        ("grep -E '1|4' /known; grep '1|4' /known || echo none", "1 2\n3 4\nnone\n"),
        ("echo 'a   b' | tr -s ' '; echo abc | tr -d b", "a b\nac\n"),
        ("echo x | tee /copy; cat /copy", "x\nx\n"),
        ("exit 0; echo no", ""),
        ("uname -r", "7.3.4\n"),
    ],
)  # fmt: skip
def test_scripts_mean_what_the_shell_says(script: str, output: str) -> None:
    assert run(script)[0] == output


@pytest.mark.parametrize(
    ("script", "line", "reason"),
    [
        ("echo 'a", 1, "single quote"),
        ('\necho "a', 2, "double quote"),
        ("for i in 1 2; echo", 1, "'do'"),
        ("if true; then echo", 1, "fi"),
        ("true\n\nwhile true; do echo a", 3, "'done'"),
        ("echo `ls`", 1, "backquotes"),
        ("cat <<EOF", 1, "here-documents"),
        ("{ echo a;", 1, "'}'"),
        ("done", 1, "unexpected"),
        ("echo )", 1, "unexpected"),
        ("a | | b", 1, "expected a"),
        ("echo ${x?y}", 1, "not supported"),
        ("echo $((1+2", 1, "not closed"),
        ("f() echo", 1, "group"),
        ("case x in a) echo", 1, "'esac'"),
        ("case x in a b) echo;; esac", 1, "')'"),
        ("echo a 3>&1", 1, "cannot redirect 3"),
        ("function f { :; }", 1, "not supported"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(script: str, line: int, reason: str) -> None:
    with pytest.raises(ScriptError, match=f"^test.sh:{line}: ") as caught:
        parse_script(script, "test.sh")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("nonsense", "unknown command 'nonsense'"),
        ("ecko hi", "did you mean 'echo'"),
        ("echo $((1/0))", "cannot compute"),
        ("echo $((1+))", "cannot compute"),
        ("[ 1 -lt x ]", "usage"),
        ("set x", "usage"),
        ("shift; break", "outside of a loop"),
        ("f() { f; }; f", "deep"),
        ("echo a >&x", "cannot redirect"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_line(script: str, reason: str) -> None:
    with pytest.raises(ScriptError, match=r"^test\.sh:2: ") as caught:
        run("\n" + script)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("script", "output", "status"),
    [
        ("false; echo no", "", 1),
        ("false || true; echo yes", "yes\n", 0),
        ("if false; then :; fi; ! true; echo yes", "yes\n", 0),
        ("x=$(false; echo a); echo $x", "a\n", 0),
        ("false | true; echo yes", "yes\n", 0),
        ("true | false; echo no", "", 1),
        ("f() { false; echo no; }; f", "", 1),
        ("set +e; false; echo yes", "yes\n", 0),
    ],
)
def test_stop_on_error(script: str, output: str, status: int) -> None:
    assert run(script, stop_on_error=True) == (output, "", status)


def test_errors_of_files_go_to_standard_error() -> None:
    out, err, status = run("cat < /missing; echo a > /forbidden")
    assert out == ""
    assert err == "sh: can't open /missing: No such file or directory\nsh: write error: Permission denied\n"
    assert status == 1


def test_exit_in_a_group_still_writes_its_redirection() -> None:
    assert run("( { echo a; exit 4; } > /f ); echo $?; cat /f") == ("4\na\n", "", 0)


@STEADY
@given(st.lists(st.text(alphabet="ab '\"$\\#;|&<>(){}`*=\t", max_size=6), max_size=4))
def test_single_quotes_keep_everything(words: list[str]) -> None:
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    assert run(f'set -- {quoted}; for w in "$@"; do echo "<$w>"; done')[0] == "".join(f"<{w}>\n" for w in words)


@STEADY
@given(st.text(alphabet="ab1 \n\t;&|<>(){}'\"\\$#=!`fi do", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    line = 1
    try:
        parse_script(text, "test.sh")
    except ScriptError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1


_NUMBERS = st.integers(-1000, 1000)


@STEADY
@given(_NUMBERS, _NUMBERS, st.sampled_from(["+", "-", "*", "<<", "==", "<", "&&", "||", "&"]))
def test_arithmetic_against_python(left: int, right: int, operator: str) -> None:
    model = {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "<<": left << (right % 64),
        "==": int(left == right),
        "<": int(left < right),
        "&&": int(bool(left and right)),
        "||": int(bool(left or right)),
        "&": left & right,
    }[operator]
    right = right % 64 if operator == "<<" else right
    assert compute(f"(a) {operator} ({right})", {"a": str(left)}.__getitem__) == model


@STEADY
@given(_NUMBERS, _NUMBERS.filter(bool))
def test_division_truncates(left: int, right: int) -> None:
    quotient = compute(f"({left}) / ({right})", str)
    assert quotient == int(left / right)
    assert compute(f"({left}) % ({right})", str) == left - quotient * right
