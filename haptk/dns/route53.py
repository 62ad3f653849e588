"""The provider Route 53: `declared` is the DNS part of `haptk apply --aws`; `plan` edits the records that are there.

An edit starts from the live records, so that draining one node does not bring back another. A health check stays when
its record leaves, because Route 53 never takes a check's reference twice and the record will want it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from haptk.apply import records
from haptk.cluster.schema import Cluster
from haptk.core.dns import Holding, Stored
from haptk.dns.provider import Plan, surprises
from haptk.errors import OperatorError
from haptk.render import route53

Record = dict[str, Any]


@dataclass(frozen=True)
class Route53:
    """The hosted zone of the declaration, through the given clients."""

    cluster: Cluster
    clients: records.Caller

    def look(self) -> dict[str, int]:
        """Weights by address; AwsError when Route 53 does not tell."""
        return {one.address: one.weight for one in self.stored()}

    def stored(self) -> list[Stored]:
        """Every address of the name with its weight, TTL and whether a health check watches it."""
        return [
            Stored(value["Value"], int(one.get("Weight", 1)), int(one["TTL"]), bool(one.get("HealthCheckId")))
            for one in self._observe().records
            for value in one["ResourceRecords"]
        ]

    def _observe(self) -> records.Observed:
        seen = records.observe(self.cluster, self.clients)
        records.refuse_alias(seen)
        return seen

    def declared(self) -> Plan:
        """The plan that makes the name what is declared."""
        chosen = records.plan(self.cluster, records.observe(self.cluster, self.clients))
        return self._as_plan(chosen)

    def plan(self, edits: Mapping[str, int]) -> Plan:
        """New weights for some addresses; without weights, 0 takes a record out and anything else puts it in."""
        seen = self._observe()
        whole = records.plan(self.cluster, seen)
        fresh = {
            value["Value"]: one
            for one in route53.record_sets(self.cluster, whole.known_checks)
            for value in one["ResourceRecords"]
        }
        if self.cluster.dns is not None and self.cluster.dns.policy == "simple":
            gone, wanted = _edit_simple(seen.records, fresh, edits)
        else:
            gone, wanted = _edit_sets(seen.records, fresh, edits)
        there = [value["Value"] for one in seen.records for value in one["ResourceRecords"] if one.get("Weight") != 0]
        left = [one for one in there if edits.get(one, 1) > 0]
        if not left and not any(weight > 0 for weight in edits.values()):
            raise OperatorError(what=f"nobody would be left in {whole.name}")
        needed = {one.get("HealthCheckId") for one in wanted}
        chosen = replace(
            whole,
            new_checks=tuple(one for one in whole.new_checks if f"<{one[0]}>" in needed),
            old_checks=(),
            gone=tuple(gone),
            wanted=tuple(wanted),
            surprises=surprises(there, left),
        )
        return self._as_plan(chosen)

    def _as_plan(self, chosen: records.RecordPlan) -> Plan:
        def commit() -> None:
            records.carry_out(self.cluster, chosen, self.clients)

        return Plan(tuple(chosen.lines()), chosen.surprises, commit)


def _edit_simple(
    there: tuple[Record, ...], fresh: Mapping[str, Record], edits: Mapping[str, int]
) -> tuple[list[Record], list[Record]]:
    """One record set with every address."""
    before = [value["Value"] for one in there for value in one["ResourceRecords"]]
    after = [one for one in before if edits.get(one, 1) > 0]
    after += [one for one, weight in edits.items() if weight > 0 and one not in before]
    if after == before:
        return [], []
    head = there[0] if there else next(iter(fresh.values()))
    return [], [{**head, "ResourceRecords": [{"Value": one} for one in after]}]


def _edit_sets(
    there: tuple[Record, ...], fresh: Mapping[str, Record], edits: Mapping[str, int]
) -> tuple[list[Record], list[Record]]:
    """A record set an address."""
    known = {value["Value"]: one for one in there for value in one["ResourceRecords"]}
    gone: list[Record] = []
    wanted: list[Record] = []
    for address, weight in edits.items():
        one = known.get(address)
        if one is None and weight == 0:
            continue
        record = one or fresh.get(address)
        if record is None:
            raise OperatorError(what=f"{address} is not declared: it cannot join the name")
        if "Weight" not in record:
            if one is not None and weight == 0:
                gone.append(one)
            elif one is None:
                wanted.append(record)
        elif one is None or one["Weight"] != weight:
            wanted.append({**record, "Weight": weight})
    return gone, wanted


def holdings(cluster: Cluster, addresses: list[str], clients: records.Caller) -> dict[str, Holding]:
    """Who holds each address, by DescribeAddresses; a holder has the balancer's name where the declaration has it."""
    wanted = sorted({*addresses, *(one.public_ip for one in cluster.addresses)})
    chosen = [{"Name": "public-ip", "Values": wanted}]
    page = clients.call("ec2", "DescribeAddresses", "the addresses of the name", records.PATIENCE_S, Filters=chosen)
    found = dict.fromkeys(wanted, Holding(known=False))
    allowed = {one.public_ip: (one.active, *one.standby) for one in cluster.addresses}
    for one in page["Addresses"]:
        address = one["PublicIp"]
        found[address] = Holding(True, _holder(cluster, one), allowed.get(address, ()))
    return found


def _holder(cluster: Cluster, one: Mapping[str, Any]) -> str:
    """The node, else the instance or interface that has the address, "" when it is free."""
    ids = {str(one[key]) for key in ("InstanceId", "NetworkInterfaceId") if one.get(key)}
    if not ids and not one.get("AssociationId"):
        return ""
    for node in cluster.balancers:
        if ids & {node.instance, node.interface} or one.get("PrivateIpAddress") == node.private_ip:
            return node.name
    for address in cluster.addresses:
        for name, private in address.private_ips.items():
            if private == one.get("PrivateIpAddress"):
                return name
    return str(min(ids, default="an unknown interface"))
