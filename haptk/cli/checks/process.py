"""`haptk check process`."""

from __future__ import annotations

import click

from haptk.checks import process as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-f", "--pid-file", metavar="FILE", default="", help="Look at the process of this file (NAME: verify it)."
)
def process(*, limits: Limits, timeout_s: float, names: tuple[str, ...], pid_file: str) -> list[Check]:
    """See whether a process is alive.

    NAME is the program's name as `killall -0` takes it. A zombie is dead and a stopped process is not healthy. The
    figure `processes` counts those that can run; by default none is CRITICAL (-c 1:), and -c 0 asks that none runs.
    """
    if pid_file:
        if len(names) > 1:
            raise ValueError("--pid-file is about one NAME")
        return [checks.process(names[0] if names else "", pid_file, timeout_s, limits)]
    if not names or not all(names):
        raise ValueError("nothing to check: give a NAME or --pid-file")
    return [checks.process(name, "", timeout_s, limits) for name in names]
