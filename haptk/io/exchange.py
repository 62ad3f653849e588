"""One connection under one deadline: look up, connect, speak TLS, send, receive; each failure with HAProxy's code for its phase.

Protocols (HTTP, tcp-check scripts, memcached, redis, haproxy's runtime socket) stand on this. The deadline covers the
name's resolution and the TLS handshake too, and is not restarted by progress: a peer that sends one byte a second is
as late as one that sends none. Codes: L4CON L4TOUT (connect), L6RSP L6TOUT (TLS), L7RSP L7TOUT (answer), SOCKERR (us).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from haptk.io import clock

if TYPE_CHECKING:
    from haptk.io.tls import TlsSeen, TlsWish

RECEIVE_BYTES = 16384


class ProbeResult(NamedTuple):
    """What one probe found. `status` is the HTTP status when there was one; `duration_s` covers the whole probe.

    `tls` is what the TLS handshake showed, when there was one.
    """

    ok: bool
    reason: str
    status: int | None
    duration_s: float
    code: str = ""
    tls: TlsSeen | None = None


class Failed(Exception):
    """The exchange is over; `code` is HAProxy's, `reason` the sentence for the log."""

    def __init__(self, code: str, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.status = status


# -- resolution under a deadline ----------------------------------------------------------------------------------

_Found = list[tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]]


class _LookUp:
    """One running getaddrinfo(3), shared by all who ask for the same name meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.done = threading.Event()
        self.answer: _Found | OSError = OSError("no answer")

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self.answer = [(family, address) for family, _, _, _, address in found]
        except (OSError, UnicodeError) as error:
            self.answer = error if isinstance(error, OSError) else OSError(f"not a host name: {error}")
        with _pending_lock:
            if _pending.get((self.host, self.port)) is self:
                del _pending[self.host, self.port]
        self.done.set()


_pending: dict[tuple[str, int], _LookUp] = {}
_pending_lock = threading.Lock()


def resolve(host: str, port: int, timeout_s: float) -> _Found:
    """Addresses of `host` within `timeout_s`; OSError when there are none, TimeoutError when the resolver hangs.

    getaddrinfo(3) cannot be interrupted, so it runs in a daemon thread. Who asks for a name that is being looked up
    waits for that answer: a dead resolver costs one thread per name and not one per probe.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host.partition("%")[0])
            return [(family, (host, port))]
    with _pending_lock:
        running = _pending.get((host, port))
        if running is None:
            running = _pending[host, port] = _LookUp(host, port)
            threading.Thread(target=running.run, name=f"resolve {host}", daemon=True).start()
    if not running.done.wait(max(timeout_s, 0.001)):
        raise TimeoutError("the resolver did not answer in time")
    if isinstance(running.answer, OSError):
        raise running.answer
    return running.answer


# -- where a connection comes from --------------------------------------------------------------------------------

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _bind_source(channel: socket.socket, host: str, low: int, high: int) -> None:
    """Bind to an address, and to the first free one of its ports. OSError when there is none."""
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not low:
        # the kernel chooses the port when it knows the other end
        channel.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    for port in range(low, high + 1):
        try:
            channel.bind((host, port))
        except OSError:
            if port == high:
                raise
        else:
            return


# -- one exchange -------------------------------------------------------------------------------------------------


