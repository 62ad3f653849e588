"""Listening sockets from one process to the next: the `_getsocks` command of HAProxy's stats socket, both ends of it.

`haptk proxy -x SOCKET` and `haproxy -x SOCKET` ask the running process for its sockets and go on accepting on the same
ones, so that no connection waits in a queue that nobody reads any more. The running process answers on a `stats socket`
line with `expose-fd listeners`. What is said was learned from HAProxy 2.6: a 32-bit count; then, for at most 253
descriptors at a time (SCM_RIGHTS, unix(7)), two strings of each with a length byte before them (its network namespace
and its interface) and 32 bits of options; the other side acknowledges each portion with the number it got.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Sequence

from haptk.errors import PeerError
from haptk.formats.haproxy_cfg import units

COMMAND = b"_getsocks"
PORTION = 253  # SCM_MAX_FD
MOST = 1 << 16  # sockets; what claims to have more speaks something else
PATIENCE_S = 5.0
_PLAIN = b"\0\0" + bytes(4)  # no namespace, no interface, no options


def ask(place: str) -> list[socket.socket]:
    """The listening sockets of the process behind the stats socket `place` (PATH, unix@PATH or abns@NAME).

    `/dev/null` stands for nobody, as for HAProxy. Raises PeerError when there are none to have.
    """
    if place == "/dev/null":
        return []
    path = units.address(place if "@" in place or place.startswith("/") else f"unix@{place}", "-x").unix_path
    found: list[socket.socket] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(PATIENCE_S)
            channel.connect(path)
            channel.sendall(COMMAND + b"\n")
            head = channel.recv(4)
            count = struct.unpack("=i", head)[0] if len(head) == 4 else 0
            if not 0 < count <= MOST:
                raise PeerError(
                    peer=place, why="gives no sockets away: its line needs 'level admin expose-fd listeners'"
                )
            while len(found) < count:
                data, descriptors, _, _ = socket.recv_fds(channel, 65536, PORTION, socket.MSG_CMSG_CLOEXEC)
                found += [socket.socket(fileno=descriptor) for descriptor in descriptors]
                if not data or not descriptors:
                    raise PeerError(peer=place, why=f"promised {count} sockets and gave {len(found)}")
                if len(found) < count:
                    channel.sendall(struct.pack("=i", len(descriptors)))
    except OSError as error:
        close(found)
        raise PeerError(peer=place, why=f"no sockets from there: {error.strerror or error}") from error
    except PeerError:
        close(found)
        raise
    return found


def give(channel: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Answer `_getsocks` on `channel`; raises OSError when the other side does not take them."""
    channel.settimeout(PATIENCE_S)
    channel.sendall(struct.pack("=i", len(sockets)))
    for at in range(0, len(sockets), PORTION):
        portion = sockets[at : at + PORTION]
        socket.send_fds(channel, [_PLAIN * len(portion)], [sock.fileno() for sock in portion])
        if at + PORTION < len(sockets) and len(channel.recv(4)) < 4:
            raise ConnectionError("the other side left before it had all sockets")


def close(sockets: list[socket.socket]) -> None:
    """Let go of what nobody wants."""
    for sock in sockets:
        sock.close()
    sockets.clear()


def matches(sock: socket.socket, family: int, host: str, port: int, path: str, *, v6only: bool) -> bool:
    """Whether `sock` listens on that address: (`host`, `port`), or `path` for AF_UNIX.

    A unix socket knows the name under which it was bound; HAProxy and haptk bind beside the path and rename.
    """
    if sock.family != family:
        return False
    name = sock.getsockname()
    if family == socket.AF_UNIX:
        name = os.fsdecode(name)  # bytes in the abstract namespace
        return name == path or re.fullmatch(re.escape(path) + r"\.\d+\.(tmp|bak)", str(name)) is not None
    if (name[0], name[1]) != (host, port):
        return False
    return family == socket.AF_INET or bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) == v6only
