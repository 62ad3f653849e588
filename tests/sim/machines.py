"""What the simulated world is made of: machines, links, the AWS account, and datagrams without the cost of a digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.auth import AuthError, Key, KeyRing
from haptk.core.heartbeat.model import Health, Outcome, Remember, Source
from haptk.core.heartbeat.node import Node
from haptk.core.heartbeat.tables import GroupState
from haptk.core.lease import Record
from tests.sim.leases import LeaseClient

WALL = 1_795_000_000.0
QUIET_DELAY_S = (0.0005, 0.002)


@dataclass
class Link:
    """One direction between two machines."""

    cut: bool = False
    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = QUIET_DELAY_S

    @property
    def whole(self) -> bool:
        return not self.cut and self.loss == 0.0 and self.delay_s == QUIET_DELAY_S


@dataclass
class Address:
    """Who has an Elastic IP, and who had it when."""

    holder: str | None = None
    history: list[tuple[float, str | None]] = field(default_factory=lambda: [(0.0, None)])

    def put(self, holder: str | None, now: float) -> None:
        if holder != self.holder:
            self.holder = holder
            self.history.append((now, holder))

    def at(self, when: float) -> str | None:
        found = None
        for at, holder in self.history:
            if at > when:
                break
            found = holder
        return found


@dataclass
class Account:
    """One AWS account: its limits and its outages are everybody's.

    `mode` is how the API behaves: up, slow, throttled, down, or lost (what was asked is done, the answer never comes).
    """

    mode: str = "up"
    lag_s: float = 0.0  # by which meta-data is behind
    store: str = "up"  # the lease table: up, slow, down
    leases: dict[str, Record] = field(default_factory=dict)
    silent_at: float = float("-inf")  # when the lease table gave no answer last


@dataclass
class Box:
    """One machine: its disk survives a crash, its daemon does not."""

    name: str
    peer: str
    node: Node | None = None
    frozen: bool = False
    generation: int = 1000
    remembered: Remember = field(default_factory=lambda: Remember({}, {}))
    wall_offset_s: float = WALL
    drift: float = 0.0
    running: bool = False  # the script resource
    broken: bool = False  # its resource does not start
    stuck: bool = False  # its script does not stop
    liar: bool = False  # its script's status now and then says "stopped" while it runs and is held
    health: Health = Health.NONE
    epoch: int = 0
    inbox: list[tuple[bytes, Source]] = field(default_factory=list)
    answers: list[tuple[int, Outcome]] = field(default_factory=list)
    timer: float = float("inf")
    finished: bool = False
    booting: bool = False
    up_since: float = 0.0  # it has run without a pause since then
    witness: bool = True  # it reaches the witness
    witness_heard_at: float = float("-inf")
    aws: bool = True  # it reaches AWS
    disk: str = "well"  # well, slow, broken
    holding: bool = False  # what `believes` said after its last event
    starts: int = 0
    deaths: int = 0
    lease: LeaseClient | None = None

    @property
    def alive(self) -> bool:
        return self.node is not None and not self.frozen

    def believes(self) -> bool:
        """It thinks that it holds the group."""
        if self.node is None:
            return False
        for group in self.node.negotiation.holdings.groups:  # noqa: SIM110 (asked after every event)
            if group.machine.state is GroupState.HELD:
                return True
        return False


@dataclass
class Pair:
    """Two machines with one group, known by its address; `kind` is exclusive (an Elastic IP) or script."""

    names: tuple[str, str]
    kind: str = "exclusive"
    key: bytes = b"secret"
    address: Address = field(default_factory=Address)

    @property
    def resource(self) -> str:
        return f"eip::203.0.113.{10 + ord(self.names[0]) - ord('a')}"


class ShortRing(KeyRing):
    """Signs with a number instead of a digest, and finds the message by it: half of a simulation's time was digests,
    netstrings and base64, which have tests of their own. Every run is the same as with the real ring; a test compares.
    """

    def __init__(self, keys: Iterable[Key], active: int, sent: dict[bytes, wire.Message]) -> None:
        super().__init__(keys, active)
        self._sent = sent
        self._mark = b"%d:%b:" % (active, self.active.secret)

    def sign(self, message: wire.Message) -> bytes:
        data = b"%b%d" % (self._mark, len(self._sent))
        self._sent[data] = dict(message)
        return data

    def open(self, data: bytes) -> wire.Message:
        if not data.startswith(self._mark):
            if data not in self._sent:
                return super().open(data)
            key = self.active
            raise AuthError(f"its {key.method} digest does not fit our key {key.number}: is the key the same there?")
        return dict(self._sent[data])
