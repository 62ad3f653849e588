"""`haptk lab`: a region on this machine, a failover, and what a client saw."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, Group, emit, say, settings

if TYPE_CHECKING:
    from haptk.lab.client import Lab
    from haptk.lab.drill import Outcome

KINDS = ["proxy", "instance", "app"]


def _start_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--lb", type=click.Choice(["haptk", "haproxy"]), default="haptk", help="Proxy on the balancers."),
        click.option("--timing", type=click.Choice(["quick", "seed"]), default="quick", help="Heartbeat timings."),
        click.option(
            "--design",
            type=click.Choice(["prefix", "learn"]),
            default="prefix",
            help="How sessions stick: by the cookie, or learned and told to the other balancer.",
            show_default=True,
        ),
        click.option(
            "--net",
            default="127.77",
            envvar="HAPTK_LAB_NET",
            show_envvar=True,
            metavar="127.N",
            help="Loopback network of the lab (its first two bytes).",
        ),
    ):
        function = option(function)
    return function


def _drill_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--fail", type=click.Choice(KINDS), default="instance", help="What is killed.", show_default=True),
        click.option("--sessions", type=click.IntRange(1, 500), default=40, help="Clients.", show_default=True),
        click.option("--budget-s", type=click.FloatRange(min=0), help="Outage that is allowed, in seconds."),
        click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Where the drawn report goes."),
    ):
        function = option(function)
    return function


@click.group(cls=Group, invoke_without_command=True)
@_start_options
@_drill_options
@click.pass_context
def lab(
    ctx: click.Context,
    lb: str,
    timing: str,
    net: str,
    design: str,
    fail: str,
    sessions: int,
    budget_s: float | None,
    html: Path | None,
) -> None:
    """Bring a region up on this machine and fail it over.

    Without a subcommand: up, drill, report, down. Needs no root and stays on loopback.
    """
    if ctx.invoked_subcommand is None:
        _up_drill_down((lb, timing, net, design), fail, sessions, budget_s, html)


@lab.command(cls=Command)
@_start_options
@click.option("-d", "--detach", is_flag=True, help="Return when the lab is ready; `haptk lab down` ends it.")
def up(lb: str, timing: str, net: str, design: str, detach: bool) -> None:
    """Bring the region up and keep it running (until Ctrl-C, unless detached)."""
    from haptk.lab.client import Lab
    from haptk.lab.supervisor import Options

    found = Lab()
    try:
        found.start(_options(Options, lb, timing, net, design), detach=detach, progress=_progress)
        status = found.status()
        emit(status, _how_to_talk(status))
        if not detach and found.supervisor is not None:
            say("Ctrl-C ends the lab.")
            found.supervisor.wait()
    except BaseException:
        if found.supervisor is not None:
            found.stop()
        raise
    if not detach:
        found.stop()


@lab.command(cls=Command)
@_start_options
@_drill_options
def drill(
    lb: str, timing: str, net: str, design: str, fail: str, sessions: int, budget_s: float | None, html: Path | None
) -> None:
    """Kill a part of the running lab for real and judge what happened (brings a lab up and down when none runs)."""
    from haptk.lab.client import Lab

    found = Lab()
    if not found.running():
        _up_drill_down((lb, timing, net, design), fail, sessions, budget_s, html)
        return
    _drill_and_report(found, fail, sessions, budget_s, html)


@lab.command(cls=Command)
def status() -> None:
    """Show what runs, who holds the address, and how to talk to the lab."""
    from haptk.lab.client import Lab

    found = Lab().status()
    emit(found, _how_to_talk(found))


@lab.command(cls=Command)
def down() -> None:
    """End the lab and remove everything it made, whatever state it is in."""
    from haptk.lab.client import Lab

    done = Lab().stop()
    forced = f", {done['killed_by_force']} processes had to be killed" if done["killed_by_force"] else ""
    emit(done, f"lab ended{forced}" if done["stopped"] else "no lab was running: nothing to do")


@lab.command(cls=Command)
@click.argument("mode", type=click.Choice(["hang", "throttle", "error", "deny", "expire", "reset", "slow", "clear"]))
@click.option("--action", help="Only this API action, for instance AssociateAddress.")
@click.option("--count", type=click.IntRange(1), help="Only the next COUNT calls.")
@click.option("--ms", type=click.IntRange(0), help="Milliseconds of `slow`.")
@click.option("--node", help="Only calls from this instance, for instance lb2.")
def fault(mode: str, action: str | None, count: int | None, ms: int | None, node: str | None) -> None:
    """Make the lab's AWS API hang, throttle, fail, refuse, reset or crawl; `clear` ends it."""
    from haptk.lab.client import Lab

    reply = Lab().call("fault", mode=mode, action=action, count=count, ms=ms, node=node)
    rules = [" ".join(f"{name}={value}" for name, value in rule.items() if value) for rule in reply["rules"]]
    emit(reply, "\n".join(["API faults in force:", *rules]) if rules else "no API faults in force")


