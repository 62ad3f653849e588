"""AWS's own load balancer: look, compare, act on the difference, in the order in which one thing needs another.

The declaration is rendered by haptk.render.elb; what exists is found by name. Each step is one call that names what it
needs from earlier ones as `$Balancer` and `$Servers`. Nothing is remembered between runs, so an interrupted apply is
finished by the next: what was made is found, what is missing is made. What AWS cannot change in place (kind, protocol,
kind of target) is said and left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError
from haptk.render import elb

PATIENCE_S = 20.0
Row = dict[str, Any]
BALANCER, SERVERS = "$Balancer", "$Servers"
FIXED_BALANCER = ("Type", "Scheme")
FIXED_GROUP = ("Protocol", "Port", "VpcId", "TargetType")


class Caller(Protocol):
    """What is needed of haptk.aws.client.Clients."""

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call."""


@dataclass(frozen=True)
class Observed:
    """What exists under the declared names; None and empty where nothing does."""

    balancer: Row | None = None
    balancer_attributes: dict[str, str] = field(default_factory=dict)
    group: Row | None = None
    group_attributes: dict[str, str] = field(default_factory=dict)
    targets: tuple[Row, ...] = ()
    listeners: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Step:
    """One call."""

    operation: str
    says: str
    parameters: Row


@dataclass(frozen=True)
class BalancerPlan:
    """The steps, the ARNs that are known before them, and what is surprising about them."""

    steps: tuple[Step, ...]
    known: dict[str, str]
    surprises: tuple[str, ...]

    def lines(self) -> list[str]:
        """The plan for people, one line a call."""
        return [one.says for one in self.steps]


def _all(clients: Caller, operation: str, key: str, **parameters: Any) -> list[Row]:
    found: list[Row] = []
    marker: dict[str, str] = {}
    while True:
        page = clients.call("elbv2", operation, "load balancers", PATIENCE_S, **parameters, **marker)
        found += page[key]
        if not page.get("NextMarker"):
            return found
        marker = {"Marker": page["NextMarker"]}


def _wanted(cluster: Cluster) -> dict[str, Row]:
    calls = json.loads(elb.elb(cluster)[1].text)
    return {call["Operation"]: call["Parameters"] for call in calls}


def observe(cluster: Cluster, clients: Caller) -> Observed:
    """Ask ELB for what has the declared names; AwsError when it does not tell."""
    wanted = _wanted(cluster)
    names = (wanted["CreateLoadBalancer"]["Name"], wanted["CreateTargetGroup"]["Name"])
    balancers = _all(clients, "DescribeLoadBalancers", "LoadBalancers")
    balancer = next((one for one in balancers if one["LoadBalancerName"] == names[0]), None)
    groups = _all(clients, "DescribeTargetGroups", "TargetGroups")
    group = next((one for one in groups if one["TargetGroupName"] == names[1]), None)
    seen: dict[str, Any] = {"balancer": balancer, "group": group}
    if balancer is not None:
        arn = balancer["LoadBalancerArn"]
        found = clients.call("elbv2", "DescribeLoadBalancerAttributes", names[0], PATIENCE_S, LoadBalancerArn=arn)
        seen["balancer_attributes"] = _attributes(found)
        seen["listeners"] = tuple(_all(clients, "DescribeListeners", "Listeners", LoadBalancerArn=arn))
    if group is not None:
        arn = group["TargetGroupArn"]
        found = clients.call("elbv2", "DescribeTargetGroupAttributes", names[1], PATIENCE_S, TargetGroupArn=arn)
        seen["group_attributes"] = _attributes(found)
        health = clients.call("elbv2", "DescribeTargetHealth", names[1], PATIENCE_S, TargetGroupArn=arn)
        states = health["TargetHealthDescriptions"]
        # One that is draining has been let go already.
        staying = [one for one in states if one.get("TargetHealth", {}).get("State") != "draining"]
        seen["targets"] = tuple({key: one["Target"][key] for key in ("Id", "Port")} for one in staying)
    return Observed(**seen)


def _attributes(answer: Row) -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in answer["Attributes"]}


def plan(cluster: Cluster, observed: Observed) -> BalancerPlan:
    """The calls between what was seen and what is declared. OperatorError for what cannot be changed in place."""
    wanted = _wanted(cluster)
    steps = [*_balancer_steps(wanted, observed), *_group_steps(wanted, observed)]
    targets, surprises = _target_steps(wanted, observed)
    steps += [*targets, *_listener_steps(wanted, observed)]
    known = {}
    if observed.balancer is not None:
        known[BALANCER] = observed.balancer["LoadBalancerArn"]
    if observed.group is not None:
        known[SERVERS] = observed.group["TargetGroupArn"]
    return BalancerPlan(tuple(steps), known, tuple(surprises))


def _refuse_fixed(kind: str, name: str, keys: tuple[str, ...], there: Row, wanted: Row) -> None:
    for key in keys:
        if key in there and there[key] != wanted[key]:
            why = f"{kind} {name} has {key} {there[key]}, declared is {wanted[key]}: AWS cannot change that in place"
            raise OperatorError(what=f"{why}; rename the tier, move over, and remove the old one")


