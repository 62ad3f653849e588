"""What the core is told (configuration, results of operations) and what it asks for (actions).

Times are seconds; `now` is monotonic. Bits of `Hold` are seen from the node that says them: LOCAL are the groups
that haresources gives to it, FOREIGN those of the other node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntFlag
from zlib import crc32


class Hold(IntFlag):
    """The words of `rsc_hold`."""

    NONE = 0
    LOCAL = 1
    FOREIGN = 2
    ALL = 3

    @property
    def word(self) -> str:
        return ("none", "local", "foreign", "all")[int(self)]

    @property
    def swapped(self) -> Hold:
        """The same groups from the other node's point of view."""
        return HOLDS[(int(self) & 1) << 1 | int(self) >> 1]


HOLDS = (Hold.NONE, Hold.LOCAL, Hold.FOREIGN, Hold.ALL)
"""By value: looking one up is many times faster than making it."""

HOLD_WORDS = {hold.word: hold for hold in HOLDS}


class Failback(Enum):
    """auto_failback of ha.cf; legacy is the protocol before nice_failback."""

    ON = "on"
    OFF = "off"
    LEGACY = "legacy"


class Health(Enum):
    """Our own service as the local check sees it; NONE is a node without a check."""

    NONE = "none"
    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class GroupConfig:
    """One line of haresources. `exclusive`: a status of ours proves that nobody else has it (an Elastic IP)."""

    owner: str | None
    resources: tuple[str, ...]
    exclusive: bool = False

    @property
    def key(self) -> str:
        return self.resources[0]

    @property
    def common(self) -> str:
        """What both nodes call it: the interface behind an Elastic IP is each node's own."""
        return " ".join(
            "::".join(word.split("::")[:2]) if word.startswith("eip::") else word for word in self.resources
        )


@dataclass(frozen=True)
class Timing:
    """The times of ha.cf."""

    keepalive_s: float = 2.0
    deadtime_s: float = 30.0
    warntime_s: float = 15.0
    initdead_s: float = 120.0
    deadping_s: float = 30.0
    monitor_s: float = 10.0
    """How often a held group is looked at while it is well."""

    monitor_again_s: float = 1.0
    """The same while it is in doubt: after a bad look, and after a start that followed a failure."""

    retry_s: float = 30.0
    """How long to leave a group alone that failed to start here, or a peer that refused it."""

    forget_s: float = 300.0
    """How long a group that would not start here counts as one that we cannot serve."""

    settle_s: float = 10.0
    """How long to wait for the peer's holdings after our `starting` (heartbeat.c: 10 s)."""


@dataclass(frozen=True)
class NodeConfig:
    """Everything the core knows at its start. `peer` None: learn the other node's name from its first message."""

    name: str
    peer: str | None
    uuid: bytes
    generation: int
    timing: Timing = field(default_factory=Timing)
    groups: tuple[GroupConfig, ...] = ()
    failback: Failback = Failback.OFF
    ping_nodes: tuple[str, ...] = ()
    peer_address: str = ""
    peer_generations: dict[str, int] = field(default_factory=dict)
    peer_uuids: dict[str, bytes] = field(default_factory=dict)
    clock_window_s: float = 600.0
    hopfudge: int = 1
    health: Health = Health.NONE
    leases: bool = False
    """Whether the shell keeps a lease for each group (see grants)."""

    start_attempts: int = 2
    monitor_rise: int = 2
    monitor_fall: int = 3

    @property
    def fingerprint(self) -> str:
        """Equal on two nodes whose haresources mean the same; claims are told by group number only between such."""
        text = "\n".join(f"{group.owner or ''} {group.common}" for group in self.groups)
        return f"{crc32(text.encode()):08x}"

    def owner_of(self, group: GroupConfig, peer: str | None) -> str:
        """The node that haresources gives a group to; without one, the smaller name of the two."""
        return group.owner or (min(self.name, peer) if peer else self.name)


class Level(Enum):
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    CRIT = 50


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the log: every decision carries its sentence. `event` names it for machines."""

    level: Level
    text: str
    event: str = ""
    fields: tuple[tuple[str, object], ...] = ()


class Op(Enum):
    """What the shell is asked to do with a group, in a thread of its own."""

    STATUS = "status"
    START = "start"
    STOP = "stop"
    RELEASE = "release"
    """Like STOP, but an exclusive resource is left alone, because the taker takes it over without a gap."""


@dataclass(frozen=True, slots=True)
class Run:
    """Do `op` on group number `group`; answer with `Node.done(ticket, outcome, now)`."""

    ticket: int
    group: int
    op: Op


class Seen(Enum):
    """The three states of a resource, and the two ends of an operation."""

    OURS = "ours"
    NOT_OURS = "not ours"
    UNKNOWN = "unknown"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended. `holder` is who has it instead: "" when nobody has it, None when that is not known."""

    seen: Seen
    why: str = ""
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """Write the peers' generations to disk, so that a replay after our restart is refused."""

    generations: dict[str, int]
    uuids: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Finished:
    """The graceful stop is over: exit."""

    text: str


class Grant(Enum):
    """What the shell knows about the lease of a group."""

    OURS = "ours"
    OTHERS = "the other node's"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Claim:
    """Get and keep the lease of group number `group` (`wanted`), or let it go.

    Answer each claim, and every later change, with `Node.granted(ticket, ...)`; an answer to an older claim is ignored.
    `here`: the group is up here; else we only want it, and a node that has never had a lease may have it.
    """

    ticket: int
    group: int
    wanted: bool
    here: bool


Event = Say | Run | Remember | Claim | Finished


@dataclass(frozen=True, slots=True)
class Source:
    """Where a datagram came from: the link it arrived on and the sender's address."""

    link: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram to send on every link."""

    data: bytes
