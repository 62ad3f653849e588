"""One client of the reference proxy: read a request, decide, find a server, relay both ways, log, and again.

Termination states and status codes are HAProxy's: the first letter says who ended the exchange (C client, S server,
P proxy, c and s time-outs, R resources, L local), the second in which phase (R request, Q queue, C connect, H headers,
D data).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from haptk.core.acl import Facts, holds
from haptk.core.captures import Captures
from haptk.core.logline import Record, custom_line, expand, http_line, plain_line, tcp_line
from haptk.formats.haproxy_cfg.logs import LEVELS
from haptk.io import clock
from haptk.proxy.logformats import is_early, line_of, named
from haptk.proxy.pages import as_sent
from haptk.proxy.reference_http import Bad, Gone, Head, Wire, parse_request
from haptk.proxy.reference_rules import Reply, page
from haptk.proxy.reference_tally import Bill
from haptk.proxy.tables import AddHeader, Backend, Frontend

if TYPE_CHECKING:
    from haptk.proxy.listeners import Opened
    from haptk.proxy.reference import Shared

LINGER_S = 1.0
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

PARTING_S = 1.0  # when we stop, a client that was told nothing of that has so long for its next request


class End(Exception):
    """The exchange ends here: with an answer (`reply`), or by closing. `flags` are the two termination letters."""

    def __init__(self, flags: str, reply: Reply | None = None) -> None:
        super().__init__(flags)
        self.flags = flags
        self.reply = reply


class Session:
    """A client connection. `run` returns when it is over."""

    def __init__(self, shared: Shared, channel: socket.socket, opened: Opened) -> None:
        self.shared = shared
        self.image = shared.image
        self.front: Frontend = shared.image.tables.frontends[opened.frontend]
        self.front_index = opened.frontend
        self.announced = opened.bind.accept_proxy
        self.bind = self.front.binds.index(opened.bind) if opened.bind in self.front.binds else 0
        channel.setblocking(True)
        if channel.family != socket.AF_UNIX:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = Wire(channel)
        self.accepted_s = clock.wall()
        self.first = True
        self.idle = True
        self.since = clock.monotonic()  # of being idle
        self.ended = False  # an administrator ended it
        self.src, self.src_port = _address(channel, peer=True)
        self.dst, self.dst_port = _address(channel, peer=False)
        self.server_wire: Wire | None = None
        self.server_of_wire: Any = None
        self.busy_wire: Wire | None = None  # of the exchange under way
        self.server_place: tuple[str, int] = ("", 0)
        self.bill = Bill(self.image, self.front_index, 0, self.bind)

    def stop(self, *, now: bool) -> None:
        """Cut the connection at once, or when it is idle between two requests.

        Of a client that spoke a moment ago the next request may be on the way: it is answered, as the last one.
        """
        rested_s = clock.monotonic() - self.since
        if now or (self.idle and not self.first and rested_s >= PARTING_S):
            with contextlib.suppress(OSError):
                self.client.socket.shutdown(socket.SHUT_RDWR)
        elif self.idle and not self.first:
            threading.Timer(PARTING_S - rested_s, self.stop, kwargs={"now": False}).start()

    def run(self) -> None:
        """Serve the client to the end. Nothing a peer does leaves this method as an exception."""
        from haptk.proxy.reference_tcp import read_proxy_header

        self.shared.count("connections")
        meter = self.image.meters.front(self.front_index, self.bind)
        meter.add("sessions")
        meter.add("live")
        meter.event("rate")
        try:
            if self.announced:
                read_proxy_header(self)
            if self.front.mode == "tcp":
                from haptk.proxy.reference_tcp import relay_tcp

                relay_tcp(self)
                return
            while self._once():
                self.first = False
                self.idle = True
                self.since = clock.monotonic()
        except (Bad, Gone, TimeoutError, OSError):
            pass
        finally:
            self.drop_server()
            meter.add("live", -1)
            self._close_client()

    def drop_server(self) -> None:
        """Close the server connection that this client keeps."""
        if self.server_wire is not None:
            self.server_wire.close()
            self.server_wire = None

    def _close_client(self) -> None:
        """Unread input would turn the close into a reset that overtakes our answer: read it away for a moment."""
        channel = self.client.socket
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_WR)
            until = clock.monotonic() + LINGER_S
            while (left := until - clock.monotonic()) > 0:
                channel.settimeout(left)
                if not channel.recv(65536):
                    break
        channel.close()

    # -- one request ---------------------------------------------------------------------------------------------

    def _once(self) -> bool:
        """One exchange; True when the client stays."""
        from haptk.proxy.reference_relay import Exchange

        began = clock.monotonic()
        record = Record(accepted_s=self.accepted_s, mode="http", pid=os.getpid())
        record.facts = self.facts(None)
        self.bill = Bill(self.image, self.front_index, self.client.received - len(self.client.data), self.bind)
        try:
            head = self._read_request(record, began)
            if head is None:
                if self.first and not self.front.log.dontlognull:
                    record.status, record.flags = 400, "CR--"
                    self.log(record)
                return False
            self.bill.request()
            self.idle = False
            exchange = Exchange(self, head, record)
            keep = exchange.run()
        except End as end:
            record.flags = end.flags + record.flags[2:]
            keep = False
            if end.reply is not None:
                self.answer(end.reply, record, Head(minor=1), keep=False)
        except (Gone, TimeoutError):
            if record.status < 0 and not record.request_line:
                raise
            keep = False
            if record.flags.startswith("--"):
                record.flags = ("CD" if record.status > 0 else "CH") + record.flags[2:]
        record.active_ms = _ms(began) - record.idle_ms
        record.total_ms = _ms(began)
        self.log(record)
        return keep and not self.shared.stopping

    def facts(self, head: Head | None) -> Facts:
        """What rules see of a request."""
        facts = Facts(
            src=self.src, src_port=self.src_port, dst=self.dst, dst_port=self.dst_port, frontend=self.front.name,
            first_request=self.first, hostname=socket.gethostname(), environ=os.environ,
            captures=Captures(self.front.request_captures, self.front.response_captures, self.front.capture_cookie),
        )  # fmt: skip
        if head is not None:
            facts.method, facts.target, facts.headers = head.method, head.target, head.headers
            facts.version = f"1.{head.minor}"
            facts.line = f"{head.method} {head.target} HTTP/1.{head.minor}"
            facts.usable_servers = {farm.backend.name: len(farm.tier(None)) for farm in self.image.farms}
            facts.connections = {farm.backend.name: sum(s.sessions for s in farm.seats) for farm in self.image.farms}
            facts.bind_id, facts.bind_name = self.bind + 1, self.front.binds[self.bind].name if self.front.binds else ""
        return facts

    def _read_request(self, record: Record, began: float) -> Head | None:
        """The next request head; None when the client left between requests. Raises End for one that is refused."""
        limits = self.front.timeouts
        process = self.image.tables.process
        limit = process.bufsize - process.maxrewrite
        request_s = limits.http_request or limits.client
        idle_s = request_s if self.first else limits.http_keep_alive or request_s
        got = bool(self.client.data)
        until = None if idle_s is None else began + idle_s
        while True:
            try:
                head = parse_request(self.client.data, lax=self.front.accept_invalid) if self.client.data else None
            except Bad:
                self._fault()
                raise self._refused("PR", record) from None
            if head is not None and head.size <= limit:
                self.client.data = self.client.data[head.size :]
                record.request_s = clock.wall()
                record.request_ms = 0
                return head
            if len(self.client.data) > limit:
                self._fault()
                raise self._refused("PR", record)
            try:
                if not self.client.fill(until):
                    if not self.client.data:
                        return None
                    raise self._refused("CR", record)
            except TimeoutError:
                if not got and (not self.first or self.front.ignore_probes):
                    return None
                self.shared.count("timeouts")
                raise End("cR", page(408, close=True)) from None
            if not got:
                got = True
                record.idle_ms = _ms(began)
                until = None if request_s is None else clock.monotonic() + request_s

    def _fault(self) -> None:
        """Keep what was no request for `show errors`."""
        self.image.faulty.note(
            response=False, proxy=self.front_index, other=-1, server=-1, wall_s=clock.wall(), data=self.client.data,
            src=(self.src, self.src_port),
        )  # fmt: skip

    def _refused(self, flags: str, record: Record) -> End:
        self.shared.count("bad_requests")
        record.request_s = clock.wall()
        return End(flags, page(400, close=True))

    # -- answers of our own --------------------------------------------------------------------------------------

    def answer(self, reply: Reply, record: Record, head: Head, *, keep: bool) -> bool:
        """Send an answer that no server gave; True when the client's connection can go on."""
        headers = list(reply.headers)
        status, body, reason = reply.status, reply.body, reply.reason
        own = self._errorfile(record, reply.status) if reply.is_page else None
        if own == b"":
            record.status, record.bytes_down = reply.status, 0
            return False
        if own is not None:
            status, reason, headers, body = _parts_of_page(own)
        version = "HTTP/1.0" if own is not None and own.startswith(b"HTTP/1.0") else "HTTP/1.1"
        closes = ("connection", "close") in headers
        keep = keep and not closes and (own is None or any(name == "content-length" for name, _ in headers))
        if keep and (version == "HTTP/1.0" or head.minor == 0):
            headers.append(("connection", "keep-alive"))
        elif not keep and not closes and version == "HTTP/1.1":
            headers.append(("connection", "close"))
        data = render(f"{version} {status} {reason}", headers)
        data += b"" if "HEAD" in (head.method, record.request_line[:4]) else body
        record.status = reply.status
        record.bytes_down = len(data)
        self.client.send(data, self.front.timeouts.client)
        return keep

    def _errorfile(self, record: Record, status: int) -> bytes | None:
        """The error file of a status: the backend's own, else the frontend's; None for the built-in page."""
        for wanted in (*record_errorfiles(self, record), *self.front.errorfiles):
            if wanted.status == status:
                return as_sent(wanted.content)
        return None

    # -- logs ----------------------------------------------------------------------------------------------------

    def log(self, record: Record) -> None:
        """One line for one exchange, in the frontend's format; nothing for an empty connection under dontlognull."""
        plan = self.front.log
        if self.ended:
            record.flags = "K" + record.flags[1:]
        self.bill.end(record, self.client.received - len(self.client.data))
        self.shared.responses[min(max(record.status // 100, 0), 5)] += 1
        chosen = record.facts.log_level
        if not plan.targets or record.unlogged or chosen == len(LEVELS):
            return
        if plan.dontlognull and record.status < 0 and not self.client.received:
            return
        record.frontend_active = self.shared.fronts.get(self.front_index, 1)
        record.actives = len(self.shared.sessions)
        record.bare = self.front.mode == "http" and not record.request_line
        if self._quiet(record):
            return
        sink = self.image.sinks[self.front_index]
        record.number, record.lines = self.shared.number, sink.lines
        self.shared.number += 1
        record.offset_of = clock.local_offset_s
        record.host = socket.gethostname()
        kept = record.facts.captures
        if not record.bare:
            record.request_captures, record.response_captures = tuple(kept.request), tuple(kept.response)
            record.client_cookie, record.server_cookie = kept.client_cookie, kept.server_cookie
        record.early = is_early(plan, self.front.unique_id_format)
        if self.front.unique_id_format is not None and not record.bare:
            record.unique_id = record.unique_id or custom_line(self.front.unique_id_format, record, frozenset("H"))
        structured = custom_line(plan.sd_format, record) if plan.sd_format is not None else ""
        level = "err" if plan.log_separate_errors and (record.bare or _failed(record)) else "info"
        sink.write(self._line(record), level if chosen < 0 else LEVELS[chosen], structured)

    def _line(self, record: Record) -> str:
        plan = self.front.log
        if record.bare and plan.error_format is not None:
            return custom_line(plan.error_format, record)
        if plan.style == "custom" and plan.log_format is not None:
            return custom_line(plan.log_format, record)
        if plan.style == "clf":
            return custom_line(named("clf"), record)
        if plan.style == "http":
            return http_line(record)
        return tcp_line(record) if plan.style == "tcp" else plain_line(record)

    def _quiet(self, record: Record) -> bool:
        """True when nothing is written about this exchange."""
        plan = self.front.log
        if record.bare:
            return line_of(plan) is None
        if plan.dontlog_normal and not _failed(record):
            return True
        return self.front.mode == "tcp" and plan.dontlognull and record.bytes_up == 0


def _failed(record: Record) -> bool:
    """What `option log-separate-errors` and `option dontlog-normal` tell from the rest."""
    return record.redispatched or record.flags[0] not in "-L" or (record.mode == "http" and record.status >= 500)


def _parts_of_page(page_bytes: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
    """Status, reason, headers and body of an error file in the form that is sent."""
    head, _, body = page_bytes.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    reason = first.split(" ", 2)[2] if first.count(" ") > 1 else ""
    return int(first[9:12]), reason, [(name, value) for name, _, value in pairs], body


def record_errorfiles(session: Session, record: Record) -> tuple[Any, ...]:
    """The error files of the backend that was chosen."""
    for backend in session.image.tables.backends:
        if backend.name == record.facts.backend:
            return backend.errorfiles
    return ()


def render(first_line: str, headers: list[tuple[str, str]]) -> bytes:
    """A head as bytes."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def forwarded(add: AddHeader | None, headers: list[tuple[str, str]], address: str) -> list[tuple[str, str]]:
    """The header of `option forwardfor` or `originalto`, when it is to be added."""
    if add is None or not address:
        return []
    parsed = ipaddress.ip_address(address)
    for text in add.except_networks:
        network = ipaddress.ip_network(text)
        if network.version == parsed.version and parsed in network:
            return []
    if add.if_none and any(name == add.header.lower() for name, _ in headers):
        return []
    return [(add.header.lower(), address)]


def persistence(back: Backend, facts: Facts) -> tuple[bool, bool]:
    """(force, ignore): which persistence rule of the backend is the first that holds."""
    for rule in back.rules:
        if rule.kind in ("force-persist", "ignore-persist") and holds(rule.condition, facts):
            return rule.kind == "force-persist", rule.kind == "ignore-persist"
    return False, False


def header_format(chosen: Any, facts: Facts) -> str:
    """A format string for a header."""
    return expand(chosen, facts)


def _address(channel: socket.socket, *, peer: bool) -> tuple[str, int]:
    try:
        name = channel.getpeername() if peer else channel.getsockname()
    except OSError:
        return "", 0
    if not isinstance(name, tuple):
        return "", 0
    host = str(name[0])
    return host.removeprefix("::ffff:"), int(name[1])


def _ms(began: float) -> int:
    return round((clock.monotonic() - began) * 1000)
