"""Connections of the reference proxy below HTTP: to servers, with PROXY headers, and relays that only copy bytes."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from haptk.core.acl import holds
from haptk.core.logline import Record
from haptk.core.sticktable import key_of_address
from haptk.io import clock
from haptk.proxy import reference_proxyproto
from haptk.proxy.listeners import set_keepalive
from haptk.proxy.reference_http import Gone, Wire
from haptk.proxy.reference_route import Farm, Seat
from haptk.proxy.tables import Backend, Server

if TYPE_CHECKING:
    from haptk.proxy.reference_session import Session

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
        host, port = seat.place
        if not host:
            raise ConnectionRefusedError(f"server {server.name} has no address yet")
        port = port or session.dst_port + server.port_offset
        host = session.dst if host in ("0.0.0.0", "::") and session.dst else host
        channel = _reach(server, host, port, timeout)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if back is not None and back.tcpka:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            set_keepalive(channel, back.tcpka)
        if back is not None and back.nolinger:
            reset(channel)
    wire = Wire(channel)
    if server.send_proxy:
        write = reference_proxyproto.text if server.send_proxy == 1 else reference_proxyproto.binary
        wire.send(write(session.src, session.src_port, session.dst, session.dst_port), timeout)
    return wire


def _reach(server: Server, host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect from the configured source; of a range of ports each is tried."""
    source = server.source
    if source is None or (":" in source.host) != (":" in host):
        return socket.create_connection((host, port), timeout)
    failed: OSError = OSError("no port")
    for own in range(source.low, source.high + 1):
        try:
            return socket.create_connection((host, port), timeout, source_address=(source.host, own))
        except OSError as error:
            failed = error
    raise failed


def read_proxy_header(session: Session) -> None:
    """Take the PROXY header (either version) from the beginning of the stream and believe it. Raises Bad or Gone."""
    wire = session.client
    until = _until(session.front.timeouts.client)
    while (found := reference_proxyproto.parse(wire.data)) is None:
        if not wire.fill(until):
            raise Gone("no PROXY header")
    wire.data = wire.data[found.size :]
    if found.source and found.target:
        (session.src, session.src_port), (session.dst, session.dst_port) = found.source, found.target


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
        session.bill.backend(index)
        _relay_tcp_to(session, session.image.farms[index], record)
    record.total_ms = round((clock.monotonic() - began) * 1000)
    record.request_s = session.accepted_s
    session.log(record)


def _relay_tcp_to(session: Session, farm: Farm, record: Record) -> None:
    back = farm.backend
    record.facts.backend = back.name
    avoid: Seat | None = None
    stuck, pending = _stuck(session, farm)
    for attempt in range(back.retries + 1):
        seat = avoid if avoid is not None and not back.redispatch else stuck or farm.choose(record.facts, avoid)
        stuck = None
        if seat is None:
            return
        session.bill.slot(seat, balanced=seat is not avoid)
        session.bill.attempt(reused=False)
        try:
            wire = connect(session, seat, back)
        except OSError:
            session.bill.free(seat)
            avoid = seat
            record.retries = attempt + 1
            if attempt < back.retries:
                session.bill.again(elsewhere=bool(back.redispatch))
            if not back.redispatch and attempt < back.retries:
                clock.sleep(min(RETRY_S, back.timeouts.connect or RETRY_S))
            continue
        record.server, record.flags = seat.server.name, "----"
        for name, key in pending:
            if not seat.server.non_stick:
                session.image.stores[name].learn(key, seat.server.id, seat.server.name.encode())
        with farm.changed:
            farm.seated(seat, 1)
        try:
            limits = back.timeouts
            session.busy_wire = wire
            relay_both(session, wire, limits.tunnel or limits.server or session.front.timeouts.client)
            record.bytes_down, record.bytes_up = wire.received, session.client.received
        finally:
            session.busy_wire = None
            with farm.changed:
                farm.seated(seat, -1)
            session.bill.free(seat)
            wire.close()
        return


def _stuck(session: Session, farm: Farm) -> tuple[Seat | None, list[tuple[str, bytes]]]:
    """The server that the stick tables know for this client, and what is to be stored once one is connected."""
    found: Seat | None = None
    pending: list[tuple[str, bytes]] = []
    for rule in farm.backend.sticks:
        stores = rule.action in ("on", "store-request")
        if rule.fetch != "src" or rule.action == "store-response" or not holds(rule.condition, session.facts(None)):
            continue
        if stores and any(name == rule.table for name, _ in pending):
            continue
        store = session.image.stores[rule.table]
        key = key_of_address(store.type, store.length, session.src) if session.src else None
        if key is None:
            continue
        known = store.find(key) if rule.action in ("match", "on") else None
        if known is not None and found is None:
            seats = [seat for seat in farm.seats if seat.usable or farm.backend.persist]
            found = next((seat for seat in seats if seat.server.name.encode() == known[1]), None)
            found = found or next((seat for seat in seats if seat.server.id == known[0]), None)
        if stores:
            pending.append((rule.table, key))
    return found, pending
