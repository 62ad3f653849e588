"""C6xx and C7xx: the name in DNS, and the load balancer of AWS."""

from __future__ import annotations

import re

from haptk.cluster.problem import WARNING
from haptk.cluster.rules import Found, rule
from haptk.cluster.schema import Cluster


@rule("C601", "The name is in its zone.")
def name_in_zone(cluster: Cluster) -> Found:
    """A record outside the zone is refused, or made where nobody asks."""
    dns = cluster.dns
    if dns is None:
        return
    name, zone = dns.name.rstrip(".").lower(), dns.zone.rstrip(".").lower()
    if name != zone and not name.endswith("." + zone):
        yield ("dns", "name"), f"{dns.name} is not in the zone {dns.zone}"


@rule("C602", "A name in Route 53 has its hosted zone.")
def zone_id(cluster: Cluster) -> Found:
    """A change batch is sent to an id, not to a name."""
    dns = cluster.dns
    if dns is not None and dns.provider == "route53" and dns.zone_id is None:
        yield ("dns", "provider"), "provider route53 needs zone_id: it is missing"


@rule("C603", "Dynamic updates have a server.")
def update_server(cluster: Cluster) -> Found:
    """An update goes to the primary server of the zone."""
    dns = cluster.dns
    if dns is not None and dns.provider == "rfc2136" and dns.server is None:
        yield ("dns", "provider"), "provider rfc2136 needs server: it is missing"


@rule("C604", "A simple record has no health checks.")
def simple_unchecked(cluster: Cluster) -> Found:
    """Route 53 checks records, and a simple record is all addresses at once."""
    dns = cluster.dns
    if dns is not None and dns.provider == "route53" and dns.policy == "simple" and dns.health_checks:
        yield ("dns", "health_checks"), "a simple record cannot have health checks: take multivalue, or false"


@rule("C605", "Weights are for weighted records.")
def weights_used(cluster: Cluster) -> Found:
    """The weight would have no effect."""
    if cluster.dns is not None and cluster.dns.policy == "weighted":
        return
    for place, address in enumerate(cluster.addresses):
        if address.weight is not None:
            yield ("addresses", place, "weight"), f'{address.name}: weight needs [dns] policy = "weighted"'


@rule("C606", "Not every weight is 0.")
def some_weight(cluster: Cluster) -> Found:
    """With all weights 0 Route 53 answers with all records, as if there were no weights."""
    weights = [address.weight for address in cluster.addresses]
    if weights and all(weight == 0 for weight in weights):
        yield ("addresses", 0, "weight"), "every address has weight 0: nothing would be drained"


@rule("C607", "Weights and several values are Route 53's.")
def policy_of_provider(cluster: Cluster) -> Found:
    """Other servers know plain records."""
    dns = cluster.dns
    if dns is not None and dns.provider == "rfc2136" and dns.policy != "simple":
        yield ("dns", "policy"), 'provider rfc2136 has plain records only: take policy = "simple"'


@rule("C608", "The TTL is no longer than the failover of the name.", WARNING)
def ttl(cluster: Cluster) -> Found:
    """In round robin a client keeps a dead address for the TTL after the record is gone."""
    dns = cluster.dns
    if dns is None or cluster.cluster.pattern != "round-robin" or not dns.health_checks:
        return
    failover = dns.health_interval * dns.health_fall
    if dns.ttl > failover:
        why = f"ttl {dns.ttl.text} is longer than the {failover} s in which a dead balancer leaves the name"
        yield ("dns", "ttl"), why


@rule("C609", "Round robin has a name and at least two addresses.")
def round_robin(cluster: Cluster) -> Found:
    """One address is no choice."""
    if cluster.cluster.pattern != "round-robin":
        return
    if cluster.dns is None:
        yield ("cluster", "pattern"), "pattern round-robin needs [dns]: the name is what spreads the clients"
    elif len(cluster.addresses) == 1:
        yield ("addresses", 0, "name"), "pattern round-robin needs two addresses or more: there is one"


@rule("C610", "A TTL is whole seconds, at most a week.")
def ttl_range(cluster: Cluster) -> Found:
    """RFC 2181 allows more, no operator wants it."""
    if cluster.dns is not None and (not cluster.dns.ttl.is_integer() or cluster.dns.ttl > 604800):
        yield ("dns", "ttl"), f"ttl {cluster.dns.ttl.text}: whole seconds up to 168h are accepted"


@rule("C701", "Pattern elb describes the load balancer.")
def elb_needed(cluster: Cluster) -> Found:
    """Its kind, VPC and subnets are nowhere else."""
    if cluster.cluster.pattern == "elb" and cluster.elb is None:
        yield ("cluster", "pattern"), "pattern elb needs the table [elb]: it is missing"


@rule("C702", "Only pattern elb has a load balancer of AWS.")
def elb_useless(cluster: Cluster) -> Found:
    """It would cost and carry nothing."""
    if cluster.cluster.pattern != "elb" and cluster.elb is not None:
        yield ("elb",), f"[elb] has no meaning in pattern {cluster.cluster.pattern}"


