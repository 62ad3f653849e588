"""How an operator names an address: the words that are accepted, and what each means. Pure text, no lookup.

203.0.113.10                     an Elastic IP by its public address
eipalloc-0123456789abcdef0       the same by its allocation id
tag:Name=web                     the same by a tag that exactly one address has
private:10.0.0.50                a secondary private address that moves between interfaces
route:rtb-0123abcd/10.9.9.9/32   a route-table entry that points to this node's interface
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from haptk.errors import OperatorError

ACCEPTED = "an IPv4 address, eipalloc-..., tag:KEY=VALUE, private:IPV4 or route:rtb-.../CIDR"


class ByIp(NamedTuple):
    """An Elastic IP by its public address."""

    public_ip: str


class ById(NamedTuple):
    """An Elastic IP by its allocation id."""

    allocation_id: str


class ByTag(NamedTuple):
    """An Elastic IP by a tag; which address that is may change, so it is asked each time."""

    key: str
    value: str


class PrivateIp(NamedTuple):
    """A secondary private address."""

    private_ip: str


class Route(NamedTuple):
    """One destination of one route table."""

    table: str
    destination: str


Spec = ByIp | ById | ByTag | PrivateIp | Route


def _ipv4(text: str, whole: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise OperatorError(what=f"{whole!r} is not an address: {ACCEPTED} is accepted") from error


def parse(text: str) -> Spec:
    """The meaning of one address argument; raises OperatorError with what is accepted."""
    # A pattern is compiled only when its word is there: a poll asks for one address, and a pattern costs half a millisecond.
    if text.startswith("eipalloc-") and re.fullmatch(r"eipalloc-[0-9a-f]{8,32}", text):
        return ById(text)
    if text.startswith("tag:") and (match := re.fullmatch(r"tag:([^=]{1,128})=(.{0,256})", text)):
        return ByTag(match[1], match[2])
    if text.startswith("private:"):
        return PrivateIp(_ipv4(text.removeprefix("private:"), text))
    if text.startswith("route:") and (match := re.fullmatch(r"route:(rtb-[0-9a-f]{8,32})/(\S+)", text)):
        try:
            return Route(match[1], str(ipaddress.IPv4Network(match[2])))
        except ValueError as error:
            raise OperatorError(what=f"{text!r}: {match[2]} is not an IPv4 network: {error}") from error
    return ByIp(_ipv4(text, text))


def check_interface(text: str | None) -> str | None:
    """An interface id as it was given; raises OperatorError for anything else."""
    if text is not None and not re.fullmatch(r"eni-[0-9a-f]{8,32}", text):
        raise OperatorError(what=f"{text!r} is not an interface: eni- and hexadecimal digits are accepted")
    return text


def check_private_ip(text: str | None) -> str | None:
    """A private IPv4 address as it was given; raises OperatorError for anything else."""
    return None if text is None else _ipv4(text, text)
