"""How a load balancer of AWS stands against its declaration, and the calls that take one target out of it.

Pure, on what haptk.apply.balancing has observed: three states of a target matter here, healthy (it gets requests),
leaving (draining), and everything else with the reason that ELB gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from haptk.apply.balancing import BalancerPlan, Observed, Row, Step, plan
from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError
from haptk.render.elb import SERVERS, members, wanted

OK, WARNING, CRITICAL = "OK", "WARNING", "CRITICAL"
CODES = {OK: 0, WARNING: 1, CRITICAL: 2}
HEALTHY, LEAVING, ABSENT = "healthy", "draining", "not registered"


@dataclass(frozen=True)
class Target:
    """One target. `node` is "" for one that is not declared; `state` is ELB's word, or "not registered"."""

    node: str
    id: str
    port: int
    state: str
    why: str = ""


@dataclass(frozen=True)
class Standing:
    """The judgement: `status` as monitoring plugins name it, and the sentences that explain it."""

    status: str
    balancer: Row | None
    listeners: tuple[Row, ...]
    targets: tuple[Target, ...]
    problems: tuple[str, ...]


def targets(cluster: Cluster, observed: Observed) -> list[Target]:
    """Every declared and every registered target."""
    names = {(one["Id"], one["Port"]): name for name, one in members(cluster)[1].items()}
    found = []
    for one in observed.health:
        key = (one["Target"]["Id"], one["Target"]["Port"])
        health = one.get("TargetHealth", {})
        why = str(health.get("Description") or health.get("Reason") or "")
        found.append(Target(names.pop(key, ""), *key, str(health.get("State", "unknown")), why))
    return found + [Target(name, *key, ABSENT) for key, name in names.items()]


def judge(cluster: Cluster, observed: Observed) -> Standing:
    """Critical when nobody is served, a warning when something is not as declared."""
    made = wanted(cluster)
    found = targets(cluster, observed)
    serving = [one for one in found if one.state == HEALTHY]
    critical: list[str] = []
    warning: list[str] = []
    if observed.balancer is None:
        critical.append(f"there is no load balancer {made.balancer['Name']}")
    elif (state := observed.balancer.get("State", {}).get("Code")) not in ("active", None):
        (critical if state == "failed" else warning).append(f"{made.balancer['Name']} is {state}")
    if observed.group is None:
        critical.append(f"there is no target group {made.group['Name']}")
    elif not serving:
        critical.append("no target is healthy")
    if observed.balancer is not None and not observed.listeners:
        critical.append("nothing listens")
    for one in found:
        gone = one.state == LEAVING and not one.node  # as it should be
        if one.state != HEALTHY and not gone and observed.group is not None:
            warning.append(f"{one.node or one.id} is {one.state}{f': {one.why}' if one.why else ''}")
    warning += _differences(cluster, observed)
    status = CRITICAL if critical else WARNING if warning else OK
    return Standing(status, observed.balancer, observed.listeners, tuple(found), (*critical, *warning))


def _differences(cluster: Cluster, observed: Observed) -> list[str]:
    if observed.balancer is None or observed.group is None:
        return []
    try:
        chosen = plan(cluster, observed)
    except OperatorError as error:
        return [str(error)]
    # A target that is not registered has been named already.
    lines = [one.says for one in chosen.steps if one.operation not in ("RegisterTargets", "DeregisterTargets")]
    return [f"not as declared: {line}" for line in lines]


def drain(cluster: Cluster, observed: Observed, node: str) -> BalancerPlan:
    """The call that lets a target go; empty when it is gone or going. OperatorError for the last one that is healthy."""
    names = list(members(cluster)[1])
    if node not in names:
        raise OperatorError(what=f"no target is named {node!r}; there are {', '.join(names)}")
    found = targets(cluster, observed)
    (mine,) = [one for one in found if one.node == node]
    if mine.state in (LEAVING, ABSENT):
        return BalancerPlan((), {}, ())
    if not any(one.state == HEALTHY for one in found if one.node != node):
        raise OperatorError(what=f"{node} is the last one that serves: nobody would be left, so nothing was changed")
    assert observed.group is not None  # a registered target is in a group  # noqa: S101
    parameters = {"TargetGroupArn": SERVERS, "Targets": [{"Id": mine.id, "Port": mine.port}]}
    says = f"- {node} ({mine.id}:{mine.port}), {mine.state}"
    return BalancerPlan((Step("DeregisterTargets", says, parameters),), {SERVERS: observed.group["TargetGroupArn"]}, ())
