"""The name of a tier in Route 53: look, compare, act on the difference; a second look finds nothing to do.

Records change in one batch, which Route 53 makes whole or not at all. A health check comes before the records that refer
to it and goes after them, so an interruption leaves at most a check that nobody uses, and the next run finds it. A
check's reference carries a digest of its configuration, because Route 53 never takes a reference twice: a changed check is
a new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from haptk.cluster.schema import Cluster, Dns
from haptk.errors import OperatorError
from haptk.render import route53

PATIENCE_S = 20.0
Record = dict[str, Any]
_COMPARED = ("SetIdentifier", "Weight", "MultiValueAnswer", "TTL", "HealthCheckId")


class Caller(Protocol):
    """What is needed of haptk.aws.client.Clients."""

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call."""


@dataclass(frozen=True)
class Observed:
    """What Route 53 has: the record sets of the name, and this tier's health checks by reference."""

    records: tuple[Record, ...]
    checks: dict[str, str]


@dataclass(frozen=True)
class RecordPlan:
    """What is to be done; `new_checks` are (address, reference, configuration), `old_checks` ids."""

    zone_id: str
    name: str
    new_checks: tuple[tuple[str, str, Record], ...]
    old_checks: tuple[str, ...]
    gone: tuple[Record, ...]
    wanted: tuple[Record, ...]
    known_checks: dict[str, str]
    surprises: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.new_checks or self.old_checks or self.gone or self.wanted)

    def lines(self) -> list[str]:
        """The plan for people, one line a change."""
        found = [f"+ health check of {name}: {config['IPAddress']}{config['ResourcePath']}"
                 for name, _, config in self.new_checks]  # fmt: skip
        found += [f"- {shown(one)}" for one in self.gone]
        found += [f"+ {shown(one)}" for one in self.wanted]
        return found + [f"- health check {one}" for one in self.old_checks]


def shown(record: Record) -> str:
    """A record set in a line, as a zone file would have it."""
    if "AliasTarget" in record:
        return f"{record['Name']} {record['Type']} alias of {record['AliasTarget']['DNSName']}"
    values = " ".join(sorted(value["Value"] for value in record["ResourceRecords"]))
    more = [
        f"{key}={record[key]}" for key in ("SetIdentifier", "Weight", "HealthCheckId") if record.get(key) is not None
    ]
    return " ".join([record["Name"], str(record["TTL"]), record["Type"], values, *more])


def reference(cluster: Cluster, name: str, config: Record) -> str:
    """The caller reference of a health check: the tier, the address, and a digest of the configuration."""
    text = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    return f"{_prefix(cluster)}{name}-{text}"[:64]


def _prefix(cluster: Cluster) -> str:
    return f"haptk-{cluster.cluster.name}-"


def _declared(cluster: Cluster) -> Dns:
    dns = cluster.dns
    if dns is None or dns.provider != "route53" or dns.zone_id is None:
        raise OperatorError(
            what='cluster.toml declares no name in Route 53: [dns] with provider = "route53" and zone_id'
        )
    return dns


def observe(cluster: Cluster, clients: Caller) -> Observed:
    """Ask Route 53; AwsError when it does not tell."""
    return Observed(tuple(name_records(cluster, clients)), _checks(cluster, clients))


def name_records(cluster: Cluster, clients: Caller) -> list[Record]:
    """The A record sets of the name; AwsError when Route 53 does not tell."""
    dns = _declared(cluster)
    name = route53.fqdn(dns.name)
    records: list[Record] = []
    start: dict[str, Any] = {"StartRecordName": name, "StartRecordType": "A"}
    while start:
        page = clients.call("route53", "ListResourceRecordSets", name, PATIENCE_S, HostedZoneId=dns.zone_id, **start)
        found = [one for one in page["ResourceRecordSets"] if one["Name"] == name and one["Type"] == "A"]
        records += found
        start = {}
        if page.get("IsTruncated") and page.get("NextRecordName") == name and page.get("NextRecordType") == "A":
            start = {"StartRecordName": name, "StartRecordType": "A"}
            if page.get("NextRecordIdentifier"):
                start["StartRecordIdentifier"] = page["NextRecordIdentifier"]
    return records


def _checks(cluster: Cluster, clients: Caller) -> dict[str, str]:
    found: dict[str, str] = {}
    marker: dict[str, str] = {}
    while True:
        page = clients.call("route53", "ListHealthChecks", "health checks", PATIENCE_S, **marker)
        for one in page["HealthChecks"]:
            if one["CallerReference"].startswith(_prefix(cluster)):
                found[one["CallerReference"]] = one["Id"]
        if not page.get("IsTruncated"):
            return found
        marker = {"Marker": page["NextMarker"]}


