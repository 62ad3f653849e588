"""From the compiled workers' notes to log lines: HAProxy's formats, written by a thread of the control plane.

The workers note numbers only; names, dates and formats are put in here, so that a request costs its worker one copy
of its first line. Notes carry the workers' monotonic milliseconds; the wall clock is applied when they are read.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from haptk.core.acl import Facts
from haptk.core.logline import Record, custom_line, http_line, plain_line, tcp_line
from haptk.io import clock
from haptk.proxy.logsink import LogSink
from haptk.proxy.tables import ProxyTables

PERIOD_S = 0.05
SERVICES = {-2: "<STATS>", -3: "<PROMEX>"}  # who answered, in place of a server (journal.pyx)


class Noting(Protocol):
    """A worker that notes what ended."""

    def notes(self) -> list[tuple[Any, ...]]: ...


@dataclass(frozen=True, slots=True)
class Note:
    """One ended transaction, in the order of journal.pxd's record. Milliseconds of the monotonic clock; 0: not reached."""

    frontend: int
    server: int
    status: int
    accepted_ms: int
    started_ms: int
    request_ms: int
    queue_ms: int
    connect_ms: int
    response_ms: int
    end_ms: int
    bytes_down: int
    bytes_up: int
    retries: int
    actives: int
    backend_active: int
    server_active: int
    redispatched: bool
    peer_family: int
    peer_port: int
    flags: str
    peer: str
    line: str
    backend: int = -1
    items: bytes = b""


def _span(start: int, end: int) -> int:
    return end - start if start and end else -1


class Journal:
    """Reads the notes of `workers` twenty times a second and writes them to the frontends' log targets."""

    def __init__(self, tables: ProxyTables, workers: Sequence[Noting]) -> None:
        self.tables = tables
        self.workers = workers
        self.sinks = [LogSink(frontend.log) for frontend in tables.frontends]
        self.servers = [(backend, server) for backend in tables.backends for server in backend.servers]
        self.number = 0
        self.host = socket.gethostname()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, when some frontend logs at all."""
        if any(frontend.log.targets for frontend in self.tables.frontends):
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Write what is left and close the targets; call after the workers have ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        for sink in self.sinks:
            sink.close()

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        offset_s = clock.wall() - clock.monotonic()
        for worker in self.workers:
            for raw in worker.notes():
                self._write(Note(*raw), offset_s)

    def _write(self, note: Note, offset_s: float) -> None:
        frontend = self.tables.frontends[note.frontend]
        plan = frontend.log
        self.number += 1
        record = self.record(note, offset_s)
        if plan.style == "custom" and plan.log_format is not None:
            line = custom_line(plan.log_format, record)
        elif plan.style == "http":
            line = http_line(record)
        else:
            line = tcp_line(record) if plan.style == "tcp" else plain_line(record)
        failed = note.status >= 500 or note.flags[:2] not in ("--", "LR")
        self.sinks[note.frontend].write(line, "err" if failed and plan.log_separate_errors else "info")

    def record(self, note: Note, offset_s: float) -> Record:
        """The note in the form that the log formats read. `offset_s` turns monotonic seconds into Unix time."""
        frontend = self.tables.frontends[note.frontend]
        record = Record(
            accepted_s=note.accepted_ms / 1000 + offset_s,
            request_s=(note.started_ms or note.accepted_ms) / 1000 + offset_s,
            status=note.status,
            bytes_down=note.bytes_down,
            bytes_up=note.bytes_up,
            flags=note.flags,
            request_ms=_span(note.started_ms, note.request_ms),
            queue_ms=_span(note.request_ms or note.accepted_ms, note.queue_ms),
            connect_ms=_span(note.queue_ms, note.connect_ms),
            response_ms=_span(note.connect_ms, note.response_ms),
            active_ms=note.end_ms - note.started_ms,
            total_ms=note.end_ms - note.accepted_ms,
            actives=note.actives,
            frontend_active=note.actives,
            backend_active=note.backend_active,
            server_active=note.server_active,
            retries=note.retries,
            redispatched=note.redispatched,
            request_line=note.line,
            mode=frontend.mode,
            number=self.number,
        )
        if note.server >= 0:
            backend, server = self.servers[note.server]
            record.server, record.server_address, record.server_port = server.name, server.host, server.port
            backend_name = backend.name
        elif note.server < -1:
            record.server = SERVICES.get(note.server, "<NOSRV>")
            backend_name = self.tables.backends[note.backend].name if note.backend >= 0 else frontend.name
        else:
            backend_name = self.tables.backends[note.backend].name if note.backend >= 0 else frontend.name
        words = note.line.split(" ")
        facts = Facts(src=note.peer.rstrip("\0"), src_port=note.peer_port, frontend=frontend.name, backend=backend_name)
        facts.server = record.server
        facts.status, facts.hostname, facts.environ = note.status, self.host, os.environ
        if len(words) == 3:
            facts.method, facts.target, facts.version = words[0], words[1], words[2].removeprefix("HTTP/")
        record.facts = facts
        return record
