"""Two more corrections of moto 5.2, for leases and for private addresses. `apply()` puts them in place, once.

1. Conditional writes of DynamoDB are atomic: of two UpdateItem whose condition only one can meet, one is refused. moto
   checks and writes without a lock, and its server has a thread for each connection. GetItem sees an item as it was
   before a write or after it: moto makes a new item first and sets its attributes one by one then.
2. AssignPrivateIpAddresses moves a secondary address: with AllowReassignment it leaves the interface that had it, without
   it the call is refused, and a primary address never moves.
"""

from __future__ import annotations

import copy
import functools
import threading
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces

_LOCK = threading.RLock()
_WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")
_moto: dict[tuple[type, str], Any] = {}


def _one_at_a_time(method: Any) -> Any:
    @functools.wraps(method)
    def locked(*arguments: Any, **named: Any) -> Any:
        with _LOCK:
            return method(*arguments, **named)

    return locked


def _get_item(self: Any, *arguments: Any, **named: Any) -> Any:
    with _LOCK:
        return copy.deepcopy(_moto[DynamoDBBackend, "get_item"](self, *arguments, **named))


def _entry(interface: Any, private_ip: str) -> dict[str, Any] | None:
    return next((one for one in interface.private_ip_addresses if one.get("PrivateIpAddress") == private_ip), None)


def _assign(self: Any) -> Any:
    """AssignPrivateIpAddresses, with what it does to the interface that has the address now."""
    target = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
    for private_ip in self._get_param("PrivateIpAddresses", []):
        for other in list(self.ec2_backend.enis.values()):
            found = _entry(other, private_ip) if other.id != target.id else None
            if found is None or other.subnet.vpc_id != target.subnet.vpc_id:
                continue
            if found.get("Primary") or not self._get_bool_param("AllowReassignment", False):
                raise EC2ClientError("InvalidParameterValue", f"Address {private_ip} is in use by {other.id}.")
            self.ec2_backend.unassign_private_ip_addresses(other.id, [private_ip])
    return _moto[ElasticNetworkInterfaces, "assign_private_ip_addresses"](self)


def apply() -> None:
    """Put both corrections in place; a second call changes nothing."""
    wrapped: dict[tuple[type, str], Any] = {
        (DynamoDBBackend, name): _one_at_a_time(getattr(DynamoDBBackend, name)) for name in _WRITES
    }
    wrapped[DynamoDBBackend, "get_item"] = _get_item
    replacements = {**wrapped, (ElasticNetworkInterfaces, "assign_private_ip_addresses"): _assign}
    for (owner, name), replacement in replacements.items():
        if (owner, name) not in _moto:
            _moto[owner, name] = owner.__dict__.get(name)
            setattr(owner, name, replacement)
