"""The haproxy.cfg of a balancer: the service, a health answer for local checks, statistics, and peers where needed.

The health answer says that this proxy answers; it does not look at the servers. When no server is up, every balancer
sees the same, and moving an address would only add a failure.
"""

from __future__ import annotations

from haptk.cluster.schema import Balancer, Cluster, Session, cookie_id
from haptk.render.artefact import Artefact
from haptk.render.template import fill

PATH = "/etc/haproxy/haproxy.cfg"
PIDFILE = "/run/haproxy.pid"


def cookie_words(session: Session) -> str:
    """The words after `cookie`, "" for designs without that line."""
    if session.design == "insert":
        return f"{session.cookie} insert indirect nocache httponly" + (" secure" if session.secure else "")
    if session.design in ("prefix", "rewrite"):
        return f"{session.cookie} {session.design}"
    return ""


def peers(cluster: Cluster, node: str) -> tuple[Balancer, ...]:
    """The balancers that share learned sessions: those of the region."""
    home = cluster.region_of(cluster.balancer(node).zone)
    return tuple(one for one in cluster.balancers if cluster.region_of(one.zone) == home)


def haproxy(cluster: Cluster, node: str) -> Artefact:
    """The configuration of a node's proxy; KeyError for a node that is not declared."""
    haptk = cluster.cluster.proxy == "haptk"
    program = (cluster.cluster.haptk, "proxy") if haptk else ("haproxy",)
    unit = "haptk-proxy" if haptk else "haproxy"
    text = fill(
        "haproxy.cfg.j2",
        cluster=cluster,
        node=cluster.balancer(node),
        front=cluster.frontend,
        check=cluster.check,
        session=cluster.session,
        cookie=cookie_words(cluster.session),
        cookie_id=cookie_id,
        peers=peers(cluster, node),
        haptk=haptk,
    )
    return Artefact(
        path=PATH,
        text=text,
        node=node,
        what="haproxy",
        needs=program[:1],
        validate=(*program, "-c", "-q", "-f", "{}"),
        reload=("systemctl", "reload-or-restart", unit),
    )
