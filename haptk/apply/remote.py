"""Everything that a tier has in AWS as one plan: the load balancer first, then the name that leads to it."""

from __future__ import annotations

from dataclasses import dataclass

from haptk.apply import alias, balancing, records
from haptk.apply.alias import AliasPlan
from haptk.apply.balancing import BalancerPlan
from haptk.apply.records import RecordPlan
from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError


@dataclass(frozen=True)
class RemotePlan:
    """The parts that the declaration has, in the order in which they are made."""

    cluster: Cluster
    balancer: BalancerPlan | None = None
    names: RecordPlan | None = None
    alias: AliasPlan | None = None

    @property
    def parts(self) -> tuple[BalancerPlan | RecordPlan | AliasPlan, ...]:
        """Those that there are."""
        return tuple(part for part in (self.balancer, self.names, self.alias) if part is not None)

    def lines(self) -> list[str]:
        """Every change in a line."""
        return [line for part in self.parts for line in part.lines()]

    @property
    def surprises(self) -> tuple[str, ...]:
        """Every sentence that asks for --force."""
        return tuple(why for part in self.parts for why in part.surprises)


def make(cluster: Cluster, clients: records.Caller) -> RemotePlan:
    """Look at AWS and compare; OperatorError when the declaration has nothing there."""
    named = cluster.dns is not None and cluster.dns.provider == "route53" and bool(cluster.addresses)
    if cluster.elb is None and not named:
        raise OperatorError(
            what='cluster.toml declares nothing in AWS: neither [elb] nor [dns] with provider = "route53"'
        )
    balancer, found = None, None
    if cluster.elb is not None:
        observed = balancing.observe(cluster, clients)
        balancer, found = balancing.plan(cluster, observed), observed.balancer
    return RemotePlan(
        cluster,
        balancer,
        records.plan(cluster, records.observe(cluster, clients)) if named else None,
        alias.plan(cluster, clients, found) if alias.declared(cluster) else None,
    )


def carry_out(plan: RemotePlan, clients: records.Caller) -> None:
    """Make every change of the plan."""
    if plan.balancer is not None:
        balancing.carry_out(plan.balancer, clients)
    if plan.names is not None:
        records.carry_out(plan.cluster, plan.names, clients)
    if plan.alias is not None:
        alias.carry_out(plan.cluster, plan.alias, clients)
