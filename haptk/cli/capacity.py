"""`haptk capacity`: how many balancers a load needs, and whether the tier survives the loss of a node or of a zone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haptk.cli.base import Command, emit
from haptk.errors import OperatorError, PeerError

if TYPE_CHECKING:
    from haptk.cluster.capacity import Capacity
    from haptk.cluster.schema import Cluster

RATE = click.FloatRange(min=0, min_open=True)


@click.command(cls=Command)
@click.option("--peak", type=RATE, required=True, metavar="RPS", help="Requests/s of the busiest minute.")
@click.option("--per-node", "given", multiple=True, metavar="[NAME=]RPS",
              help="Requests/s that a balancer can do; with NAME= of that one; repeatable.")  # fmt: skip
@click.option("--measure", "sockets", multiple=True, metavar="[NAME=]SOCKET", type=str,
              help="Measure it on a stats socket of this machine, under load.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="Time to measure.")
@click.option("--per-server", type=RATE, metavar="RPS", help="Requests/s that an application server can do.")
@click.option("--limit", type=click.FloatRange(0.05, 1), default=0.8, show_default=True,
              help="Part of a capacity that may be used.")  # fmt: skip
def capacity(
    peak: float,
    given: tuple[str, ...],
    sockets: tuple[str, ...],
    seconds: float,
    per_server: float | None,
    limit: float,
) -> int:
    """Say how many balancers a load needs and what losses it survives.

    Exit codes: 0 the tier carries the peak as it is, without any one balancer and without any one zone; 1 it does not.

    --measure divides what a proxy did by the processor time that it took, which tells what its threads could do.
    """
    from haptk.cli.tier import read_cluster
    from haptk.cluster.capacity import Load, judge

    cluster = read_cluster()
    if not cluster.balancers:
        raise OperatorError(what="the tier has no balancers of its own: AWS sizes its load balancer")
    rates = _rates(cluster, given)
    for name, rate in _measured(cluster, sockets, seconds).items():
        rates.setdefault(name, rate)
    missing = [one.name for one in cluster.balancers if one.name not in rates]
    if missing:
        raise OperatorError(what=f"nothing says what {', '.join(missing)} can do: --per-node RPS or --measure SOCKET")
    found = judge(cluster, Load(peak, rates, per_server, limit))
    told = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
    emit(_body(found, rates), "\n".join([f"can do: {told}; {limit:.0%} of it may be used", _text(found, peak)]))
    return 0 if found.survives else 1


def _named(cluster: Cluster, option: str, words: tuple[str, ...]) -> dict[str, str]:
    """Values by balancer; a word without NAME= is for all that no other word names."""
    names = [one.name for one in cluster.balancers]
    found, rest = {}, ""
    for word in words:
        name, equals, value = word.rpartition("=")
        if equals and name not in names:
            raise OperatorError(what=f"{option} {word!r}: no balancer is named {name!r}; there are {', '.join(names)}")
        if equals:
            found[name] = value
        else:
            rest = value
    return {name: found.get(name, rest) for name in names if found.get(name, rest)}


def _rates(cluster: Cluster, words: tuple[str, ...]) -> dict[str, float]:
    rates = {}
    for name, text in _named(cluster, "--per-node", words).items():
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) <= 0:
            raise OperatorError(what=f"--per-node {text!r}: a number of requests per second above 0 is accepted")
        rates[name] = float(text)
    return rates


def _measured(cluster: Cluster, words: tuple[str, ...], seconds: float) -> dict[str, float]:
    places = _named(cluster, "--measure", words)
    rates = {place: _measure(Path(place), seconds) for place in dict.fromkeys(places.values())}
    return {name: rates[place] for name, place in places.items()}


def _measure(path: Path, seconds: float) -> float:
    """What the proxy behind this socket could do; OperatorError where it is too quiet to tell."""
    from haptk.cluster.capacity import measured
    from haptk.io import clock

    before, started = _figures(path), clock.monotonic()
    clock.sleep(seconds)
    after, took_s = _figures(path), clock.monotonic() - started
    if before[0] != after[0]:
        raise PeerError(peer="the proxy", why=f"{path}: it was restarted while it was measured")
    try:
        return measured(after[1] - before[1], took_s, after[2] - before[2], after[3])
    except ValueError as error:
        raise OperatorError(what=f"{path}: {error}") from error


def _figures(path: Path) -> tuple[int, int, float, int]:
    """Process id, requests so far, processor seconds so far, threads."""
    from haptk.cli.proxy_control import ask
    from haptk.io.process import cpu_seconds

    lines = dict(line.partition(": ")[::2] for line in ask(path, "show info").splitlines())
    try:
        pid, requests, threads = int(lines["Pid"]), int(lines["CumReq"]), int(lines.get("Nbthread", "1"))
    except (KeyError, ValueError) as error:
        raise PeerError(peer="the proxy", why=f"{path}: `show info` has no Pid and CumReq") from error
    # More threads than processors do no more.
    return pid, requests, cpu_seconds(pid), min(threads, os.cpu_count() or 1)


def _body(found: Capacity, rates: dict[str, float]) -> dict[str, object]:
    cases = [
        {"case": one.name, "lost": one.lost, "carried": one.carried, "load": one.load, "problems": one.problems}
        for one in found.cases
    ]
    return {
        "survives": found.survives,
        "needed": found.needed,
        "per_node": rates,
        "cases": cases,
        "notes": found.notes,
    }


def _text(found: Capacity, peak: float) -> str:
    lines = [f"balancers needed for {peak:g} requests/s:"]
    wide = max(len(one.name) for one in found.cases)
    wide = max(wide, *map(len, found.needed)) + 2
    lines += [f"  {name:<{wide}}{count}" for name, count in found.needed.items()]
    lines.append("this tier:")
    for one in found.cases:
        shown = ", ".join(f"{node} {rate:.0f}/s" for node, rate in one.load.items() if rate)
        lines.append(f"  {one.name:<{wide}}{'; '.join(one.problems) if one.problems else f'carried: {shown}'}")
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join([*lines, "it survives" if found.survives else "it does not survive"])
