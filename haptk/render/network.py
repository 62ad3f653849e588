"""The security group of the balancers: every port that the declaration implies, and the protocol that is forgotten.

VRRP is IP protocol 112 and not a TCP port; heartbeat is UDP on `udpport`. Both, and the peers' port, come only from the
group itself.
"""

from __future__ import annotations

from typing import Any

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.documents import stack, tags

VRRP = "112"


def ingress(cluster: Cluster) -> list[dict[str, Any]]:
    """What is let in: dicts of protocol, ports, whence (`world` or `group`) and why."""
    tier = cluster.cluster
    found = [{"protocol": "tcp", "port": cluster.frontend.port, "from": "world", "why": "the service"}]
    if tier.contract == "heartbeat":
        found.append({"protocol": "udp", "port": cluster.timing.udpport, "from": "group", "why": "heartbeat"})
    if tier.contract == "keepalived":
        found.append({"protocol": VRRP, "port": None, "from": "group", "why": "VRRP"})
    if tier.contract == "pacemaker":
        found.append({"protocol": "udp", "port": 5405, "from": "group", "why": "corosync"})
        found.append({"protocol": "tcp", "port": 2224, "from": "group", "why": "pcsd"})
    if cluster.session.design == "learn" and len(cluster.balancers) > 1:
        found.append({"protocol": "tcp", "port": cluster.session.peers_port, "from": "group", "why": "haproxy peers"})
    return found


def security_group(cluster: Cluster) -> tuple[Artefact, ...]:
    """A CloudFormation template with the group; the VPC is a parameter, because only the operator knows it."""
    name = cluster.cluster.name
    world, own = [], {}
    for one in ingress(cluster):
        ports = {} if one["port"] is None else {"FromPort": one["port"], "ToPort": one["port"]}
        body = {"IpProtocol": one["protocol"], "Description": one["why"], **ports}
        if one["from"] == "world":
            world.append({**body, "CidrIp": "0.0.0.0/0"})
        else:
            group = {"Fn::GetAtt": ["Balancers", "GroupId"]}
            own[f"From{one['why'].title().replace(' ', '')}"] = {
                "Type": "AWS::EC2::SecurityGroupIngress",
                "Properties": {**body, "GroupId": group, "SourceSecurityGroupId": group},
            }
    resources = {
        "Balancers": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": f"Balancers of tier {name}",
                "VpcId": {"Ref": "Vpc"},
                "SecurityGroupIngress": world,
                "Tags": tags(f"{name}-balancers"),
            },
        },
        **own,
    }
    made = stack("aws/security-group.json", "security-group", f"Security group of tier {name}", resources, {})
    return (_with_parameter(made),)


def _with_parameter(made: Artefact) -> Artefact:
    import json
    from dataclasses import replace

    body = json.loads(made.text)
    head = {key: body.pop(key) for key in ("AWSTemplateFormatVersion", "Description")}
    head["Parameters"] = {"Vpc": {"Type": "AWS::EC2::VPC::Id", "Description": "The VPC of the balancers"}}
    return replace(made, text=json.dumps({**head, **body}, indent=2) + "\n")
