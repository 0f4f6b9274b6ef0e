"""`zramcore completion SHELL`, and what can be completed besides commands, options and files: compressors' names."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from .common import COMPLETE_VARIABLE, PROGRAM, catalogue_of

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that teaches SHELL to complete zramcore's commands, options, algorithms and files.

    \b
    bash: eval "$(zramcore completion bash)"       in ~/.bashrc
    zsh:  eval "$(zramcore completion zsh)"        in ~/.zshrc, after compinit
    fish: zramcore completion fish | source        in ~/.config/fish/config.fish
    """
    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    click.echo(complete(context.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())


def complete_algorithms(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The installed compressors that may come next in a comma-separated list."""
    done, comma, start = incomplete.rpartition(",")
    taken = done.split(",")
    compressors = catalogue_of(context).compressors
    return [
        CompletionItem(f"{done}{comma}{name}", help=cls.summary)
        for name, cls in compressors.items()
        if name.startswith(start) and name not in taken
    ]
