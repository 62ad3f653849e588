"""AWS's own load balancer: look, compare, act on the difference, in the order in which one thing needs another.

The declaration is rendered by haptk.render.elb; what exists is found by name. Each step is one call that names what it
needs from earlier ones as `$Firewall`, `$Balancer`, `$Servers` and `$Listener`. Nothing is remembered between runs, so an interrupted
apply is finished by the next: what was made is found, what is missing is made. What AWS cannot change in place (kind,
protocol, kind of target, the Elastic IP of a zone) is said and left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError
from haptk.render.elb import BALANCER, FIREWALL, LISTENER, SERVERS, TCP_IDLE, TCP_IDLE_S, Wanted, wanted

PATIENCE_S = 20.0
Row = dict[str, Any]
FIXED_BALANCER = ("Type", "Scheme")
FIXED_GROUP = ("Protocol", "Port", "VpcId", "TargetType")
MADE: dict[str, tuple[str, Callable[[Row], str]]] = {
    "CreateSecurityGroup": (FIREWALL, lambda answer: str(answer["GroupId"])),
    "CreateLoadBalancer": (BALANCER, lambda answer: str(answer["LoadBalancers"][0]["LoadBalancerArn"])),
    "CreateListener": (LISTENER, lambda answer: str(answer["Listeners"][0]["ListenerArn"])),
    "CreateTargetGroup": (SERVERS, lambda answer: str(answer["TargetGroups"][0]["TargetGroupArn"])),
}


class Caller(Protocol):
    """What is needed of haptk.aws.client.Clients."""

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call."""


@dataclass(frozen=True)
class Observed:
    """What exists under the declared names; None and empty where nothing does. `health` is every target, also leaving."""

    firewall: Row | None = None
    balancer: Row | None = None
    balancer_attributes: dict[str, str] = field(default_factory=dict)
    group: Row | None = None
    group_attributes: dict[str, str] = field(default_factory=dict)
    health: tuple[Row, ...] = ()
    listeners: tuple[Row, ...] = ()
    listener_attributes: dict[str, str] = field(default_factory=dict)

    @property
    def targets(self) -> list[Row]:
        """Id and port of those that are registered: one that is draining has been let go already."""
        staying = [one for one in self.health if one.get("TargetHealth", {}).get("State") != "draining"]
        return [{key: one["Target"][key] for key in ("Id", "Port")} for one in staying]


@dataclass(frozen=True)
class Step:
    """One call."""

    operation: str
    says: str
    parameters: Row
    service: str = "elbv2"


@dataclass(frozen=True)
class BalancerPlan:
    """The steps, the ids that are known before them, and what is surprising about them."""

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


def observe(cluster: Cluster, clients: Caller) -> Observed:
    """Ask AWS for what has the declared names; AwsError when it does not tell."""
    made = wanted(cluster)
    names = (made.balancer["Name"], made.group["Name"])
    balancers = _all(clients, "DescribeLoadBalancers", "LoadBalancers")
    balancer = next((one for one in balancers if one["LoadBalancerName"] == names[0]), None)
    groups = _all(clients, "DescribeTargetGroups", "TargetGroups")
    group = next((one for one in groups if one["TargetGroupName"] == names[1]), None)
    seen: dict[str, Any] = {"balancer": balancer, "group": group, "firewall": _firewall(made, clients)}
    if balancer is not None:
        arn = balancer["LoadBalancerArn"]
        found = clients.call("elbv2", "DescribeLoadBalancerAttributes", names[0], PATIENCE_S, LoadBalancerArn=arn)
        seen["balancer_attributes"] = _attributes(found)
        seen["listeners"] = tuple(_all(clients, "DescribeListeners", "Listeners", LoadBalancerArn=arn))
        seen["listener_attributes"] = _of_listener(made, seen["listeners"], clients)
    if group is not None:
        arn = group["TargetGroupArn"]
        found = clients.call("elbv2", "DescribeTargetGroupAttributes", names[1], PATIENCE_S, TargetGroupArn=arn)
        seen["group_attributes"] = _attributes(found)
        health = clients.call("elbv2", "DescribeTargetHealth", names[1], PATIENCE_S, TargetGroupArn=arn)
        seen["health"] = tuple(health["TargetHealthDescriptions"])
    return Observed(**seen)


def _of_listener(made: Wanted, there: tuple[Row, ...], clients: Caller) -> dict[str, str]:
    """The attributes of the listener that has declared ones."""
    arn = _listener_arn(made, there)
    if not made.listener_attributes or arn is None:
        return {}
    return _attributes(clients.call("elbv2", "DescribeListenerAttributes", arn, PATIENCE_S, ListenerArn=arn))


