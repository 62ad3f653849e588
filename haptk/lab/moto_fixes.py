"""Makes moto's Elastic IPs behave like EC2's. `apply()` replaces parts of moto 5.2, before its first request.

moto stores one fact in four places (the address knows an instance and an interface, the interface knows a public
address, its list of private addresses knows nothing) and they part company. Here the fact has one place: an address
is associated with (interface, private address); all else is derived from that. The nine corrections:

1. reassociation is automatic unless AllowReassociation=false, and then the refusal is Resource.AlreadyAssociated;
2. the interface that lost an address does not show it any more;
3. PrivateIpAddress is obeyed, and refused when it is not an address of the interface;
4. the instance of an interface is shown as the holder;
5. a free address shows no instance and no interface at all, not empty strings;
6. terminating an instance frees the addresses of the interfaces that die with it;
7. associating again with the same private address changes nothing, not even the association id;
8. InstanceId alone is refused for an instance with several interfaces;
9. an address that was on the target's private address is displaced: a private address has one public address.

And DescribeAddresses' filters follow EC2 (OR inside one, AND between them, `*` and `?`, an unknown name is an error).
"""

from __future__ import annotations

import copy
import re
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.utils import add_tag_specification, generate_dns_from_ip, random_eip_association_id

from haptk.lab.ledger import Ledger, Row

FILTERS = {
    "allocation-id": "allocation_id",
    "association-id": "association_id",
    "domain": "domain",
    "instance-id": "instance_id",
    "network-border-group": "network_border_group",
    "network-interface-id": "network_interface_id",
    "network-interface-owner-id": "network_interface_owner_id",
    "private-ip-address": "private_ip_address",
    "public-ip": "public_ip",
}
ASSOCIATION_FILTERS = {
    "addresses.association.public-ip": "public_ip",
    "association.allocation-id": "allocation_id",
    "association.association-id": "association_id",
    "association.public-ip": "public_ip",
}


_moto: dict[tuple[type, str], Any] = {}  # what was there before, for the corrections that only add something


def _rows() -> list[Row]:
    return [
        {
            "region": region,
            "public_ip": address.public_ip,
            "allocation_id": address.allocation_id,
            "association_id": address.association_id,
            "network_interface_id": address.network_interface_id,
            "instance_id": address.instance_id,
            "private_ip": address.private_ip_address,
        }
        for account in list(ec2_backends.values())
        for region, backend in list(account.items())
        for address in list(backend.addresses)
    ]


ledger = Ledger(_rows)
_new_address: Any = ElasticAddress  # abstract to a type checker: parts of its CloudFormation side are missing

# ---- what an address shows -------------------------------------------------------------------------------------------


def _instance(address: Any) -> Any:
    return address.eni.instance if address.eni else None


def _ignore(_address: Any, _value: object) -> None:
    """moto assigns `instance` itself; ours is derived."""


def _instance_id(address: Any) -> str | None:
    instance = _instance(address)
    return instance.id if instance else None


def _network_interface_id(address: Any) -> str | None:
    return address.eni.id if address.eni else None


def _private_ip_address(address: Any) -> str | None:
    return address.held_private_ip if address.eni else None


def _network_border_group(address: Any) -> str:
    return str(address.ec2_backend.region_name)


# ---- what an interface and an instance show --------------------------------------------------------------------------


def _address_at(interface: Any, private_ip: str | None) -> Any:
    """The Elastic IP on this private address of this interface, or None."""
    for address in interface.ec2_backend.addresses:
        if address.eni is interface and address.held_private_ip == private_ip:
            return address
    return None


def _addresses_on(interface: Any) -> list[Any]:
    return [address for address in interface.ec2_backend.addresses if address.eni is interface]


def _public_ip(interface: Any) -> str | None:
    elastic = _address_at(interface, interface.private_ip_address)
    shown: str | None = elastic.public_ip if elastic else interface.__dict__.get("_automatic_public_ip")
    return shown


def _set_public_ip(interface: Any, value: str | None) -> None:
    """moto sets this only for the automatic public address of a subnet; an Elastic IP shows through `_public_ip`."""
    interface.__dict__["_automatic_public_ip"] = value


