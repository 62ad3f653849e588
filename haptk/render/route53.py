"""The name in Route 53: a change batch for the API, the health checks it refers to, and both as one CloudFormation stack.

A change batch cannot make a health check, and a health check's id is known only after it was made. So the batch carries
ids where the caller has them; the stack needs none, because CloudFormation refers to its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haptk.cluster.schema import Address, Cluster, Dns
from haptk.render.artefact import Artefact
from haptk.render.documents import document, logical, stack


def fqdn(name: str) -> str:
    """The name with its final dot."""
    return name if name.endswith(".") else f"{name}."


def health_check(cluster: Cluster, address: Address) -> dict[str, Any]:
    """What Route 53 asks one address: the balancer's own answer for the declared path, through the service's port."""
    dns, check = _dns(cluster), cluster.check
    config = {
        "Type": "HTTP",
        "IPAddress": address.public_ip,
        "Port": cluster.frontend.port,
        "ResourcePath": check.path,
        "RequestInterval": dns.health_interval,
        "FailureThreshold": dns.health_fall,
    }
    return config | {"FullyQualifiedDomainName": check.host or dns.name.rstrip(".")}


def record_sets(cluster: Cluster, health_ids: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The record sets of the name; `health_ids` maps the name of an address to the id of its health check."""
    dns = _dns(cluster)
    head = {"Name": fqdn(dns.name), "Type": "A", "TTL": int(dns.ttl)}
    if dns.policy == "simple":
        return [{**head, "ResourceRecords": [{"Value": address.public_ip} for address in cluster.addresses]}]
    found = []
    for address in cluster.addresses:
        one = {**head, "SetIdentifier": address.name, "ResourceRecords": [{"Value": address.public_ip}]}
        if dns.policy == "weighted":
            one["Weight"] = 1 if address.weight is None else address.weight
        else:
            one["MultiValueAnswer"] = True
        if health_ids and address.name in health_ids:
            one["HealthCheckId"] = health_ids[address.name]
        found.append(one)
    return found


def checked(cluster: Cluster) -> bool:
    """Whether Route 53 checks the addresses."""
    dns = _dns(cluster)
    return dns.health_checks and dns.policy != "simple"


def route53(cluster: Cluster) -> tuple[Artefact, ...]:
    """The documents for Route 53."""
    dns = _dns(cluster)
    batch = {
        "Comment": f"Tier {cluster.cluster.name}, written by haptk",
        "Changes": [{"Action": "UPSERT", "ResourceRecordSet": one} for one in record_sets(cluster)],
    }
    found = [document("aws/route53-change-batch.json", "route53", batch)]
    resources: dict[str, Any] = {}
    references: dict[str, Any] = {}
    if checked(cluster):
        configs = {address.name: health_check(cluster, address) for address in cluster.addresses}
        calls = [{"CallerReference": f"haptk-{cluster.cluster.name}-{name}", "HealthCheckConfig": config}
                 for name, config in configs.items()]  # fmt: skip
        found.append(document("aws/route53-health-checks.json", "route53", calls))
        for name, config in configs.items():
            key = logical("Check", name)
            tags = [{"Key": "Name", "Value": f"{cluster.cluster.name}-{name}"}]
            resources[key] = {
                "Type": "AWS::Route53::HealthCheck",
                "Properties": {"HealthCheckConfig": config, "HealthCheckTags": tags},
            }
            references[name] = {"Ref": key}
    for one in record_sets(cluster, references):
        properties: dict[str, Any] = {"HostedZoneId": dns.zone_id, **one}
        properties["TTL"] = str(one["TTL"])
        properties["ResourceRecords"] = [record["Value"] for record in one["ResourceRecords"]]
        key = logical("Record", one.get("SetIdentifier", cluster.cluster.name))
        resources[key] = {"Type": "AWS::Route53::RecordSet", "Properties": properties}
    found.append(stack("aws/route53-stack.json", "route53", f"Name of tier {cluster.cluster.name}", resources, {}))
    return tuple(found)


def _dns(cluster: Cluster) -> Dns:
    if cluster.dns is None:
        raise ValueError("the declaration has no table [dns]")
    return cluster.dns
