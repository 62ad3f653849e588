"""The resource negotiation: what this node should hold, given what it sees. Heartbeat's nice_failback protocol.

Theory of operation. Messages only change what we know (the peer's holdings, its stability, its health); after every
change `evaluate` compares the wish with the state, group by group, and acts on the difference. So a lost message
delays a decision and never loses it. The invariants, checked by tests/sim:

1. A node that nobody has heard of for its dead time is replaced; one that is heard never is, unless it says that it
   does not hold a group and nobody else does.
2. When we cannot see, we do nothing: with witnesses configured and none of them answering, silence of the peer
   proves that *we* are cut off; a status that is unknown neither starts nor stops anything.
3. Two claims to one group are settled by the resource itself where it has one holder (an Elastic IP); else the node
   that haresources names keeps it. The loser lets go; nobody restarts.
4. What moved away under a silent peer is not fetched back before `initdead`, then after twice that, and so on: the
   peer may live behind a cut, and a fight is worse than a wrong holder; but it may also have died since.
   With leases (see grants) nothing is taken from a silent peer without the lease of the group.
5. Nothing is given away without a taker that answered, except by a stop.

`isstable=1` is said only while nothing is being changed here; a real node then acts on our `rsc_hold`.
"""

from __future__ import annotations

from collections.abc import Callable

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.farewell import Farewell
from haptk.core.heartbeat.grants import Grants
from haptk.core.heartbeat.holdings import Group, Holdings
from haptk.core.heartbeat.model import (
    HOLD_WORDS,
    Claim,
    Failback,
    Finished,
    Health,
    Hold,
    Level,
    NodeConfig,
    Op,
    Outcome,
    Run,
    Say,
)
from haptk.core.heartbeat.peers import Peer
from haptk.core.heartbeat.standby import Mover
from haptk.core.heartbeat.tables import PHASE, GroupState, Machine, Move, Phase, PhaseSignal

REAL_ORPHAN_S = 15.0
"""A real node may be 10 s into its own start-up before it takes what is its own."""

CONFLICT_REAL_S = 5.0
"""A real node that returns from a partition gives up everything within some 2 s by itself: let it."""


