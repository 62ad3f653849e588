"""Who holds what, since when, and from which source that is known: for people, not for decisions.

EC2 tells who has an address now but not since when; what this node remembers says from when on it has seen it so.
Without EC2, metadata still tells what is on this node's own interfaces, and the memory what was known last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from haptk.aws import imds as metadata_service
from haptk.aws.client import Clients
from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Address, Ec2
from haptk.aws.imds import Imds, ImdsError
from haptk.eip.memory import Memory
from haptk.errors import HaptkError


@dataclass(frozen=True)
class Row:
    """One address. `here` is None when this node does not know itself; `since` is Unix time, None when unknown."""

    address: str
    allocation_id: str | None
    name: str | None
    interface: str | None
    instance: str | None
    private_ip: str | None
    here: bool | None
    since: float | None
    source: str


@dataclass(frozen=True)
class Overview:
    """The rows, and why the API could not be asked (empty when it was)."""

    rows: tuple[Row, ...]
    trouble: str = ""


class Looker:
    """Looks from this node."""

    def __init__(self, clients: Clients, interface: str | None, env: Mapping[str, str] | None = None) -> None:
        environment = dict(os.environ if env is None else env)
        self._ec2 = Ec2(clients)
        self._interface = interface
        endpoint = metadata_service.endpoint_of(environment)
        directory = metadata_service.run_dir(environment)
        self._memory = Memory(directory, endpoint, interface, None)
        self._imds = Imds(endpoint, directory) if endpoint else None

    def look(self, addresses: list[str], deadline_s: float) -> Overview:
        """The overview of these public addresses or allocation ids, of all without any."""
        deadline = Deadline(deadline_s)
        here = self._here()
        try:
            found = self._ec2.addresses(deadline)
        except HaptkError as error:
            return Overview(self._without_api(addresses), str(error))
        wanted = [one for one in found if not addresses or {one.public_ip, one.allocation_id} & set(addresses)]
        return Overview(tuple(self._row(one, here) for one in sorted(wanted, key=lambda one: one.public_ip)))

    def _here(self) -> tuple[set[str], str | None]:
        """(interfaces, instance id) of this node as far as it knows itself."""
        interfaces = {self._interface} if self._interface else set()
        node = self._memory.node()
        if node is not None:
            return interfaces | {node[1]}, node[2]
        if self._imds is None:
            return interfaces, None
        try:
            return interfaces | {self._imds.interface_id(mac) for mac in self._imds.macs()}, self._imds.instance_id()
        except ImdsError:
            return interfaces, None

    def _row(self, one: Address, here: tuple[set[str], str | None]) -> Row:
        interfaces, instance = here
        known = bool(interfaces or instance)
        ours = one.interface in interfaces or (instance is not None and one.instance == instance)
        return Row(
            one.public_ip,
            one.allocation_id,
            one.name,
            one.interface,
            one.instance,
            one.private_ip,
            ours if known else None,
            self._since(one, ours),
            "EC2",
        )

    def _since(self, one: Address, ours: bool) -> float | None:
        for address in (one.public_ip, one.allocation_id):
            kept = self._memory.last(address)
            if kept is not None and (kept[0] == "ours" if ours else kept[3] == one.interface):
                return kept[1]
        return None

    def _without_api(self, addresses: list[str]) -> tuple[Row, ...]:
        rows: dict[str, Row] = {}
        if self._imds is not None:
            try:
                for mac in self._imds.macs():
                    interface = self._imds.interface_id(mac)
                    for private_ip, public_ip in self._imds.associations(mac).items():
                        rows[public_ip] = Row(
                            public_ip,
                            None,
                            None,
                            interface,
                            None,
                            private_ip,
                            True,
                            self._kept_since(public_ip),
                            "metadata",
                        )
            except ImdsError:
                pass
        for address in addresses:
            kept = self._memory.last(address)
            if address not in rows and kept is not None:
                held = kept[3] if kept[3] != "-" else None
                rows[address] = Row(address, None, None, held, None, None, kept[0] == "ours", kept[1], "memory")
        chosen = [row for address, row in rows.items() if not addresses or address in addresses]
        return tuple(sorted(chosen, key=lambda row: row.address))

    def _kept_since(self, address: str) -> float | None:
        kept = self._memory.last(address)
        return kept[1] if kept is not None and kept[0] == "ours" else None
