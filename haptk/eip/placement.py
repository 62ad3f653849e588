"""Which private address of the interface an Elastic IP is put on, so that it never pushes another one out.

EC2 keeps one Elastic IP for each private address: associating a second one with the same private address silently
disassociates the first. So before a take this module looks at what is on the interface already and chooses: the primary
address when it is free, else the first free secondary one, else nothing, with the reason.

What metadata lists lags; what this node has put somewhere in the last minute is kept in a file next to it (`claims`),
under a lock, so that several addresses that start at once, in one process or in several, get a place each.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from haptk.aws.deadline import Deadline
from haptk.aws.ec2 import Ec2
from haptk.aws.imds import Imds, ImdsError, file_name, read_private, write_private
from haptk.core.vip import METADATA_LAG_S, choose_place
from haptk.errors import AwsConflict
from haptk.io import clock

Places = dict[str, str]
LOCK_S = 1.0


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Placement:
    """The places of one interface. `public_ip` is always the address that is to be placed."""

    def __init__(self, directory: str, interface: str, ec2: Ec2) -> None:
        self._interface = interface
        self._ec2 = ec2
        self._claims = str(Path(directory) / file_name("claims", interface))

    def choose(
        self, imds: Imds | None, mac: str | None, public_ip: str, wanted: str | None, deadline: Deadline
    ) -> str | None:
        """The private address to name in the call; None leaves it to EC2, which takes the primary one.

        Claims the place. Raises AwsConflict when the address would push another one out, or an AwsError when the
        interface has to be asked for and the API does not tell.
        """
        known = self._by_metadata(imds, mac)
        with self._locked():
            claims = self._read()
            if known is not None:
                private_ips, taken = known
                place, occupant = choose_place(private_ips, {**taken, **claims}, public_ip, wanted)
            if known is None or occupant is not None:
                # Metadata is silent, or says that there is no room, which may be old: EC2 has the last word.
                private_ips, taken = self._by_api(deadline)
                recent = {ip: other for ip, other in claims.items() if other == public_ip}
                place, occupant = choose_place(private_ips, {**taken, **recent}, public_ip, wanted)
            if occupant is not None:
                raise AwsConflict(
                    action="ec2:AssociateAddress",
                    target=f"{public_ip} to {self._interface}",
                    why=f"it would push {occupant} out of {wanted or 'every private address there is'}; "
                    "assign a secondary private address to the interface",
                )
            chosen = place or (private_ips[0] if private_ips else None)
            if chosen is not None:
                claims[chosen] = public_ip
                self._write(claims)
        return wanted or (place if private_ips and place != private_ips[0] else None)

    def forget(self, public_ip: str) -> None:
        """The address was let go: its place is free at once."""
        with self._locked():
            claims = {ip: other for ip, other in self._read().items() if other != public_ip}
            self._write(claims)

    def _by_metadata(self, imds: Imds | None, mac: str | None) -> tuple[list[str], Places] | None:
        if imds is None or mac is None:
            return None
        try:
            return imds.private_ips(mac), imds.associations(mac)
        except ImdsError:
            return None

    def _by_api(self, deadline: Deadline) -> tuple[list[str], Places]:
        found = self._ec2.interfaces(deadline, interface=self._interface)
        private_ips = list(found[0].private_ips) if found else []
        on_it = self._ec2.addresses(deadline, interface=self._interface)
        return private_ips, {one.private_ip: one.public_ip for one in on_it if one.private_ip}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            Path(self._claims).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(f"{self._claims}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield  # without a place to write, what metadata says has to do
            return
        try:
            # A process that hangs with the lock must not hang this one: after a second the race is the lesser evil.
            until = clock.monotonic() + LOCK_S
            while not _try_lock(handle) and clock.monotonic() < until:
                clock.sleep(0.005)
            yield
        finally:
            os.close(handle)

    def _read(self) -> Places:
        claims = {}
        for line in (read_private(self._claims) or "").splitlines():
            words = line.split()
            if len(words) == 3 and words[2].isdigit() and 0 <= clock.wall() - int(words[2]) < METADATA_LAG_S:
                claims[words[0]] = words[1]
        return claims

    def _write(self, claims: Places) -> None:
        now = int(clock.wall())
        write_private(self._claims, "".join(f"{ip} {other} {now}\n" for ip, other in claims.items()))
