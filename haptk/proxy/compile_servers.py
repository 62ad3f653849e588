"""Servers and their checks for the tables: addresses resolved, cookies computed, intervals and limits filled in."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from haptk.core.xxh64 import xxh64
from haptk.formats.haproxy_cfg import Section, units
from haptk.proxy import compile_checks
from haptk.proxy.tables import (
    AgentPlan,
    Backend,
    CheckPlan,
    CookieRule,
    NameServer,
    Resolvers,
    Server,
    Source,
)

if TYPE_CHECKING:
    from haptk.formats.haproxy_cfg.units import Address
    from haptk.proxy.compile import _Compiler

_COPIED = (
    "weight", "maxconn", "minconn", "maxqueue", "backup", "disabled", "slowstart_s", "on_marked_down", "on_marked_up",
    "send_proxy", "track", "observe", "error_limit", "on_error", "redir", "pool_max_conn", "pool_purge_delay_s",
    "init_addr", "max_reuse", "non_stick", "resolvers", "resolve_prefer", "resolve_net",
)  # fmt: skip


def dynamic_cookie(key: str, host: str, port: int) -> str:
    """The value HAProxy gives a server under `cookie ... dynamic`: XXH64 of key, address bytes and port, in hex."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    data = key.encode("utf-8", "surrogateescape") + socket.inet_pton(family, host) + port.to_bytes(4, "big")
    return f"{xxh64(data):016x}"


def servers(work: _Compiler, section: Section, cookie: CookieRule | None, mode: str) -> tuple[Server, ...]:
    """All servers of a section; problems go to the compiler."""
    found: list[Server] = []
    used = {record["id"] for record in section.get("servers", ()) if "id" in record}
    next_id = 1
    for record in section.get("servers", ()):
        number = record.get("id", 0)
        while not number:
            if next_id not in used:
                number = next_id
            next_id += 1
        server = _server(work, section, record, cookie, number)
        if server is not None:
            found.append(server)
    return tuple(found)


def _server(
    work: _Compiler, section: Section, record: dict[str, Any], cookie: CookieRule | None, number: int
) -> Server | None:
    place: Address = record["place"]
    host = _resolved(work, record, place)
    if host is None:
        return None
    if (
        not place.unix_path
        and not place.port
        and not place.port_offset
        and place.has_port
        and place.port_offset is None
    ):
        work.error(record["where"], f"server {record['name']}: port 0 is no port")
        return None
    value = record.get("cookie")
    if cookie is not None and cookie.dynamic and not value and host:
        value = dynamic_cookie(cookie.dynamic_key, host, place.port)
    source = _source(record.get("source", section.get("source", "")))
    return Server(
        name=record["name"], host=host, port=place.port, id=number, unix_path=place.unix_path,
        forced_id="id" in record,
        hostname="" if host == place.host else place.host, port_offset=place.port_offset or 0, cookie=value,
        source=source, allow_dup_ip="allow-dup-ip" in record.get("resolve_opts", ()),
        check=_check(work, section, record, host, source), agent=_agent(work, section, record, host, source),
        **_elsewhere(work, record), **{key: record[key] for key in _COPIED if key in record},
    )  # fmt: skip


def resolvers(work: _Compiler) -> tuple[Resolvers, ...]:
    """Every `resolvers` section; a server that names one that is not there is an error."""
    found = tuple(_resolvers(work, one) for one in work.config.sections if one.kind == "resolvers")
    names = [one.name for one in found]
    for section in work.back_sections:
        for record in section.get("servers", ()):
            wanted = record.get("resolvers")
            if wanted and wanted not in names:
                there = ", ".join(names) or "none"
                work.error(
                    record["where"], f"server {record['name']}: no resolvers section {wanted!r}; there are {there}"
                )
    return found


