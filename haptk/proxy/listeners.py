"""Listening sockets: one per address and worker, bound with SO_REUSEPORT, kept over a reload so that no connection is lost.

A socket that came from outside (fd@N) or that cannot be bound twice (a unix path) is shared by all workers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from haptk.errors import CannotBind
from haptk.proxy import inherit
from haptk.proxy.tables import Bind, Frontend, KeepAlive

DEFAULT_BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn

Key = tuple[str, int, str, int, int]


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
        return bind.unix_path
    host = f"[{bind.host}]" if ":" in bind.host else bind.host or "*"
    return f"{host}:{bind.port}"


class Listeners:
    """The sockets of one process. `for_worker` opens what is missing; `retain` closes what no frontend wants now."""

    def __init__(self, inherited: list[socket.socket] | None = None) -> None:
        self._open: dict[Key, socket.socket] = {}
        self._inherited = inherited or []  # of the process before this one, until `settle`
        self._marks: dict[Key, tuple[int, int]] = {}  # device and inode of the unix paths that are ours
        self._paused: dict[Key, Bind] = {}
        self._binds: dict[Key, Bind] = {}

    def for_worker(self, frontends: tuple[Frontend, ...], worker: int) -> list[Opened]:
        """The sockets of every bind line; raises CannotBind."""
        found = []
        for index, frontend in enumerate(frontends):
            if frontend.disabled:
                continue
            for bind in frontend.binds:
                key = _key(bind, worker)
                if key not in self._open:
                    self._open[key] = self._listen(bind, frontend, key)
                elif key in self._paused:
                    self._resume(key, frontend)
                _tune(self._open[key], frontend)
                self._binds[key] = bind
                found.append(Opened(self._open[key], index, bool(bind.unix_path) or bind.fd >= 0, bind))
        return found

    def settle(self) -> None:
        """Close what was inherited and no bind line wanted."""
        inherit.close(self._inherited)

    def give_away(self) -> list[socket.socket]:
        """What the next process may go on accepting on; unix paths are its own from now on."""
        self._marks.clear()
        return [sock for key, sock in self._open.items() if key[3] < 0]

    def retain(self, frontends: tuple[Frontend, ...], workers: int) -> None:
        """Close the sockets that no bind line of `frontends` names."""
        wanted = {_key(bind, worker) for frontend in frontends for bind in frontend.binds for worker in range(workers)}
        for key in [key for key in self._open if key not in wanted]:
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
        for sock in self._open.values():
            name = sock.getsockname()
            text = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
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

    def _listen(self, bind: Bind, frontend: Frontend, key: Key) -> socket.socket:
        try:
            if bind.fd >= 0:
                return socket.socket(fileno=os.dup(bind.fd))
            if (found := self._from_before(bind)) is not None:
                if bind.unix_path:
                    self._marks[key] = mark(Path(bind.unix_path))
                found.listen(_backlog(bind, frontend))
                return found
            if bind.unix_path:
                sock, self._marks[key] = listen_unix(bind, bind.backlog or DEFAULT_BACKLOG)
                return sock
            return _listen_tcp(bind, frontend)
        except OSError as error:
            where = f"{bind.line}: " if bind.line else ""
            raise CannotBind(address=describe(bind), why=f"{where}{error.strerror or error}") from error

    def _from_before(self, bind: Bind) -> socket.socket | None:
        family = socket.AF_UNIX if bind.unix_path else socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        for sock in self._inherited:
            if inherit.matches(sock, family, bind.host or "0.0.0.0", bind.port, bind.unix_path, v6only=bind.v6only):
                if bind.unix_path:
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


def mark(path: Path) -> tuple[int, int]:
    """What tells a file at `path` from another one that takes its place."""
    found = path.stat()
    return (found.st_dev, found.st_ino)


def unlink(path: str, ours: tuple[int, int]) -> None:
    """Remove a unix path unless another process has taken it over."""
    with contextlib.suppress(OSError):
        if mark(Path(path)) == ours:
            Path(path).unlink()


def _set_rights(path: Path, bind: Bind) -> None:
    if bind.uid is not None or bind.gid is not None:
        os.chown(path, -1 if bind.uid is None else bind.uid, -1 if bind.gid is None else bind.gid)
    if bind.mode is not None:
        path.chmod(bind.mode)


def listen_unix(bind: Bind, backlog: int) -> tuple[socket.socket, tuple[int, int]]:
    """A listening unix socket and the mark of its path; raises OSError.

    It is made beside its path with its final rights and then renamed over it: a file that a killed process left is
    replaced, no moment exists in which others may connect or nobody can, and a file that is no socket is not touched.
    """
    path = Path(bind.unix_path)
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(17, "there is a file that is no socket")
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        beside.unlink(missing_ok=True)
        sock.bind(str(beside))
        _set_rights(beside, bind)
        sock.listen(backlog)
        found = mark(beside)
        beside.rename(path)
    except OSError:
        sock.close()
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    return sock, found
