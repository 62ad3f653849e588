"""`heartbeat`: what `haptk heartbeat` says of itself on its control socket.

Alarms: nobody answers, a resource failed, the node's own check is down. Warnings, because the service still runs but the
next failure would not be survived: the peer is gone, a link is dead, resources are on the move.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.errors import NotRunning
from haptk.io import clock, control
from haptk.report.nagios import State, worst

FIGURES = ("time", "peer_age", "links", "held")
SOCKET = Path("/run/haptk/heartbeat.sock")
HOLDS = ("any", "all", "local", "foreign", "none")


def heartbeat(path: Path, timeout_s: float, limits: Limits, *, hold: str = "any") -> Check:
    """A check of the daemon behind `path`. `hold`: what this node has to hold now."""

    def look(timeout_s: float) -> Finding:
        started = clock.monotonic()
        try:
            status = control.call(path, {"op": "status"}, timeout_s=timeout_s, what="haptk heartbeat")
        except NotRunning as error:
            return Finding(State.CRITICAL, str(error))
        time = limits.time(clock.monotonic() - started, timeout_s)
        found = of_status(status, limits, hold)
        return conclude(found.state, found.text, (time, *found.perf), found.more, found.facts)

    return Check("HEARTBEAT", str(path), timeout_s, look)


def of_status(status: Mapping[str, Any], limits: Limits, hold: str) -> Finding:
    """Judge one answer to `status`."""
    peer: Mapping[str, Any] = status.get("peer") or {}
    groups: list[Mapping[str, Any]] = status.get("resources") or []
    links: Mapping[str, str] = peer.get("links") or {}
    troubles: list[tuple[State, str]] = []
    if status.get("state") != "active":
        troubles.append((State.WARNING, f"this node is {status.get('state')}"))
    own_check = (status.get("check") or {}).get("state")
    if own_check == "down":
        troubles.append((State.CRITICAL, "the service that it would serve with is down here"))
    if peer.get("state") != "active":
        troubles.append((State.WARNING, f"peer {peer.get('name') or '(unknown)'} is {peer.get('state')}"))
    elif peer.get("check") == "down":
        troubles.append((State.WARNING, f"peer {peer.get('name')} could not take over: its service is down"))
    dead = [name for name, state in links.items() if state == "dead"]
    if dead and peer.get("state") == "active":
        troubles.append((State.WARNING, f"link {', '.join(dead)} is dead"))
    for group in groups:
        if group.get("state") == "failed":
            why = f": {group['why']}" if group.get("why") else ""
            troubles.append((State.CRITICAL, f"resource {group.get('name')} failed{why}"))
        elif group.get("state") in ("starting", "stopping"):
            troubles.append((State.WARNING, f"resource {group.get('name')} is {group['state']}"))
    holding = str(status.get("hold"))
    if hold not in ("any", holding):
        troubles.append((State.CRITICAL, f"it holds {holding}, expected {hold}"))
    age = peer.get("heard_s_ago")
    perf = [
        limits.perf("peer_age", float(age) if age is not None else None, "s", minimum=0),
        limits.perf("links", sum(state == "up" for state in links.values()), minimum=0, maximum=len(links)),
        limits.perf("held", sum(bool(group.get("held")) for group in groups), minimum=0, maximum=len(groups)),
    ]
    told = (
        f"{status.get('node')} is {status.get('state')}, holds {holding}; peer {peer.get('name')} {peer.get('state')}"
    )
    text = "; ".join([*(text for _, text in troubles), told])
    more = [f"resource {group.get('name')}: {group.get('state')}" for group in groups]
    state = worst([State.OK, *(state for state, _ in troubles)])
    return conclude(state, text, perf, more, {"status": dict(status)})
