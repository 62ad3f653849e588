"""`http`: one request as `option httpchk` has them, optionally over TLS; judged by status, headers and body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from haptk.checks.base import Check, Finding, Limits, split_target
from haptk.checks.tcp import MAX_BYTES, Expect, of_probe
from haptk.io.probe import probe_http

if TYPE_CHECKING:
    from haptk.io.tls import TlsWish

FIGURES = ("time", "certificate")


class Url(NamedTuple):
    """`http[s]://HOST[:PORT][/URI]`; `named` is what the Host header says."""

    tls: bool
    host: str
    port: int
    uri: str
    named: str


def parse_url(text: str) -> Url:
    """ValueError says what is accepted. `unix:/path` and user names are not URLs that a check needs."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise ValueError(f"{text!r} is no URL: http://HOST[:PORT][/URI] or https://... is accepted")
    tls = scheme.lower() == "https"
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, uri = rest[:cut], rest[cut:].partition("#")[0]
    if "@" in authority or any(mark <= " " or mark > "~" for mark in text):
        raise ValueError(f"{text!r} is no URL for a check: user names, blanks and control characters are not accepted")
    host, port = split_target(authority, 443 if tls else 80)
    return Url(tls, host, port, uri if uri.startswith("/") else "/" + uri, authority)


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def token(text: str) -> str:
    """A method or header name; ValueError for anything that could end the line it stands on."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is no HTTP token")
    return text


def header(text: str) -> tuple[str, str]:
    """`Name: value` as a pair; ValueError for what is none."""
    name, colon, value = text.partition(":")
    if not colon or any(mark in value for mark in "\r\n\0"):
        raise ValueError(f"{text!r} is no header: NAME:VALUE is accepted")
    return token(name.strip()), value.strip()


def status_codes(text: str) -> str:
    """`200,300-399` without blanks; ValueError for what is none."""
    clean = text.replace(" ", "")
    if not re.fullmatch(r"\d{3}(-\d{3})?(,\d{3}(-\d{3})?)*", clean):
        raise ValueError(f"{text!r} is no list of statuses: 200 or 200,300-399 is accepted")
    return clean


class Request(NamedTuple):
    """What is sent: HAProxy's default is OPTIONS / HTTP/1.0; here it is GET, because people give a whole URL."""

    method: str = "GET"
    version: str = "HTTP/1.1"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


def http(
    url: Url,
    timeout_s: float,
    limits: Limits,
    *,
    request: Request | None = None,
    expect: Sequence[Expect] = (),
    tls: TlsWish | None = None,
    connect_to: tuple[str, int] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Check:
    """A check of `url`. `connect_to` asks this server by the URL's name (one of several behind a balancer)."""
    what = request or Request()
    host, port = connect_to or (url.host, url.port)
    headers = list(what.headers)
    if what.version == "HTTP/1.1" and not any(name.lower() == "host" for name, _ in headers):
        headers.insert(0, ("Host", url.named))

    def look(timeout_s: float) -> Finding:
        found = probe_http(
            what.method,
            url.uri,
            what.version,
            host,
            port,
            headers,
            expect or None,
            timeout_s,
            body=what.body,
            tls=tls,
            max_bytes=max_bytes,
        )
        finding = of_probe(found, timeout_s, limits)
        return finding._replace(facts={**finding.facts, "status": found.status})

    return Check("HTTP", f"{'https' if url.tls else 'http'}://{url.named}{url.uri}", timeout_s, look)
