"""ha.cf, haresources, authkeys and the scripts beside them, for heartbeat 3.0.6 and for `haptk heartbeat` alike.

heartbeat itself never looks at the service, so a small watcher that heartbeat respawns hands the addresses over when the
proxy does not answer; `haptk heartbeat` checks by itself. A fresh key is made where there is none, and an existing one is
never replaced, because the other node has it too.
"""

from __future__ import annotations

from haptk.cluster.schema import Cluster
from haptk.formats import authkeys
from haptk.render.artefact import Artefact, Site
from haptk.render.template import fill

DIRECTORY = "/etc/ha.d"
SCRIPT = f"{DIRECTORY}/resource.d/haptk-eip"
WATCH = f"{DIRECTORY}/haptk-watch"


def heartbeat(cluster: Cluster, node: str, site: Site) -> tuple[Artefact, ...]:
    """heartbeat's files on one node; ha.cf and haresources are the same on both."""
    native = cluster.cluster.heartbeat == "haptk"
    group = cluster.group(node)
    values = {"cluster": cluster, "group": group, "timing": cluster.timing, "native": native}
    unit = "haptk-heartbeat" if native else "heartbeat"
    # heartbeat cannot re-read haresources; a restart hands the addresses over and takes them back.
    reload = ("systemctl", "reload-or-restart", unit)
    names = {one.name for one in group}

    def judged(kind: str) -> tuple[str, ...]:
        """heartbeat itself reads a file only by starting on it."""
        return (cluster.cluster.haptk, "check", "config", f"{kind}={{}}") if native else ()

    ours = [address for address in cluster.addresses if address.active in names]
    found = [
        Artefact(path=f"{DIRECTORY}/ha.cf", text=fill("ha.cf.j2", **values, node=cluster.balancer(node), watch=WATCH),
                 node=node, what="heartbeat", validate=judged("ha.cf"), reload=reload),
        Artefact(path=f"{DIRECTORY}/haresources", text=fill("haresources.j2", **values, addresses=ours),
                 node=node, what="heartbeat", validate=judged("haresources"), reload=reload),
        Artefact(path=f"{DIRECTORY}/authkeys", text=authkeys.render(site.secret), mode=0o600, node=node,
                 what="heartbeat", secret=True, keep=True, validate=judged("authkeys"), reload=reload),
    ]  # fmt: skip
    if not native:
        url = f"http://127.0.0.1:{cluster.frontend.health_port}{cluster.frontend.health_path}"
        watch = fill("haptk-watch.sh.j2", url=url, check=cluster.check)
        found += [
            Artefact(path=SCRIPT, text=site.script("heartbeat"), mode=0o755, local=True, node=node, what="heartbeat",
                     validate=("sh", "-n", "{}")),
            Artefact(path=WATCH, text=watch, mode=0o755, node=node, what="heartbeat", needs=("curl",),
                     validate=("sh", "-n", "{}")),
        ]  # fmt: skip
    return tuple(found)
