"""Small things about messages that the reference relay needs: hop-by-hop headers, cookies put back, how a body ends."""

from __future__ import annotations

from haptk.io import clock
from haptk.proxy.reference_http import Head

HOP = ("connection", "keep-alive", "proxy-connection")


def with_cookies(headers: list[tuple[str, str]], cookies: tuple[str | None, ...]) -> list[tuple[str, str]]:
    """The headers with the values of the Cookie headers replaced; None removes one."""
    values = iter(cookies)
    changed = [(name, next(values) if name == "cookie" else value) for name, value in headers]
    return [(name, value) for name, value in changed if value is not None]


def without_hops(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers without those that speak of one connection; other words of Connection stay."""
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        words = [word.strip(" \t") for word in value.split(",")]
        rest = [word for word in words if word.lower() not in ("close", "keep-alive", "upgrade", "")]
        if name == "connection" and rest:
            kept.append((name, ", ".join(rest)))
        elif name not in HOP:
            kept.append((name, value))
    return kept


def from_path(target: str) -> str:
    """The target without the authority that an absolute one begins with."""
    return target if target.startswith("/") else "/".join(["", *target.partition("://")[2].split("/")[1:]])


def frame(response: Head, *, head_only: bool) -> None:
    """How the response's body ends (RFC 9112 6.3)."""
    if head_only or response.status in (204, 304) or 100 <= response.status < 200:
        response.body = "none"
    elif response.body == "none":
        response.body = "eof"


def deadline_in(timeout_s: float | None) -> float | None:
    """When a wait that begins now is over, monotonic seconds."""
    return None if timeout_s is None else clock.monotonic() + timeout_s
