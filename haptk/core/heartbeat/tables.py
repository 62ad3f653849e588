"""Every state machine of the heartbeat as data. A step that is not in its table is a fault of haptk and raises.

docs/reference/heartbeat-states.md is drawn from these tables; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from haptk.errors import InternalError


class NodeState(Enum):
    """A node as its status messages (and its silence) show it; the values are the words on the wire."""

    INIT = "init"
    UP = "up"
    ACTIVE = "active"
    DEAD = "dead"


class NodeSignal(Enum):
    SAYS_INIT = "says init"
    SAYS_UP = "says up"
    SAYS_ACTIVE = "says active"
    SILENT = "silent for its dead time"


_SAYS = {
    NodeSignal.SAYS_INIT: NodeState.INIT,
    NodeSignal.SAYS_UP: NodeState.UP,
    NodeSignal.SAYS_ACTIVE: NodeState.ACTIVE,
}
NODE: dict[tuple[NodeState, NodeSignal], NodeState] = {
    **{(state, signal): after for state in NodeState for signal, after in _SAYS.items()},
    (NodeState.INIT, NodeSignal.SILENT): NodeState.DEAD,
    (NodeState.UP, NodeSignal.SILENT): NodeState.DEAD,
    (NodeState.ACTIVE, NodeSignal.SILENT): NodeState.DEAD,
}


class LinkState(Enum):
    """A way to a node."""

    UNKNOWN = "unknown"
    UP = "up"
    DEAD = "dead"


class LinkSignal(Enum):
    HEARD = "a packet came"
    SILENT = "silent for the dead time"


LINK: dict[tuple[LinkState, LinkSignal], LinkState] = {
    (LinkState.UNKNOWN, LinkSignal.HEARD): LinkState.UP,
    (LinkState.UP, LinkSignal.HEARD): LinkState.UP,
    (LinkState.DEAD, LinkSignal.HEARD): LinkState.UP,
    (LinkState.UNKNOWN, LinkSignal.SILENT): LinkState.DEAD,
    (LinkState.UP, LinkSignal.SILENT): LinkState.DEAD,
}


class Phase(Enum):
    """How far our own part of the resource negotiation is."""

    INIT = "init"
    STARTING = "starting"
    BOTH_STARTING = "both starting"
    RECEIVED = "resources heard"
    STABLE = "stable"
    SHUTDOWN = "shutdown"


class PhaseSignal(Enum):
    COMM_UP = "every node heard or declared dead"
    PEER_STARTING = "peer says starting"
    RESOURCE = "peer says resource"
    SETTLED = "the peer's holdings are known, or waiting for them is over"
    STOP = "asked to stop"


PHASE: dict[tuple[Phase, PhaseSignal], Phase] = {
    (Phase.INIT, PhaseSignal.COMM_UP): Phase.STARTING,
    (Phase.STARTING, PhaseSignal.PEER_STARTING): Phase.BOTH_STARTING,
    (Phase.BOTH_STARTING, PhaseSignal.PEER_STARTING): Phase.BOTH_STARTING,
    (Phase.RECEIVED, PhaseSignal.PEER_STARTING): Phase.RECEIVED,
    (Phase.STABLE, PhaseSignal.PEER_STARTING): Phase.STABLE,
    (Phase.STARTING, PhaseSignal.RESOURCE): Phase.RECEIVED,
    (Phase.BOTH_STARTING, PhaseSignal.RESOURCE): Phase.RECEIVED,
    (Phase.RECEIVED, PhaseSignal.RESOURCE): Phase.RECEIVED,
    (Phase.STABLE, PhaseSignal.RESOURCE): Phase.STABLE,
    (Phase.STARTING, PhaseSignal.SETTLED): Phase.STABLE,
    (Phase.BOTH_STARTING, PhaseSignal.SETTLED): Phase.STABLE,
    (Phase.RECEIVED, PhaseSignal.SETTLED): Phase.STABLE,
    **{(phase, PhaseSignal.STOP): Phase.SHUTDOWN for phase in Phase if phase is not Phase.SHUTDOWN},
}


class GroupState(Enum):
    """One resource group on this node."""

    UNKNOWN = "unknown"
    RELEASED = "released"
    STARTING = "starting"
    HELD = "held"
    STOPPING = "stopping"
    FAILED = "failed"
    CEDED = "ceded"


class GroupSignal(Enum):
    FOUND_OURS = "status: ours"
    FOUND_NOT_OURS = "status: not ours"
    CANNOT_SEE = "status: unknown"
    START = "start it"
    STARTED = "start succeeded"
    START_FAILED = "start failed"
    STOP = "stop or release it"
    STOPPED = "stop succeeded"
    STOP_FAILED = "stop failed"
    TAKEN_AWAY = "somebody else has it"
    FREE = "nobody has it any more"
    GAVE_UP = "stop succeeded, and it keeps dying here"
    FORGIVEN = "its failure is long ago"


GROUP: dict[tuple[GroupState, GroupSignal], GroupState] = {
    (GroupState.UNKNOWN, GroupSignal.FOUND_OURS): GroupState.HELD,
    (GroupState.UNKNOWN, GroupSignal.FOUND_NOT_OURS): GroupState.RELEASED,
    (GroupState.UNKNOWN, GroupSignal.CANNOT_SEE): GroupState.RELEASED,
    (GroupState.UNKNOWN, GroupSignal.START): GroupState.STARTING,
    (GroupState.UNKNOWN, GroupSignal.STOP): GroupState.STOPPING,
    (GroupState.RELEASED, GroupSignal.START): GroupState.STARTING,
    (GroupState.RELEASED, GroupSignal.STOP): GroupState.STOPPING,
    (GroupState.RELEASED, GroupSignal.FOUND_OURS): GroupState.HELD,
    (GroupState.STARTING, GroupSignal.STARTED): GroupState.HELD,
    (GroupState.STARTING, GroupSignal.START_FAILED): GroupState.FAILED,
    (GroupState.HELD, GroupSignal.FOUND_OURS): GroupState.HELD,
    (GroupState.HELD, GroupSignal.CANNOT_SEE): GroupState.HELD,
    (GroupState.HELD, GroupSignal.TAKEN_AWAY): GroupState.CEDED,
    (GroupState.HELD, GroupSignal.STOP): GroupState.STOPPING,
    (GroupState.STOPPING, GroupSignal.STOPPED): GroupState.RELEASED,
    (GroupState.STOPPING, GroupSignal.STOP_FAILED): GroupState.HELD,
    (GroupState.STOPPING, GroupSignal.GAVE_UP): GroupState.FAILED,
    (GroupState.FAILED, GroupSignal.START): GroupState.STARTING,
    (GroupState.FAILED, GroupSignal.STOP): GroupState.STOPPING,
    (GroupState.FAILED, GroupSignal.FOUND_OURS): GroupState.HELD,
    (GroupState.FAILED, GroupSignal.FORGIVEN): GroupState.RELEASED,
    (GroupState.CEDED, GroupSignal.FOUND_OURS): GroupState.HELD,
    (GroupState.CEDED, GroupSignal.FREE): GroupState.RELEASED,
    (GroupState.CEDED, GroupSignal.START): GroupState.STARTING,
    (GroupState.CEDED, GroupSignal.STOP): GroupState.STOPPING,
}


class Move(Enum):
    """Where a planned move (the standby protocol) stands, on the giver's and on the taker's side."""

    IDLE = "idle"
    ASKED = "giver: asked the peer to take"
    GIVING = "giver: stopping"
    GIVEN = "giver: waiting for the taker"
    OFFERED = "taker: waiting for the giver"
    TAKING = "taker: starting"


class MoveSignal(Enum):
    GIVE = "we want to give"
    ACCEPTED = "peer answers other"
    NO_ANSWER = "no answer in time"
    RELEASED = "our groups are stopped"
    NOT_RELEASED = "a group could not be stopped"
    ASKED = "peer wants to give"
    DONE = "peer says done"
    TAKEN = "our starts are over"
    PEER_GONE = "the peer died or left"


MOVE: dict[tuple[Move, MoveSignal], Move] = {
    (Move.IDLE, MoveSignal.GIVE): Move.ASKED,
    (Move.IDLE, MoveSignal.ASKED): Move.OFFERED,
    (Move.ASKED, MoveSignal.ACCEPTED): Move.GIVING,
    (Move.ASKED, MoveSignal.NO_ANSWER): Move.IDLE,
    (Move.GIVING, MoveSignal.RELEASED): Move.GIVEN,
    (Move.GIVING, MoveSignal.NOT_RELEASED): Move.IDLE,
    (Move.GIVEN, MoveSignal.DONE): Move.IDLE,
    (Move.GIVEN, MoveSignal.NO_ANSWER): Move.IDLE,
    (Move.OFFERED, MoveSignal.DONE): Move.TAKING,
    (Move.OFFERED, MoveSignal.NO_ANSWER): Move.IDLE,
    (Move.TAKING, MoveSignal.TAKEN): Move.IDLE,
    **{(move, MoveSignal.PEER_GONE): Move.IDLE for move in Move},
}

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


class Machine(Generic[S, E]):
    """A state that moves only along its table."""

    __slots__ = ("_table", "name", "state")

    def __init__(self, name: str, table: Mapping[tuple[S, E], S], start: S) -> None:
        self.name = name
        self._table = table
        self.state = start

    def can(self, signal: E) -> bool:
        return (self.state, signal) in self._table

    def go(self, signal: E) -> S:
        """Take the step for `signal` and return the new state; InternalError when the table has none."""
        after = self._table.get((self.state, signal))
        if after is None:
            raise InternalError(what=f"{self.name} is {self.state.value!r} and cannot take {signal.value!r}")
        self.state = after
        return after


ALL: dict[str, tuple[str, Mapping[tuple[Enum, Enum], Enum]]] = {}
for _name, _title, _table in (
    ("node", "A node", NODE),
    ("link", "A link", LINK),
    ("phase", "The resource negotiation", PHASE),
    ("group", "A resource group on this node", GROUP),
    ("move", "A planned move", MOVE),
):
    ALL[_name] = (_title, _table)  # type: ignore[assignment]


def mermaid(name: str) -> str:
    """The table `name` as a mermaid state diagram, in the order of the table."""
    _, table = ALL[name]
    lines = ["stateDiagram-v2"]
    for (state, signal), after in table.items():
        lines.append(f"    {_id(state)} --> {_id(after)}: {signal.value}")
    return "\n".join(lines)


def _id(state: Enum) -> str:
    return state.name.title().replace("_", "")
