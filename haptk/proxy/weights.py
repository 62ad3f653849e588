"""A weight that somebody asks for at run time, an administrator or an agent: what it comes to, or why not."""

from __future__ import annotations

from haptk.proxy.tables import Backend, Server

MAX_WEIGHT = 256
DYNAMIC = ("roundrobin", "leastconn", "first", "random")


def asked(backend: Backend | None, server: Server, text: str) -> int | str:
    """The weight that `text` means (absolute, or a share of the configured one as `50%`); HAProxy's sentence when none."""
    digits = len(text) - len(text.lstrip("+-0123456789"))
    try:
        value = int(text[:digits])
    except ValueError:
        return "Empty weight string empty or preceded by garbage"
    rest = text[digits:]
    if rest == "%":
        if value < 0:
            return "Relative weight must be positive.\n"
        value = min(server.weight * value // 100, MAX_WEIGHT)
    elif not 0 <= value <= MAX_WEIGHT:
        return "Absolute weight can only be between 0 and 256 inclusive.\n"
    elif rest:
        return "Trailing garbage in weight string"
    balance = backend.balance if backend is not None else None
    static = balance is not None and not (balance.hash_consistent or balance.algorithm in DYNAMIC)
    if static and value not in (0, server.weight):
        return "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.\n"
    return value
