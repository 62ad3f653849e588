"""`haptk check memcached`."""

from __future__ import annotations

import click

from haptk.checks import memcached as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand, target_options, targets_of


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@target_options
@click.option("--read-only", is_flag=True, help="Store nothing: ask for the statistics only.")
def memcached(
    *,
    limits: Limits,
    timeout_s: float,
    targets: tuple[str, ...],
    hostname: str | None,
    port: int | None,
    read_only: bool,
) -> list[Check]:
    """Store a value in memcached, read it back, delete it.

    TARGET is HOST[:11211] or the path of a unix socket.
    """
    found = targets_of(targets, hostname, port, checks.PORT)
    return [checks.memcached(host, number, timeout_s, limits, read_only=read_only) for host, number in found]
