"""The token of a lab: who has it may steer the region, no other process of this machine may.

The API of the lab listens on loopback, where every process of every user can reach it. So its supervisor makes a token for
each lab, in a file that only this user reads; the token is the end of every access key of the lab, so that the tools of AWS
send it by themselves, and a header for what AWS does not have. It is never on a command line; the environment of the
lab's own processes names the file, not the token. A cloud that is started by hand, without the variable, asks for none.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any

from haptk.errors import MissingFile
from haptk.io import files

VARIABLE = "HAPTK_LAB_TOKEN_FILE"
HEADER = "x-haptk-lab-token"
NAME = "token"
_KEY = re.compile(r"\bCredential=([^/,\s]+)/")


def make(root: Path) -> None:
    """A new token in `root`, for this process and its children."""
    path = root / NAME
    files.write_atomic(path, secrets.token_hex(16).upper().encode(), 0o600)
    os.environ[VARIABLE] = str(path)


def read(path: Path) -> str:
    """The token of a file; raises MissingFile."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise MissingFile(path=path, why=error.strerror) from error


def current() -> str:
    """The token of this process's lab, "" where none is asked for."""
    place = os.environ.get(VARIABLE, "")
    return read(Path(place)) if place else ""


def access_key_id(name: str, token: str | None = None) -> str:
    """The access key of an instance or a person: it names the caller in the network's records and ends with the token."""
    return f"AKIALAB{name.upper()}".ljust(20, "0") + (current() if token is None else token)


def admits(token: str, environ: dict[str, Any]) -> bool:
    """Whether a WSGI request has the token: in the access key that signed it, or in the header."""
    found = _KEY.search(str(environ.get("HTTP_AUTHORIZATION", "")))
    given = str(environ.get("HTTP_" + HEADER.upper().replace("-", "_"), "")) or (
        found[1][-len(token) :] if found else ""
    )
    return not token or hmac.compare_digest(given.encode(), token.encode())


def same_user(channel: socket.socket) -> bool:
    """Whether the other end of a loopback connection belongs to this user or to root; proc(5), /proc/net/tcp."""
    ours, theirs = channel.getsockname(), channel.getpeername()
    wanted = (_coded(*theirs[:2]), _coded(*ours[:2]))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == wanted:
            return int(fields[7]) in (0, os.getuid())
    return False


def _coded(host: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
