"""The EC2 calls that an address needs, typed: what was asked, what came back, and nothing of what to do about it."""

from __future__ import annotations

from typing import Any, NamedTuple

from haptk.aws.client import Clients
from haptk.aws.deadline import Deadline


class Address(NamedTuple):
    """One Elastic IP as DescribeAddresses shows it; None where EC2 leaves a field out (or, as some do, empty)."""

    public_ip: str
    allocation_id: str
    association_id: str | None = None
    interface: str | None = None
    instance: str | None = None
    private_ip: str | None = None
    name: str | None = None


def _address(item: dict[str, Any]) -> Address:
    tags = {tag.get("Key"): tag.get("Value") for tag in item.get("Tags", [])}
    return Address(
        public_ip=item["PublicIp"],
        allocation_id=item.get("AllocationId", ""),
        association_id=item.get("AssociationId") or None,
        interface=item.get("NetworkInterfaceId") or None,
        instance=item.get("InstanceId") or None,
        private_ip=item.get("PrivateIpAddress") or None,
        name=tags.get("Name"),
    )


class Interface(NamedTuple):
    """One network interface: its private addresses (the primary first) and the instance it is attached to."""

    interface: str
    instance: str | None
    private_ips: tuple[str, ...]


class Instance(NamedTuple):
    """One instance: its state in EC2's word and its interfaces, the primary one first."""

    instance: str
    state: str
    interfaces: tuple[str, ...]
    name: str | None = None


