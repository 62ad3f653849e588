"""C1xx: names, addresses and places agree with each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable

from haptk.cluster.lines import Path
from haptk.cluster.problem import WARNING
from haptk.cluster.rules import Found, rule
from haptk.cluster.schema import Cluster

CARRIER = ipaddress.IPv4Network("100.64.0.0/10")
PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")))


def _twice(items: Iterable[tuple[Path, Hashable | None, str]], what: str) -> Found:
    """A breach for every value that was seen before; None values do not count."""
    seen: dict[Hashable, str] = {}
    for path, value, owner in items:
        if value is None:
            continue
        if value in seen:
            first = seen[value]
            yield (
                path,
                f"{what} {value} is used twice: by {first} and {owner}"
                if first != owner
                else (f"{what} {value} is used twice"),
            )
        else:
            seen[value] = owner


@rule("C101", "No two balancers have one name.")
def balancer_names(cluster: Cluster) -> Found:
    """Node names are how the programs tell the machines apart."""
    yield from _twice(((("balancers", i, "name"), b.name, b.name) for i, b in enumerate(cluster.balancers)), "balancer")


@rule("C102", "No two servers have one name.")
def server_names(cluster: Cluster) -> Found:
    """haproxy refuses the second."""
    yield from _twice(((("servers", i, "name"), s.name, s.name) for i, s in enumerate(cluster.servers)), "server")


@rule("C103", "No two addresses have one name.")
def address_names(cluster: Cluster) -> Found:
    """The name becomes a VRRP instance, a record's identifier and a resource."""
    yield from _twice(((("addresses", i, "name"), a.name, a.name) for i, a in enumerate(cluster.addresses)), "address")


@rule("C104", "No two balancers have one private address.")
def private_addresses(cluster: Cluster) -> Found:
    """Two nodes with one address answer for each other."""
    balancers = cluster.balancers
    yield from _twice(
        ((("balancers", i, "private_ip"), b.private_ip, b.name) for i, b in enumerate(balancers)), "private address"
    )


@rule("C105", "No two addresses are one Elastic IP.")
def public_addresses(cluster: Cluster) -> Found:
    """Two pairs would take it from each other for ever."""
    addresses = cluster.addresses
    yield from _twice(
        ((("addresses", i, "public_ip"), a.public_ip, a.name) for i, a in enumerate(addresses)), "Elastic IP"
    )


@rule("C106", "No two addresses have one allocation.")
def allocations(cluster: Cluster) -> Found:
    """An allocation is one Elastic IP."""
    addresses = cluster.addresses
    yield from _twice(
        ((("addresses", i, "allocation"), a.allocation, a.name) for i, a in enumerate(addresses)), "allocation"
    )


@rule("C107", "No two balancers are one instance.")
def instances(cluster: Cluster) -> Found:
    """A standby on the machine that it stands by for dies with it."""
    balancers = cluster.balancers
    yield from _twice(((("balancers", i, "instance"), b.instance, b.name) for i, b in enumerate(balancers)), "instance")


@rule("C108", "No two balancers have one network interface.")
def interfaces(cluster: Cluster) -> Found:
    """An address on a shared interface never moves."""
    balancers = cluster.balancers
    yield from _twice(
        ((("balancers", i, "interface"), b.interface, b.name) for i, b in enumerate(balancers)), "interface"
    )


@rule("C109", "Every region is declared once.")
def regions(cluster: Cluster) -> Found:
    """Two tables of one region would split its zones."""
    yield from _twice(((("regions", i, "name"), r.name, r.name) for i, r in enumerate(cluster.regions)), "region")


@rule("C110", "A zone belongs to the region that lists it.")
def zones_of_regions(cluster: Cluster) -> Found:
    """AWS names a zone by its region and a letter."""
    for place, region in enumerate(cluster.regions):
        for zone in region.zones:
            if not zone.startswith(region.name) or len(zone) != len(region.name) + 1:
                yield ("regions", place, "zones"), f"zone {zone} is not in region {region.name}"


@rule("C111", "A balancer is in a zone that a region lists.")
def balancer_zones(cluster: Cluster) -> Found:
    """The region decides which API moves its address."""
    for place, balancer in enumerate(cluster.balancers):
        if not cluster.region_of(balancer.zone):
            yield ("balancers", place, "zone"), f"{balancer.name}: no region lists the zone {balancer.zone}"


@rule("C112", "A server is in a zone that a region lists.")
def server_zones(cluster: Cluster) -> Found:
    """The zone decides what survives the loss of one."""
    for place, server in enumerate(cluster.servers):
        if server.zone is not None and not cluster.region_of(server.zone):
            yield ("servers", place, "zone"), f"{server.name}: no region lists the zone {server.zone}"


@rule("C113", "An Elastic IP is a public address.")
def really_public(cluster: Cluster) -> Found:
    """A private address in `public_ip` is the address of the instance; loopback stays allowed for the lab."""
    for place, address in enumerate(cluster.addresses):
        found = ipaddress.IPv4Address(address.public_ip)
        if any(found in network for network in (*PRIVATE, CARRIER)) or found.is_multicast or found.is_unspecified:
            yield ("addresses", place, "public_ip"), f"{address.name}: {found} is not a public address"


@rule("C114", "No two servers are one address and port.")
def endpoints(cluster: Cluster) -> Found:
    """One process under two names gets two shares and loses the sessions of the second."""
    yield from _twice(
        ((("servers", i, "address"), f"{s.address}:{s.port}", s.name) for i, s in enumerate(cluster.servers)),
        "endpoint",
    )


@rule("C115", "The ports of a balancer differ.")
def ports(cluster: Cluster) -> Found:
    """The second listener on a port does not start, and haproxy with it."""
    front = cluster.frontend
    used: list[tuple[Path, Hashable | None, str]] = [
        (("frontend", "port"), front.port, "[frontend] port"),
        (("frontend", "health_port"), front.health_port, "[frontend] health_port"),
        (("frontend", "stats_port"), front.stats_port, "[frontend] stats_port"),
    ]
    if cluster.session.design == "learn":
        used.append((("session", "peers_port"), cluster.session.peers_port, "[session] peers_port"))
    yield from _twice(used, "port")


@rule("C116", "Patterns with balancers have balancers.")
def some_balancers(cluster: Cluster) -> Found:
    """Only AWS's own load balancer can do without."""
    if cluster.cluster.pattern != "elb" and not cluster.balancers:
        yield ("cluster", "pattern"), f"pattern {cluster.cluster.pattern} needs [[balancers]]: there is none"


@rule("C117", "Servers are in more than one zone, if they are in zones at all.", WARNING)
def server_spread(cluster: Cluster) -> Found:
    """With every server in one zone the tier dies with it, whatever the balancers do."""
    zones = {server.zone for server in cluster.servers}
    if len(cluster.servers) > 1 and None not in zones and len(zones) == 1:
        yield ("servers",), f"every server is in {next(iter(zones))}: the tier is lost with that zone"


@rule("C118", "At least one server is no backup and has a weight.")
def usable_servers(cluster: Cluster) -> Found:
    """Otherwise nobody gets a new session."""
    if not any(server.weight > 0 and not server.backup for server in cluster.servers):
        yield ("servers",), "no server takes new sessions: every one is a backup or has weight 0"
