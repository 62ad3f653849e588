"""`show sess`, `shutdown session` and `show fd`: who is connected, in HAProxy 2.6's lines.

HAProxy prints much of its own inside (addresses of structures, flag words); what has no meaning here is left out of the
long forms, and is 0 in the one-line form, where scripts count on the order of the fields. As there, a client that
waits between two requests has no line, and an id is the address of a structure, good as long as the session lasts.
"""

from __future__ import annotations

import re
from datetime import datetime

from haptk.proxy.glance import HEAD, LINGER, PROXY, QUEUE, RELAY, REPLY, RETRY, SERVICE, Glance
from haptk.proxy.listeners import shown_path
from haptk.proxy.runtime.world import Proxy, Visitor, World

# HAProxy's numbers for the state of one side of a stream, and its names for them.
INI, QUE, TAR, CON, EST, CLO = 0, 2, 3, 5, 8, 10
STATES = {INI: "INI", QUE: "QUE", TAR: "TAR", CON: "CON", EST: "EST", CLO: "CLO"}
# Its analysers: of a request under way, of an answer that is awaited (with or without rules that learn), and of one
# that is going through.
AN_REQUEST, AN_AWAITED, AN_LEARNS, AN_GOING = 0x8000, 0x1400000, 0x800000, 0x4000000
METHODS = (8, 1, 2, 3, 4, 5, 0, 6, 7, 8)  # glance.METHODS in HAProxy's numbers
NEVER = "<NEVER>"


def human(ms: int) -> str:
    """A time as HAProxy writes it, in its two largest units: `49s`, `1m5s`, `2d3h`; "" for none (less than 0)."""
    if ms < 0:
        return ""
    left, parts = ms // 1000, []
    for size, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if left >= size:
            parts.append(f"{left // size}{name}")
            left %= size
    if left or not parts:
        parts.append(f"{left}s")
    return "".join(parts[:2])


def is_stream(one: Glance) -> bool:
    """Whether HAProxy would have a stream for it: a request, or a relay without requests."""
    return one.frontend >= 0 and (one.open or one.phase in (QUEUE, RELAY, REPLY, RETRY, SERVICE))


class _View:
    """Names and numbers of what a glance points to."""

    def __init__(self, world: World, one: Glance) -> None:
        self.one = one
        self.front = world.tables.frontends[one.frontend]
        self.front_proxy = next(proxy for proxy in world.proxies if proxy.frontend is self.front)
        self.back_proxy: Proxy | None = None
        if one.backend >= 0:
            back = world.tables.backends[one.backend]
            self.back_proxy = next(proxy for proxy in world.proxies if proxy.backend is back)
        self.checked = world.health.servers[one.server] if one.server >= 0 else None
        self.bind = self.front.binds[one.bind] if one.bind < len(self.front.binds) else None
        self.learns = self.back_proxy is not None and bool(self.back_proxy.backend and self.back_proxy.backend.sticks)

    @property
    def proto(self) -> str:
        if not self.one.host:
            return "unix_stream"
        return "tcpv6" if ":" in self.one.host else "tcpv4"

    @property
    def source(self) -> str:
        """Where the client is."""
        return f"{self.one.host}:{self.one.port}" if self.one.host else f"unix:{self.one.bind + 1}"

    def server_side(self) -> int:
        one = self.one
        if one.phase == RELAY:
            return EST if one.connected else CON
        return {QUEUE: QUE, RETRY: TAR, SERVICE: EST, REPLY: CLO, LINGER: CLO}.get(one.phase, INI)

    def client_side(self) -> int:
        return CLO if self.one.phase == LINGER else EST

    def analysers(self) -> tuple[int, int]:
        one = self.one
        if one.tunnel or self.back_proxy is None:
            return 0, 0
        if one.phase != RELAY or not one.connected:
            return AN_REQUEST, 0
        return AN_REQUEST, AN_GOING if one.head_done else AN_AWAITED | (AN_LEARNS if self.learns else 0)

    def waits(self) -> tuple[str, str, str]:
        """What the time-out is for: reading from the client, reading from the server, connecting."""
        one = self.one
        left = human(one.quiet_ms)
        if one.phase == RELAY and one.connected:
            return (left if one.tunnel else ""), left, ""
        return "", "", left if one.phase in (QUEUE, RELAY, RETRY) else ""


