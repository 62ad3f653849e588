"""The name as records of a master file (RFC 1035, section 5), for a zone of one's own BIND or Knot.

A fragment and no zone: the SOA and the name servers are the operator's. It is what `haptk dns apply` makes by dynamic
updates, for the first load of a zone or for people who allow none.
"""

from __future__ import annotations

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.template import HEADER


def zone(cluster: Cluster) -> tuple[Artefact, ...]:
    """The records of the name; ValueError without [dns]."""
    dns = cluster.dns
    if dns is None:
        raise ValueError("the declaration has no table [dns]")
    name, path = dns.name.rstrip("."), f"dns/{dns.name.rstrip('.')}.zone"
    lines = [
        f"; {HEADER}",
        f'; In the file of zone {dns.zone.rstrip(".")}: $INCLUDE "{name}.zone"',
        f"; For `haptk dns`, in named.conf: update-policy {{ grant haptk name {name}. A; }};",
    ]
    lines += [f"{name}. {int(dns.ttl)} IN A {address.public_ip}" for address in cluster.addresses]
    return (Artefact(path=path, text="\n".join(lines) + "\n", what="zone"),)
