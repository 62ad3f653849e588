"""What a drawn configuration gets besides: threads, queues, peers, resolvers, checks, extra sockets, keep-alive modes."""

from __future__ import annotations

import random

EVERYWHERE = (
    "option http-keep-alive", "option http-server-close", "option httpclose", "no option http-keep-alive", "option tcp-smart-connect",
    "option splice-auto", "option clitcpka", "option srvtcpka", "option dontlog-normal", "option log-health-checks",
)  # fmt: skip
BACKENDS = (
    "option httpchk", "http-check expect status 200-399", "balance hdr(host)", "balance random(2)", "hash-balance-factor 150",
    "option allbackups", "http-send-name-header X-Server", "default-server inter 1s fall 2 rise 1", "default-server slowstart 10s",
    "http-request set-header X-Conns %[be_conn(b0)]", "http-after-response set-header X-After 1", "option http-use-htx",
)  # fmt: skip
FRONTENDS = (
    "option socket-stats", "option http-ignore-probes", "backlog 64", "maxconn 20", "option tcplog", "http-request set-var(txn.a) path",
    "http-after-response add-header X-Last %[status]", "monitor-uri /alive", "stats uri /admin", "rate-limit sessions 1000",
    "option http-no-delay", "option contstats", "http-request deny if HTTP_URL_ABS", "http-request tarpit if { path /tar }",
)  # fmt: skip
QUEUES = (
    "default-server maxconn 1", "default-server maxconn 2 maxqueue 20", "default-server maxconn 1 minconn 1", "timeout queue 2s",
    "default-server maxconn 1 maxqueue 0",
)  # fmt: skip


def widen(rng: random.Random, sections: list[list[str]]) -> None:
    """Add lines to the sections in place."""
    sections[0] = [line for line in sections[0] if not line.startswith("nbthread")]
    sections[0].append(f"nbthread {rng.choice([1, 1, 2, 4])}")
    peers = rng.random() < 0.3
    for section in sections[1:]:
        http = "mode http" in section
        name = section[0].split()[0]
        if rng.random() < 0.15 and http:
            section.append(rng.choice(EVERYWHERE))
        if name in ("backend", "listen"):
            _backend(rng, section, http, peers)
        if name in ("frontend", "listen") and rng.random() < 0.3 and http:
            section.append(rng.choice(FRONTENDS))
        if name in ("frontend", "listen") and rng.random() < 0.1:
            section.insert(3, f"bind unix@{{dir}}/{section[0].split()[1]}.sock")
    if peers:
        sections.append(["peers mates", "peer {host} 127.0.0.1:{pe0}", "peer other 127.0.0.1:{dead20}"])
    if rng.random() < 0.1:
        sections.append(
            ["resolvers names", "nameserver n 127.0.0.1:{dead21}", "timeout resolve 200ms", "hold valid 1s"]
        )


def _backend(rng: random.Random, section: list[str], http: bool, peers: bool) -> None:
    at = next((n for n, line in enumerate(section) if line.startswith("server ")), len(section))
    if rng.random() < 0.3 and http:
        section.insert(at, rng.choice(BACKENDS))
    if rng.random() < 0.3:
        section.insert(at, rng.choice(QUEUES))
    for n, line in enumerate(section):
        if peers and line.startswith("stick-table "):
            section[n] = line + " peers mates"


def crowd(
    rng: random.Random, index: int, fronts: list[dict[str, object]]
) -> tuple[dict[str, object], dict[str, object]] | None:
    """A session of several clients at once, each with one request: what queues are for."""
    plain = [n for n, front in enumerate(fronts) if front["mode"] == "http" and not front["proxy"]]
    if not plain:
        return None
    count, plans, clients = rng.choice([3, 6, 10]), {}, []
    for n in range(count):
        plan = f"{index}.c{n}"
        ok = ["send", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
        plans[plan] = [{"early": False, "steps": [["pause", rng.choice([5, 20, 40])], ok], "end": "keep"}]
        clients.append(["send", f"GET /crowd HTTP/1.1\r\nHost: a\r\nX-Plan: {plan}\r\n\r\n"])
    return {"front": rng.choice(plain), "methods": ["GET"], "crowd": clients, "steps": [], "raw": False}, plans
