"""`haptk check tcp`."""

from __future__ import annotations

import click

from haptk.checks import tcp as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand, target_options, targets_of, tls_options, unescape


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@target_options
@click.option("--send", metavar="TEXT", default="", help=r"Send this; \\r \\n \\t \\0 \\xHH are understood.")
@click.option("--expect", metavar="TEXT", multiple=True, help="The answer has to contain this.")
@click.option("--expect-regex", metavar="REGEX", multiple=True, help="The answer has to match this.")
@click.option("--not-expect", metavar="TEXT", multiple=True, help="The answer must not contain this.")
@click.option("--tls", is_flag=True, help="Speak TLS and watch the certificate.")
@tls_options
def tcp(
    *,
    limits: Limits,
    timeout_s: float,
    targets: tuple[str, ...],
    hostname: str | None,
    port: int | None,
    send: str,
    expect: tuple[str, ...],
    expect_regex: tuple[str, ...],
    not_expect: tuple[str, ...],
    tls: bool,
    tls_name: str,
    tls_ca: str | None,
    tls_no_verify: bool,
) -> list[Check]:
    """Connect, send and expect.

    TARGET is HOST:PORT, [V6]:PORT or the path of a unix socket. Several are looked at side by side.
    """
    wishes = [checks.Expect("string", text) for text in expect]
    wishes += [checks.Expect("rstring", checks.regex(text)) for text in expect_regex]
    wishes += [checks.Expect("string", text, True) for text in not_expect]
    return [
        checks.tcp(
            host,
            number,
            timeout_s,
            limits,
            send=unescape(send),
            expect=wishes,
            tls=checks.tls_wish(tls_name, tls_ca, tls_no_verify) if tls else None,
        )
        for host, number in targets_of(targets, hostname, port)
    ]