def _resolvers(work: _Compiler, section: Section) -> Resolvers:
    servers = [
        NameServer(each["host"], each["port"], each["tcp"], each["name"]) for each in section.get("nameservers", ())
    ]
    if section.get("system"):
        servers += _system_nameservers(work, section)
    if not servers:
        work.error(section.where, f"{section.title}: it has no nameserver")
    holds, timeouts = section.get("holds", {}), section.get("timeouts", {})
    return Resolvers(
        section.name, tuple(servers), valid_s=holds.get("valid", 10.0) or 0.1, resolve_s=timeouts.get("resolve", 1.0),
        retry_s=timeouts.get("retry", 1.0), retries=section.get("retries", 3), payload=section.get("payload", 512),
        holds=tuple((what, holds[what]) for what in holds if what != "valid"),
    )  # fmt: skip


def _system_nameservers(work: _Compiler, section: Section) -> list[NameServer]:
    """`parse-resolv-conf`: what /etc/resolv.conf names now (resolv.conf(5))."""
    try:
        text = work.read_file("/etc/resolv.conf").decode("utf-8", "replace")
    except OSError as error:
        work.error(section.get("system"), f"parse-resolv-conf: /etc/resolv.conf: {error.strerror}")
        return []
    words = [line.split() for line in text.splitlines()]
    return [
        NameServer(line[1].partition("%")[0], name=line[1])
        for line in words
        if len(line) > 1 and line[0] == "nameserver"
    ]


def _source(text: str) -> Source | None:
    if not text:
        return None
    place = units.address(text, "source", port_range=True)
    low, high = place.ports
    return Source(place.host, low, high)


def _resolved(work: _Compiler, record: dict[str, Any], place: Address) -> str | None:
    """The address of a server: itself, what its name resolves to, or what init-addr says; None after an error."""
    if place.unix_path:
        return ""
    if not place.host:
        return "0.0.0.0"
    if place.family and not any(char.isalpha() for char in place.host.partition("%")[0] if ":" not in place.host):
        return place.host
    if place.host.startswith("_"):
        work.error(
            record["where"],
            f"server {record['name']}: {place.host} names a service (SRV), which HAProxy looks up and haptk does not; "
            "accepted are names with addresses",
        )
        return None
    methods = record.get("init_addr", ("last", "libc"))
    for method in methods:
        if method == "libc":
            address = work.resolve(place.host)
            if address:
                return address
        elif method == "none":
            work.warn(
                record["where"], f"server {record['name']}: {place.host} does not resolve yet; it starts out of service"
            )
            return ""
        elif method != "last":
            return str(method)
    work.error(
        record["where"],
        f"server {record['name']}: {place.host} does not resolve; 'init-addr last,libc,none' starts without it",
    )
    return None


def _elsewhere(work: _Compiler, record: dict[str, Any]) -> dict[str, Any]:
    """Where checks and the agent are when that is not the server's own address and port."""
    addr: Address | None = record.get("check_addr")
    named = record.get("agent_addr", "")
    return {
        "check_host": (addr.unix_path or addr.host) if addr else "",
        "check_port": record.get("check_port") or (addr.port if addr else 0) or 0,
        "agent_host": (work.resolve(named) or "") if named else "",
    }


def _agent(
    work: _Compiler, section: Section, record: dict[str, Any], host: str, source: Source | None
) -> AgentPlan | None:
    """The agent of one server; None without one."""
    if not record.get("agent_check"):
        return None
    if record.get("track"):
        work.error(record["where"], f"server {record['name']}: 'agent-check' and 'track' exclude each other")
        return None
    port = record.get("agent_port", 0)
    if not port:
        work.warn(record["where"], f"server {record['name']}: agent-check without agent-port: the agent is not asked")
        return None
    named = record.get("agent_addr", "")
    place = (work.resolve(named) if named else "") or host
    if named and place == host and work.resolve(named) is None:
        work.error(record["where"], f"server {record['name']}: agent-addr: {named} does not resolve")
        return None
    inter = record.get("agent_inter_s") or record.get("inter_s") or 2.0
    timeouts = {name: value for name, value in section.get("timeouts", {}).items() if value > 0}
    connect, check = timeouts.get("connect"), timeouts.get("check")
    send = record.get("agent_send", "").encode("utf-8", "surrogateescape")
    return AgentPlan(
        host=place, port=port, inter_s=inter, send=send, timeout_s=check,
        connect_timeout_s=connect if check else None, source=source,
    )  # fmt: skip


