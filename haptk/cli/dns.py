"""`haptk dns`: the name of the tier: what it has, what servers say, and who is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Group, emit, say, settings, told
from haptk.errors import OperatorError

if TYPE_CHECKING:
    from haptk.cluster.schema import Cluster
    from haptk.core.dns import Declared, Problem
    from haptk.dns.provider import Plan, Provider
    from haptk.dns.resolve import Server

KEY = Path("/etc/haptk/dns.key")
STATE = Path("/var/lib/haptk/dns-watch.json")
CODES = {"critical": 2, "unknown": 3, "warning": 1}
KEY_FILE = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"TSIG key of a provider rfc2136, mode 0600 (default {KEY}).",
)
PORT = click.option(
    "--port", type=click.IntRange(1, 65535), default=53, show_default=True, help="Port of the rfc2136 server."
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the plan; exit with 2 when something would change.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
FORCE = click.option("--force", is_flag=True, help="Also when more than a third of the addresses would leave.")


@click.group(cls=Group)
def dns() -> None:
    """Show, check and change the records of the tier.

    The name is declared in cluster.toml, table [dns]. Providers: route53, and rfc2136 (dynamic updates with a TSIG key).
    """


def _provider(cluster: Cluster, key_file: Path | None, port: int) -> Provider:
    """The one that is declared; OperatorError for one that haptk cannot change."""
    declared = cluster.dns
    if declared is not None and declared.provider == "route53":
        from haptk.aws.client import Access, Clients
        from haptk.dns.route53 import Route53

        return Route53(cluster, Clients(Access(region=cluster.regions[0].name)))
    if declared is not None and declared.provider == "rfc2136" and declared.server is not None:
        from haptk.dns.rfc2136 import Rfc2136, read_key

        return Rfc2136(cluster, declared.server, port, read_key(key_file or KEY))
    raise OperatorError(
        what="the records of this declaration are not changed by haptk: accepted are route53 and rfc2136"
    )


def _declaration() -> tuple[Cluster, Declared]:
    from haptk.cli.tier import read_cluster
    from haptk.dns.members import declared

    cluster = read_cluster()
    return cluster, declared(cluster)


def _server(text: str, *, authoritative: bool) -> Server:
    from haptk.checks.base import split_target
    from haptk.dns.resolve import Server

    try:
        host, port = split_target(text, 53)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return Server(host, port, authoritative=authoritative)


@dns.command()
@KEY_FILE
@PORT
def show(key_file: Path | None, port: int) -> None:
    """Show who is in the name, beside what is declared."""
    cluster, wanted = _declaration()
    live = _provider(cluster, key_file, port).look()
    rows = []
    for address in sorted({*live, *wanted.weights}):
        there = live.get(address)
        state = "not declared" if address not in wanted.weights else "absent" if there is None else "drained"
        if there and address in wanted.weights:
            state = "in the name"
        node = wanted.nodes.get(address, "")
        rows.append(
            {"address": address, "node": node, "weight": there, "declared": wanted.weights.get(address), "state": state}
        )
    lines = [f"{wanted.name}  {wanted.policy}, TTL {wanted.ttl_s} s"]
    for row in rows:
        weight = "-" if row["weight"] is None else row["weight"]
        lines.append(f"  {row['address']:<15}  {row['node'] or '-':<12}  weight {weight!s:<3}  {row['state']}")
    emit({"name": wanted.name, "policy": wanted.policy, "ttl_s": wanted.ttl_s, "members": rows}, "\n".join(lines))


@dns.command()
@click.option("--server", "servers", multiple=True, metavar="HOST[:PORT]", help="An authoritative server; all by NS.")
@click.option("--resolver", "resolvers", multiple=True, metavar="HOST[:PORT]", help="Also ask this resolver.")
@click.option("--samples", type=click.IntRange(1, 10000), default=60, show_default=True, help="Questions a server.")
@click.option("--deadline", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds for everything.")
@click.option("--aws/--no-aws", default=None, help="Compare with Route 53 and Elastic IPs (default: with route53).")
@click.option("--probe/--no-probe", default=True, help="Ask every address for the declared check.")
def check(
    servers: tuple[str, ...],
    resolvers: tuple[str, ...],
    samples: int,
    deadline: float,
    aws: bool | None,
    probe: bool,
) -> int:
    """Ask every server for the name and judge the answers.

    Every authoritative server and each --resolver is asked within one deadline. Exit codes are those of a monitoring
    plugin: 0 as declared, 1 warning, 2 critical, 3 could not look.
    """
    cluster, wanted = _declaration()
    problems = _look(
        cluster,
        wanted,
        [_server(one, authoritative=True) for one in servers],
        [_server(one, authoritative=False) for one in resolvers],
        samples=samples,
        deadline_s=deadline,
        probe=probe,
    )
    with_aws = cluster.dns is not None and cluster.dns.provider == "route53" if aws is None else aws
    if with_aws:
        problems += _look_at_aws(cluster, wanted)
    problems.sort(key=lambda one: list(CODES).index(one.severity))
    code = CODES[problems[0].severity] if problems else 0
    status = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[code]
    found = [{"code": one.code, "severity": one.severity, "text": one.text} for one in problems]
    summary = f"DNS {status}: {wanted.name}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}"
    text = "\n".join([summary, *(f"{one.severity} {one.code}: {one.text}" for one in problems)])
    emit({"name": wanted.name, "status": status, "problems": found}, text)
    return code


def _look(
    cluster: Cluster,
    wanted: Declared,
    servers: list[Server],
    resolvers: list[Server],
    *,
    samples: int,
    deadline_s: float,
    probe: bool,
) -> list[Problem]:
    """Servers, resolvers and members: one deadline over all, members beside the servers."""
    from concurrent.futures import ThreadPoolExecutor

    from haptk.core.dns import UNKNOWN, Problem, judge_service, judge_views
    from haptk.dns import members, resolve
    from haptk.errors import PeerError
    from haptk.io import clock

    until = clock.monotonic() + deadline_s
    zone = cluster.dns.zone if cluster.dns is not None else ""
    results: dict[str, members.Result] = {}
    extra: list[Problem] = []
    with ThreadPoolExecutor(1) as pool:
        patience = min(deadline_s, max(1.0, float(cluster.check.timeout)))
        probing = pool.submit(members.probe, cluster, wanted.weights if probe else (), patience)
        try:
            asked = servers or resolve.authoritative(zone, deadline_s / 2, resolvers[0] if resolvers else None)
        except PeerError as error:
            asked = []
            extra.append(Problem("servers", UNKNOWN, str(error)))
        left_s = max(0.1, until - clock.monotonic())
        views = resolve.views([*asked, *resolvers], wanted.name, zone, samples, left_s)
        results = probing.result()
    dead = {address: why for address, (well, why) in results.items() if well is False}
    unseen = {address: why for address, (well, why) in results.items() if well is None}
    return [*extra, *judge_views(wanted, views, dead), *judge_service(wanted, dead, unseen)]


def _look_at_aws(cluster: Cluster, wanted: Declared) -> list[Problem]:
    """The records and the addresses as AWS has them; what it does not tell is a problem of its own."""
    from haptk.aws.client import Access, Clients
    from haptk.core.dns import UNKNOWN, Problem, judge_holdings, judge_records
    from haptk.dns.route53 import Route53, holdings
    from haptk.errors import AwsError

    clients = Clients(Access(region=cluster.regions[0].name))
    found: list[Problem] = []
    published: list[str] = list(wanted.weights)
    try:
        if cluster.dns is not None and cluster.dns.provider == "route53":
            stored = Route53(cluster, clients).stored()
            published = [one.address for one in stored]
            found += judge_records(wanted, stored)
        return found + judge_holdings(wanted, published, holdings(cluster, published, clients))
    except AwsError as error:
        return [*found, Problem("aws", UNKNOWN, str(error))]


def _change(plan: Plan, *, dry_run: bool, yes: bool, force: bool) -> int:
    from haptk.cli.apply import carry_out

    words = {"what": "things in DNS", "done": "changed"}
    return carry_out(list(plan.lines), plan.surprises, plan.commit, **words, dry_run=dry_run, yes=yes, force=force)


@dns.command()
@KEY_FILE
@PORT
@DRY_RUN
@YES
@FORCE
def apply(key_file: Path | None, port: int, dry_run: bool, yes: bool, force: bool) -> int:
    """Make the records what cluster.toml declares.

    For Route 53 this is the DNS part of `haptk apply --aws`.
    """
    cluster, _ = _declaration()
    return _change(_provider(cluster, key_file, port).declared(), dry_run=dry_run, yes=yes, force=force)


def _edits(cluster: Cluster, wanted: Declared, node: str, weight: int, live: Mapping[str, int]) -> dict[str, int]:
    """New weights for the addresses of one node; refused when nobody would be left."""
    from haptk.core.dns import emptied

    edits = {address: weight for address, name in wanted.nodes.items() if name == node}
    if not edits:
        names = ", ".join(sorted(set(wanted.nodes.values())))
        raise OperatorError(what=f"no address belongs to a node {node!r}; there are {names}")
    if emptied(live, edits):
        raise OperatorError(
            what=f"{node} is the last one in {wanted.name}: nobody would be left, so nothing was changed"
        )
    return edits


@dns.command()
@click.argument("node")
@KEY_FILE
@PORT
@DRY_RUN
@YES
def drain(node: str, key_file: Path | None, port: int, dry_run: bool, yes: bool) -> int:
    """Take a node out of the name until `haptk dns apply`.

    Clients leave it as their resolvers' answers expire, at most a TTL later; a health check of its record stays. The
    last node is never taken out.
    """
    cluster, wanted = _declaration()
    provider = _provider(cluster, key_file, port)
    plan = provider.plan(_edits(cluster, wanted, node, 0, provider.look()))
    code = _change(plan, dry_run=dry_run, yes=yes, force=True)
    if plan.lines and not dry_run:
        say(f"haptk: clients leave {node} within {wanted.ttl_s} s; `haptk dns apply` returns it")
    return code


@dns.command()
@click.argument("node")
@click.argument("weight", type=click.IntRange(0, 255))
@DRY_RUN
@YES
def weight(node: str, weight: int, dry_run: bool, yes: bool) -> int:
    """Set the weight of a node's records, until `haptk dns apply`.

    For policy "weighted" at Route 53; 0 drains.
    """
    cluster, wanted = _declaration()
    if wanted.policy != "weighted":
        raise OperatorError(what=f'policy "{wanted.policy}" has no weights: it needs [dns] policy = "weighted"')
    provider = _provider(cluster, None, 53)
    plan = provider.plan(_edits(cluster, wanted, node, weight, provider.look()))
    return _change(plan, dry_run=dry_run, yes=yes, force=True)


@dns.command()
@KEY_FILE
@PORT
@click.option("--state", type=click.Path(path_type=Path, dir_okay=False), default=STATE, show_default=True,
              help="Where it is kept who was withdrawn.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), help="End after this many rounds (for ever by default).")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
def watch(key_file: Path | None, port: int, state: Path, rounds: int | None, dry_run: bool) -> None:
    """Withdraw members that do not serve, and return them when they do.

    Uses the declared [check]: `fall` bad answers in a row withdraw, `rise` good ones return. The last member that serves
    is never withdrawn; nothing is done while nobody answers or the provider is silent; a drain by hand stays.
    """
    import threading

    from haptk.core.dns import Membership
    from haptk.dns import members
    from haptk.dns import watch as shell
    from haptk.io import clock, sdnotify
    from haptk.io.files import Lock

    cluster, wanted = _declaration()
    rules = shell.rules_of(cluster)
    timeout_s = float(cluster.check.timeout)
    log = _log
    lock = Lock(state.with_suffix(".lock"), "haptk dns watch", "one watch for a name on a machine")
    if not state.parent.is_dir():
        raise OperatorError(what=f"{state.parent} is no directory: make it, or name another place with --state")
    provider = _provider(cluster, key_file, port)
    lock.acquire()
    withdrawn = shell.read_state(state, wanted.name)
    membership = Membership(wanted, rules, withdrawn, clock.monotonic())
    one = shell.Watch(
        wanted, provider, lambda: members.probe(cluster, wanted.weights, timeout_s), membership, state, log, not dry_run
    )
    stop = threading.Event()
    _stop_on_signals(stop)
    sdnotify.ready(f"watching {wanted.name}")
    done = 0
    try:
        while not stop.is_set() and (rounds is None or done < rounds):
            one.step()
            sdnotify.watchdog()
            done += 1
            if rounds is None or done < rounds:
                stop.wait(rules.inter_s)
    finally:
        sdnotify.stopping("ending")
        lock.release()


def _log(message: str) -> None:
    if settings().as_json:
        import json

        from haptk.io import clock

        told(json.dumps({"at": clock.wall_text(), "message": message}, ensure_ascii=False))
    else:
        say(f"haptk: {message}")


def _stop_on_signals(stop: Any) -> None:
    """SIGTERM and SIGINT end the watch after the round that runs."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
