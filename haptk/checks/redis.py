"""`redis`: store a value, read it back, delete it, and look at the replication (RESP2, redis.io/docs/reference/protocol-spec).

A replica is read-only, so on one only the replication is judged: cut off from its master it serves old sessions. A server
that is loading its data, or whose disk stopped its writes (MISCONF), is up for a connect and useless for sessions.
"""

from __future__ import annotations

import re

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.checks.lines import Denied, Lines, converse, fresh_value, shown
from haptk.io.exchange import Exchange, Failed
from haptk.report.nagios import State

FIGURES = ("time", "connections", "memory", "replicas", "lag", "uptime")
PORT = 6379
EXPIRE_S = 60
DEPTH_MAX, ITEMS_MAX = 8, 1024
Reply = bytes | int | None | list["Reply"]


class Credentials:
    """A user and a password that never show in a representation."""

    def __init__(self, user: str = "", password: str = "") -> None:
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"


def redis(
    host: str,
    port: int,
    timeout_s: float,
    limits: Limits,
    *,
    credentials: Credentials | None = None,
    role: str = "any",
    read_only: bool = False,
) -> Check:
    """A check of one redis. `role` is any, master or replica: what it has to be."""

    def talk(exchange: Exchange, lines: Lines) -> Finding:
        if credentials is not None and credentials.password:
            words = [credentials.user] if credentials.user else []
            ask(exchange, lines, "AUTH", *words, credentials.password)
        info = read_info(exchange, lines)
        # A node of a cluster owns some of the keys only, and would send the check elsewhere with MOVED.
        writable = info.get("role") == "master" and info.get("cluster_enabled") != "1"
        if writable and not read_only:
            round_trip(exchange, lines)
        else:
            ask(exchange, lines, "PING")
        return of_info(exchange.where, info, limits, role, wrote=writable and not read_only)

    where = host if host.startswith("/") else f"{host}:{port}"
    return Check("REDIS", where, timeout_s, lambda timeout_s: converse(host, port, timeout_s, limits, talk))


def command(*words: str | bytes) -> bytes:
    """A request as an array of counted strings: nothing in a word can end it."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_reply(lines: Lines, depth: int = 0) -> Reply:
    """One reply; Failed for an error reply, with the server's words."""
    line = lines.line()
    kind, rest = line[:1], line[1:]
    where = lines.exchange.where
    if kind == b"-":
        failure = Denied if rest.startswith((b"NOAUTH", b"WRONGPASS", b"NOPERM")) else Failed
        raise failure("L7STS", f"{where} answered with an error: {shown(rest)}")
    if kind == b"+":
        return rest
    if kind in (b":", b"$", b"*") and re.fullmatch(rb"-?[0-9]{1,18}", rest) and depth < DEPTH_MAX:
        count = int(rest)
        if kind == b"*" and count > ITEMS_MAX:
            raise Failed("L7RSP", f"{where} announced {count} items")
        if kind == b":":
            return count
        if count < 0:
            return None
        return lines.exactly(count) if kind == b"$" else [read_reply(lines, depth + 1) for _ in range(count)]
    raise Failed("L7RSP", f"{where} does not speak redis' protocol: {shown(line)}")


def ask(exchange: Exchange, lines: Lines, *words: str | bytes) -> Reply:
    """Send one command, return its reply."""
    exchange.send(command(*words))
    return read_reply(lines)


def read_info(exchange: Exchange, lines: Lines) -> dict[str, str]:
    """INFO as a mapping."""
    reply = ask(exchange, lines, "INFO")
    if not isinstance(reply, bytes):
        raise Failed("L7RSP", f"{exchange.where} answered INFO with something else")
    pairs = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if not line.startswith("#"))
    found = {name: value for name, colon, value in pairs if colon}
    if found.get("loading") == "1":
        raise Failed("L7STS", f"{exchange.where} is still loading its data ({found.get('loading_loaded_perc', '?')} %)")
    return found


def round_trip(exchange: Exchange, lines: Lines) -> None:
    """SET, GET, DEL; Failed says which of them went wrong."""
    value = fresh_value()
    key = b"haptk-check-" + value[:12]
    ask(exchange, lines, "SET", key, value, "EX", str(EXPIRE_S))
    back = ask(exchange, lines, "GET", key)
    if back != value:
        lost = "has lost a value that it stored just before" if back is None else "gave back another value"
        raise Failed("L7RSP", f"{exchange.where} {lost}")
    if ask(exchange, lines, "DEL", key) != 1:
        raise Failed("L7STS", f"{exchange.where} did not delete a value")


def of_info(where: str, info: dict[str, str], limits: Limits, role: str, *, wrote: bool) -> Finding:
    """Judge role and replication."""

    def number(name: str) -> float | None:
        text = info.get(name, "")
        return float(text) if text.isdecimal() else None

    is_master = info.get("role") == "master"
    is_role = "master" if is_master else "replica"
    used, limit = number("used_memory"), number("maxmemory")
    perf = [
        limits.perf("connections", number("connected_clients"), minimum=0, maximum=number("maxclients")),
        limits.perf("memory", used, "B", minimum=0, maximum=limit or None),
        limits.perf("uptime", number("uptime_in_seconds"), "s"),
    ]
    state = State.OK
    did = "stored, returned and deleted a value" if wrote else "answers"
    text = f"{where} {did}, {is_role}, version {info.get('redis_version', 'unknown')}"
    if is_master:
        perf.append(limits.perf("replicas", number("connected_slaves"), minimum=0))
    else:
        perf.append(limits.perf("lag", number("master_last_io_seconds_ago"), "s", minimum=0))
        if info.get("master_link_status") != "up":
            state = State.CRITICAL
            text += f", cut off from its master {info.get('master_host', '')} for {info.get('master_link_down_since_seconds', '?')} s"
    if role not in ("any", is_role):
        state = State.CRITICAL
        text += f", but it should be a {role}"
    return conclude(state, text, perf, facts={"role": is_role})
