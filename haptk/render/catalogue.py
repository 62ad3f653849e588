"""What can be generated: a table from the word on the command line to the function, and which of it a pattern needs.

`of_node` is what lies on a machine; `of_tier` is what is made once for the tier. `apply` writes exactly what
`files_of_node` names.
"""

from __future__ import annotations

from collections.abc import Callable

from haptk.cluster.schema import Cluster
from haptk.render import (
    balancer,
    cloud_init,
    elb,
    heartbeat,
    iam,
    iam_operator,
    keepalived,
    network,
    octodns,
    pacemaker,
    pool,
    route53,
    systemd,
    zone,
)
from haptk.render.artefact import Artefact, Site

OfNode = Callable[[Cluster, str, Site], tuple[Artefact, ...]]
OfTier = Callable[[Cluster], tuple[Artefact, ...]]

OF_NODE: dict[str, OfNode] = {
    "haproxy": lambda cluster, node, _: (balancer.haproxy(cluster, node),),
    "keepalived": keepalived.keepalived,
    "heartbeat": heartbeat.heartbeat,
    "pacemaker": pacemaker.pacemaker,
    "pool": lambda cluster, node, _: pool.pool(cluster, node),
    "systemd": lambda cluster, node, _: systemd.systemd(cluster, node),
    "cloud-init": lambda cluster, node, site: cloud_init.cloud_init(cluster, node, files_of_node(cluster, node, site)),
}
OF_TIER: dict[str, OfTier] = {
    "iam-policy": iam.iam_policy,
    "operator-policy": iam_operator.operator_policy,
    "security-group": network.security_group,
    "route53": route53.route53,
    "octodns": octodns.octodns,
    "zone": zone.zone,
    "elb": elb.elb,
}
CONTRACTS = ("keepalived", "heartbeat", "pacemaker", "pool")


def kinds_of_node(cluster: Cluster) -> list[str]:
    """The words whose files belong on a balancer of this tier."""
    if not cluster.balancers:
        return []
    own = [cluster.cluster.contract] if cluster.cluster.contract in CONTRACTS else []
    return ["haproxy", *own, "systemd"]


def kinds_of_tier(cluster: Cluster) -> list[str]:
    """The words whose documents this tier needs."""
    found = ["iam-policy", "security-group"] if cluster.balancers else []
    if cluster.dns is not None and cluster.addresses:
        found.append("zone" if cluster.dns.provider == "rfc2136" else cluster.dns.provider)
    if cluster.elb is not None:
        found.append("elb")
    manages = cluster.elb is not None or cluster.dns is not None or iam.lease_table(cluster) is not None
    return found + (["operator-policy"] if manages else [])


def why_not(cluster: Cluster, what: str) -> str:
    """Why this word makes no sense for this tier; "" when it does."""
    tier = cluster.cluster
    if what in OF_NODE and not cluster.balancers:
        return f"the tier has no balancers (pattern {tier.pattern})"
    if what in CONTRACTS and tier.contract != what:
        return f'[cluster] contract is "{tier.contract}"'
    if what in ("route53", "octodns", "zone") and cluster.dns is None:
        return "the declaration has no table [dns]"
    if what in ("route53", "octodns", "zone") and not cluster.addresses:
        return "the tier has no addresses: its name becomes an alias, which `haptk apply --aws` makes"
    if what == "route53" and cluster.dns is not None and cluster.dns.zone_id is None:
        return "[dns] has no zone_id"
    if what == "elb" and cluster.elb is None:
        return "the declaration has no table [elb]"
    return ""


def files_of_node(cluster: Cluster, node: str, site: Site) -> tuple[Artefact, ...]:
    """Every file that belongs on a node, in the order in which it may be written: a service before who checks it."""
    found = [one for what in kinds_of_node(cluster) for one in OF_NODE[what](cluster, node, site)]
    return tuple(one for one in found if one.on_disk)
