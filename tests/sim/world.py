"""A small world under virtual time: two heartbeat nodes, the network between them, and the cloud that has the address.

Everything comes from one seed. The world knows no right or wrong: it plays faults and records; checkers judge.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from haptk.core.heartbeat.auth import Key, KeyRing
from haptk.core.heartbeat.model import (
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
from haptk.core.heartbeat.tables import GroupState

QUICK = Timing(
    keepalive_s=1.0, deadtime_s=5.0, warntime_s=3.0, initdead_s=12.0, deadping_s=5.0, monitor_s=4.0, retry_s=5.0
)
WALL = 1_795_000_000.0
WITNESS = "10.0.0.254"


@dataclass
class Link:
    """One direction between the two nodes."""

    cut: bool = False
    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = (0.0005, 0.002)


@dataclass
class Cloud:
    """Who has the address; `mode` is how the API behaves."""

    holder: str | None = None
    mode: str = "up"  # up, slow, throttled, down
    lag_s: float = 0.0
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
    health: Health = Health.NONE
    epoch: int = 0
    inbox: list[tuple[bytes, Source]] = field(default_factory=list)
    answers: list[tuple[int, Outcome]] = field(default_factory=list)
    timer: float = float("inf")
    finished: bool = False
    witness: bool = True
    starts: int = 0

    @property
    def alive(self) -> bool:
        return self.node is not None and not self.frozen

    def believes(self) -> bool:
        """It thinks that it holds the group."""
        return self.node is not None and any(
            group.state is GroupState.HELD for group in self.node.negotiation.holdings.groups
        )


class World:
    """The heap of events and everything in it. `kind` is exclusive (an address) or script."""

    def __init__(self, seed: int, *, kind: str = "exclusive", timing: Timing = QUICK, **config: object) -> None:
        self.seed = seed
        self.kind = kind
        self.timing = timing
        self.rng = random.Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.boxes = {"a": Box("a", "b"), "b": Box("b", "a")}
        self.links = {("a", "b"): Link(), ("b", "a"): Link()}
        self.cloud = Cloud()
        self.failback = Failback.OFF
        self.witnesses: tuple[str, ...] = ()
        self.settings = config
        self.transcript: list[str] = []
        self.watchers: list[Callable[[World], None]] = []
        self.op_s = (0.05, 0.3)
        self.events: list[tuple[float, str, Say]] = []
        self.fault_count = 0

    # ---- time

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self._heap)
            what()
            for watch in self.watchers:
                watch(self)
        self.now = until

    def note(self, who: str, text: str) -> None:
        self.transcript.append(f"[{self.now:8.3f}] {who:>5} {text}")

    # ---- machines

    def local(self, box: Box) -> float:
        """The machine's own monotonic clock."""
        return self.now * (1 + box.drift)

    def boot(self, name: str) -> None:
        box = self.boxes[name]
        if box.node is not None:
            return
        box.generation += 1
        box.epoch += 1
        box.finished = False
        box.frozen = False
        box.inbox.clear()
        box.answers.clear()
        config = NodeConfig(
            name=name,
            peer=box.peer,
            uuid=name.encode() * 16,
            generation=box.generation,
            timing=self.timing,
            groups=(GroupConfig("a", ("eip::203.0.113.10",), exclusive=self.kind == "exclusive"),),
            failback=self.failback,
            ping_nodes=self.witnesses,
            peer_generations=dict(box.remembered.generations),
            peer_uuids=dict(box.remembered.uuids),
            health=box.health,
        )
        self.note(name, "boots")
        keys = KeyRing([Key(1, "sha1", b"secret")], 1)
        box.node = Node(config, keys, self.rng.getrandbits(32), self.local(box), box.wall_offset_s)
        if self.witnesses:
            self._ping(box, box.epoch)
        self._flush(box)

    def crash(self, name: str, *, resource_survives: bool = False) -> None:
        """Power off, or with `resource_survives` kill -9 of the daemon only."""
        box = self.boxes[name]
        self.fault_count += 1
        self.note(name, "the daemon is killed" if resource_survives else "loses power")
        box.node = None
        box.epoch += 1
        if not resource_survives:
            box.running = False

    def freeze(self, name: str, seconds: float) -> None:
        box = self.boxes[name]
        if box.node is None or box.frozen:
            return
        self.fault_count += 1
        self.note(name, f"stands still for {seconds:.1f} s")
        box.frozen = True
        epoch = box.epoch
        self.after(seconds, lambda: self._thaw(box, epoch))

    def _thaw(self, box: Box, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        box.frozen = False
        self.note(box.name, "goes on")
        # As in the shell: sockets first, then what threads left, then the timer.
        for data, source in box.inbox:
            box.node.receive(data, source, self.local(box))
        box.inbox.clear()
        for ticket, outcome in box.answers:
            box.node.done(ticket, outcome, self.local(box))
        box.answers.clear()
        self._flush(box)
        self._tick(box, box.epoch, box.timer)

    def stop(self, name: str) -> None:
        box = self.boxes[name]
        if box.node is not None and not box.frozen:
            self.note(name, "is asked to stop")
            box.node.stop(self.local(box))
            self._flush(box)

    def set_health(self, name: str, health: Health) -> None:
        box = self.boxes[name]
        box.health = health
        if box.node is not None and not box.frozen:
            self.fault_count += 1
            self.note(name, f"its service is {health.value}")
            box.node.set_health(health, "simulated", self.local(box))
            self._flush(box)

    def step_clock(self, name: str, seconds: float) -> None:
        box = self.boxes[name]
        self.note(name, f"its wall clock is stepped by {seconds:+.0f} s")
        box.wall_offset_s += seconds
        if box.node is not None:
            box.node.wall_offset_s = box.wall_offset_s

    def _ping(self, box: Box, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        if box.witness and not box.frozen:
            for name in self.witnesses:
                box.node.ping_heard(name, self.local(box))
        self.after(self.timing.keepalive_s, lambda: self._ping(box, epoch))

    # ---- the shell's work

    def _flush(self, box: Box) -> None:
        node = box.node
        if node is None:
            return
        for packet in node.to_send(self.local(box)):
            self._carry(box, packet.data)
        while (event := node.next_event()) is not None:
            if isinstance(event, Say):
                self.events.append((self.now, box.name, event))
                if event.level.value >= 20:
                    self.note(box.name, event.text)
            elif isinstance(event, Run):
                self._run(box, event)
            elif isinstance(event, Remember):
                box.remembered = event
            elif isinstance(event, Finished):
                self.note(box.name, event.text)
                box.node = None
                box.finished = True
                box.epoch += 1
                return
        self._schedule(box)

    def _schedule(self, box: Box) -> None:
        assert box.node is not None
        due = box.node.timer_at() / (1 + box.drift)
        box.timer = due
        epoch = box.epoch
        # A timer in the past would spin for ever; a real loop has some microseconds of its own.
        self.at(max(due, self.now) + 1e-6, lambda: self._tick(box, epoch, due))

    def _tick(self, box: Box, epoch: int, due: float) -> None:
        if box.node is None or box.epoch != epoch or box.frozen or box.timer != due:
            return
        box.node.handle_timer(self.local(box))
        self._flush(box)

    def _carry(self, box: Box, data: bytes) -> None:
        link = self.links[box.name, box.peer]
        if link.cut or self.rng.random() < link.loss:
            return
        for _ in range(2 if self.rng.random() < link.duplicate else 1):
            self.after(self.rng.uniform(*link.delay_s), lambda: self._deliver(self.boxes[box.peer], data))

    def _deliver(self, box: Box, data: bytes) -> None:
        if box.node is None:
            return
        source = Source("eth0", box.peer)
        if box.frozen:
            box.inbox.append((data, source))
            return
        box.node.receive(data, source, self.local(box))
        self._flush(box)

    # ---- resources

    def _run(self, box: Box, run: Run) -> None:
        epoch = box.epoch
        seconds = self.rng.uniform(*self.op_s)
        if self.kind == "exclusive" and self.cloud.mode == "slow":
            seconds += self.rng.uniform(1.0, 4.0)
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
        outcome = self._cloud_op(box, run.op) if self.kind == "exclusive" else self._script_op(box, run.op)
        self.after(rest_s, lambda: self._answer(box, run.ticket, outcome, epoch))

    def _answer(self, box: Box, ticket: int, outcome: Outcome, epoch: int) -> None:
        if box.epoch != epoch or box.node is None:
            return
        if box.frozen:
            box.answers.append((ticket, outcome))
            return
        box.node.done(ticket, outcome, self.local(box))
        self._flush(box)

    def _cloud_op(self, box: Box, op: Op) -> Outcome:
        cloud = self.cloud
        if op is Op.RELEASE:
            return Outcome(Seen.DONE)
        failed = cloud.mode == "down" or (cloud.mode == "throttled" and self.rng.random() < 0.7)
        if op is Op.STATUS:
            stale = cloud.at(self.now - cloud.lag_s)
            if stale == box.name:
                return Outcome(Seen.OURS)  # metadata says so at once, and may lag
            if failed:
                return Outcome(Seen.UNKNOWN, "the API does not answer")
            if cloud.holder == box.name:
                return Outcome(Seen.OURS)
            return Outcome(Seen.NOT_OURS, "held by another", cloud.holder or "")
        if failed or (op is Op.START and box.broken):
            return Outcome(Seen.FAILED, "the API does not answer")
        if op is Op.START:
            cloud.put(box.name, self.now)
        elif cloud.holder == box.name:
            cloud.put(None, self.now)
        return Outcome(Seen.DONE)

    def _script_op(self, box: Box, op: Op) -> Outcome:
        if op is Op.STATUS:
            return Outcome(Seen.OURS if box.running else Seen.NOT_OURS)
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
        self.fault_count += 1
        self.note("net", f"{one} -> {other} is cut")
        self.links[one, other].cut = True

    def heal(self) -> None:
        self.note("net", "every link is whole")
        for link in self.links.values():
            link.cut, link.loss, link.duplicate, link.delay_s = False, 0.0, 0.0, (0.0005, 0.002)

    def serving(self) -> str | None:
        """The machine that a client would reach. Scripts of a killed daemon are left out: nobody can stop those."""
        if self.kind == "exclusive":
            return self.cloud.holder
        return next((box.name for box in self.boxes.values() if box.running and box.alive), None)
