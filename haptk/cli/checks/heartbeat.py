"""`haptk check heartbeat`."""

from __future__ import annotations

from pathlib import Path

import click

from haptk.checks import heartbeat as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.option("--control", type=click.Path(path_type=Path), help=f"Its control socket [default: {checks.SOCKET}].")
@click.option("--hold", type=click.Choice(checks.HOLDS), default="any", show_default=True, help="What it has to hold.")
def heartbeat(*, limits: Limits, timeout_s: float, control: Path | None, hold: str) -> list[Check]:
    """Ask this node's heartbeat for its peer and resources.

    CRITICAL: nobody answers, a resource failed, the node's own check is down. WARNING: the peer or a link is dead.
    """
    from haptk.heartbeat.settings import control_path

    return [checks.heartbeat(control_path(control), timeout_s, limits, hold=hold)]
