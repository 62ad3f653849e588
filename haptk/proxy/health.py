"""Runs the health checks of one configuration: a schedule, a few probing threads, and the flags that the workers read.

The decisions are core/health.py's; this is its shell. One thread schedules; probes block, so they run in a small pool
and hand their results back through a queue. A server that is still being probed is never probed twice at once.
"""

from __future__ import annotations

import heapq
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from haptk.core import agent
from haptk.core.health import Change, CheckRules, Health, State, Verdict, transplant
from haptk.io import clock
from haptk.io.probe import ProbeResult, probe_http, probe_tcp
from haptk.proxy import weights, whereabouts
from haptk.proxy.agents import AgentRunner, Asked
from haptk.proxy.herald import Herald
from haptk.proxy.tables import Backend, CheckPlan, ProxyTables, Server
from haptk.proxy.whereabouts import Whereabouts

PROBES_AT_ONCE = 32
IDLE_S = 60.0  # without anything to do; whoever has something wakes the schedule
log = logging.getLogger("haptk.proxy")

Publish = Callable[[int, str], None]
Weigh = Callable[[int, float], None]
Cut = Callable[[int], None]
Settle = Callable[[int, Whereabouts], None]
Tripped = Callable[[int], int]
Count = Callable[[int, int], None]


@dataclass(eq=False)
class Checked:
    """One server: its index over all backends, its plan (None: not checked), its state and what was counted of it.

    `weight` is the one that an administrator or the file gave it; `failed` counts bad checks while it was up, `downs`
    how often it went down, `down_s` the seconds that it was down before `since`, its last change.
    """

    gid: int
    name: str
    plan: CheckPlan | None
    health: Health
    server: Server
    last: ProbeResult | None = None
    warming: bool = False
    weight: int = 1
    failed: int = 0
    downs: int = 0
    down_s: float = 0.0
    since: float = 0.0
    tripped: int = 0  # how often live traffic had reached its error-limit when we last looked
    at: Whereabouts = field(default_factory=lambda: Whereabouts("", 0))  # where it, its checks and its agent are now
    paused: bool = False  # an administrator said `disable health`
    agent: Asked | None = None
    shown: object = None  # what `show stat` remembers of it (runtime/lines.py)

    @property
    def host(self) -> str:
        """Its address now; "" while its name does not resolve."""
        return self.at.host

    @property
    def port(self) -> int:
        """Its port now; 0 where clients say the port."""
        return 0 if self.at.mapped else self.at.port

    def settle(self) -> None:
        """Have its checks and its agent go where the record says."""
        if self.plan is not None:
            self.plan = self.at.check(self.plan, self.server)
        if self.agent is not None:
            self.agent.plan = self.at.agent(self.agent.plan)


@dataclass
class Standing:
    """Whether a backend has a server for new sessions: since when, how often that ended, and how long it was over."""

    up: bool
    since: float
    downs: int = 0
    down_s: float = 0.0

    def see(self, now: float, *, up: bool) -> None:
        """Take notice of what it is now."""
        if up == self.up:
            return
        if up:
            self.down_s += now - self.since
        else:
            self.downs += 1
        self.up, self.since = up, now


def _inherit_agent(one: Checked, old: Checked) -> None:
    """Over a reload: what the agent said last holds until it speaks again; without an agent nobody objects."""
    if one.agent is None:
        one.health.agent_down = False
        return
    one.health.agent_down = old.health.agent_down
    if old.agent is not None:
        one.agent.state.code, one.agent.state.text = old.agent.state.code, old.agent.state.text
        one.agent.state.enabled = old.agent.state.enabled


def rules_of(server: Server, plan: CheckPlan | None) -> CheckRules:
    """The numbers of a server line as the core wants them."""
    if plan is None:
        return CheckRules(slowstart_s=server.slowstart_s)
    return CheckRules(
        rise=plan.rise,
        fall=plan.fall,
        inter_s=plan.inter_s,
        fastinter_s=plan.fastinter_s,
        downinter_s=plan.downinter_s,
        init_state=plan.init_state,
        error_limit=server.error_limit,
        on_error=server.on_error,
        slowstart_s=server.slowstart_s,
    )


