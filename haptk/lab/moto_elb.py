"""Corrections of moto 5.2 for load balancers. `apply()` puts them in place, once, at the first call that speaks of one.

1. A network load balancer's Elastic IPs are shown in its zones (LoadBalancerAddresses) and held by an interface of the
   load balancer; one that does not exist is AllocationIdNotFound, one that somebody holds is ResourceInUse. They are free
   again when the load balancer is deleted. moto accepts anything there and forgets it.
2. A target that was deregistered is draining until its deregistration delay is over, and is shown so. In moto it is gone.
3. A network load balancer may have one zone; moto wants two of each kind.
"""

from __future__ import annotations

from typing import Any

from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import AvailabilityZone, ELBv2Backend, FakeHealthStatus, FakeLoadBalancer, FakeTargetGroup

from haptk.io import clock

_moto: dict[tuple[type, str], Any] = {}
DELAY = "deregistration_delay.timeout_seconds"


def _allocated(backend: Any, mappings: list[dict[str, str]], own: Any = None) -> dict[str, Any]:
    """The free Elastic IP of every mapped subnet; `own` may hold some already."""
    found: dict[str, Any] = {}
    for mapping in mappings:
        wanted = mapping.get("AllocationId")
        if wanted is None:
            continue
        address = next((one for one in backend.ec2_backend.addresses if one.allocation_id == wanted), None)
        if address is None:
            raise ELBClientError("AllocationIdNotFound", f"The allocation ID '{wanted}' does not exist")
        held = own is not None and address in _held(own).values()
        if address.eni is not None and not held:
            raise ELBClientError("ResourceInUse", f"The allocation IDs are not available for use: {wanted}")
        found[mapping["SubnetId"]] = address
    return found


def _held(balancer: Any) -> dict[str, Any]:
    """Elastic IP by subnet."""
    found: dict[str, Any] = balancer.__dict__.setdefault("_elastic", {})
    return found


def _hold(backend: Any, balancer: Any, allocated: dict[str, Any]) -> None:
    for subnet_id, address in allocated.items():
        if address.eni is None:
            subnet = backend.ec2_backend.get_subnet(subnet_id)
            text = f"ELB net/{balancer.name}"
            card = backend.ec2_backend.create_network_interface(subnet, [], description=text)
            backend.ec2_backend.associate_address(eni=card, allocation_id=address.allocation_id)
        _held(balancer)[subnet_id] = address


def _create(self: Any, *arguments: Any, **named: Any) -> Any:
    allocated = _allocated(self, named.get("subnet_mappings") or [])
    balancer = _moto[ELBv2Backend, "create_load_balancer"](self, *arguments, **named)
    _hold(self, balancer, allocated)
    return balancer


def _delete(self: Any, arn: str) -> None:
    balancer = self.load_balancers.get(arn)
    for address in _held(balancer).values() if balancer is not None else ():
        card = address.eni.id
        self.ec2_backend.disassociate_address(association_id=address.association_id)
        self.ec2_backend.delete_network_interface(card)
    _moto[ELBv2Backend, "delete_load_balancer"](self, arn)


def _zones(self: Any) -> list[Any]:
    found = []
    for subnet in self.subnets:
        zone: Any = AvailabilityZone(subnet)
        address = _held(self).get(subnet.id)
        if address is not None:
            shown = {"IpAddress": address.public_ip, "AllocationId": address.allocation_id}
            zone.load_balancer_addresses = [shown]
        found.append(zone)
    return found


def _set_subnets(self: Any, arn: str, subnets: list[str], subnet_mappings: list[dict[str, Any]]) -> Any:
    balancer = self.load_balancers.get(arn)
    if balancer is None or balancer.type != "network":
        return _moto[ELBv2Backend, "set_subnets"](self, arn, subnets, subnet_mappings)
    allocated = _allocated(self, subnet_mappings, balancer)
    wanted = [*subnets, *(one["SubnetId"] for one in subnet_mappings)]
    balancer.subnets = [self.ec2_backend.get_subnet(one) for one in wanted]
    _hold(self, balancer, allocated)
    return balancer.availability_zones


def _deregister(self: Any, targets: list[dict[str, Any]]) -> None:
    _moto[FakeTargetGroup, "deregister"](self, targets)
    leaving = self.__dict__.setdefault("_leaving", {})
    for one in targets:
        leaving[one["Id"]] = clock.monotonic() + float(self.attributes.get(DELAY, 300))


def _target_health(self: Any, target_group_arn: str, targets: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = _moto[ELBv2Backend, "describe_target_health"](self, target_group_arn, targets)
    if targets:
        return found
    group, now = self.target_groups[target_group_arn], clock.monotonic()
    for identity, target in group.deregistered_targets.items():
        if group.__dict__.get("_leaving", {}).get(identity, 0.0) > now:
            why = ("Target.DeregistrationInProgress", "Target deregistration is in progress")
            found.append(FakeHealthStatus(identity, target["Port"], group.health_check_port, "draining", *why))
    return found


PATCHES: tuple[tuple[type, str, Any], ...] = (
    (ELBv2Backend, "create_load_balancer", _create),
    (ELBv2Backend, "delete_load_balancer", _delete),
    (ELBv2Backend, "set_subnets", _set_subnets),
    (ELBv2Backend, "describe_target_health", _target_health),
    (FakeLoadBalancer, "availability_zones", property(_zones)),
    (FakeTargetGroup, "deregister", _deregister),
)


def apply() -> None:
    """Put every correction in place; a second call changes nothing."""
    for owner, name, replacement in PATCHES:
        if (owner, name) not in _moto:
            _moto[owner, name] = owner.__dict__.get(name)
            setattr(owner, name, replacement)
