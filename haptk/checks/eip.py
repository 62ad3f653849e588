"""`eip`: does this node hold the address? The three states of `core.vip` in the words of a monitoring plugin.

Ours is OK; not ours is CRITICAL (OK on a standby). Unknown is CRITICAL like every time-out, except where it can never
become known: wrong arguments, refused or missing credentials are UNKNOWN, because no failover would help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.io import clock
from haptk.report.nagios import State

if TYPE_CHECKING:
    from haptk.core.vip import Status

FIGURES = ("time", "held")


def eip(
    address: str, ask: Callable[[float], Status], timeout_s: float, limits: Limits, *, standby: bool = False
) -> Check:
    """A check of one address; `ask` is the agent's `status`, with the seconds that it may take."""

    def look(timeout_s: float) -> Finding:
        started = clock.monotonic()
        status = ask(timeout_s)
        return of_status(address, status, clock.monotonic() - started, timeout_s, limits, standby=standby)

    return Check("EIP", address, timeout_s, look)


def of_status(
    address: str, status: Status, duration_s: float, timeout_s: float, limits: Limits, *, standby: bool
) -> Finding:
    """One of three states as one of four."""
    from haptk.core.vip import NotOurs, Ours, Unknown
    from haptk.eip.contracts.words import NEVER_WORKS

    held: float | None = None
    match status:
        case Ours():
            state, held = State.OK, 1
        case NotOurs(holder=holder):
            # On a standby all is well while somebody holds it; an address that nobody holds is an outage for both.
            state, held = State.OK if standby and holder is not None else State.CRITICAL, 0
        case Unknown(trouble=trouble):
            state = State.UNKNOWN if trouble in NEVER_WORKS else State.CRITICAL
    perf = [limits.time(duration_s, timeout_s), limits.perf("held", held, minimum=0, maximum=1)]
    return conclude(state, f"{address} is {status}", perf, facts={"address": address, "standby": standby})
