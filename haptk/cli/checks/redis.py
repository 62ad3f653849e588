"""`haptk check redis`."""

from __future__ import annotations

from pathlib import Path

import click

from haptk.checks import redis as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand, read_secret, target_options, targets_of


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@target_options
@click.option("--user", default="", help="User of an ACL.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with the password on its first line.")
@click.option("--role", type=click.Choice(["any", "master", "replica"]), default="any", help="What it has to be.")
@click.option("--read-only", is_flag=True, help="Store nothing, also not in a master.")
def redis(
    *,
    limits: Limits,
    timeout_s: float,
    targets: tuple[str, ...],
    hostname: str | None,
    port: int | None,
    user: str,
    password_file: Path | None,
    role: str,
    read_only: bool,
) -> list[Check]:
    """Store a value in redis, read it back, delete it.

    TARGET is HOST[:6379] or the path of a unix socket. On a replica nothing is stored; it is CRITICAL when it is cut
    off from its master.
    """
    credentials = checks.Credentials(user, read_secret(password_file)) if password_file else None
    return [
        checks.redis(host, number, timeout_s, limits, credentials=credentials, role=role, read_only=read_only)
        for host, number in targets_of(targets, hostname, port, checks.PORT)
    ]
