"""Connections of the reference proxy below HTTP: to servers, with PROXY headers, and relays that only copy bytes."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING

from haptk.core.acl import holds
from haptk.core.logline import Record
from haptk.io import clock
from haptk.proxy.reference_http import Bad, Gone, Wire
from haptk.proxy.reference_route import Farm, Seat
from haptk.proxy.tables import Backend

if TYPE_CHECKING:
    from haptk.proxy.reference_session import Session

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
RETRY_S = 1.0  # HAProxy's turn-around before the same server is tried again


def _until(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else clock.monotonic() + timeout_s


def reset(channel: socket.socket) -> None:
    """Make the coming close a reset."""
    with contextlib.suppress(OSError):
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def connect(session: Session, seat: Seat, back: Backend | None) -> Wire:
    """A new connection to a server, with the PROXY header where one is asked for. Raises OSError."""
    server = seat.server
    timeout = back.timeouts.connect if back else None
    if server.unix_path:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        channel.settimeout(timeout)
        channel.connect(server.unix_path)
    else:
        port = server.port or session.dst_port + server.port_offset
        host = session.dst if server.host == "0.0.0.0" and session.dst else server.host
        channel = socket.create_connection((host, port), timeout)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(channel)
    if server.send_proxy == 1:
        wire.send(proxy_v1(session), timeout)
    elif server.send_proxy == 2:
        wire.send(proxy_v2(session), timeout)
    return wire


def proxy_v1(session: Session) -> bytes:
    """The text form of the PROXY header for this client."""
    if not session.src:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in session.src else "TCP4"
    return f"PROXY {family} {session.src} {session.dst} {session.src_port} {session.dst_port}\r\n".encode()


def proxy_v2(session: Session) -> bytes:
    """The binary form."""
    if not session.src:
        return SIGNATURE + b"\x20\x00\x00\x00"
    source, target = ipaddress.ip_address(session.src), ipaddress.ip_address(session.dst)
    data = source.packed + target.packed + session.src_port.to_bytes(2, "big") + session.dst_port.to_bytes(2, "big")
    family = b"\x21" if source.version == 6 else b"\x11"
    return SIGNATURE + b"\x21" + family + len(data).to_bytes(2, "big") + data


def read_proxy_header(session: Session) -> None:
    """Take the PROXY header (either version) from the beginning of the stream and believe it. Raises Bad or Gone."""
    wire = session.client
    until = _until(session.front.timeouts.client)
    while len(wire.data) < 16 and not wire.data.endswith(b"\r\n"):
        if not SIGNATURE.startswith(wire.data[:12]) and not b"PROXY ".startswith(wire.data[:6]):
            raise Bad("no PROXY header")
        if not wire.fill(until):
            raise Gone("no PROXY header")
    if wire.data.startswith(SIGNATURE):
        _read_v2(session, until)
        return
    while b"\r\n" not in wire.data[:108]:
        if len(wire.data) >= 108:
            raise Bad("a PROXY header without an end")
        if not wire.fill(until):
            raise Gone("no PROXY header")
    line, wire.data = wire.data.split(b"\r\n", 1)
    words = line.decode("latin-1").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise Bad("a PROXY header that is none")
    _believe(session, words[2], words[4], words[3], words[5])


def _read_v2(session: Session, until: float | None) -> None:
    wire = session.client
    size = 16 + int.from_bytes(wire.data[14:16], "big")
    while len(wire.data) < size:
        if not wire.fill(until):
            raise Gone("half a PROXY header")
    header, wire.data = wire.data[:size], wire.data[size:]
    if header[12] >> 4 != 2 or header[12] & 15 > 1:
        raise Bad("a PROXY header of an unknown version")
    width = {0x11: 4, 0x21: 16}.get(header[13], 0)
    if header[12] & 15 == 0 or not width:
        return  # LOCAL, or a family that says nothing about addresses
    if size < 16 + 2 * width + 4:
        raise Bad("a PROXY header that is too short")
    places = header[16:]
    ports = places[2 * width : 2 * width + 4]
    source, target = (str(ipaddress.ip_address(places[at : at + width])) for at in (0, width))
    _believe(session, source, str(int.from_bytes(ports[:2], "big")), target, str(int.from_bytes(ports[2:], "big")))


def _believe(session: Session, source: str, source_port: str, target: str, target_port: str) -> None:
    try:
        session.src, session.dst = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(target))
        session.src_port, session.dst_port = int(source_port), int(target_port)
    except ValueError:
        raise Bad("a PROXY header with addresses that are none") from None


# -- relays without heads -----------------------------------------------------------------------------------------


def relay_both(session: Session, wire: Wire, idle_s: float | None) -> None:
    """Copy both ways until both sides have ended, one broke, or nothing moved for `idle_s`."""
    client = session.client
    pairs = {id(client): (client, wire), id(wire): (wire, client)}
    open_ends = {id(client), id(wire)}
    for source, target in ((wire, client), (client, wire)):
        if source.data:
            target.send(source.data, idle_s)
            source.data = b""
    with contextlib.suppress(Gone, TimeoutError):
        while open_ends:
            ready = [w for w in client.readable([wire], _until(idle_s)) if id(w) in open_ends]
            if not ready:
                return
            for source in ready:
                target = pairs[id(source)][1]
                if source.fill(_until(idle_s)):
                    target.send(source.data, idle_s)
                    source.data = b""
                else:
                    open_ends.discard(id(source))
                    with contextlib.suppress(OSError):
                        target.socket.shutdown(socket.SHUT_WR)


def relay_tcp(session: Session) -> None:
    """`mode tcp`: one server for the whole connection."""
    record = Record(accepted_s=session.accepted_s, mode="tcp")
    facts = record.facts = session.facts(None)
    began = clock.monotonic()
    index = next(
        (rule.target for rule in session.front.rules if rule.kind == "use_backend" and holds(rule.condition, facts)),
        session.front.default_backend,
    )
    record.flags = "SC--"
    if index >= 0:
        _relay_tcp_to(session, session.image.farms[index], record)
    record.total_ms = round((clock.monotonic() - began) * 1000)
    record.request_s = session.accepted_s
    session.log(record)


def _relay_tcp_to(session: Session, farm: Farm, record: Record) -> None:
    back = farm.backend
    record.facts.backend = back.name
    avoid: Seat | None = None
    for attempt in range(back.retries + 1):
        seat = avoid if avoid is not None and not back.redispatch else farm.choose(record.facts, avoid)
        if seat is None:
            return
        try:
            wire = connect(session, seat, back)
        except OSError:
            avoid = seat
            record.retries = attempt + 1
            if not back.redispatch and attempt < back.retries:
                clock.sleep(min(RETRY_S, back.timeouts.connect or RETRY_S))
            continue
        record.server, record.flags = seat.server.name, "----"
        with farm.changed:
            seat.sessions += 1
        try:
            limits = back.timeouts
            relay_both(session, wire, limits.tunnel or limits.server or session.front.timeouts.client)
            record.bytes_down, record.bytes_up = wire.received, session.client.received
        finally:
            with farm.changed:
                seat.sessions -= 1
            wire.close()
        return