def probe(plan: CheckPlan) -> ProbeResult:
    """One check as the plan says; blocks up to its time-outs, never raises for the peer."""
    timeout_s = plan.timeout_s or plan.inter_s
    source = (plan.source.host, plan.source.low, plan.source.high) if plan.source is not None else None
    if plan.kind == "http" and plan.send is not None:
        send = plan.send
        return probe_http(
            send.method,
            send.uri,
            send.version,
            plan.host,
            plan.port,
            send.headers,
            plan.expects,
            timeout_s,
            body=send.body,
            raw_suffix=send.raw_suffix,
            send_proxy=plan.send_proxy,
            connect_timeout_s=plan.connect_timeout_s,
            source=source,
        )
    return probe_tcp(
        plan.host,
        plan.port,
        timeout_s,
        send_proxy=plan.send_proxy,
        steps=plan.steps,
        source=source,
    )


def verdict_of(plan: CheckPlan, result: ProbeResult) -> Verdict:
    """404 under `http-check disable-on-404` drains; everything else is what the probe said."""
    if plan.disable_on_404 and result.status == 404:
        return Verdict.DRAIN
    return Verdict.PASS if result.ok else Verdict.FAIL


class HealthRunner:
    """The states of all servers of `tables`: checks those that ask for it, obeys the administrator, tells the workers.

    Calls `publish(gid, "UP" | "DOWN" | "DRAIN" | "MAINT")`; `weigh(gid, weight)` follows slowstart and the
    administrator; `cut(gid)` ends the sessions of a server that went down where its line has `on-marked-down
    shutdown-sessions`; `end(gid)` ends them because an administrator says so. `limit(gid, count)` is how
    many requests at once an agent wants. `place(gid, at)` hears where a server is that has moved;
    `tripped(gid)` says how often live traffic reached a server's error-limit (`observe`), of which the eventfd `alarm`
    tells; `fuse(gid, times)` hears how many more times take it down, `ease(gid, percent)` what slowstart leaves of a
    server's maxconn. Servers that `track` another follow it. Use `start`, `stop`; `admin`, `force`, `set_weight` and
    `move` may be called from any thread.
    """

    def __init__(
        self,
        tables: ProxyTables,
        publish: Publish,
        inherit: HealthRunner | None = None,
        *,
        weigh: Weigh | None = None,
        cut: Cut | None = None,
        end: Cut | None = None,
        limit: Callable[[int, int], None] | None = None,
        place: Settle | None = None,
        tripped: Tripped | None = None,
        herald: Herald | None = None,
        fuse: Count | None = None,
        ease: Count | None = None,
        alarm: int = -1,
    ) -> None:
        self.publish = publish
        self.weigh = weigh
        self.cut = cut
        self.end = end
        self.limit = limit
        self.place = place
        self.tripped = tripped
        self.herald = herald
        self.fuse = fuse
        self.ease = ease
        self.alarm = alarm
        self.renamed: Cut | None = None  # hears whose name has changed
        self.servers: list[Checked] = []
        self.leaders: dict[int, str] = {}
        self._results: queue.SimpleQueue[tuple[Checked, ProbeResult] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        old = {one.name: one for one in inherit.servers} if inherit else {}
        self._backends = {backend.name: backend for backend in tables.backends}
        for backend in tables.backends:
            for server in backend.servers:
                self._add(backend, server, old.get(f"{backend.name}/{server.name}"))
        self.checked = [one for one in self.servers if one.plan is not None]
        now = clock.monotonic()
        before = inherit.standings if inherit else {}
        self.standings: dict[str, Standing] = {
            b.name: before.get(b.name) or Standing(True, now) for b in tables.backends
        }
        self._members: dict[str, list[Checked]] = {b.name: [] for b in tables.backends}
        for one in self.servers:
            self._members[one.name.rpartition("/")[0]].append(one)
        self.observed = [one for one in self.checked if one.server.observe]
        self.slow = [one for one in self.servers if one.server.slowstart_s > 0]
        self._named = {one.name: one for one in self.servers}
        self.agents = AgentRunner([one.agent for one in self.servers if one.agent is not None], self._hear)

    def _add(self, backend: Backend, server: Server, old: Checked | None) -> None:
        name = f"{backend.name}/{server.name}"
        gid = len(self.servers)
        if server.track:
            self.leaders[gid] = server.track if "/" in server.track else f"{backend.name}/{server.track}"
        now = clock.monotonic()
        rules = rules_of(server, server.check)
        if old is not None and old.plan is not None and server.check is not None:
            health = transplant(old.health, rules)
        else:
            health = Health(f"server {name}", rules, started_at=now)
            if old is not None and old.health.wish != "ready":
                health.admin(old.health.wish, now)
        one = Checked(gid, name, server.check, health, server, weight=server.weight, since=now)
        one.at = whereabouts.of(server) if old is None else whereabouts.inherited(server, old.server, old.at)
        if server.agent is not None:
            one.agent = Asked(gid, server.agent, agent.AgentCheck(server.agent.inter_s, now))
        one.settle()
        if old is not None:
            _inherit_agent(one, old)
        if old is None or old.server.disabled != server.disabled:
            # what the file says counts when it is new; otherwise a reload keeps what the administrator said
            health.admin("maint" if server.disabled else "ready", now)
        if old is not None:
            one.since, one.failed, one.downs, one.down_s = old.since, old.failed, old.downs, old.down_s
            one.last = old.last
            one.paused = old.paused
            if old.server.weight == server.weight:
                one.weight = old.weight
        self.servers.append(one)

    def start(self) -> None:
        """Publish the initial states and begin; the first checks are spread over the shortest interval."""
        for one in self.servers:
            if one.at != whereabouts.of(one.server) and one.at.host and self.place is not None:
                self.place(one.gid, one.at)
            self._tell(one)
            if one.weight != one.server.weight and self.weigh is not None:
                self.weigh(one.gid, one.weight)
        self.agents.start()
        if self.observed and self.alarm >= 0:
            self._listener = threading.Thread(target=self._listen, name="observe", daemon=True)
            self._listener.start()
        if self.checked or self.slow:
            self._thread = threading.Thread(target=self._run, name="health", daemon=True)
            self._thread.start()

    # -- the administrator

    def admin(self, gid: int, wish: str) -> None:
        """`ready`, `drain` or `maint` for one server."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.admin(wish, clock.monotonic())
            if change is not None:
                self._changed(one, change, "admin")

    def force(self, gid: int, wish: str) -> None:
        """Health `up`, `stopping` or `down` for one server, until a check says otherwise."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.force(wish, clock.monotonic())
            if change is not None:
                self._changed(one, change)

    def pause(self, gid: int, *, paused: bool) -> None:
        """No checks of one server until it is said otherwise (`disable health`, `enable health`)."""
        with self._lock:
            self.servers[gid].paused = paused

    # -- agents

    def _hear(self, gid: int, said: agent.Said) -> None:
        """An agent answered."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.agent(said.line, clock.monotonic())
            one.health.agent_weight_percent = (
                100  # the share is kept in the server's weight, where all others set it too
            )
            if change is not None:
                by_word = {State.DRAIN, State.MAINT} & {change.old, change.new}
                self._changed(one, change, "admin" if by_word else "check")
            if said.weight_percent is not None:
                backend = self._backends.get(one.name.rpartition("/")[0])
                weight = weights.asked(backend, one.server, f"{said.weight_percent}%")
                if isinstance(weight, int) and weight != one.weight:
                    self.set_weight(gid, weight)
            if said.maxconn is not None and self.limit is not None:
                self.limit(gid, said.maxconn)

    def say_for_agent(self, gid: int, *, up: bool) -> None:
        """What the agent's view is, until it speaks again."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.force_agent(clock.monotonic(), up=up)
            if change is not None:
                self._changed(one, change, "admin")

    def pause_agent(self, gid: int, *, paused: bool) -> None:
        """Do not ask the agent of one server, or ask it again."""
        asked = self.servers[gid].agent
        if asked is not None:
            asked.state.enabled = not paused
            self.agents.wake()

    def send_to_agent(self, gid: int, text: bytes) -> None:
        """What the agent of one server is sent from now on."""
        asked = self.servers[gid].agent
        if asked is not None:
            asked.plan = replace(asked.plan, send=text)

    def set_weight(self, gid: int, weight: int) -> None:
        """The weight that counts from now on, instead of the file's."""
        with self._lock:
            one = self.servers[gid]
            one.weight = weight
            if self.weigh is not None and not one.warming:
                self.weigh(gid, weight)
            self.standing(one.name.rpartition("/")[0])

    def move(self, gid: int, host: str, port: int | None = None, by: str = "") -> None:
        """One server is at another address from now on, as are its checks; "" takes it out of service."""
        with self._lock:
            at = self.servers[gid].at
            self.relocate(gid, replace(at, host=host) if port is None else replace(at, host=host, port=port), by)

    def relocate(self, gid: int, at: Whereabouts, by: str = "") -> None:
        """What is known of one server's address, of its checks' and of its agent's from now on."""
        with self._lock:
            one = self.servers[gid]
            before, one.at = one.at, at
            one.settle()
            if before.hostname != at.hostname and self.renamed is not None:
                self.renamed(gid)
            if (before.host, before.port, before.mapped) == (at.host, at.port, at.mapped):
                return
            if at.host and self.place is not None:
                self.place(gid, at)
            if self.herald is not None and by:
                self.herald.moved(one, before.host, at.host, by)
            self._tell(one, "name", by)

    def chain(self, one: Checked) -> list[Checked]:
        """The servers that `one` tracks, next one first; its state follows the last."""
        found: list[Checked] = []
        gid = one.gid
        while gid in self.leaders:
            following = self._named.get(self.leaders[gid])
            if following is None or following is one or following in found:
                break
            found.append(following)
            gid = following.gid
        return found

    def state(self, one: Checked) -> State:
        """What it may be used for: its own state, those it tracks, and whether it has an address at all."""
        own = one.health.state
        if one.gid not in self.leaders:
            return own if one.host or one.server.unix_path else State.MAINT
        chain = self.chain(one)
        if any(each.health.state is State.MAINT for each in (one, *chain)):
            return State.MAINT
        if not one.host and not one.server.unix_path:
            return State.MAINT
        if not chain:
            return own
        last = chain[-1].health.state
        return State.DRAIN if own is State.DRAIN and last is State.UP else last

    def stop(self) -> None:
        """Stop scheduling; probes under way end by their own time-outs and are ignored."""
        self._stopping.set()
        self._results.put(None)
        if self._listener is not None:
            os.eventfd_write(self.alarm, 1)
            self._listener.join(timeout=2.0)
        self.agents.stop()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def standing(self, backend: str) -> Standing:
        """How a backend stands now."""
        members = self._members[backend]
        up = not members or any(one.weight > 0 and self.state(one) is State.UP for one in members)
        found = self.standings[backend]
        found.see(clock.monotonic(), up=up)
        return found

    def _tell(self, one: Checked, why: str = "check", via: str = "") -> None:
        self._arm(one)
        self._publish(one, why, via=via)
        for gid in self.leaders:
            follower = self.servers[gid]
            chain = self.chain(follower)
            if one in chain:
                self._publish(follower, "track", via=chain[0].name)

    def _publish(self, one: Checked, why: str, *, via: str = "") -> None:
        state = self.state(one)
        self.publish(one.gid, state.value)
        self.standing(one.name.rpartition("/")[0])
        if self.herald is not None:
            self.herald.see(one, state, why, via=via)

    def _run(self) -> None:
        shortest = min((one.plan.inter_s for one in self.checked if one.plan is not None), default=0.0)
        now = clock.monotonic()
        due = [(now + shortest * index / len(self.checked), one.gid) for index, one in enumerate(self.checked)]
        by_gid = {one.gid: one for one in self.checked}
        heapq.heapify(due)
        with ThreadPoolExecutor(min(PROBES_AT_ONCE, len(self.checked) or 1), "probe") as pool:
            while not self._stopping.is_set():
                if self.observed:
                    self._look_at_traffic(due)  # before the wait is known: it brings checks forward
                now = clock.monotonic()
                while due and due[0][0] <= now:
                    one = by_gid[heapq.heappop(due)[1]]
                    if one.health.due_at() is None or one.paused or (one.plan is not None and not one.plan.host):
                        # in maintenance, paused, or without an address
                        heapq.heappush(due, (now + min(one.health.rules.inter_s, 1.0), one.gid))
                    else:
                        pool.submit(self._probe, one)
                wait_s = max(due[0][0] - now, 0.0) if due else IDLE_S
                if self._warm_up(now):
                    wait_s = min(wait_s, 0.5)
                try:
                    found = self._results.get(timeout=wait_s)
                except queue.Empty:
                    continue
                if found is not None:
                    heapq.heappush(due, (self._settle(*found), found[0].gid))
            pool.shutdown(wait=False, cancel_futures=True)

    def _listen(self) -> None:
        """Wake the schedule whenever a worker says that live traffic went wrong."""
        while not self._stopping.is_set():
            os.eventfd_read(self.alarm)
            self._results.put(None)

    def _arm(self, one: Checked) -> None:
        """Tell the workers how many more times live traffic takes a server down, those that wait to be seen included."""
        if self.fuse is not None and self.tripped is not None and one.server.observe and one.plan is not None:
            unseen = self.tripped(one.gid) - one.tripped
            self.fuse(one.gid, max(one.health.trips_left() - unseen, 0))

    def _look_at_traffic(self, due: list[tuple[float, int]]) -> None:
        """Servers whose live traffic went wrong too often in a row (`observe`): what `on-error` says."""
        for one in self.observed:
            count = self.tripped(one.gid) if self.tripped is not None else 0
            if count == one.tripped:
                continue
            with self._lock:
                now = clock.monotonic()
                for _ in range((count - one.tripped) * one.server.error_limit):
                    change = one.health.observe(False, f"seen at {one.server.observe}", now)
                    if change is not None:
                        self._changed(one, change)
                one.tripped = count
                self._arm(one)
                # the next check comes sooner; one that is under way comes first
                for index, (at, gid) in enumerate(due):
                    if gid == one.gid:
                        due[index] = (min(at, one.health.due_at() or at), gid)
                heapq.heapify(due)

    def _warm_up(self, now: float) -> bool:
        """Adjust the weights of servers under slowstart; True while some are."""
        with self._lock:
            for one in self.slow:
                if not one.warming or self.weigh is None:
                    continue
                percent = one.health.weight_percent(now)
                if self.ease is not None:
                    self.ease(one.gid, one.health.ease_percent(now))
                one.warming = one.health.state is State.UP and percent < 100
                # a server that went down again gets its weight back when it returns
                self.weigh(one.gid, one.weight * (percent if one.warming else 100) / 100)
            return any(one.warming for one in self.slow)

    def _changed(self, one: Checked, change: Change, why: str = "check") -> None:
        """A transition: tell the log and the workers, start warming up, cut sessions."""
        log.log(logging.WARNING if change.new is State.DOWN else logging.INFO, "%s", change.reason)
        if not change.old.usable:
            one.down_s += change.at - one.since
        elif not change.new.usable:
            one.downs += 1
        one.since = change.at
        if change.new is State.UP and one.server.slowstart_s > 0:
            one.warming = True
            self._warm_up(change.at)
            self._results.put(None)  # the schedule may be asleep
        self._tell(one, why)
        if not change.new.usable and one.server.on_marked_down == "shutdown-sessions" and self.cut is not None:
            self.cut(one.gid)

    def _probe(self, one: Checked) -> None:
        if not self._stopping.is_set() and one.plan is not None:
            self._results.put((one, probe(one.plan)))

    def _settle(self, one: Checked, result: ProbeResult) -> float:
        """Feed one result to the core, publish a change, and return when the next check is due."""
        with self._lock:
            now = clock.monotonic()
            health = one.health
            if one.plan is not None and health.due_at() is not None:
                verdict = verdict_of(one.plan, result)
                before = (health.health, one.last.code if one.last is not None else "")
                one.last = result
                one.failed += verdict is Verdict.FAIL and health.health >= health.rules.rise
                change = health.check(verdict, result.reason, now)
                if self.herald is not None and before != (health.health, result.code):
                    self.herald.checked(one, good=verdict is not Verdict.FAIL)
                if change is not None:
                    self._changed(one, change)
                self._arm(one)
            return health.due_at() or now + health.rules.inter_s
