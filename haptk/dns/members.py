"""The members of the name themselves: the declared check against every address, all at once."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from haptk.cluster.schema import Cluster
from haptk.core.dns import Declared
from haptk.errors import OperatorError

Result = tuple[bool | None, str]


def declared(cluster: Cluster) -> Declared:
    """What the declaration says of the name; OperatorError without [dns] or without addresses."""
    dns = cluster.dns
    if dns is not None and cluster.elb is not None and not cluster.addresses:
        why = f"{dns.name} is an alias of AWS's load balancer: `haptk apply --aws` makes it"
        raise OperatorError(what=f"{why}, `haptk elb status` judges what is behind it")
    if dns is None or not cluster.addresses:
        raise OperatorError(what="cluster.toml declares no name with addresses: it needs [dns] and [[addresses]]")
    weighted = dns.policy == "weighted"
    return Declared(
        name=dns.name.rstrip("."),
        policy=dns.policy,
        ttl_s=int(dns.ttl),
        weights={one.public_ip: 1 if one.weight is None or not weighted else one.weight for one in cluster.addresses},
        nodes={one.public_ip: one.active for one in cluster.addresses},
        checked=dns.provider == "route53" and dns.health_checks and dns.policy != "simple",
    )


def probe(cluster: Cluster, addresses: Iterable[str], timeout_s: float) -> dict[str, Result]:
    """(answers well, why) of every address on the service's port; None in place of a bool: this machine could not look."""
    from haptk.io.probe import probe_http

    check, port = cluster.check, cluster.frontend.port
    headers = [("Host", check.host)] if check.host else []
    version = "HTTP/1.1" if check.host else "HTTP/1.0"

    def one(address: str) -> Result:
        found = probe_http(check.method, check.path, version, address, port, headers, timeout_s=timeout_s)
        return (None if found.code == "SOCKERR" else found.ok), found.reason

    wanted = list(addresses)
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(32, len(wanted))) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))
