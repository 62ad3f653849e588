"""The kinds of address behind one core: how each is seen, taken and released, one API call each.

A kind only translates between the core's words (Sighting, Target, handle) and EC2's. Every method may raise the
AwsError of its call.
"""

from __future__ import annotations

from typing import Protocol

from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Address, Ec2
from haptk.aws.imds import Imds
from haptk.core.vip import Holder, Metadata, Sighting, Target
from haptk.eip.memory import Memory
from haptk.eip.placement import Placement
from haptk.eip.spec import ById, ByIp, ByTag, PrivateIp, Route, Spec
from haptk.errors import AwsConflict, AwsNotFound, OperatorError


class Kind(Protocol):
    """What an agent needs of a kind of address."""

    @property
    def label(self) -> str:
        """How a person knows the address."""

    def ready(self) -> bool:
        """Whether a take needs no question before it."""

    def can_take_blind(self) -> bool:
        """Whether a take is possible although the API would not say who holds it."""

    def metadata(self, imds: Imds, mac: str, target: Target) -> Metadata:
        """What the metadata of this interface says; raises ImdsError."""

    def observe(self, deadline: Deadline) -> Sighting:
        """Ask the API who holds it."""

    def place(self, imds: Imds | None, mac: str | None, target: Target, directory: str, deadline: Deadline) -> Target:
        """The target with the private address that it is to be put on; raises AwsConflict when there is no room."""

    def take(self, target: Target, deadline: Deadline) -> Sighting:
        """Send the one call that moves it here; the answer is what is known afterwards."""

    def forget_place(self, target: Target, directory: str) -> None:
        """The address was let go: whatever place it had is free."""

    def release(self, handle: str, target: Target, deadline: Deadline) -> None:
        """Release exactly the holding of this handle; AwsNotFound means that it is gone already."""


class ElasticIp:
    """An Elastic IP: associated with one private address of one interface, or with nothing."""

    def __init__(self, spec: ByIp | ById | ByTag, ec2: Ec2, memory: Memory) -> None:
        self._spec = spec
        self._ec2 = ec2
        self._memory = memory
        self._key = _key_of(spec)
        # A tag may be moved to another address, so only ids and addresses are believed from one run to the next.
        self._known = None if isinstance(spec, ByTag) else memory.elastic(self._key)
        self._asked = False

    @property
    def label(self) -> str:
        if isinstance(self._spec, ByIp):
            return self._spec.public_ip
        return f"{self._key} ({self._known[0]})" if self._known else self._key

    def ready(self) -> bool:
        # What the disk remembers saves no question for a cold start: it wants to know the holder anyway.
        return self._asked and not isinstance(self._spec, ByTag)

    def can_take_blind(self) -> bool:
        """Whether the allocation is known by id although the API would not tell."""
        return self._known is not None or isinstance(self._spec, ById)

    def metadata(self, imds: Imds, mac: str, target: Target) -> Metadata:
        public_ip = self._spec.public_ip if isinstance(self._spec, ByIp) else self._known[0] if self._known else None
        if public_ip is None or isinstance(self._spec, ByTag):
            return Metadata.SILENT
        private = imds.associated(mac, public_ip)
        held = bool(private) and (target.private_ip is None or target.private_ip in private)
        return Metadata.HELD if held else Metadata.ABSENT

    def describe(self, deadline: Deadline) -> Address:
        """The address as EC2 shows it; raises AwsNotFound, or OperatorError when a tag is not unique."""
        match self._spec:
            case ByIp(public_ip=public_ip):
                found = self._ec2.addresses(deadline, public_ip=public_ip)
            case ById(allocation_id=allocation_id):
                found = self._ec2.addresses(deadline, allocation_id=allocation_id)
            case ByTag(key=key, value=value):
                found = self._ec2.addresses(deadline, tag=(key, value))
        if not found:
            raise AwsNotFound(action="ec2:DescribeAddresses", target=self._key, why="no such address in this region")
        if len(found) > 1:
            names = ", ".join(sorted(address.public_ip for address in found))
            raise OperatorError(what=f"{self._key} names {len(found)} addresses ({names}): name one of them")
        self._known = (found[0].public_ip, found[0].allocation_id)
        self._asked = True
        if not isinstance(self._spec, ByTag):
            self._memory.remember_elastic(self._key, *self._known)
        return found[0]

    def observe(self, deadline: Deadline) -> Sighting:
        try:
            return sighting_of(self.describe(deadline))
        except AwsNotFound:
            self._known, self._asked = None, False
            self._memory.forget_elastic(self._key)
            raise

    def place(self, imds: Imds | None, mac: str | None, target: Target, directory: str, deadline: Deadline) -> Target:
        if self._known is None:
            return target
        placement = Placement(directory, target.interfaces[0], self._ec2)
        return target._replace(private_ip=placement.choose(imds, mac, self._known[0], target.private_ip, deadline))

    def forget_place(self, target: Target, directory: str) -> None:
        """The address was let go: its place on the interface is free."""
        if self._known is not None:
            Placement(directory, target.interfaces[0], self._ec2).forget(self._known[0])

    def take(self, target: Target, deadline: Deadline) -> Sighting:
        allocation_id = self._known[1] if self._known else self._key
        interface = target.interfaces[0]
        handle = self._ec2.associate(allocation_id, interface, target.private_ip, deadline)
        return Sighting(Holder(interface, target.instance, target.private_ip), handle or None)

    def release(self, handle: str, target: Target, deadline: Deadline) -> None:
        self._ec2.disassociate(handle, deadline)


