"""Listening sockets: one per address and worker, bound with SO_REUSEPORT, kept over a reload so that no connection is lost.

A socket that came from outside (fd@N) or that cannot be bound twice (a unix path) is shared by all workers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from haptk.errors import CannotBind
from haptk.io import descriptors
from haptk.proxy import inherit
from haptk.proxy.tables import Bind, Frontend, KeepAlive

DEFAULT_BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn

STATS_BACKLOG = 128

Key = tuple[str, int, str, int, int]
Mark = tuple[int, int]  # device and inode of a unix path that is ours
Opener = Callable[[int, int], tuple[socket.socket, Mark | None]]  # by the indices of frontend and bind line


class Opened(NamedTuple):
    """One listening socket for one worker: the frontend's index, whether other workers have it too, and its line."""

    socket: socket.socket
    frontend: int
    shared: bool
    bind: Bind


class OpenSocket(NamedTuple):
    """A listening socket for those who ask what is open."""

    fd: int
    worker: int
    bind: Bind
    paused: bool


def _key(bind: Bind, worker: int) -> Key:
    shared = bool(bind.unix_path) or bind.fd >= 0
    return (bind.host, bind.port, bind.unix_path, bind.fd, 0 if shared else worker)


def describe(bind: Bind) -> str:
    """The address as messages show it."""
    if bind.fd >= 0:
        return f"fd@{bind.fd}"
    if bind.unix_path:
        return shown_path(bind.unix_path)
    host = f"[{bind.host}]" if ":" in bind.host else bind.host or "*"
    return f"{host}:{bind.port}"


def shown_path(path: str) -> str:
    """A unix path for people; one that begins with a NUL byte is in the abstract namespace."""
    return f"abns@{path[1:].rstrip(chr(0))}" if path.startswith("\0") else path


