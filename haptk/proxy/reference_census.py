"""Who is connected, on the reference path: the sessions' own view of themselves, and how an administrator ends them."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from haptk.io import clock
from haptk.proxy import glance
from haptk.proxy.glance import Glance


def look(worker: Any, wanted: int, *, end: bool) -> list[Glance]:
    """All sessions of a worker, or only `wanted`, which `end` ends."""
    with worker.shared.lock:
        chosen = [one for one in worker.shared.sessions if wanted in (0, id(one))]
    found = []
    for session in chosen:
        with contextlib.suppress(OSError):  # it has just closed its socket
            found.append(_glance(session, worker.index))
        if end:
            finish(session)
    return found


def finish(session: Any) -> None:
    """End a session: its next look at a socket sees the end of the stream, and its log line says K."""
    session.ended = True
    for wire in (session.busy_wire, session.server_wire, session.client):
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)


def of_server(worker: Any, gid: int) -> None:
    """End the sessions of one server."""
    with worker.shared.lock:
        chosen = [one for one in worker.shared.sessions if one.bill.gid == gid]
    for session in chosen:
        finish(session)


def _phase(session: Any) -> int:
    if session.front.mode == "http" and session.idle:
        return glance.HEAD
    return glance.RELAY if session.bill.gid >= 0 else glance.QUEUE if session.bill.farm >= 0 else glance.REPLY


def _glance(session: Any, worker: int) -> Glance:
    tcp = session.front.mode == "tcp"
    phase = _phase(session)
    wire = session.busy_wire or session.server_wire
    connected = phase == glance.RELAY
    age_ms = int((clock.wall() - session.accepted_s) * 1000)
    source = wire.socket.getsockname() if wire is not None else ("", 0)
    busy = phase != glance.HEAD
    return Glance(
        worker, id(session), phase, session.front_index, session.bind, session.bill.farm if busy else -1,
        session.bill.gid if busy else -1, session.src, session.src_port, session.dst, session.dst_port,
        str(source[0]) if isinstance(source, tuple) else "", int(source[1]) if isinstance(source, tuple) else 0,
        session.client.socket.fileno(), wire.socket.fileno() if wire is not None else -1, busy, tcp, connected, False,
        tcp or session.bill.answered, True, False, False, 0, 0, 0, age_ms, -1, session.client.received, 0, 0, 0,
    )  # fmt: skip
