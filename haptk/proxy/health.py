"""Runs the health checks of one configuration: what the compiled engine finds, what core/health.py makes of it, and the
flags that the workers read.

The checks are events of `_fast/checks`: one thread connects, sends, reads and keeps the time without the GIL, so that a
server that is silent delays no other one. A result that changes nothing (a good one of a server that is fully up, a bad
one of a server that is down) stays there; for all others this module asks the core what they mean and tells the engine
when the next check is wanted. Only that thread touches the engine: whoever else wants something of it leaves a call.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from haptk.core import agent
from haptk.core.health import Change, CheckRules, Health, State, Verdict, transplant
from haptk.io import clock
from haptk.io.exchange import ProbeResult
from haptk.proxy import supervise, weights, whereabouts
from haptk.proxy.agents import Asked, inherit_agent
from haptk.proxy.compile_checks import request
from haptk.proxy.herald import Herald
from haptk.proxy.standing import Standing
from haptk.proxy.tables import AgentPlan, Backend, CheckPlan, ProxyTables, Server
from haptk.proxy.whereabouts import Whereabouts

if TYPE_CHECKING:
    from haptk._fast.checks.engine import CheckEngine

IDLE_S = 60.0  # without anything to do; whoever has something wakes the engine
WARMING_S = 0.5  # between two steps of slowstart
SPREAD_FROM_S = 1.0  # intervals below this one do not set the pace of the first checks
PASSED = ("L4OK", "L6OK", "L7OK")
CONDITIONALLY = "L7OKC"
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
    dynamic: bool = False  # added at run time
    gone: bool = False  # removed at run time
    shown: object = None  # what `show stat` remembers of it (runtime/lines.py)
    engine: CheckEngine | None = None
    check: int = -1  # its index in the engine
    known: str = ""  # the code of the result that was decided on last
    _last: ProbeResult | None = None
    _number: int = 0

    @property
    def last(self) -> ProbeResult | None:
        """What its last check found; None before the first one."""
        if self.engine is not None and self.check >= 0:
            number = self.engine.number(self.check)
            if number != self._number:
                self._number = number
                self._last = _result(*self.engine.found(self.check))
        return self._last

    @last.setter
    def last(self, result: ProbeResult | None) -> None:
        self._last = result

    @property
    def busy(self) -> bool:
        """True while a check is under way."""
        return self.engine is not None and self.check >= 0 and self.engine.busy(self.check)

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


def _result(code: str, status: int, duration_ms: int, text: bytes) -> ProbeResult:
    return ProbeResult(
        code in PASSED or code == CONDITIONALLY, text.decode("latin-1"), status if code.startswith("L7") else None,
        duration_ms / 1000, code,
    )  # fmt: skip


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


def verdict_of(result: ProbeResult) -> Verdict:
    """A conditional pass (404 under `http-check disable-on-404`) drains; everything else is what the code says."""
    if result.code == CONDITIONALLY:
        return Verdict.DRAIN
    return Verdict.PASS if result.ok else Verdict.FAIL


class HealthRunner:
    """The states of all servers of `tables`: checks those that ask for it, obeys the administrator, tells the workers.

    Calls `publish(gid, "UP" | "DOWN" | "DRAIN" | "MAINT")`; `weigh(gid, weight)` follows slowstart and the
    administrator; `cut(gid)` ends the sessions of a server that went down where its line has `on-marked-down
    shutdown-sessions`; `end(gid)` ends them because an administrator says so. `limit(gid, count)` is how
    many requests at once an agent wants. `place(gid, at)` hears where a server is that has moved;
    `tripped(gid)` says how often live traffic reached a server's error-limit (`observe`), of which the eventfd `alarm`
    tells, and `cause(gid)` by what error; `forgive(gid)` hears of a check that passed, `fuse(gid, times)` how many more
    times take a server down, `ease(gid, percent)` what slowstart leaves of its maxconn. Servers that `track` another
    follow it. Use `start`, `stop`; `admin`, `force`, `set_weight`,
    `move`, `relocate`, `attach` and `detach` may be called from any thread.
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
        cause: Callable[[int], str] | None = None,
        forgive: Cut | None = None,
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
        self.tripped, self.cause, self.forgive = tripped, cause, forgive
        self.herald = herald
        self.fuse = fuse
        self.ease = ease
        self.alarm = alarm
        self.renamed: Cut | None = None  # hears whose name has changed
        self.servers: list[Checked] = []
        self.leaders: dict[int, str] = {}
        self.process = tables.process
        self.checks: CheckEngine | None = None
        self._by_check: dict[int, Checked] = {}
        self._by_agent: dict[int, Checked] = {}
        self._calls: queue.SimpleQueue[Callable[[CheckEngine], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        old = {one.name: one for one in inherit.servers if not one.gone} if inherit else {}
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
            one.agent = Asked(gid, server.agent, agent.AgentCheck())
        one.settle()
        if old is not None:
            inherit_agent(one, old)
        if old is None or old.server.disabled != server.disabled:
            # what the file says counts when it is new; otherwise a reload keeps what the administrator said
            health.admin("maint" if server.disabled else "ready", now)
        if old is not None:
            one.since, one.failed, one.downs, one.down_s = old.since, old.failed, old.downs, old.down_s
            one.last, one.known = old.last, old.known
            one.paused = old.paused
            if old.server.weight == server.weight:
                one.weight = old.weight
        self.servers.append(one)

    def start(self) -> None:
        """Publish the initial states and begin; the first checks are spread as HAProxy spreads them."""
        for one in self.servers:
            if one.at != whereabouts.of(one.server) and one.at.host and self.place is not None:
                self.place(one.gid, one.at)
            self._tell(one)
            if one.weight != one.server.weight and self.weigh is not None:
                self.weigh(one.gid, one.weight)
        asked = [one for one in self.servers if one.agent is not None]
        if not (self.checked or self.slow or asked):
            return
        self._begin()
        alike = [(one, False) for one in self.checked] + [(one, True) for one in asked]
        alike.sort(key=lambda each: each[0].gid)
        inters = [self._first_inter(one, of_agent) for one, of_agent in alike]
        pace = min((inter for inter in inters if inter >= SPREAD_FROM_S), default=0.0)
        for at, (one, of_agent) in enumerate(alike):
            span = max(pace, inters[at])
            if self.process.max_spread_checks_s > 0:
                span = min(span, self.process.max_spread_checks_s)
            self._enlist(one, span * at / len(alike), of_agent=of_agent)
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def _begin(self) -> CheckEngine:
        from haptk._fast.checks.engine import CheckEngine

        self.checks = CheckEngine(
            self.process.bufsize,
            self.process.spread_checks,
            self.alarm if self.observed else -1,
            clock.monotonic_usec() & 0xFFFFFFFF,
        )
        return self.checks

    def _first_inter(self, one: Checked, of_agent: bool) -> float:
        return one.agent.plan.inter_s if of_agent and one.agent is not None else one.health.interval_s()

    # -- checks of the engine; from its thread, or before that runs

    def _enlist(self, one: Checked, first_s: float, *, of_agent: bool = False) -> None:
        """Have the engine check a server, or ask its agent."""
        from haptk.proxy import checkprogram

        if self.checks is None:
            return
        first_ms = int(first_s * 1000)
        if of_agent and one.agent is not None:
            asked = one.agent
            index = self.checks.add(checkprogram.agent_steps(asked.plan), int(asked.plan.inter_s * 1000), first_ms)
            asked.engine, asked.check = self.checks, index
            self._by_agent[index] = one
            self._equip(index, asked.plan)
            self.checks.pause(index, not asked.state.enabled)
            self._aim(index, asked.plan.host, asked.plan.port)
        elif one.plan is not None:
            plan, before = one.plan, one.last
            index = self.checks.add(checkprogram.check_program(plan), int(plan.inter_s * 1000), first_ms)
            if before is not None:
                text, ms = before.reason.encode("latin-1", "replace"), int(before.duration_s * 1000)
                self.checks.recall(index, before.code or "UNK", before.status or 0, ms, text)
            one.engine, one.check = self.checks, index
            self._by_check[index] = one
            self._equip(index, plan)
            self._heed(self.checks, one)
            self._aim(index, plan.host, plan.port)

    def _equip(self, index: int, plan: CheckPlan | AgentPlan) -> None:
        if self.checks is None:
            return
        of_server = plan if isinstance(plan, CheckPlan) else None
        self.checks.equip(
            index,
            send_proxy=of_server.send_proxy if of_server else 0,
            connect_ms=_ms(plan.connect_timeout_s),
            timeout_ms=_ms(plan.timeout_s),
            off_404=of_server.disable_on_404 if of_server else False,
            asks=of_server.send_state if of_server else False,
            source=(plan.source.host, plan.source.low, plan.source.high) if plan.source is not None else None,
        )

    def _aim(self, index: int, host: str, port: int) -> None:
        if self.checks is None:
            return
        try:
            self.checks.aim(index, host, port)
        except (ValueError, OSError) as error:
            log.error("a check has no target: %s", error)
            self.checks.aim(index, "", 0)

    def _heed(self, engine: CheckEngine, one: Checked) -> None:
        """What the engine has to know of a server whose state was changed by somebody else."""
        engine.heed(one.check, stopped=not one.health.state.usable)
        engine.pause(one.check, one.paused or one.health.due_at() is None)

    def _changed_elsewhere(self, one: Checked) -> None:
        if one.check >= 0:
            self._do(lambda engine: self._heed(engine, one))

    def _do(self, call: Callable[[CheckEngine], None]) -> None:
        """Have the engine's thread do something."""
        if self.checks is not None:
            self._calls.put(call)
            self.checks.wake()

    # -- servers that come, go and move

    def _retarget(self, one: Checked) -> None:
        """The checks of a server and its agent go where its plans say now."""
        if one.plan is not None and one.check >= 0:
            self._aim(one.check, one.plan.host, one.plan.port)
        if one.agent is not None and one.agent.check >= 0:
            self._aim(one.agent.check, one.agent.plan.host, one.agent.plan.port)

    def adopt(self, backend: Backend, server: Server, *, enabled: bool) -> Checked:
        """A server that was added at run time: its checks and its agent are not enabled yet, as in HAProxy."""
        with self._lock:
            self._add(backend, server, None)
            one = self.servers[-1]
            one.dynamic = True
            one.paused = one.plan is not None
            if one.agent is not None:
                one.agent.state.enabled = False
            if not enabled:
                one.health.admin("maint", clock.monotonic())
            if self.herald is not None:
                self.herald.adopt(backend, server)
            self._members[backend.name].append(one)
            self._named[one.name] = one
            if server.slowstart_s > 0:
                self.slow.append(one)
            if one.plan is not None and server.observe:
                self.observed.append(one)
            self._tell(one)
            if one.plan is not None or one.agent is not None or server.slowstart_s > 0:
                self.attach(one)
            return one

    def dismiss(self, one: Checked) -> None:
        """A server that was removed at run time."""
        with self._lock:
            self.detach(one)
            one.gone = True
            backend = one.name.rpartition("/")[0]
            self._members[backend].remove(one)
            self._named.pop(one.name, None)
            self.leaders.pop(one.gid, None)
            for group in (self.slow, self.observed):
                if one in group:
                    group.remove(one)
            self.standing(backend)

    def attach(self, one: Checked, *, at_once: bool = False) -> None:
        """Begin to check a server (`one.plan`, `one.agent`), its first time within its interval."""
        with self._lock:
            if self.checks is None:
                self._begin()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="health", daemon=True)
                self._thread.start()
            if one.plan is not None and one not in self.checked:
                self.checked.append(one)
            for of_agent in (False, True):
                first_s = 0.0 if at_once else self._first_inter(one, of_agent)
                self._do(lambda _, of_agent=of_agent, first_s=first_s: self._enlist(one, first_s, of_agent=of_agent))  # type: ignore[misc]

    def detach(self, one: Checked) -> None:
        """Check a server no more, nor ask its agent."""
        with self._lock:
            if one in self.checked:
                self.checked.remove(one)
            self._do(lambda engine: self._forget(engine, one))

    def _forget(self, engine: CheckEngine, one: Checked) -> None:
        if one.check >= 0:
            one.last, index = one.last, one.check
            one.engine, one.check = None, -1
            self._by_check.pop(index, None)
            engine.remove(index)
        if one.agent is not None and one.agent.check >= 0:
            index, one.agent.check, one.agent.engine = one.agent.check, -1, None
            self._by_agent.pop(index, None)
            engine.remove(index)

    # -- the administrator

    def admin(self, gid: int, wish: str) -> None:
        """`ready`, `drain` or `maint` for one server."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.admin(wish, clock.monotonic())
            if change is not None:
                self._changed(one, change, "admin")
            self._changed_elsewhere(one)

    def force(self, gid: int, wish: str) -> None:
        """Health `up`, `stopping` or `down` for one server, until a check says otherwise."""
        with self._lock:
            one = self.servers[gid]
            change = one.health.force(wish, clock.monotonic())
            if change is not None:
                self._changed(one, change)
            self._changed_elsewhere(one)

    def pause(self, gid: int, *, paused: bool) -> None:
        """No checks of one server until it is said otherwise (`disable health`, `enable health`)."""
        with self._lock:
            one = self.servers[gid]
            one.paused = paused
            self._changed_elsewhere(one)

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
            self._changed_elsewhere(one)

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
            if asked.check >= 0:
                self._do(lambda engine: engine.pause(asked.check, paused))

    def send_to_agent(self, gid: int, text: bytes) -> None:
        """What the agent of one server is sent from now on."""
        asked = self.servers[gid].agent
        if asked is not None:
            asked.plan = replace(asked.plan, send=text)
            if asked.check >= 0:
                self._do(lambda engine: self._ask_elsewhere(engine, self.servers[gid]))

    def _ask_elsewhere(self, engine: CheckEngine, one: Checked) -> None:
        """The plan of an agent has changed: another check takes its place."""
        if one.agent is not None and one.agent.check >= 0:
            self._by_agent.pop(one.agent.check, None)
            engine.remove(one.agent.check)
            self._enlist(one, one.agent.plan.inter_s, of_agent=True)

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
            self._do(lambda _: self._retarget(one))
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
        """No more checks; those under way are given up."""
        self._stopping.set()
        if self.checks is not None:
            self.checks.wake()
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
        """The engine's thread: checks run in compiled code, and come back where something is to be decided."""
        engine = self.checks
        if engine is not None:
            supervise.keep("the thread of the health checks", lambda: self._turn(engine), self._stopping)

    def _turn(self, engine: CheckEngine) -> None:
        if self.observed:
            self._look_at_traffic()
        wait_s = WARMING_S if self._warm_up(clock.monotonic()) else IDLE_S
        found, _rung, _alarmed = engine.turn(int(wait_s * 1000))
        for index in found:
            try:
                self._answered(engine, index)
            except Exception:  # neither this check nor those behind it may be the last of their servers
                self._again(engine, index)
        while not self._calls.empty():
            call = self._calls.get()
            try:
                call(engine)
            except Exception:
                log.exception("a change of the health checks could not be carried out")

    def _again(self, engine: CheckEngine, index: int) -> None:
        """The check whose result was not dealt with runs again after its interval."""
        one = self._by_check.get(index) or self._by_agent.get(index)
        log.exception("the result of a check of %s could not be dealt with", one.name if one else "no server")
        if one is not None:
            plan = one.agent.plan if one.agent is not None and index in self._by_agent else one.plan
            engine.decide(index, _ms(plan.inter_s if plan else IDLE_S), stopped=not one.health.state.usable)

    def _answered(self, engine: CheckEngine, index: int) -> None:
        """The engine has a result that somebody must look at, or wants to know what to send."""
        if (one := self._by_agent.get(index)) is not None:
            self._agent_answered(engine, one)
            return
        one = self._by_check.get(index)
        if one is None:
            return
        if engine.asked(index):
            send = next((step.send for step in one.plan.steps if step.send), None) if one.plan is not None else None
            if send is not None:
                engine.send(index, request(send, self._state_text(one)))
            return
        with self._lock:
            engine.show(index)
            result = one.last
            if result is not None:
                self._settle(one, result)
            health = one.health
            passed = result is not None and result.ok
            settled = health.health == (health.rules.full if passed else 0)
            inter_ms = max(1, round(health.interval_s() * 1000))
            # where live traffic is observed, each check that passes ends its row of errors
            steady = engine.outcome(index) if settled and not one.server.observe else 0
            engine.decide(index, inter_ms, steady=steady, steady_ms=inter_ms, stopped=not health.state.usable)

    def _agent_answered(self, engine: CheckEngine, one: Checked) -> None:
        asked = one.agent
        if asked is None:
            return
        line = engine.line(asked.check)
        if line is not None and asked.state.enabled:
            said = agent.parse(line.decode("latin-1"))
            self._hear(one.gid, said)
            engine.note(asked.check, said.code, 0, said.text.encode("latin-1", "replace"))
        elif line is None:
            engine.show(asked.check)
        before = asked.state.code
        asked.look()
        if self.herald is not None and asked.state.code not in (before, agent.CHECKED):
            self.herald.agent_checked(one)
        engine.decide(asked.check, _ms(asked.plan.inter_s))

    def _state_text(self, one: Checked) -> str:
        """X-Haproxy-Server-State, as the server's own check carries it."""
        health, rules = one.health, one.health.rules
        if health.state.usable:
            word = "NOLB" if health.stopping else "UP"
            if health.health < rules.full:
                word += f" {health.health - rules.rise + 1}/{rules.fall}"
        else:
            word = f"DOWN {health.health}/{rules.rise}" if health.health else "DOWN"
        backend, _, name = one.name.rpartition("/")
        total = sum(each.weight for each in self._members[backend] if self.state(each) is State.UP)
        looks = [self.herald.look(each.gid) if self.herald else {} for each in self._members[backend]]
        mine = self.herald.look(one.gid) if self.herald else {}
        busy = sum(int(each.get("sessions", 0)) for each in looks)
        return (
            f"{word}; address={one.host or 'unix'}; port={one.port or ''}; name={backend}/{name}; node={self.process.node}; "
            f"weight={one.weight if health.state is State.UP else 0}/{total}; scur={mine.get('sessions', 0)}/{busy}; "
            f"qcur={mine.get('queued', 0)}"
        )

    def _arm(self, one: Checked) -> None:
        """Tell the workers how many more times live traffic takes a server down, those that wait to be seen included."""
        if self.fuse is not None and self.tripped is not None and one.server.observe and one.plan is not None:
            unseen = self.tripped(one.gid) - one.tripped
            self.fuse(one.gid, max(one.health.trips_left() - unseen, 0))

    def _look_at_traffic(self) -> None:
        """Servers whose live traffic went wrong too often in a row (`observe`): what `on-error` says."""
        for one in self.observed:
            count = self.tripped(one.gid) if self.tripped is not None else 0
            if count == one.tripped:
                continue
            with self._lock:
                for _ in range(count - one.tripped):
                    self._traffic_failed(one)
                one.tripped = count
                self._arm(one)
                if self.checks is not None and one.check >= 0:
                    self._heed(self.checks, one)
                    # the next check comes sooner; one that is under way comes first
                    if one.health.rules.fastinter_s:
                        self.checks.hasten(one.check, _ms(one.health.rules.fastinter_s))

    def _traffic_failed(self, one: Checked) -> None:
        """One burst of errors: what is shown of it is HAProxy's, with the error that is usual at that layer."""
        limit, before = one.server.error_limit, one.health.health
        last = self.cause(one.gid) if self.cause is not None else "Wrong http response"
        if one.server.on_error != "fastinter" and self.checks is not None and one.check >= 0:
            text = f"Detected {limit} consecutive errors, last one was: {last}"
            self.checks.note(one.check, "HANA", 0, text.encode(), False)
            one.known = "HANA"
            one.failed += before > 0
        change = None
        for _ in range(limit):
            change = one.health.observe(False, f"seen at {one.server.observe}", clock.monotonic()) or change
        if self.herald is not None and before != one.health.health:
            self.herald.checked(one, good=False)
        if change is not None:
            self._changed(one, change)

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
            self._do(lambda _: None)  # the engine may be asleep
        self._tell(one, why)
        if not change.new.usable and one.server.on_marked_down == "shutdown-sessions" and self.cut is not None:
            self.cut(one.gid)

    def _settle(self, one: Checked, result: ProbeResult) -> None:
        """Feed one result to the core and publish what it changes."""
        with self._lock:
            health = one.health
            if one.plan is None or health.due_at() is None:
                return
            verdict = verdict_of(result)
            before = (health.health, one.known)
            if one.check < 0:
                one.last = result
            one.known = result.code
            one.failed += verdict is Verdict.FAIL and health.health > 0
            change = health.check(verdict, result.reason, clock.monotonic())
            if verdict is not Verdict.FAIL and one.server.observe and self.forgive is not None:
                self.forgive(one.gid)
            if self.herald is not None and before != (health.health, result.code):
                self.herald.checked(one, good=verdict is not Verdict.FAIL)
            if change is not None:
                self._changed(one, change)
            self._arm(one)


def _ms(seconds: float | None) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0
