"""A classic load balancer (the service `elb`), read with everything that its successor needs; nothing is changed."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Protocol

from haptk.cluster.classic import APPLICATION, BALANCER, Classic, ClassicListener, ClassicServer, Policy

PATIENCE_S = 20.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
Row = dict[str, Any]


class Caller(Protocol):
    """What is needed of Clients."""

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call."""


def names(clients: Caller) -> list[str]:
    """The names of all classic load balancers of the region."""
    found: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = clients.call("elb", "DescribeLoadBalancers", "classic load balancers", PATIENCE_S, **more)
        found += [one["LoadBalancerName"] for one in page["LoadBalancerDescriptions"]]
        if not page.get("NextMarker"):
            return found
        more = {"Marker": page["NextMarker"]}


def read(name: str, clients: Caller) -> Classic:
    """The load balancer of this name; AwsNotFound without it."""
    answer = clients.call("elb", "DescribeLoadBalancers", name, PATIENCE_S, LoadBalancerNames=[name])
    (body,) = answer["LoadBalancerDescriptions"]
    attributes = clients.call("elb", "DescribeLoadBalancerAttributes", name, PATIENCE_S, LoadBalancerName=name)
    chosen = attributes["LoadBalancerAttributes"]
    draining = chosen.get("ConnectionDraining", {})
    check = body["HealthCheck"]
    return Classic(
        name=name,
        dns_name=body.get("DNSName", ""),
        scheme=body.get("Scheme", "internet-facing"),
        vpc=body.get("VPCId", ""),
        subnets=_subnets(body.get("Subnets", []), clients),
        security_groups=tuple(body.get("SecurityGroups", ())),
        listeners=tuple(_listener(one) for one in body["ListenerDescriptions"]),
        servers=tuple(_servers(name, [one["InstanceId"] for one in body.get("Instances", ())], clients)),
        policies=tuple(_policies(name, body.get("Policies", {}), clients)),
        check=check["Target"],
        interval_s=int(check["Interval"]),
        timeout_s=int(check["Timeout"]),
        rise=int(check["HealthyThreshold"]),
        fall=int(check["UnhealthyThreshold"]),
        idle_s=int(chosen.get("ConnectionSettings", {}).get("IdleTimeout", 60)),
        draining_s=int(draining.get("Timeout", 300)) if draining.get("Enabled") else None,
    )


def _listener(described: Row) -> ClassicListener:
    one = described["Listener"]
    return ClassicListener(
        protocol=one["Protocol"].upper(),
        port=int(one["LoadBalancerPort"]),
        instance_protocol=one.get("InstanceProtocol", one["Protocol"]).upper(),
        instance_port=int(one["InstancePort"]),
        certificate=one.get("SSLCertificateId") or "",
        policies=tuple(described.get("PolicyNames", ())),
    )


def _policies(name: str, listed: Row, clients: Caller) -> list[Policy]:
    """The two kinds of stickiness as the description has them; of any other its type is asked."""
    found = [Policy(one["PolicyName"], APPLICATION, one["CookieName"])
             for one in listed.get("AppCookieStickinessPolicies", ())]  # fmt: skip
    for one in listed.get("LBCookieStickinessPolicies", ()):
        life = one.get("CookieExpirationPeriod")
        found.append(Policy(one["PolicyName"], BALANCER, life_s=int(life) if life else None))
    others = listed.get("OtherPolicies", [])
    if others:
        chosen = {"LoadBalancerName": name, "PolicyNames": others}
        answer = clients.call("elb", "DescribeLoadBalancerPolicies", name, PATIENCE_S, **chosen)
        found += [Policy(one["PolicyName"], one["PolicyTypeName"]) for one in answer["PolicyDescriptions"]]
    return found


def _subnets(ids: list[str], clients: Caller) -> dict[str, str]:
    if not ids:
        return {}
    answer = clients.call("ec2", "DescribeSubnets", ", ".join(ids), PATIENCE_S, SubnetIds=ids)
    return {one["AvailabilityZone"]: one["SubnetId"] for one in answer["Subnets"]}


def _called(instance: Row) -> str:
    """The Name tag, "" without one."""
    return next((str(tag["Value"]) for tag in instance.get("Tags", ()) if tag["Key"] == "Name"), "")


def _servers(balancer: str, ids: list[str], clients: Caller) -> list[ClassicServer]:
    if not ids:
        return []
    health = clients.call("elb", "DescribeInstanceHealth", balancer, PATIENCE_S, LoadBalancerName=balancer)
    states = {one["InstanceId"]: one for one in health["InstanceStates"]}
    answer = clients.call("ec2", "DescribeInstances", ", ".join(ids), PATIENCE_S, InstanceIds=ids)
    machines = [each for group in answer["Reservations"] for each in group["Instances"]]
    called = Counter(_called(each) for each in machines)
    found = []
    for one in machines:
        # Instances of a scaling group have one name, which would make them one server.
        name = _called(one) if called[_called(one)] == 1 and NAME.fullmatch(_called(one)) else one["InstanceId"]
        state = states.get(one["InstanceId"], {})
        why = state.get("Description", "")
        found.append(ClassicServer(
            name=name, instance=one["InstanceId"], address=one.get("PrivateIpAddress", ""),
            zone=one["Placement"]["AvailabilityZone"], state=state.get("State", "Unknown"), why="" if why == "N/A" else why,
        ))  # fmt: skip
    return sorted(found, key=lambda each: each.name)
