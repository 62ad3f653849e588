"""The policy of whoever runs `haptk dns`, `haptk elb`, `haptk apply --aws` and `haptk lease` for this tier, and nothing more.

What reads is on `*` where the action knows no resources. What changes names what the declaration names: the hosted zone,
the table, the load balancer and its target group by name. Health checks have no name before they exist, so they are any
of the account's; a security group is only filled when it has the tag that haptk gives it.

An action is the API's own name, but for two: those of elbv2 belong to `elasticloadbalancing`, and tags that come with a
creation want an action of their own (user guide of Elastic Load Balancing, "tag resources during creation").
"""

from __future__ import annotations

from typing import Any

from haptk.cluster.schema import Cluster
from haptk.render import elb
from haptk.render.artefact import Artefact
from haptk.render.documents import document
from haptk.render.iam import lease_table, statement

ELB = "elasticloadbalancing"
LOOK_ELB = (
    "DescribeInstanceHealth",
    "DescribeListenerAttributes",
    "DescribeListeners",
    "DescribeLoadBalancerAttributes",
    "DescribeLoadBalancerPolicies",
    "DescribeLoadBalancers",
    "DescribeTargetGroupAttributes",
    "DescribeTargetGroups",
    "DescribeTargetHealth",
)
LOOK_EC2 = ("DescribeAddresses", "DescribeInstances", "DescribeSecurityGroups", "DescribeSubnets")


def operator_policy(cluster: Cluster) -> tuple[Artefact, ...]:
    """The policy document for the role of the tier's operators."""
    found = [statement("Look", [f"ec2:{one}" for one in LOOK_EC2], ["*"])]
    found += _records(cluster)
    if cluster.elb is not None:
        found += _balancer(cluster)
    table = lease_table(cluster)
    if table is not None:
        arns = [f"arn:aws:dynamodb:{region.name}:*:table/{table}" for region in cluster.regions]
        found.append(statement("Leases", ["dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:GetItem"], arns))
    body = {"Version": "2012-10-17", "Statement": found}
    return (document("aws/operator-policy.json", "operator-policy", body),)


def _records(cluster: Cluster) -> list[dict[str, Any]]:
    if cluster.dns is None or cluster.dns.provider != "route53" or cluster.dns.zone_id is None:
        return []
    zone = [f"arn:aws:route53:::hostedzone/{cluster.dns.zone_id}"]
    found = [statement("Records", ["route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets"], zone)]
    if cluster.addresses:
        # Listed even where none are declared: those of an earlier declaration are removed.
        found.append(statement("SeeChecks", ["route53:ListHealthChecks", "route53:CreateHealthCheck"], ["*"]))
        found.append(statement("EndChecks", ["route53:DeleteHealthCheck"], ["arn:aws:route53:::healthcheck/*"]))
    return found


def _balancer(cluster: Cluster) -> list[dict[str, Any]]:
    assert cluster.elb is not None  # noqa: S101 (the caller looked)
    made = elb.wanted(cluster)
    kind = "net" if cluster.elb.type == "network" else "app"
    region = next((name for name in map(cluster.region_of, cluster.elb.subnets) if name), cluster.regions[0].name)
    here = f"arn:aws:{ELB}:{region}:*"
    balancer = f"{here}:loadbalancer/{kind}/{made.balancer['Name']}/*"
    listener = f"{here}:listener/{kind}/{made.balancer['Name']}/*/*"
    group = f"{here}:targetgroup/{made.group['Name']}/*"

    def allowed(sid: str, arn: str, *actions: str) -> dict[str, Any]:
        return statement(sid, [f"{ELB}:{one}" for one in actions], [arn])

    tagged = allowed("TagWhatIsMade", balancer, "AddTags")
    tagged["Resource"].append(group)
    tagged["Condition"] = {"StringEquals": {f"{ELB}:CreateAction": ["CreateLoadBalancer", "CreateTargetGroup"]}}
    role = f"arn:aws:iam::*:role/aws-service-role/{ELB}.amazonaws.com/AWSServiceRoleForElasticLoadBalancing"
    first = statement("FirstOfTheAccount", ["iam:CreateServiceLinkedRole"], [role])
    first["Condition"] = {"StringEquals": {"iam:AWSServiceName": f"{ELB}.amazonaws.com"}}
    attributes = ("CreateLoadBalancer", "CreateListener", "ModifyLoadBalancerAttributes", "SetSubnets")
    groups = ("SetSecurityGroups",) if kind == "app" or cluster.elb.security_groups else ()
    members = ("CreateTargetGroup", "ModifyTargetGroup", "ModifyTargetGroupAttributes")
    found = [
        statement("LookBalancing", [f"{ELB}:{one}" for one in LOOK_ELB], ["*"]),
        allowed("Balancer", balancer, *attributes, *groups),
        allowed("Listeners", listener, "ModifyListener", "DeleteListener", "ModifyListenerAttributes"),
        allowed("Targets", group, *members, "RegisterTargets", "DeregisterTargets"),
        tagged,
        first,
    ]
    return found + (_firewall(cluster, region, made.firewall["GroupName"]) if made.firewall is not None else [])


def _firewall(cluster: Cluster, region: str, name: str) -> list[dict[str, Any]]:
    assert cluster.elb is not None  # noqa: S101 (the caller looked)
    groups = f"arn:aws:ec2:{region}:*:security-group/*"
    vpc = f"arn:aws:ec2:{region}:*:vpc/{cluster.elb.vpc}"
    tags = statement("TagFirewall", ["ec2:CreateTags"], [groups])
    tags["Condition"] = {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}}
    opened = statement("OpenFirewall", ["ec2:AuthorizeSecurityGroupIngress"], [groups])
    opened["Condition"] = {"StringEquals": {"aws:ResourceTag/Name": name}}
    return [statement("MakeFirewall", ["ec2:CreateSecurityGroup"], [groups, vpc]), tags, opened]
