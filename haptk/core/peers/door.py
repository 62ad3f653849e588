"""Who may connect to a peers section, and how many may wait there before they have said who they are. Pure.

The protocol has no secret: a name is all that a peer shows. So only the addresses of the section's `peer` lines are
let in. Those on this machine are one place, because any program here may use any of its loopback addresses.

A connection that has not greeted yet costs memory and a descriptor. When too many wait, the one that has waited longest
gives way (of the address that has most of them): a real peer greets at once, so it is not kept out by idle ones.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

WAITING_AT_MOST = 32


def normal(address: str) -> str:
    """One spelling for each address; an IPv4 address that came over IPv6 is itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return "localhost" if (mapped or found).is_loopback else str(mapped or found)


class Door:
    """`admits` before a connection is taken, then `came`; `greeted` or `left` when it waits no longer."""

    def __init__(self, addresses: Iterable[str], most: int = WAITING_AT_MOST) -> None:
        self.most = most
        self._waiting: dict[int, str] = {}  # connection -> address, in order of arrival
        self.allow(addresses)

    def allow(self, addresses: Iterable[str]) -> None:
        """Whose connections are taken from now on. A node that listens on any address reaches itself on this machine."""
        self._allowed = {"localhost" if one in ("0.0.0.0", "::") else normal(one) for one in addresses}

    def admits(self, address: str) -> bool:
        """Whether a connection from there is taken."""
        return normal(address) in self._allowed

    def came(self, connection: int, address: str) -> int | None:
        """A connection waits; which one has to go for it, if any."""
        self._waiting[connection] = normal(address)
        if len(self._waiting) <= self.most:
            return None
        crowd = Counter(self._waiting.values()).most_common(1)[0][0]
        return next(number for number, each in self._waiting.items() if each == crowd)

    def left(self, connection: int) -> None:
        """It has greeted, or is gone."""
        self._waiting.pop(connection, None)
