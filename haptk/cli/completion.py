"""`haptk completion`: the script that makes TAB work in a shell."""

from __future__ import annotations

import click

from haptk.cli.base import Command, emit

INSTALL = {
    "bash": "haptk completion bash > /etc/bash_completion.d/haptk",
    "zsh": 'haptk completion zsh > "${fpath[1]}/_haptk"',
    "fish": "haptk completion fish > ~/.config/fish/completions/haptk.fish",
}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    Install it with, for instance, `haptk completion bash > /etc/bash_completion.d/haptk`.
    """
    from click.shell_completion import BashComplete, get_completion_class

    from haptk.cli.app import haptk

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    if found is BashComplete:
        # click asks the installed bash for its version first; a script may be made on a machine without bash.
        BashComplete._check_version = staticmethod(lambda: None)  # type: ignore[method-assign]
    source = found(haptk, {}, "haptk", "_HAPTK_COMPLETE").source()
    emit({"shell": shell, "install": INSTALL[shell], "script": source}, source)