class Listeners:
    """The sockets of one process. `for_worker` opens what is missing; `retain` closes what no frontend wants now."""

    def __init__(self, inherited: list[socket.socket] | None = None) -> None:
        self._open: dict[Key, socket.socket] = {}
        self._inherited = inherited or []  # of the process before this one, until `settle`
        self._marks: dict[Key, Mark] = {}  # of the unix paths that are ours
        self._paused: dict[Key, Bind] = {}
        self._binds: dict[Key, Bind] = {}
        self.opener: Opener | None = None  # who opens for us, once our privileges are gone

    def for_worker(self, frontends: tuple[Frontend, ...], worker: int, workers: int = 1) -> list[Opened]:
        """The sockets of every bind line for one of `workers`, beginning with number 0; raises CannotBind.

        Sockets of workers that are no more stay, and all workers accept on them: clients may be in their queues, and the
        kernel goes on putting some there.
        """
        found = []
        for index, frontend in enumerate(frontends):
            if frontend.disabled:
                continue
            for place, bind in enumerate(frontend.binds):
                key = _key(bind, worker)
                if worker == 0:
                    self._take_over(bind, frontend)
                if key not in self._open:
                    self._open[key] = self._listen(bind, frontend, key, (index, place))
                elif key in self._paused:
                    self._resume(key, frontend)
                _tune(self._open[key], frontend)
                self._binds[key] = bind
                found.append(Opened(self._open[key], index, bool(bind.unix_path) or bind.fd >= 0, bind))
                found += [Opened(sock, index, True, bind) for sock in self._left(bind, frontend, workers)]
        return found

    def _left(self, bind: Bind, frontend: Frontend, workers: int) -> Iterator[socket.socket]:
        """The sockets of a bind line that more workers once had."""
        for key in [key for key in self._open if key[:4] == _key(bind, 0)[:4] and key[4] >= workers]:
            if key in self._paused:
                self._resume(key, frontend)
            _tune(self._open[key], frontend)
            self._binds[key] = bind
            yield self._open[key]

    def _take_over(self, bind: Bind, frontend: Frontend) -> None:
        """Every socket of the process before this one for a bind line, however many workers it had."""
        number = 0
        while bind.fd < 0 and not bind.unix_path:
            key = _key(bind, number)
            if key not in self._open:
                sock = self._from_before(bind)
                if sock is None:
                    return
                with _cannot_bind(bind):
                    sock.listen(_backlog(bind, frontend))
                self._open[key], self._binds[key] = sock, bind
            number += 1

    def settle(self) -> None:
        """Close what was inherited and no bind line wanted."""
        inherit.close(self._inherited)

    def give_away(self) -> list[socket.socket]:
        """What the next process may go on accepting on; unix paths are its own from now on."""
        self._marks.clear()
        return [sock for key, sock in self._open.items() if key[3] < 0]

    def retain(self, frontends: tuple[Frontend, ...]) -> None:
        """Close the sockets that no bind line of `frontends` names."""
        wanted = {_key(bind, 0)[:4] for frontend in frontends for bind in frontend.binds}
        for key in [key for key in self._open if key[:4] not in wanted]:
            self._close(key)

    def pause(self, frontend: Frontend) -> None:
        """Refuse new connections to `frontend` without giving its addresses up."""
        for bind in frontend.binds:
            for key, sock in self._open.items():
                if key[:4] == _key(bind, 0)[:4] and key not in self._paused:
                    self._paused[key] = bind
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RD)

    def resume(self, frontend: Frontend) -> None:
        """Accept again."""
        for key, bind in list(self._paused.items()):
            if bind in frontend.binds:
                self._resume(key, frontend)

    def _resume(self, key: Key, frontend: Frontend) -> None:
        bind = self._paused.pop(key)
        self._open[key].listen(bind.backlog or max(DEFAULT_BACKLOG, frontend.maxconn))

    def close(self) -> None:
        """Close all; unix paths that are still ours are removed."""
        for key in list(self._open):
            self._close(key)

    def opened(self) -> list[OpenSocket]:
        """Every socket that listens, or would if it were not paused."""
        return [
            OpenSocket(sock.fileno(), key[-1], self._binds[key], key in self._paused)
            for key, sock in self._open.items()
        ]

    def addresses(self) -> list[str]:
        """host:port or path of every open socket, once each."""
        found = []
        for key, sock in self._open.items():
            name = sock.getsockname()
            # a unix socket was renamed since it was bound
            text = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else describe(self._binds[key])
            if text not in found:
                found.append(text)
        return found

    def _close(self, key: Key) -> None:
        sock = self._open.pop(key)
        self._paused.pop(key, None)
        if key in self._marks:
            unlink(key[2], self._marks.pop(key))
        self._binds.pop(key, None)
        sock.close()

    def _listen(self, bind: Bind, frontend: Frontend, key: Key, place: tuple[int, int]) -> socket.socket:
        with _cannot_bind(bind):
            if bind.fd < 0 and (sock := self._from_before(bind)) is not None:
                found = mark(Path(bind.unix_path)) if bind.unix_path and not bind.unix_path.startswith("\0") else None
                sock.listen(_backlog(bind, frontend))
            elif bind.fd < 0 and self.opener is not None:
                sock, found = self.opener(*place)
            else:
                sock, found = open_listener(bind, frontend)
        if found is not None:
            self._marks[key] = found
        return sock

    def _from_before(self, bind: Bind) -> socket.socket | None:
        family = socket.AF_UNIX if bind.unix_path else socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        for sock in self._inherited:
            if inherit.matches(sock, family, bind.host or "0.0.0.0", bind.port, bind.unix_path, v6only=bind.v6only):
                if bind.unix_path and not bind.unix_path.startswith("\0"):
                    _set_rights(Path(bind.unix_path), bind)
                self._inherited.remove(sock)
                return sock
        return None


def _backlog(bind: Bind, frontend: Frontend) -> int:
    return bind.backlog or frontend.backlog or max(DEFAULT_BACKLOG, frontend.maxconn)


def _tune(sock: socket.socket, frontend: Frontend) -> None:
    """What accepted sockets inherit from this one; done at every load, because a kept socket has the old file's."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(frontend.nolinger), 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(frontend.tcpka is not None))
    set_keepalive(sock, frontend.tcpka)


def set_keepalive(sock: socket.socket, wanted: KeepAlive | None) -> None:
    """Set the three values of a TCP socket that are not the system's."""
    for option, value in (
        (socket.TCP_KEEPCNT, wanted.probes if wanted else 0),
        (socket.TCP_KEEPIDLE, wanted.idle_s if wanted else 0),
        (socket.TCP_KEEPINTVL, wanted.interval_s if wanted else 0),
    ):
        if value:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