def _options(cls: type[Any], lb: str, timing: str, net: str, design: str) -> Any:
    parts = net.split(".")
    if len(parts) != 2 or parts[0] != "127" or not parts[1].isdigit() or not 1 <= int(parts[1]) <= 255:
        raise click.BadParameter(f"'{net}' is not a loopback network; accepted: 127.1 to 127.255", param_hint="--net")
    return cls(lb, timing, net, design)


def _progress(phase: str) -> None:
    say(f"lab: {phase}")


def _up_drill_down(
    chosen: tuple[str, str, str, str], fail: str, sessions: int, budget_s: float | None, html: Path | None
) -> None:
    from haptk.lab.client import Lab
    from haptk.lab.supervisor import Options

    found = Lab()
    options = _options(Options, *chosen)
    try:
        found.start(options, detach=False, progress=_progress)
        passed = _drill(found, fail, sessions, budget_s)
    finally:
        if found.supervisor is not None:
            found.stop()
    _report(passed, html)


def _drill(found: Lab, fail: str, sessions: int, budget_s: float | None) -> Outcome:
    from haptk.lab import drill as drills

    return drills.run(found, drills.Plan(kind=fail, sessions=sessions, budget_s=budget_s), _progress)


def _drill_and_report(found: Lab, fail: str, sessions: int, budget_s: float | None, html: Path | None) -> None:
    _report(_drill(found, fail, sessions, budget_s), html)


def _default_html() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    path = Path(state) / "haptk" / "lab-report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"haptk-lab-report-{os.getuid()}.html"
    return path


def _report(outcome: Outcome, html: Path | None) -> None:
    """Print the judgement, write the drawing, and leave with 1 when the drill failed."""
    from haptk.io import files
    from haptk.report import lab as report

    path = html or _default_html()
    title = f"haptk lab: {outcome.report.failure.kind} killed, {outcome.lb} balancers, {outcome.timing} timings"
    facts = {"lb": outcome.lb, "timing": outcome.timing, "address": outcome.address, "html": str(path)}
    emit(report.as_json(outcome.report, **facts), lambda console: report.draw_text(console, outcome.report))
    # The judgement is out before the drawing is tried: a full disk must not cost the result of a drill.
    files.write_atomic(path, report.draw_html(outcome.report, outcome.requests, title).encode())
    if not settings().as_json:
        say(f"drawn in {path}")
    if not outcome.report.passed:
        click.get_current_context().exit(1)


def _how_to_talk(status: dict[str, Any]) -> str:
    """The lines a person needs: who holds the address, curl, and the variables for any AWS tool."""
    from haptk.lab.client import exports
    from haptk.lab.layout import PROXY_PORT

    lines = [f"lab {status['phase']} in {status['directory']}: {status['lb']} balancers, {status['timing']} timings"]
    for process in status["processes"]:
        state = f"pid {process['pid']}" if process["running"] else f"dead ({process['ended']})"
        lines.append(f"  {process['name']:<16} {state}")
    lines.append(f"address {status['address']} is held by {status.get('holder') or 'nobody'}")
    lines.append(f"  curl -c jar -b jar http://{status['address']}:{PROXY_PORT}/")
    lines.append("AWS tools talk to it with")
    lines += [f"  {line}" for line in exports(status)]
    lines.append(f"  aws ec2 describe-addresses --public-ips {status['address']}")
    lines.append("drills: haptk lab drill --fail proxy|instance|app; the end: haptk lab down")
    return "\n".join(lines)
