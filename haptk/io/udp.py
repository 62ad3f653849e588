"""Datagrams on links: a link is one way to the peer, an address pair or a device as in ha.cf.

`ucast` sends to one address, `bcast` to the interface's broadcast address, `mcast` to a group. With a device the
socket is bound to it (SO_BINDTODEVICE, as the original does); without one it is bound to an address, which needs no
privilege.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass

from haptk.errors import CannotBind, NotPermitted

MAX_DATAGRAM = 65535
IPTOS_LOWDELAY = 0x10


@dataclass(frozen=True)
class LinkSpec:
    """Where a link listens and sends. `name` is what the log calls it."""

    name: str
    kind: str  # ucast, bcast or mcast
    target: str
    port: int
    bind: str = ""
    device: str = ""
    ttl: int = 0
    loopback: bool = False


class UdpLink:
    """One UDP socket for both directions of a link."""

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        family = socket.AF_INET6 if ":" in spec.target else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._prepare(family)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self.target = (spec.target, spec.port)
        self.last_error = ""

    def _prepare(self, family: socket.AddressFamily) -> None:
        spec = self.spec
        bind = spec.bind or ("::" if family == socket.AF_INET6 else "0.0.0.0")
        try:
            if spec.device:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, spec.device.encode() + b"\0")
                # Two links of one device set share the port, each bound to its own device.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if spec.kind == "bcast":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            elif spec.kind == "ucast" and family == socket.AF_INET:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, IPTOS_LOWDELAY)
            self._socket.bind((bind, spec.port))
            if spec.kind == "mcast":
                self._join()
        except PermissionError as error:
            where = f"use device {spec.device}" if spec.device else f"listen on UDP port {spec.port}"
            raise NotPermitted(what=where, why="it needs root or CAP_NET_BIND_SERVICE and CAP_NET_RAW") from error
        except OSError as error:
            raise CannotBind(address=f"UDP {bind}:{spec.port}", why=_why(error, spec)) from error

    def _join(self) -> None:
        spec = self.spec
        index = socket.if_nametoindex(spec.device)
        membership = struct.pack("4s4si", socket.inet_aton(spec.target), b"\0\0\0\0", index)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, spec.ttl)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(spec.loopback))

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def port(self) -> int:
        """The port really bound (for a spec with port 0)."""
        return int(self._socket.getsockname()[1])

    def receive(self) -> list[tuple[bytes, str]]:
        """All waiting datagrams with their sender's address, at most 64 so that the loop keeps its timer."""
        found: list[tuple[bytes, str]] = []
        while len(found) < 64:
            try:
                data, sender = self._socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                # An ICMP "port unreachable" of an earlier send: the peer's daemon is not there. Its silence counts.
                if error.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINTR):
                    break
                continue
            found.append((data, str(sender[0])))
        return found

    def send(self, data: bytes) -> str:
        """Send one datagram; "" or, when the reason is a new one, why it did not go out."""
        try:
            self._socket.sendto(data, self.target)
        except OSError as error:
            text = error.strerror or str(error)
            new = text != self.last_error
            self.last_error = text
            return text if new else ""
        self.last_error = ""
        return ""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _why(error: OSError, spec: LinkSpec) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there (is a heartbeat running already?)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{spec.bind} is not an address of this machine"
    if error.errno == errno.ENODEV:
        return f"there is no device {spec.device}"
    return error.strerror or str(error)


def broadcast_address(device: str) -> str:
    """The broadcast address of a device (SIOCGIFBRDADDR); CannotBind when it has none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        request = struct.pack("256s", device.encode()[:15])
        try:
            answer = fcntl.ioctl(channel.fileno(), 0x8919, request)
        except OSError as error:
            raise CannotBind(address=f"device {device}", why=error.strerror or "no such device") from error
    return socket.inet_ntoa(answer[20:24])