def _association(interface: Any, private_ip: str | None) -> dict[str, Any]:
    elastic = _address_at(interface, private_ip)
    if elastic:
        return {
            "AllocationId": elastic.allocation_id,
            "AssociationId": elastic.association_id,
            "IpOwnerId": interface.ec2_backend.account_id,
            "PublicDnsName": generate_dns_from_ip(elastic.public_ip),
            "PublicIp": elastic.public_ip,
        }
    automatic = interface.__dict__.get("_automatic_public_ip")
    if automatic and private_ip == interface.private_ip_address:
        return {"IpOwnerId": "amazon", "PublicDnsName": generate_dns_from_ip(automatic), "PublicIp": automatic}
    return {}


def _primary_association(interface: Any) -> dict[str, Any]:
    return _association(interface, interface.private_ip_address)


def _instance_private_ips(interface: Any) -> list[dict[str, Any]]:
    """The PrivateIpAddresses of DescribeInstances, each with its own association."""
    shown = []
    for known in interface.private_ip_addresses:
        private_ip = known.get("PrivateIpAddress")
        item = {"PrivateIpAddress": private_ip, "Primary": private_ip == interface.private_ip_address}
        association = _association(interface, private_ip)
        shown.append(item | ({"Association": association} if association else {}))
    return shown


def _mark(interface: Any) -> None:
    """Write the associations into the list that DescribeNetworkInterfaces shows as it is."""
    for item in interface.private_ip_addresses:
        item.pop("Association", None)
        association = _association(interface, item.get("PrivateIpAddress"))
        if association:
            item["Association"] = association


def _interface_filter(interface: Any, name: str, method_name: str | None = None) -> Any:
    """DescribeNetworkInterfaces: all private addresses count, not the primary alone, and associations can be asked."""
    if name in ("private-ip-address", "addresses.private-ip-address"):
        return [item.get("PrivateIpAddress") for item in interface.private_ip_addresses]
    if name in ASSOCIATION_FILTERS:
        return [getattr(address, ASSOCIATION_FILTERS[name]) for address in _addresses_on(interface)]
    return _moto[NetworkInterface, "get_filter_value"](interface, name, method_name)


def _instance_interfaces(instance: Any) -> list[Any]:
    return [] if instance._state.name == "terminated" else list(instance.nics.values())


# ---- the calls on addresses ------------------------------------------------------------------------------------------


def _find(backend: Any, public_ip: str | None, allocation_id: str | None) -> Any:
    for address in backend.addresses:
        if allocation_id is not None and address.allocation_id == allocation_id:
            return address
        if allocation_id is None and address.public_ip == public_ip:
            return address
    if allocation_id is not None:
        raise EC2ClientError("InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist")
    raise EC2ClientError("AuthFailure", f"The address '{public_ip}' does not belong to you.")


def _only_interface(instance: Any) -> Any:
    if instance._state.name not in ("running", "stopping", "stopped"):
        raise EC2ClientError(
            "InvalidInstanceID",
            f"The {instance._state.name} instance '{instance.id}' is not in a valid state for this operation.",
        )
    if len(instance.nics) != 1:
        raise EC2ClientError(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance.id}'. "
            "Please specify an interface ID for the operation instead.",
        )
    return next(iter(instance.nics.values()))


def _refuse_taken(address: Any) -> None:
    raise EC2ClientError(
        "Resource.AlreadyAssociated",
        f"resource {address.allocation_id} is already associated with associate-id {address.association_id}",
    )


def _free(address: Any) -> None:
    """End the association of `address`, if it has one; a running interface gets its automatic address back."""
    interface = address.eni
    address.eni = None
    address.held_private_ip = None
    address.association_id = None
    if interface is not None:
        if interface.instance and interface.instance._state.name == "running" and not interface.public_ip:
            interface.check_auto_public_ip()
        _mark(interface)


def _associate(
    backend: Any,
    instance: Any = None,
    eni: Any = None,
    address: str | None = None,
    allocation_id: str | None = None,
    reassociate: bool = False,
    private_ip: str | None = None,
) -> Any:
    with ledger.changing():
        found = _find(backend, address, allocation_id)
        target = eni if eni is not None else _only_interface(instance)
        wanted = private_ip or target.private_ip_address
        if wanted not in [item.get("PrivateIpAddress") for item in target.private_ip_addresses]:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"The private IP address '{wanted}' is not assigned to network interface '{target.id}'.",
            )
        if found.eni is target and found.held_private_ip == wanted:
            return found
        displaced = _address_at(target, wanted)
        if not reassociate and (found.eni is not None or displaced is not None):
            _refuse_taken(found if found.eni is not None else displaced)
        if displaced is not None:
            _free(displaced)
        _free(found)
        if wanted == target.private_ip_address:
            target.public_ip = None
        found.eni, found.held_private_ip = target, wanted
        found.association_id = random_eip_association_id()
        _mark(target)
        return found