def _listener_arn(made: Wanted, there: tuple[Row, ...]) -> str | None:
    return next((str(one["ListenerArn"]) for one in there if one["Port"] == made.listeners[0]["Port"]), None)


def _firewall(made: Wanted, clients: Caller) -> Row | None:
    if made.firewall is None:
        return None
    name, vpc = made.firewall["GroupName"], made.firewall["VpcId"]
    chosen = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = clients.call("ec2", "DescribeSecurityGroups", name, PATIENCE_S, Filters=chosen)["SecurityGroups"]
    return dict(found[0]) if found else None


def _attributes(answer: Row) -> dict[str, str]:
    return {one["Key"]: one["Value"] for one in answer["Attributes"]}


def plan(cluster: Cluster, observed: Observed) -> BalancerPlan:
    """The calls between what was seen and what is declared. OperatorError for what cannot be changed in place."""
    made = wanted(cluster)
    known = {}
    if observed.firewall is not None:
        known[FIREWALL] = observed.firewall["GroupId"]
    if observed.balancer is not None:
        known[BALANCER] = observed.balancer["LoadBalancerArn"]
    if observed.group is not None:
        known[SERVERS] = observed.group["TargetGroupArn"]
    if (listener := _listener_arn(made, observed.listeners)) is not None:
        known[LISTENER] = listener
    targets, gone = _target_steps(made, observed)
    listeners, closed = _listener_steps(made, observed, known.get(SERVERS, SERVERS))
    steps = [
        *_firewall_steps(made, observed),
        *_balancer_steps(made, observed, known),
        *_group_steps(made, observed),
        *targets,
        *listeners,
    ]
    return BalancerPlan(tuple(steps), known, (*gone, *closed))


def _refuse(kind: str, name: str, what: str, there: Any, declared: Any) -> OperatorError:
    why = f"{kind} {name} has {what} {there}, declared is {declared}: AWS cannot change that in place"
    return OperatorError(what=f"{why}; rename the tier, move over, and remove the old one")


def _refuse_fixed(kind: str, name: str, keys: tuple[str, ...], there: Row, declared: Row) -> None:
    for key in keys:
        if key in there and there[key] != declared[key]:
            raise _refuse(kind, name, key, there[key], declared[key])


def _changed(there: dict[str, str], declared: list[Row]) -> list[Row]:
    return [one for one in declared if there.get(one["Key"]) != one["Value"]]


def _firewall_steps(made: Wanted, observed: Observed) -> list[Step]:
    """The security group, and the ports that it does not let in; what somebody else let in stays."""
    if made.firewall is None:
        return []
    steps, there = [], observed.firewall
    if there is None:
        says = f"+ security group {made.firewall['GroupName']}"
        steps.append(Step("CreateSecurityGroup", says, made.firewall, "ec2"))
    missing = [one for one in made.ingress if there is None or not _lets_in(there, one)]
    if missing:
        says = f"+ let in TCP {', '.join(str(one['FromPort']) for one in missing)}"
        parameters = {"GroupId": FIREWALL, "IpPermissions": missing}
        steps.append(Step("AuthorizeSecurityGroupIngress", says, parameters, "ec2"))
    return steps


def _lets_in(group: Row, rule: Row) -> bool:
    return any(
        one.get("FromPort") == rule["FromPort"]
        and one.get("IpProtocol") == "tcp"
        and any(each.get("CidrIp") == "0.0.0.0/0" for each in one.get("IpRanges", ()))
        for one in group.get("IpPermissions", ())
    )


def _balancer_steps(made: Wanted, observed: Observed, known: dict[str, str]) -> list[Step]:
    body = made.balancer
    steps = []
    if observed.balancer is None:
        steps.append(Step("CreateLoadBalancer", f"+ {body['Type']} load balancer {body['Name']}", body))
    else:
        _refuse_fixed("load balancer", body["Name"], FIXED_BALANCER, observed.balancer, body)
        steps += _place_steps(body, observed.balancer, known)
    changed = _changed(observed.balancer_attributes, made.attributes)
    steps += [_attribute_step("ModifyLoadBalancerAttributes", "LoadBalancerArn", BALANCER, changed)] if changed else []
    return steps


