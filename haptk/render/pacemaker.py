"""The same resources for Pacemaker, as commands for pcs and for crm: the OCF agent ocf:haptk:eip and where it may run.

Commands and not a CIB: both shells merge into a cluster that runs, and an operator reads them before he runs them. Moving
at a failure is the monitor's work; `migration-threshold` makes one failed restart enough.
"""

from __future__ import annotations

from haptk.cluster.schema import Address, Cluster, holders
from haptk.render.artefact import Artefact, Site
from haptk.render.template import fill

AGENT = "/usr/lib/ocf/resource.d/haptk/eip"
FIRST_SCORE = 200


def scores(address: Address, cluster: Cluster) -> list[tuple[str, int]]:
    """Location scores, best first; resource stickiness decides whether a better one takes the address back."""
    return [(name, FIRST_SCORE - 50 * place) for place, name in enumerate(holders(address))]


def others(cluster: Cluster, address: Address) -> list[str]:
    """The balancers that may never hold the address."""
    return [balancer.name for balancer in cluster.balancers if balancer.name not in holders(address)]


def pacemaker(cluster: Cluster, node: str, site: Site) -> tuple[Artefact, ...]:
    """The agent, and one file of commands for each shell; the commands are run once, on any node."""
    # Above the difference of scores: an address stays where it is; 0: it goes home.
    stickiness = 0 if cluster.timing.auto_failback else FIRST_SCORE * 5
    values = {"cluster": cluster, "stickiness": stickiness, "timing": cluster.timing, "check": cluster.check}
    texts = {
        name: fill(f"{name}.j2", **values, scores=lambda a: scores(a, cluster), others=lambda a: others(cluster, a))
        for name in ("pcs.sh", "crm.txt")
    }
    agent = Artefact(
        path=AGENT,
        text=site.script("ocf"),
        mode=0o755,
        local=True,
        node=node,
        what="pacemaker",
        validate=("sh", "-n", "{}"),
    )
    checks = {"pcs.sh": ("sh", "-n", "{}")}  # crm judges its file only together with the cluster that loads it
    documents = [
        Artefact(path=f"pacemaker/{name}", text=text, what="pacemaker", validate=checks.get(name, ()))
        for name, text in texts.items()
    ]
    return (agent, *documents)
