"""The command line as a whole: commands, plugins' commands, errors as one line, completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
import pytest

from zramcore import __version__
from zramcore.cli import BUILTIN, common, main, root
from zramcore.cli.completion import complete_algorithms
from zramcore.errors import InvalidValue
from zramcore.hookspecs import hookimpl
from zramcore.pluginmanager import load_plugins

SCRIPTS = Path(sysconfig.get_path("scripts"))

Added = Callable[..., None]


@pytest.fixture
def add_plugin(monkeypatch: pytest.MonkeyPatch) -> Added:
    """Makes the command line find one more plugin: a module with the given hooks, or none that could be imported."""
    found = list(entry_points(group="zramcore"))

    def add(name: str, **hooks: object) -> None:
        if hooks:
            module = types.ModuleType(name)
            for hook, function in hooks.items():
                setattr(module, f"zramcore_{hook}", hookimpl(function))
            monkeypatch.setitem(sys.modules, name, module)
        found.append(EntryPoint(name, name, "zramcore"))

    monkeypatch.setattr(common, "load_plugins", lambda: load_plugins(found))
    return add


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zramcore", *words], capture_output=True, text=True, timeout=60, check=False, **options
    )


# Commands


def test_version_without_loading_plugins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("plugins were loaded")

    monkeypatch.setattr(common, "load_plugins", refuse)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zramcore, version {__version__}\n"


def test_python_dash_m_and_the_console_script_are_the_same() -> None:
    module = run("--version")
    script = subprocess.run([SCRIPTS / "zramcore", "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == script.stdout == f"zramcore, version {__version__}\n"
    assert module.returncode == 0


def test_help_lists_every_command_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listing = capsys.readouterr().out.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listing.splitlines()] == list(BUILTIN)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: zramcore {name} ")


def test_a_command_imports_no_other() -> None:
    program = (
        "import sys; from zramcore.cli import BUILTIN; BUILTIN['daemon']\n"
        "print(sorted(name for name in sys.modules if name.startswith('zramcore.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['zramcore.cli.common', 'zramcore.cli.daemon']"


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: zramcore [OPTIONS] COMMAND")


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tryy"]) == 2
    assert "No such command 'tryy'" in capsys.readouterr().err


# Plugins


def test_a_command_of_a_plugin_is_listed_and_runs(add_plugin: Added, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command("greet")
    @click.argument("name")
    def greet(name: str) -> int:
        """Say hello."""
        click.echo(f"hello {name}")
        return 7  # not an exit status

    add_plugin("greeter", cli_commands=lambda: [greet])
    assert main(["--help"]) == 0
    assert "greet       Say hello." in capsys.readouterr().out
    assert main(["greet", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"


def test_a_plugin_cannot_take_the_name_of_a_built_in_command(
    add_plugin: Added, capsys: pytest.CaptureFixture[str]
) -> None:
    add_plugin("thief", cli_commands=lambda: [click.Command("plugins", callback=lambda: click.echo("stolen"))])
    assert main(["plugins"]) == 0
    captured = capsys.readouterr().out
    assert "stolen" not in captured
    assert "CONFLICT thief" in captured
    assert "command 'plugins' is registered by zramcore and again by thief" in " ".join(captured.split())


@pytest.mark.parametrize("words", [["plugins"], ["--help"], ["try", "--size", "64K", "--comp", "lz4"]], ids=str)
def test_a_broken_plugin_breaks_no_command(
    words: list[str], add_plugin: Added, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[click.Command]:
        raise RuntimeError("no luck")

    add_plugin("no_such_module_anywhere")
    add_plugin("raiser", cli_commands=broken)
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert "Traceback" not in captured.out + captured.err


def test_an_observer_that_raises_is_one_line(add_plugin: Added, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(device: str) -> None:
        raise RuntimeError("no luck")

    add_plugin("watcher", device_added=broken)
    assert main(["try", "--size", "64K", "--comp", "lz4"]) == 0
    assert capsys.readouterr().err == (
        "zramcore: plugin watcher: observer zramcore_device_added raised RuntimeError: no luck\n"
    )


# Errors


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InvalidValue("too\nodd", attribute="idle", value="x"), "idle: 'x': too odd (EINVAL, Invalid argument)"),
        (FileNotFoundError(2, "No such file or directory", "/nope"), "/nope: No such file or directory"),
        (PermissionError(13, "Permission denied", "/a", None, "/b"), "/a and /b: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (click.ClickException("no\ngood"), "no good"),
        (
            KeyError("x"),
            "internal error: KeyError: 'x' (with ZRAMCORE_DEBUG=1 set, the traceback is printed too)",
        ),
        (
            OSError("odd"),
            "internal error: OSError: odd (with ZRAMCORE_DEBUG=1 set, the traceback is printed too)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line_and_status_1(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(common.DEBUG_VARIABLE, raising=False)
    assert common.guarded(raising(error)) == 1
    assert capsys.readouterr().err == f"zramcore: {line}\n"


def test_the_traceback_is_there_for_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(common.DEBUG_VARIABLE, "1")
    assert common.guarded(raising(KeyError("x"))) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), EOFError()], ids=repr)
def test_an_interrupt_is_status_130_and_says_nothing(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert common.guarded(raising(error)) == 130
    assert capsys.readouterr().err == "\n"


def test_the_exit_status_of_a_command_is_kept() -> None:
    assert common.guarded(raising(click.exceptions.Exit(3))) == 3


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "zramcore", "plugins"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "zramcore", "--help"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (result.returncode, result.stderr) == (1, b"zramcore: No space left on device\n")


# Completion


def complete(*words: str) -> list[str]:
    """What the completion protocol of bash answers for the last of these words."""
    answer = run(
        env={
            **os.environ,
            "_ZRAMCORE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def test_commands_are_completed() -> None:
    assert complete("zramcore", "t") == ["plain,try", "plain,top"]


def test_algorithms_are_completed_also_after_a_comma() -> None:
    assert complete("zramcore", "try", "--comp", "zs") == ["plain,zstd"]
    assert complete("zramcore", "try", "--comp", "zstd,lz") == ["plain,zstd,lz4", "plain,zstd,lz4hc"]


def test_an_algorithm_is_not_offered_twice() -> None:
    context = click.Context(root)
    offered = [item.value for item in complete_algorithms(context, root.params[0], "lz4,")]
    assert "lz4,zstd" in offered
    assert "lz4,lz4" not in offered


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef zramcore"), ("fish", "complete --")]
)
def test_every_shell_gets_its_script(shell: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert mark in script
    assert "_ZRAMCORE_COMPLETE" in script


def test_an_unknown_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script() -> None:
    script = (
        'eval "$(zramcore completion bash)"; COMP_WORDS=(zramcore try --comp de); COMP_CWORD=3; '
        '_zramcore_completion zramcore; echo "${COMPREPLY[@]}"'
    )
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path}, check=True
    )
    assert answer.stdout == "deflate\n"