def _key_of(spec: ByIp | ById | ByTag) -> str:
    match spec:
        case ByIp(public_ip=public_ip):
            return public_ip
        case ById(allocation_id=allocation_id):
            return allocation_id
        case ByTag(key=key, value=value):
            return f"tag:{key}={value}"


def sighting_of(address: Address) -> Sighting:
    """Who holds an Elastic IP, as the core says it. An address without an association id is held by nobody."""
    if address.association_id is None:
        return Sighting()
    return Sighting(Holder(address.interface, address.instance, address.private_ip), address.association_id)


class SecondaryPrivateIp:
    """A secondary private address. EC2 moves it between interfaces of one subnet; the system must have it on its link."""

    def __init__(self, spec: PrivateIp, ec2: Ec2) -> None:
        self._ip = spec.private_ip
        self._ec2 = ec2
        self.label = f"private:{self._ip}"
        self._asked = False

    def ready(self) -> bool:
        return self._asked

    def can_take_blind(self) -> bool:
        return True

    def metadata(self, imds: Imds, mac: str, target: Target) -> Metadata:
        return Metadata.HELD if self._ip in imds.private_ips(mac) else Metadata.ABSENT

    def observe(self, deadline: Deadline) -> Sighting:
        found = self._ec2.interfaces(deadline, private_ip=self._ip)
        self._asked = True
        if len(found) > 1:
            names = ", ".join(sorted(one.interface for one in found))
            raise OperatorError(
                what=f"{self._ip} is on several interfaces of this account ({names}), in several networks"
            )
        if not found:
            return Sighting()
        if found[0].private_ips[:1] == (self._ip,):
            raise OperatorError(
                what=f"{self._ip} is the primary address of {found[0].interface}: only a secondary one moves"
            )
        return Sighting(Holder(found[0].interface, found[0].instance, self._ip), found[0].interface)

    def place(self, imds: Imds | None, mac: str | None, target: Target, directory: str, deadline: Deadline) -> Target:
        return target

    def forget_place(self, target: Target, directory: str) -> None:
        return None

    def take(self, target: Target, deadline: Deadline) -> Sighting:
        interface = target.interfaces[0]
        self._ec2.assign_private_ip(interface, self._ip, deadline)
        return Sighting(Holder(interface, target.instance, self._ip), interface)

    def release(self, handle: str, target: Target, deadline: Deadline) -> None:
        # The handle is our interface: unassigning from it is a compare-and-delete by itself.
        self._ec2.unassign_private_ip(handle, self._ip, deadline)


class RouteEntry:
    """A route to one destination that points at the holder's interface.

    EC2 has no conditional delete for a route, so a release leaves it where it is (a delete could hit the new holder's
    route) and says so; the next holder's start replaces it in one call.
    """

    def __init__(self, spec: Route, ec2: Ec2) -> None:
        self._spec = spec
        self._ec2 = ec2
        self.label = f"route:{spec.table}/{spec.destination}"
        self._exists = True

    def ready(self) -> bool:
        return False

    def can_take_blind(self) -> bool:
        return True

    def metadata(self, imds: Imds, mac: str, target: Target) -> Metadata:
        return Metadata.SILENT

    def observe(self, deadline: Deadline) -> Sighting:
        route = self._ec2.route(self._spec.table, self._spec.destination, deadline)
        self._exists = route is not None
        if route is None or not (route.get("NetworkInterfaceId") or route.get("InstanceId")):
            return Sighting()
        return Sighting(Holder(route.get("NetworkInterfaceId") or None, route.get("InstanceId") or None))

    def place(self, imds: Imds | None, mac: str | None, target: Target, directory: str, deadline: Deadline) -> Target:
        return target

    def forget_place(self, target: Target, directory: str) -> None:
        return None

    def take(self, target: Target, deadline: Deadline) -> Sighting:
        interface = target.interfaces[0]
        change = self._ec2.replace_route if self._exists else self._ec2.create_route
        change(self._spec.table, self._spec.destination, interface, deadline)
        return Sighting(Holder(interface, target.instance))

    def release(self, handle: str, target: Target, deadline: Deadline) -> None:
        raise AwsConflict(
            action="ec2:DeleteRoute", target=self.label, why="EC2 cannot delete a route only if it is still ours"
        )


def kind_of(spec: Spec, ec2: Ec2, memory: Memory) -> ElasticIp | SecondaryPrivateIp | RouteEntry:
    """The kind that a spec names."""
    match spec:
        case PrivateIp():
            return SecondaryPrivateIp(spec, ec2)
        case Route():
            return RouteEntry(spec, ec2)
        case _:
            return ElasticIp(spec, ec2, memory)
