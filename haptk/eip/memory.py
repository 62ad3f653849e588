"""What the agent remembers between two polls: who this node is, which address an id means, and the last known state.

Plain lines in files of mode 0600 under the run directory, which does not outlive a boot. Everything here is a hint that
saves a question, except the last known state, which is only ever shown as such, with its age. This file is imported by
`quick.py`: nothing that costs time may be imported.
"""

from __future__ import annotations

import os

from haptk.aws.imds import file_name, read_private, write_private
from haptk.io import clock


class Memory:
    """The files of one (metadata endpoint, interface, private address) in one run directory."""

    def __init__(self, directory: str, endpoint: str | None, interface: str | None, private_ip: str | None) -> None:
        authority = (endpoint or "none").partition("://")[2].partition("/")[0] or "none"
        self._scope = (authority, interface or "any", private_ip or "any")
        self._directory = directory

    def _path(self, *parts: str) -> str:
        return os.path.join(self._directory, file_name(*parts))  # noqa: PTH118

    def node(self) -> tuple[str, str, str] | None:
        """(mac, interface id, instance id) of this node, as learned before."""
        words = (read_private(self._path("node", *self._scope)) or "").split()
        return (words[0], words[1], words[2]) if len(words) == 3 else None

    def remember_node(self, mac: str, interface: str, instance: str) -> None:
        write_private(self._path("node", *self._scope), f"{mac} {interface} {instance}\n")

    def elastic(self, address: str) -> tuple[str, str] | None:
        """(public ip, allocation id) that this address argument means; never kept for a tag, which may move."""
        words = (read_private(self._path("elastic", address)) or "").split()
        return (words[0], words[1]) if len(words) == 2 else None

    def remember_elastic(self, address: str, public_ip: str, allocation_id: str) -> None:
        if self.elastic(address) != (public_ip, allocation_id):
            write_private(self._path("elastic", address), f"{public_ip} {allocation_id}\n")

    def forget_elastic(self, address: str) -> None:
        try:
            os.unlink(self._path("elastic", address))  # noqa: PTH108
        except OSError:
            pass

    def last(self, address: str) -> tuple[str, float, float, str] | None:
        """(`ours` or `not-ours`, Unix time since when, Unix time last confirmed, holder or `-`)."""
        words = (read_private(self._path("last", *self._scope, address)) or "").split(None, 3)
        if len(words) != 4:
            return None
        try:
            return words[0], float(words[1]), float(words[2]), words[3].strip()
        except ValueError:
            return None

    def remember_last(self, address: str, state: str, holder: str = "-", *, fresh: bool = False) -> float:
        """Keep the state as known now; returns the Unix time since when it is known without a change.

        `fresh` says that it began now, whatever was remembered.
        """
        now = clock.wall()
        before = self.last(address)
        since = before[1] if before is not None and before[0] == state and before[3] == holder and not fresh else now
        write_private(self._path("last", *self._scope, address), f"{state} {since:.3f} {now:.3f} {holder}\n")
        return since
