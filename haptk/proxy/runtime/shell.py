"""The sockets of the runtime API, served by one thread of their own: nothing here runs in, or waits for, the data path.

No client can hold up another: sockets do not block, a client gets a few commands a turn, is not read while it does not
take its answers, and is closed after `stats timeout` without progress. Beyond `stats maxconn` clients wait in the
kernel's queue. A socket is made beside its path with its final rights and then renamed over it, so that a file that a
killed process left is replaced and no moment exists in which others may connect.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from haptk.errors import HaptkError
from haptk.io import clock
from haptk.proxy import inherit, supervise
from haptk.proxy.listeners import Mark, describe, open_stats_socket, unlink
from haptk.proxy.runtime.dialog import Dialog
from haptk.proxy.runtime.world import Visitor, World
from haptk.proxy.tables import Bind, Process

PENDING_BYTES = 1 << 18  # of answers that a client has not taken; then it gets no more
FOLLOW_S = 0.1  # between two looks at a ring, for `show events -w`
COMMANDS_A_TURN = 4
REST_AFTER_S = 0.5  # without accepting, when there are no descriptors or no memory
READ_BYTES = 16384
log = logging.getLogger("haptk.proxy")

Look = Callable[[], World]


@dataclass(eq=False)
class Door:
    """One listening socket; `mark` is (device, inode) of its path while that is ours."""

    bind: Bind
    sock: socket.socket
    mark: Mark | None = None


@dataclass(eq=False)
class Client:
    """One connection."""

    sock: socket.socket
    dialog: Dialog
    active_at: float
    out: bytearray = field(default_factory=bytearray)
    since: float = field(default_factory=clock.monotonic)
    deaf: bool = False  # its end of stream was read
    exposed: bool = False  # it may have the listening sockets


class Runtime:
    """`open` the sockets while rights are there, `start` once, `open` and `retain` at a reload, `stop_listening`, `stop`."""

    def __init__(self, look: Look, give_away: Callable[[], list[socket.socket]]) -> None:
        self.look = look
        self.give_away = give_away
        self.opener: Callable[[int], tuple[socket.socket, Mark | None]] | None = None  # once our privileges are gone
        self.timeout_s = 10.0
        self.maxconn = 10
        self._doors: list[Door] = []
        self._retired: list[Door] = []
        self._clients: set[Client] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._rest_until = 0.0
        self._changed = True
        self._ours, self._wake = socket.socketpair()
        self._ours.setblocking(False)
        self._wake.setblocking(False)

    @property
    def binds(self) -> list[Bind]:
        """The bind lines that are open."""
        with self._lock:
            return [door.bind for door in self._doors]

    @property
    def visitors(self) -> list[Visitor]:
        """Who is connected; for the thread that serves them."""
        return [Visitor(id(client), client.sock.fileno(), client.since) for client in list(self._clients)]

    def open(self, process: Process) -> None:
        """Open what `process` wants and is not open yet; raises CannotBind, and then nothing has changed."""
        fresh: list[Door] = []
        try:
            for index, bind in enumerate(process.stats_sockets):
                if not any(_same(bind, open_now) for open_now in self.binds):
                    fresh.append(self._listen(index, bind))
        except HaptkError:
            for door in fresh:
                self._retire(door)
            raise
        with self._lock:
            self._doors += fresh
        self._configure(process)

    def _listen(self, index: int, bind: Bind) -> Door:
        sock, found = open_stats_socket(bind) if self.opener is None or bind.fd >= 0 else self.opener(index)
        sock.setblocking(False)
        return Door(bind, sock, found)

    def retain(self, process: Process) -> None:
        """Close what `process` does not want, and take its levels, time-out and limit."""
        with self._lock:
            for door in list(self._doors):
                wanted = next((bind for bind in process.stats_sockets if _same(bind, door.bind)), None)
                if wanted is None:
                    self._doors.remove(door)
                    self._retire(door)
                else:
                    door.bind = wanted
        self._configure(process)

    def _configure(self, process: Process) -> None:
        self.timeout_s, self.maxconn = process.stats_timeout_s, process.stats_maxconn
        self._nudge()

    def _retire(self, door: Door) -> None:
        """Remove the path now; the thread closes the socket, because a selector must not lose one that it watches."""
        _unlink(door)
        if self._thread is None:
            door.sock.close()
        else:
            self._retired.append(door)

    def _nudge(self) -> None:
        self._changed = True
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def start(self) -> None:
        """Begin to serve, after all forks."""
        self._thread = threading.Thread(target=self._run, name="runtime", daemon=True)
        self._thread.start()

    def stop_listening(self) -> None:
        """No new clients; those that are connected may go on asking."""
        with self._lock:
            for door in self._doors:
                self._retire(door)
            self._doors = []
        self._nudge()

    def stop(self) -> None:
        """End everything."""
        self.stop_listening()
        self._stopping.set()
        self._nudge()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    # -- the thread

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            watched: dict[int, Door] = {}
            busy = [False]

            def once() -> None:
                if self._changed:
                    self._changed = False
                    self._watch(selector, watched)
                for key, events in selector.select(0 if busy[0] else self._patience_s()):
                    self._event(selector, key, events)
                busy[0] = self._turn(selector)
                self._watch(selector, watched)

            def begin_anew() -> None:
                for client in list(self._clients):
                    self._drop(selector, client)
                busy[0] = False

            supervise.keep("the runtime API", once, self._stopping, begin_anew)
            self._watch(selector, watched)
            begin_anew()

    def _patience_s(self) -> float | None:
        """How long to wait for something to happen: not long while somebody waits for events."""
        if self._rest_until:
            return REST_AFTER_S
        if any(client.dialog.caller.follow is not None for client in self._clients):
            return FOLLOW_S
        return 1.0 if self._clients else None

    def _watch(self, selector: selectors.BaseSelector, watched: dict[int, Door]) -> None:
        """Listen on the doors that are open, and on none while there are too many clients."""
        with self._lock:
            if self._rest_until and clock.monotonic() >= self._rest_until:
                self._rest_until = 0.0
            full = len(self._clients) >= self.maxconn or self._rest_until
            wanted = {} if full else {id(door): door for door in self._doors}
        for key in [key for key in watched if key not in wanted]:
            door = watched.pop(key)
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(door.sock)
        while self._retired:
            self._retired.pop().sock.close()
        for key, door in wanted.items():
            if key not in watched:
                with contextlib.suppress(ValueError, OSError):
                    selector.register(door.sock, selectors.EVENT_READ, door)
                    watched[key] = door

    def _event(self, selector: selectors.BaseSelector, key: selectors.SelectorKey, events: int) -> None:
        if isinstance(key.data, Door):
            self._accept(selector, key.data)
        elif isinstance(key.data, Client):
            if events & selectors.EVENT_WRITE:
                self._write(selector, key.data)
            if events & selectors.EVENT_READ and key.data in self._clients:
                self._read(selector, key.data)
        else:
            with contextlib.suppress(OSError):
                self._ours.recv(4096)

    def _accept(self, selector: selectors.BaseSelector, door: Door) -> None:
        try:
            sock, _ = door.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors: the door would be ready again at once
            log.warning("a client of %s was not accepted: %s", describe(door.bind), error.strerror or error)
            self._rest_until = clock.monotonic() + REST_AFTER_S
            return
        sock.setblocking(False)
        client = Client(
            sock, Dialog(self.look, door.bind.level, self.timeout_s, door.bind.severity_output), clock.monotonic()
        )
        client.exposed = door.bind.expose_fd == "listeners"
        self._clients.add(client)
        selector.register(sock, selectors.EVENT_READ, client)

    def _read(self, selector: selectors.BaseSelector, client: Client) -> None:
        try:
            data = client.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(selector, client)
            return
        client.active_at = clock.monotonic()
        client.deaf = not data
        if data.strip() == inherit.COMMAND:
            if client.exposed:
                self._give(client)
            self._drop(selector, client)  # without a word where the line does not allow it, as HAProxy does
            return
        client.dialog.receive(data)

    def _give(self, client: Client) -> None:
        """The one command that waits for its client, as in HAProxy: it was asked for by whoever replaces us."""
        try:
            inherit.give(client.sock, self.give_away())
            log.info("gave the listening sockets to another process")
        except OSError as error:
            log.warning("the listening sockets were asked for and not taken: %s", error.strerror or error)

    def _write(self, selector: selectors.BaseSelector, client: Client) -> None:
        try:
            sent = client.sock.send(client.out)
        except BlockingIOError:
            return
        except OSError:
            self._drop(selector, client)
            return
        del client.out[:sent]
        client.active_at = clock.monotonic()

    def _turn(self, selector: selectors.BaseSelector) -> bool:
        """Let every client have a few commands obeyed; True when some have more to do at once."""
        busy = False
        now = clock.monotonic()
        for client in list(self._clients):
            waiting = self._obey(client)
            if client.out:
                self._write(selector, client)
            if client not in self._clients:
                continue
            ended = client.dialog.over and not client.out
            waits = client.dialog.caller.follow is not None
            if ended or (not waits and now - client.active_at > client.dialog.caller.timeout_s):
                self._drop(selector, client)
                continue
            stuck = len(client.out) >= PENDING_BYTES
            busy = busy or (waiting and not stuck)
            reading = not client.deaf and not client.dialog.over and not waiting and not stuck
            self._interest(selector, client, reading=reading)
        return busy

    def _obey(self, client: Client) -> bool:
        """Some commands of one client; True when more may be waiting."""
        for _ in range(COMMANDS_A_TURN):
            if len(client.out) >= PENDING_BYTES:
                return True
            try:
                answer = client.dialog.step()
            except Exception:
                log.exception("a runtime command failed")
                client.dialog.caller.over = True
                return False
            if answer is None:
                return False
            client.out += answer
        return True

    def _interest(self, selector: selectors.BaseSelector, client: Client, *, reading: bool) -> None:
        events = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if client.out else 0)
        known = selector.get_map().get(client.sock)
        if known is None:
            if events:
                selector.register(client.sock, events, client)
        elif not events:
            selector.unregister(client.sock)
        elif known.events != events:
            selector.modify(client.sock, events, client)

    def _drop(self, selector: selectors.BaseSelector, client: Client) -> None:
        self._clients.discard(client)
        with contextlib.suppress(KeyError, ValueError):
            selector.unregister(client.sock)
        client.sock.close()


# -- sockets -----------------------------------------------------------------------------------------------------------


def _same(one: Bind, other: Bind) -> bool:
    """Whether two lines mean one socket with the same rights."""
    keys = ("host", "port", "unix_path", "fd", "mode", "uid", "gid")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _unlink(door: Door) -> None:
    """Remove the path unless another process has taken it over."""
    if door.mark is not None:
        unlink(door.bind.unix_path, door.mark)
