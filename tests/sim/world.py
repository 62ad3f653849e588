"""A world in virtual time: pairs of heartbeat nodes, the network between them, a witness, and the account behind them.

Everything comes from one seed. The world knows no right or wrong: it plays faults and records; checkers judge.

heartbeat's haresources is a protocol of two: every group has an owner and one other node. So more than two machines
means what it means in a rack: three are a pair and a witness that can fail itself; four are two pairs that share the
AWS account (its throttling and outages) and, on a broadcast segment, each other's packets; five are both.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable

from haptk.core.heartbeat.auth import Key, KeyRing
from haptk.core.heartbeat.model import (
    Claim,
    Failback,
    Finished,
    GroupConfig,
    Health,
    NodeConfig,
    Op,
    Outcome,
    Remember,
    Run,
    Say,
    Seen,
    Source,
    Timing,
)
from haptk.core.heartbeat.node import Node
from tests.sim.leases import LeaseClient
from tests.sim.machines import QUIET_DELAY_S, Account, Address, Box, Link, Pair, ShortRing

QUICK = Timing(
    keepalive_s=1.0,
    deadtime_s=5.0,
    warntime_s=3.0,
    initdead_s=12.0,
    deadping_s=5.0,
    monitor_s=4.0,
    retry_s=5.0,
    forget_s=20.0,
)
WITNESS = "10.0.0.254"
RESTART_S = 2.0
"""After which systemd starts a daemon again that could not write its generation."""


class World:
    """The heap of events and everything in it. `kind` is that of the first pair; `nodes` is explained above."""

    def __init__(
        self, seed: int, *, kind: str = "exclusive", timing: Timing = QUICK, nodes: int = 2, whole_wire: bool = False
    ) -> None:
        self.seed = seed
        self.timing = timing
        self.rng = random.Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.pairs = [Pair(("a", "b"), kind)] + ([Pair(("c", "d"))] if nodes >= 4 else [])
        self.boxes = {
            name: Box(name, peer) for pair in self.pairs for name, peer in (pair.names, tuple(reversed(pair.names)))
        }
        self.pair_of = {name: pair for pair in self.pairs for name in pair.names}
        self.links = {(one, other): Link() for one in self.boxes for other in self.boxes if one != other}
        self.account = Account()
        self.failback = Failback.OFF
        self.witnesses: tuple[str, ...] = (WITNESS,) if nodes in (3, 5) else ()
        self.witness_up = True
        self.leases = False
        self.broadcast = False
        self.transcript: list[str] = []
        self.watchers: list[Callable[[World], None]] = []
        self.op_s = (0.05, 0.3)
        self.events: list[tuple[float, str, Say]] = []
        self.fault_count = 0
        self.faults: Counter[str] = Counter()
        self.lasting: set[str] = set()  # machines whose service is not repaired in the end
        self.disturbed_at = 0.0  # when the network last became whole again
        self._sent: dict[bytes, dict[str, str | bytes]] | None = None if whole_wire else {}

    @property
    def kind(self) -> str:
        return self.pairs[0].kind

    @kind.setter
    def kind(self, kind: str) -> None:
        self.pairs[0].kind = kind

    @property
    def address(self) -> Address:
        """The address of the first pair."""
        return self.pairs[0].address

    # ---- time

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def run(self, until: float) -> None:
        heap, watchers = self._heap, self.watchers
        while heap and heap[0][0] <= until:
            self.now, _, what = heapq.heappop(heap)
            what()
            for watch in watchers:
                watch(self)
        self.now = until

    def note(self, who: str, text: str) -> None:
        self.transcript.append(f"[{self.now:8.3f}] {who:>5} {text}")

    def fault(self, what: str) -> None:
        """Count a fault that the nodes may have to answer with a start."""
        self.fault_count += 1
        self.faults[what] += 1

    # ---- machines

    def local(self, box: Box) -> float:
        """The machine's own monotonic clock."""
        return self.now * (1 + box.drift)

    def boot(self, name: str) -> None:
        """Start the daemon: its generation is on disk before it says anything, however long that takes."""
        box = self.boxes[name]
        if box.node is not None or box.booting:
            return
        box.epoch += 1
        box.frozen = box.finished = False
        box.inbox.clear()
        box.answers.clear()
        if box.disk == "well":
            self._booted(box)
            return
        self.note(name, f"starts, its disk is {box.disk}")
        box.booting = True
        epoch = box.epoch
        self.after(self.disk_s(box) or RESTART_S, lambda: self._write_generation(box, epoch))

    def _write_generation(self, box: Box, epoch: int) -> None:
        if box.epoch != epoch:
            return
        if box.disk == "broken":
            self.after(RESTART_S, lambda: self._write_generation(box, epoch))
            return
        self._booted(box)

    def disk_s(self, box: Box) -> float:
        """How long a synced write takes on this machine."""
        return self.rng.uniform(1.0, 6.0) if box.disk == "slow" else 0.0

    def _booted(self, box: Box) -> None:
        box.booting = False
        box.up_since = self.now
        box.generation += 1
        pair = self.pair_of[box.name]
        config = NodeConfig(
            name=box.name,
            peer=box.peer,
            uuid=box.name.encode() * 16,
            generation=box.generation,
            timing=self.timing,
            groups=(GroupConfig(pair.names[0], (pair.resource,), exclusive=pair.kind == "exclusive"),),
            failback=self.failback,
            ping_nodes=self.witnesses,
            peer_generations=dict(box.remembered.generations),
            peer_uuids=dict(box.remembered.uuids),
            health=box.health,
            leases=self.leases,
        )
        self.note(box.name, "boots")
        keys = [Key(1, "sha1", pair.key)]
        ring = KeyRing(keys, 1) if self._sent is None else ShortRing(keys, 1, self._sent)
        box.node = Node(config, ring, self.rng.getrandbits(32), self.local(box), box.wall_offset_s)
        box.timer = float("inf")
        box.lease = LeaseClient(self, box) if self.leases else None
        if self.witnesses:
            self._ping(box, box.epoch)
        if box.lease is not None:
            box.lease.go_on()
        self.flush(box)

    def crash(self, name: str, *, resource_survives: bool = False) -> None:
        """Power off, or with `resource_survives` kill -9 of the daemon only."""
        box = self.boxes[name]
        self.fault("kill" if resource_survives else "crash")
        self.note(name, "the daemon is killed" if resource_survives else "loses power")
        box.node = None
        box.holding = box.booting = False
        box.epoch += 1
        if not resource_survives:
            box.running = False

    def freeze(self, name: str, seconds: float) -> None:
        box = self.boxes[name]
        if box.node is None or box.frozen:
            return
        self.fault("freeze")
        self.note(name, f"stands still for {seconds:.1f} s")
        box.frozen = True
        epoch = box.epoch
        self.after(seconds, lambda: self._thaw(box, epoch))

    def _thaw(self, box: Box, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        box.frozen = False
        box.up_since = self.now
        self.note(box.name, "goes on")
        # As in the shell: sockets first, then what threads left, then the timer.
        for data, source in box.inbox:
            box.node.receive(data, source, self.local(box))
        box.inbox.clear()
        for ticket, outcome in box.answers:
            box.node.done(ticket, outcome, self.local(box))
        box.answers.clear()
        box.node.set_health(box.health, "simulated", self.local(box))
        self.flush(box)
        self._tick(box, box.epoch, box.timer)

    def stop(self, name: str) -> None:
        box = self.boxes[name]
        if box.node is not None and not box.frozen:
            self.faults["stop"] += 1
            self.note(name, "is asked to stop")
            box.node.stop(self.local(box))
            self.flush(box)

    def order(self, name: str, verb: str) -> None:
        """The operator's standby or takeover; a refusal is an answer too."""
        box = self.boxes[name]
        if box.node is None or box.frozen:
            return
        now, bits = self.local(box), box.node.negotiation.holdings.hold(box.peer)
        self.fault(verb)
        refusal = box.node.give(bits, now) if verb == "standby" else box.node.want(bits.ALL, now)
        self.note(name, f"is asked for a {verb}" + (f": refused, {refusal}" if refusal else ""))
        self.flush(box)

    def set_health(self, name: str, health: Health) -> None:
        box = self.boxes[name]
        box.health = health
        if box.node is not None and not box.frozen:
            self.fault("sick")
            self.note(name, f"its service is {health.value}")
            box.node.set_health(health, "simulated", self.local(box))
            self.flush(box)

    def step_clock(self, name: str, seconds: float) -> None:
        box = self.boxes[name]
        self.faults["clock"] += 1
        self.note(name, f"its wall clock is stepped by {seconds:+.0f} s")
        box.wall_offset_s += seconds
        if box.node is not None:
            box.node.wall_offset_s = box.wall_offset_s

    def resource_dies(self, name: str) -> None:
        """The script's service dies; an address is disassociated by somebody."""
        box, pair = self.boxes[name], self.pair_of[name]
        if pair.kind == "script" and box.running:
            self.fault("dies")
            box.deaths += 1
            self.note(name, "its resource dies")
            box.running = False
        elif pair.kind == "exclusive" and pair.address.holder == name:
            self.fault("dies")
            box.deaths += 1
            self.note(name, "somebody disassociates its address")
            pair.address.put(None, self.now)

    def _ping(self, box: Box, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        if box.witness and self.witness_up and not box.frozen:
            box.witness_heard_at = self.now
            for name in self.witnesses:
                box.node.ping_heard(name, self.local(box))
            self.flush(box)
        self.after(self.timing.keepalive_s, lambda: self._ping(box, epoch))

    # ---- the shell's work

    def flush(self, box: Box) -> None:
        node = box.node
        if node is None:
            return
        for packet in node.to_send(self.local(box)):
            self._carry(box, packet.data)
        box.holding = box.believes()
        finished = False
        while (event := node.next_event()) is not None:
            if isinstance(event, Say):
                self.events.append((self.now, box.name, event))
                if event.level.value >= 20:
                    self.note(box.name, event.text)
            elif isinstance(event, Run):
                self._run(box, event)
            elif isinstance(event, Remember):
                self._remember(box, event, box.epoch)
            elif isinstance(event, Claim):
                if box.lease is not None:
                    box.lease.claim(event)
            elif isinstance(event, Finished):
                self.note(box.name, event.text)
                finished = True
        if finished:
            self._leave(box)
        else:
            self._schedule(box)

    def _leave(self, box: Box) -> None:
        box.node = None
        box.holding = False
        box.finished = True
        box.epoch += 1
        if box.lease is not None:
            box.lease.leave()

    def _remember(self, box: Box, event: Remember, epoch: int) -> None:
        """A thread writes it, so a slow disk delays nothing else; what cannot be written is tried again."""
        seconds = self.disk_s(box)
        if box.disk == "broken":
            self.after(RESTART_S, lambda: self._remember(box, event, epoch) if box.epoch == epoch else None)
        elif seconds == 0.0:
            box.remembered = event
        else:

            def written() -> None:
                if box.epoch == epoch:
                    box.remembered = event

            self.after(seconds, written)

    def _schedule(self, box: Box) -> None:
        assert box.node is not None
        due = box.node.timer_at() / (1 + box.drift)
        if due == box.timer and due > self.now:
            return  # that timer is in the heap already
        box.timer = due
        epoch = box.epoch
        # A timer in the past would spin for ever; a real loop has some microseconds of its own.
        self.at(max(due, self.now) + 1e-6, lambda: self._tick(box, epoch, due))

    def _tick(self, box: Box, epoch: int, due: float) -> None:
        if box.node is None or box.epoch != epoch or box.frozen or box.timer != due:
            return
        box.timer = float("-inf")
        box.node.handle_timer(self.local(box))
        self.flush(box)

    def _carry(self, box: Box, data: bytes) -> None:
        if not self.broadcast:
            self._carry_to(self.boxes[box.peer], box.name, data)
            return
        for other in self.boxes.values():
            if other is not box:
                self._carry_to(other, box.name, data)
        self.after(QUIET_DELAY_S[0], lambda: self._deliver(box, data, box.name))  # a node hears its own broadcast

    def _carry_to(self, box: Box, sender: str, data: bytes) -> None:
        link, rng = self.links[sender, box.name], self.rng
        if link.cut or (link.loss and rng.random() < link.loss):
            return
        low, high = link.delay_s
        for _ in range(2 if link.duplicate and rng.random() < link.duplicate else 1):
            self.after(low + (high - low) * rng.random(), lambda: self._deliver(box, data, sender))

    def _deliver(self, box: Box, data: bytes, sender: str = "") -> None:
        if box.node is None:
            return
        source = Source("eth0", sender or box.peer)
        if box.frozen:
            box.inbox.append((data, source))
            return
        box.node.receive(data, source, self.local(box))
        self.flush(box)

    # ---- resources

    def _run(self, box: Box, run: Run) -> None:
        epoch = box.epoch
        seconds = self.rng.uniform(*self.op_s)
        exclusive = self.pair_of[box.name].kind == "exclusive"
        if exclusive and (self.account.mode == "slow" or not box.aws):
            seconds += self.rng.uniform(1.0, 4.0)
        if not exclusive and box.disk == "slow":
            seconds += self.rng.uniform(0.5, 3.0)
        # The call takes effect somewhere in between; a daemon that dies meanwhile may have sent it or not.
        self.after(seconds * 0.5, lambda: self._act(box, run, epoch, seconds * 0.5))

    def _act(self, box: Box, run: Run, epoch: int, rest_s: float) -> None:
        if box.epoch != epoch:
            return
        if box.frozen:
            self.after(0.05, lambda: self._act(box, run, epoch, rest_s))
            return
        if run.op is Op.START:
            box.starts += 1
        exclusive = self.pair_of[box.name].kind == "exclusive"
        outcome = self._cloud_op(box, run.op) if exclusive else self._script_op(box, run.op)
        self.after(rest_s, lambda: self._answer(box, run.ticket, outcome, epoch))

    def _answer(self, box: Box, ticket: int, outcome: Outcome, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        if box.frozen:
            box.answers.append((ticket, outcome))
            return
        box.node.done(ticket, outcome, self.local(box))
        self.flush(box)

    def _cloud_op(self, box: Box, op: Op) -> Outcome:
        account, address = self.account, self.pair_of[box.name].address
        if op is Op.RELEASE:
            return Outcome(Seen.DONE)
        mode = account.mode if box.aws else "down"
        failed = mode == "down" or (mode == "throttled" and self.rng.random() < 0.7)
        if op is Op.STATUS:
            if address.at(self.now - account.lag_s) == box.name:
                return Outcome(Seen.OURS)  # metadata says so at once, and may lag
            if failed or mode == "lost":
                return Outcome(Seen.UNKNOWN, "the API does not answer")
            if address.holder == box.name:
                return Outcome(Seen.OURS)
            return Outcome(Seen.NOT_OURS, "held by another", address.holder or "")
        if failed:
            return Outcome(Seen.FAILED, "the API does not answer")
        if op is Op.START and box.broken:
            if address.holder == box.name:
                address.put(None, self.now)  # the worker stops what it could not start whole
            return Outcome(Seen.FAILED, "it does not start")
        if op is Op.START:
            address.put(box.name, self.now)
        elif address.holder == box.name:
            address.put(None, self.now)
        return Outcome(Seen.FAILED, "the API's answer is lost") if mode == "lost" else Outcome(Seen.DONE)

    def _script_op(self, box: Box, op: Op) -> Outcome:
        if op is Op.STATUS:
            if box.disk == "slow" and self.rng.random() < 0.3:
                return Outcome(Seen.UNKNOWN, "its status does not end")
            # Not at the first look after a start: nothing but that one tells what a killed daemon left behind.
            lies = box.liar and box.holding and self.rng.random() < 0.3
            return Outcome(Seen.OURS if box.running and not lies else Seen.NOT_OURS, "stopped", "")
        if op is Op.START:
            if box.broken:
                return Outcome(Seen.FAILED, "it does not start")
            box.running = True
        elif box.stuck:
            return Outcome(Seen.FAILED, "it does not stop")
        else:
            box.running = False
        return Outcome(Seen.DONE)

    # ---- the network

    def cut(self, one: str, other: str) -> None:
        self.fault("cut")
        self.note("net", f"{one} -> {other} is cut")
        self.links[one, other].cut = True

    def heal(self) -> None:
        """The end of every cut and disturbance, also of those that another fault began."""
        self.note("net", "every link is whole")
        self.disturbed_at = self.now
        for link in self.links.values():
            link.cut, link.loss, link.duplicate, link.delay_s = False, 0.0, 0.0, QUIET_DELAY_S

    def serving(self, pair: Pair | None = None) -> str | None:
        """The machine that a client would reach. Scripts of a killed daemon are left out: nobody can stop those."""
        pair = pair or self.pairs[0]
        if pair.kind == "exclusive":
            return pair.address.holder
        boxes = [self.boxes[name] for name in pair.names]
        return next((box.name for box in boxes if box.running and box.alive), None)
