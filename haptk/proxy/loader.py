"""The process that keeps the privileges: it reads the configuration again and opens what a reload adds.

A proxy under `chroot`, `user` or `group` can neither read its files again nor bind a port below 1024. HAProxy leaves that
to its master process; here it is a small child, forked before the first socket is open. It serves no traffic and obeys
three requests of fixed size from the process that does: read the files, open the N-th address of the M-th frontend, open
the N-th stats socket, both of the configuration that it read last. So a proxy that was taken over can make it do nothing
that is not written in the files. Its answers are pickled; they are only ever read by the less privileged side. It ends
with the other end of its channel.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, NoReturn

from haptk.errors import HaptkError, InternalError, NotRunning
from haptk.io.process import name_process
from haptk.proxy.listeners import Mark, open_listener, open_stats_socket
from haptk.proxy.tables import ProxyTables

LOAD, LISTEN, STATS = b"L", b"B", b"S"
_REQUEST = struct.Struct("=cII")
_LENGTH = struct.Struct("=Q")
NAME = "haptk-loader"
IGNORED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGTTIN", "SIGTTOU", "SIGPIPE")


def wanted(tables: ProxyTables) -> bool:
    """Whether the process will lose what a reload needs."""
    process = tables.process
    return bool(process.chroot) or process.uid not in (None, os.geteuid()) or process.gid not in (None, os.getegid())


class Loader:
    """The serving process's end. `load` may raise any HaptkError of the files; the others raise CannotBind."""

    def __init__(self, load: Callable[[], ProxyTables]) -> None:
        self._channel, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._channel.close()
            _serve(theirs, load)
        theirs.close()

    def load(self) -> ProxyTables:
        """Read the files again."""
        tables = self._ask(LOAD)[0]
        assert isinstance(tables, ProxyTables)  # noqa: S101 (for mypy; the loader sends nothing else)
        return tables

    def listen(self, frontend: int, bind: int) -> tuple[socket.socket, Mark | None]:
        """The listening socket of one bind line of what was loaded last."""
        return self._socket(LISTEN, frontend, bind)

    def stats_socket(self, index: int) -> tuple[socket.socket, Mark | None]:
        """The same for a `stats socket` line."""
        return self._socket(STATS, index)

    def _socket(self, what: bytes, first: int, second: int = 0) -> tuple[socket.socket, Mark | None]:
        found, descriptors = self._ask(what, first, second)
        if len(descriptors) != 1:
            raise InternalError(what="the loader sent no socket")
        return socket.socket(fileno=descriptors[0]), found

    def _ask(self, what: bytes, first: int = 0, second: int = 0) -> tuple[Any, list[int]]:
        try:
            self._channel.sendall(_REQUEST.pack(what, first, second))
            head, descriptors, _, _ = socket.recv_fds(self._channel, _LENGTH.size, 1, socket.MSG_CMSG_CLOEXEC)
            length = _LENGTH.unpack(head)[0]
            data = _exactly(self._channel, length)
        except (OSError, EOFError, struct.error) as error:
            raise NotRunning(
                what="the process that reads the configuration", advice="restart the proxy; what runs goes on"
            ) from error
        answer = pickle.loads(data)  # noqa: S301 (from the process that has more rights than we have)
        if isinstance(answer, _Failure):
            raise answer.error()
        return answer, descriptors


class _Failure:
    """An exception on its way between processes; HaptkError has keyword arguments, which pickle does not know."""

    def __init__(self, error: Exception) -> None:
        self.kind = type(error)
        self.fields = error.fields if isinstance(error, HaptkError) else None
        self.args = error.args

    def error(self) -> Exception:
        return self.kind(*self.args) if self.fields is None else self.kind(**self.fields)


def _exactly(channel: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = channel.recv(min(length - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _serve(channel: socket.socket, load: Callable[[], ProxyTables]) -> NoReturn:
    """The child's life."""
    code = 1
    try:
        _become_quiet(channel)
        with contextlib.suppress(EOFError, OSError):
            _answer_all(channel, load)
        code = 0
    finally:
        os._exit(code)


def _become_quiet(channel: socket.socket) -> None:
    """No signal of a group ends it before the one it serves, and it holds nothing that others wait to see closed."""
    for name in IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setsid()
    name_process(NAME)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _answer_all(channel: socket.socket, load: Callable[[], ProxyTables]) -> None:
    tables: ProxyTables | None = None
    while True:
        what, first, second = _REQUEST.unpack(_exactly(channel, _REQUEST.size))
        opened: socket.socket | None = None
        answer: Any
        try:
            if what == LOAD:
                answer = tables = load()
            elif tables is None:
                raise InternalError(what="nothing was loaded yet")
            elif what == LISTEN:
                frontend = tables.frontends[first]
                opened, answer = open_listener(frontend.binds[second], frontend)
            else:
                opened, answer = open_stats_socket(tables.process.stats_sockets[first])
        except Exception as error:
            answer = _Failure(error)
        try:
            data = pickle.dumps(answer)
        except Exception as error:
            data = pickle.dumps(_Failure(InternalError(what=f"what the loader found cannot be sent: {error}")))
        descriptors = [opened.fileno()] if opened is not None else []
        socket.send_fds(channel, [_LENGTH.pack(len(data))], descriptors)
        channel.sendall(data)
        if opened is not None:
            opened.close()
