"""A heartbeat node: the five verbs, everything below them wired together.

`receive(data, source, now)` takes a datagram, `handle_timer(now)` does what is due, `timer_at()` says when that is,
`to_send(now)` hands out datagrams and `next_event()` what the shell has to do or log. Besides these the shell reports
ends of operations (`done`), its check (`set_health`), its witnesses (`ping_heard`), and the operator's commands.
`wall_offset_s` (Unix time minus `now`) and `load` are kept current by the shell, because a core reads no clock.
"""

from __future__ import annotations

import random
from collections import deque

from haptk.core.heartbeat import wire
from haptk.core.heartbeat.auth import AuthError, KeyRing
from haptk.core.heartbeat.legacy import LegacyNegotiation
from haptk.core.heartbeat.model import (
    Event,
    Failback,
    Finished,
    Grant,
    Health,
    Hold,
    Level,
    NodeConfig,
    Outcome,
    Packet,
    Remember,
    Run,
    Say,
    Source,
)
from haptk.core.heartbeat.peers import Admission, Peer, lateness_text
from haptk.core.heartbeat.resources import Negotiation
from haptk.core.heartbeat.sequence import Outgoing, Verdict
from haptk.core.heartbeat.tables import NodeState, Phase
from haptk.core.heartbeat.witness import Witnesses

PROTOCOL = "1"
ASK_NODES_EVERY_S = 1.0
COMPLAIN_EVERY_S = 60.0
"""A lasting fault (a wrong key) is reported at most once in this time."""

COMPLAINTS_AT_MOST = 32
"""Different faults that are reported within that time."""

LOOK_LIMIT_S = 5.0
"""How long the start waits for the first look at our own resources."""

QUICK_ANSWERS_PER_S = 5.0
PROOF = "NS_hkproof"
"""Only between haptk nodes: `ask` a number, `answer` the same, under the usual digest."""

PROOF_EVERY_S = 0.5


