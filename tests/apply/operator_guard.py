"""IAM in front of every call that haptk makes in a test: what the tier's generated policy does not allow is refused.

moto's own enforcement knows no resources and no conditions (its access_control.py says so), so each call is judged here:
the actions, resources and condition keys after AWS's Service Authorization Reference, against the generated document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from haptk.aws.client import Clients
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster
from haptk.errors import AwsDenied
from haptk.render.iam_operator import operator_policy

ACCOUNT = "123456789012"
PREFIX = {"elbv2": "elasticloadbalancing", "elb": "elasticloadbalancing"}


class Need(NamedTuple):
    """One thing that has to be allowed for a call; `keys` are the condition keys of the request."""

    action: str
    resource: str = "*"
    keys: dict[str, str] = {}  # noqa: RUF012


Place = Callable[[str], tuple[str, str]]
"""(allocation id, interface) of an association id, which EC2 itself looks up before it judges."""


def needs(
    service: str,
    operation: str,
    parameters: dict[str, Any],
    region: str,
    place: Place | None = None,
    tags: dict[str, str] | None = None,
) -> Iterator[Need]:
    """What AWS wants to be allowed for one call. `tags` are the condition keys of the tags on every EC2 resource."""
    action = f"{PREFIX.get(service, service)}:{operation}"
    if service == "route53":
        zone, check = parameters.get("HostedZoneId"), parameters.get("HealthCheckId")
        kind = f"hostedzone/{zone}" if zone else f"healthcheck/{check}" if check else ""
        yield Need(action, f"arn:aws:route53:::{kind}" if kind else "*")
    elif service == "dynamodb":
        yield Need(action, f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{parameters['TableName']}")
    elif service == "elbv2" and not operation.startswith("Describe"):
        yield from _balancing(action, operation, parameters, region)
    elif operation in ("AssociateAddress", "DisassociateAddress"):
        if operation == "AssociateAddress":
            address, interface = parameters["AllocationId"], parameters["NetworkInterfaceId"]
        else:
            assert place is not None
            address, interface = place(parameters["AssociationId"])
        for name in (f"elastic-ip/{address}", f"network-interface/{interface}"):
            yield Need(action, f"arn:aws:ec2:{region}:{ACCOUNT}:{name}", tags or {})
    elif operation == "CreateSecurityGroup":
        group = f"arn:aws:ec2:{region}:{ACCOUNT}:security-group/sg-new"
        yield Need(action, group)
        yield Need(action, f"arn:aws:ec2:{region}:{ACCOUNT}:vpc/{parameters['VpcId']}")
        yield Need("ec2:CreateTags", group, {"ec2:CreateAction": operation})
    elif operation == "AuthorizeSecurityGroupIngress":
        # The only group that haptk fills is one that it made, with the tag that it looks for.
        tag = {"aws:ResourceTag/Name": "web-alb"}
        yield Need(action, f"arn:aws:ec2:{region}:{ACCOUNT}:security-group/{parameters['GroupId']}", tag)
    else:
        assert operation.startswith("Describe"), f"which resources does {action} want?"
        yield Need(action)


def _balancing(action: str, operation: str, parameters: dict[str, Any], region: str) -> Iterator[Need]:
    here = f"arn:aws:elasticloadbalancing:{region}:{ACCOUNT}"
    tags = "elasticloadbalancing:AddTags"
    if operation == "CreateLoadBalancer":
        kind = {"network": "net", "application": "app"}[parameters["Type"]]
        arn = f"{here}:loadbalancer/{kind}/{parameters['Name']}/50dc6c495c0c9188"
        yield Need("iam:CreateServiceLinkedRole", _ROLE, {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"})
    elif operation == "CreateTargetGroup":
        arn = f"{here}:targetgroup/{parameters['Name']}/73e2d6bc24d8a067"
    else:
        # CreateListener is judged by its load balancer.
        arn = parameters.get("LoadBalancerArn") or parameters.get("TargetGroupArn") or parameters["ListenerArn"]
        # moto calls every load balancer an application's; AWS has net/ for those that haptk names -nlb.
        arn = re.sub(r":(loadbalancer|listener)/app/([^/]*-nlb)/", r":\1/net/\2/", arn)
    yield Need(action, arn)
    if parameters.get("Tags"):
        yield Need(tags, arn, {"elasticloadbalancing:CreateAction": operation})


_ROLE = (
    f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/elasticloadbalancing.amazonaws.com/"
    "AWSServiceRoleForElasticLoadBalancing"
)


def allows(policy: dict[str, Any], need: Need) -> bool:
    """Whether a statement of the policy allows it; the policies here have Allow and StringEquals alone."""
    return any(_allows(one, need) for one in policy["Statement"])


def _allows(one: dict[str, Any], need: Need) -> bool:
    assert set(one) <= {"Sid", "Effect", "Action", "Resource", "Condition"} and one["Effect"] == "Allow"
    conditions = one.get("Condition", {"StringEquals": {}})
    assert set(conditions) == {"StringEquals"}
    for key, wanted in conditions["StringEquals"].items():
        if need.keys.get(key) not in ([wanted] if isinstance(wanted, str) else wanted):
            return False
    return need.action in one["Action"] and any(fnmatchcase(need.resource, pattern) for pattern in one["Resource"])


class Guard:
    """Stands before `Clients.call`; `used` is every action that was wanted."""

    def __init__(
        self,
        policy: Callable[[], dict[str, Any]],
        region: str = "eu-west-1",
        place: Place | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        self.used: set[str] = set()
        self._policy, self._region, self._place, self._tags = policy, region, place, tags

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Guard:
        real, guard = Clients.call, self

        def call(self: Clients, service: str, operation: str, target: str, left_s: float, **more: Any) -> Any:
            guard.judge(service, operation, more)
            return real(self, service, operation, target, left_s, **more)

        monkeypatch.setattr(Clients, "call", call)
        return self

    def judge(self, service: str, operation: str, parameters: dict[str, Any]) -> None:
        """Raises AwsDenied, as AWS would have it."""
        policy = self._policy()
        for need in needs(service, operation, parameters, self._region, self._place, self._tags):
            self.used.add(need.action)
            if not allows(policy, need):
                raise AwsDenied(action=need.action, target=need.resource, why="the policy does not allow it")


def policy_of(cluster: Cluster) -> dict[str, Any]:
    (document,) = operator_policy(cluster)
    found: dict[str, Any] = json.loads(document.text)
    return found


def guard_of_file(path: Path, before: str, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """A guard by the policy of what the file declares at the moment of each call, of `before` while there is no file."""

    def policy() -> dict[str, Any]:
        return policy_of(load(path.read_text() if path.exists() else before).cluster)

    return Guard(policy).install(monkeypatch)
