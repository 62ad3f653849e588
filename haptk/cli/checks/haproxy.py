"""`haptk check haproxy`, and the options that `check proxy` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from haptk.checks import haproxy as checks
from haptk.checks.base import Check, Limits, split_target
from haptk.checks.http import parse_url
from haptk.cli.checks.common import AnyFunction, CheckCommand, read_secret


def source_options(function: AnyFunction) -> AnyFunction:
    """Where to ask and for what."""
    text = "File with user:password of the stats page."
    function = click.option("--auth-file", type=click.Path(path_type=Path), help=text)(function)
    function = click.option("--url", metavar="URL", help="Ask the stats page (stats uri) instead of a socket.")(
        function
    )
    return click.argument("proxies", metavar="[PROXY]...", nargs=-1)(function)


def source_of(socket: str, url: str | None, auth_file: Path | None) -> checks.Source:
    """The place that the options mean."""
    if url is None:
        host, port = split_target(socket)
        return checks.Source(host, port)
    page = parse_url(url)
    if page.tls:
        raise ValueError("--url takes http:// only")
    return checks.Source(page.host, page.port, page, read_secret(auth_file) if auth_file else "")


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@source_options
@click.option("--socket", default="/run/haproxy/admin.sock", show_default=True, help="Runtime socket (or HOST:PORT).")
def haproxy(
    *,
    limits: Limits,
    timeout_s: float,
    proxies: Sequence[str],
    socket: str,
    url: str | None,
    auth_file: Path | None,
) -> list[Check]:
    """Ask a running haproxy for its servers, queues and sessions.

    PROXY names frontends, backends or listens (default: all). CRITICAL: a frontend that is not open, a backend without
    a usable server. WARNING: a server is down (or -w servers=RANGE), a frontend over 90 % of its sessions.
    """
    return [checks.haproxy(source_of(socket, url, auth_file), timeout_s, limits, proxies=proxies)]
