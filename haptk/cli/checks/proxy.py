"""`haptk check proxy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from haptk.checks import haproxy as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand
from haptk.cli.checks.haproxy import source_of, source_options


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@source_options
@click.option("--socket", default="/run/haptk/proxy.sock", show_default=True, help="`stats socket` of its haproxy.cfg.")
def proxy(
    *,
    limits: Limits,
    timeout_s: float,
    proxies: Sequence[str],
    socket: str,
    url: str | None,
    auth_file: Path | None,
) -> list[Check]:
    """Ask a running haptk proxy for its servers and sessions.

    Its haproxy.cfg needs `stats socket /run/haptk/proxy.sock` in the global section; the level user is enough. It is
    judged as haproxy is: see `haptk check haproxy --help`.
    """
    source = source_of(socket, url, auth_file)
    return [checks.haproxy(source, timeout_s, limits, proxies=proxies, service="PROXY")]
