"""The lab's region: its plan from the layout, what the network process needs, and who holds the address.

Translation only: names of the lab on one side, ids of EC2 and records of the network process on the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from haptk.aws.tier import ROLE, TAG
from haptk.lab import seed, token
from haptk.lab.layout import IMDS_PORT, PROXY_PORT, REGION, Layout
from haptk.lab.plan import AddressPlan, InstancePlan, Plan, Region, SubnetPlan

ZONES = ("a", "b")
ADDRESS_NAME = "vip"
TIER = "lab"
ROLES = {"balancer": "balancer", "application": "server"}


def plan(layout: Layout) -> Plan:
    """Two zones, a balancer and an application server in each, one Elastic IP that nobody holds yet."""
    return Plan(
        region=REGION,
        vpc_cidr=f"{layout.net}.0.0/16",
        subnets=tuple(
            SubnetPlan(f"zone-{letter}", f"{layout.net}.{number}.0/24", letter)
            for number, letter in enumerate(ZONES, start=1)
        ),
        instances=tuple(
            InstancePlan(
                i.name,
                f"zone-{ZONES[i.zone]}",
                i.private_ip,
                token.access_key_id(i.name),
                tags=_tags(ROLES.get(i.role, "")),
            )
            for i in layout.instances
        ),
        addresses=(AddressPlan(ADDRESS_NAME, layout.address, tags=_tags("")),),
    )


def _tags(role: str) -> tuple[tuple[str, str], ...]:
    """The tags by which `haptk init --from-aws` knows a tier."""
    return ((TAG, TIER), *(((ROLE, role),) if role else ()))


def make(layout: Layout) -> Region:
    """Make the region in the running cloud (blocking)."""
    return seed.seed(f"http://{layout.cloud}", plan(layout))


def describe(region: Region) -> dict[str, Any]:
    """The ids a person needs to ask the API about the lab."""
    return {
        "allocation_id": region.address(ADDRESS_NAME).allocation_id,
        "instances": {
            i.name: {"instance_id": i.instance_id, "interface_id": i.network_interface_id, "private_ip": i.private_ip}
            for i in region.instances
        },
    }


def holder(region: Region, associations: dict[str, Any]) -> str | None:
    """The instance that the cloud's own record names for the address."""
    for row in associations["addresses"]:
        if row["public_ip"] == region.address(ADDRESS_NAME).public_ip and row["instance_id"]:
            return region.instance(row["instance_id"]).name
    return None


def history(region: Region, associations: dict[str, Any]) -> list[dict[str, Any]]:
    """Every change of the address as the judge reads it."""
    return [
        {
            "monotonic_s": change["at_monotonic_s"],
            "instance_id": change["instance_id"] or None,
            "node": region.instance(change["instance_id"]).name if change["instance_id"] else None,
        }
        for change in associations["history"]
        if change["public_ip"] == region.address(ADDRESS_NAME).public_ip
    ]


def api_owner(layout: Layout, region: Region) -> str | None:
    """The owner by a real DescribeAddresses call (blocking): the same question that an operator would ask."""
    ec2 = seed.ec2_client(f"http://{layout.cloud}", REGION)
    found = ec2.describe_addresses(PublicIps=[layout.address])["Addresses"][0]
    instance_id = found.get("InstanceId")
    return region.instance(instance_id).name if instance_id else None


def caller(region: Region, call: dict[str, Any]) -> str:
    """The name of the instance whose credentials made an API call."""
    for instance in region.instances:
        if instance.access_key_id == call.get("access_key_id"):
            return instance.name
    return "somebody else"


def call(region: Region, raw: dict[str, Any]) -> dict[str, Any]:
    """An API call as the judge reads it."""
    return {"monotonic_s": raw["arrived_monotonic_s"], "action": raw["action"], "node": caller(region, raw)}


def fault(region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """A person's request {mode, action, count, ms, node} in the words of the network process (see faults.Rule)."""
    if request.get("mode") == "clear":
        return {"clear": True}
    rule = {name: request[name] for name in ("mode", "action", "count") if request.get(name) is not None}
    if request.get("ms") is not None:
        rule["slow_ms"] = request["ms"]
    if request.get("node"):
        rule["access_key_id"] = region.instance(str(request["node"])).access_key_id
    return {"set": rule}


def network_spec(layout: Layout, region: Region, control: Path) -> dict[str, Any]:
    """The document that `haptk.lab.network` runs from; only balancers ask a metadata service, but every instance has one."""
    return {
        "cloud": layout.cloud,
        "api": layout.endpoint,
        "control": str(control),
        "region": region.to_dict(),
        "imds": [{"instance": i.name, "listen": f"{i.private_ip}:{IMDS_PORT}"} for i in layout.instances],
        "addresses": [{"address": ADDRESS_NAME, "ports": [PROXY_PORT]}],
    }


def believes(status: dict[str, Any] | None) -> bool | None:
    """Whether a node's heartbeat believes it holds the address; None when it does not answer or cannot tell."""
    if status is None or not status["resources"]:
        return None
    resource = status["resources"][0]
    if resource["held"]:
        return True
    return None if resource["seen"] == "unknown" else False


def node_settled(status: dict[str, Any], *, holds: bool) -> bool:
    """Whether a node is synchronised with a living peer, in no transition, healthy, and believes what is so."""
    return (
        status["stable"]
        and status["peer"]["state"] == "active"
        and status["peer"]["stable"]
        and status["check"]["state"] == "up"
        and status["peer"]["check"] in ("up", "none")
        and believes(status) is holds
    )
