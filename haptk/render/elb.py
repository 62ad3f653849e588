"""AWS's own load balancer from the same declaration: a CloudFormation stack, and the plain calls for whoever has none.

Targets are the application servers, or the balancers where the declaration has some: then haproxy keeps the sessions and
the load balancer of AWS only spreads connections over it. Stickiness follows the session design as far as ELB can: an
inserted cookie becomes `lb_cookie`, the application's own (prefix, rewrite, learn) becomes `app_cookie`, which does not
rewrite it but adds one of ELB's beside it. A network load balancer sees no HTTP and keeps a client by its address at best.
Health checks have ELB's limits: 5 s or more between two, 2 to 10 of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from haptk.cluster.schema import Cluster, Elb
from haptk.render.artefact import Artefact
from haptk.render.documents import document, stack, tags

LB_COOKIE_S = 86400
TLS_PORT = 443
TCP_IDLE = "tcp.idle_timeout.seconds"
TCP_IDLE_S = 350
"""What a new TCP listener has, by the guide of Network Load Balancers; a TLS listener cannot have another."""
BALANCER, SERVERS, FIREWALL, LISTENER = "$Balancer", "$Servers", "$Firewall", "$Listener"
"""What stands in a call for an id that an earlier call returns."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Everything that is to exist, as parameters of the calls that make it. `firewall` is None where nobody needs one."""

    balancer: Row
    attributes: list[Row]
    firewall: Row | None
    ingress: list[Row]
    group: Row
    group_attributes: list[Row]
    targets: list[Row]
    listeners: tuple[Row, ...]
    listener_attributes: list[Row]


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
    """The attributes of the target group that keep a session on its server; off where haproxy does that."""
    elb, session = _elb(cluster), cluster.session
    if elb.type == "network":
        if elb.source_ip:
            return {"stickiness.enabled": "true", "stickiness.type": "source_ip"}
        return {"stickiness.enabled": "false"}
    if session.design == "stateless" or cluster.balancers:
        return {"stickiness.enabled": "false"}
    if session.design == "insert":
        life = {"stickiness.lb_cookie.duration_seconds": str(LB_COOKIE_S)}
        return {"stickiness.enabled": "true", "stickiness.type": "lb_cookie", **life}
    return {
        "stickiness.enabled": "true",
        "stickiness.type": "app_cookie",
        "stickiness.app_cookie.cookie_name": str(session.cookie),
        "stickiness.app_cookie.duration_seconds": str(LB_COOKIE_S),
    }


def members(cluster: Cluster) -> tuple[str, dict[str, Row]]:
    """The kind of target, and the target of every name: balancers if there are some, else servers.

    By instance when every one has its id, else by private address.
    """
    if cluster.balancers:
        port = cluster.frontend.port
        found = [(one.name, one.instance, one.private_ip, port) for one in cluster.balancers]
    else:
        found = [(one.name, one.instance, one.address, one.port) for one in cluster.servers]
    if all(instance for _, instance, _, _ in found):
        return "instance", {name: {"Id": instance, "Port": port} for name, instance, _, port in found}
    return "ip", {name: {"Id": address, "Port": port} for name, _, address, port in found}


def wanted(cluster: Cluster) -> Wanted:
    """What is to exist; ValueError without [elb]."""
    found = _elb(cluster)
    kind, targets = members(cluster)
    delay = {"deregistration_delay.timeout_seconds": str(math.ceil(found.deregistration_delay))}
    attributes = {"load_balancing.cross_zone.enabled": "true"}
    if found.type == "application":
        attributes["idle_timeout.timeout_seconds"] = str(max(1, math.ceil(found.idle_timeout)))
    listeners = _listeners(cluster)
    firewall = _firewall(cluster)
    return Wanted(
        balancer=_balancer(cluster),
        attributes=_attributes(attributes),
        firewall=firewall,
        ingress=[_let_in(one["Port"]) for one in listeners] if firewall else [],
        group={
            "Name": f"{cluster.cluster.name}-{'balancers' if cluster.balancers else 'servers'}"[:32],
            "VpcId": found.vpc,
            "Protocol": "TCP" if found.type == "network" else "HTTP",
            "Port": next(iter(targets.values()))["Port"],
            "TargetType": kind,
            **health(cluster),
            "Tags": tags(cluster.cluster.name),
        },
        group_attributes=_attributes({**delay, **stickiness(cluster)}),
        targets=list(targets.values()),
        listeners=listeners,
        listener_attributes=_listener_attributes(found),
    )


def elb(cluster: Cluster) -> tuple[Artefact, ...]:
    """The stack and the calls; ValueError without [elb]."""
    made = wanted(cluster)
    name = cluster.cluster.name
    outputs = {"Name": {"Value": {"Fn::GetAtt": ["Balancer", "DNSName"]}}}
    whole = stack("aws/elb-stack.json", "elb", f"Load balancer of tier {name}", _resources(made), outputs)
    return whole, document("aws/elb-calls.json", "elb", _calls(made))


