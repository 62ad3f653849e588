"""What a region of the lab is to be (Plan, names and addresses only) and what it became (Region, with EC2's ids).

Every address is a loopback address, so that real processes bind them without root. Both are frozen and make a round
trip through JSON; the Region is what the supervisor hands to its processes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from haptk.errors import OperatorError

_T = TypeVar("_T", bound="Document")


class Document:
    """A frozen dataclass that is also a JSON document."""

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def to_dict(self) -> dict[str, Any]:
        """Only lists, dicts, strings and numbers, ready for `json.dumps`."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls: type[_T], data: bytes | str) -> _T:
        """Raises OperatorError that names the field that is wrong and what it has to be."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise OperatorError(what=f"not a {cls.__name__} document: {error}") from error


@dataclass(frozen=True)
class SubnetPlan:
    """A subnet: `availability_zone` is the letter after the region's name."""

    name: str
    cidr: str
    availability_zone: str


@dataclass(frozen=True)
class InstancePlan:
    """A machine with one interface: its addresses, its subnet by name and the credentials that only it has."""

    name: str
    subnet: str
    private_ip: str
    access_key_id: str
    secret_access_key: str = "lab"  # noqa: S105 (the lab's cloud checks no signature)
    secondary_ips: tuple[str, ...] = ()
    role: str = "haptk-lab"
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class AddressPlan:
    """An Elastic IP, which is exactly `public_ip`; `holder` is the instance that has it at the start, if any."""

    name: str
    public_ip: str
    holder: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Plan(Document):
    """A region to make. `check()` finds what EC2 or the loopback interface would refuse."""

    region: str
    vpc_cidr: str
    subnets: tuple[SubnetPlan, ...]
    instances: tuple[InstancePlan, ...]
    addresses: tuple[AddressPlan, ...]

    def check(self) -> None:
        """Raises OperatorError for the first thing that cannot be."""
        vpc = _network("vpc_cidr", self.vpc_cidr)
        subnets = {subnet.name: _network(f"subnet {subnet.name}", subnet.cidr) for subnet in self.subnets}
        for name, network in subnets.items():
            if not network.subnet_of(vpc):
                raise OperatorError(what=f"subnet {name}: {network} is not inside the VPC {vpc}")
        for instance in self.instances:
            if instance.subnet not in subnets:
                raise OperatorError(what=f"instance {instance.name}: no subnet is named {instance.subnet!r}")
            for text in (instance.private_ip, *instance.secondary_ips):
                if _loopback(f"instance {instance.name}", text) not in subnets[instance.subnet]:
                    raise OperatorError(what=f"instance {instance.name}: {text} is outside {subnets[instance.subnet]}")
        names = {instance.name for instance in self.instances}
        for address in self.addresses:
            _loopback(f"address {address.name}", address.public_ip)
            if address.holder is not None and address.holder not in names:
                raise OperatorError(what=f"address {address.name}: no instance is named {address.holder!r}")
        self._check_unique()

    def _check_unique(self) -> None:
        seen: dict[str, str] = {}
        taken = [(ip, one.name) for one in self.instances for ip in (one.private_ip, *one.secondary_ips)]
        taken += [(one.public_ip, one.name) for one in self.addresses]
        taken += [(one.access_key_id, one.name) for one in self.instances]
        for value, name in taken:
            if value in seen:
                raise OperatorError(what=f"{value} belongs to both {seen[value]} and {name}")
            seen[value] = name


def _network(what: str, text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise OperatorError(what=f"{what}: {text!r} is not an IPv4 network: {error}") from error
    if not network.is_loopback or not 16 <= network.prefixlen <= 28:
        raise OperatorError(what=f"{what}: {network} has to lie in 127.0.0.0/8 and be between /16 and /28")
    return network


def _loopback(what: str, text: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise OperatorError(what=f"{what}: {text!r} is not an IPv4 address") from error
    if not address.is_loopback:
        raise OperatorError(what=f"{what}: {address} is not in 127.0.0.0/8")
    return address


@dataclass(frozen=True)
class Subnet:
    name: str
    subnet_id: str
    cidr: str
    availability_zone: str


@dataclass(frozen=True)
class Instance:
    """A machine as EC2 knows it, and its credentials."""

    name: str
    instance_id: str
    network_interface_id: str
    mac: str
    private_ip: str
    secondary_ips: tuple[str, ...]
    subnet_id: str
    subnet_cidr: str
    availability_zone: str
    security_group: str
    image_id: str
    instance_type: str
    launch_time: str
    access_key_id: str
    secret_access_key: str
    role: str


@dataclass(frozen=True)
class Address:
    name: str
    public_ip: str
    allocation_id: str


@dataclass(frozen=True)
class Region(Document):
    """A region that exists in the lab's cloud."""

    region: str
    account_id: str
    vpc_id: str
    vpc_cidr: str
    subnets: tuple[Subnet, ...]
    instances: tuple[Instance, ...]
    addresses: tuple[Address, ...]

    def instance(self, name_or_id: str) -> Instance:
        """The instance of this name or instance id; raises OperatorError with those that exist."""
        for instance in self.instances:
            if name_or_id in (instance.name, instance.instance_id):
                return instance
        known = ", ".join(instance.name for instance in self.instances)
        raise OperatorError(what=f"no instance {name_or_id!r} in the lab; there are {known}")

    def interface_of(self, name_or_id: str) -> str:
        """The network interface id of an instance."""
        return self.instance(name_or_id).network_interface_id

    def address(self, name_or_ip: str) -> Address:
        """The Elastic IP of this name, address or allocation id; raises OperatorError with those that exist."""
        for address in self.addresses:
            if name_or_ip in (address.name, address.public_ip, address.allocation_id):
                return address
        known = ", ".join(address.name for address in self.addresses)
        raise OperatorError(what=f"no address {name_or_ip!r} in the lab; there are {known}")