@contextlib.contextmanager
def _cannot_bind(bind: Bind) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{bind.line}: " if bind.line else ""
        raise CannotBind(address=describe(bind), why=f"{where}{error.strerror or error}") from error


def open_listener(bind: Bind, frontend: Frontend) -> tuple[socket.socket, Mark | None]:
    """A new listening socket for one bind line, and the mark of its unix path; raises CannotBind."""
    with _cannot_bind(bind):
        if bind.fd >= 0:
            return socket.socket(fileno=descriptors.duplicate(bind.fd)), None
        if bind.unix_path:
            return listen_unix(bind, bind.backlog or DEFAULT_BACKLOG)
        return _listen_tcp(bind, frontend), None


def open_stats_socket(bind: Bind) -> tuple[socket.socket, Mark | None]:
    """A new listening socket for one `stats socket` line; raises CannotBind."""
    with _cannot_bind(bind):
        if bind.fd >= 0:
            return socket.socket(fileno=descriptors.duplicate(bind.fd)), None
        if bind.unix_path:
            return listen_unix(bind, bind.backlog or STATS_BACKLOG)
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        return socket.create_server((bind.host, bind.port), family=family, backlog=STATS_BACKLOG), None


def _listen_tcp(bind: Bind, frontend: Frontend) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bind.v6only))
        # accepted sockets inherit both on Linux: no system call per connection
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((bind.host or "0.0.0.0", bind.port))
        sock.listen(_backlog(bind, frontend))
    except OSError:
        sock.close()
        raise
    return sock


def mark(path: Path) -> Mark:
    """What tells a file at `path` from another one that takes its place."""
    found = path.lstat()
    return (found.st_dev, found.st_ino)


def unlink(path: str, ours: Mark) -> None:
    """Remove a unix path unless another process has taken it over."""
    with contextlib.suppress(OSError):
        if mark(Path(path)) == ours:
            Path(path).unlink()


def _set_rights(path: Path, bind: Bind) -> None:
    """Owner and mode of a socket's path. Neither follows a link that somebody else may have put in its place."""
    if bind.uid is not None or bind.gid is not None:
        os.chown(
            path, -1 if bind.uid is None else bind.uid, -1 if bind.gid is None else bind.gid, follow_symlinks=False
        )
    if bind.mode is not None and stat.S_IMODE(path.lstat().st_mode) != bind.mode:
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISSOCK(os.fstat(found).st_mode):
                Path(f"/proc/self/fd/{found}").chmod(bind.mode)
        finally:
            os.close(found)


def listen_unix(bind: Bind, backlog: int) -> tuple[socket.socket, Mark | None]:
    """A listening unix socket and the mark of its path (none in the abstract namespace); raises OSError.

    It is made beside its path with its final rights and then renamed over it: a file that a killed process left is
    replaced, no moment exists in which others may connect or nobody can, and a file that is not a socket is not touched,
    unless it is empty: `socat stdio PATH`, as monitoring scripts run it, makes one where it finds no socket.
    The mode is that of the socket itself before it has a name, so that nothing is changed through the path.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    if bind.unix_path.startswith("\0"):
        with _closed_if_failing(sock):
            sock.bind(os.fsencode(bind.unix_path))
            sock.listen(backlog)
        return sock, None
    path = Path(bind.unix_path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with _closed_if_failing(sock):
        with contextlib.suppress(FileNotFoundError):
            there = path.lstat()
            if not stat.S_ISSOCK(there.st_mode) and not (stat.S_ISREG(there.st_mode) and there.st_size == 0):
                raise FileExistsError(17, "the file there is not a socket")
        beside.unlink(missing_ok=True)
        if bind.mode is None:
            sock.bind(str(beside))
        else:
            os.fchmod(sock.fileno(), bind.mode)
            before = os.umask(0)
            try:
                sock.bind(str(beside))
            finally:
                os.umask(before)
        try:
            _set_rights(beside, bind)
            sock.listen(backlog)
            found = mark(beside)
            beside.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    return sock, found


@contextlib.contextmanager
def _closed_if_failing(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        sock.close()
        raise
