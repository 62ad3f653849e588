"""The name as a zone file of octoDNS, which hands it to UltraDNS, DNS Made Easy and the rest of its providers.

octoDNS demands sorted keys, so the templates are written in order. Weights become a dynamic record with one pool, and
the check that providers run is the declared one.
"""

from __future__ import annotations

import math

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.template import fill


def record_name(name: str, zone: str) -> str:
    """The name relative to its zone, '' for the zone itself."""
    name, zone = name.rstrip("."), zone.rstrip(".")
    return "" if name.lower() == zone.lower() else name[: -len(zone) - 1]


def weights(cluster: Cluster) -> dict[str, int]:
    """Weights from 1 to 100 as octoDNS takes them, by public address; an address with weight 0 is not in the pool."""
    given = {address.public_ip: 1 if address.weight is None else address.weight for address in cluster.addresses}
    most = max(given.values(), default=1)
    scale = 100 / most if most > 100 else 1
    return {ip: max(1, math.floor(weight * scale)) for ip, weight in given.items() if weight > 0}


def octodns(cluster: Cluster) -> tuple[Artefact, ...]:
    """The zone file, and a configuration to begin with; ValueError without [dns]."""
    dns = cluster.dns
    if dns is None:
        raise ValueError("the declaration has no table [dns]")
    zone = dns.zone.rstrip(".") + "."
    values = {
        "cluster": cluster,
        "dns": dns,
        "zone": zone,
        "name": record_name(dns.name, dns.zone),
        "weights": weights(cluster) if dns.policy == "weighted" else {},
        "addresses": sorted(address.public_ip for address in cluster.addresses),
        "host": cluster.check.host or dns.name.rstrip("."),
    }
    return (
        Artefact(path=f"octodns/zones/{zone}yaml", text=fill("octodns-zone.yaml.j2", **values), what="octodns"),
        Artefact(
            path="octodns/octodns.yaml",
            text=fill("octodns.yaml.j2", **values),
            what="octodns",
            validate=("octodns-validate", "--config-file", "{}"),
        ),
    )
