"""The policy of the balancers' instance role: what moving these addresses needs, and nothing more.

DescribeAddresses knows no resources, so it is on `*`. Everything that changes something names the allocation, interface
and instance where the declaration has their ids; where it has none, a tag `haptk:cluster` on them is demanded instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haptk.cluster.schema import Cluster
from haptk.render.artefact import Artefact
from haptk.render.documents import document
from haptk.render.pool import TABLE

READ = ("ec2:DescribeAddresses", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces")
MOVE = ("ec2:AssociateAddress", "ec2:DisassociateAddress")
TAG = "haptk:cluster"


def iam_policy(cluster: Cluster) -> tuple[Artefact, ...]:
    """The policy document for the role of every balancer."""
    statements: list[dict[str, Any]] = []
    if cluster.cluster.pattern == "standby":
        statements += [statement("See", READ, ["*"]), *_moves(cluster)]
        if any(address.virtual_ip for address in cluster.addresses):
            own = ("ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses")
            statements.append(_narrow("MovePrivate", own, _arns(cluster, "network-interface"), cluster))
    table = lease_table(cluster)
    if table is not None:
        # UpdateItem and never DeleteItem: a lease that is deleted begins its epoch again.
        tables = [f"arn:aws:dynamodb:{region.name}:*:table/{table}" for region in cluster.regions]
        statements.append(statement("Lease", ("dynamodb:GetItem", "dynamodb:UpdateItem"), tables))
    if cluster.dns is not None and cluster.dns.provider == "route53":
        # For a node that drains itself, and for `haptk dns watch`: records change, health checks stay.
        zone = f"arn:aws:route53:::hostedzone/{cluster.dns.zone_id}"
        actions = ("route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets")
        statements.append(statement("Records", actions, [zone]))
        statements.append(statement("SeeChecks", ("route53:ListHealthChecks",), ["*"]))
    if not statements:
        statements.append(statement("See", READ, ["*"]))
    return (document("aws/iam-policy.json", "iam-policy", {"Version": "2012-10-17", "Statement": statements}),)


def lease_table(cluster: Cluster) -> str | None:
    """The table of leases that the tier uses; None where it uses none."""
    return TABLE if cluster.cluster.contract == "pool" else cluster.timing.lease


def statement(sid: str, actions: Sequence[str], resources: list[str]) -> dict[str, Any]:
    """One statement that allows."""
    return {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": resources}


def _arns(cluster: Cluster, kind: str) -> list[str]:
    """The ARNs of the declared things of a kind, or a wildcard when one of them has no id."""
    ids: dict[str, list[str | None]] = {
        "elastic-ip": [address.allocation for address in cluster.addresses],
        "network-interface": [balancer.interface for balancer in cluster.balancers],
        "instance": [balancer.instance for balancer in cluster.balancers],
    }
    regions = sorted({cluster.region_of(balancer.zone) for balancer in cluster.balancers})
    names = ["*"] if None in ids[kind] else sorted(name for name in ids[kind] if name is not None)
    return [f"arn:aws:ec2:{region}:*:{kind}/{name}" for region in regions for name in names]


def _moves(cluster: Cluster) -> list[dict[str, Any]]:
    """One statement for what is named by id, and one with the tag for what is not."""
    named: list[str] = []
    tagged: list[str] = []
    for kind in ("elastic-ip", "network-interface", "instance"):
        arns = _arns(cluster, kind)
        (tagged if any(arn.endswith("/*") for arn in arns) else named).extend(arns)
    found = []
    if named:
        found.append(statement("MoveNamed", MOVE, named))
    if tagged:
        found.append(_narrow("MoveTagged", MOVE, tagged, cluster))
    return found


def _narrow(sid: str, actions: tuple[str, ...], arns: list[str], cluster: Cluster) -> dict[str, Any]:
    made = statement(sid, actions, arns)
    if any(arn.endswith("/*") for arn in arns):
        made["Condition"] = {"StringEquals": {f"aws:ResourceTag/{TAG}": cluster.cluster.name}}
    return made
