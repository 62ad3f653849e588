"""Questions to name servers: many servers at once, every one within the same deadline, UDP first and TCP when it is cut.

A server gets the same question several times, because rotation and weights show only in a sample. An answer that does not
come is a View with `error`, never an exception: one silent server must not hide what the others say.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haptk.core.dns import View
from haptk.errors import PeerError
from haptk.io import clock

if TYPE_CHECKING:
    import dns.message

TRY_S = 1.5
"""Wait for one datagram; a lost one is sent again while the deadline allows."""


@dataclass(frozen=True)
class Server:
    """A name server: where it is and whether it ought to be authoritative."""

    host: str
    port: int = 53
    name: str = ""
    authoritative: bool = True

    def label(self) -> str:
        """Its name and address for people."""
        where = self.host if self.port == 53 else f"{self.host}:{self.port}"
        return f"{self.name} ({where})" if self.name else where


def exchange(server: Server, name: str, kind: str, until: float) -> dns.message.Message:
    """One question and its answer before `until` (monotonic s). Raises PeerError with why there is none."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query

    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    if server.authoritative:
        query.flags &= ~dns.flags.RD
    why = "no answer before the deadline"
    while (left_s := until - clock.monotonic()) > 0.01:
        try:
            # A datagram of somebody else, or one that is no answer to this, must not end the wait.
            reply, _ = dns.query.udp_with_fallback(
                query, server.host, min(TRY_S, left_s), server.port, ignore_unexpected=True, ignore_errors=True
            )
            return reply
        except dns.exception.Timeout:
            continue
        except (dns.exception.DNSException, OSError, EOFError) as error:
            why = f"no usable answer: {error or type(error).__name__}"
            break
    raise PeerError(peer=server.label(), why=why)


def view(server: Server, name: str, zone: str, samples: int, until: float) -> View:
    """What one server says of `name` (`samples` times, fewer when the deadline comes) and its serial of `zone`."""
    import dns.flags
    import dns.rcode

    answers: list[tuple[str, ...]] = []
    ttls: list[int] = []
    lame = False
    try:
        serial = _serial(server, zone, until) if server.authoritative else None
        while len(answers) < samples:
            if answers and clock.monotonic() >= until - 0.05:
                break
            reply = exchange(server, name, "A", until)
            if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                why = f"answers {dns.rcode.to_text(reply.rcode())} for {name}"
                return View(server.label(), server.authoritative, error=why)
            lame = lame or (server.authoritative and not reply.flags & dns.flags.AA)
            values, ttl = addresses(reply)
            answers.append(values)
            ttls += ttl
    except PeerError as error:
        return View(server.label(), server.authoritative, error=str(error.fields["why"]))
    # A cache counts down: its highest value is nearest to what it was told.
    return View(server.label(), server.authoritative, tuple(answers), max(ttls, default=None), serial, lame=lame)


def addresses(reply: dns.message.Message) -> tuple[tuple[str, ...], list[int]]:
    """The addresses of an answer in their order, behind any alias, and their TTLs."""
    import dns.rdatatype

    sets = [one for one in reply.answer if one.rdtype == dns.rdatatype.A]
    return tuple(item.address for one in sets for item in one), [int(one.ttl) for one in sets]


def _serial(server: Server, zone: str, until: float) -> int | None:
    import dns.rdatatype

    reply = exchange(server, zone, "SOA", until)
    for one in reply.answer:
        if one.rdtype == dns.rdatatype.SOA:
            return int(one[0].serial)
    return None


def views(servers: Sequence[Server], name: str, zone: str, samples: int, deadline_s: float) -> list[View]:
    """Ask all of them at once; over after `deadline_s` whatever they do. The order is that of `servers`."""
    if not servers:
        return []
    until = clock.monotonic() + deadline_s
    with ThreadPoolExecutor(min(32, len(servers))) as pool:
        return list(pool.map(lambda one: view(one, name, zone, samples, until), servers))


def authoritative(zone: str, deadline_s: float, through: Server | None = None) -> list[Server]:
    """The zone's name servers, by NS and A records asked of `through` (the system's resolver without it).

    Raises PeerError when that resolver does not tell.
    """
    import dns.exception
    import dns.resolver

    until = clock.monotonic() + deadline_s
    try:
        resolver = dns.resolver.Resolver(configure=through is None)
        if through is not None:
            resolver.nameservers, resolver.port = [through.host], through.port
        found: list[Server] = []
        for record in _ask(resolver, zone, "NS", until):
            name = str(record.target)
            found += [Server(one.address, name=name.rstrip(".")) for one in _ask(resolver, name, "A", until)]
        return found
    except (dns.exception.DNSException, OSError) as error:
        who = through.label() if through else "the system's resolver"
        raise PeerError(peer=who, why=f"cannot find the name servers of {zone}: {error}") from error


def _ask(resolver: Any, name: str, kind: str, until: float) -> Any:
    left_s = max(0.05, until - clock.monotonic())
    return resolver.resolve(name if name.endswith(".") else f"{name}.", kind, lifetime=left_s, search=False)