class Exchange:
    """A connection under a deadline; every failure leaves as Failed with HAProxy's code for the phase."""

    def __init__(
        self,
        host: str,
        port: int,
        timeout_s: float,
        connect_timeout_s: float | None = None,
        tls: TlsWish | None = None,
        source: tuple[str, int, int] | None = None,
    ) -> None:
        """`source` is the address to connect from, with the first and the last of its ports (0: the kernel's choice)."""
        self.started = clock.monotonic()
        self.deadline = self.started + timeout_s
        self.connect_timeout_s = connect_timeout_s
        self.timeout_s = timeout_s
        self.tls = tls
        self.source = source
        self.tls_seen: TlsSeen | None = None
        self.host = host
        self.port = port
        self.where = (
            host.rstrip("\0").replace("\0", "abns@")
            if host.startswith(("/", "\0"))
            else f"[{host}]:{port}"
            if ":" in host
            else f"{host}:{port}"
        )
        self.socket: socket.socket | None = None

    def left_s(self) -> float:
        return self.deadline - clock.monotonic()

    def connect(self) -> None:
        """Connect to the first address that accepts; the deadline covers the look-up and all attempts together."""
        limit = min(self.left_s(), self.connect_timeout_s or self.timeout_s)
        until = clock.monotonic() + limit
        try:
            found: _Found = (
                [(socket.AF_UNIX, (self.host,))]
                if self.host.startswith(("/", "\0"))
                else resolve(self.host, self.port, limit)
            )
        except TimeoutError as error:
            raise Failed("L4TOUT", f"{self.host} was not resolved within {limit:.3g} s: {error}") from None
        except OSError as error:
            raise Failed("L4CON", f"{self.host} does not resolve: {error.strerror or error}") from None
        last = Failed("L4CON", f"{self.host} has no address")
        for tried, (family, address) in enumerate(found):
            try:
                # Each address gets its share of the time: one that is silent must not use up that of the others.
                now = clock.monotonic()
                self._connect_one(family, address, now + (until - now) / (len(found) - tried))
                self._start_tls()
                return
            except TimeoutError:
                last = Failed("L4TOUT", f"no connection to {self.where} within {limit:.3g} s")
            except OSError as error:
                last = Failed("L4CON", f"no connection to {self.where}: {why_of(error)}")
        raise last

    def _connect_one(self, family: socket.AddressFamily, address: tuple[str | int | bytes, ...], until: float) -> None:
        left = until - clock.monotonic()
        if left <= 0:
            raise TimeoutError
        self.close()
        channel = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            channel.settimeout(left)
            if family is not socket.AF_UNIX:
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.source is not None and family is _family_of(self.source[0]):
                _bind_source(channel, *self.source)
            channel.connect(self.host if family is socket.AF_UNIX else address)
        except BaseException:
            channel.close()
            raise
        self.socket = channel

    def _start_tls(self) -> None:
        """Shake hands when TLS is wished for; its time is the exchange's, not the connection's."""
        if self.tls is None or self.socket is None:
            return
        from haptk.io.tls import TlsRefused, context_for, shake_hands

        try:
            context = context_for(self.tls)  # reads all authorities: before the clock of the handshake is set
            self._arm()
            self.socket, self.tls_seen = shake_hands(self.socket, self.host, self.tls, context)
        except TimeoutError:
            raise Failed("L6TOUT", f"no TLS handshake with {self.where} within {self.timeout_s:.3g} s") from None
        except TlsRefused as refused:
            raise Failed("L6RSP", f"TLS with {self.where}: {refused}") from None
        except OSError as error:
            raise Failed("L6RSP", f"{self.where} broke off the TLS handshake: {why_of(error)}") from None

    def send(self, data: bytes) -> None:
        """Send all of `data`, in pieces, because a socket's own timeout restarts with every piece."""
        assert self.socket is not None  # noqa: S101 (callers connect first)
        view = memoryview(data)
        try:
            while view:
                self._arm()
                view = view[self.socket.send(view) :]
        except TimeoutError:
            raise Failed("L7TOUT", f"{self.where} did not take the request within {self.timeout_s:.3g} s") from None
        except OSError as error:
            raise Failed("L7RSP", f"{self.where} dropped the connection: {why_of(error)}") from None

    def receive(self) -> bytes:
        """The next bytes, b"" at the end of the stream."""
        assert self.socket is not None  # noqa: S101
        try:
            self._arm()
            return self.socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise Failed("L7TOUT", f"{self.where} did not answer within {self.timeout_s:.3g} s") from None
        except OSError as error:
            raise Failed("L7RSP", f"{self.where} broke the connection: {why_of(error)}") from None

    def _arm(self) -> None:
        left = self.left_s()
        if left <= 0:
            raise TimeoutError
        assert self.socket is not None  # noqa: S101
        self.socket.settimeout(left)

    def close(self) -> None:
        """Close without leaving TIME_WAIT behind: a checker that lingers eats the ports of the machine it guards."""
        if self.socket is None:
            return
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()
        self.socket = None

    def result(self, ok: bool, code: str, reason: str, status: int | None = None) -> ProbeResult:
        return ProbeResult(ok, reason, status, clock.monotonic() - self.started, code, self.tls_seen)


def why_of(error: OSError) -> str:
    """The system's words for an error, without its number and class."""
    about_tls = getattr(error, "reason", None)  # ssl.SSLError counts its numbers differently
    if isinstance(about_tls, str):
        return about_tls.lower().replace("_", " ")
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
