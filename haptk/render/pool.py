"""A member of a pool: the unit that runs `haptk lease pool` with every address, and the check that it asks.

No file names a peer: who may hold what is in the table of leases, so every node has the same files but for its name.
"""

from __future__ import annotations

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.balancer import PIDFILE
from haptk.render.template import fill

CHECK = "/etc/haptk/pool-check"
UNIT = "/etc/systemd/system/haptk-pool.service"
TABLE = "haptk-leases"
TTL_S = (1.0, 600.0)
"""What `haptk lease pool --ttl` takes."""


def pool(cluster: Cluster, node: str) -> tuple[Artefact, ...]:
    """The files of one member."""
    balancer, front = cluster.balancer(node), cluster.frontend
    words = [f"--node {node}", f"--table {TABLE}", f"--region {cluster.region_of(balancer.zone)}", f"--check {CHECK}"]
    words.append(f"--ttl {min(max(cluster.timing.deadtime, TTL_S[0]), TTL_S[1]):g}")
    if balancer.interface is not None:
        words.append(f"--interface {balancer.interface}")
    words += [address.public_ip for address in cluster.addresses]
    unit = fill(
        "haptk-pool.service.j2",
        haptk=cluster.cluster.haptk,
        tier=cluster.cluster.name,
        proxy="haptk-proxy.service" if cluster.cluster.proxy == "haptk" else "haproxy.service",
        words=" ".join(words),
    )
    url = f"http://127.0.0.1:{front.health_port}{front.health_path}"
    check = fill("pool-check.sh.j2", pidfile=PIDFILE, url=url, timeout_s=f"{cluster.check.timeout:g}")
    verify = ("systemd-analyze", "verify", "--man=no", "{}")
    return (
        Artefact(path=CHECK, text=check, mode=0o755, node=node, what="pool", needs=("curl",), validate=("sh", "-n", "{}")),
        Artefact(path=UNIT, text=unit, node=node, what="pool", validate=verify, judged_here=True,
                 reload=("systemctl", "reload-or-restart", "haptk-pool")),
    )  # fmt: skip
