"""`haptk check dns`."""

from __future__ import annotations

import click

from haptk.checks import dns as checks
from haptk.checks.base import Check, Limits, split_target
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-s", "--server", metavar="ADDRESS[:PORT]", help="Ask this server [default: the system's].")
@click.option("-q", "--type", "kind", default="A", show_default=True, help="Type of the record.")
@click.option("-a", "--expect", multiple=True, metavar="ANSWER", help="This has to be among the answers.")
@click.option("--exactly", is_flag=True, help="No other answers than those of --expect.")
def dns(
    *,
    limits: Limits,
    timeout_s: float,
    names: tuple[str, ...],
    server: str | None,
    kind: str,
    expect: tuple[str, ...],
    exactly: bool,
) -> list[Check]:
    """Ask a DNS server for a name.

    No answer, an error and an answer without a record are CRITICAL.
    """
    if exactly and not expect:
        raise ValueError("--exactly needs --expect")
    if not kind.isalnum():
        raise ValueError(f"{kind!r} is no type of record")
    asked = split_target(server, 53) if server else None
    return [
        checks.dns(name, timeout_s, limits, kind=kind.upper(), server=asked, expect=expect, exactly=exactly)
        for name in names
    ]