def show(world: World, args: list[str]) -> str:
    """`show sess [all | ID]`."""
    wanted = pointer(args[0]) if args else 0
    if args[:1] == ["all"]:
        return "".join(_long(world, one) for one in _streams(world, names=True)) + _visitors(world, long=True)
    if wanted:
        found = [one for one in world.sessions(wanted=wanted, names=True) if is_stream(one)]
        return "".join(_long(world, one) for one in found) + "\n" if found else "Session not found.\n"
    return "".join(_short(world, one) for one in _streams(world)) + _visitors(world, long=False)


def shutdown(world: World, args: list[str]) -> str:
    """`shutdown session ID`."""
    wanted = pointer(args[0]) if args else 0
    if not wanted:
        return "Session pointer expected (use 'show sess').\n"
    found = world.sessions(wanted=wanted, end=True)
    return "" if found else "No such session (use 'show sess').\n"


def pointer(text: str) -> int:
    """The number at the beginning of a hexadecimal text, 0 without one."""
    found = re.match(r"(?:0[xX])?([0-9a-fA-F]{1,16})(?![0-9a-zA-Z])", text)
    return int(found[1], 16) if found else 0


def _streams(world: World, *, names: bool = False) -> list[Glance]:
    found = [one for one in world.sessions(names=names) if is_stream(one)]
    return sorted(found, key=lambda one: -one.age_ms)


def _short(world: World, one: Glance) -> str:
    view = _View(world, one)
    request, response = view.analysers()
    client, server, connect = view.waits()
    back = view.back_proxy.name if view.back_proxy else "<NONE>"
    target = view.checked.server.name if view.checked else "<none>"
    return (
        f"{one.id:#x}: proto={view.proto} src={view.source} fe={view.front.name} be={back} srv={target} ts=00 epoch=0 "
        f"age={human(one.age_ms)} calls=0 rate=0 cpu=0 lat=0 "
        f"rq[f=000000h,i={one.from_client},an={request:02x}h,rx={client},wx=,ax=] "
        f"rp[f=000000h,i={one.from_server},an={response:02x}h,rx={server},wx=,ax=] "
        f"scf=[{view.client_side()},0h,fd={one.fd}] scb=[{view.server_side()},0h,fd={one.server_fd}] "
        f"exp={human(one.quiet_ms)} rc={one.retries} c_exp={connect}\n"
    )


def _long(world: World, one: Glance) -> str:
    view = _View(world, one)
    began = datetime.fromtimestamp(world.wall() - one.age_ms / 1000).astimezone()
    _, _, connect = view.waits()
    mode, iid = view.front.mode, view.front_proxy.iid
    name = (view.bind.name if view.bind else "") or "?"
    local = f" addr={one.local_host}:{one.local_port}" if one.local_host else f" addr=unix:{one.bind + 1}"
    lines = [
        f"{one.id:#x}: [{began:%d/%b/%Y:%H:%M:%S.%f}] proto={view.proto} source={view.source}",
        f"  conn_retries={one.retries}, conn_exp={connect or NEVER} waiting={int(one.phase == QUEUE)}",
        f"  frontend={view.front.name} (id={iid} mode={mode}), listener={name} (id={one.bind + 1}){local}",
        *_target_lines(view),
        f"  task (exp={human(one.quiet_ms) or NEVER} age={human(one.age_ms)}) thread={one.worker + 1}",
    ]
    if mode == "http":
        lines.append(
            f"  txn meth={METHODS[one.method]} status={one.status or -1} req.st={_message(view, request=True)} "
            f"rsp.st={_message(view, request=False)}"
        )
    mux = "H1" if mode == "http" else "PASS"
    lines.append(f"  scf state={STATES[view.client_side()]} ctrl={view.proto} xprt=RAW mux={mux} fd={one.fd}")
    behind = f" xprt=RAW mux={mux} fd={one.server_fd} reused={int(one.reused)}" if one.server_fd >= 0 else ""
    lines.append(f"  scb state={STATES[view.server_side()]}{behind}")
    lines += [f"  req (total={one.bytes_in} i={one.from_client})", f"  res (total={one.bytes_out} i={one.from_server})"]
    return "\n".join(lines) + "\n"


