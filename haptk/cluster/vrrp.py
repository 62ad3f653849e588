"""VRRP numbers that follow from the declaration where it gives none: priorities of holders, router ids, dead time.

Failback and health checks share one mechanism in VRRP, the priority, and `nopreempt` switches off both: a backup with
`nopreempt` ignores a master that lowers its priority, so a failed check would move nothing. Therefore:

auto_failback off   all holders have one priority. A failed check takes 60 off and the backup, now higher, takes over;
                    when the check is good again both are equal, and an equal never preempts.
auto_failback on    150 for the active node, 100, 99 ... for the standbys: a recovered active node is higher and returns.

In both a failure that every node sees lowers all alike and moves nothing.
"""

from __future__ import annotations

from haptk.cluster.schema import Address, Cluster, Timing, holders

EQUAL = 100
ACTIVE = 150
STANDBY = 100
FIRST_ID = 51
RFC_ADVERTS = 3


def priorities(cluster: Cluster, address: Address) -> dict[str, int]:
    """The priority of every known holder of an address, by name."""
    given = {balancer.name: balancer.priority for balancer in cluster.balancers}
    found = {}
    for place, name in enumerate(holders(address)):
        if name in given:
            default = EQUAL
            if cluster.timing.auto_failback:
                default = ACTIVE if place == 0 else STANDBY + 1 - place
            # A node that is active for one address and standby for another cannot have one number for both.
            own = given[name] if len(cluster.addresses_of(name)) == 1 else None
            found[name] = default if own is None else own
    return found


def router_id(cluster: Cluster, address: Address) -> int:
    """The router id of an address."""
    return FIRST_ID + cluster.addresses.index(address) if address.vrrp_id is None else address.vrrp_id


def down_adverts(timing: Timing) -> int:
    """How many missing advertisements mean dead: deadtime in keepalives, 3 in the RFC."""
    return max(1, round(timing.deadtime / timing.keepalive))