def _check(
    work: _Compiler, section: Section, record: dict[str, Any], host: str, source: Source | None
) -> CheckPlan | None:
    """How one server is checked; None when it is not (or follows another one)."""
    if not record.get("check"):
        return None
    if record.get("track"):
        work.error(record["where"], f"server {record['name']}: 'check' and 'track' exclude each other")
        return None
    place: Address = record["place"]
    addr: Address | None = record.get("check_addr")
    port = record.get("check_port") or (addr.port if addr else 0) or place.port
    kind = section.get("check_kind", "tcp")
    steps = compile_checks.steps(work, section)
    if not port and not place.unix_path and not all(step.port for step in steps if step.action == "connect"):
        work.error(record["where"], f"server {record['name']}: it has neither a port nor a port for its check")
        return None
    inter_s = record.get("inter_s", 2.0)
    timeouts = {name: value for name, value in section.get("timeouts", {}).items() if value > 0}
    # HAProxy looks at `timeout connect` only where `timeout check` leaves time for the rest
    connect_s = timeouts.get("connect") if "check" in timeouts else None
    return CheckPlan(
        kind=kind,
        host=(addr.unix_path or addr.host or host) if addr else place.unix_path or host,
        port=port,
        inter_s=inter_s,
        fastinter_s=record.get("fastinter_s"),
        downinter_s=record.get("downinter_s"),
        rise=record.get("rise", 2),
        fall=record.get("fall", 3),
        connect_timeout_s=connect_s,
        timeout_s=timeouts.get("check"),
        steps=steps,
        disable_on_404=kind == "http" and bool(section.get("disable_on_404")),
        send_proxy=_check_header(record, addr),
        init_state=record.get("init_state", "up"),
        source=source,
        send_state=kind == "http" and bool(section.get("check_send_state")),
    )


def check_template(work: _Compiler, section: Section) -> CheckPlan | None:
    """How the section checks its servers, whatever their own lines say; for servers that are added at run time."""
    place = units.address("127.0.0.1:1", "server")
    return _check(work, section, {"name": "", "where": section.where, "check": True, "place": place}, "127.0.0.1", None)


def _check_header(record: dict[str, Any], addr: Address | None) -> int:
    """The version of the PROXY header of a check: with `check-send-proxy`, or where checks go to the service itself."""
    version: int = record.get("send_proxy", 0)
    if record.get("check_send_proxy"):
        return version or 1
    return 0 if addr or record.get("check_port") else version


def check_tracks(work: _Compiler, backends: tuple[Backend, ...]) -> None:
    """Every `track` names a checked server (perhaps over others that track), without a circle."""
    by_name = {f"{backend.name}/{server.name}": server for backend in backends for server in backend.servers}
    for backend in backends:
        for server in backend.servers:
            if server.track:
                _follow(work, backend, server, by_name)


def _follow(work: _Compiler, backend: Backend, server: Server, by_name: dict[str, Server]) -> None:
    seen = {f"{backend.name}/{server.name}"}
    current, home = server, backend.name
    while current.track:
        target = current.track if "/" in current.track else f"{home}/{current.track}"
        if target not in by_name:
            work.error(backend.where, f"server {server.name}: there is no server {target!r} to track")
            return
        if target in seen:
            work.error(backend.where, f"server {server.name}: tracking runs in a circle over {target}")
            return
        seen.add(target)
        home, current = target.partition("/")[0], by_name[target]
    if current.check is None:
        work.error(backend.where, f"server {server.name}: the server it tracks, {target}, has no check")
