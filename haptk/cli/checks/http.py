"""`haptk check http`."""

from __future__ import annotations

import click

from haptk.checks import http as checks
from haptk.checks.base import Check, Limits, split_target
from haptk.checks.tcp import MAX_BYTES, Expect, regex, tls_wish
from haptk.cli.checks.common import CheckCommand, tls_options


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("urls", metavar="URL...", nargs=-1)
@click.option("-H", "--hostname", metavar="HOST", help="Instead of a URL: the host.")
@click.option("-p", "--port", type=click.IntRange(1, 65535), default=80, help="To go with -H (default 80).")
@click.option("-u", "--uri", default="/", help="To go with -H (default /).")
@click.option("--method", default="GET", show_default=True, help="Method.")
@click.option("--http-version", type=click.Choice(["1.0", "1.1"]), default="1.1", show_default=True, help="Version.")
@click.option("--header", "headers", metavar="NAME:VALUE", multiple=True, help="Send this header, too.")
@click.option("--body", default="", help="Send this body.")
@click.option("--connect-to", metavar="HOST:PORT", help="Ask this server, by the name in the URL.")
@click.option(
    "-e", "--expect-status", metavar="CODES", help="Accept these, as 200,300-399 (that is the default: 200-399)."
)
@click.option("-s", "--expect", metavar="TEXT", multiple=True, help="The body has to contain this.")
@click.option("-r", "--expect-regex", metavar="REGEX", multiple=True, help="The body has to match this.")
@click.option("--not-expect", metavar="TEXT", multiple=True, help="The body must not contain this.")
@click.option(
    "--max-bytes",
    type=click.IntRange(1, 1 << 30),
    default=MAX_BYTES,
    show_default=True,
    help="Bytes of a body to look at.",
)
@click.option("--expect-header", metavar="NAME[:VALUE]", multiple=True, help="The answer has to have this header.")
@tls_options
def http(
    *,
    limits: Limits,
    timeout_s: float,
    urls: tuple[str, ...],
    hostname: str | None,
    port: int,
    uri: str,
    method: str,
    http_version: str,
    headers: tuple[str, ...],
    body: str,
    connect_to: str | None,
    expect_status: str | None,
    expect: tuple[str, ...],
    expect_regex: tuple[str, ...],
    not_expect: tuple[str, ...],
    expect_header: tuple[str, ...],
    max_bytes: int,
    tls_name: str,
    tls_ca: str | None,
    tls_no_verify: bool,
) -> list[Check]:
    """Send one HTTP request and judge the answer.

    URL is http://HOST[:PORT][/URI] or https://...; several are asked side by side. Without an expectation any status
    from 200 to 399 is good. An https certificate is verified, and its last days are a figure.
    """
    wishes = [Expect("status", checks.status_codes(expect_status or "200-399"))]
    wishes += [Expect("string", text) for text in expect]
    wishes += [Expect("rstring", regex(text)) for text in expect_regex]
    wishes += [Expect("string", text, True) for text in not_expect]
    wishes += [Expect("hdr", " ".join(part.strip() for part in text.split(":", 1)).strip()) for text in expect_header]
    request = checks.Request(
        checks.token(method), f"HTTP/{http_version}", [checks.header(text) for text in headers], body.encode()
    )
    asked = [checks.parse_url(text) for text in urls]
    if hostname is not None:
        named = f"[{hostname}]" if ":" in hostname else hostname
        asked.append(checks.parse_url(f"http://{named}:{port}{uri}"))
    if not asked:
        raise ValueError("nothing to check: give a URL, or -H and -p")
    return [
        checks.http(
            url,
            timeout_s,
            limits,
            request=request,
            expect=wishes,
            tls=tls_wish(tls_name or url.host, tls_ca, tls_no_verify) if url.tls else None,
            connect_to=split_target(connect_to) if connect_to else None,
            max_bytes=max_bytes,
        )
        for url in asked
    ]