class Node:
    """One heartbeat node and its one peer."""

    def __init__(self, config: NodeConfig, keys: KeyRing, seed: int, now: float, wall_offset_s: float = 0.0) -> None:
        self.config = config
        self.keys = keys
        self.wall_offset_s = wall_offset_s
        self.load = "0.00 0.00 0.00 1/1 1"
        self._rng = random.Random(seed)  # noqa: S311 (spreads retransmission requests, no secret)
        self._events: deque[Event] = deque()
        self._packets: deque[Packet] = deque()
        self._outgoing = Outgoing()
        self._complained: dict[str, float] = {}
        self.peer = Peer(
            config.peer or "", config.timing, config.peer_generations.get(config.peer or "", 0), self._rng, now
        )
        self.peer.uuid = config.peer_uuids.get(config.peer or "", b"")
        kind = LegacyNegotiation if config.failback is Failback.LEGACY else Negotiation
        self.negotiation: Negotiation = kind(
            config, self.peer, say=self._events.append, run=self._events.append, send=self._send,
            finish=self._events.append, claim=self._events.append,
        )  # fmt: skip
        self.witnesses = Witnesses(config.ping_nodes, config.timing.deadping_s, now)
        self._last_now = now
        self._timer_at: float | None = None
        self._status_at = now
        self._quick_at = self._proof_at = self._proof_answer_at = float("-inf")
        self._proof = ""
        self._ask_nodes_at: float | None = None
        self._started_at = now
        self._nodes_known = False
        self.state = NodeState.INIT
        self.active_since: float | None = None
        self._start(now)

    def _start(self, now: float) -> None:
        groups = ", ".join(group.key for group in self.config.groups) or "none"
        self._tell(
            Level.INFO, f"Local status now set to: 'up' (generation {self.config.generation}, resources: {groups})",
            "started", generation=self.config.generation,
        )  # fmt: skip
        self._send_status(now)
        self.state = NodeState.UP
        self._send_status(now)
        self._send_status(now)
        self.negotiation.holdings.look(self.negotiation.holdings.groups, now)

    # ---- the five verbs

    def receive(self, data: bytes, source: Source, now: float) -> None:
        """Take one datagram. Whatever is wrong with it is said (rarely) and nothing else happens."""
        due = self._note_pause(now)
        told = False
        try:
            told = self._receive_authentic(self.keys.open(data), source, now)
        except AuthError as error:
            self._complain(now, f"auth {source.address}", f"a message from {source.address} is refused: {error}")
        except wire.WireError as error:
            self._complain(now, f"wire {source.address}", f"a packet from {source.address} is no message: {error}")
        if told or due:
            self.negotiation.evaluate(now)

    def handle_timer(self, now: float) -> None:
        """Do everything that is due. The shell reads its sockets before it calls this."""
        self._note_pause(now)
        if now >= self._status_at:
            self._send_status(now)
        self._check_peer(now)
        self._ask_for_missing(now)
        self._advance_start(now)
        self._judge_witnesses(now)
        self.negotiation.evaluate(now)

    def timer_at(self) -> float:
        """When `handle_timer` is wanted next; never before the `now` of the last call."""
        if self._timer_at is None:
            first, peer = self._status_at, self.peer
            for at in (
                peer.dead_at(), peer.next_link_check(), peer.incoming.ask_at(), self._ask_nodes_at,
                self.negotiation.due_at, self.witnesses.next_at(self._last_now),
            ):  # fmt: skip
                if at is not None and at < first:
                    first = at
            self._timer_at = max(self._last_now, first)
        return self._timer_at

    def to_send(self, now: float) -> list[Packet]:
        """The datagrams to send now, on every link."""
        packets = list(self._packets)
        self._packets.clear()
        return packets

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    # ---- what the shell reports

    def done(self, ticket: int, outcome: Outcome, now: float) -> None:
        """An operation that a Run asked for has ended."""
        self._note_pause(now)
        self.negotiation.on_done(ticket, outcome, now)
        self._advance_start(now)
        self.negotiation.evaluate(now)

    def set_health(self, health: Health, reason: str, now: float) -> None:
        """The local check was judged anew."""
        before, self.negotiation.health = self.negotiation.health, health
        if before is health:
            return
        self._timer_at = None
        self.negotiation.say_again("sick")
        if health is Health.DOWN:
            self._tell(Level.WARN, f"our own check is down: {reason}", "local_check_down", reason=reason)
        elif health is Health.UP:
            self._tell(Level.INFO, f"our own check is up: {reason}", "local_check_up", reason=reason)
        self._status_at = min(self._status_at, now)
        self.negotiation.evaluate(now)

    def ping_heard(self, name: str, now: float) -> None:
        """A witness answered."""
        self._timer_at = None
        new = self.witnesses.heard(name, now)
        if new:
            self._tell(Level.INFO, f"Status update for ping node {name}: status ping")
        self._judge_witnesses(now)
        if new or self.peer.gone:  # only then does an answer decide anything
            self.negotiation.evaluate(now)

    def granted(self, ticket: int, grant: Grant, why: str, now: float) -> None:
        """What the lease store says about the lease that a Claim was for; its answer, and whenever that changes."""
        self._note_pause(now)
        self.negotiation.grants.granted(ticket, grant, why)
        self.negotiation.evaluate(now)

    # ---- the operator

    def give(self, bits: Hold, now: float) -> str:
        """standby: returns "" or why it is refused."""
        self._timer_at = None
        return self.negotiation.give(bits, "asked by the operator", now)

    def want(self, bits: Hold, now: float) -> str:
        """takeover: returns "" or why it is refused."""
        self._timer_at = None
        refusal = self.negotiation.want(bits)
        self.negotiation.evaluate(now)
        return refusal

    def stop(self, now: float) -> None:
        """Leave gracefully; Finished comes when everything is released and handed over."""
        if not self.negotiation.stop_wanted:
            self._timer_at = None
            self.negotiation.stop()
            self.negotiation.evaluate(now)

    # ---- receiving

    def _receive_authentic(self, message: wire.Message, source: Source, now: float) -> bool:
        """Take an authentic message; False when it tells nothing that a decision depends on."""
        name, kind = wire.text(message, "src").lower(), wire.text(message, "t")
        if not name or not kind or not wire.number(message, "ts"):
            self._complain(now, "fields", f"a message from {source.address} lacks src, ts or t")
            return False
        if name == self.config.name:
            self._heard_own_name(message, source, now)
            return False
        if not self.peer.name:
            self._learn(name, source)
        if name != self.peer.name:
            self._complain(now, f"node {name}", f"bad node [{name}] in a message from {source.address}: not ours")
            return False
        if kind.startswith("NS_"):
            self._touch(source, now)
            self._receive_unnumbered(kind, message, now)
            return False
        if not wire.number(message, "seq"):
            self._complain(now, "fields", f"a message of {name} has no sequence number")
            return False
        self._touch(source, now)
        return self._receive_numbered(kind, message, now)

    def _heard_own_name(self, message: wire.Message, source: Source, now: float) -> None:
        uuid = message.get("srcuuid")
        if isinstance(uuid, bytes) and uuid and uuid != self.config.uuid:
            text = f"the node at {source.address} calls itself {self.config.name}, which is our own name"
            self._complain(now, "name", f"{text}: give one of the two another name (--node)")

    def _learn(self, name: str, source: Source) -> None:
        self.peer.name = name
        self.peer.machine.name = f"node {name}"
        self.peer.generation = self.config.peer_generations.get(name, 0)
        self._tell(Level.INFO, f"the node at {source.address} is called {name}", "peer_named", peer=name)

    def _touch(self, source: Source, now: float) -> None:
        if self.peer.touch_link(source.link, now) is not None:
            self._tell(Level.INFO, f"Link {self.peer.name}:{source.link} up.", "link_up", link=source.link)

    def _receive_unnumbered(self, kind: str, message: wire.Message, now: float) -> None:
        if not self._for_us(message):
            return
        peer = self.peer
        if kind == PROOF:
            self._on_proof(message, now)
            return
        if not peer.clock_ok(message, now + self.wall_offset_s, self.config.clock_window_s):
            self._complain(now, "clock", f"a message of {peer.name} is refused: its clock differs too much")
            return
        if kind == "NS_ackmsg":
            acked = wire.number(message, "ackseq")
            if acked is not None:
                self._outgoing.ack(peer.name, acked)
        elif kind == "NS_rexmit":
            first, last = wire.number(message, "firstseq", 10), wire.number(message, "lastseq", 10)
            if first and last:
                self._resend(first, last, now)
        elif kind == "NS_nak_rexmit":
            seq = wire.number(message, "firstseq")
            if seq is not None and peer.incoming.give_up(seq):
                self._tell(Level.WARN, f"Irretrievably lost packet: node {peer.name} seq {seq}")

    def _ask_for_proof(self, now: float) -> None:
        """Its clock is off, so it may be a recording: ask it to sign a number made now."""
        if now >= self._proof_at:
            self._proof_at = now + PROOF_EVERY_S
            self._proof = f"{self._rng.getrandbits(64):016x}"
            self._send({"t": PROOF, "dest": self.peer.name, "ask": self._proof})

    def _on_proof(self, message: wire.Message, now: float) -> None:
        asked, answer = wire.text(message, "ask"), wire.text(message, "answer")
        if asked and now >= self._proof_answer_at:
            self._proof_answer_at = now + PROOF_EVERY_S / 2
            self._send({"t": PROOF, "dest": self.peer.name, "answer": asked[:32]})
        elif answer and answer == self._proof:
            self._proof = ""
            self.peer.proved = wire.number(message, "hg") or 0
            text = f"node {self.peer.name} has proved that it is alive, although its clock is wrong: please set it"
            self._tell(Level.WARN, text, "clock_proved")

    def _resend(self, first: int, last: int, now: float) -> None:
        again, lost = self._outgoing.resend(self.peer.name, first, last, now)
        self._packets.extend(Packet(data) for data in again)
        for seq in lost[:8]:
            self._send({"t": "NS_nak_rexmit", "firstseq": f"{seq:x}", "dest": self.peer.name, "info": "seqno too low"})

    def _for_us(self, message: wire.Message) -> bool:
        uuid = message.get("destuuid")
        if isinstance(uuid, bytes) and any(uuid):
            return uuid == self.config.uuid
        return wire.text(message, "dest").lower() in ("", self.config.name)

    def _receive_numbered(self, kind: str, message: wire.Message, now: float) -> bool:
        peer = self.peer
        before = peer.generation
        admission = peer.admit(message, now, now + self.wall_offset_s, self.config.clock_window_s)
        if not admission.deliver:
            self._refused(admission, message, now)
            return False
        uuid = message.get("srcuuid")
        if isinstance(uuid, bytes) and len(uuid) == 16 and uuid != peer.uuid:
            peer.uuid = uuid
            self._remember()
        if peer.generation != before:
            self._remember()
        if admission is Admission.RESTARTED:
            self._tell(Level.INFO, f"Heartbeat restart on node {peer.name}", "peer_restarted", peer=peer.name)
            self.negotiation.on_peer_restarted()
        self._report_gaps(message)
        self._acknowledge(message)
        if kind == "status":
            return self._on_status(message, now, returned=admission is Admission.RETURNED) or peer.generation != before
        if self._for_us(message):
            self._dispatch(kind, message, now)
        return True

    def _refused(self, admission: Admission, message: wire.Message, now: float) -> None:
        name = self.peer.name
        if admission is Admission.REPLAY and wire.number(message, "hg") != self.peer.generation:
            text = f"attempted replay attack [{name}]? [gen = {wire.number(message, 'hg')}, "
            self._complain(now, f"replay {name}", text + f"curgen = {self.peer.generation}]")
        elif admission is Admission.CLOCK:
            stamp = wire.number(message, "ts") or 0
            off = stamp - (now + self.wall_offset_s)
            text = f"messages of {name} are refused: its clock is {off:+.0f} s off ours"
            self._complain(
                now, f"clock {name}", f"{text} (allowed: {self.config.clock_window_s:.0f} s), asking for proof"
            )
            self._ask_for_proof(now)

    def _report_gaps(self, message: wire.Message) -> None:
        peer = self.peer
        if peer.verdict is Verdict.GAP:
            self._tell(Level.DEBUG, f"{len(peer.incoming.missing)} lost packet(s) for [{peer.name}]")
        elif peer.verdict is Verdict.TOO_FAR:
            self._tell(Level.WARN, f"lost a lot of packets of {peer.name}: starting over at its current one")
        elif peer.verdict is Verdict.FILLED and not peer.incoming.missing:
            self._tell(Level.DEBUG, f"No pkts missing from {peer.name}!")

    def _acknowledge(self, message: wire.Message) -> None:
        seq = wire.number(message, "seq") or 0
        if self.peer.flow_control and seq % 10 == self.peer.ack_digit and not self.peer.incoming.missing:
            self._send({"t": "NS_ackmsg", "dest": self.peer.name, "ackseq": f"{seq:x}"})

    def _on_status(self, message: wire.Message, now: float, *, returned: bool) -> bool:
        """Take a status; False when it only says that the peer goes on living as it did."""
        peer = self.peer
        first = not peer.ever_heard
        before, after, interval = peer.note_status(message, now)
        peer.note_clock(message, now + self.wall_offset_s)
        if returned or before is NodeState.DEAD:
            self._tell(Level.CRIT if returned else Level.INFO, self._return_text(returned), "peer_returned")
            self.negotiation.on_peer_returned(now)
        elif interval > self.config.timing.warntime_s:
            self._tell(*lateness_text(peer.name, interval), "late_heartbeat", interval_s=round(interval, 3))
        if before is not after or first:
            event = "peer_up" if first or before in (NodeState.DEAD, NodeState.INIT) else ""
            self._tell(Level.INFO, f"Status update for node {peer.name}: status {after.value}", event, peer=peer.name)
            self._answer_quickly(now)
        if not (peer.news or returned or first or before is not after):
            return False
        self.negotiation.on_peer_status(now)
        return True

    def _return_text(self, returned: bool) -> str:
        if returned:
            return f"Cluster node {self.peer.name} returning after partition."
        return f"node {self.peer.name} is back"

    def _answer_quickly(self, now: float) -> None:
        """A node that has just come up need not wait a keepalive for our status."""
        if now - self._quick_at >= 1 / QUICK_ANSWERS_PER_S:
            self._quick_at = now
            self._send_status(now)

    def _dispatch(self, kind: str, message: wire.Message, now: float) -> None:
        negotiation = self.negotiation
        if kind == "reqnodes":
            names = " ".join(sorted((self.config.name, self.peer.name))) + " "
            self._send({"dest": self.peer.name, "t": "repnodes", "nodelist": names, "delnodelist": " "})
        elif kind == "repnodes":
            self._nodes_known = True
            self._advance_start(now)
        elif kind == "starting":
            negotiation.on_starting(message, now)
        elif kind == "resource":
            negotiation.on_resource(message, now)
        elif kind == "ask_resources":
            negotiation.on_ask(message, now)
        elif kind == "hb_takeover":
            refusal = negotiation.on_takeover_request(message, now)
            if refusal:
                self._tell(Level.WARN, f"{self.peer.name} wants our resources: refused, {refusal}")
        elif kind == "ip-request":
            negotiation.on_ip_request(message, now)
        elif kind == "ip-request-resp":
            negotiation.on_ip_response(message, now)
        elif kind == "shutdone":
            negotiation.on_shutdone()

    # ---- what is due

    def _note_pause(self, now: float) -> bool:
        """We were not running (a stopped process, a paused machine): that silence was ours, not the peer's.

        Returns whether something is due by now.
        """
        late = now - self.timer_at()
        self._last_now = now
        self._timer_at = None
        limit = min(2 * self.config.timing.keepalive_s, self.config.timing.deadtime_s / 4)
        if late <= limit:
            return late >= 0.0
        self.peer.forgive(late, now)
        self.witnesses.forgive(late, now)
        if late > self.config.timing.deadtime_s / 2:
            self._tell(Level.WARN, f"this node stood still for {late:.1f} s: looking at what it holds", "paused")
            for group in self.negotiation.holdings.groups:
                group.verify_at = now
        return True

    def _check_peer(self, now: float) -> None:
        peer = self.peer
        dead_at = peer.dead_at()
        if dead_at is not None and now >= dead_at:
            name = peer.name or self.config.peer_address or "of the peer (never heard)"
            silent, left = now - peer.heard_at, peer.left
            peer.die()
            text = f"node {name}: is dead" + ("" if left else f" (silent for {silent:.2f} s)")
            self._tell(
                Level.INFO if left else Level.WARN,
                text,
                "" if left else "peer_dead",
                peer=name,
                silent_s=round(silent, 3),
            )
            self.negotiation.on_peer_dead()
        for link in peer.dead_links(now):
            self._tell(Level.WARN, f"Link {peer.name}:{link.name} dead.", "link_dead", link=link.name)

    def _ask_for_missing(self, now: float) -> None:
        for seq in self.peer.incoming.to_ask(now):
            self._send({"t": "NS_rexmit", "dest": self.peer.name, "firstseq": str(seq), "lastseq": str(seq)})

    def _advance_start(self, now: float) -> None:
        """From up to active: the peer was heard (or is dead), the node lists agree, our resources were looked at."""
        if self.state is not NodeState.UP or self.negotiation.phase is not Phase.INIT:
            self._ask_nodes_at = None
            return
        peer = self.peer
        if peer.ever_heard and not peer.gone and not self._nodes_known and peer.flow_control:
            if self._ask_nodes_at is None or now >= self._ask_nodes_at:
                self._ask_nodes_at = now + ASK_NODES_EVERY_S
                self._send({"t": "reqnodes", "dest": peer.name})
            return
        if not peer.ever_heard and not peer.gone:
            return
        self._ask_nodes_at = None
        if not self.negotiation.holdings.looked and now - self._started_at < LOOK_LIMIT_S:
            self._ask_nodes_at = now + 0.1
            return
        self.state = NodeState.ACTIVE
        self.active_since = now
        self._tell(Level.INFO, "Comm_now_up(): updating status to active", "active")
        self._send_status(now)
        self.negotiation.on_comm_up(now)

    def _judge_witnesses(self, now: float) -> None:
        if not self.config.ping_nodes:
            return
        for name in self.witnesses.newly_dead(now):
            self._tell(Level.WARN, f"node {name}: is dead (ping node)", "witness_dead", witness=name)
        self.negotiation.witness = self.witnesses.answer(now)
        self.negotiation.witness_heard_at = self.witnesses.last_answer()

    # ---- sending

    def _send_status(self, now: float) -> None:
        keepalive = self.config.timing.keepalive_s
        # Keep the rhythm; after a pause start a new one instead of catching up.
        self._status_at = self._status_at + keepalive if 0 <= now - self._status_at < keepalive else now + keepalive
        message: wire.Message = {"t": "status", "st": self.state.value}
        message["dt"] = f"{round(self.config.timing.deadtime_s * 1000):x}"
        message["protocol"] = PROTOCOL
        message.update(self.negotiation.extras())
        if self.config.ping_nodes:
            message["hkpings"] = str(self.witnesses.alive(now))
        self._send(message)

    def _send(self, message: wire.Message) -> None:
        """Complete, sign and queue a message of ours; the numbered ones are kept for a resend."""
        unnumbered = wire.text(message, "t").startswith("NS_")
        if "dest" in message:
            message["destuuid"] = self.peer.uuid or bytes(16)
        if unnumbered:
            message["haptk"] = "1"
        message["src"] = self.config.name
        message["srcuuid"] = self.config.uuid
        seq = 0
        if not unnumbered:
            seq = self._outgoing.number()
            message["seq"] = f"{seq:x}"
        message["hg"] = f"{self.config.generation:x}"
        message["ts"] = f"{int(self._last_now + self.wall_offset_s):x}"
        if not unnumbered:
            message["ld"] = self.load
        message["ttl"] = str(2 + len(self.config.ping_nodes) + self.config.hopfudge)
        data = self.keys.sign(message)
        if not unnumbered:
            self._outgoing.keep(seq, data)
        self._packets.append(Packet(data))

    def _remember(self) -> None:
        generations = {**self.config.peer_generations, self.peer.name: self.peer.generation}
        uuids = {**self.config.peer_uuids, self.peer.name: self.peer.uuid}
        self._events.append(Remember(generations, uuids))

    def _complain(self, now: float, key: str, text: str) -> None:
        """Report a lasting fault at most once a minute; never with the packet or the right digest in it."""
        if now - self._complained.get(key, float("-inf")) < COMPLAIN_EVERY_S:
            return
        if len(self._complained) >= COMPLAINTS_AT_MOST:
            # Senders can be forged; the log must not be flooded by as many addresses as somebody likes.
            self._complained = {old: at for old, at in self._complained.items() if now - at < COMPLAIN_EVERY_S}
            if len(self._complained) >= COMPLAINTS_AT_MOST:
                return
        self._complained[key] = now
        self._tell(Level.ERROR, text, "refused")

    def _tell(self, level: Level, text: str, event: str = "", **fields: object) -> None:
        self._events.append(Say(level, text, event, tuple(fields.items())))


__all__ = ["Finished", "Node", "Run"]
