"""`dns`: ask one server (or the system's) for a name and compare the answer (dnspython, imported when it is used)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.io import clock
from haptk.report.nagios import State

FIGURES = ("time", "answers", "ttl")


def dns(
    name: str,
    timeout_s: float,
    limits: Limits,
    *,
    kind: str = "A",
    server: tuple[str, int] | None = None,
    expect: Sequence[str] = (),
    exactly: bool = False,
) -> Check:
    """A check of one name. `expect` are answers that have to be there; with `exactly` no others may be."""

    def look(timeout_s: float) -> Finding:
        started = clock.monotonic()
        import dns.exception
        import dns.resolver

        left_s = max(0.05, started + timeout_s - clock.monotonic())  # the import takes a tenth of a second of it
        try:
            resolver = dns.resolver.Resolver(configure=server is None)
            if server is not None:
                resolver.nameservers = [server[0]]
                resolver.port = server[1]
            resolver.timeout = min(2.0, left_s)
            answer = resolver.resolve(name, kind, lifetime=left_s, raise_on_no_answer=False, search=False)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return _failed(error, name, kind, clock.monotonic() - started, timeout_s, limits)
        duration_s = clock.monotonic() - started
        return of_answer(answer, name, kind, duration_s, timeout_s, limits, expect, exactly=exactly)

    asked = f" @{server[0]}:{server[1]}" if server else ""
    return Check("DNS", f"{name} {kind}{asked}", timeout_s, look)


def _failed(error: Exception, name: str, kind: str, duration_s: float, timeout_s: float, limits: Limits) -> Finding:
    import dns.exception
    import dns.resolver

    perf = [limits.time(duration_s, timeout_s)._replace(warning=None, critical=None)]
    if isinstance(error, dns.resolver.NXDOMAIN):
        return conclude(State.CRITICAL, f"{name} does not exist (NXDOMAIN)", perf)
    if isinstance(error, dns.exception.Timeout):
        return conclude(State.CRITICAL, f"no answer for {name} {kind} within {timeout_s:.3g} s", perf)
    if isinstance(error, dns.resolver.NoNameservers):
        return conclude(State.CRITICAL, f"no server answered usably for {name} {kind}: {error}", perf)
    return Finding(State.UNKNOWN, f"cannot ask for {name} {kind}: {error}")


def of_answer(
    answer: Any,
    name: str,
    kind: str,
    duration_s: float,
    timeout_s: float,
    limits: Limits,
    expect: Sequence[str],
    *,
    exactly: bool,
) -> Finding:
    """Compare what came with what was expected; names are compared without case and final dot."""
    found = sorted(record.to_text() for record in (answer.rrset or ()))
    perf = [
        limits.time(duration_s, timeout_s),
        limits.perf("answers", len(found), minimum=0),
        limits.perf("ttl", answer.rrset.ttl if answer.rrset is not None else None, "s"),
    ]
    facts = {"answers": found}
    if not found:
        return conclude(State.CRITICAL, f"{name} has no {kind} record", perf[:2], facts=facts)
    have = {_plain(text) for text in found}
    want = {_plain(text) for text in expect}
    text = f"{name} {kind} is {', '.join(found)}"
    state = State.OK
    if want - have:
        state, text = State.CRITICAL, f"{text}; missing: {', '.join(sorted(want - have))}"
    if exactly and have - want:
        state, text = State.CRITICAL, f"{text}; not expected: {', '.join(sorted(have - want))}"
    return conclude(state, text, perf, facts=facts)


def _plain(text: str) -> str:
    return text.strip('"').rstrip(".").lower()