def _disassociate(backend: Any, address: str | None = None, association_id: str | None = None) -> None:
    with ledger.changing():
        if association_id is None:
            _free(_find(backend, address, None))
            return
        for found in backend.addresses:
            if found.association_id == association_id:
                _free(found)
                return
        raise EC2ClientError("InvalidAssociationID.NotFound", f"The association ID '{association_id}' does not exist")


def _release(backend: Any, address: str | None = None, allocation_id: str | None = None) -> None:
    with ledger.changing():
        found = _find(backend, address, allocation_id)
        if found.eni is not None:
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {found.public_ip} is in use.")
        backend.addresses.remove(found)


def _allocate(backend: Any, domain: str, address: str | None = None, tags: dict[str, str] | None = None) -> Any:
    with ledger.changing():
        if address and any(known.public_ip == address for known in backend.addresses):
            raise EC2ClientError("InvalidAddress.NotFound", f"Address '{address}' is not available to be recovered.")
        made = _new_address(backend, domain="vpc", address=address, tags=tags)
        made.held_private_ip = None
        backend.addresses.append(made)
        return made


def _matches(address: Any, name: str, patterns: list[str]) -> bool:
    if name.startswith("tag:"):
        values = [tag["value"] for tag in address.get_tags() if tag["key"] == name[4:]]
    elif name in ("tag-key", "tag-value"):
        values = [tag[name[4:]] for tag in address.get_tags()]
    elif name in FILTERS:
        values = [getattr(address, FILTERS[name])]
    else:
        raise EC2ClientError("InvalidParameterValue", f"The filter '{name}' is invalid")
    for pattern in patterns:
        rule = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
        if any(value is not None and rule.fullmatch(value) for value in values):
            return True
    return False


def _describe(
    backend: Any,
    allocation_ids: list[str] | None = None,
    public_ips: list[str] | None = None,
    filters: dict[str, list[str]] | None = None,
) -> list[Any]:
    with ledger.changing():
        found = list(backend.addresses)
        for wanted in allocation_ids or []:
            if all(address.allocation_id != wanted for address in found):
                raise EC2ClientError("InvalidAllocationID.NotFound", f"The allocation ID '{wanted}' does not exist")
        for wanted in public_ips or []:
            if all(address.public_ip != wanted for address in found):
                raise EC2ClientError("InvalidAddress.NotFound", f"Address '{wanted}' not found.")
        if allocation_ids:
            found = [address for address in found if address.allocation_id in allocation_ids]
        if public_ips:
            found = [address for address in found if address.public_ip in public_ips]
        for name, patterns in (filters or {}).items():
            found = [address for address in found if _matches(address, name, patterns)]
        return found


# ---- the calls on interfaces and instances that end associations ---------------------------------------------------


def _delete_interface(backend: Any, eni_id: str) -> None:
    with ledger.changing():
        interface = backend.get_network_interface(eni_id)
        _moto[NetworkInterfaceBackend, "delete_network_interface"](backend, eni_id)
        for address in _addresses_on(interface):
            _free(address)


def _unassign_private(backend: Any, eni_id: str, private_ip_address: list[str] | None = None) -> Any:
    """EC2: an Elastic IP of a secondary private address that is unassigned is disassociated."""
    with ledger.changing():
        interface = _moto[NetworkInterfaceBackend, "unassign_private_ip_addresses"](backend, eni_id, private_ip_address)
        left = [item.get("PrivateIpAddress") for item in interface.private_ip_addresses]
        for address in _addresses_on(interface):
            if address.held_private_ip not in left:
                _free(address)
        return interface


def _attach(backend: Any, eni_id: str, instance_id: str, device_index: int) -> Any:
    with ledger.changing():
        return _moto[NetworkInterfaceBackend, "attach_network_interface"](backend, eni_id, instance_id, device_index)


def _detach(backend: Any, attachment_id: str) -> None:
    """The address stays with the interface; only its instance goes."""
    with ledger.changing():
        _moto[NetworkInterfaceBackend, "detach_network_interface"](backend, attachment_id)


def _prep_nics(instance: Any, nic_spec: list[dict[str, Any]], *args: Any, **kwargs: Any) -> None:
    """EC2: an interface that RunInstances makes dies with the instance unless DeleteOnTermination=false is said."""
    given = {int(nic["DeviceIndex"]): dict(nic) for nic in nic_spec}
    _moto[Instance, "prep_nics"](instance, nic_spec, *args, **kwargs)
    for index, interface in instance.nics.items():
        said = given.get(index, {})
        if not said.get("NetworkInterfaceId"):
            interface.delete_on_termination = said.get("DeleteOnTermination") is not False


