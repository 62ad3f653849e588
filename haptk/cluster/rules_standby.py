"""C4xx and C5xx: who may hold an address, and the contract that moves it."""

from __future__ import annotations

from haptk.cluster import vrrp
from haptk.cluster.problem import WARNING
from haptk.cluster.rules import Found, rule
from haptk.cluster.schema import Cluster, holders


@rule("C401", "An address is held by balancers that exist.")
def known_holders(cluster: Cluster) -> Found:
    """A misspelt standby is no standby."""
    elb = cluster.cluster.pattern == "elb"
    known = [zone for region in cluster.regions for zone in region.zones] if elb else []
    known = known or [balancer.name for balancer in cluster.balancers]
    kind, names = "zone" if elb else "balancer", ", ".join(known) or "none"
    for place, address in enumerate(cluster.addresses):
        for key in ("active", "standby"):
            for name in (address.active,) if key == "active" else address.standby:
                if name not in known:
                    yield ("addresses", place, key), f"{address.name}: no {kind} is named {name!r}; there are {names}"


@rule("C402", "The balancers of an address differ.")
def standby_is_another(cluster: Cluster) -> Found:
    """A node cannot take over from itself."""
    for place, address in enumerate(cluster.addresses):
        for name in dict.fromkeys(name for name in holders(address) if holders(address).count(name) > 1):
            yield ("addresses", place, "standby"), f"{address.name}: {name} is named twice among its holders"


@rule("C403", "A standby is in the region of its active balancer.")
def same_region(cluster: Cluster) -> Found:
    """An Elastic IP belongs to one region."""
    regions = {balancer.name: cluster.region_of(balancer.zone) for balancer in cluster.balancers}
    for place, address in enumerate(cluster.addresses):
        for name in address.standby:
            home, other = regions.get(address.active, ""), regions.get(name, "")
            if home and other and home != other:
                yield (
                    ("addresses", place, "standby"),
                    f"{address.name}: {name} is in {other}, but the address in {home}",
                )


@rule("C404", "A virtual_ip stays in one zone.")
def virtual_ip_zone(cluster: Cluster) -> Found:
    """A subnet, and with it a secondary private address, ends at its zone."""
    zones = {balancer.name: balancer.zone for balancer in cluster.balancers}
    for place, address in enumerate(cluster.addresses):
        used = {zones[name] for name in holders(address) if name in zones}
        if address.virtual_ip is not None and len(used) > 1:
            why = f"{address.name}: virtual_ip cannot move between zones ({', '.join(sorted(used))})"
            yield ("addresses", place, "virtual_ip"), why


@rule("C405", "A standby is in another zone than its active balancer.", WARNING)
def other_zone(cluster: Cluster) -> Found:
    """The loss of a zone takes both; a virtual_ip has no choice."""
    zones = {balancer.name: balancer.zone for balancer in cluster.balancers}
    for place, address in enumerate(cluster.addresses):
        used = {zones[name] for name in holders(address) if name in zones}
        if address.standby and address.virtual_ip is None and len(used) == 1:
            yield ("addresses", place, "standby"), f"{address.name}: its balancers are all in {next(iter(used))}"


@rule("C406", "In pattern standby every address has a standby.")
def standby_needed(cluster: Cluster) -> Found:
    """Without one the address dies with its balancer."""
    if cluster.cluster.pattern != "standby" or cluster.cluster.contract == "pool":
        return
    for place, address in enumerate(cluster.addresses):
        if not address.standby:
            yield ("addresses", place, "active"), f"{address.name}: pattern standby needs a standby: none is named"


@rule("C407", "Only in pattern standby has an address a standby.")
def standby_useless(cluster: Cluster) -> Found:
    """Nothing would move the address to it."""
    if cluster.cluster.pattern == "standby":
        return
    for place, address in enumerate(cluster.addresses):
        if address.standby:
            why = f'{address.name}: in pattern {cluster.cluster.pattern} nothing moves it to a standby: take "standby"'
            yield ("addresses", place, "standby"), why


@rule("C408", "heartbeat ties exactly two balancers together.")
def pairs(cluster: Cluster) -> Found:
    """haresources clusters have two nodes."""
    if cluster.cluster.contract != "heartbeat":
        return
    seen: set[str] = set()
    for place, address in enumerate(cluster.addresses):
        group = [balancer.name for balancer in cluster.group(address.active)]
        if len(group) > 2 and not seen & set(group):
            why = f"{address.name}: its addresses tie {', '.join(group)} together, but heartbeat takes two nodes"
            yield ("addresses", place, "standby"), why
        seen.update(group)


@rule("C409", "Every balancer has an address.")
def idle_balancers(cluster: Cluster) -> Found:
    """It gets no traffic, now or after any failure; only a pool has spares without one."""
    used = {name for address in cluster.addresses for name in holders(address)}
    if cluster.cluster.contract == "pool" or cluster.cluster.pattern == "elb":
        return
    for place, balancer in enumerate(cluster.balancers):
        if balancer.name not in used:
            yield ("balancers", place, "name"), f"{balancer.name}: no address has it as active or standby"


