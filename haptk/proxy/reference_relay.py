"""One exchange of the reference proxy from the parsed request to the last byte of the response, and the TCP relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptk.core.acl import holds
from haptk.core.appsession import request_id, response_id
from haptk.core.cookie import Asked, Candidate, CookieRule, pieces, read_request, write_response
from haptk.core.logline import Record
from haptk.core.sticktable import Exchange as Seen
from haptk.core.sticktable import fetch_key
from haptk.io import clock
from haptk.proxy.pages import REASONS
from haptk.proxy.reference_http import Bad, Gone, Head, Wire, body_pieces, parse_response
from haptk.proxy.reference_messages import HOP, deadline_in, frame, from_path, with_cookies, without_hops
from haptk.proxy.reference_route import Farm, Seat
from haptk.proxy.reference_rules import Message, Reply, Unfit, apply, page, settle
from haptk.proxy.reference_session import IDEMPOTENT, End, forwarded, persistence, render
from haptk.proxy.reference_tcp import connect, relay_both, reset
from haptk.proxy.service import METRICS, SERVICES, STATS, Ask, answer_safely
from haptk.proxy.sticktables import appsession_name
from haptk.proxy.tables import Backend, Frontend, StickRule

if TYPE_CHECKING:
    from haptk.proxy.reference_session import Session

# What `retry-on all-retryable-errors` stands for.
RETRYABLE = ("conn-failure", "empty-response", "junk-response", "response-timeout", "500", "502", "503", "504")
RETRY_S = 1.0  # HAProxy's turn-around before the same server is tried again
PASSIVE = CookieRule("")  # names no cookie, and tidies as every rule does


class Exchange:
    """A request on its way. `run` says whether the client's connection can carry another one."""

    def __init__(self, session: Session, head: Head, record: Record) -> None:
        self.session = session
        self.shared = session.shared
        self.head = head
        self.record = record
        self.front = session.front
        self.facts = record.facts = session.facts(head)
        self.keep = head.persistent and not self.shared.stopping
        self.farm: Farm | None = None
        self.back: Backend | None = None
        self.seat: Seat | None = None
        self.asked = Asked(None, (), "N")
        self.direct = False
        self.force = self.ignore = False
        self.pending: list[tuple[str, bytes]] = []  # keys to store once a server has answered, by table
        self.asked_method = head.method
        self.body_started = False
        self.kept: bytes | None = b""  # the body as it was sent, None when it is too long to be sent again
        self.body_done = head.body == "none" or (head.body == "length" and head.length == 0)
        self.upgrade = "upgrade" in head.words("connection") and bool(head.values("upgrade")) and head.minor == 1
        self.request_line = f"{head.method} {head.target} HTTP/1.{head.minor}"

    # -- the whole -----------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Carry the exchange out; raises Gone or TimeoutError when the client is lost."""
        self.record.request_line = self.request_line
        self.shared.count("requests")
        if self.front.connection == "httpclose":
            self.keep = False
        try:
            reply = self._ruled()
            if reply is not None:
                return self._reply(reply, f"{reply.cause or 'L'}R")
            return self._counted()
        except Bad:
            self._fault(self.session.client.data, at=0)
            return self._reply(page(400, close=True), "CD" if self.body_started else "CR", close=True)
        except End as end:
            self._flags(end.flags)
            if end.reply is None:
                return False
            return self._reply(end.reply, end.flags)

    def _counted(self) -> bool:
        """Serve, counted among the backend's sessions."""
        assert self.farm is not None  # noqa: S101
        with self.farm.changed:
            self.farm.busy += 1
        try:
            return self._serve()
        finally:
            with self.farm.changed:
                self.farm.busy -= 1
                self.farm.changed.notify_all()

    def _flags(self, two: str) -> None:
        self.record.flags = two + self.record.flags[2:]

    def _reply(self, reply: Reply, flags: str, *, close: bool = False) -> bool:
        """Answer ourselves. An unread body or an error of the request costs the connection."""
        self._flags(flags)
        self._discard_body()
        had_body = self.head.body != "none"
        keep = self.keep and self.body_done and not close and not (reply.ends and had_body)
        return self.session.answer(reply, self.record, self.head, keep=keep)

    def _discard_body(self) -> None:
        """A body that is here as a whole does not stand in the way of the next request."""
        data = self.session.client.data
        if not self.body_done and self.head.body == "length" and len(data) >= self.head.length:
            self.session.client.data = data[self.head.length :]
            self.body_done = True

    def _ruled(self) -> Reply | None:
        try:
            return self._decide()
        except Unfit:
            raise End("PR", page(500)) from None

    def _decide(self) -> Reply | None:
        """Frontend rules, the backend, its rules, and what the cookies say; an answer when a rule gives one."""
        head, front = self.head, self.front
        if front.monitor_uri and head.target == front.monitor_uri:
            self.record.unlogged = True
            failing = [rule for rule in front.rules if rule.kind == "monitor-fail"]
            return page(503 if any(holds(rule.condition, self.facts) for rule in failing) else 200)
        self.facts.captures.headers(head.headers, response=False)
        message = Message(head.headers, head.method, head.target)
        own = front.is_listen and front.default_backend >= 0
        if own:
            self.facts.backend = front.name
        reply = self._request_rules(front, message, -1)
        if reply is not None:
            if own:
                self.farm = self.session.image.farms[front.default_backend]
            return self._denied(self._take(message, reply))
        index = front.default_backend
        for rule in front.rules:
            if rule.kind == "use_backend" and holds(rule.condition, self.facts):
                index = rule.target
                break
        if index < 0:
            raise End("SC", page(503))
        self.farm = self.session.image.farms[index]
        self.back = self.farm.backend
        self.facts.backend = self.back.name
        self.session.bill.backend(index)
        if self.back.disabled:
            raise End("SC", page(503))
        if self.back.connection == "httpclose":
            self.keep = False
        self.force, self.ignore = persistence(self.back, self.facts)
        if not (front.is_listen and self.back.name == front.name):
            reply = self._request_rules(self.back, message, index)
        if reply is None:
            settle(message)
        self._take(message, None)
        if reply is not None:
            return self._denied(reply)
        self._capture_cookies()
        self._read_cookies()
        if message.changed and len(self._request_head()) > self.session.image.tables.process.bufsize:
            raise Unfit("a head that does not fit into a buffer")
        return None

    def _denied(self, reply: Reply | None) -> Reply | None:
        """The log of a denied request tells what its cookies meant, and which server they asked for."""
        if reply is not None and reply.cause == "P":
            self.facts.captures.cookies(self.head.values("cookie"), response=False)
        if reply is not None and self.farm is not None:
            self.back = self.farm.backend
            self.record.flags = "--NN" if self.back.cookie is not None else "----"
            if reply.cause == "P":
                self._read_cookies()
                self.record.server = self.seat.server.name if self.seat is not None else self.record.server
        return reply

    def _request_rules(self, proxy: Frontend | Backend, message: Message, backend: int) -> Reply | None:
        """`http-request`, the statistics, then the old `redirect` lines, which `http-request allow` does not skip."""
        reply = apply(proxy.rules, "http-request", message, self.facts)
        if reply is not None and reply.service:
            return self._ask_service(SERVICES[reply.service], message, backend)
        if reply is not None:
            self.session.bill.deny(reply)
            return reply
        if proxy.stats is not None and message.target.startswith(proxy.stats.uri):
            return self._ask_service(STATS, message, backend)
        return apply(proxy.rules, "redirect", message, self.facts)

    def _take(self, message: Message, reply: Reply | None) -> Reply | None:
        self.head.headers, self.head.method, self.head.target = message.headers, message.method, message.target
        return reply

    def _ask_service(self, service: int, message: Message, backend: int) -> Reply:
        """Let the control plane answer; raises End when the body cannot be had."""
        session, head = self.session, self.head
        body = b""
        for piece in body_pieces(session.client, head, self.front.timeouts.client, strip=True):
            body += piece
            if len(body) > session.image.tables.process.bufsize:
                raise End("PR", page(400, close=True))
        self.body_done = True
        ask = Ask(
            service, session.front_index, backend, message.method, message.target, message.headers, body, session.src,
            head.minor, self.keep,
        )  # fmt: skip
        if session.image.answer is None:
            raise End("RR", page(500))
        self.record.server = {STATS: "<STATS>", METRICS: "<PROMEX>"}[service]
        self.record.queue_ms = self.record.connect_ms = self.record.response_ms = 0
        answer = answer_safely(session.image.answer, ask)
        return Reply(
            answer.status,
            [*answer.headers, ("content-length", str(len(answer.body)))],
            answer.body,
            reason=REASONS.get(answer.status, "Other"),
        )

    def _capture_cookies(self) -> None:
        """Keep a cookie for the log, where one is wanted; then all lose the blanks around their `=`, as in HAProxy."""
        if self.front.capture_cookie is None:
            return
        self.facts.captures.cookies(self.head.values("cookie"), response=False)
        tidy = [
            "".join(piece.delimiter + piece.text for piece in pieces(value)) if name == "cookie" else value
            for name, value in self.head.headers
        ]
        self.head.headers = [(name, value) for (name, _), value in zip(self.head.headers, tidy, strict=True)]

    def _read_cookies(self) -> None:
        """Which server the cookies (then the stick tables) ask for."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        force = self.force
        rule = self.back.cookie
        if rule is not None:
            candidates = [Candidate(seat.server.cookie, seat.usable) for seat in self.farm.seats]
            self.asked = read_request(
                rule, self.head.values("cookie"), candidates, int(clock.wall()),
                persist=force or self.back.persist, ignore=self.ignore,
            )  # fmt: skip
            self.head.headers = with_cookies(self.head.headers, self.asked.headers)
            if self.asked.server is not None:
                self.seat = self.farm.seats[self.asked.server]
                self.direct = True
        flag = self.asked.flag if rule is not None else "-"
        self.record.flags = f"--{flag}{'-' if flag == '-' else 'N'}"
        # ignore-persist is about cookies: HAProxy's stick rules do not look at it
        self._stuck(force=force)
        self._app_seat(force=force)

    def _stuck(self, *, force: bool) -> None:
        """Ask the stick tables, and keep the keys that are to be stored once a server has answered."""
        assert self.back is not None  # noqa: S101
        for rule in self.back.sticks:
            stores = rule.action in ("on", "store-request")
            if stores and any(name == rule.table for name, _ in self.pending):
                continue  # only the first key of each table is stored; the next rules are for where it is missing
            key = self._key(rule) if rule.action != "store-response" and holds(rule.condition, self.facts) else None
            if key is None:
                continue
            if rule.action in ("match", "on"):
                self._take_seat(self.session.image.stores[rule.table].find(key), force=force)
            if stores:
                self.pending.append((rule.table, key))

    def _key(self, rule: StickRule) -> bytes | None:
        assert self.back is not None  # noqa: S101
        store = self.session.image.stores[rule.table]
        seen = Seen(self.facts.src, self.facts.target, self.head.headers, self.facts.res_headers)
        return fetch_key(store.type, store.length, rule.fetch, rule.argument, rule.delimiter, seen)

    def _take_seat(self, found: tuple[int, bytes] | None, *, force: bool) -> None:
        """Stick to the server of a table's entry (by name, else by id) unless the session has one already."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        if found is None or self.seat is not None:
            return
        server_id, name = found
        seats = self.farm.seats
        seat = next((seat for seat in seats if name and seat.server.name.encode() == name), None)
        seat = seat or next((seat for seat in seats if seat.server.id == server_id), None)
        if seat is not None and (seat.usable or force or self.back.persist or self.back.strict_persist):
            self.seat, self.direct = seat, True

    def _app_seat(self, *, force: bool) -> None:
        """The server that `appsession` knows for this request's session id."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        rule = self.back.appsession
        key = request_id(rule, self.head.headers, self.head.target) if rule else None
        if rule is None or key is None or self.ignore:
            return
        name, raw = appsession_name(self.back), key.encode("latin-1", "replace")
        found = self.session.image.stores[name].find(raw)
        self._take_seat(found, force=force)
        if rule.request_learn:
            self.pending.append((name, raw))

    # -- servers -------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        """Find a server, send the request, relay the response; with retries as long as nothing was answered."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        left = self.back.retries
        avoid: Seat | None = None
        failed: OSError | _Again | None = None
        while True:
            bound = self.seat is not None
            seat = self.seat = self._admitted(avoid)
            if avoid is not None:
                self._moved(avoid, seat)
            self.session.bill.slot(seat, balanced=not bound and seat is not avoid)
            if seat.server.redir and self.head.method in ("GET", "HEAD"):
                self._release(seat)
                location = seat.server.redir + from_path(self.head.target)
                headers = [("cache-control", "no-cache"), ("content-length", "0"), ("location", location)]
                return self._reply(Reply(302, headers, reason="Found"), "LR", close=True)
            try:
                wire = self._connect(seat)
                if self._try(seat, wire):
                    return self.keep
                avoid = None  # the same seat once more
                continue
            except (OSError, _Again) as error:
                if isinstance(error, (Gone, _ClientSlow)):
                    raise
                failed = error
                if isinstance(error, OSError):
                    self._observe(4, good=False)
            finally:
                self._release(seat)
            if left <= 0 or (isinstance(failed, OSError) and not self._on_connect_failure):
                raise failed.end if isinstance(failed, _Again) else self._unreachable(failed)
            left -= 1
            avoid = self._after_failure(seat, failed, left)

    def _after_failure(self, seat: Seat, failed: OSError | _Again, left: int) -> Seat | None:
        """Count the retry and decide where the next attempt goes; returns the seat to avoid."""
        self.record.retries += 1
        self.shared.count("retries")
        if isinstance(failed, OSError):
            self.shared.count("connect_failures")
        if not self._redispatch_now(left):
            self.session.bill.again(elsewhere=False)
            if isinstance(failed, OSError) and not isinstance(failed, TimeoutError):
                self._pause()
            return None
        if isinstance(failed, OSError) and not isinstance(failed, TimeoutError) and not self._takes_turns():
            self._pause()  # likely to be the same server again
        self.seat, self.direct = None, False
        return seat

    def _moved(self, left: Seat, now: Seat) -> None:
        """The balance chose after a failure. The same server once more is an attempt, another one a redispatch."""
        self.session.bill.again(elsewhere=now is not left)
        if now is left:
            return
        self.record.redispatched = True
        self.shared.count("redispatches")
        if self.back is not None and self.back.cookie is not None and self.asked.flag == "V":
            self.record.flags = "--D" + self.record.flags[3]

    @property
    def _on_connect_failure(self) -> bool:
        assert self.back is not None  # noqa: S101
        return not {"conn-failure", "all-retryable-errors"}.isdisjoint(self.back.retry_on)

    def _observe(self, layer: int, *, good: bool) -> None:
        """Live traffic as a check: layer 4 sees connections, layer 7 answers and that a connection failed."""
        assert self.seat is not None  # noqa: S101
        server = self.seat.server
        watched = int(server.observe[-1]) if server.observe and server.check else 0
        if watched and (watched == layer or (layer == 4 and not good)):
            self.seat.observed = 0 if good else self.seat.observed + 1
            if self.seat.observed >= server.error_limit:
                self.session.image.trip(self.seat)

    def _unreachable(self, error: OSError) -> End:
        self.shared.count("connect_failures")
        return End("sC" if isinstance(error, TimeoutError) else "SC", page(503))

    def _pause(self) -> None:
        """HAProxy's turn-around of a second, or of `timeout connect` when that is shorter."""
        assert self.back is not None  # noqa: S101
        clock.sleep(min(RETRY_S, self.back.timeouts.connect or RETRY_S))

    def _admitted(self, avoid: Seat | None) -> Seat:
        """A seat with room for one more, counted in; waits up to `timeout queue` for it. Raises End."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        farm, limits = self.farm, self.back.timeouts
        until = deadline_in(limits.queue or limits.connect)
        while True:
            with farm.changed:
                seat = self.seat or self._last_seat(avoid) or farm.choose(self.facts, avoid)
                if seat is not None and farm.full(seat) and self.seat is None:
                    seat = next((other for other in farm.tier(avoid) if not farm.full(other)), seat)
                if seat is None:
                    raise End("SC", page(503))
                if not farm.full(seat):
                    farm.seated(seat, 1)
                    return seat
                if not farm.changed.wait(None if until is None else max(until - clock.monotonic(), 0)):
                    raise End("sQ", page(503))

    def _last_seat(self, avoid: Seat | None) -> Seat | None:
        """For `option prefer-last-server`: where the kept connection of this client leads, under http-reuse never."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        last = self.session.server_of_wire if self.session.server_wire is not None else None
        wanted = self.back.prefer_last_server and self.back.reuse == "never"
        return last if wanted and last in self.farm.seats and last is not avoid and last.state == "UP" else None

    def _release(self, seat: Seat) -> None:
        assert self.farm is not None  # noqa: S101
        self.session.bill.free(seat)
        with self.farm.changed:
            self.farm.seated(seat, -1)
            self.farm.changed.notify_all()

    def _redispatch_now(self, left: int) -> bool:
        assert self.back is not None  # noqa: S101
        interval = self.back.redispatch
        if not interval or self.back.strict_persist:
            return False
        if not self.direct and self._takes_turns():
            return True
        return left == 0 if interval < 0 else (self.back.retries - left) % interval == 0

    def _takes_turns(self) -> bool:
        """Whether choosing again at once finds another server: it is no hash, and there are several."""
        assert self.back is not None and self.farm is not None  # noqa: S101
        actives = sum(seat.eligible and not seat.server.backup for seat in self.farm.seats)
        return self.back.balance.algorithm not in ("source", "uri", "url_param", "hdr") and actives > 1

    def _connect(self, seat: Seat) -> Wire:
        """The connection kept for this client when it leads to `seat`, else a new one. Raises OSError."""
        session = self.session
        if session.server_wire is not None:
            stays = session.server_of_wire is seat and session.server_place == seat.place
            if stays and not session.server_wire.readable([], clock.monotonic()):
                session.server_wire.reused = True
                session.bill.attempt(reused=True)
                return session.server_wire
            session.drop_server()
        session.bill.attempt(reused=False)
        wire = connect(self.session, seat, self.back)
        self._observe(4, good=True)
        return wire

    def _try(self, seat: Seat, wire: Wire) -> bool | None:
        """Send and relay over one connection. None: the reused connection was dead and nothing was lost, try again."""
        assert self.farm is not None and self.back is not None  # noqa: S101
        self.record.server = seat.server.name
        self.facts.server = seat.server.name
        session = self.session
        session.server_wire, session.server_of_wire, session.server_place = None, seat, seat.place
        session.busy_wire = wire
        reusable = False
        try:
            reusable = self._relay(wire)
        except _DeadReuse:
            return None
        finally:
            session.busy_wire = None
            if reusable and not wire.data:
                session.server_wire = wire
            else:
                wire.close()
        return True

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _request_head(self) -> bytes:
        assert self.back is not None  # noqa: S101
        head = self.head
        headers = without_hops(head.headers)
        headers += forwarded(self.back.forwardfor or self.front.forwardfor, head.headers, self.session.src)
        headers += forwarded(self.back.originalto or self.front.originalto, head.headers, self.session.dst)
        if self.upgrade:
            headers.append(("connection", "upgrade"))
        elif self.back.connection != "http-keep-alive" or self.front.connection != "http-keep-alive":
            if head.minor and not self.back.pretend_keepalive:
                headers.append(("connection", "close"))
        elif head.minor == 0:
            headers.append(("connection", "keep-alive"))
        return render(f"{head.method} {head.target} HTTP/1.{head.minor}", headers)

    def _relay(self, wire: Wire) -> bool:
        """Request out, response back. True when the server connection can be used again."""
        assert self.back is not None  # noqa: S101
        server_s = self.back.timeouts.server
        try:
            wire.send(self._request_head(), server_s)
            early = self._send_body(wire)
            response = self._response_head(wire)
        except Bad:
            raise
        except (Gone, TimeoutError) as error:
            dead = isinstance(error, Gone) and wire.reused and not wire.received
            if dead and self._repeatable() and not self._named("empty-response"):
                raise _DeadReuse from None
            end = self._no_answer(error)
            self._retry_on("response-timeout" if isinstance(error, TimeoutError) else "empty-response", end)
            raise end from None
        except End as end:
            self._fault(wire.data, response=True)
            self._retry_on("junk-response", end)
            raise
        self._observe(7, good=response.status < 500 or response.status in (501, 505))
        self._retry_on(str(response.status), End("--", None), response)
        reusable = self._answer(wire, response)
        return reusable and not early and self.body_done

    def _retry_on(self, event: str, end: End, response: Head | None = None) -> None:
        """Raise _Again when `retry-on` names this event and the request can be sent a second time."""
        assert self.back is not None  # noqa: S101
        if not self.facts.retries_answers or not self._named(event):
            return
        if (self.body_started and not (self.body_done and self.kept)) or (
            isinstance(end.reply, Reply) and end.reply.status == 408
        ):
            return
        if response is not None and self.record.retries >= self.back.retries:
            return  # the last answer goes to the client, whatever it is
        raise _Again(end)

    def _named(self, event: str) -> bool:
        """Whether `retry-on` has the event among its words."""
        assert self.back is not None  # noqa: S101
        words = self.back.retry_on
        return event in words or ("all-retryable-errors" in words and event in RETRYABLE)

    def _repeatable(self) -> bool:
        return self.head.method in IDEMPOTENT and not self.body_started

    def _no_answer(self, error: Exception) -> End:
        """What the client is told when the server said nothing usable."""
        self.shared.count("bad_responses")
        if isinstance(error, _ClientGone):
            return End("CH")
        if not isinstance(error, _ClientSlow):
            self._observe(7, good=False)
        if isinstance(error, _ClientSlow):
            return End("cD", page(408, close=True))
        return End("sH", page(504)) if isinstance(error, TimeoutError) else End("SH", page(502))

    def _send_body(self, wire: Wire) -> bool:
        """The request's body to the server; True when the server answered before it was all sent."""
        assert self.back is not None  # noqa: S101
        if self.body_done:
            wire.send(self.kept or b"", self.back.timeouts.server)  # something only when this is another attempt
            return False
        client = self.session.client
        client.before_fill = lambda until: self._watch(wire, until)
        try:
            for piece in body_pieces(client, self.head, self.front.timeouts.client):
                self.body_started = True
                self._keep(piece)
                wire.send(piece, self.back.timeouts.server)
        except _Early:
            return True
        except _Failed as failed:
            raise failed.error from None
        except Gone:
            raise _ClientGone from None
        except TimeoutError:
            raise _ClientSlow from None
        finally:
            client.before_fill = None
        self.body_done = True
        return False

    def _keep(self, piece: bytes) -> None:
        """Keep the body for another attempt, as far as HAProxy's buffer would hold it."""
        if self.kept is not None:
            self.kept += piece
            if len(self.kept) > self.session.image.tables.process.bufsize - 2048:
                self.kept = None

    def _watch(self, wire: Wire, until: float | None) -> None:
        """Wait for the client's next bytes; pass 100 (Continue) on meanwhile, and break off on a final answer."""
        client = self.session.client
        while True:
            ready = client.readable([wire], until)
            if client in ready or not ready:
                return
            try:
                if not self._interim(wire):
                    raise _Early
            except (Gone, TimeoutError) as error:
                raise _Failed(error) from None

    def _interim(self, wire: Wire) -> bool:
        """Pass interim responses on that have arrived; False when a final one (or the end) is there."""
        assert self.back is not None  # noqa: S101
        while True:
            found = _parsed(wire.data)
            if found is not None:
                if found.status >= 200 or found.status == 101:
                    return False
                wire.data = wire.data[found.size :]
                self._pass_interim(found)
                if not wire.data:
                    return True
                continue
            if not wire.fill(deadline_in(self.back.timeouts.server)):
                return False

    def _pass_interim(self, found: Head) -> None:
        if self.head.minor:
            line = f"HTTP/1.1 {found.status} {found.reason}"
            headers = [pair for pair in found.headers if pair[0] not in HOP]
            self.session.client.send(render(line, headers), self.front.timeouts.client)

    def _response_head(self, wire: Wire) -> Head:
        """The final response head; interim ones are passed on. Raises End for one that is refused."""
        assert self.back is not None  # noqa: S101
        until = deadline_in(self.back.timeouts.server)
        while True:
            found = _parsed(wire.data) if wire.data else None
            if found is not None:
                wire.data = wire.data[found.size :]
                if 100 <= found.status < 200 and found.status != 101:
                    self._pass_interim(found)
                    continue
                return found
            if len(wire.data) > self.session.image.tables.process.bufsize:
                raise self._bad_response()
            if not wire.fill(until):
                raise Gone("no whole answer")

    def _fault(self, data: bytes, *, response: bool = False, at: int = -1) -> None:
        """Keep what was no message for `show errors`; `at` is where the reader stands when that is a body."""
        image, session = self.session.image, self.session
        back = image.farms.index(self.farm) if self.farm is not None else -1
        proxy, other = (back, session.front_index) if response else (session.front_index, back)
        image.faulty.note(
            response=response, proxy=proxy, other=other, server=image.gids.get(id(self.seat), -1) if response else -1,
            wall_s=clock.wall(), src=(session.src, session.src_port), data=data, at=at,
        )  # fmt: skip

    def _bad_response(self, flags: str = "PH") -> End:
        self._observe(7, good=False)
        self.shared.count("bad_responses")
        return End(flags, page(502))

    def _answer(self, wire: Wire, response: Head) -> bool:
        """Edit and send the response; True when the server connection can be used again."""
        assert self.back is not None and self.seat is not None  # noqa: S101
        if response.status == 101 and not self.upgrade:
            raise self._bad_response()
        tunnel = response.status == 101 or (self.head.method == "CONNECT" and 200 <= response.status < 300)
        frame(response, head_only="HEAD" in (self.asked_method, self.head.method))
        if self.head.method == "HEAD" != self.asked_method:
            self.keep = False  # the client waits for a body that does not come
        self.facts.status, self.facts.res_headers = response.status, response.headers
        self._learn(self.seat)
        headers = without_hops(response.headers)
        if response.status == 204 or (self.head.minor == 0 and response.body == "chunked"):
            headers = [pair for pair in headers if pair[0] != "transfer-encoding"]
        self.facts.captures.headers(response.headers, response=True)
        message = Message(headers, status=response.status, reason=response.reason)
        self.facts.status, self.facts.res_headers = response.status, message.headers
        self.facts.res_version = f"1.{response.minor}"
        self.facts.answering = True
        own = self.front.is_listen and self.back.name == self.front.name
        for rules in ((), self.front.rules) if own else (self.back.rules, self.front.rules):
            reply = apply(rules, "http-response", message, self.facts)
            if reply is not None:
                self.session.bill.deny(reply, response=True)
                self.keep = self._reply(reply, f"{reply.cause}H")
                return False
        message.headers = self._cookies(message.headers, response)
        strip = self.head.minor == 0 and response.body == "chunked"
        if response.body == "eof" or strip or not self.body_done:
            self.keep = False
        if self.shared.stopping:
            self.keep = False
        self._send_head(message, tunnel)
        if tunnel:
            self.keep = False
            relay_both(self.session, wire, self.back.timeouts.tunnel or self.back.timeouts.server)
            return False
        self._send_response_body(wire, response, strip=strip)
        same_method = self.asked_method == self.head.method
        return response.persistent and response.body != "eof" and same_method and self._server_keeps()

    def _server_keeps(self) -> bool:
        assert self.back is not None  # noqa: S101
        return self.back.connection == "http-keep-alive" and self.front.connection == "http-keep-alive"

    def _cookies(self, headers: list[tuple[str, str]], response: Head) -> list[tuple[str, str]]:
        assert self.back is not None and self.seat is not None  # noqa: S101
        rule = self.back.cookie
        if self.front.capture_cookie is not None:
            values = [value for wanted in ("set-cookie", "set-cookie2") for name, value in headers if name == wanted]
            self.facts.captures.cookies(values, response=True)
            rule = rule or PASSIVE
        if rule is None:
            return headers
        answered = write_response(
            rule, self.asked, Candidate(self.seat.server.cookie), headers, method=self.head.method,
            status=response.status, now_s=int(clock.wall()), direct=self.direct, ignore=self.ignore,
        )  # fmt: skip
        if rule is not PASSIVE:
            self.record.flags = self.record.flags[:3] + answered.flag
        return list(answered.headers)

    def _send_head(self, message: Message, tunnel: bool) -> None:
        headers = list(message.headers)
        if tunnel and message.status == 101:
            headers.append(("connection", "upgrade"))
        elif not self.keep and not tunnel:
            headers.append(("connection", "close"))
        elif self.head.minor == 0 and not tunnel:
            headers.append(("connection", "keep-alive"))
        data = render(f"HTTP/1.1 {message.status} {message.reason}", headers)
        if message.changed and len(data) > self.session.image.tables.process.bufsize:
            raise End("PH", page(500))
        self.record.status = message.status
        self.session.bill.answered = True
        self.record.bytes_down += len(data)
        self.session.client.send(data, self.front.timeouts.client)

    def _send_response_body(self, wire: Wire, response: Head, *, strip: bool) -> None:
        """The body; a server that breaks off cuts the client, who must not take what it has for the whole."""
        assert self.back is not None  # noqa: S101
        pieces = body_pieces(wire, response, self.back.timeouts.server, strip=strip)
        while True:
            try:
                piece = next(pieces, None)
            except (Gone, Bad, TimeoutError) as error:
                if isinstance(error, Bad):
                    self._fault(wire.data, response=True, at=0)
                self._flags("sD" if isinstance(error, TimeoutError) else "PD" if isinstance(error, Bad) else "SD")
                if response.body == "eof":
                    reset(self.session.client.socket)
                self.keep = False
                return
            if piece is None:
                return
            self.record.bytes_down += len(piece)
            self.session.client.send(piece, self.front.timeouts.client)

    def _learn(self, seat: Seat) -> None:
        """The server has answered: store what the request gave and what the response gives."""
        assert self.back is not None  # noqa: S101
        asked = len(self.pending)
        for rule in self.back.sticks:
            if rule.action != "store-response" or any(name == rule.table for name, _ in self.pending[asked:]):
                continue
            key = self._key(rule) if holds(rule.condition, self.facts) else None
            if key is not None:
                self.pending.append((rule.table, key))
        session = self.back.appsession
        text = response_id(session, self.facts.res_headers) if session is not None and not self.ignore else None
        if text:
            self.pending.append((appsession_name(self.back), text.encode("latin-1", "replace")))
        if not seat.server.non_stick:
            for name, key in self.pending:
                self.session.image.stores[name].learn(key, seat.server.id, seat.server.name.encode())
        self.pending = []


class _DeadReuse(Exception):
    """A kept server connection turned out dead before it took anything."""


class _Again(Exception):
    """An answer that `retry-on` does not accept; `end` is what the client gets when no retry is left."""

    def __init__(self, end: End) -> None:
        super().__init__(end.flags)
        self.end = end


class _ClientGone(Gone):
    """The client, not the server, is gone."""


class _ClientSlow(TimeoutError):
    """The client, not the server, is slow."""


class _Early(Exception):
    """The server answers before it has the whole request."""


class _Failed(Exception):
    """The server failed while the client was being read."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _parsed(data: bytes) -> Head | None:
    try:
        return parse_response(data)
    except Bad:
        raise End("PH", page(502)) from None
