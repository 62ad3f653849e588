"""A server's name asked of the name servers of a `resolvers` section: the thin shell around dnspython.

As HAProxy does, every server is sent the question at once and the first valid answer counts; when none comes within
`timeout retry`, the question is sent again, `resolve_retries` times in all (configuration.txt 5.3.2). The family of
`resolve-prefer` is asked for first, the other one only when there is nothing of it. Answers are taken from the asked
addresses only, with the question's id and text; a truncated one is asked for again over TCP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
from dataclasses import replace

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from haptk.io import clock
from haptk.proxy.names import Answer
from haptk.proxy.tables import NameServer, Resolvers

READ_BYTES = 65535


def ask(rules: Resolvers, host: str, prefer: str, networks: tuple[str, ...] = ()) -> Answer:
    """The addresses of `host`, those in `networks` first. Never raises: what goes wrong is a status."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA) if prefer == "ipv4" else (dns.rdatatype.AAAA, dns.rdatatype.A)
    answer = Answer("other")
    for kind in kinds:
        answer = _ask(rules, host, kind)
        if answer.addresses:
            known = [ipaddress.ip_network(each) for each in networks]
            inside = [one for one in answer.addresses if any(ipaddress.ip_address(one) in net for net in known)]
            return Answer("valid", tuple(dict.fromkeys((*inside, *answer.addresses))), answer.by)
        if answer.status == "timeout":
            break
    return Answer("nx") if answer.status == "valid" else answer


def _ask(rules: Resolvers, host: str, kind: dns.rdatatype.RdataType) -> Answer:
    try:
        name = dns.name.from_text(host)
        query = dns.message.make_query(name, kind, use_edns=0, payload=rules.payload)
    except dns.exception.DNSException:
        return Answer("other")
    worst = Answer("timeout")
    for _ in range(rules.retries):
        first = _first_response(rules, query)
        if first is None:
            continue
        response, server = first
        worst = replace(_meaning(response, kind), by=f"{rules.name}/{server.name}")
        if worst.status in ("valid", "nx"):
            return worst
    return worst


def _meaning(response: dns.message.Message, kind: dns.rdatatype.RdataType) -> Answer:
    code = response.rcode()
    if code == dns.rcode.NXDOMAIN:
        return Answer("nx")
    if code == dns.rcode.REFUSED:
        return Answer("refused")
    if code != dns.rcode.NOERROR:
        return Answer("other")
    # CNAMEs are followed by the name server; what is of the right kind in its answer is the name's
    found = (rrset for rrset in response.answer if (rrset.rdtype, rrset.rdclass) == (kind, dns.rdataclass.IN))
    return Answer("valid", tuple(item.address for rrset in found for item in rrset if hasattr(item, "address")))


def _first_response(rules: Resolvers, query: dns.message.Message) -> tuple[dns.message.Message, NameServer] | None:
    """The first valid response of any name server within `timeout retry`; None when there is none."""
    wire = query.to_wire()
    ends = clock.monotonic() + rules.retry_s
    refused: tuple[dns.message.Message, NameServer] | None = None
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as opened:
        for server in rules.nameservers:
            if server.tcp:
                if (response := _over_tcp(server, query, ends)) is not None:
                    return response, server
                continue
            with contextlib.suppress(OSError):
                sock = opened.enter_context(_connected(server))
                sock.send(wire)
                waiting.register(sock, selectors.EVENT_READ, (sock, server))
        while waiting.get_map() and (left := ends - clock.monotonic()) > 0:
            for key, _ in waiting.select(left):
                sock, server = key.data
                try:
                    response = _read(sock.recv(READ_BYTES), query)
                except OSError:  # nobody listens there
                    waiting.unregister(sock)
                    continue
                if response is None:
                    continue
                if response.flags & dns.flags.TC:
                    response = _over_tcp(server, query, ends) or response
                if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return response, server
                refused = response, server  # another one may know better
                waiting.unregister(sock)
    return refused


def _connected(server: NameServer) -> socket.socket:
    """A socket that takes datagrams from that server only; its port is the kernel's random choice."""
    sock = socket.socket(
        socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    )
    try:
        sock.setblocking(False)
        sock.connect((server.host, server.port))
    except OSError:
        sock.close()
        raise
    return sock


def _read(data: bytes, query: dns.message.Message) -> dns.message.Message | None:
    """A response to `query`, or None for what is none."""
    try:
        response = dns.message.from_wire(data, ignore_trailing=True)
        return response if query.is_response(response) else None
    except Exception:  # whatever a stranger's bytes bring dnspython to
        return None


def _over_tcp(server: NameServer, query: dns.message.Message, ends: float) -> dns.message.Message | None:
    try:
        return dns.query.tcp(query, server.host, max(ends - clock.monotonic(), 0.05), server.port)
    except (OSError, dns.exception.DNSException, EOFError):
        return None