@rule("C410", "A balancer that may hold two addresses has a private address for each.")
def private_for_each(cluster: Cluster) -> Found:
    """A private address carries one Elastic IP: the second takes the place of the first."""
    if cluster.cluster.contract == "pool":
        return
    for balancer in cluster.balancers:
        used: dict[str, str] = {}
        for place, address in enumerate(cluster.addresses):
            if balancer.name not in holders(address):
                continue
            private = address.private_ips.get(balancer.name, balancer.private_ip)
            if private in used:
                yield (
                    ("addresses", place, "private_ips"),
                    f"{balancer.name} may hold {used[private]} and {address.name} on one private address {private}: "
                    f"give each its own in private_ips",
                )
            used[private] = address.name


@rule("C411", "private_ips names holders of its address.")
def private_of_holders(cluster: Cluster) -> Found:
    """A line for another node has no effect."""
    for place, address in enumerate(cluster.addresses):
        for name in address.private_ips:
            if name not in holders(address):
                why = f"{address.name}: private_ips names {name}, which is neither active nor standby"
                yield ("addresses", place, "private_ips"), why


@rule("C412", "Pattern standby has a contract.")
def contract_needed(cluster: Cluster) -> Found:
    """Somebody has to move the address."""
    if cluster.cluster.pattern == "standby" and cluster.cluster.contract == "none":
        yield ("cluster", "pattern"), "pattern standby needs a contract: heartbeat, keepalived, pacemaker or pool"


@rule("C413", "Only pattern standby has a contract.")
def contract_useless(cluster: Cluster) -> Found:
    """Nothing moves in the other patterns."""
    tier = cluster.cluster
    if tier.pattern != "standby" and tier.contract != "none":
        yield ("cluster", "contract"), f"contract {tier.contract} has no meaning in pattern {tier.pattern}: drop it"


@rule("C414", "Patterns with balancers have addresses.")
def some_addresses(cluster: Cluster) -> Found:
    """Clients reach a balancer by its Elastic IP."""
    if cluster.cluster.pattern != "elb" and cluster.balancers and not cluster.addresses:
        yield ("cluster", "pattern"), f"pattern {cluster.cluster.pattern} needs [[addresses]]: there is none"


@rule("C415", "A pool has a spare.", WARNING)
def pool_spares(cluster: Cluster) -> Found:
    """With as many addresses as balancers nobody is free to take one."""
    if cluster.cluster.contract == "pool" and len(cluster.balancers) <= len(cluster.addresses):
        yield (
            ("cluster", "contract"),
            f"{len(cluster.balancers)} balancers for {len(cluster.addresses)} addresses: no spare",
        )


@rule("C416", "In round robin a balancer is active for one address.")
def one_address_each(cluster: Cluster) -> Found:
    """Two addresses of one machine are one machine with twice the traffic."""
    if cluster.cluster.pattern != "round-robin":
        return
    seen: dict[str, str] = {}
    for place, address in enumerate(cluster.addresses):
        if address.active in seen:
            why = f"{address.name}: {address.active} is active for {seen[address.active]} already"
            yield ("addresses", place, "active"), why
        seen.setdefault(address.active, address.name)


@rule("C501", "With auto_failback a standby has a lower VRRP priority than its active balancer.")
def priority_order(cluster: Cluster) -> Found:
    """With equal or swapped priorities the wrong node becomes master."""
    if cluster.cluster.contract != "keepalived" or not cluster.timing.auto_failback:
        return
    for place, address in enumerate(cluster.addresses):
        ranks = vrrp.priorities(cluster, address)
        for better, worse in zip(holders(address), holders(address)[1:], strict=False):
            if ranks[worse] >= ranks[better]:
                why = f"{address.name}: priority {ranks[worse]} of {worse} is not below {ranks[better]} of {better}"
                yield ("addresses", place, "standby"), why


@rule("C502", "A failed check takes off more priority than lies between active and standby.")
def weight_works(cluster: Cluster) -> Found:
    """A weight smaller than the difference never changes the master."""
    if cluster.cluster.contract != "keepalived":
        return
    weight = cluster.timing.vrrp_weight
    for address in cluster.addresses:
        ranks = vrrp.priorities(cluster, address)
        lowest = min(ranks.values())
        if ranks[address.active] > lowest and ranks[address.active] + weight >= lowest:
            why = (
                f"vrrp_weight {weight} cannot change the master of {address.name}: {ranks[address.active]} and {lowest}"
            )
            yield ("timing", "vrrp_weight"), f"{why} differ by {ranks[address.active] - lowest}"


