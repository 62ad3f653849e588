"""`haptk elb`: AWS's own load balancer: planned, made, watched, drained, compared, and a classic one replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from haptk.cli.base import Group, emit, say
from haptk.errors import CannotWrite, ConfigError, OperatorError, PeerTimeout

if TYPE_CHECKING:
    from haptk.apply.balancing import BalancerPlan, Observed
    from haptk.apply.standing import Standing
    from haptk.aws.client import Clients
    from haptk.cluster.classic import Classic
    from haptk.cluster.compare import Point
    from haptk.cluster.schema import Cluster

SIGNS = {"gain": "+", "loss": "-", "same": "=", "stop": "!"}
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the plan; exit with 2 when something would change.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
RATE = click.FloatRange(min=0, min_open=True)


@click.group(cls=Group)
def elb() -> None:
    """Plan, make, watch and compare AWS's own load balancer.

    It is declared in cluster.toml, table [elb]. `haptk apply --aws` makes it together with the name of the tier.
    """


def _look() -> tuple[Cluster, Observed, Clients]:
    """The declaration, what AWS has of it, and the clients that asked."""
    from haptk.apply.balancing import observe
    from haptk.aws.client import Access, Clients
    from haptk.cli.tier import read_cluster

    cluster = read_cluster()
    if cluster.elb is None:
        raise OperatorError(what='cluster.toml declares no load balancer of AWS: pattern = "elb" and the table [elb]')
    clients = Clients(Access(region=cluster.regions[0].name))
    return cluster, observe(cluster, clients), clients


def _change(plan: BalancerPlan, clients: Clients, *, dry_run: bool, yes: bool, force: bool) -> int:
    from haptk.apply import balancing
    from haptk.cli.apply import carry_out

    lines = plan.lines()
    return carry_out(
        lines,
        plan.surprises,
        lambda: balancing.carry_out(plan, clients),
        what="things at ELB",
        done=f"{len(lines)} changes made",
        dry_run=dry_run,
        yes=yes,
        force=force,
    )


@elb.command()
def plan() -> int:
    """Show what at ELB is not as declared.

    Exit codes: 0 nothing, 2 there is a difference.
    """
    from haptk.apply import balancing

    cluster, observed, clients = _look()
    return _change(balancing.plan(cluster, observed), clients, dry_run=True, yes=False, force=False)


@elb.command()
@DRY_RUN
@YES
@click.option("--force", is_flag=True, help="Also close a listener, or let more than a third of the targets go.")
def apply(dry_run: bool, yes: bool, force: bool) -> int:
    """Make the load balancer what cluster.toml declares.

    Makes and changes the load balancer, its security group, target group, targets and listeners. What AWS cannot change
    in place is said and left. A second one says "nothing to do"; one that was interrupted is finished by the next.
    """
    from haptk.apply import balancing

    cluster, observed, clients = _look()
    return _change(balancing.plan(cluster, observed), clients, dry_run=dry_run, yes=yes, force=force)


@elb.command()
def status() -> int:
    """Show the load balancer and the health of its targets.

    Exit codes are those of a monitoring plugin: 0 all targets are healthy and everything is as declared, 1 not all or not
    everything, 2 nobody is served.
    """
    from haptk.apply.standing import CODES, judge

    cluster, observed, _ = _look()
    found = judge(cluster, observed)
    emit(_standing(found), "\n".join(_lines(cluster, found)))
    return CODES[found.status]


def _standing(found: Standing) -> dict[str, Any]:
    balancer = found.balancer or {}
    zones = [
        {
            "zone": one["ZoneName"],
            "subnet": one["SubnetId"],
            "addresses": [each["IpAddress"] for each in one.get("LoadBalancerAddresses", ()) if each.get("IpAddress")],
        }
        for one in balancer.get("AvailabilityZones", ())
    ]
    return {
        "status": found.status,
        "name": balancer.get("LoadBalancerName"),
        "dns_name": balancer.get("DNSName"),
        "state": balancer.get("State", {}).get("Code"),
        "zones": zones,
        "listeners": [f"{one['Protocol']} {one['Port']}" for one in found.listeners],
        "targets": [vars(one) for one in found.targets],
        "problems": list(found.problems),
    }


def _lines(cluster: Cluster, found: Standing) -> list[str]:
    body = _standing(found)
    healthy = sum(one.state == "healthy" for one in found.targets)
    lines = [
        f"ELB {found.status}: {body['name'] or cluster.cluster.name}: {healthy} of {len(found.targets)} targets healthy"
    ]
    if body["dns_name"]:
        lines.append(f"  name      {body['dns_name']}  {', '.join(body['listeners']) or 'no listener'}")
    for one in body["zones"]:
        lines.append(f"  zone      {one['zone']}  {one['subnet']}  {' '.join(one['addresses']) or '-'}")
    for target in found.targets:
        label = f"{target.node or 'not declared'}  {target.id}:{target.port}"
        lines.append(f"  target    {label}  {target.state}{f'  {target.why}' if target.why else ''}")
    return [*lines, *(f"  {why}" for why in found.problems)]


@elb.command()
@click.argument("node")
@DRY_RUN
@YES
@click.option("--wait", is_flag=True, help="Wait until it has left.")
def drain(node: str, dry_run: bool, yes: bool, wait: bool) -> int:
    """Take a target out until `haptk elb apply`.

    Open requests have [elb] deregistration_delay to end; new ones go to other targets at once, also those of its own
    sessions, because ELB has no softer way. The last target that is healthy is never taken out.
    """
    from haptk.apply import standing

    cluster, observed, clients = _look()
    chosen = standing.drain(cluster, observed, node)
    code = _change(chosen, clients, dry_run=dry_run, yes=yes, force=True)
    if dry_run:
        return code
    if wait:
        _wait(cluster, clients, node)
    if chosen.steps:
        say(f"haptk: `haptk elb apply` returns {node}")
    return code


def _wait(cluster: Cluster, clients: Clients, node: str) -> None:
    """Until the target is not draining any more; PeerTimeout half a minute after its delay."""
    from haptk.apply.balancing import observe
    from haptk.apply.standing import ABSENT, targets
    from haptk.io import clock

    delay_s = float(cluster.elb.deregistration_delay) if cluster.elb is not None else 0.0
    until = clock.monotonic() + delay_s + 30
    while True:
        states = [one.state for one in targets(cluster, observe(cluster, clients)) if one.node == node]
        if states in ([], [ABSENT]):
            return
        if clock.monotonic() > until:
            raise PeerTimeout(peer="ELB", timeout_s=delay_s + 30, why=f"{node} is still {states[0]}")
        clock.sleep(min(2.0, max(0.2, delay_s / 10)))


@elb.command()
@click.option("--to", "kinds", type=click.Choice(["network", "application"]), multiple=True,
              help="Only this kind; both by default.")  # fmt: skip
@click.option("--peak", type=RATE, metavar="RPS", help="Requests/s of the busiest minute, with --per-node.")
@click.option("--per-node", type=RATE, metavar="RPS", help="Requests/s that a balancer can do, with --peak.")
def compare(kinds: tuple[Literal["network", "application"], ...], peak: float | None, per_node: float | None) -> None:
    """Say what moving this cluster to ELB gains and loses.

    + is a gain, - a loss, = the same, ! is in the way: the tier cannot move as it is declared. Nothing is asked of AWS.
    """
    from haptk.cli.tier import read_cluster
    from haptk.cluster.capacity import Load
    from haptk.cluster.compare import compare as points

    cluster = read_cluster()
    if not cluster.balancers:
        raise OperatorError(
            what="the tier has no balancers of its own: there is nothing to compare, it has moved already"
        )
    if (peak is None) != (per_node is None):
        raise OperatorError(what="--peak and --per-node belong together")
    load = None
    if peak is not None and per_node is not None:
        load = Load(peak, {one.name: per_node for one in cluster.balancers})
    found = {kind: points(cluster, kind, load) for kind in kinds or ("network", "application")}
    body: dict[str, Any] = {str(kind): [vars(one) for one in each] for kind, each in found.items()}
    emit(body, "\n".join(line for kind, each in found.items() for line in _table(kind, each)))


def _table(kind: str, found: list[Point]) -> list[str]:
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in SIGNS}
    told = f"gains {counts['gain']}, losses {counts['loss']}"
    told += f", in the way {counts['stop']}" if counts["stop"] else ""
    return [f"{kind} load balancer: {told}", *(f"  {SIGNS[one.verdict]} {one.topic}: {one.text}" for one in found)]


@elb.command()
@click.argument("name", required=False)
@click.option("--region", metavar="NAME", help="AWS region (default: environment, profile, metadata).")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the cluster.toml that replaces it.")  # fmt: skip
@click.option("--name", "tier", default="web", show_default=True, metavar="TIER", help="Name of the tier in it.")
def classic(name: str | None, region: str | None, output: Path | None, tier: str) -> None:
    """Read a classic load balancer and declare what replaces it.

    Without NAME the classic load balancers of the region are listed. With --output a cluster.toml is written, and what has
    no counterpart is named; `haptk elb apply` then makes the new one beside the old, and the name can move to it.
    """
    from haptk.aws import classic as reader
    from haptk.aws.client import Access, Clients
    from haptk.cluster.classic import migrate

    clients = Clients(Access(region=region))
    if name is None:
        found = reader.names(clients)
        emit({"classic": found}, "\n".join(found) or "there is no classic load balancer here")
        return
    old = reader.read(name, clients)
    if not old.listeners:
        raise OperatorError(what=f"{name} has no listener: there is nothing to replace")
    draft, notes = migrate(old, tier)
    text = draft.text(f"cluster.toml, written by haptk elb classic from {name} ({old.dns_name}).")
    written = _written(text, output) if output is not None else ""
    body = {"classic": _described(old), "notes": notes, "cluster_toml": text, "written": written or None}
    lines = [f"{name}  {old.dns_name}", *_classic_lines(old), *(f"note: {note}" for note in notes)]
    emit(body, "\n".join([*lines, *([written] if written else [])]))


def _described(old: Classic) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(old).items() if key != "notes"}


def _classic_lines(old: Classic) -> list[str]:
    lines = [
        f"  listener  {one.protocol} {one.port} -> {one.instance_protocol} {one.instance_port}" for one in old.listeners
    ]
    lines += [f"  target    {one.name}  {one.instance}  {one.state}" for one in old.servers]
    lines.append(f"  check     {old.check} every {old.interval_s} s, {old.fall} fall, {old.rise} rise")
    return lines


def _written(text: str, output: Path) -> str:
    """Write the declaration; one that lacks something goes beside it as a draft. Returns the sentence about it."""
    from haptk.cluster.load import load
    from haptk.io.files import write_atomic

    if output.exists():
        raise CannotWrite(path=output, why="it exists already: name another file")
    try:
        warnings = load(text, str(output)).warnings
    except ConfigError as error:
        draft = output.with_name(f"{output.name}.draft")
        write_atomic(draft, text.encode())
        say(f"haptk: what is known stands in {draft}; complete it and move it to {output}")
        raise error
    for warning in warnings:
        say(f"haptk: warning: {warning}")
    write_atomic(output, text.encode())
    return f"wrote {output}; next: haptk --config {output} elb plan"
