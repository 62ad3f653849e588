"""ICMP echo to ping nodes: the witnesses that tell "the peer is dead" from "we are cut off".

An unprivileged ICMP socket is used where net.ipv4.ping_group_range allows it, else a raw one (CAP_NET_RAW).
"""

from __future__ import annotations

import os
import socket
import struct

from haptk.errors import NotPermitted
from haptk.io import clock

ECHO_REQUEST, ECHO_REPLY = 8, 0


class Pinger:
    """Sends one echo per node every `every_s` and names the nodes that answered."""

    def __init__(self, names: tuple[str, ...], every_s: float) -> None:
        self._addresses = {socket.gethostbyname(name): name for name in names}
        self._every_s = every_s
        self._sequence = 0
        self._ident = os.getpid() & 0xFFFF
        self.due_at = clock.monotonic()
        self._socket, self._raw = _open()

    def fileno(self) -> int:
        return self._socket.fileno()

    def ping(self, now: float) -> None:
        self.due_at = now + self._every_s
        self._sequence = (self._sequence + 1) & 0xFFFF
        for address in self._addresses:
            packet = echo(self._ident, self._sequence)
            try:
                self._socket.sendto(packet, (address, 0))
            except OSError:
                continue  # no route is an answer too: the witness stays silent

    def receive(self) -> list[str]:
        """The names of the nodes whose answers are waiting."""
        found: list[str] = []
        while True:
            try:
                data, sender = self._socket.recvfrom(2048)
            except OSError:
                return found
            if self._raw:
                data = data[(data[0] & 0x0F) * 4 :]
            name = self._addresses.get(str(sender[0]))
            mine = not self._raw or data[4:6] == struct.pack("!H", self._ident)
            if name is not None and len(data) >= 8 and data[0] == ECHO_REPLY and mine:
                found.append(name)

    def close(self) -> None:
        self._socket.close()


def _open() -> tuple[socket.socket, bool]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
        except PermissionError:
            continue
        made.setblocking(False)
        return made, kind == socket.SOCK_RAW
    why = "it needs root, CAP_NET_RAW, or a group inside net.ipv4.ping_group_range"
    raise NotPermitted(what="ping the ping nodes", why=why)


def echo(ident: int, sequence: int) -> bytes:
    """An ICMP echo request with its checksum (RFC 792)."""
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, ident, sequence) + b"haptk heartbeat "
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:]