def _place_steps(body: Row, there: Row, known: dict[str, str]) -> list[Step]:
    """Subnets, the Elastic IPs in them, and security groups of a load balancer that exists."""
    steps = []
    mapped = [one["SubnetId"] for one in body.get("SubnetMappings", ())]
    declared = mapped or body["Subnets"]
    zones = {one["SubnetId"]: one for one in there.get("AvailabilityZones", ())}
    for one in body.get("SubnetMappings", ()):
        shown = [each.get("AllocationId") for each in zones.get(one["SubnetId"], {}).get("LoadBalancerAddresses", ())]
        if any(shown) and "AllocationId" in one and one["AllocationId"] not in shown:
            raise _refuse("load balancer", body["Name"], f"in {one['SubnetId']}", shown[0], one["AllocationId"])
    if set(declared) != set(zones):
        says = f"~ subnets {', '.join(sorted(declared))}"
        key = "SubnetMappings" if mapped else "Subnets"
        steps.append(Step("SetSubnets", says, {"LoadBalancerArn": BALANCER, key: body[key]}))
    groups = [known.get(one, one) for one in body.get("SecurityGroups", ())]
    if groups and set(groups) != set(there.get("SecurityGroups", ())):
        if body["Type"] == "network" and not there.get("SecurityGroups"):
            raise _refuse("load balancer", body["Name"], "security groups", "none", ", ".join(groups))
        says = f"~ security groups {', '.join(groups)}"
        steps.append(Step("SetSecurityGroups", says, {"LoadBalancerArn": BALANCER, "SecurityGroups": groups}))
    return steps


def _attribute_step(operation: str, key: str, arn: str, changed: list[Row]) -> Step:
    said = ", ".join(f"{one['Key']} = {one['Value']}" for one in changed)
    return Step(operation, f"~ {said}", {key: arn, "Attributes": changed})


def _group_steps(made: Wanted, observed: Observed) -> list[Step]:
    body = made.group
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
    changed = _changed(observed.group_attributes, made.group_attributes)
    steps += [_attribute_step("ModifyTargetGroupAttributes", "TargetGroupArn", SERVERS, changed)] if changed else []
    return steps


def _target_steps(made: Wanted, observed: Observed) -> tuple[list[Step], list[str]]:
    there = observed.targets
    new = [one for one in made.targets if one not in there]
    gone = [one for one in there if one not in made.targets]
    steps = []
    if new:
        says = f"+ servers {', '.join(one['Id'] for one in new)}"
        steps.append(Step("RegisterTargets", says, {"TargetGroupArn": SERVERS, "Targets": new}))
    if gone:
        says = f"- servers {', '.join(one['Id'] for one in gone)}"
        steps.append(Step("DeregisterTargets", says, {"TargetGroupArn": SERVERS, "Targets": gone}))
    if len(gone) * 3 > len(there):
        return steps, [f"{len(gone)} of {len(there)} servers would go"]
    return steps, []


def _listener_steps(made: Wanted, observed: Observed, group: str) -> tuple[list[Step], list[str]]:
    """Listeners by port; one whose port nobody declares is closed, which its clients would notice."""
    steps: list[Step] = []
    ports = {one["Port"]: one for one in observed.listeners}
    for body in made.listeners:
        there, name = ports.pop(body["Port"], None), f"{body['Protocol']} {body['Port']}"
        if there is None:
            steps.append(Step("CreateListener", f"+ listener {name}", {"LoadBalancerArn": BALANCER, **body}))
        elif not _same_listener(there, body, group):
            steps.append(Step("ModifyListener", f"~ listener {name}", {**body, "ListenerArn": there["ListenerArn"]}))
    # A new listener has AWS's own value.
    changed = _changed(observed.listener_attributes or {TCP_IDLE: str(TCP_IDLE_S)}, made.listener_attributes)
    steps += [_attribute_step("ModifyListenerAttributes", "ListenerArn", LISTENER, changed)] if changed else []
    closed = []
    for port, there in ports.items():
        steps.append(
            Step("DeleteListener", f"- listener {there['Protocol']} {port}", {"ListenerArn": there["ListenerArn"]})
        )
        closed.append(f"the listener on port {port} would close")
    return steps, closed


def _same_listener(there: Row, body: Row, group: str) -> bool:
    (wanted_action,) = body["DefaultActions"]
    certificates = [{"CertificateArn": one["CertificateArn"]} for one in there.get("Certificates", ())]
    same = there["Protocol"] == body["Protocol"] and certificates == body.get("Certificates", [])
    if "RedirectConfig" in wanted_action:
        found = [action.get("RedirectConfig", {}) for action in there["DefaultActions"]]
        leads = any(wanted_action["RedirectConfig"].items() <= one.items() for one in found)
    else:
        leads = any(action.get("TargetGroupArn") == group for action in there["DefaultActions"])
    return same and leads


def carry_out(chosen: BalancerPlan, clients: Caller) -> None:
    """Make the calls in order, filling in the ids that earlier ones returned."""
    ids = dict(chosen.known)
    for step in chosen.steps:
        parameters = _filled(step.parameters, ids)
        answer = clients.call(step.service, step.operation, step.says, PATIENCE_S, **parameters)
        if step.operation in MADE:
            name, identity = MADE[step.operation]
            ids[name] = identity(answer)


def _filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, ids) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, ids) for inner in value]
    return ids.get(value, value) if isinstance(value, str) else value
