"""keepalived.conf and its check: unicast VRRP between the balancers, an Elastic IP moved by haptk's notify script.

What pages on the web get wrong is right here and said where it stands: intervals are what the comments say, a weight is
larger than the difference of priorities, no `nopreempt` beside a weight (it would ignore the failed check), and
notify_master_rx_lower_pri, because on AWS the address stays with whoever called the API last.
"""

from __future__ import annotations

import math

from haptk.cluster import vrrp
from haptk.cluster.schema import Address, Cluster, holders
from haptk.render.artefact import Artefact, Site
from haptk.render.balancer import PIDFILE
from haptk.render.template import fill

PATH = "/etc/keepalived/keepalived.conf"
CHECK = "/etc/keepalived/haptk-check"
# Link-local and on `lo` only: it never leaves the machine. The last number is the VRRP id.
MARKERS = "169.254.112"
SCRIPT = "/usr/libexec/haptk/haptk-eip-keepalived"


def script_words(cluster: Cluster, address: Address, node: str, action: str) -> str:
    """The contract's script for one address on one node; to `notify` keepalived or the template adds the state."""
    words = [SCRIPT, action, address.public_ip]
    interface = cluster.balancer(node).interface
    if interface:
        words.append(interface)
    if node in address.private_ips:
        words.append(f"private-ip={address.private_ips[node]}")
    return " ".join(words)


def startup_delay(cluster: Cluster, node: str) -> int:
    """Seconds that a pure standby waits at its start, so that of two nodes that boot the active one comes first."""
    if any(address.active == node for address in cluster.addresses):
        return 0
    return math.ceil(cluster.timing.keepalive * (vrrp.down_adverts(cluster.timing) + 1))


def keepalived(cluster: Cluster, node: str, site: Site) -> tuple[Artefact, ...]:
    """keepalived's files on one node."""
    balancer = cluster.balancer(node)
    address_of = {one.name: one.private_ip for one in cluster.balancers}
    text = fill(
        "keepalived.conf.j2",
        cluster=cluster,
        node=balancer,
        addresses=cluster.addresses_of(node),
        check=cluster.check,
        check_script=CHECK,
        interval_s=max(1, math.ceil(cluster.check.interval)),
        timeout_s=max(1, math.ceil(cluster.check.timeout)),
        timing=cluster.timing,
        delay_s=startup_delay(cluster, node),
        peers=lambda address: [address_of[name] for name in holders(address) if name != node],
        priority=lambda address: vrrp.priorities(cluster, address)[node],
        router_id=lambda address: vrrp.router_id(cluster, address),
        adverts=vrrp.down_adverts(cluster.timing),
        marker=lambda address: f"{MARKERS}.{vrrp.router_id(cluster, address)}",
        notify=lambda address: script_words(cluster, address, node, "notify"),
        held=lambda address: script_words(cluster, address, node, "check") + " keep=1",
    )
    curl_s = f"{cluster.check.timeout:g}"
    url = f"http://127.0.0.1:{cluster.frontend.health_port}{cluster.frontend.health_path}"
    check = fill("haptk-check.sh.j2", pidfile=PIDFILE, url=url, timeout_s=curl_s)
    reload = ("systemctl", "reload-or-restart", "keepalived")
    return (
        Artefact(path=CHECK, text=check, mode=0o755, node=node, what="keepalived", needs=("curl",),
                 validate=("sh", "-n", "{}")),
        Artefact(path=SCRIPT, text=site.script("keepalived"), mode=0o755, local=True, node=node, what="keepalived",
                 validate=("sh", "-n", "{}")),
        Artefact(path=PATH, text=text, node=node, what="keepalived", needs=("keepalived",),
                 validate=("keepalived", "-t", "-f", "{}"), judged_here=True, reload=reload),
    )  # fmt: skip
