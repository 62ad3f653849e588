"""User data for a balancer: packages, every generated file, and the order in which things start.

User data can be read by every process of the instance, so no key is ever in it: where the contract needs one, the first
boot leaves the daemon stopped and says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError
from haptk.render.artefact import Artefact
from haptk.render.template import fill

LIMIT = 16384
"""EC2 takes 16 KiB of user data before base64."""


def packages(cluster: Cluster) -> list[str]:
    """Debian's names of what the node needs."""
    tier = cluster.cluster
    found = ["curl"]
    if tier.proxy == "haproxy":
        found.append("haproxy")
    if tier.contract == "heartbeat" and tier.heartbeat == "heartbeat":
        found += ["heartbeat"]
    if tier.contract in ("keepalived", "pacemaker"):
        found.append(tier.contract)
    return sorted(found)


def units(cluster: Cluster) -> list[str]:
    """The units to enable, in order."""
    tier = cluster.cluster
    found = ["haptk-proxy" if tier.proxy == "haptk" else "haproxy"]
    if tier.contract == "heartbeat":
        found.append("haptk-heartbeat" if tier.heartbeat == "haptk" else "heartbeat")
    if tier.contract in ("keepalived", "pacemaker"):
        found.append(tier.contract)
    if tier.contract == "pool":
        found.append("haptk-pool")
    return found


def cloud_init(cluster: Cluster, node: str, files: Iterable[Artefact]) -> tuple[Artefact, ...]:
    """The user data of one node from the files that were rendered for it."""
    chosen = [one for one in files if one.on_disk]
    scripts = {"keepalived": "keepalived", "pacemaker": "ocf", "heartbeat": "heartbeat"}
    text = fill(
        "cloud-init.yaml.j2",
        node=node,
        packages=packages(cluster),
        files=[one for one in chosen if not one.secret and not one.local],
        haptk=cluster.cluster.haptk,
        # A script names paths of the machine it was made on, so the instance makes its own.
        contracts=sorted({scripts[one.what] for one in chosen if one.local}),
        secrets=[one for one in chosen if one.secret],
        units=units(cluster),
    )
    if len(text.encode()) > LIMIT:
        why = f"the user data of {node} has {len(text.encode())} bytes, and EC2 takes {LIMIT}: put the files elsewhere"
        raise OperatorError(what=why)
    validate = ("cloud-init", "schema", "--config-file", "{}")
    return (Artefact(path=f"cloud-init/{node}.yaml", text=text, node=node, what="cloud-init", validate=validate),)
