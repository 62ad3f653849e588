"""The sockets of the peers protocol: one thread that follows core.peers.node, and one that listens for the tables' bell.

Workers have no descriptors in common with this thread, so they ring a bell; a small thread waits for it and writes to an
eventfd. The bell is armed only while nobody is awake and at most every few milliseconds, so that a busy table costs its
workers next to nothing.

What goes wrong with one connection ends that connection; what goes wrong with all of them ends all, and the section
begins anew. A peer that does not read what it is sent is not read from.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haptk.core.peers import updates, wire
from haptk.core.peers.door import Door
from haptk.core.peers.node import DONE, REMOTE, Node
from haptk.core.peers.session import HEARTBEAT_S, Shared
from haptk.errors import CannotBind
from haptk.io import clock
from haptk.proxy import supervise
from haptk.proxy.names import look_up
from haptk.proxy.sticktables import Stores
from haptk.proxy.tables import Peers, ProxyTables

log = logging.getLogger("haptk.proxy")
REST_S = 0.003  # between two rounds of pushing: changes that come together leave together
READ = 262144
QUEUED = 1 << 20  # bytes that may wait for a peer that reads slowly
HAND_OVER_S = 5.0
DIAL_S = 5.0
NAMES_S = 10.0  # between two looks at the names of peers
REST_AFTER_S = 0.5  # without accepting, when there are no descriptors or no memory


@dataclass
class Connection:
    """A socket, what waits to be written to it, and whether it is still being opened."""

    channel: socket.socket
    dialling: str = ""
    output: bytearray = field(default_factory=bytearray)
    since: float = 0.0
    watched: int = 0  # what the selector looks for


class Peering:
    """One `peers` section of one process. `start` and `stop` once each; `hand_over` before `stop` of a leaving process."""

    def __init__(
        self, section: Peers, local: str, tables: Sequence[Shared], *, predecessor: bool = False,
        before: Peering | None = None,
    ) -> None:  # fmt: skip
        self.section = section
        self.local = local
        self.began = clock.wall()
        self.tables = tables
        self._places = {name: (host, port) for name, host, port in section.members}
        self._bell = _bell()
        for shared in tables:
            shared.table.listen(self._bell)  # type: ignore[attr-defined]
        acked = {name: line.acked for name, line in before._node.lines.items()} if before is not None else None
        self._addresses = {name: {host} for name, (host, _) in self._places.items()}
        self._door = Door(self._all_addresses())
        self._node: Node = self._make_node(acked, predecessor=predecessor)
        self._listener: socket.socket | None = _listen(section, self._places[local])
        self._rest_until = 0.0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, -2)
        self._open: dict[int, Connection] = {}
        self._number = 0
        self._ending = threading.Event()
        self._leaving = False
        self._armed = True
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"peers-{section.name}", daemon=True),
            threading.Thread(target=self._listen_to_bell, name=f"bell-{section.name}", daemon=True),
        ]
        if section.hostnames:
            self._threads.append(threading.Thread(target=self._follow_names, name="peer-names", daemon=True))

    def _make_node(self, acked: Mapping[str, Mapping[str, int]] | None, *, predecessor: bool = False) -> Node:
        return Node(
            self.local, self._places, self.tables, clock.monotonic(), jitter=random.random, pid=os.getpid(),
            predecessor=predecessor, acked=acked, **_codec(self.tables),
        )  # fmt: skip

    def _all_addresses(self) -> set[str]:
        return set().union(*self._addresses.values())

    # -- for the daemon ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen and to dial."""
        self._node.pid = os.getpid()  # a daemon is another process than the one that has read the file
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close everything; returns when both threads have ended."""
        self._ending.set()
        self._bell.ring()
        self._poke()
        for thread in self._threads:
            thread.join(10)

    def hand_over(self) -> None:
        """Teach the process that replaces this one, as far as it comes within a few seconds."""
        self._leaving = True
        self._poke()
        deadline = clock.monotonic() + HAND_OVER_S
        while not self._node.handed_over and clock.monotonic() < deadline:
            clock.sleep(0.01)

    def report(self) -> dict[str, Any]:
        """What people want to know: the state, and each peer with its connection."""
        with self._lock:
            members = [self._member(name) for name in self._places]
            return {
                "section": self.section.name, "local": self.local, "state": self._node.state, "began": self.began,
                "peers": members,
            }  # fmt: skip

    def _member(self, name: str) -> dict[str, Any]:
        host, port = self._places[name]
        line = self._node.lines.get(name)
        session = self._node.sessions.get(line.connection) if line is not None else None
        status = "NONE" if session is None else "ESTA" if session.up else "CONN"
        if line is not None and line.dialling:
            status = "CONN"
        acked = line.acked if line is not None else {}
        return {
            "name": name, "address": f"{host}:{port}", "status": status, "connections": int(session is not None),
            "age_s": session.age_s(clock.monotonic()) if session is not None else -1.0, "heartbeat": f"{HEARTBEAT_S:g}s",
            "tables": [(one.name, one.table.seq, acked.get(one.name, 0)) for one in self.tables],
        }  # fmt: skip

    @property
    def complete(self) -> bool:
        """Whether all there is to learn was learned."""
        return self._node.state == DONE

    @property
    def alive(self) -> bool:
        """False when its thread has ended; `start` comes first."""
        return self._threads[0].is_alive()

    # -- threads -------------------------------------------------------------------------------------------------

    def _poke(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def _listen_to_bell(self) -> None:
        while not self._ending.is_set():
            if self._bell.wait(1000) and not self._ending.is_set():
                self._poke()

    def _follow_names(self) -> None:
        supervise.keep(f"looking up the peers of {self.section.name}", self._look_names_up, self._ending)

    def _look_names_up(self) -> None:
        """A peer whose line has a name is where the name leads now, and may come from all its addresses."""
        if self._ending.wait(NAMES_S):
            return
        for name, hostname in self.section.hostnames:
            found = look_up(hostname)
            if not found:
                continue
            with self._lock:
                host, port = self._places[name]
                self._addresses[name] = set(found)
                if host not in found and name != self.local:
                    self._places[name] = (found[0], port)
                self._door.allow(self._all_addresses())

    def _run(self) -> None:
        supervise.keep(f"the peers section {self.section.name}", self._turn, self._ending, self._begin_anew)
        for connection in list(self._open):
            self._hang_up(connection)
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        os.close(self._wake)

    def _begin_anew(self) -> None:
        """All connections end; what the peers have confirmed is remembered."""
        with self._lock:
            acked = {name: line.acked for name, line in self._node.lines.items()}
            for connection in list(self._open):
                self._hang_up(connection)
            leaving = self._node.handing_over
            self._node = self._make_node(acked)
            if leaving:
                self._node.hand_over(clock.monotonic())

    def _turn(self) -> None:
        node = self._node
        with self._lock:
            if self._leaving and not node.handing_over:
                self._stop_listening()
                node.hand_over(clock.monotonic())
            self._give_dials_up(clock.monotonic())
            node.handle_timer(clock.monotonic())
            self._act()
            busy = self._talk()
            self._act()
            self._watch_listener(clock.monotonic())
        if not busy:
            self._bell.arm()
            # what changed before the bell was armed did not ring it
            busy = bool(set(node.wants_to_send()) & self._idle())
        for key, events in self._selector.select(0 if busy else self._wait_s(clock.monotonic())):
            with self._lock:
                self._event(key.data, events)

    def _wait_s(self, now: float) -> float:
        times = [one.since + DIAL_S for one in self._open.values() if one.dialling]
        times += [self._rest_until] if self._rest_until > now else []
        due = self._node.timer_at()
        if due is not None:
            times.append(due)
        return max(0.0, min(times, default=now + 60.0) - now)

    def _idle(self) -> set[int]:
        """The connections whose peer takes more."""
        return {number for number, one in self._open.items() if not one.output}

    def _event(self, number: int, events: int) -> None:
        now = clock.monotonic()
        if number == -1:
            self._accept(now)
        elif number == -2:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        elif number in self._open:
            try:
                if events & selectors.EVENT_WRITE:
                    self._writable(number, now)
                if events & selectors.EVENT_READ and number in self._open and not self._open[number].dialling:
                    self._read(number, now)
            except Exception as error:
                self._broken(number, error)

    def _broken(self, number: int, error: Exception) -> None:
        """An exception about one connection."""
        log.error("peers %s: a connection is closed after %r", self.section.name, error, exc_info=error)
        self._node.broken(number, clock.monotonic())
        self._act()
        self._hang_up(number)

    def _act(self) -> None:
        while (act := self._node.next_event()) is not None:
            if act.what == "dial":
                self._dial(act.peer)
            elif act.what == "hang up":
                self._hang_up(act.connection, act.data)
            else:
                log.info("peers %s: %s", self.section.name, act.text)

    # -- sockets -------------------------------------------------------------------------------------------------

    def _add(self, channel: socket.socket, dialling: str = "") -> int:
        channel.setblocking(False)
        if channel.family != socket.AF_UNIX:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number += 1
        self._open[self._number] = Connection(channel, dialling, since=clock.monotonic())
        self._look_for(self._number)
        return self._number

    def _look_for(self, number: int) -> None:
        """Have the selector look for what is wanted of a connection now."""
        one = self._open[number]
        events = selectors.EVENT_WRITE if one.dialling or one.output else 0
        if not one.dialling and len(one.output) < QUEUED:
            events |= selectors.EVENT_READ
        if events == one.watched:
            return
        (self._selector.modify if one.watched else self._selector.register)(one.channel, events, number)
        one.watched = events

    def _watch_listener(self, now: float) -> None:
        """Accept, but for a moment after that was impossible: the listener would be ready again at once."""
        if self._listener is None:
            return
        known = self._listener in self._selector.get_map()
        if known and now < self._rest_until:
            self._selector.unregister(self._listener)
        elif not known and now >= self._rest_until:
            self._selector.register(self._listener, selectors.EVENT_READ, -1)

    def _accept(self, now: float) -> None:
        if self._listener is None:
            return
        try:
            channel, place = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("peers %s: a connection was not accepted: %s", self.section.name, error.strerror or error)
            self._rest_until = now + REST_AFTER_S
            return
        if not self._door.admits(str(place[0])):
            channel.close()
            return
        number = self._add(channel)
        self._node.accepted(number, now)
        gives_way = self._door.came(number, str(place[0]))
        if gives_way is not None:
            self._node.receive(gives_way, b"", now)
            self._act()
            self._hang_up(gives_way)

    def _dial(self, peer: str) -> None:
        host, port = self._places[peer]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        channel = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        channel.setblocking(False)
        self._from_our_line(channel, family)
        try:
            channel.connect((host, port))
        except BlockingIOError:
            pass
        except OSError:
            channel.close()
            self._node.failed(peer, clock.monotonic())
            return
        self._add(channel, peer)

    def _from_our_line(self, channel: socket.socket, family: int) -> None:
        """Come from the address of our own `peer` line, the only one that the other side takes us from."""
        own = self._places[self.local][0]
        if own not in ("0.0.0.0", "::") and (":" in own) == (family == socket.AF_INET6):
            with contextlib.suppress(OSError):
                channel.bind((own, 0))

    def _give_dials_up(self, now: float) -> None:
        """Connections that do not come into being."""
        for number, one in list(self._open.items()):
            if one.dialling and now >= one.since + DIAL_S:
                self._hang_up(number)
                self._node.failed(one.dialling, now)

    def _writable(self, number: int, now: float) -> None:
        one = self._open[number]
        if one.dialling:
            peer, one.dialling = one.dialling, ""
            if one.channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._hang_up(number)
                self._node.failed(peer, now)
                return
            self._look_for(number)
            self._node.connected(number, peer, now)
            return
        self._flush(number)

    def _read(self, number: int, now: float) -> None:
        try:
            data = self._open[number].channel.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._node.receive(number, data, now)
        session = self._node.sessions.get(number)
        if session is None or session.up:
            self._door.left(number)
        self._act()

    def _talk(self) -> bool:
        """Write what there is to say; whether there may be more at once."""
        busy = False
        now = clock.monotonic()
        for number in self._node.wants_to_send():
            one = self._open.get(number)
            if one is None or one.dialling or len(one.output) >= QUEUED:
                continue
            try:
                data = self._node.to_send(number, now)
                if data:
                    one.output += data
                    self._flush(number)
                    busy = busy or (number in self._open and not one.output)
            except Exception as error:
                self._broken(number, error)
        return busy

    def _flush(self, number: int) -> None:
        one = self._open[number]
        try:
            while one.output:
                sent = one.channel.send(memoryview(one.output)[:READ])
                del one.output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._node.receive(number, b"", clock.monotonic())
            self._act()
            return
        self._look_for(number)

    def _hang_up(self, number: int, data: bytes = b"") -> None:
        one = self._open.pop(number, None)
        self._door.left(number)
        if one is None:
            return
        with contextlib.suppress(OSError, BlockingIOError):
            if data:
                one.channel.send(data)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one.channel)
        one.channel.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None


def _listen(section: Peers, place: tuple[str, int]) -> socket.socket:
    host, port = place
    channel = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    )
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        channel.bind((host, port))
        channel.listen(16)
        channel.setblocking(False)
    except OSError as error:
        channel.close()
        raise CannotBind(address=f"{host}:{port}", why=f"peers {section.name}: {error.strerror or error}") from error
    return channel


def _bell() -> Any:
    from haptk._fast.table import Bell

    return Bell()


def _codec(tables: Sequence[Shared]) -> dict[str, Any]:
    """The compiled codec for compiled tables, else the readable one."""
    try:
        from haptk._fast.peerwire import Names, Stream
        from haptk._fast.table import Table
    except ImportError:
        return {}
    if all(isinstance(shared.table, Table) for shared in tables):
        return {"make": Stream, "names": Names}
    return {"make": updates.Stream, "names": updates.Names}


def shared_tables(section: str, tables: ProxyTables, stores: Stores) -> tuple[Shared, ...]:
    """The tables that a section replicates, numbered from 1."""
    found = []
    for number, table in enumerate((one for one in tables.stick_tables if one.peers == section), 1):
        fixed = {"ip": 4, "ipv6": 16, "integer": 4, "string": table.length + 1}
        size = fixed.get(table.type, table.length)
        store: Any = stores[table.name]
        found.append(Shared(table.wire_name or table.name, store, wire.KEY_TYPES[table.type], size, number))
    return tuple(found)


__all__ = ["REMOTE", "Peering", "shared_tables"]
