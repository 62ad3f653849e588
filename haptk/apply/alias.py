"""The name of a tier behind a load balancer of AWS without fixed addresses: an alias in Route 53, moved in one batch.

An alias follows the load balancer's own name, so it has neither a TTL nor addresses. What the name had before (the
addresses of balancers of one's own) leaves in the same batch, which Route 53 makes whole or not at all: that batch is the
move. The load balancer's name is known only once it exists, so it is looked up when the batch is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haptk.apply import balancing
from haptk.apply.records import PATIENCE_S, Caller, Record, name_records, shown
from haptk.cluster.schema import Cluster
from haptk.errors import AwsError
from haptk.render import route53
from haptk.render.elb import wanted


@dataclass(frozen=True)
class AliasPlan:
    """What is to be done; empty `says` for nothing. `gone` are the record sets that leave."""

    zone_id: str
    name: str
    says: str
    gone: tuple[Record, ...]
    surprises: tuple[str, ...]

    def lines(self) -> list[str]:
        """The plan for people, one line a change."""
        return [*(f"- {shown(one)}" for one in self.gone), *([self.says] if self.says else [])]


def declared(cluster: Cluster) -> bool:
    """Whether the name of this tier is an alias: a load balancer without fixed addresses, and a name in Route 53."""
    dns = cluster.dns
    return cluster.elb is not None and not cluster.addresses and dns is not None and dns.provider == "route53"


def _target(balancer: dict[str, Any]) -> Record:
    return {
        "HostedZoneId": balancer["CanonicalHostedZoneId"],
        "DNSName": balancer["DNSName"].lower().rstrip(".") + ".",
        "EvaluateTargetHealth": True,
    }


def _same(record: Record, target: Record) -> bool:
    there = record.get("AliasTarget", {})
    # Route 53 writes names in lower case, and with `dualstack.` before them when its console made the record.
    name = str(there.get("DNSName", "")).lower().rstrip(".").removeprefix("dualstack.") + "."
    return name == target["DNSName"] and there.get("EvaluateTargetHealth") is True and "SetIdentifier" not in record


def plan(cluster: Cluster, clients: Caller, balancer: dict[str, Any] | None) -> AliasPlan:
    """Look at the name and compare; `balancer` as ELB describes it, None when it is still to be made."""
    assert cluster.dns is not None  # declared() said so  # noqa: S101
    name, zone_id = route53.fqdn(cluster.dns.name), str(cluster.dns.zone_id)
    there = name_records(cluster, clients)
    if balancer is not None and len(there) == 1 and _same(there[0], _target(balancer)):
        return AliasPlan(zone_id, name, "", (), ())
    what = wanted(cluster).balancer["Name"]
    lost = sorted(value["Value"] for one in there for value in one.get("ResourceRecords", ()))
    surprises = (f"{len(lost)} addresses would leave the name: {', '.join(lost)}",) if lost else ()
    # One plain record is replaced by the alias itself; of several with identifiers each has to be named.
    gone = tuple(one for one in there if "SetIdentifier" in one)
    return AliasPlan(zone_id, name, f"+ {name} A alias of {what}", gone, surprises)


def carry_out(cluster: Cluster, chosen: AliasPlan, clients: Caller) -> None:
    """Move the name, now that the load balancer exists."""
    if not chosen.says:
        return
    balancer = balancing.observe(cluster, clients).balancer
    if balancer is None:
        raise AwsError(action="elbv2:DescribeLoadBalancers", target=chosen.name, why="the load balancer is not there")
    changes = [{"Action": "DELETE", "ResourceRecordSet": one} for one in chosen.gone]
    alias = {"Name": chosen.name, "Type": "A", "AliasTarget": _target(balancer)}
    changes.append({"Action": "UPSERT", "ResourceRecordSet": alias})
    batch = {"Comment": f"haptk apply, tier {cluster.cluster.name}", "Changes": changes}
    parameters = {"HostedZoneId": chosen.zone_id, "ChangeBatch": batch}
    clients.call("route53", "ChangeResourceRecordSets", chosen.name, PATIENCE_S, **parameters)
