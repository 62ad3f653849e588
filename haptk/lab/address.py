"""The data path of an Elastic IP: what the network does with the packets of TCP connections to it.

For one address and port there are three states, and the association feed and the power switch decide which:

    nobody holds it         no listener: connecting is refused
    its holder is off       connections are accepted and never answered; those that exist freeze without a word
    its holder is on        relayed to the same port of the holder's private address; a closed port there is a reset

When the association moves or ends, and when a machine that was off is switched on again, existing connections are
reset (RST): the kernel that gets their packets now does not know them. The relay binds the client's address, so that
servers see who the client is, as through the one-to-one NAT of EC2.

A machine is switched off before its processes are killed; otherwise its kernel's last FIN would reach the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import cast

from haptk.errors import CannotBind

BACKLOG = 1024
BUFFER_HIGH = 256 * 1024
_IP_BIND_ADDRESS_NO_PORT = 24
_ABORT = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Route:
    """Where the packets go: the holder and its private address."""

    instance_id: str | None
    private_ip: str


def _rst(transport: asyncio.Transport | None) -> None:
    """Close with RST: SO_LINGER 0, then no flushing."""
    if transport is None:
        return
    channel = transport.get_extra_info("socket")
    if channel is not None:
        with contextlib.suppress(OSError):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    transport.abort()


class _Side(asyncio.Protocol):
    """One of the two connections of a relay: what it reads the other side writes."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=BUFFER_HIGH)
        self.relay.connected(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Half-close: pass the FIN on, keep the other direction."""
        self.ended = True
        other = self.other.transport if self.other is not None else None
        if other is not None and other.can_write_eof():
            with contextlib.suppress(OSError):
                other.write_eof()
        return self.other is not None and not self.other.ended

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.relay.frozen:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.lost(self, exc)


class Relay:
    """One client connection and, while a live holder answers, the one to the holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.route: Route | None = None
        self.frozen = False
        self.client = _Side(self)
        self.server: _Side | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connected(self, side: _Side) -> None:
        """The client came, or the holder accepted; runs before the first byte of that side is read."""
        transport = cast("asyncio.Transport", side.transport)
        if side is not self.client:
            self._join(side, transport)
            return
        # asyncio before 3.11.4 starts to read after connection_made whatever that did; so pause or close behind it
        loop = asyncio.get_running_loop()
        loop.call_soon(transport.pause_reading)
        self.route = self.path.route
        self.path.relays.add(self)
        if self.route is None:
            loop.call_soon(self.reset)
        elif self.path.dark(self.route):
            self.frozen = True
        else:
            self._connecting = loop.create_task(self._connect(self.route, transport))

    async def _connect(self, route: Route, client: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            channel.bind((client.get_extra_info("peername")[0], 0))
            await loop.sock_connect(channel, (route.private_ip, self.path.port))
            await loop.create_connection(lambda: _Side(self), sock=channel)
        except OSError:
            channel.close()
            if not self.frozen:
                self.reset()
        except asyncio.CancelledError:
            channel.close()
            raise

    def _join(self, server: _Side, transport: asyncio.Transport) -> None:
        """Both sides are there: now bytes may flow (a server may well speak first)."""
        self.server, server.other, self.client.other = server, self.client, server
        client = cast("asyncio.Transport", self.client.transport)
        if client.is_closing():
            asyncio.get_running_loop().call_soon(_rst, transport)
        elif self.frozen:
            asyncio.get_running_loop().call_soon(self.freeze)
        else:
            client.resume_reading()

    def lost(self, side: _Side, exc: Exception | None) -> None:
        """One side is gone: nothing more, an orderly end after both FINs, or a reset for the other side."""
        other = side.other
        if other is not None and other.transport is not None and (side is self.client or not self.frozen):
            if exc is not None or not side.ended or self.frozen:
                _rst(other.transport)
            else:
                other.transport.close()
        if side is self.client:
            self.path.relays.discard(self)
            if self._connecting is not None:
                self._connecting.cancel()

    def freeze(self) -> None:
        """The holder lost its power: no byte and no FIN passes any more."""
        self.frozen = True
        for side in (self.client, self.server):
            if side is not None and side.transport is not None and not side.transport.is_closing():
                side.transport.pause_reading()

    def reset(self) -> None:
        """RST to the client and to the holder."""
        self.path.relays.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        _rst(self.client.transport)
        if self.server is not None:
            _rst(self.server.transport)


class Path:
    """The path to one port of one Elastic IP; `update` is told each change of the world."""

    def __init__(self, public_ip: str, port: int) -> None:
        self.public_ip = public_ip
        self.port = port
        self.route: Route | None = None
        self.off: frozenset[str] = frozenset()
        self.relays: set[Relay] = set()
        self._server: asyncio.Server | None = None

    @property
    def state(self) -> str:
        """`refused`, `dark` or `relayed`."""
        if self.route is None:
            return "refused"
        return "dark" if self.dark(self.route) else "relayed"

    def dark(self, route: Route) -> bool:
        return route.instance_id is None or route.instance_id in self.off

    async def update(self, route: Route | None, off: frozenset[str]) -> None:
        """Follow the association and the power switches; raises CannotBind when the address cannot be listened on."""
        back_on = self.off - off
        self.route, self.off = route, off
        for relay in list(self.relays):
            if relay.route != route or (relay.route is not None and relay.route.instance_id in back_on):
                relay.reset()
            elif route is not None and self.dark(route) and not relay.frozen:
                relay.freeze()
        if route is None:
            self._close()
        elif self._server is None:
            await self._open()

    def bound(self) -> socket.socket:
        """A socket bound to the address and port, not listening; raises CannotBind."""
        channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            channel.bind((self.public_ip, self.port))
        except OSError as error:
            channel.close()
            raise CannotBind(address=f"{self.public_ip}:{self.port}", why=error.strerror) from error
        return channel

    async def _open(self) -> None:
        channel = self.bound()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Relay(self).client, sock=channel, backlog=BACKLOG
            )
        except OSError as error:
            channel.close()
            raise CannotBind(address=f"{self.public_ip}:{self.port}", why=error.strerror) from error

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def stop(self) -> None:
        """Close the listener and reset every connection."""
        self._close()
        for relay in list(self.relays):
            relay.reset()