@rule("C503", "A lowered VRRP priority is still above 0.")
def weight_fits(cluster: Cluster) -> Found:
    """keepalived cuts it at 1, and two lowered nodes become equal."""
    if cluster.cluster.contract != "keepalived":
        return
    weight = cluster.timing.vrrp_weight
    for address in cluster.addresses:
        ranks = vrrp.priorities(cluster, address)
        lowest = min(ranks, key=lambda name: ranks[name])
        if ranks[lowest] + weight < 1:
            yield ("timing", "vrrp_weight"), f"vrrp_weight {weight} takes priority {ranks[lowest]} of {lowest} below 1"


@rule("C504", "No two addresses of one group have one VRRP id.")
def vrrp_ids(cluster: Cluster) -> Found:
    """The instances would take each other's advertisements."""
    if cluster.cluster.contract != "keepalived":
        return
    seen: dict[int, str] = {}
    for place, address in enumerate(cluster.addresses):
        number = vrrp.router_id(cluster, address)
        if number in seen:
            yield ("addresses", place, "vrrp_id"), f"{address.name} and {seen[number]} have one vrrp_id {number}"
        seen.setdefault(number, address.name)


@rule("C505", "VRRP can count keepalive and deadtime.")
def advert(cluster: Cluster) -> Found:
    """Version 3 counts an interval in 12 bits of hundredths of a second; keepalived counts up to 100 missing ones."""
    if cluster.cluster.contract != "keepalived":
        return
    keepalive = cluster.timing.keepalive
    if keepalive > 40.95:
        yield ("timing", "keepalive"), f"keepalive {keepalive.text} is longer than the 40.95 s of a VRRP advertisement"
    elif vrrp.down_adverts(cluster.timing) > 100:
        yield ("timing", "deadtime"), f"deadtime {cluster.timing.deadtime.text} is more than 100 keepalives"


@rule("C506", "A virtual_ip is moved by keepalived.")
def virtual_ip_contract(cluster: Cluster) -> Found:
    """The other contracts move the Elastic IP only."""
    if cluster.cluster.contract == "keepalived":
        return
    for place, address in enumerate(cluster.addresses):
        if address.virtual_ip is not None:
            yield ("addresses", place, "virtual_ip"), f"{address.name}: only contract keepalived moves a virtual_ip"


@rule("C507", "A ping node is no balancer.")
def ping_nodes(cluster: Cluster) -> Found:
    """A witness that dies with the peer says nothing."""
    own = {balancer.private_ip: balancer.name for balancer in cluster.balancers}
    for host in cluster.timing.ping:
        if host in own:
            yield ("timing", "ping"), f"{host} is {own[host]} itself: a witness is a third machine"


@rule("C508", "Without auto_failback every holder has one VRRP priority.")
def equal_priorities(cluster: Cluster) -> Found:
    """The higher one takes the address back as soon as it returns; `nopreempt` would stop failed checks as well."""
    if cluster.cluster.contract != "keepalived" or cluster.timing.auto_failback:
        return
    for place, address in enumerate(cluster.addresses):
        ranks = vrrp.priorities(cluster, address)
        if len(set(ranks.values())) > 1:
            shown = ", ".join(f"{name} {rank}" for name, rank in ranks.items())
            why = f"{address.name}: priorities differ ({shown}): the address would fail back without auto_failback"
            yield ("addresses", place, "active"), why


@rule("C509", "Only `haptk heartbeat` asks a lease.")
def lease_contract(cluster: Cluster) -> Found:
    """Nobody else would look at the table."""
    tier = cluster.cluster
    if cluster.timing.lease is None:
        if cluster.timing.lease_ttl is not None:
            yield ("timing", "lease_ttl"), "lease_ttl is the life of a lease, and no table is named: add lease"
    elif tier.contract != "heartbeat":
        yield ("timing", "lease"), f"contract {tier.contract} asks no lease: only heartbeat does, by `haptk heartbeat`"
    elif tier.heartbeat != "haptk":
        yield ("timing", "lease"), 'heartbeat "heartbeat" asks no lease: take heartbeat = "haptk" in [cluster]'


@rule("C510", "A lease lives for a second or more.")
def lease_life(cluster: Cluster) -> Found:
    """It is renewed three times within its life, over the network."""
    ttl = cluster.timing.lease_ttl
    if ttl is not None and ttl < 1:
        yield ("timing", "lease_ttl"), f"lease_ttl {ttl.text} is shorter than 1 s"


@rule("C511", "A lease ends before a silent balancer is dead.", WARNING)
def lease_before_death(cluster: Cluster) -> Found:
    """A take-over waits for both."""
    timing = cluster.timing
    if timing.lease_ttl is not None and timing.lease_ttl >= timing.deadtime:
        why = f"lease_ttl {timing.lease_ttl.text} is no shorter than deadtime {timing.deadtime.text}"
        yield ("timing", "lease_ttl"), f"{why}: a take-over waits for the lease"
