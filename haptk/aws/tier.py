"""What EC2 knows of a tier by its tags: balancers, servers and addresses, as plain values.

Tags: `haptk:cluster` = name of the tier, on instances and addresses; `haptk:role` = balancer or server, on instances;
`Name`; and, on addresses, `haptk:active` and `haptk:standby` (names, blanks between), which default to whoever holds the
address now and, of two balancers, the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from haptk.errors import AwsNotFound

TAG, ROLE, ACTIVE, STANDBY = "haptk:cluster", "haptk:role", "haptk:active", "haptk:standby"
PATIENCE_S = 20.0
LIVING = ("pending", "running", "stopping", "stopped")


class Caller(Protocol):
    """What is needed of Clients."""

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call."""


@dataclass(frozen=True)
class Machine:
    """An instance of the tier."""

    name: str
    role: str
    instance: str
    interface: str
    private_ip: str
    zone: str


@dataclass(frozen=True)
class ElasticIp:
    """An address of the tier; `active` is "" when neither a tag nor an association says who holds it."""

    name: str
    public_ip: str
    allocation: str
    active: str
    standby: tuple[str, ...]


@dataclass(frozen=True)
class Tier:
    """Everything with the tag, in the order of names."""

    balancers: tuple[Machine, ...]
    servers: tuple[Machine, ...]
    addresses: tuple[ElasticIp, ...]


def read(name: str, clients: Caller) -> Tier:
    """The tier of this name. AwsNotFound when nothing has its tag, else the AwsError of the call."""
    chosen = [{"Name": f"tag:{TAG}", "Values": [name]}]
    machines = sorted((_machine(one) for one in _instances(chosen, clients)), key=lambda one: one.name)
    answer = clients.call("ec2", "DescribeAddresses", f"addresses of {name}", PATIENCE_S, Filters=chosen)
    balancers = tuple(one for one in machines if one.role == "balancer")
    addresses = tuple(sorted((_address(one, balancers) for one in answer["Addresses"]), key=lambda one: one.name))
    if not machines and not addresses:
        why = f"no instance and no address has the tag {TAG}={name}"
        raise AwsNotFound(action="ec2:DescribeInstances", target=f"tier {name}", why=why)
    return Tier(balancers, tuple(one for one in machines if one.role == "server"), addresses)


def _instances(chosen: list[dict[str, Any]], clients: Caller) -> Iterator[dict[str, Any]]:
    more: dict[str, str] = {}
    while True:
        page = clients.call("ec2", "DescribeInstances", "instances", PATIENCE_S, Filters=chosen, **more)
        for reservation in page["Reservations"]:
            yield from (one for one in reservation["Instances"] if one["State"]["Name"] in LIVING)
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _tags(one: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}


def _machine(one: dict[str, Any]) -> Machine:
    tags = _tags(one)
    primary: dict[str, Any] = next(
        (card for card in one.get("NetworkInterfaces", ()) if card["Attachment"]["DeviceIndex"] == 0), {}
    )
    return Machine(
        name=tags.get("Name", one["InstanceId"]).lower(),
        role=tags.get(ROLE, ""),
        instance=one["InstanceId"],
        interface=primary.get("NetworkInterfaceId", ""),
        private_ip=one.get("PrivateIpAddress", ""),
        zone=one["Placement"]["AvailabilityZone"],
    )


def _address(one: dict[str, Any], balancers: tuple[Machine, ...]) -> ElasticIp:
    tags = _tags(one)
    holder = next((node.name for node in balancers if node.interface == one.get("NetworkInterfaceId")), "")
    active = tags.get(ACTIVE, holder)
    standby = tuple(tags.get(STANDBY, "").split())
    if not standby and active and len(balancers) == 2:
        standby = tuple(node.name for node in balancers if node.name != active)
    name = tags.get("Name", one["PublicIp"].replace(".", "-"))
    return ElasticIp(name, one["PublicIp"], one["AllocationId"], active, standby)