def plan(cluster: Cluster, observed: Observed) -> RecordPlan:
    """The difference between what is declared and what was seen."""
    dns = _declared(cluster)
    references: dict[str, str] = {}
    new_checks = []
    if route53.checked(cluster):
        for address in cluster.addresses:
            config = route53.health_check(cluster, address)
            mark = references[address.name] = reference(cluster, address.name, config)
            if mark not in observed.checks:
                new_checks.append((address.name, mark, config))
    # A check that is still to be made has a name in angle brackets in place of its id.
    ids = {name: observed.checks.get(mark, f"<{name}>") for name, mark in references.items()}
    wanted = route53.record_sets(cluster, ids)
    gone, changed = _difference(list(observed.records), wanted)
    old = tuple(sorted(identity for mark, identity in observed.checks.items() if mark not in references.values()))
    return RecordPlan(
        zone_id=str(dns.zone_id),
        name=route53.fqdn(dns.name),
        new_checks=tuple(new_checks),
        old_checks=old,
        gone=tuple(gone),
        wanted=tuple(changed),
        known_checks=ids,
        surprises=tuple(_surprises(observed.records, wanted)),
    )


def refuse_alias(observed: Observed) -> None:
    """OperatorError where the name leads to a load balancer: then nobody is in it who could be taken out."""
    for one in observed.records:
        if "AliasTarget" in one:
            why = f"{one['Name']} is an alias of {one['AliasTarget']['DNSName']}"
            raise OperatorError(what=f"{why}: `haptk apply --aws --force` puts the declared addresses in its place")


def _key(record: Record) -> str:
    return str(record.get("SetIdentifier", ""))


def _kind(record: Record) -> str:
    return "weighted" if "Weight" in record else "multivalue" if record.get("MultiValueAnswer") else "simple"


def _same(one: Record, other: Record) -> bool:
    values = [sorted(value["Value"] for value in record["ResourceRecords"]) for record in (one, other)]
    return values[0] == values[1] and all((one.get(key) or None) == (other.get(key) or None) for key in _COMPARED)


def _difference(there: list[Record], wanted: list[Record]) -> tuple[list[Record], list[Record]]:
    """Records to delete, and records to create or replace."""
    aliases = any("AliasTarget" in one for one in there)
    if aliases or {_kind(one) for one in there} - {_kind(one) for one in wanted}:
        # Route 53 takes no mix of policies under one name: the old ones leave in the batch that brings the new ones.
        return there, wanted
    known = {_key(one): one for one in there}
    keys = {_key(one) for one in wanted}
    gone = [one for one in there if _key(one) not in keys]
    return gone, [one for one in wanted if _key(one) not in known or not _same(known[_key(one)], one)]


def _surprises(there: tuple[Record, ...], wanted: list[Record]) -> list[str]:
    def values(records: Any) -> set[str]:
        return {value["Value"] for record in records for value in record.get("ResourceRecords", ())}

    before, lost = values(there), values(there) - values(wanted)
    found = [f"the name would leave {one['AliasTarget']['DNSName']}" for one in there if "AliasTarget" in one]
    if len(lost) * 3 > len(before):
        found.append(f"{len(lost)} of {len(before)} addresses would leave the name: {', '.join(sorted(lost))}")
    return found


def carry_out(cluster: Cluster, chosen: RecordPlan, clients: Caller) -> None:
    """Make the checks, change the records in one batch, remove checks that nothing refers to any more."""
    made: dict[str, str] = {}
    for name, mark, config in chosen.new_checks:
        answer = clients.call(
            "route53", "CreateHealthCheck", name, PATIENCE_S, CallerReference=mark, HealthCheckConfig=config
        )
        made[f"<{name}>"] = answer["HealthCheck"]["Id"]
    changes = [{"Action": "DELETE", "ResourceRecordSet": one} for one in chosen.gone]
    for one in chosen.wanted:
        identity = one.get("HealthCheckId")
        record = {**one, "HealthCheckId": made.get(identity, identity)} if identity else one
        changes.append({"Action": "UPSERT", "ResourceRecordSet": record})
    if changes:
        batch = {"Comment": f"haptk apply, tier {cluster.cluster.name}", "Changes": changes}
        clients.call(
            "route53",
            "ChangeResourceRecordSets",
            chosen.name,
            PATIENCE_S,
            HostedZoneId=chosen.zone_id,
            ChangeBatch=batch,
        )
    for identity in chosen.old_checks:
        clients.call("route53", "DeleteHealthCheck", identity, PATIENCE_S, HealthCheckId=identity)
