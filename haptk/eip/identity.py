"""Who this node is: its interface, MAC and instance, from the metadata service or from the operator's --interface."""

from __future__ import annotations

from typing import NamedTuple

from haptk.aws.imds import Imds, ImdsError
from haptk.core.vip import Target
from haptk.eip.memory import Memory
from haptk.errors import OperatorError
from haptk.io import clock

RECENT_S = 60.0


class Identity(NamedTuple):
    """This node as an address can belong to it. `mac` is None when the metadata service could not be asked."""

    target: Target
    mac: str | None = None


class WhoAmI:
    """Finds the identity once and remembers it, in this process and in the run directory."""

    def __init__(self, memory: Memory, interface: str | None, private_ip: str | None) -> None:
        self._memory = memory
        self._interface = interface
        self._private_ip = private_ip
        self._found: Identity | None = None
        self._asked_at = float("-inf")

    def recent(self) -> bool:
        """Whether the metadata service itself was asked within the last minute: asking again would tell nothing new."""
        return clock.monotonic() - self._asked_at < RECENT_S

    def find(self, imds: Imds | None, *, fresh: bool = False) -> Identity:
        """The identity; raises OperatorError when neither the operator nor the metadata service tells it.

        `fresh` asks the metadata service again: an interface may have been moved since.
        """
        if self._found is not None and self._found.mac is not None and not fresh:
            return self._found
        known = None if fresh else self._memory.node()
        why = "the metadata service is disabled (AWS_EC2_METADATA_DISABLED)"
        if known is None and imds is not None:
            try:
                known = self._ask(imds)
                self._asked_at = clock.monotonic()
                self._memory.remember_node(*known)
            except ImdsError as error:
                why = str(error)
                known = self._memory.node() if fresh else None
        if known is not None:
            mac, interface, instance = known
            self._found = Identity(self._target(interface, instance), mac)
        elif self._interface is not None:
            self._found = Identity(self._target(self._interface, None), None)
        else:
            raise OperatorError(what=f"which interface is this node's? name it with --interface eni-... ({why})")
        return self._found

    def check(self, imds: Imds) -> None:
        """Raise OperatorError when the metadata of this node proves that what the operator named is not here."""
        if self._interface is None and self._private_ip is None:
            return
        here = {imds.interface_id(mac): imds.private_ips(mac) for mac in imds.macs()}
        if self._interface is not None and self._interface not in here:
            raise OperatorError(what=f"{self._interface} is not an interface of this host ({', '.join(sorted(here))})")
        candidates = here.values() if self._interface is None else [here[self._interface]]
        if self._private_ip is not None and not any(self._private_ip in ips for ips in candidates):
            raise OperatorError(what=f"{self._private_ip} is not a private address of this host")

    def _target(self, interface: str, instance: str | None) -> Target:
        # An interface that the operator named is the only one that counts; otherwise the whole instance does.
        named = self._interface is not None or self._private_ip is not None
        return Target((interface,), self._private_ip, None if named else instance)

    def _ask(self, imds: Imds) -> tuple[str, str, str]:
        instance = imds.instance_id()
        if self._interface is None and self._private_ip is None:
            mac = imds.primary_mac()
            return mac, imds.interface_id(mac), instance
        for mac in imds.macs():
            interface = imds.interface_id(mac)
            if self._interface is not None and interface != self._interface:
                continue
            if self._private_ip is not None and self._private_ip not in imds.private_ips(mac):
                continue
            return mac, interface, instance
        if self._interface is not None:
            # The operator's word counts: metadata may not show an interface that was attached a moment ago.
            raise ImdsError(f"the metadata of {instance} does not list {self._interface}")
        raise OperatorError(what=f"no interface of {instance} has the private address {self._private_ip}")
