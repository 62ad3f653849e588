"""One node among its peers: who connects to whom, and from whom a fresh process learns. Pure; sockets are numbers here.

A process that knows nothing learns first from the process that it replaces (when there is one), then from any peer; each
may take five seconds to turn up. Until then it answers others that what it teaches is not all there is to know.

    LOCAL (an old process hands over) -> REMOTE (ask a peer; another one when that is not complete) -> DONE

One teacher need not know what the others do, when it was cut off from them: a process asks every other haptk once in
its life, also when it considers itself complete, and passes on what it is taught. Contents carry versions between haptk
nodes (_fast/store.pyx), so hearing something twice or late does no harm, and after the last cut has healed everybody
holds the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from haptk.core.peers.session import Make, Session, Shared
from haptk.core.peers.updates import Names, Stream

LOCAL, REMOTE, DONE = "from the process before", "from a peer", "complete"
RESYNC_S = 5.0
RETRY_S = (0.2, 5.0)  # pauses between attempts to connect, doubled each time


@dataclass(frozen=True)
class Act:
    """What the shell is to do: dial a peer, hang up a connection, tell people."""

    what: str
    peer: str = ""
    connection: int = -1
    text: str = ""
    data: bytes = b""  # to be written before hanging up


@dataclass
class Line:
    """What is known of one peer."""

    name: str
    dial_at: float | None = None  # None while connected or dialling
    pause_s: float = RETRY_S[0]
    connection: int = -1
    dialling: bool = False
    asked: bool = False  # was asked for everything
    kin: bool | None = None  # whether it is haptk; None while nobody knows
    behind: bool = False  # may lack what others have taught us
    acked: dict[str, int] = field(default_factory=dict)


class Node:
    """`jitter` returns numbers from 0 to 1; `predecessor` says that an old process will hand its tables over.

    `acked` is what the peers had confirmed to the node that this one replaces within one process.
    """

    def __init__(
        self, local: str, peers: Iterable[str], tables: Sequence[Shared], now: float, *, jitter: Callable[[], float],
        pid: int = 0, make: Make = Stream, names: Callable[[], object] = Names, predecessor: bool = False,
        acked: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:  # fmt: skip
        self.local = local
        self.tables = tables
        self.jitter, self.pid, self.make, self.names = jitter, pid, make, names
        self.lines = {name: Line(name) for name in peers if name != local}
        for name, line in self.lines.items():
            # the one whose name comes first dials, so that two nodes that start together do not cross
            line.dial_at = now if local < name else now + 0.4
            # what changes before the first connection is pushed then, unless the peer has confirmed more before
            line.acked = {shared.name: shared.table.seq for shared in tables} | dict((acked or {}).get(name, {}))
        self.own = Line(local)  # the connection between an old and a new process of this node
        self.sessions: dict[int, Session] = {}
        self.state = LOCAL if predecessor else REMOTE
        self.until: float | None = now + RESYNC_S
        self.teacher = -1
        self.handing_over = False
        self._acts: deque[Act] = deque()
        self._tell_tables()
        if not self.lines and not predecessor:
            self._settle("there is no other peer")

    # -- what happens --------------------------------------------------------------------------------------------

    def accepted(self, connection: int, now: float) -> None:
        """Somebody connected to us."""
        self.sessions[connection] = self._session(now)

    def connected(self, connection: int, peer: str, now: float) -> None:
        """What `dial` asked for is there."""
        line = self._line(peer)
        line.dialling = False
        if line.connection >= 0:
            self._acts.append(Act("hang up", peer, connection, "there is a connection already"))
            return
        line.connection = connection
        self.sessions[connection] = self._session(now, remote=peer)

    def failed(self, peer: str, now: float) -> None:
        """What `dial` asked for did not work."""
        line = self._line(peer)
        line.dialling = False
        if line.connection < 0:
            self._later(line, now)

    def receive(self, connection: int, data: bytes, now: float) -> None:
        """Bytes of one connection, b"" at its end."""
        session = self.sessions.get(connection)
        if session is not None:
            session.receive(data, now)
            self._follow(connection, session, now)

    def broken(self, connection: int, now: float) -> None:
        """Something went wrong here about one connection: it ends, the others go on."""
        session = self.sessions.get(connection)
        if session is not None:
            session.give_up()
            self._drop(connection, now, "an error of this node")

    def to_send(self, connection: int, now: float) -> bytes:
        """The next bytes for one connection."""
        session = self.sessions.get(connection)
        return session.to_send(now) if session is not None else b""

    def wants_to_send(self) -> list[int]:
        """The connections that have something to say."""
        return [number for number, session in self.sessions.items() if session.wants_to_send()]

    def handle_timer(self, now: float) -> None:
        """Everything that is due."""
        for connection, session in list(self.sessions.items()):
            session.handle_timer(now)
            self._follow(connection, session, now)
        for line in (*self.lines.values(), self.own):
            if line.dial_at is not None and now >= line.dial_at:
                line.dial_at = None
                line.dialling = True
                self._acts.append(Act("dial", line.name))
        if self.until is not None and now >= self.until and self.teacher < 0:
            self._patience_ends(now)

    def timer_at(self) -> float | None:
        """When `handle_timer` has something to do."""
        times = [session.timer_at() for session in self.sessions.values()]
        times += [line.dial_at for line in (*self.lines.values(), self.own)]
        if self.teacher < 0:
            times.append(self.until)
        return min((at for at in times if at is not None), default=None)

    def next_event(self) -> Act | None:
        return self._acts.popleft() if self._acts else None

    def hand_over(self, now: float) -> None:
        """This process ends: leave the peers and teach the process that comes after us, under our own name."""
        self.handing_over = True
        for connection in list(self.sessions):
            self._drop(connection, now, "this process hands over")
        for line in self.lines.values():
            line.dial_at = None
        self.own.dial_at = now

    @property
    def handed_over(self) -> bool:
        """True when the next process has everything, or there is none."""
        return self.handing_over and self.own.connection < 0 and not self.own.dialling and self.own.dial_at is None

    # -- sessions ------------------------------------------------------------------------------------------------

    def _line(self, peer: str) -> Line:
        return self.own if peer == self.local else self.lines[peer]

    def _session(self, now: float, remote: str = "") -> Session:
        acked = {name: line.acked for name, line in self.lines.items()} | {self.local: self.own.acked}
        return Session(
            self.local, self.tables, acked, now, remote=remote, pid=self.pid, make=self.make, names=self.names()
        )

    def _follow(self, connection: int, session: Session, now: float) -> None:
        while (event := session.next_event()) is not None:
            if event.what == "up":
                self._rose(connection, session, now)
            elif event.what == "asked":
                session.begin_teaching(complete=self.state == DONE)
                # a new process asks: what only its old one and we have heard, the others would never hear
                self._others_are_behind(event.peer)
                self._ask(now)
            elif event.what == "taught":
                session.confirm()
                self._taught(connection, event.peer, now, complete=event.complete)
            elif event.what == "confirmed" and event.peer == self.local and self.handing_over:
                self._drop(connection, now, "handed over")
            elif event.what == "closed":
                self._drop(connection, now, event.why)

    def _rose(self, connection: int, session: Session, now: float) -> None:
        line = self._line(session.remote)
        if not session.outgoing and line.connection >= 0:
            # both dialled: the newer one stays, and the other side is given time to see that
            old, line.connection = line.connection, connection
            self._drop(old, now, "replaced by a newer connection")
        line.connection, line.dial_at = connection, None
        line.kin = session.kin
        self._tell_tables()
        line.pause_s = RETRY_S[0]
        self._acts.append(Act("tell", line.name, text=f"peer {line.name} is connected"))
        if line is self.own:
            if self.handing_over:
                session.begin_teaching(complete=self.state == DONE)
            elif self.state == LOCAL:
                self.teacher = connection
            return
        self._ask(now)

    def _drop(self, connection: int, now: float, why: str) -> None:
        session = self.sessions.pop(connection, None)
        if session is None:
            return
        self._acts.append(Act("hang up", session.remote, connection, why, session.to_send(now)))
        line = self._line(session.remote) if session.remote else None
        if line is not None and session.teaching is not None:
            line.behind = True
        if line is not None and line.connection == connection:
            line.connection = -1
            if line is self.own:
                line.dial_at = None
            elif not self.handing_over:
                self._acts.append(Act("tell", line.name, text=f"peer {line.name} is gone: {why}"))
                self._later(line, now)
        if self.teacher == connection:
            self.teacher = -1
            if self.state != DONE:
                self.until = now + RESYNC_S
            self._ask(now)

    def _later(self, line: Line, now: float) -> None:
        if line is self.own:
            line.dial_at = None
            return
        line.dial_at = now + line.pause_s * (0.5 + self.jitter())
        line.pause_s = min(line.pause_s * 2, RETRY_S[1])

    # -- learning ------------------------------------------------------------------------------------------------

    def _tell_tables(self) -> None:
        """Who is there to hear of changes."""
        lines = self.lines.values()
        tag = sorted([self.local, *self.lines]).index(self.local) & 255
        for shared in self.tables:
            shared.table.audience(tag, any(line.kin for line in lines), sum(line.kin is False for line in lines))

    def _ask(self, now: float) -> None:
        """Ask a connected peer for everything: any one while we need that, later each haptk that was not asked yet."""
        if self.state == LOCAL or self.teacher >= 0 or self.handing_over:
            return
        for line in self.lines.values():
            session = self.sessions.get(line.connection)
            if session is not None and session.up and not line.asked and (self.state == REMOTE or session.kin):
                session.ask()
                self.teacher = line.connection
                return
        if self.state == REMOTE and all(line.asked for line in self.lines.values()):
            self._settle("no peer knows more")
        if self.state == DONE:
            self._pass_on()

    def _others_are_behind(self, peer: str) -> None:
        for line in self.lines.values():
            line.behind = line.behind or line.name != peer

    def _pass_on(self) -> None:
        """What one haptk has taught us another one may never have heard: its finder may be dead."""
        for line in self.lines.values():
            session = self.sessions.get(line.connection)
            if line.behind and session is not None and session.up and session.kin:
                line.behind = False
                session.begin_teaching(complete=False, silent=True)

    def _taught(self, connection: int, peer: str, now: float, *, complete: bool) -> None:
        if connection != self.teacher:
            return
        self.teacher = -1
        if peer != self.local:
            self.lines[peer].asked = True
            self._others_are_behind(peer)
        elif complete:
            for line in self.lines.values():
                line.asked = True  # whatever they have told the old process, we know
        if complete and self.state != DONE:
            self._settle(f"everything was learned {LOCAL if peer == self.local else f'from peer {peer}'}")
        elif self.state != DONE:
            self.until = now + RESYNC_S
            self.state = REMOTE
        self._ask(now)

    def _patience_ends(self, now: float) -> None:
        if self.state == LOCAL:
            self.state = REMOTE
            self.until = now + RESYNC_S
            self._ask(now)
        elif self.state == REMOTE:
            self._settle(f"no peer taught us within {RESYNC_S:.0f} seconds")

    def _settle(self, why: str) -> None:
        self.state = DONE
        self.until = None
        self._acts.append(Act("tell", text=f"tables are complete: {why}"))
