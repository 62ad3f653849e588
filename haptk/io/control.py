"""The control socket of a daemon: one JSON object a line each way over a unix socket whose mode is the permission.

`Server` is for a selectors loop (the daemon registers `fileno()` and calls `accept`); `call` is the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haptk.errors import AlreadyRunning, CannotBind, NotPermitted, NotRunning, PeerError, PeerTimeout

MAX_REQUEST_BYTES = 65536
Reply = dict[str, Any]
Handler = Callable[[dict[str, Any]], Reply]


def call(path: Path, request: dict[str, Any], *, timeout_s: float = 5.0, what: str = "the daemon") -> Reply:
    """Send one request, return the answer.

    Raises NotRunning when nobody listens, NotPermitted, PeerTimeout, or PeerError with the daemon's own sentence
    when its answer has an `error`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(timeout_s)
        try:
            channel.connect(str(path))
            channel.sendall(json.dumps(request).encode() + b"\n")
            answer = _read_line(channel)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(what=what, advice=f"nobody answers on {path}") from error
        except PermissionError as error:
            raise NotPermitted(what=f"talk to {path}", why="ask its owner or root") from error
        except TimeoutError as error:
            raise PeerTimeout(peer=what, timeout_s=timeout_s, why=f"on {path}") from error
        except OSError as error:
            raise PeerError(peer=what, why=f"{path}: {error.strerror}") from error
    try:
        reply = json.loads(answer)
    except ValueError as error:
        raise PeerError(peer=what, why=f"sent no JSON on {path}: {answer[:80]!r}") from error
    if not isinstance(reply, dict):
        raise PeerError(peer=what, why=f"sent no JSON object on {path}")
    if "error" in reply:
        raise PeerError(peer=what, why=str(reply["error"]))
    return reply


def _read_line(channel: socket.socket) -> bytes:
    parts = []
    while True:
        part = channel.recv(65536)
        parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)


class Server:
    """Listens on `path` with `mode`; a stale socket of a dead daemon is replaced, a live one is refused."""

    def __init__(self, path: Path, handler: Handler, *, mode: int = 0o600, what: str = "the daemon") -> None:
        self.path = path
        self.handler = handler
        self._refuse_live_owner(what)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o777 & ~mode)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            raise CannotBind(address=path, why=error.strerror) from error
        finally:
            os.umask(before)
        self._socket.listen(16)
        self._socket.setblocking(False)
        self._inode = path.stat().st_ino

    def _refuse_live_owner(self, what: str) -> None:
        try:
            if not stat.S_ISSOCK(self.path.stat().st_mode):
                raise CannotBind(address=self.path, why="something that is not a socket is there")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.path))
            except OSError:
                self.path.unlink(missing_ok=True)
                return
        raise AlreadyRunning(what=what, pid="unknown", advice=f"it answers on {self.path}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> None:
        """Serve the one waiting client: read its line (at most a second), answer, close.

        A slow or silent client costs at most that second: requests come from local administrators only.
        """
        try:
            channel, _ = self._socket.accept()
        except OSError:
            return
        with channel:
            channel.settimeout(1.0)
            with contextlib.suppress(OSError):
                channel.sendall(json.dumps(self._answer(channel), default=str).encode() + b"\n")

    def _answer(self, channel: socket.socket) -> Reply:
        line = b""
        while not line.endswith(b"\n"):
            part = channel.recv(4096)
            if not part or len(line) > MAX_REQUEST_BYTES:
                return {"error": "no request: one JSON object on one line is expected"}
            line += part
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "the request is not JSON"}
        if not isinstance(request, dict):
            return {"error": "the request is not a JSON object"}
        return self.handler(request)

    def close(self) -> None:
        """Stop listening and remove the socket file if it is still ours."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
