"""Everything that a tier has in AWS as one plan: the load balancer first, then the name that leads to it."""

from __future__ import annotations

from dataclasses import dataclass

from haptk.apply import balancing, records
from haptk.apply.balancing import BalancerPlan
from haptk.apply.records import RecordPlan
from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError


@dataclass(frozen=True)
class RemotePlan:
    """The parts that the declaration has."""

    cluster: Cluster
    balancer: BalancerPlan | None
    names: RecordPlan | None

    def lines(self) -> list[str]:
        """Every change in a line."""
        return [line for part in (self.balancer, self.names) if part is not None for line in part.lines()]

    @property
    def surprises(self) -> tuple[str, ...]:
        """Every sentence that asks for --force."""
        return tuple(why for part in (self.balancer, self.names) if part is not None for why in part.surprises)


def make(cluster: Cluster, clients: records.Caller) -> RemotePlan:
    """Look at AWS and compare; OperatorError when the declaration has nothing there."""
    named = cluster.dns is not None and cluster.dns.provider == "route53" and bool(cluster.addresses)
    if cluster.elb is None and not named:
        raise OperatorError(
            what='cluster.toml declares nothing in AWS: neither [elb] nor [dns] with provider = "route53"'
        )
    balancer = balancing.plan(cluster, balancing.observe(cluster, clients)) if cluster.elb is not None else None
    names = records.plan(cluster, records.observe(cluster, clients)) if named else None
    return RemotePlan(cluster, balancer, names)


def carry_out(plan: RemotePlan, clients: records.Caller) -> None:
    """Make every change of the plan."""
    if plan.balancer is not None:
        balancing.carry_out(plan.balancer, clients)
    if plan.names is not None:
        records.carry_out(plan.cluster, plan.names, clients)