def _terminate(instance: Any) -> Any:
    with ledger.changing():
        if instance._state.name == "terminated":
            return copy.copy(instance._state)
        previous = _moto[Instance, "terminate"](instance)
        for interface in instance.nics.values():
            if not interface.delete_on_termination:
                interface.instance, interface.attachment_id, interface.attach_time = None, None, None
                interface.status = "available"
        return previous


# ---- the two requests whose parameters or answers change ---------------------------------------------------------


def _associate_request(self: Any) -> ActionResult:
    given = self._get_params()
    by_instance, by_interface = "InstanceId" in given, "NetworkInterfaceId" in given
    by_ip, by_id = "PublicIp" in given, "AllocationId" in given
    if by_instance == by_interface:
        code = "InvalidParameterCombination" if by_instance else "MissingParameter"
        raise EC2ClientError(code, "Either an instance ID or a network interface ID must be specified, but not both")
    if by_ip == by_id:
        code = "InvalidParameterCombination" if by_ip else "MissingParameter"
        raise EC2ClientError(code, "You may specify public IP or allocation id, but not both in the same call")
    self.error_on_dryrun()
    instance = self.ec2_backend.get_instance(given["InstanceId"]) if by_instance else None
    interface = self.ec2_backend.get_network_interface(given["NetworkInterfaceId"]) if by_interface else None
    address = self.ec2_backend.associate_address(
        instance=instance,
        eni=interface,
        address=given.get("PublicIp"),
        allocation_id=given.get("AllocationId"),
        reassociate=self._get_param("AllowReassociation", True),
        private_ip=given.get("PrivateIpAddress"),
    )
    return ActionResult({"AssociationId": address.association_id})


def _allocate_request(self: Any) -> ActionResult:
    tags = add_tag_specification(self._get_param("TagSpecifications", []))
    self.error_on_dryrun()
    address = self.ec2_backend.allocate_address("vpc", address=self._get_param("Address"), tags=tags)
    return ActionResult(
        {
            "AllocationId": address.allocation_id,
            "Domain": address.domain,
            "NetworkBorderGroup": address.network_border_group,
            "PublicIp": address.public_ip,
            "PublicIpv4Pool": address.public_ipv4_pool,
        }
    )


PATCHES: tuple[tuple[type, str, Any], ...] = (
    (ElasticAddress, "instance", property(_instance, _ignore)),
    (ElasticAddress, "instance_id", property(_instance_id)),
    (ElasticAddress, "network_interface_id", property(_network_interface_id)),
    (ElasticAddress, "private_ip_address", property(_private_ip_address)),
    (ElasticAddress, "network_border_group", property(_network_border_group)),
    (ElasticAddress, "public_ipv4_pool", "amazon"),
    (ElasticAddressBackend, "allocate_address", _allocate),
    (ElasticAddressBackend, "associate_address", _associate),
    (ElasticAddressBackend, "disassociate_address", _disassociate),
    (ElasticAddressBackend, "release_address", _release),
    (ElasticAddressBackend, "describe_addresses", _describe),
    (ElasticIPAddresses, "associate_address", _associate_request),
    (ElasticIPAddresses, "allocate_address", _allocate_request),
    (NetworkInterface, "public_ip", property(_public_ip, _set_public_ip)),
    (NetworkInterface, "association", property(_primary_association)),
    (NetworkInterface, "get_filter_value", _interface_filter),
    (NetworkInterface, "instance_private_ip_address_list", property(_instance_private_ips)),
    (NetworkInterfaceBackend, "delete_network_interface", _delete_interface),
    (NetworkInterfaceBackend, "unassign_private_ip_addresses", _unassign_private),
    (NetworkInterfaceBackend, "attach_network_interface", _attach),
    (NetworkInterfaceBackend, "detach_network_interface", _detach),
    (Instance, "prep_nics", _prep_nics),
    (Instance, "terminate", _terminate),
    (Instance, "network_interfaces", property(_instance_interfaces)),
)


def apply() -> Ledger:
    """Put every correction in place (once; a second call changes nothing) and return the ledger of associations."""
    for owner, name, replacement in PATCHES:
        if (owner, name) not in _moto:
            _moto[owner, name] = owner.__dict__.get(name)
            setattr(owner, name, replacement)
    return ledger