def _changed(there: dict[str, str], wanted: list[dict[str, str]]) -> list[dict[str, str]]:
    return [one for one in wanted if there.get(one["Key"]) != one["Value"]]


def _balancer_steps(wanted: dict[str, Row], observed: Observed) -> list[Step]:
    body = wanted["CreateLoadBalancer"]
    steps = []
    if observed.balancer is None:
        steps.append(Step("CreateLoadBalancer", f"+ {body['Type']} load balancer {body['Name']}", body))
    else:
        _refuse_fixed("load balancer", body["Name"], FIXED_BALANCER, observed.balancer, body)
    changed = _changed(observed.balancer_attributes, wanted["ModifyLoadBalancerAttributes"]["Attributes"])
    steps += [_attribute_step("ModifyLoadBalancerAttributes", "LoadBalancerArn", BALANCER, changed)] if changed else []
    return steps


def _attribute_step(operation: str, key: str, arn: str, changed: list[dict[str, str]]) -> Step:
    said = ", ".join(f"{one['Key']} = {one['Value']}" for one in changed)
    return Step(operation, f"~ {said}", {key: arn, "Attributes": changed})


def _group_steps(wanted: dict[str, Row], observed: Observed) -> list[Step]:
    body = wanted["CreateTargetGroup"]
    steps = []
    if observed.group is None:
        steps.append(Step("CreateTargetGroup", f"+ target group {body['Name']}", body))
    else:
        _refuse_fixed("target group", body["Name"], FIXED_GROUP, observed.group, body)
        health = {key: value for key, value in body.items() if key.startswith("Health") or key.startswith("Unhealthy")}
        health["Matcher"] = body["Matcher"]
        differ = {key: value for key, value in health.items() if observed.group.get(key) != value}
        if differ:
            said = ", ".join(f"{key} = {value}" for key, value in differ.items())
            steps.append(Step("ModifyTargetGroup", f"~ {said}", {"TargetGroupArn": SERVERS, **differ}))
    changed = _changed(observed.group_attributes, wanted["ModifyTargetGroupAttributes"]["Attributes"])
    steps += [_attribute_step("ModifyTargetGroupAttributes", "TargetGroupArn", SERVERS, changed)] if changed else []
    return steps


def _target_steps(wanted: dict[str, Row], observed: Observed) -> tuple[list[Step], list[str]]:
    declared = wanted["RegisterTargets"]["Targets"]
    new = [one for one in declared if one not in observed.targets]
    gone = [one for one in observed.targets if one not in declared]
    steps = []
    if new:
        says = f"+ servers {', '.join(one['Id'] for one in new)}"
        steps.append(Step("RegisterTargets", says, {"TargetGroupArn": SERVERS, "Targets": new}))
    if gone:
        says = f"- servers {', '.join(one['Id'] for one in gone)}"
        steps.append(Step("DeregisterTargets", says, {"TargetGroupArn": SERVERS, "Targets": gone}))
    if len(gone) * 3 > len(observed.targets):
        return steps, [f"{len(gone)} of {len(observed.targets)} servers would go"]
    return steps, []


def _listener_steps(wanted: dict[str, Row], observed: Observed) -> list[Step]:
    body = wanted["CreateListener"]
    there = next((one for one in observed.listeners if one["Port"] == body["Port"]), None)
    if there is None:
        return [Step("CreateListener", f"+ listener {body['Protocol']} {body['Port']}", body)]
    group = observed.group["TargetGroupArn"] if observed.group is not None else SERVERS
    forwards = any(action.get("TargetGroupArn") == group for action in there["DefaultActions"])
    certificates = [{"CertificateArn": one["CertificateArn"]} for one in there.get("Certificates", ())]
    if forwards and there["Protocol"] == body["Protocol"] and certificates == body.get("Certificates", []):
        return []
    change = {key: value for key, value in body.items() if key != "LoadBalancerArn"}
    says = f"~ listener {body['Protocol']} {body['Port']}"
    return [Step("ModifyListener", says, {**change, "ListenerArn": there["ListenerArn"]})]


def carry_out(chosen: BalancerPlan, clients: Caller) -> None:
    """Make the calls in order, filling in the ARNs that earlier ones returned."""
    arns = dict(chosen.known)
    for step in chosen.steps:
        parameters = _filled(step.parameters, arns)
        answer = clients.call("elbv2", step.operation, step.says, PATIENCE_S, **parameters)
        if step.operation == "CreateLoadBalancer":
            arns[BALANCER] = answer["LoadBalancers"][0]["LoadBalancerArn"]
        elif step.operation == "CreateTargetGroup":
            arns[SERVERS] = answer["TargetGroups"][0]["TargetGroupArn"]


def _filled(value: Any, arns: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, arns) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, arns) for inner in value]
    return arns.get(value, value) if isinstance(value, str) else value
