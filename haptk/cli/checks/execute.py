"""`haptk check exec`."""

from __future__ import annotations

import click

from haptk.checks import execute as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command("exec", cls=CheckCommand, figures=checks.FIGURES, context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--plugin", is_flag=True, help="COMMAND is a monitoring plugin: take its state, text and figures.")
def execute(*, limits: Limits, timeout_s: float, command: tuple[str, ...], plugin: bool) -> list[Check]:
    """Run a program or a monitoring plugin under a time-out.

    Exit code 0 is OK, any other CRITICAL; with --plugin 0 to 3 mean what they mean. Options of haptk stand before
    COMMAND. No shell is involved. When the time is over, COMMAND and its children are killed.
    """
    return [checks.execute(command, timeout_s, limits, plugin=plugin)]