def _target_lines(view: _View) -> list[str]:
    one, proxy = view.one, view.back_proxy
    if proxy is None or proxy.backend is None:
        return ["  backend=<NONE> (id=-1 mode=-)", "  server=<NONE> (id=-1)"]
    source = f" addr={one.source_host}:{one.source_port}" if one.source_host else ""
    lines = [f"  backend={proxy.name} (id={proxy.iid} mode={proxy.backend.mode}){source}"]
    if view.checked is None:
        return [*lines, "  server=<none> (id=0)"]
    place = shown_path(view.checked.server.unix_path) or f"{view.checked.host}:{view.checked.port}"
    return [*lines, f"  server={view.checked.server.name} (id={view.checked.server.id}) addr={place}"]


def _message(view: _View, *, request: bool) -> str:
    """How far HAProxy would say that a message is."""
    one = view.one
    if request:
        return "MSG_DONE" if one.request_done else "MSG_DATA"
    if one.response_done and one.head_done:
        return "MSG_DONE"
    return "MSG_DATA" if one.head_done else "MSG_RPBEFORE"


def _visitors(world: World, *, long: bool) -> str:
    """The clients of the runtime API itself, which HAProxy lists too."""
    return "".join(_visitor(world, one, long=long) for one in world.visitors)


def _visitor(world: World, one: Visitor, *, long: bool) -> str:
    age = human(max(0, int((world.now - one.since) * 1000)))
    if long:
        began = datetime.fromtimestamp(world.wall() - (world.now - one.since)).astimezone()
        return (
            f"{one.id:#x}: [{began:%d/%b/%Y:%H:%M:%S.%f}] proto=unix_stream source=unix:1\n"
            f"  frontend=GLOBAL (id=0 mode=tcp), listener=? (id=1) addr=unix:1\n"
            f"  backend=<NONE> (id=-1 mode=-)\n  server=<NONE> (id=-1)\n  task (age={age})\n"
        )
    return (
        f"{one.id:#x}: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 age={age} calls=1 "
        f"rate=0 cpu=0 lat=0 rq[f=000000h,i=0,an=00h,rx=,wx=,ax=] rp[f=000000h,i=0,an=00h,rx=,wx=,ax=] "
        f"scf=[8,0h,fd={one.fd}] scb=[8,0h,fd=-1] exp= rc=0 c_exp=\n"
    )


# -- descriptors ------------------------------------------------------------------------------------------------------


def descriptors(world: World, args: list[str]) -> str:
    """`show fd [NUMBER]`: listening sockets and connections. Each worker (`tmask`) has numbers of its own."""
    wanted = -1
    if args:
        found = re.match(r"\d+", args[0])
        if not found:
            return ""
        wanted = int(found[0])
    rows: list[tuple[int, int, str]] = []
    for opened in world.adjust.listeners.opened():
        names = [one.name for one in world.tables.frontends if opened.bind in one.binds]
        state = "PAU" if opened.paused else "RDY"
        rows.append((opened.fd, opened.worker, f"l.st={state} fe={names[0] if names else '?'} {_family(opened.bind)}"))
    for one in world.sessions():
        rows += _connections(world, one)
    chosen = sorted(row for row in rows if wanted in (-1, row[0]))
    return "".join(f"{fd:7} : tmask={1 << worker:#x} {text}\n" for fd, worker, text in chosen)


def _family(bind: object) -> str:
    path, host, port = (getattr(bind, key) for key in ("unix_path", "host", "port"))
    return "fam=unix" if path else f"fam={'ipv6' if ':' in host else 'ipv4'} lport={port}"


def _connections(world: World, one: Glance) -> list[tuple[int, int, str]]:
    rows = []
    if one.frontend >= 0:
        view = _View(world, one)
        family = _family(view.bind) if view.bind else "fam=?"
        remote = f" rport={one.port}" if one.host else ""
        mux = "H1" if view.front.mode == "http" else "PASS"
        idle = " idle" if one.phase in (HEAD, PROXY) else ""
        rows.append((one.fd, one.worker, f"back=0 {family}{remote} fe={view.front.name} mux={mux}{idle}"))
    if one.server_fd >= 0 and one.server >= 0:
        checked = world.health.servers[one.server]
        place = "fam=unix" if checked.server.unix_path else f"fam={'ipv6' if ':' in checked.host else 'ipv4'}"
        idle = "" if one.frontend >= 0 and one.phase == RELAY else " idle"
        rows.append((one.server_fd, one.worker, f"back=1 {place} rport={checked.port} sv={checked.name}{idle}"))
    return rows
