"""One connection between two peers, from the greeting to its end.

    outgoing:  HELLO sent -> status 200 -> UP          incoming:  HELLO received -> status sent -> UP

Both sides then push what changes at them, acknowledge what they receive, and say something at least every three seconds;
five seconds of silence end the connection. A side that knows nothing asks for everything (`ask`); the other teaches all
its tables and says whether it considers itself complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from haptk.core.peers import wire
from haptk.core.peers.updates import Names, Stream, Table
from haptk.core.peers.wire import Bad, Definition, Hello

HEARTBEAT_S = 3.0
SILENCE_S = 5.0
GREETING_S = 5.0
OUTPUT = 65536  # bytes of updates that are made at once
TABLES_MAX = 4096  # that the other side may define
PASSED_OVER = Definition(0, "", 0, 0)  # of a table that we do not share: nothing of it is kept


@dataclass(frozen=True)
class Shared:
    """A table that this node shares, as the wire names it."""

    name: str
    table: Table
    key_type: int
    key_size: int
    number: int

    def definition(self, *, kin: bool = False) -> Definition:
        """How it is described to others, with versions to our `kin`."""
        kinds = {wire.SERVER_ID, wire.SERVER_KEY, *(kind for kind, _, _ in self.table.stored)}
        stored = tuple(sorted(kinds | ({wire.CONTENT_VERSION} if kin else set())))
        elements = {kind: count for kind, count, _ in self.table.stored}
        periods = {kind: period_ms for kind, _, period_ms in self.table.stored}
        sizes = (self.key_type, self.key_size, stored, self.table.expire_ms)
        return Definition(self.number, self.name, *sizes, elements, periods)


class Flow(Protocol):
    """What a session needs of a stream (updates.Stream or its compiled twin)."""

    at: int
    last_id: int
    fresh: bool
    acked: int
    kin: bool
    quiet: bool

    def behind(self) -> bool: ...
    def push(self, timed: bool, limit: int = OUTPUT) -> bytes | None: ...
    def begin_teaching(self) -> None: ...
    def teach(self, timed: bool, limit: int = OUTPUT) -> bytes: ...
    def take(self, data: bytes, at: int, definition: Definition) -> int: ...


Make = Callable[[Any, Any, int], Flow]


@dataclass(frozen=True)
class Event:
    """What the owner of a session has to know: up, asked, taught (complete or not), confirmed, closed."""

    what: str
    peer: str = ""
    complete: bool = False
    why: str = ""


class Session:
    """Feed it with `receive`, write what `to_send` returns; `over` says that the connection is to be closed.

    `known` maps a sender's name to whether it may talk to us; `acked` holds, by table, up to which change the other side
    has confirmed, and outlives the connection.
    """

    def __init__(
        self, local: str, tables: Sequence[Shared], acked: Mapping[str, dict[str, int]], now: float, *,
        remote: str = "", pid: int = 0, make: Make = Stream, names: Any = None,
    ) -> None:  # fmt: skip
        self.local, self.remote, self.outgoing = local, remote, bool(remote)
        self.tables = tables
        self.acked = acked
        self.make = make
        self.names = names if names is not None else Names()
        self.up = False
        self.over = ""
        self.timed = True
        self.kin = False  # the other side is haptk
        self.asking = False  # we asked for everything
        self.teaching: deque[Shared] | None = None
        self.complete = True  # what we say at the end of teaching
        self._in = b""
        self._out: list[bytes] = [wire.put_hello(Hello(remote, local, pid, kin=True))] if remote else []
        self._events: deque[Event] = deque()
        self._flows: dict[int, Flow] = {}  # by our number of the table
        self._defined: int = -1  # the table that the other side expects updates of
        self._told: set[int] = set()
        self._theirs: dict[int, tuple[Shared | None, Definition]] = {}  # by their number
        self._current: tuple[Shared | None, Definition] | None = None
        self._began = self._heard = self._said = now

    def age_s(self, now: float) -> float:
        """Seconds since the connection was made."""
        return now - self._began

    # -- five verbs ----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Bytes of the other side; b"" for its end of stream."""
        if not data:
            self._close("the connection was closed")
            return
        self._heard = now
        self._in += data
        try:
            if not self.up and not (self._status() if self.outgoing else self._greeting()):
                return
            self._read()
        except Bad as bad:
            self._out.append(wire.put_message(wire.ERROR, wire.PROTOCOL_ERROR))
            self._close(f"protocol error: {bad}")

    def handle_timer(self, now: float) -> None:
        """Heartbeat, and the end of patience."""
        if self.over:
            return
        if not self.up:
            if now >= self._began + GREETING_S:
                self._close("no greeting")
            return
        if now >= self._heard + SILENCE_S:
            self._close(f"silent for {SILENCE_S:.0f} seconds")
        elif now >= self._said + HEARTBEAT_S:
            self._out.append(wire.put_message(wire.CONTROL, wire.HEARTBEAT))

    def timer_at(self) -> float | None:
        """When `handle_timer` has something to do."""
        if self.over:
            return None
        return min(self._heard + SILENCE_S, self._said + HEARTBEAT_S) if self.up else self._began + GREETING_S

    def to_send(self, now: float) -> bytes:
        """The next bytes, about OUTPUT of them at most; b"" when there is nothing to say."""
        if self.up and not self.over:
            self._acknowledge()
            if self.teaching is None:
                self._push()
            if self.teaching is not None:
                self._teach()
        data = b"".join(self._out)
        self._out.clear()
        if data:
            self._said = now
        return data

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    # -- words of the owner --------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for everything."""
        self.asking = True
        self._attune()
        self._out.append(wire.put_message(wire.CONTROL, wire.RESYNC_REQUEST))

    def begin_teaching(self, *, complete: bool, silent: bool = False) -> None:
        """Send everything, then say whether that is all there is to know; nothing of that when nobody asked (`silent`)."""
        asked = self.teaching is not None and not self._silent
        self.complete = self.complete if silent and asked else complete
        self._silent = silent and not asked
        self.teaching = deque(self.tables)
        for shared in self.tables:
            # what changes from now on is pushed afterwards
            self._flow(shared).at = shared.table.seq
        if self.teaching:
            self._flow(self.teaching[0]).begin_teaching()

    def confirm(self) -> None:
        """Say that what we were taught is in place."""
        self._out.append(wire.put_message(wire.CONTROL, wire.RESYNC_CONFIRM))

    def give_up(self) -> None:
        """Nothing more is said: something went wrong with it here."""
        self._out.clear()
        self.over = self.over or "given up"

    def wants_to_send(self) -> bool:
        """Whether `to_send` would have something."""
        if self._out:
            return True
        if not self.up or self.over:
            return False
        return self.teaching is not None or any(
            flow.fresh or flow.behind() for flow in (self._flow(shared) for shared in self.tables)
        )

    # -- greeting ------------------------------------------------------------------------------------------------

    def _greeting(self) -> bool:
        try:
            found = wire.get_hello(self._in)
        except Bad as bad:
            self._refuse(int(bad.args[0]))
            return False
        if found is None:
            return False
        hello, size = found
        self._in = self._in[size:]
        if hello.to != self.local:
            self._refuse(wire.NOT_ME)
            return False
        if hello.sender not in self.acked:
            self._refuse(wire.UNKNOWN_PEER)
            return False
        self.remote = hello.sender
        self.timed = hello.version != "2.0"
        self.kin = hello.kin
        self._out.append(b"%d haptk\n" % wire.OK if self.kin else b"%d\n" % wire.OK)
        self._rise()
        return True

    def _refuse(self, status: int) -> None:
        self._out.append(b"%d\n" % status)
        self._close(f"greeting refused with {status}")

    def _status(self) -> bool:
        line, end, rest = self._in.partition(b"\n")
        if not end:
            if len(line) > 16:
                raise Bad("no status line")
            return False
        self._in = rest
        words = line.split()
        self.kin = words[1:] == [wire.KIN.encode()]
        if words[:1] != [b"%d" % wire.OK]:
            self._close(f"refused with {line[:16].decode('utf-8', 'replace')}")
            return False
        self._rise()
        return True

    def _rise(self) -> None:
        self.up = True
        self._events.append(Event("up", self.remote))

    def _close(self, why: str) -> None:
        if not self.over:
            self.over = why
            self._events.append(Event("closed", self.remote, why=why))

    # -- receiving -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        at = 0
        data = self._in
        while not self.over:
            if data[at : at + 1] == b"\x0a" and data[at + 1 : at + 2] and data[at + 1] in wire.ENTRIES:
                before = at
                at = self._entries(data, at)
                if at == before:
                    self._too_long(data, at)
                    break
                continue
            found = wire.get_message(data, at)
            if found is None:
                break
            kind, what, body, at = found
            self._message(kind, what, body)
        self._in = data[at:]

    def _too_long(self, data: bytes, at: int) -> None:
        """An entry that is not all there yet must be one that can come."""
        found = wire.get_int(data, at + 2)
        if found is not None and found[0] > wire.MESSAGE_MAX:
            raise Bad(f"a message of {found[0]} bytes")

    def _entries(self, data: bytes, at: int) -> int:
        if self._current is None:
            raise Bad("an entry of no table")
        shared, definition = self._current
        if shared is not None:
            return self._flow(shared).take(data, at, definition)
        found = wire.get_message(data, at)  # a table that we do not share
        return at if found is None else found[3]

    def _message(self, kind: int, what: int, body: bytes) -> None:
        if kind == wire.CONTROL:
            self._control(what)
        elif kind == wire.ERROR:
            self._close(f"the other side found an error ({what})")
        elif kind == wire.UPDATES and what == wire.DEFINE:
            self._define(wire.get_definition(body))
        elif kind == wire.UPDATES and what == wire.SWITCH:
            number, _ = wire.need_int(body, 0)
            if number not in self._theirs:
                raise Bad("a switch to a table that was never defined")
            self._current = self._theirs[number]
        elif kind == wire.UPDATES and what == wire.ACK:
            self._acked(body)
        else:
            raise Bad(f"an unknown message of class {kind} and type {what}")

    def _define(self, definition: Definition) -> None:
        """From now on updates are of that table. Each of ours has one number over there, the last one it was given."""
        shared = self._match(definition)
        if shared is not None:
            for number in [number for number, (one, _) in self._theirs.items() if one is shared]:
                del self._theirs[number]
        self._current = (shared, definition if shared is not None else PASSED_OVER)
        self._theirs[definition.number] = self._current
        if len(self._theirs) > TABLES_MAX:
            raise Bad("too many tables")

    def _control(self, what: int) -> None:
        if what == wire.RESYNC_REQUEST:
            self._events.append(Event("asked", self.remote))
        elif what in (wire.RESYNC_FINISHED, wire.RESYNC_PARTIAL):
            self.asking = False
            self._attune()
            self._events.append(Event("taught", self.remote, complete=what == wire.RESYNC_FINISHED))
        elif what == wire.RESYNC_CONFIRM:
            self._events.append(Event("confirmed", self.remote))

    def _match(self, definition: Definition) -> Shared | None:
        """Our table of that name, if its keys are of the same kind; another one is ignored, as HAProxy does."""
        for shared in self.tables:
            if shared.name == definition.name:
                same = (shared.key_type, shared.key_size) == (definition.key_type, definition.key_size)
                return shared if same else None
        return None

    def _acked(self, body: bytes) -> None:
        number, at = wire.need_int(body, 0)
        if len(body) != at + 4:
            raise Bad("an acknowledgement of another length")
        for shared in self.tables:
            if shared.number == number and self.teaching is None:
                number = int.from_bytes(body[at:], "big")
                self.acked[self.remote][shared.name] = self._flow(shared).acked = number
                break

    # -- sending -------------------------------------------------------------------------------------------------

    def _flow(self, shared: Shared) -> Flow:
        flow = self._flows.get(shared.number)
        if flow is None:
            at = self.acked[self.remote].get(shared.name, shared.table.seq)
            flow = self._flows[shared.number] = self.make(shared.table, self.names, at)
            self._attune()
        return flow

    def _attune(self) -> None:
        for flow in self._flows.values():
            flow.kin = self.kin
            flow.quiet = self.asking and not self.kin

    def _select(self, shared: Shared) -> bytes:
        """What has to stand before updates of a table."""
        if self._defined == shared.number:
            return b""
        self._defined = shared.number
        if shared.number in self._told:
            return wire.put_message(wire.UPDATES, wire.SWITCH, wire.put_int(shared.number))
        self._told.add(shared.number)
        return wire.put_message(wire.UPDATES, wire.DEFINE, shared.definition(kin=self.kin).encode())

    def _timed(self, shared: Shared) -> bool:
        return self.timed and shared.table.expire_ms > 0

    def _acknowledge(self) -> None:
        for number, (shared, _) in self._theirs.items():
            flow = self._flows.get(shared.number) if shared is not None else None
            if flow is not None and flow.fresh:
                flow.fresh = False
                data = wire.put_int(number) + flow.last_id.to_bytes(4, "big")
                self._out.append(wire.put_message(wire.UPDATES, wire.ACK, data))

    def _push(self) -> None:
        for shared in self.tables:
            flow = self._flow(shared)
            if not flow.behind():
                continue
            data = flow.push(self._timed(shared))
            if data is None:
                # more has changed than is remembered one by one: everything once, without a word about it
                self.begin_teaching(complete=False, silent=True)
                return
            if data:
                self._out += [self._select(shared), data]
                return

    _silent = False

    def _teach(self) -> None:
        assert self.teaching is not None  # noqa: S101
        while self.teaching:
            shared = self.teaching[0]
            flow = self._flow(shared)
            data = flow.teach(self._timed(shared))
            if data:
                self._out += [self._select(shared), data]
                return
            self.teaching.popleft()
            if self.teaching:
                self._flow(self.teaching[0]).begin_teaching()
        self.teaching = None
        if not self._silent:
            what = wire.RESYNC_FINISHED if self.complete else wire.RESYNC_PARTIAL
            self._out.append(wire.put_message(wire.CONTROL, what))
        self._silent = False
