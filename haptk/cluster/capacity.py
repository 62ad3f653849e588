"""How many balancers a load needs, and who carries it when a node or a zone is lost. Pure arithmetic on a declaration.

Shares. In pattern `round-robin` the name spreads clients over its addresses (by weight where it has weights); the
addresses of a lost balancer leave the name and the others share. In `standby` an address goes with its whole share to
the first of its holders that lives, in a `pool` to the living balancer that carries least. In front of an `elb` all
living balancers share alike.

Everything is requests per second. `limit` is the part of a node's capacity that may be used: a node that is full
answers slowly, and a measured maximum is the best case.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from haptk.cluster.schema import Cluster, holders

LEAST_CPU_SHARE = 0.02
LEAST_REQUESTS = 200


@dataclass(frozen=True)
class Load:
    """What is expected: `peak` requests per second; what each balancer, and (None: not asked) each server, can do."""

    peak: float
    per_node: Mapping[str, float]
    per_server: float | None = None
    limit: float = 0.8


@dataclass(frozen=True)
class Case:
    """One state of the tier. `load` is what each living balancer gets; `problems` is empty when it is carried."""

    name: str
    lost: tuple[str, ...]
    load: Mapping[str, float]
    problems: tuple[str, ...] = ()

    @property
    def carried(self) -> bool:
        """Whether everybody is served."""
        return not self.problems


@dataclass(frozen=True)
class Capacity:
    """The answer. `needed` maps a state that has to be survived to how many balancers that takes."""

    needed: Mapping[str, int]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def survives(self) -> bool:
        """Whether the tier carries the peak as it is, without any one node and without any one zone."""
        return all(case.carried for case in self.cases)


def measured(requests: float, seconds: float, cpu_s: float, threads: int) -> float:
    """Requests per second that a proxy could do, by what it did and the processor time that it took.

    ValueError where too little happened to tell.
    """
    if seconds <= 0 or threads < 1:
        raise ValueError("a measurement takes time, and a proxy has a thread")
    if requests < LEAST_REQUESTS or cpu_s < LEAST_CPU_SHARE * seconds:
        raise ValueError(
            f"{requests:.0f} requests and {cpu_s / seconds:.1%} of a processor in {seconds:.0f} s are too few to tell: "
            "measure under load, or say --per-node"
        )
    return requests / cpu_s * threads


def shares(cluster: Cluster, lost: Collection[str]) -> tuple[dict[str, float], float]:
    """The part of the load of every living balancer, and the part that nobody serves."""
    living = {one.name: 0.0 for one in cluster.balancers if one.name not in lost}
    if not living:
        return {}, 1.0
    tier = cluster.cluster
    if tier.pattern == "elb" or not cluster.addresses:
        return dict.fromkeys(living, 1 / len(living)), 0.0
    weighted = cluster.dns is not None and cluster.dns.policy == "weighted"
    weights = {one.name: float(1 if one.weight is None or not weighted else one.weight) for one in cluster.addresses}
    if tier.pattern == "round-robin":
        weights = {one.name: weights[one.name] if one.active in living else 0.0 for one in cluster.addresses}
    whole, unserved = sum(weights.values()), 0.0
    if not whole:
        return living, 1.0
    orphans = []
    for address in cluster.addresses:
        part = weights[address.name] / whole
        holder = next((name for name in holders(address) if name in living), None)
        if holder is not None:
            living[holder] += part
        elif tier.contract == "pool":
            orphans.append(part)
        else:
            unserved += part
    for part in sorted(orphans, reverse=True):
        living[min(living, key=lambda name: living[name])] += part
    return living, unserved


def _case(cluster: Cluster, load: Load, name: str, lost: Collection[str], zone: str = "") -> Case:
    parts, unserved = shares(cluster, lost)
    found = {node: load.peak * part for node, part in parts.items()}
    problems = []
    if unserved:
        problems.append(f"{unserved:.0%} of the clients reach nobody")
    for node, rate in found.items():
        room = load.per_node[node] * load.limit
        if rate > room * (1 + 1e-9):
            problems.append(f"{node} would get {rate:.0f}/s of the {room:.0f}/s that it may carry")
    return Case(name, tuple(lost), found, (*problems, *_servers(cluster, load, zone)))


def _servers(cluster: Cluster, load: Load, zone: str) -> list[str]:
    """What is wrong with the application servers that are left: backups work only when no other lives."""
    left = [one for one in cluster.servers if not zone or one.zone != zone]
    if not left:
        return [f"every server is in {zone}"]
    first = [one for one in left if not one.backup and one.weight > 0]
    working = first or [one for one in left if one.backup]
    if not working:
        return ["no server that takes sessions is left"]
    if load.per_server is None:
        return []
    room = load.per_server * load.limit * len(working)
    if load.peak > room * (1 + 1e-9):
        return [f"{len(working)} servers may carry {room:.0f}/s"]
    return []


def needed(cluster: Cluster, load: Load) -> dict[str, int]:
    """How many balancers like the weakest declared one carry the peak: as it is, without a node, without a zone."""
    room = min(load.per_node.values()) * load.limit
    carrying = max(1, math.ceil(load.peak / room - 1e-9))
    zones = len({one.zone for one in cluster.balancers})
    if cluster.cluster.pattern == "standby" and cluster.cluster.contract != "pool":
        # Each address has one active balancer and, in another zone, one that stands by for it alone.
        return {"as it is": carrying, "without one node": 2 * carrying, "without one zone": 2 * carrying}
    # With one zone there is no number: two zones are what it takes.
    spread = max(2, zones)
    each = math.ceil(carrying / (spread - 1))
    return {"as it is": carrying, "without one node": carrying + 1, "without one zone": each * spread}


def judge(cluster: Cluster, load: Load) -> Capacity:
    """Every state in turn: as it is, without each balancer, without each zone. ValueError without balancers."""
    if not cluster.balancers:
        raise ValueError("the tier has no balancers of its own: AWS sizes its load balancer")
    cases = [_case(cluster, load, "as it is", ())]
    cases += [_case(cluster, load, f"without {one.name}", (one.name,)) for one in cluster.balancers]
    zones = dict.fromkeys(one.zone for one in cluster.balancers)
    zones |= dict.fromkeys(one.zone for one in cluster.servers if one.zone is not None)
    for zone in zones:
        lost = tuple(one.name for one in cluster.balancers if one.zone == zone)
        cases.append(_case(cluster, load, f"without {zone}", lost, zone))
    return Capacity(needed(cluster, load), tuple(cases), tuple(_notes(cluster)))


def _notes(cluster: Cluster) -> list[str]:
    found = []
    dns = cluster.dns
    if cluster.cluster.pattern == "round-robin" and dns is not None:
        if dns.provider != "route53" or dns.policy == "simple" or not dns.health_checks:
            found.append("nothing but `haptk dns watch` takes a lost balancer out of the name")
        found.append(f"clients that know a lost address wait for the TTL, {dns.ttl.text}")
    unknown = [one.name for one in cluster.servers if one.zone is None]
    if unknown:
        found.append(f"no zone is declared for {', '.join(unknown)}: taken as outside every lost zone")
    return found