class Ec2:
    """EC2 through warm clients. Every method raises the AwsError of what failed; thread-safe."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients

    def _call(self, operation: str, target: str, deadline: Deadline, **parameters: Any) -> dict[str, Any]:
        return self.clients.call("ec2", operation, target, deadline.left(), **parameters)

    def addresses(
        self,
        deadline: Deadline,
        *,
        public_ip: str | None = None,
        allocation_id: str | None = None,
        tag: tuple[str, str] | None = None,
        interface: str | None = None,
    ) -> list[Address]:
        """The Elastic IPs that fit; all of the region's without a condition. Raises AwsNotFound for a named one."""
        chosen: dict[str, Any] = {}
        target = "every address"
        if public_ip:
            chosen, target = {"PublicIps": [public_ip]}, public_ip
        elif allocation_id:
            chosen, target = {"AllocationIds": [allocation_id]}, allocation_id
        elif tag:
            chosen, target = {"Filters": [{"Name": f"tag:{tag[0]}", "Values": [tag[1]]}]}, f"tag:{tag[0]}={tag[1]}"
        elif interface:
            chosen, target = {"Filters": [{"Name": "network-interface-id", "Values": [interface]}]}, interface
        answer = self._call("DescribeAddresses", target, deadline, **chosen)
        return [_address(item) for item in answer.get("Addresses", [])]

    def associate(self, allocation_id: str, interface: str, private_ip: str | None, deadline: Deadline) -> str:
        """AssociateAddress in its one safe form: by interface, reassociation said outright. Returns the association id."""
        pinned = {"PrivateIpAddress": private_ip} if private_ip else {}
        answer = self._call(
            "AssociateAddress",
            f"{allocation_id} to {interface}",
            deadline,
            AllocationId=allocation_id,
            NetworkInterfaceId=interface,
            AllowReassociation=True,
            **pinned,
        )
        return str(answer.get("AssociationId", ""))

    def disassociate(self, association_id: str, deadline: Deadline) -> None:
        """DisassociateAddress by the association that was seen; AwsNotFound means that it is gone already."""
        self._call("DisassociateAddress", association_id, deadline, AssociationId=association_id)

    def interfaces(
        self,
        deadline: Deadline,
        *,
        private_ip: str | None = None,
        instance: str | None = None,
        interface: str | None = None,
    ) -> list[Interface]:
        """The interfaces that have this private address, or belong to this instance, or the one of this id."""
        chosen: dict[str, Any] = {}
        filters = []
        if private_ip:
            filters.append({"Name": "addresses.private-ip-address", "Values": [private_ip]})
        if instance:
            filters.append({"Name": "attachment.instance-id", "Values": [instance]})
        if filters:
            chosen["Filters"] = filters
        if interface:
            chosen["NetworkInterfaceIds"] = [interface]
        target = interface or instance or private_ip or "every interface"
        answer = self._call("DescribeNetworkInterfaces", target, deadline, **chosen)
        return [_interface(item) for item in answer.get("NetworkInterfaces", [])]

    def instances(self, deadline: Deadline, *, name: str | None = None, instance: str | None = None) -> list[Instance]:
        """The running or stopped instances of this Name tag, or the one of this id."""
        if instance is not None:
            answer = self._call("DescribeInstances", instance, deadline, InstanceIds=[instance])
        else:
            filters = [
                {"Name": "tag:Name", "Values": [name]},
                {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
            ]
            answer = self._call("DescribeInstances", f"Name={name}", deadline, Filters=filters)
        return [_instance(item) for group in answer.get("Reservations", []) for item in group.get("Instances", [])]

    def stop_instance(self, instance: str, deadline: Deadline, *, force: bool = False) -> str:
        """StopInstances on one instance; returns the state that EC2 answers (`stopping`, `stopped`)."""
        answer = self._call("StopInstances", instance, deadline, InstanceIds=[instance], Force=force)
        changed = answer.get("StoppingInstances", [])
        return str(changed[0]["CurrentState"]["Name"]) if changed else "unknown"

    def assign_private_ip(self, interface: str, private_ip: str, deadline: Deadline) -> None:
        """AssignPrivateIpAddresses with reassignment allowed: one call moves a secondary private address."""
        self._call(
            "AssignPrivateIpAddresses",
            f"{private_ip} to {interface}",
            deadline,
            NetworkInterfaceId=interface,
            PrivateIpAddresses=[private_ip],
            AllowReassignment=True,
        )

    def unassign_private_ip(self, interface: str, private_ip: str, deadline: Deadline) -> None:
        """UnassignPrivateIpAddresses: takes it from this interface only, so it cannot hit another holder."""
        self._call(
            "UnassignPrivateIpAddresses",
            f"{private_ip} from {interface}",
            deadline,
            NetworkInterfaceId=interface,
            PrivateIpAddresses=[private_ip],
        )

    def route(self, table: str, destination: str, deadline: Deadline) -> dict[str, Any] | None:
        """The route of this table to exactly this destination, as EC2 describes it; None when there is none."""
        answer = self._call("DescribeRouteTables", table, deadline, RouteTableIds=[table])
        for found in answer.get("RouteTables", []):
            for route in found.get("Routes", []):
                if route.get("DestinationCidrBlock") == destination:
                    return dict(route)
        return None

    def replace_route(self, table: str, destination: str, interface: str, deadline: Deadline) -> None:
        """ReplaceRoute: points an existing route at this interface."""
        self._call(
            "ReplaceRoute",
            f"{destination} in {table} to {interface}",
            deadline,
            RouteTableId=table,
            DestinationCidrBlock=destination,
            NetworkInterfaceId=interface,
        )

    def create_route(self, table: str, destination: str, interface: str, deadline: Deadline) -> None:
        """CreateRoute for the first start; fails when the route exists, so it takes nothing from anybody."""
        self._call(
            "CreateRoute",
            f"{destination} in {table} to {interface}",
            deadline,
            RouteTableId=table,
            DestinationCidrBlock=destination,
            NetworkInterfaceId=interface,
        )


def _instance(item: dict[str, Any]) -> Instance:
    listed = sorted(item.get("NetworkInterfaces", []), key=lambda one: one.get("Attachment", {}).get("DeviceIndex", 99))
    tags = {tag.get("Key"): tag.get("Value") for tag in item.get("Tags", [])}
    return Instance(
        instance=item["InstanceId"],
        state=item.get("State", {}).get("Name", "unknown"),
        interfaces=tuple(one["NetworkInterfaceId"] for one in listed),
        name=tags.get("Name"),
    )


def _interface(item: dict[str, Any]) -> Interface:
    private = sorted(item.get("PrivateIpAddresses", []), key=lambda entry: not entry.get("Primary", False))
    return Interface(
        interface=item["NetworkInterfaceId"],
        instance=item.get("Attachment", {}).get("InstanceId") or None,
        private_ips=tuple(entry["PrivateIpAddress"] for entry in private),
    )
