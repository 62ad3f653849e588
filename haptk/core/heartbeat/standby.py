"""A planned move of resources: the standby exchange of heartbeat (`ask_resources` me, other, done).

The giver keeps serving until the taker has answered, so nothing is dropped without a taker. `bits` are always seen
from the giver. A node whose own check is down, or that is in the middle of something, does not answer: the giver
then keeps what it has.
"""

from __future__ import annotations

from collections.abc import Callable

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.holdings import Group, Holdings
from haptk.core.heartbeat.model import HOLD_WORDS, Health, Hold, Level, NodeConfig, Op, Say
from haptk.core.heartbeat.peers import Peer
from haptk.core.heartbeat.tables import MOVE, GroupState, Machine, Move, MoveSignal

ANSWER_S = 10.0
"""How long the giver waits for `other` (heartbeat.c: 10 s)."""

PHASE_REAL_S = 3600.0
"""How long one side waits for the other's scripts when that is a real node (heartbeat.c: 1 h)."""

PHASE_S = 120.0

Send = Callable[[wire.Message], None]


class Mover:
    """One exchange at a time; `quiet` tells the negotiation to leave the groups of the exchange alone."""

    def __init__(self, config: NodeConfig, holdings: Holdings, peer: Peer, say: Callable[[Say], None], send: Send):
        self.config = config
        self.holdings = holdings
        self.peer = peer
        self._say = say
        self._send = send
        self.machine: Machine[Move, MoveSignal] = Machine("the planned move", MOVE, Move.IDLE)
        self.bits = Hold.NONE
        self.deadline: float | None = None
        self.why = ""
        self.retry_at = float("-inf")
        self.took_for_check = False
        self.waiting_since = float("-inf")

    @property
    def state(self) -> Move:
        return self.machine.state

    @property
    def quiet(self) -> bool:
        """Nothing moves, or at most a question is open: the usual rules apply."""
        return self.state in (Move.IDLE, Move.ASKED)

    def groups(self) -> list[Group]:
        """The groups of the exchange on this node."""
        giving = self.state in (Move.ASKED, Move.GIVING, Move.GIVEN)
        return self.holdings.selected(self.bits if giving else self.bits.swapped, self.peer.name)

    # ---- the giver

    def give(self, bits: Hold, why: str, now: float, *, check: bool = False) -> None:
        """Ask the peer to take `bits`. The caller made sure that both sides are idle."""
        self.machine.go(MoveSignal.GIVE)
        self.bits, self.why, self.deadline = bits, why, now + ANSWER_S
        self._tell(Level.INFO, f"asking {self.peer.name} to take our {bits.word} resources: {why}", "handover")
        message: wire.Message = {"t": "ask_resources", "rsc_hold": bits.word, "info": "me"}
        if check:
            message["hkwhy"] = "check"
        self._send(message)

    def _accepted(self, now: float) -> None:
        self.machine.go(MoveSignal.ACCEPTED)
        self.deadline = None
        left = self.holdings.hold(self.peer.name) & ~self.bits
        self._send({"t": "resource", "rsc_hold": left.word, "rtype": "full", "isstable": "0", "info": "standby"})
        for group in self.groups():
            group.recover = False
            if group.held:
                self.holdings.stop(group, Op.RELEASE, f"{self.peer.name} takes it: {self.why}")
        self.progress(now)

    # ---- messages

    def receive(self, message: wire.Message, now: float, *, ready: bool, health: Health) -> None:
        """An `ask_resources` of the peer; `ready`: our side is stable and nothing is being changed."""
        info = wire.text(message, "info")
        bits = HOLD_WORDS.get(wire.text(message, "rsc_hold"), Hold.ALL)
        if info == "me":
            self._asked(message, bits, now, ready=ready, health=health)
        elif info == "other" and self.state is Move.ASKED:
            self._accepted(now)
        elif info == "done" and self.state is Move.OFFERED:
            self._take(now)
        elif info == "done" and self.state is Move.GIVEN:
            self.machine.go(MoveSignal.DONE)
            self.deadline = None
            self._tell(Level.INFO, f"{self.peer.name} has taken our {self.bits.word} resources", "handed_over")

    def _asked(self, message: wire.Message, bits: Hold, now: float, *, ready: bool, health: Health) -> None:
        name = self.peer.name
        if health in (Health.DOWN, Health.UNKNOWN):
            text = f"{name} wants to give us its {bits.word} resources: refused, our own check is {health.value}"
            self._tell(Level.WARN, text, "standby_refused")
        elif not ready or self.state is not Move.IDLE or self._both_have_some(bits.swapped):
            # What both believe to hold is settled first: taking would start nothing here, and the giver would stop it.
            self._tell(Level.WARN, f"{name} wants to go standby [{bits.word}]: ignored, we are in flux", "")
        else:
            self.machine.go(MoveSignal.ASKED)
            self.waiting_since = now
            self.bits = bits
            self.took_for_check = wire.text(message, "hkwhy") == "check"
            self.deadline = now + (PHASE_S if self.peer.haptk else PHASE_REAL_S)
            self._tell(Level.INFO, f"{name} wants to go standby [{bits.word}]: we can take them", "standby_accepted")
            self._send({"t": "ask_resources", "rsc_hold": bits.word, "info": "other"})

    def _both_have_some(self, bits: Hold) -> bool:
        for group in self.holdings.selected(bits, self.peer.name):
            if group.held and self.peer.claims_group(group.index, self.holdings.mine(group, self.peer.name)):
                return True
        return False

    def _take(self, now: float) -> None:
        self.machine.go(MoveSignal.DONE)
        self.deadline = None
        for group in self.groups():
            if group.state in (GroupState.RELEASED, GroupState.FAILED, GroupState.CEDED):
                self.holdings.start(group, f"{self.peer.name} handed it over")
        self.progress(now)

    # ---- progress

    def progress(self, now: float) -> bool:
        """Go on when operations have ended or time is up; True when the exchange has just ended."""
        before = self.state
        if self._abandoned(now):
            self.deadline = now
        if self.state is Move.GIVING and not any(group.changing for group in self.groups()):
            self._released(now)
        elif self.state is Move.TAKING and not any(group.changing for group in self.groups()):
            self.machine.go(MoveSignal.TAKEN)
            self._send({"t": "ask_resources", "rsc_hold": self.bits.word, "info": "done"})
        elif self.deadline is not None and now >= self.deadline:
            self._too_late(now)
        return before is not Move.IDLE and self.state is Move.IDLE

    def _abandoned(self, now: float) -> bool:
        """The other side gave up without a word (it lost sight of us): a haptk node's status shows that it is idle."""
        patience = 2 * self.config.timing.keepalive_s + 1.0
        waiting = self.state in (Move.OFFERED, Move.GIVEN)
        return waiting and self.peer.haptk and self.peer.stable and now >= self.waiting_since + patience

    def _released(self, now: float) -> None:
        if any(group.held for group in self.groups()):
            self.machine.go(MoveSignal.NOT_RELEASED)
            self.retry_at = now + self.config.timing.retry_s
            text = "the move is given up: a resource could not be stopped here, so nobody else may start it"
            self._tell(Level.CRIT, text, "handover_failed")
            return
        self.machine.go(MoveSignal.RELEASED)
        self.waiting_since = now
        self.deadline = now + (PHASE_S if self.peer.haptk else PHASE_REAL_S)
        self._send({"t": "ask_resources", "rsc_hold": self.bits.word, "info": "done"})

    def _too_late(self, now: float) -> None:
        text = {
            Move.ASKED: f"{self.peer.name} does not answer the standby request: we keep what we have",
            Move.GIVEN: f"{self.peer.name} does not say that it took our resources",
            Move.OFFERED: f"{self.peer.name} wanted to give its resources and does not go on",
        }.get(self.state, "the move takes too long")
        self.deadline = None
        self.machine.go(MoveSignal.NO_ANSWER)
        self.retry_at = now + self.config.timing.retry_s
        self._tell(Level.WARN, text, "handover_failed")

    def peer_gone(self) -> None:
        if self.state is not Move.IDLE:
            self._tell(Level.WARN, f"{self.peer.name} went away in the middle of a planned move", "")
        self.machine.go(MoveSignal.PEER_GONE)
        self.deadline = None

    def _tell(self, level: Level, text: str, event: str) -> None:
        self._say(Say(level, text, event, (("peer", self.peer.name), ("hold", self.bits.word))))
