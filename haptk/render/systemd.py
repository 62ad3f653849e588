"""Units and drop-ins: the proxy before whoever checks it, and haptk's own daemons where the declaration names them."""

from __future__ import annotations

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.balancer import PATH as PROXY_CONFIG
from haptk.render.balancer import PIDFILE
from haptk.render.template import fill

DIRECTORY = "/etc/systemd/system"


def systemd(cluster: Cluster, node: str) -> tuple[Artefact, ...]:
    """The units of one node."""
    tier = cluster.cluster
    proxy_unit = "haptk-proxy.service" if tier.proxy == "haptk" else "haproxy.service"
    found = []
    if tier.proxy == "haptk":
        found.append(_unit("haptk-proxy.service", node, cluster, config=PROXY_CONFIG, pidfile=PIDFILE))
    if tier.contract == "keepalived":
        found.append(_drop_in("keepalived.service", node, proxy_unit))
    if tier.contract == "heartbeat" and tier.heartbeat == "heartbeat":
        found.append(_drop_in("heartbeat.service", node, proxy_unit))
    if tier.contract == "heartbeat" and tier.heartbeat == "haptk":
        front, check, timing = cluster.frontend, cluster.check, cluster.timing
        words = [
            f"--check http://127.0.0.1:{front.health_port}{front.health_path}",
            f"--check-inter {check.interval.text}",
            f"--check-fall {check.fall} --check-rise {check.rise} --check-timeout {check.timeout.text}",
        ]
        region = ""
        if timing.lease is not None:
            # The same on both nodes; an address belongs to one pair, so pairs of one tier do not meet below its name.
            words.append(f"--lease {timing.lease}/{tier.name}")
            words += [f"--lease-ttl {timing.lease_ttl.text}"] if timing.lease_ttl is not None else []
            region = cluster.region_of(cluster.balancer(node).zone)
        values = {"proxy": proxy_unit, "words": " ".join(words), "region": region}
        found.append(_unit("haptk-heartbeat.service", node, cluster, **values))
    return tuple(found)


def _unit(name: str, node: str, cluster: Cluster, **values: object) -> Artefact:
    text = fill(f"{name}.j2", haptk=cluster.cluster.haptk, tier=cluster.cluster.name, **values)
    reload = ("systemctl", "reload-or-restart", name.removesuffix(".service"))
    validate = ("systemd-analyze", "verify", "--man=no", "{}")
    return Artefact(
        path=f"{DIRECTORY}/{name}",
        text=text,
        node=node,
        what="systemd",
        validate=validate,
        judged_here=True,
        reload=reload,
    )


def _drop_in(unit: str, node: str, proxy: str) -> Artefact:
    text = fill("drop-in.conf.j2", proxy=proxy, unit=unit)
    return Artefact(path=f"{DIRECTORY}/{unit}.d/haptk.conf", text=text, node=node, what="systemd")
