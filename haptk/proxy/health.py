"""Runs the health checks of one configuration: a schedule, a few probing threads, and the flags that the workers read.

The decisions are core/health.py's; this is its shell. One thread schedules; probes block, so they run in a small pool
and hand their results back through a queue. A server that is still being probed is never probed twice at once.
"""

from __future__ import annotations

import heapq
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from haptk.core.health import Change, CheckRules, Health, State, Verdict, transplant
from haptk.io import clock
from haptk.io.probe import ProbeResult, probe_http, probe_tcp
from haptk.proxy.tables import Backend, CheckPlan, ProxyTables, Server

PROBES_AT_ONCE = 32
log = logging.getLogger("haptk.proxy")

Publish = Callable[[int, str], None]
Weigh = Callable[[int, float], None]
Cut = Callable[[int], None]


@dataclass
class Checked:
    """One checked server: its index over all backends, its plan and its state."""

    gid: int
    name: str
    plan: CheckPlan
    health: Health
    server: Server
    last: ProbeResult | None = None
    warming: bool = False


def rules_of(server: Server, plan: CheckPlan) -> CheckRules:
    """The numbers of a server line as the core wants them."""
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
        )
    return probe_tcp(
        plan.host,
        plan.port,
        timeout_s,
        send_proxy=plan.send_proxy,
        steps=plan.steps,
    )


def verdict_of(plan: CheckPlan, result: ProbeResult) -> Verdict:
    """404 under `http-check disable-on-404` drains; everything else is what the probe said."""
    if plan.disable_on_404 and result.status == 404:
        return Verdict.DRAIN
    return Verdict.PASS if result.ok else Verdict.FAIL


class HealthRunner:
    """Checks all servers of `tables` that ask for it and calls `publish(gid, "UP" | "DOWN" | "DRAIN" | "MAINT")`.

    `weigh(gid, weight)` follows slowstart; `cut(gid)` ends the sessions of a server that went down where its line has
    `on-marked-down shutdown-sessions`. All are called from the scheduling thread; servers that `track` another follow
    it. Use `start`, `stop`.
    """

    def __init__(
        self,
        tables: ProxyTables,
        publish: Publish,
        inherit: HealthRunner | None = None,
        *,
        weigh: Weigh | None = None,
        cut: Cut | None = None,
    ) -> None:
        self.publish = publish
        self.weigh = weigh
        self.cut = cut
        self.checked: list[Checked] = []
        self.followers: dict[str, list[int]] = {}
        self._results: queue.SimpleQueue[tuple[Checked, ProbeResult] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        old = {one.name: one.health for one in inherit.checked} if inherit else {}
        gid = 0
        for backend in tables.backends:
            for server in backend.servers:
                self._add(backend, server, gid, old)
                gid += 1

    def _add(self, backend: Backend, server: Server, gid: int, old: dict[str, Health]) -> None:
        name = f"{backend.name}/{server.name}"
        if server.track:
            target = server.track if "/" in server.track else f"{backend.name}/{server.track}"
            self.followers.setdefault(target, []).append(gid)
        if server.check is None or server.disabled:
            return
        now = clock.monotonic()
        rules = rules_of(server, server.check)
        health = transplant(old[name], rules) if name in old else Health(f"server {name}", rules, started_at=now)
        self.checked.append(Checked(gid, name, server.check, health, server))

    def start(self) -> None:
        """Publish the initial states and begin; the first checks are spread over the shortest interval."""
        for one in self.checked:
            self._tell(one)
        if self.checked:
            self._thread = threading.Thread(target=self._run, name="health", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop scheduling; probes under way end by their own time-outs and are ignored."""
        self._stopping.set()
        self._results.put(None)
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _tell(self, one: Checked) -> None:
        for gid in (one.gid, *self.followers.get(one.name, ())):
            self.publish(gid, one.health.state.value)

    def _run(self) -> None:
        shortest = min(one.plan.inter_s for one in self.checked)
        now = clock.monotonic()
        due = [(now + shortest * index / len(self.checked), one.gid) for index, one in enumerate(self.checked)]
        by_gid = {one.gid: one for one in self.checked}
        heapq.heapify(due)
        with ThreadPoolExecutor(min(PROBES_AT_ONCE, len(self.checked)), "probe") as pool:
            while not self._stopping.is_set():
                now = clock.monotonic()
                while due and due[0][0] <= now:
                    one = by_gid[heapq.heappop(due)[1]]
                    pool.submit(self._probe, one)
                wait_s = max(due[0][0] - now, 0.0) if due else 1.0
                if self._warm_up(now):
                    wait_s = min(wait_s, 0.5)
                try:
                    found = self._results.get(timeout=wait_s)
                except queue.Empty:
                    continue
                if found is not None:
                    heapq.heappush(due, (self._settle(*found), found[0].gid))
            pool.shutdown(wait=False, cancel_futures=True)

    def _warm_up(self, now: float) -> bool:
        """Adjust the weights of servers under slowstart; True while some are."""
        for one in self.checked:
            if not one.warming or self.weigh is None:
                continue
            percent = one.health.weight_percent(now)
            one.warming = one.health.state is State.UP and percent < 100
            # a server that went down again gets its weight back when it returns
            self.weigh(one.gid, one.server.weight * (percent if one.warming else 100) / 100)
        return any(one.warming for one in self.checked)

    def _changed(self, one: Checked, change: Change) -> None:
        """A transition: tell the log and the workers, start warming up, cut sessions."""
        log.log(logging.WARNING if change.new is State.DOWN else logging.INFO, "%s", change.reason)
        if change.new is State.UP and one.server.slowstart_s > 0:
            one.warming = True
            self._warm_up(change.at)
        self._tell(one)
        if change.new is State.DOWN and one.server.on_marked_down == "shutdown-sessions" and self.cut is not None:
            self.cut(one.gid)

    def _probe(self, one: Checked) -> None:
        if not self._stopping.is_set():
            self._results.put((one, probe(one.plan)))

    def _settle(self, one: Checked, result: ProbeResult) -> float:
        """Feed one result to the core, publish a change, and return when the next check is due."""
        now = clock.monotonic()
        one.last = result
        change = one.health.check(verdict_of(one.plan, result), result.reason, now)
        if change is not None:
            self._changed(one, change)
        return one.health.due_at() or now + one.plan.inter_s