class Negotiation:
    """One pair's resources. The node calls the `on_` methods and then `evaluate`."""

    def __init__(
        self,
        config: NodeConfig,
        peer: Peer,
        *,
        say: Callable[[Say], None],
        run: Callable[[Run], None],
        send: Callable[[wire.Message], None],
        finish: Callable[[Finished], None],
        claim: Callable[[Claim], None],
    ) -> None:
        self.config = config
        self.peer = peer
        self._say_to = say
        self.send = send
        self.holdings = Holdings(config, say, run)
        self.mover = Mover(config, self.holdings, peer, say, send)
        self.grants = Grants(config, self.holdings, peer, say, claim)
        self.machine: Machine[Phase, PhaseSignal] = Machine("the negotiation", PHASE, Phase.INIT)
        self.farewell = Farewell(self, finish)
        self.health = config.health
        self._fingerprint = peer.fingerprint = config.fingerprint
        self.witness: bool | None = None
        """Whether a witness (ping node) answers: True, False, or None without witnesses or before they are judged."""

        self.witness_heard_at = float("-inf")
        self.settle_at: float | None = None
        self.due_at: float | None = None
        """When `evaluate` has to run again although nothing happens."""

        self.needs_failback = False
        self._announced: tuple[Hold, bool, set[int]] | None = None
        self._said: dict[str, str] = {}

    # ---- what others may ask

    @property
    def phase(self) -> Phase:
        return self.machine.state

    @property
    def stop_wanted(self) -> bool:
        return self.farewell.wanted

    @property
    def stable(self) -> bool:
        """What `isstable` says."""
        return self.phase is Phase.STABLE and self.mover.quiet and not self.holdings.changing

    @property
    def word(self) -> str:
        """rscstatus, as cl_status shows it."""
        if self.phase is not Phase.STABLE or not self.stable:
            return "transition"
        return self.holdings.hold(self.peer.name).word

    def extras(self) -> wire.Message:
        """The fields that tell a haptk peer what is really held here."""
        failed = self.holdings.failed()
        return {
            "haptk": "1",
            "hkconf": self._fingerprint,
            "hkheld": _words(self.holdings.held()),
            **({"hkfail": _words(failed)} if failed else {}),
            **({"hklease": _words(self.grants.ours())} if self.grants.on else {}),
            "hkhold": self.holdings.hold(self.peer.name).word,
            "hkstable": "1" if self.stable else "0",
            "hkhealth": self.health.value,
        }

    # ---- what happened

    def on_comm_up(self, now: float) -> None:
        """Every node was heard or declared dead, and our groups were looked at: take part."""
        self.machine.go(PhaseSignal.COMM_UP)
        self._announced = None
        if self.peer.gone:
            self._settle("the peer is not there")
            return
        self.settle_at = now + self.config.timing.settle_s
        self.send({"t": "starting", **self.extras()})

    def on_peer_status(self, now: float) -> None:
        """A status came; a haptk peer's tells its holdings."""
        if self.peer.differs:
            self.once("differs", f"{self.peer.name} has other resources than we have: make them the same on both nodes")
        if self.peer.haptk and self.peer.able:
            self.peer.told = True

    def on_starting(self, message: wire.Message, now: float) -> None:
        """The peer has just come up: it holds nothing, unless it says otherwise."""
        if not self.machine.can(PhaseSignal.PEER_STARTING):
            return
        self.machine.go(PhaseSignal.PEER_STARTING)
        self.peer.hold, self.peer.stable, self.peer.left = Hold.NONE, False, False
        self.peer.note_extras(message)
        self.peer.told = True
        self._announce(now, force=True)

    def on_resource(self, message: wire.Message, now: float) -> None:
        """The peer's holdings. Without `rtype=full` they come on top of what it had."""
        word = HOLD_WORDS.get(wire.text(message, "rsc_hold"))
        if self.phase is Phase.SHUTDOWN:
            self.peer.note_extras(message)  # a haptk peer says that it took over
        if word is None or self.phase in (Phase.INIT, Phase.SHUTDOWN):
            return
        self.machine.go(PhaseSignal.RESOURCE)
        peer = self.peer
        if wire.text(message, "info") == "shutdown":
            peer.note_extras(message)
            peer.stable, peer.hold, peer.claims = False, Hold.NONE, set() if peer.haptk else None
            return
        full = wire.text(message, "rtype") == "full"
        peer.hold = word if full or word is Hold.NONE else peer.hold | word
        was_stable, peer.told = peer.stable, True
        if "isstable" in message:
            peer.stable = wire.text(message, "isstable") == "1"
        peer.note_extras(message)
        if peer.stable and not was_stable:
            self.tell(Level.INFO, "remote resource transition completed.")
            self._announce(now, force=True)

    def on_ask(self, message: wire.Message, now: float) -> None:
        if self.phase is not Phase.STABLE:
            return
        ready = self.stable and self.peer.able
        self.mover.receive(message, now, ready=ready, health=self.health)
        if self.mover.state is Move.TAKING and self.mover.took_for_check:
            self.needs_failback = True

    def on_takeover_request(self, message: wire.Message, now: float) -> str:
        """The peer's operator wants resources there (`hb_takeover`): give them."""
        bits = HOLD_WORDS.get(wire.text(message, "rsc_hold"), Hold.ALL).swapped
        return self.give(bits, f"{self.peer.name}'s operator wants them", now)

    def on_ip_request(self, message: wire.Message, now: float) -> None:
        """Only auto_failback legacy asks group by group."""
        self.tell(Level.WARN, f"{self.peer.name} speaks the old protocol: is its auto_failback legacy?")

    def on_ip_response(self, message: wire.Message, now: float) -> None:
        """The answer to an ip-request; a real node also sends it to itself, for everybody to see."""

    def on_shutdone(self) -> None:
        self.tell(Level.INFO, f"Received shutdown notice from '{self.peer.name}'.", "peer_left")
        self.peer.leave()
        self._peer_gone()

    def on_peer_dead(self) -> None:
        self._peer_gone()

    def on_peer_restarted(self) -> None:
        """It came back before it was declared dead: it has forgotten any exchange, and we know nothing of it."""
        self.mover.peer_gone()

    def on_peer_returned(self, now: float) -> None:
        """A node that was dead is heard again. Both may hold everything: say what we hold and ask the same."""
        self.holdings.see_again()
        if self.phase is Phase.STABLE:
            self.send_resource(self.holdings.announced(self.peer.name, False, self.peer.hold), stable=False)
            self._announce(now, force=True)
            self.holdings.look([group for group in self.holdings.groups if group.held], now)

    def _peer_gone(self) -> None:
        self.mover.peer_gone()
        self.say_again("lease", "witness", "blind")
        for group in self.holdings.groups:
            group.orphan_since = group.conflict_since = None
            group.retry_at = float("-inf")

    def on_done(self, ticket: int, outcome: Outcome, now: float) -> None:
        """An operation has ended."""
        group = self.holdings.done(ticket, outcome, now, self.peer.gone)
        if group is not None and group.conflict_since is not None and group.held:
            self._settle_conflict(group, outcome)

    # ---- orders of the operator

    def give(self, bits: Hold, why: str, now: float, *, check: bool = False) -> str:
        """Start a planned move of `bits`; returns "" or the reason why not."""
        if self.phase is not Phase.STABLE:
            return "this node is not ready yet"
        if not self.peer.able:
            return f"{self.peer.name or 'the peer'} is not there to take them"
        if not self.stable or self.mover.state is not Move.IDLE:
            return "a change is under way"
        if not self.peer.stable:
            return f"{self.peer.name} is in the middle of a change"
        if self.peer.health is Health.DOWN:
            return f"{self.peer.name}'s own check is down"
        if any(group.conflict_since is not None for group in self.holdings.selected(bits, self.peer.name)):
            return f"{self.peer.name} holds them too, which is settled first"
        self.mover.give(bits, why, now, check=check)
        return ""

    def want(self, bits: Hold) -> str:
        """Ask the peer to hand `bits` (seen from us) over; returns "" or the reason why not."""
        if self.phase is not Phase.STABLE:
            return "this node is not ready yet"
        if self.peer.able and self.health in (Health.DOWN, Health.UNKNOWN):
            return f"our own check is {self.health.value}, so {self.peer.name} keeps them"
        if self.peer.able:
            self.send({"t": "hb_takeover", "rsc_hold": bits.word})
        self.holdings.see_again()
        for group in self.holdings.selected(bits, self.peer.name):
            group.retry_at, group.failures = float("-inf"), 0
        return ""

    def stop(self) -> None:
        """Graceful stop: finish what is under way, release everything, say good-bye, leave."""
        self.farewell.wanted = True
        for group in self.holdings.groups:
            group.recover = False

    def force_settle(self) -> None:
        """The peer is missing at the end of initdead, or its answer at the end of the settling time."""
        self._settle("waiting is over")

    # ---- the comparison of wish and state

    def evaluate(self, now: float) -> None:
        """Act on the difference between what should be held here and what is."""
        self.mover.progress(now)
        if self.farewell.wanted:
            self.farewell.advance(now)
        else:
            self._maybe_settle(now)
            if self.phase is Phase.STABLE:
                self._compare(now)
            else:
                self._only_watch(now)
        self.grants.tell()
        self.due_at = self._next_at(now)

    def _only_watch(self, now: float) -> None:
        """Before we take part: what was found up here may be taken away or die, and is not started again yet."""
        for group in self.holdings.groups:
            group.recover = False
        self.monitor(now)

    def _compare(self, now: float) -> None:
        if self.mover.quiet:
            for group in self.holdings.groups:
                if not group.changing:
                    self._decide(group, now)
            held = self.holdings.hold(self.peer.name)
            if self.needs_failback and not self.holdings.changing and held in (Hold.NONE, Hold.LOCAL):
                self.needs_failback = False
            self._maybe_move(held, now)
        self.monitor(now)
        self._announce(now)

    def _maybe_settle(self, now: float) -> None:
        if self.phase not in (Phase.STARTING, Phase.BOTH_STARTING, Phase.RECEIVED):
            return
        if self.peer.gone:
            self._settle("the peer is not there")
        elif self.peer.told:
            self._settle("the peer's holdings are known")
        elif self.settle_at is not None and now >= self.settle_at:
            self._settle("the peer says nothing of its holdings")

    def _settle(self, why: str) -> None:
        self.machine.go(PhaseSignal.SETTLED)
        self.settle_at = None
        self.tell(Level.INFO, f"local resource transition completed. ({why})", "stable")

    def _decide(self, group: Group, now: float) -> None:
        mine = self.holdings.mine(group, self.peer.name)
        theirs = self.peer.able and self.peer.claims_group(group.index, mine)
        if group.held:
            if not self.grants.lost(group, theirs):
                self._watch_conflict(group, theirs, now)
            return
        group.conflict_since = None
        if theirs and group.state is GroupState.FAILED and now >= group.forget_at:
            self.holdings.forgive(group)
        if now < group.retry_at:
            return
        if self.peer.gone:
            self._take_from_the_dead(group, now)
        elif not theirs and group.state is not GroupState.CEDED and self._peer_settled(group, mine):
            self._take_orphan(group, mine, now)
        else:
            group.orphan_since = None
            group.ever_settled = group.ever_settled or theirs

    def _peer_settled(self, group: Group, mine: bool) -> bool:
        """The peer is not about to take the group. A real node waits for our `isstable=1` before its own, so at our
        own start we take what is ours without waiting for it."""
        if not self.peer.able:
            return False
        return self.peer.stable or (mine and not group.ever_settled and self.peer.told and not self.peer.haptk)

    def _take_from_the_dead(self, group: Group, now: float) -> None:
        key, name = group.config.key, self.peer.name or self.config.peer_address or "the peer"
        if group.state is GroupState.CEDED and now < group.blind_until:
            text = f"{key} moved away while {name} was silent, so {name} may be alive: not fetched back for now"
            self.once(f"blind{group.index} {group.blind_until}", text)
            return
        if not self._witnessed(now):
            if self.witness is False:
                text = f"no witness answers, so we are cut off ourselves: {key} is not taken"
                self.once(f"witness{group.index}", text)
            return
        if not self.peer.left and not self.grants.may_take(group):
            self.once(f"lease{group.index}", f"{key} is not taken from {name} before its lease is ours")
            return
        if not self.holdings.mine(group, self.peer.name):
            self.needs_failback = True
        group.ever_settled = True
        self.holdings.start(group, f"{name} {'has left' if self.peer.left else 'is dead'}")

    def _witnessed(self, now: float) -> bool:
        """A witness has answered during the peer's silence, so it is not we who are cut off.

        Both silences begin at the same moment when a cable is pulled, so an older answer proves nothing.
        """
        if not self.config.ping_nodes or self.peer.left:
            return True
        timing = self.config.timing
        return self.witness_heard_at >= max(self.peer.heard_at + 1.5 * timing.keepalive_s, now - timing.deadping_s)

    def _take_orphan(self, group: Group, mine: bool, now: float) -> None:
        """Nobody holds it although both nodes live: the better one of the two takes it."""
        timing = self.config.timing
        if group.orphan_since is None:
            group.orphan_since = now
        grace = 2 * timing.keepalive_s + 0.5
        if not self._we_are_better(group, mine):
            both_fail = group.state is GroupState.FAILED and group.index in self.peer.failed
            if both_fail:  # before its owner tries again, or it would never be our turn
                grace += timing.keepalive_s
            else:
                grace = 3 * grace + 1.0 if self.peer.haptk else REAL_ORPHAN_S
        elif not group.ever_settled:
            grace = 0.0
        group.orphan_until = group.orphan_since + grace
        if now < group.orphan_until:
            return
        why = "it belongs here" if mine and not group.ever_settled else "nobody holds it"
        group.ever_settled = True
        self.holdings.start(group, why)

    def _we_are_better(self, group: Group, mine: bool) -> bool:
        most = self.config.start_attempts
        we = self.health is not Health.DOWN and not (group.state is GroupState.FAILED and group.failures >= most)
        they = self.peer.health is not Health.DOWN and group.index not in self.peer.failed
        return mine if we == they else we

    def _watch_conflict(self, group: Group, theirs: bool, now: float) -> None:
        group.orphan_since, group.ever_settled = None, True
        if not theirs or not self.peer.stable:
            group.conflict_since = None
            return
        if group.conflict_since is None:
            group.conflict_since = now
            text = f"both {self.config.name} and {self.peer.name} hold {group.config.key}"
            self.tell(Level.ERROR, text, "conflict", group=group.index)
            group.verify_at = now + (self.config.timing.keepalive_s / 2 if self.peer.haptk else CONFLICT_REAL_S)

    def _settle_conflict(self, group: Group, outcome: Outcome) -> None:
        """We still hold it after looking. Where the resource itself cannot tell, the lease or its name decides."""
        if group.config.exclusive or outcome.seen.value == "unknown":
            return
        by_lease = self.grants.yields(group)
        if by_lease:
            self.holdings.stop(group, Op.STOP, f"{self.peer.name} holds it too, and has its lease")
        elif by_lease is None and not self.holdings.mine(group, self.peer.name):
            self.holdings.stop(group, Op.STOP, f"{self.peer.name} holds it too, and it belongs there")

    def _maybe_move(self, held: Hold, now: float) -> None:
        """Planned moves that we start ourselves: a sick holder gives, a survivor gives back, a failure hands on."""
        mover, peer = self.mover, self.peer
        if mover.state is not Move.IDLE or now < mover.retry_at or not self.stable:
            return
        if held and (self.health is Health.DOWN or self._pings_worse()):
            self._give_for_health(held, now)
        elif (
            self.config.failback is Failback.ON
            and self.needs_failback
            and held & Hold.FOREIGN
            and peer.able
            and peer.stable
            and not self._peer_unfit(Hold.FOREIGN)
        ):
            self.give(Hold.FOREIGN, "it belongs there (auto_failback on)", now)
        elif self.holdings.failed() and not peer.haptk and peer.able and peer.stable:
            self._hand_on_failed(now)

    def _pings_worse(self) -> bool:
        return self.witness is False and self.peer.haptk and bool(self.peer.pings)

    def _give_for_health(self, held: Hold, now: float) -> None:
        if self._peer_unfit(held):
            reason = f"{self.peer.name or 'the peer'} could not serve it either"
        else:
            reason = self.give(held, "our own check is down", now, check=True)
        if reason:
            self.once("sick", f"our own check is down, but we keep the resources: {reason}")

    def _peer_unfit(self, bits: Hold) -> bool:
        wanted = {group.index for group in self.holdings.selected(bits, self.peer.name)}
        return (
            not self.peer.able or self.peer.health in (Health.DOWN, Health.UNKNOWN) or bool(wanted & self.peer.failed)
        )

    def _hand_on_failed(self, now: float) -> None:
        """A real node does not read our `hkfail`: ask it to take what does not start here."""
        bits = Hold.NONE
        for group in self.holdings.groups:
            mine = self.holdings.mine(group, self.peer.name)
            if group.index in self.holdings.failed() and not self.peer.claims_group(group.index, mine):
                bits |= Hold.LOCAL if mine else Hold.FOREIGN
        if bits:
            self.mover.retry_at = now + self.config.timing.retry_s
            self.give(bits, "it does not start here", now)

    def monitor(self, now: float) -> None:
        """Look every now and then at what we hold, at what was taken from us, and at what we could not see so far."""
        for group in self.holdings.groups:
            if group.watched and now >= group.verify_at and group.op is None:
                self.holdings.look([group], now)

    # ---- talking

    def _announce(self, now: float, *, force: bool = False) -> None:
        """Send `resource` when what it would say has changed."""
        if self.phase in (Phase.INIT, Phase.SHUTDOWN) or not self.mover.quiet:
            return
        stable = self.stable
        current = (
            self.holdings.announced(self.peer.name, stable, self.peer.hold),
            stable,
            self.holdings.held(),
        )
        if force or current != self._announced:
            self._announced = current
            self.send_resource(current[0], stable=stable)

    def send_resource(self, hold: Hold, *, stable: bool) -> None:
        message: wire.Message = {"t": "resource", "rsc_hold": hold.word, "rtype": "full"}
        self.send({**message, "isstable": "1" if stable else "0", **self.extras()})

    def _next_at(self, now: float) -> float | None:
        """When time alone can change a decision; what is due already was decided just now."""
        times = [self.settle_at, self.mover.deadline, *self.farewell.times()]
        for group in self.holdings.groups:
            if group.changing:
                continue
            if group.watched and group.op is None:
                times.append(group.verify_at)
            if group.orphan_since is not None:
                times.append(group.orphan_until)
            if group.state is GroupState.FAILED:
                times += [group.retry_at, group.forget_at]
            if group.state is GroupState.CEDED:
                times.append(group.blind_until)
        return min([at for at in times if at is not None and at > now], default=None)

    def once(self, key: str, text: str) -> None:
        """Say a lasting condition once, until its text changes."""
        if self._said.get(key) != text:
            self._said[key] = text
            self.tell(Level.WARN, text)

    def say_again(self, *beginnings: str) -> None:
        """A new occasion: what was said `once` about it before is worth a line again."""
        self._said = {key: text for key, text in self._said.items() if not key.startswith(beginnings)}

    def tell(self, level: Level, text: str, event: str = "", **fields: object) -> None:
        self._say_to(Say(level, text, event, tuple(fields.items())))


def _words(indexes: set[int]) -> str:
    """Group numbers as a field of a message."""
    return ".".join([str(index) for index in sorted(indexes)])