def _attributes(pairs: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def _let_in(port: int) -> Row:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def _firewall(cluster: Cluster) -> Row | None:
    """The security group of an application load balancer: the VPC's default one would let no client in."""
    found = _elb(cluster)
    if found.type != "application" or found.security_groups:
        return None
    name = f"{cluster.cluster.name}-alb"
    return {
        "GroupName": name,
        "Description": f"Load balancer of tier {cluster.cluster.name}",
        "VpcId": found.vpc,
        "TagSpecifications": [{"ResourceType": "security-group", "Tags": tags(name)}],
    }


def _balancer(cluster: Cluster) -> Row:
    found = _elb(cluster)
    name = f"{cluster.cluster.name}-{'nlb' if found.type == 'network' else 'alb'}"[:32]
    properties: Row = {"Name": name, "Type": found.type, "Scheme": "internet-facing"}
    fixed = {address.active: address.allocation for address in cluster.addresses}
    if fixed:
        properties["SubnetMappings"] = [
            {"SubnetId": subnet} | ({"AllocationId": fixed[zone]} if zone in fixed else {})
            for zone, subnet in found.subnets.items()
        ]
    else:
        properties["Subnets"] = list(found.subnets.values())
    if found.security_groups:
        properties["SecurityGroups"] = list(found.security_groups)
    elif found.type == "application":
        properties["SecurityGroups"] = [FIREWALL]
    return properties | {"Tags": tags(cluster.cluster.name)}


def _listeners(cluster: Cluster) -> tuple[Row, ...]:
    """The listener that forwards; before an application load balancer's HTTPS one that sends HTTP there."""
    found = _elb(cluster)
    forward = [{"Type": "forward", "TargetGroupArn": SERVERS}]
    plain = {"Port": cluster.frontend.port, "Protocol": "TCP" if found.type == "network" else "HTTP"}
    if found.certificate is None:
        return ({**plain, "DefaultActions": forward},)
    secure = {
        "Port": TLS_PORT,
        "Protocol": "TLS" if found.type == "network" else "HTTPS",
        "Certificates": [{"CertificateArn": found.certificate}],
        "SslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06",
        "DefaultActions": forward,
    }
    if found.type == "network" or cluster.frontend.port == TLS_PORT:
        return (secure,)
    there = {"Protocol": "HTTPS", "Port": str(TLS_PORT), "StatusCode": "HTTP_301"}
    return secure, {**plain, "DefaultActions": [{"Type": "redirect", "RedirectConfig": there}]}


def _listener_attributes(found: Elb) -> list[Row]:
    """Of the only listener that has some: TCP of a network load balancer."""
    if found.type != "network" or found.certificate is not None:
        return []
    return _attributes({TCP_IDLE: str(math.ceil(found.tcp_idle_timeout))})


def _resources(made: Wanted) -> Row:
    """The same for CloudFormation, where references take the place of ids."""
    balancer = {**made.balancer, "LoadBalancerAttributes": made.attributes}
    group = {**made.group, "Targets": made.targets, "TargetGroupAttributes": made.group_attributes}
    found: Row = {}
    if made.firewall is not None:
        balancer["SecurityGroups"] = [{"Fn::GetAtt": ["Firewall", "GroupId"]}]
        found["Firewall"] = {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": made.firewall["Description"],
                "VpcId": made.firewall["VpcId"],
                "SecurityGroupIngress": [
                    {key: one[key] for key in ("IpProtocol", "FromPort", "ToPort")} | one["IpRanges"][0]
                    for one in made.ingress
                ],
                "Tags": made.firewall["TagSpecifications"][0]["Tags"],
            },
        }
    found["Balancer"] = {"Type": "AWS::ElasticLoadBalancingV2::LoadBalancer", "Properties": balancer}
    found["Servers"] = {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": group}
    for number, one in enumerate(made.listeners):
        actions = [
            {**action, "TargetGroupArn": {"Ref": "Servers"}} if "TargetGroupArn" in action else action
            for action in one["DefaultActions"]
        ]
        body = {**one, "LoadBalancerArn": {"Ref": "Balancer"}, "DefaultActions": actions}
        if made.listener_attributes:
            body["ListenerAttributes"] = made.listener_attributes
        kind = "AWS::ElasticLoadBalancingV2::Listener"
        found[("Listener", "Redirect")[number]] = {"Type": kind, "Properties": body}
    return found


def _calls(made: Wanted) -> list[Row]:
    """The same as calls, in order."""
    steps: list[tuple[str, str, Row]] = []
    if made.firewall is not None:
        steps.append(("ec2", "CreateSecurityGroup", made.firewall))
        parameters = {"GroupId": FIREWALL, "IpPermissions": made.ingress}
        steps.append(("ec2", "AuthorizeSecurityGroupIngress", parameters))
    attributes = {"LoadBalancerArn": BALANCER, "Attributes": made.attributes}
    group_attributes = {"TargetGroupArn": SERVERS, "Attributes": made.group_attributes}
    steps += [
        ("elbv2", "CreateLoadBalancer", made.balancer),
        ("elbv2", "ModifyLoadBalancerAttributes", attributes),
        ("elbv2", "CreateTargetGroup", made.group),
        ("elbv2", "ModifyTargetGroupAttributes", group_attributes),
        ("elbv2", "RegisterTargets", {"TargetGroupArn": SERVERS, "Targets": made.targets}),
    ]
    steps += [("elbv2", "CreateListener", {"LoadBalancerArn": BALANCER, **one}) for one in made.listeners]
    if made.listener_attributes:
        body = {"ListenerArn": LISTENER, "Attributes": made.listener_attributes}
        steps.append(("elbv2", "ModifyListenerAttributes", body))
    return [{"Service": service, "Operation": name, "Parameters": body} for service, name, body in steps]


def _elb(cluster: Cluster) -> Elb:
    if cluster.elb is None:
        raise ValueError("the declaration has no table [elb]")
    return cluster.elb
