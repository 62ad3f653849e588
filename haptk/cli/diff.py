"""`haptk diff`: what on this machine is not as cluster.toml declares it."""

from __future__ import annotations

from pathlib import Path

import click

from haptk.cli.apply import ROOT, planned, show
from haptk.cli.base import Command
from haptk.cli.tier import NODE


@click.command(cls=Command)
@NODE
@ROOT
def diff(node: str | None, root: Path) -> int:
    """Show what on this machine differs from cluster.toml.

    Exit codes: 0 nothing, 2 there is a difference. Nothing is written, and no key is shown.
    """
    plan = planned(node, root)
    show(plan)
    return 2 if plan.changes else 0
