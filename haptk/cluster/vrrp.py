"""VRRP numbers that follow from the declaration where it gives none: priorities of holders and router ids.

An active node has 150, its standbys 100, 99 and so on: between them lies less than a failed check takes off (60), so one
failed check moves the address and a failure that both nodes see moves nothing.
"""

from __future__ import annotations

from haptk.cluster.schema import Address, Cluster, holders

ACTIVE = 150
STANDBY = 100
FIRST_ID = 51


def priorities(cluster: Cluster, address: Address) -> dict[str, int]:
    """The priority of every known holder of an address, by name."""
    given = {balancer.name: balancer.priority for balancer in cluster.balancers}
    found = {}
    for place, name in enumerate(holders(address)):
        if name in given:
            default = ACTIVE if place == 0 else STANDBY + 1 - place
            # A node that is active for one address and standby for another cannot have one number for both.
            own = given[name] if len(cluster.addresses_of(name)) == 1 else None
            found[name] = default if own is None else own
    return found


def router_id(cluster: Cluster, address: Address) -> int:
    """The router id of an address."""
    return FIRST_ID + cluster.addresses.index(address) if address.vrrp_id is None else address.vrrp_id
