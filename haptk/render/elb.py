"""AWS's own load balancer from the same declaration: a CloudFormation stack, and the plain calls for whoever has none.

Stickiness follows the session design as far as ELB can: an inserted cookie becomes `lb_cookie`, the application's own
(prefix, rewrite, learn) becomes `app_cookie`, which does not rewrite it but adds one of ELB's beside it. A network load
balancer sees no HTTP. Health checks have ELB's limits: 5 s or more between two, 2 to 10 of them.
"""

from __future__ import annotations

import math
from typing import Any

from haptk.cluster.schema import Cluster, Elb
from haptk.render.artefact import Artefact
from haptk.render.documents import document, stack, tags

LB_COOKIE_S = 86400


def health(cluster: Cluster) -> dict[str, Any]:
    """The health check of the target group, brought inside ELB's limits."""
    check = cluster.check
    interval = min(300, max(5, math.ceil(check.interval)))
    return {
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckPath": check.path,
        "HealthCheckIntervalSeconds": interval,
        "HealthCheckTimeoutSeconds": min(interval - 1, max(2, math.ceil(check.timeout))),
        "HealthyThresholdCount": min(10, max(2, check.rise)),
        "UnhealthyThresholdCount": min(10, max(2, check.fall)),
        "Matcher": {"HttpCode": "200-399"},
    }


def stickiness(cluster: Cluster) -> dict[str, str]:
    """The attributes of the target group that keep a session on its server."""
    elb, session = _elb(cluster), cluster.session
    if session.design == "stateless":
        return {"stickiness.enabled": "false"}
    if elb.type == "network":
        return {"stickiness.enabled": "true", "stickiness.type": "source_ip"}
    if session.design == "insert":
        life = {"stickiness.lb_cookie.duration_seconds": str(LB_COOKIE_S)}
        return {"stickiness.enabled": "true", "stickiness.type": "lb_cookie", **life}
    return {
        "stickiness.enabled": "true",
        "stickiness.type": "app_cookie",
        "stickiness.app_cookie.cookie_name": str(session.cookie),
        "stickiness.app_cookie.duration_seconds": str(LB_COOKIE_S),
    }


def targets(cluster: Cluster) -> tuple[str, list[dict[str, Any]]]:
    """The kind of target and the targets: the servers by address, or by instance when every one has its id."""
    if all(server.instance for server in cluster.servers):
        return "instance", [{"Id": server.instance, "Port": server.port} for server in cluster.servers]
    return "ip", [{"Id": server.address, "Port": server.port} for server in cluster.servers]


def elb(cluster: Cluster) -> tuple[Artefact, ...]:
    """The stack and the calls; ValueError without [elb]."""
    name = cluster.cluster.name
    balancer, group, listener = _balancer(cluster), _group(cluster), _listener(cluster)
    resources = {
        "Balancer": {"Type": "AWS::ElasticLoadBalancingV2::LoadBalancer", "Properties": balancer},
        "Servers": {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": group},
        "Listener": {
            "Type": "AWS::ElasticLoadBalancingV2::Listener",
            "Properties": {**listener, "LoadBalancerArn": {"Ref": "Balancer"}}
            | {"DefaultActions": [{"Type": "forward", "TargetGroupArn": {"Ref": "Servers"}}]},
        },
    }
    outputs = {"Name": {"Value": {"Fn::GetAtt": ["Balancer", "DNSName"]}}}
    made = stack("aws/elb-stack.json", "elb", f"Load balancer of tier {name}", resources, outputs)
    return made, document("aws/elb-calls.json", "elb", _calls(cluster, balancer, group, listener))


def _attributes(pairs: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def _balancer(cluster: Cluster) -> dict[str, Any]:
    found = _elb(cluster)
    name = f"{cluster.cluster.name}-{'nlb' if found.type == 'network' else 'alb'}"[:32]
    properties: dict[str, Any] = {"Name": name, "Type": found.type, "Scheme": "internet-facing"}
    fixed = {address.active: address.allocation for address in cluster.addresses}
    if fixed:
        properties["SubnetMappings"] = [
            {"SubnetId": subnet} | ({"AllocationId": fixed[zone]} if zone in fixed else {})
            for zone, subnet in found.subnets.items()
        ]
    else:
        properties["Subnets"] = list(found.subnets.values())
    attributes = {"load_balancing.cross_zone.enabled": "true"}
    if found.type == "application":
        attributes["idle_timeout.timeout_seconds"] = str(max(1, math.ceil(found.idle_timeout)))
    properties["LoadBalancerAttributes"] = _attributes(attributes)
    return properties | {"Tags": tags(cluster.cluster.name)}


def _group(cluster: Cluster) -> dict[str, Any]:
    found = _elb(cluster)
    kind, members = targets(cluster)
    delay = {"deregistration_delay.timeout_seconds": str(math.ceil(found.deregistration_delay))}
    return {
        "Name": f"{cluster.cluster.name}-servers"[:32],
        "VpcId": found.vpc,
        "Protocol": "TCP" if found.type == "network" else "HTTP",
        "Port": cluster.servers[0].port,
        "TargetType": kind,
        "Targets": members,
        **health(cluster),
        "TargetGroupAttributes": _attributes({**delay, **stickiness(cluster)}),
        "Tags": tags(cluster.cluster.name),
    }


def _listener(cluster: Cluster) -> dict[str, Any]:
    found = _elb(cluster)
    tls = found.certificate is not None
    plain = "TCP" if found.type == "network" else "HTTP"
    protocol = ("TLS" if found.type == "network" else "HTTPS") if tls else plain
    properties: dict[str, Any] = {"Port": 443 if tls else cluster.frontend.port, "Protocol": protocol}
    if tls:
        properties["Certificates"] = [{"CertificateArn": found.certificate}]
        properties["SslPolicy"] = "ELBSecurityPolicy-TLS13-1-2-2021-06"
    return properties


def _calls(
    cluster: Cluster, balancer: dict[str, Any], group: dict[str, Any], listener: dict[str, Any]
) -> list[dict[str, Any]]:
    """The same as calls of elbv2, in order; `$Balancer` and `$Servers` stand for the ARNs that earlier calls return."""
    later = ("LoadBalancerAttributes", "TargetGroupAttributes", "Targets")
    plain = {key: value for key, value in balancer.items() if key not in later}
    servers = {key: value for key, value in group.items() if key not in later}
    forward = [{"Type": "forward", "TargetGroupArn": "$Servers"}]
    steps = [
        ("CreateLoadBalancer", plain),
        ("ModifyLoadBalancerAttributes", {"LoadBalancerArn": "$Balancer", "Attributes": balancer[later[0]]}),
        ("CreateTargetGroup", servers),
        ("ModifyTargetGroupAttributes", {"TargetGroupArn": "$Servers", "Attributes": group[later[1]]}),
        ("RegisterTargets", {"TargetGroupArn": "$Servers", "Targets": group["Targets"]}),
        ("CreateListener", {"LoadBalancerArn": "$Balancer", **listener, "DefaultActions": forward}),
    ]
    return [{"Service": "elbv2", "Operation": name, "Parameters": parameters} for name, parameters in steps]


def _elb(cluster: Cluster) -> Elb:
    if cluster.elb is None:
        raise ValueError("the declaration has no table [elb]")
    return cluster.elb
