"""A drill: steady clients, a real failure, and the evidence for the judge.

The drill owns the order of events and waits for conditions, never for fixed times, except for the settling seconds
after the recovery, in which nothing may happen any more.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haptk.errors import HaptkError, PeerTimeout
from haptk.io import clock
from haptk.io.process import die_with_parent
from haptk.lab import health
from haptk.lab.balancer import python
from haptk.lab.client import Lab, layout_of
from haptk.lab.judge import Evidence, Failure, Report, judge
from haptk.lab.layout import MARK, PROXY_PORT, TIMINGS, Layout, Timing

KINDS = ("proxy", "instance", "app")
STEADY_S = 1.5
HEAL_LIMIT_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True)
class Plan:
    """What to do: the failure, how many clients, and the outage that is allowed (None: the timing's own budget)."""

    kind: str = "instance"
    sessions: int = 40
    interval_s: float = 0.2
    budget_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The judge's report and the clients' log that it was made from (kept for the drawing)."""

    report: Report
    requests: list[dict[str, Any]]
    lb: str
    timing: str
    address: str


def run(lab: Lab, plan: Plan, progress: Callable[[str], None]) -> Outcome:
    """Heal the lab if an earlier drill left something dead, then drill it once and judge."""
    status = lab.status()
    timing, layout = TIMINGS[status["timing"]], layout_of(status)
    _heal(lab, timing, progress)
    log = lab.root / "clients.jsonl"
    progress("clients")
    with _load(lab, layout, timing, plan, log):
        _wait_for_calm(log, plan.sessions)
        progress(f"failure: {plan.kind}")
        done = lab.call("fail", kind=plan.kind)
        progress("recovery")
        _wait_for_recovery(lab, plan.kind, done["victim"], timing)
        clock.sleep(timing.settle_s)
    requests = list(_lines(log))
    dead = frozenset(i.label for i in layout.applications if i.name == done["victim"])
    failure = Failure(plan.kind, done["victim"], done["at"], dead)
    evidence = _evidence(lab, requests, failure, health.alarms(health.plan(layout, lab.root, done["victim"])))
    report = judge(failure, evidence, timing.budget_s if plan.budget_s is None else plan.budget_s)
    return Outcome(report, requests, status["lb"], status["timing"], layout.address)


def _heal(lab: Lab, timing: Timing, progress: Callable[[str], None]) -> None:
    if lab.status().get("settled"):
        return
    progress("healing")
    lab.call("heal")
    limit_s = HEAL_LIMIT_S + timing.initdead_s
    deadline = clock.monotonic() + limit_s
    while not lab.status().get("settled"):
        if clock.monotonic() > deadline:
            raise PeerTimeout(peer="the lab", timeout_s=limit_s, why="it did not settle after an earlier failure")
        clock.sleep(POLL_S)


@contextmanager
def _load(lab: Lab, layout: Layout, timing: Timing, plan: Plan, log: Path) -> Iterator[None]:
    """The clients, as a process of the lab, for the time of the block."""
    log.unlink(missing_ok=True)
    argv = python("haptk.lab.load", "--target", f"{layout.address}:{PROXY_PORT}", "--log", str(log))
    argv += ["--sessions", str(plan.sessions), "--interval-s", str(plan.interval_s)]
    argv += ["--timeout-s", str(timing.client_timeout_s)]
    with (lab.root / "clients.log").open("ab") as errors:
        process = subprocess.Popen(
            argv,
            stdout=errors,
            stderr=errors,
            env={**os.environ, MARK: str(lab.root)},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads run here)
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a log; a half-written last line and lines that are not JSON are passed over."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _wait_for_calm(log: Path, sessions: int, limit_s: float = 20.0) -> None:
    """Until every client is served and none failed for STEADY_S: a failover of a tier that limps shows nothing."""
    deadline = clock.monotonic() + limit_s
    while True:
        requests = list(_lines(log))
        now = clock.monotonic()
        served = {request["session"] for request in requests if request["outcome"] == "ok"}
        lately = [r for r in requests if r["end"] > now - STEADY_S and r["outcome"] != "ok"]
        long_enough = bool(requests) and requests[0]["end"] < now - STEADY_S
        if len(served) == sessions and long_enough and not lately:
            return
        if now > deadline:
            why = f"{len(served)} of {sessions} clients served, {len(lately)} failures in the last {STEADY_S} s"
            raise PeerTimeout(peer="the address before any failure", timeout_s=limit_s, why=why)
        clock.sleep(POLL_S)


def _wait_for_recovery(lab: Lab, kind: str, victim: str, timing: Timing) -> None:
    """Until the address serves from a living holder. Ends at twice the budget too: the judge then says what is wrong."""
    deadline = clock.monotonic() + 2 * timing.budget_s + 2.0
    while clock.monotonic() < deadline:
        try:
            look = lab.call("look", timeout_s=5.0)
        except HaptkError:
            return  # the supervisor itself died; the evidence will show it
        if look["serves"] and (kind == "app" or look["holder"] not in (None, victim)):
            return
        clock.sleep(POLL_S)


def _evidence(lab: Lab, requests: list[dict[str, Any]], failure: Failure, alarms: dict[str, str]) -> Evidence:
    witness = lab.call("evidence", since=failure.killed_at_s, timeout_s=20.0)
    events = []
    for path in sorted(lab.root.glob("lb*/lb*.heartbeat.log")):
        node = path.parent.name
        events += [{**line, "node": node} for line in _lines(path) if "event" in line and "monotonic_s" in line]
    return Evidence(
        requests=requests,
        events=sorted(events, key=lambda event: event["monotonic_s"]),
        calls=witness["calls"],
        history=witness["history"],
        owners=witness["owners"],
        api_owner=witness["api_owner"],
        alarms=alarms,
    )
