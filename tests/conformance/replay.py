"""Replay recorded transcripts against zramcore: python tests/conformance/replay.py [--pages FILE] TRANSCRIPT...

A transcript NAME.txt is replayed by running its script NAME.sh, from the same folder or from scripts/ or walks/ beside
it, and comparing what it prints. Without a script, or when the script uses something that exec does not understand,
the operations that the transcript itself echoes are carried out and their answers compared (--echo: always).
Prints every difference that differences.py does not explain, then `N lines compared, M differ`; exits 1 if M > 0.
"""

from __future__ import annotations

import argparse
import functools
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import gen_pages
from compare import Outcome, compare
from echo import replay_echo
from guest import BANNER, Guest
from recorded import with_recorded

from zramcore.control import Control
from zramcore.pluginmanager import load_plugins
from zramcore.registry import build_catalogue
from zramcore.script import ScriptError, VirtualClock, command_table, run_script


@functools.cache
def _catalogue():
    return with_recorded(build_catalogue(load_plugins()))


def new_guest(pages: Path) -> Guest:
    """A guest as it is before a script starts; `pages` stands for pages.bin."""
    catalogue = _catalogue()
    guest = Guest(lambda clock: Control(catalogue, clock=clock), VirtualClock())
    guest.names["pages.bin"] = pages
    guest.prepare()
    return guest


def find_script(transcript: Path) -> Path | None:
    """The script of a transcript, or None."""
    for folder in (".", "../scripts", "../walks"):
        script = transcript.parent / folder / f"{transcript.stem}.sh"
        if script.exists():
            return script
    return None


def replay_script(transcript: Path, script: Path, pages: Path) -> Outcome:
    """Run the script and compare. Raises ScriptError for what exec does not understand."""
    out = io.StringIO()
    out.write(BANNER)
    with new_guest(pages) as guest:
        commands = {**command_table(guest), **guest.commands()}
        run_script(script.read_text(), guest, out, out, file=str(script), commands=commands, check=False)
    return compare(transcript.name, transcript.read_text().splitlines(), out.getvalue().split("\n")[:-1])


def replay(
    transcript: Path, pages: Path, *, echo: bool = False, say: Callable[[str], object] = lambda text: None
) -> Outcome:
    """Replay one transcript in the best way there is; `say` is told which."""
    script = None if echo else find_script(transcript)
    if script is not None:
        try:
            return replay_script(transcript, script, pages)
        except ScriptError as error:
            say(f"{error}: replaying from the echoed operations instead")
    with new_guest(pages) as guest:
        return replay_echo(transcript, guest)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="pages.bin; made by gen_pages.py when it is not given")
    parser.add_argument("--echo", action="store_true", help="use no scripts")
    parser.add_argument("-v", "--verbose", action="store_true", help="also the differences that are explained")
    parser.add_argument("transcripts", type=Path, nargs="+", metavar="TRANSCRIPT")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pages = options.pages
        if pages is None:
            pages = Path(folder) / "pages.bin"
            pages.write_bytes(b"".join(gen_pages.build()[0]))
        compared = differ = 0
        for transcript in options.transcripts:
            outcome = replay(transcript, pages, echo=options.echo, say=lambda text: print(text, file=sys.stderr))
            _report(transcript, outcome, options.verbose)
            compared += outcome.compared
            differ += len(outcome.unexplained)
    print(f"{compared} lines compared, {differ} differ")
    return int(differ > 0)


def _report(transcript: Path, outcome: Outcome, verbose: bool) -> None:
    for difference in outcome.differences if verbose else outcome.unexplained:
        print(f"{transcript}:{difference.number}: {difference.reason or 'differs'}\n{difference}")
    if len(outcome.explained):
        print(f"{transcript}: {len(outcome.explained)} explained differences")
    print(f"{transcript}: {outcome.compared} lines compared, {len(outcome.unexplained)} differ")


if __name__ == "__main__":
    sys.exit(main())
