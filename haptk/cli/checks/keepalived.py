"""`haptk check keepalived`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from haptk.checks import keepalived as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("instances", metavar="[INSTANCE]...", nargs=-1)
@click.option("-f", "--pid-file", default=checks.PID_FILE, show_default=True, help="Its pid file.")
@click.option("--state", type=click.Choice(checks.STATES, case_sensitive=False), help="What the instances have to be.")
@click.option("--data-file", default=checks.DATA_FILE, show_default=True, help="Where it writes its states.")
def keepalived(
    *,
    limits: Limits,
    timeout_s: float,
    instances: Sequence[str],
    pid_file: str,
    state: str | None,
    data_file: str,
) -> list[Check]:
    """See whether keepalived runs, and in which state.

    With --state or an INSTANCE it is asked for the states of its VRRP instances, by a signal, which needs root.
    --state any accepts MASTER and BACKUP; FAULT is always CRITICAL.
    """
    return [checks.keepalived(pid_file, timeout_s, limits, want=state, instances=instances, data_file=data_file)]
