"""`haptk diff`: what on this machine is not as cluster.toml declares it."""

from __future__ import annotations

from pathlib import Path

import click

from haptk.cli.apply import AWS, ROOT, planned, planned_remote, show, show_remote
from haptk.cli.base import Command
from haptk.cli.tier import NODE


@click.command(cls=Command)
@NODE
@ROOT
@AWS
def diff(node: str | None, root: Path, aws: bool) -> int:
    """Show what on this machine differs from cluster.toml.

    Exit codes: 0 nothing, 2 there is a difference. Nothing is written, and no key is shown. With --aws the name in Route 53,
    its health checks and the load balancer are compared.
    """
    if aws:
        remote, _ = planned_remote()
        show_remote(remote)
        return 2 if remote.lines() else 0
    plan = planned(node, root)
    show(plan)
    return 2 if plan.changes else 0