@rule("C703", "A load balancer that ends TCP keeps no cookie.")
def network_cookies(cluster: Cluster) -> Found:
    """A network load balancer sees no HTTP; it keeps a client by its address at best."""
    elb, design = cluster.elb, cluster.session.design
    if elb is None or elb.type != "network" or elb.source_ip or cluster.balancers:
        return
    if design != "stateless":
        why = f"a network load balancer sees no cookie, but design {design} needs one: take application, or source_ip"
        yield ("elb", "type"), why


@rule("C704", "An application load balancer has subnets in two zones.")
def two_zones(cluster: Cluster) -> Found:
    """AWS refuses fewer."""
    if cluster.elb is not None and cluster.elb.type == "application" and len(cluster.elb.subnets) < 2:
        yield ("elb", "subnets"), "an application load balancer needs subnets in two zones: there is one"


@rule("C705", "The subnets of a load balancer are in zones that a region lists.")
def subnet_zones(cluster: Cluster) -> Found:
    """A target in another zone gets no traffic."""
    for zone in cluster.elb.subnets if cluster.elb is not None else ():
        if not cluster.region_of(zone):
            yield ("elb", "subnets"), f"no region lists the zone {zone}"


@rule("C706", "Only a network load balancer has Elastic IPs.")
def fixed_addresses(cluster: Cluster) -> Found:
    """An application load balancer has a name whose addresses change."""
    if cluster.elb is not None and cluster.elb.type == "application" and cluster.addresses:
        yield (
            ("addresses", 0, "name"),
            "an application load balancer cannot have Elastic IPs: take network, or drop them",
        )


@rule("C707", "An Elastic IP of a load balancer has its allocation id.")
def elb_allocations(cluster: Cluster) -> Found:
    """A subnet is mapped to an allocation, not to an address."""
    if cluster.cluster.pattern != "elb":
        return
    for place, address in enumerate(cluster.addresses):
        if address.allocation is None:
            yield (
                ("addresses", place, "public_ip"),
                f"{address.name}: in pattern elb an address needs its allocation id",
            )


@rule("C708", "The name of a tier with a load balancer of AWS has at most 22 letters, digits and '-'.")
def elb_name(cluster: Cluster) -> Found:
    """AWS takes 32 of these for a load balancer or a target group, and the kind is written behind the name."""
    name = cluster.cluster.name
    if cluster.elb is not None and not re.fullmatch(r"(?!internal-)[A-Za-z0-9-]{1,22}", name):
        why = f"AWS takes no load balancer named after {name!r}: 1 to 22 letters, digits and '-' are accepted"
        yield ("cluster", "name"), why


@rule("C709", "Source addresses are kept by a network load balancer without TLS.")
def source_ip_kind(cluster: Cluster) -> Found:
    """An application load balancer has cookies; a TLS listener has no stickiness at all."""
    elb = cluster.elb
    if elb is None or not elb.source_ip:
        return
    if elb.type == "application":
        yield ("elb", "source_ip"), "an application load balancer keeps sessions by cookies: drop source_ip"
    elif elb.certificate is not None:
        yield ("elb", "source_ip"), "a TLS listener keeps no source address: drop source_ip, or the certificate"


@rule("C710", "A target of AWS's load balancer has no weight and is no backup.", WARNING)
def elb_weights(cluster: Cluster) -> Found:
    """Every healthy target gets its share."""
    if cluster.elb is None or cluster.balancers:
        return
    for place, server in enumerate(cluster.servers):
        if server.weight != 1 or server.backup:
            key = "backup" if server.backup else "weight"
            yield ("servers", place, key), f"{server.name}: a load balancer of AWS takes no account of {key}"


@rule("C711", "Times of a load balancer of AWS are within its limits.")
def elb_times(cluster: Cluster) -> Found:
    """AWS refuses others, after half of it has been made."""
    elb = cluster.elb
    if elb is None:
        return
    if not 1 <= elb.idle_timeout <= 4000:
        yield ("elb", "idle_timeout"), f"idle_timeout {elb.idle_timeout.text}: 1s to 4000s are accepted"
    if not 60 <= elb.tcp_idle_timeout <= 6000:
        yield ("elb", "tcp_idle_timeout"), f"tcp_idle_timeout {elb.tcp_idle_timeout.text}: 60s to 6000s are accepted"
    elif float(elb.tcp_idle_timeout) != 350 and (elb.type == "application" or elb.certificate is not None):
        why = "only a network load balancer without a certificate has a tcp_idle_timeout: drop it"
        yield ("elb", "tcp_idle_timeout"), why
    if elb.deregistration_delay > 3600:
        why = f"deregistration_delay {elb.deregistration_delay.text}: at most 3600s are accepted"
        yield ("elb", "deregistration_delay"), why
