"""What moving a declared tier to a load balancer of AWS gains and loses, point by point. Pure.

Facts about ELB are those of its user guides (Application and Network Load Balancers: stickiness, idle time-outs, health
checks, addresses, capacity reservations); the limits of health checks are haptk.render.elb's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from haptk.cluster.capacity import Load, needed
from haptk.cluster.schema import Cluster

Kind = Literal["network", "application"]
GAIN, LOSS, SAME, STOP = "gain", "loss", "same", "stop"
NETWORK_IDLE_S = 350
APPLICATION_CONNECT_S = 10
FAILOVER_OF_ZONE_S = 60


@dataclass(frozen=True)
class Point:
    """One difference. `verdict` is gain, loss, same, or stop: the tier cannot move as it is declared."""

    topic: str
    verdict: str
    text: str


Found = Iterator[Point]


def compare(cluster: Cluster, kind: Kind, load: Load | None = None) -> list[Point]:
    """Every point for this cluster against this kind of load balancer; `load` makes the capacity a number."""
    found = [point for topic in TOPICS for point in topic(cluster, kind)]
    return found + list(_capacity(cluster, kind, load))


def _sessions(cluster: Cluster, kind: Kind) -> Found:
    design, cookie = cluster.session.design, cluster.session.cookie
    if design == "stateless":
        yield Point("sessions", SAME, "stateless: any server takes any request")
        return
    if kind == "network":
        why = f"it sees no HTTP, so nothing keeps {cookie} on its server; source_ip keeps a client's address, and all "
        yield Point(
            "sessions", STOP, f"{why}clients behind one NAT on one server: take application, or balancers behind it"
        )
        return
    if design == "insert":
        text = f"lb_cookie does the same as insert with a cookie AWSALB in place of {cookie}; it cannot be named"
        yield Point("sessions", SAME, text)
    elif design == "learn":
        text = f"app_cookie on {cookie} writes the server into a cookie AWSALBAPP-0 of the client: no peers, no table"
        yield Point("sessions", GAIN, text)
    else:
        what = "does not write the server before" if design == "prefix" else "does not fill"
        text = f"app_cookie {what} {cookie}: it adds a cookie AWSALBAPP-0 beside it, which clients have to keep too"
        yield Point("cookie prefixing" if design == "prefix" else "cookie rewriting", LOSS, text)
    yield from _open_sessions(design, str(cookie))


def _open_sessions(design: str, cookie: str) -> Found:
    begin = "open sessions have no cookie of ELB yet: their next request goes to any server"
    if design == "prefix":
        first = f"{begin}, and there the application reads {cookie}=SERVER~..., because nothing cuts the prefix"
        yield Point("open sessions", LOSS, f"{first}; move while few are open, or cut it in the application")
    else:
        yield Point("open sessions", LOSS, f"{begin}; move while few are open")


def _timeouts(cluster: Cluster, kind: Kind) -> Found:
    front = cluster.frontend
    own = (
        f"here {front.client_timeout.text} of silence end a connection and {front.server_timeout.text} a request (504)"
    )
    if kind == "network":
        text = (
            f"{own}; there a TCP flow is forgotten after {NETWORK_IDLE_S} s of silence (60 to 6000 s; TLS: fixed) and "
        )
        yield Point("TCP time-outs", LOSS, f"{text}nothing limits the time of a server: the application has to")
        return
    idle = cluster.elb.idle_timeout.text if cluster.elb is not None else "60s"
    text = f"{own}; there one idle time-out ([elb] idle_timeout, {idle}, up to 4000 s) does both"
    yield Point("TCP time-outs", SAME, f"{text}; the servers' keep-alive has to be longer, or clients see 502")
    if front.connect_timeout < APPLICATION_CONNECT_S:
        text = f"connecting to a dead server takes {APPLICATION_CONNECT_S} s there, {front.connect_timeout.text} here"
        yield Point("TCP time-outs", LOSS, f"{text}, until its check has failed")


def _addresses(cluster: Cluster, kind: Kind) -> Found:
    count = len(cluster.addresses)
    if not count:
        return
    names = ", ".join(one.public_ip for one in cluster.addresses)
    if kind == "application":
        text = f"its addresses change: {names} cannot stay; whoever has them in a firewall or a record needs the name"
        yield Point("fixed addresses", STOP if cluster.dns is None else LOSS, text)
        return
    zones = {zone for region in cluster.regions for zone in region.zones}
    if count > len(zones):
        text = f"a network load balancer has one Elastic IP a zone: of {count} addresses {len(zones)} can stay"
        yield Point("fixed addresses", LOSS, text)
    else:
        yield Point("fixed addresses", SAME, f"{names} can stay, one a zone")
    text = "an Elastic IP is given to it only when it is made, and must be free: the balancers let go of it first"
    yield Point(
        "fixed addresses", LOSS, f"{text}, so clients are refused meanwhile (begin with other ones and move the name)"
    )


def _failover(cluster: Cluster, _: Kind) -> Found:
    tier, dns = cluster.cluster, cluster.dns
    there = f"there AWS replaces what breaks; a lost zone leaves the name in about {FAILOVER_OF_ZONE_S} s"
    if tier.pattern == "standby":
        own = f"{cluster.timing.deadtime.text} of silence" if tier.contract != "pool" else "an expired lease"
        yield Point(
            "failover",
            GAIN,
            f"here {own} and one API call move an address, and somebody has to keep that well; {there}",
        )
    elif tier.pattern == "round-robin" and dns is not None:
        wait = (
            f"{dns.health_interval * dns.health_fall} s and a TTL of {dns.ttl.text}"
            if dns.health_checks
            else "a person"
        )
        yield Point("failover", GAIN, f"here {wait} take a dead balancer out of the name; {there}")


def _checks(cluster: Cluster, kind: Kind) -> Found:
    from haptk.render.elb import health

    check, limits = cluster.check, health(cluster)
    own = check.interval * check.fall
    other = limits["HealthCheckIntervalSeconds"] * limits["UnhealthyThresholdCount"]
    text = f"a dead server is out after {own:g} s here, {other} s there"
    verdict = SAME if other == own else LOSS if other > own else GAIN
    yield Point("checks", verdict, text + (" (5 s or more between two, 2 to 10 of them)" if verdict == LOSS else ""))
    if check.method != "GET":
        yield Point("checks", LOSS, f"it asks with GET and not with {check.method}: the path has to answer that")
    if check.host is not None:
        yield Point("checks", LOSS, f"it cannot send Host: {check.host}; the path has to answer without it")


def _servers(cluster: Cluster, kind: Kind) -> Found:
    backups = [one.name for one in cluster.servers if one.backup]
    weights = [f"{one.name} {one.weight}" for one in cluster.servers if one.weight != 1]
    if backups:
        yield Point("servers", LOSS, f"there are no backups: {', '.join(backups)} would get their share at once")
    if weights:
        yield Point("servers", LOSS, f"targets have no weights ({', '.join(weights)} here): each gets its share")
    yield Point(
        "draining",
        LOSS,
        "a target that leaves gets no request any more, also of its own sessions; haproxy's drain lets them end",
    )


def _clients(cluster: Cluster, kind: Kind) -> Found:
    if kind == "application":
        yield Point("client address", SAME, "X-Forwarded-For as here, and X-Forwarded-Proto and -Port beside it")
        return
    whole = bool(cluster.servers) and all(one.instance for one in cluster.servers)
    how = (
        "the connection's own address is the client's" if whole else "with targets by address it is the load balancer's"
    )
    yield Point("client address", LOSS, f"no X-Forwarded-For: {how}")


def _name(cluster: Cluster, kind: Kind) -> Found:
    dns = cluster.dns
    if dns is None or (kind == "network" and cluster.addresses):
        return
    apex = dns.name.rstrip(".").lower() == dns.zone.rstrip(".").lower()
    if dns.provider == "route53":
        yield Point("name", SAME, f"{dns.name} becomes an alias of the load balancer's name, in place of its A records")
    elif apex:
        text = f"{dns.name} is the top of its zone: a CNAME cannot stand there, and an alias is Route 53's"
        yield Point("name", STOP, text)
    else:
        yield Point("name", SAME, f"{dns.name} becomes a CNAME of the load balancer's name")


def _tls(cluster: Cluster, kind: Kind) -> Found:
    yield Point(
        "TLS", GAIN, "certificates of ACM, renewed by AWS ([elb] certificate); the generated balancers speak plain HTTP"
    )


def _capacity(cluster: Cluster, kind: Kind, load: Load | None) -> Found:
    own = f"{len(cluster.balancers)} balancers with {cluster.frontend.maxconn} connections each"
    grows = "it grows with the load" if kind == "network" else "it grows within minutes"
    warn = "" if kind == "network" else "; a peak that comes in seconds needs a capacity reservation (LCU)"
    if load is not None and cluster.balancers:
        counts = needed(cluster, load)
        need = max(counts.values())
        verdict = GAIN if need > len(cluster.balancers) else SAME
        text = f"{load.peak:g} requests/s need {need} balancers to survive a node and a zone, declared are {len(cluster.balancers)}"
        yield Point("capacity", verdict, f"{text}; there {grows}{warn}")
    elif cluster.balancers:
        yield Point("capacity", GAIN, f"{own} here; there {grows}{warn} (--peak and --per-node make it a number)")
    if cluster.balancers:
        text = f"nothing is held back: here clients wait beyond maxconn {cluster.frontend.maxconn}, there all reach the servers"
        yield Point("capacity", LOSS, text)


TOPICS: tuple[Callable[[Cluster, Kind], Found], ...] = (
    _sessions, _timeouts, _addresses, _failover, _checks, _servers, _clients, _name, _tls,
)  # fmt: skip
