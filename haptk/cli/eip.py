"""`haptk eip`: hold, release and show an address from this node. The work is in `haptk.eip`; here are words only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from haptk.cli.base import Command, Group, emit, settings, told
from haptk.cli.base import say as talk
from haptk.errors import InternalError

if TYPE_CHECKING:
    from haptk.aws.client import Clients
    from haptk.core.vip import Outcome, Status, Step
    from haptk.eip.agent import Agent
    from haptk.eip.contracts.words import Saying
    from haptk.eip.install import Change
    from haptk.eip.overview import Overview

T = TypeVar("T")
INSTALLABLE = ("ocf", "heartbeat", "lsb", "keepalived")
CONTRACTS = ("plain", "lsb", "ocf", "heartbeat", "keepalived", "nagios")


@click.group(cls=Group)
def eip() -> None:
    """Hold, release and show an Elastic IP from this node.

    ADDRESS is an Elastic IP (203.0.113.10), its allocation id (eipalloc-...), a tag that exactly one address has
    (tag:Name=web), a secondary private address (private:10.0.0.50), or a route (route:rtb-.../10.9.9.9/32).

    Exit codes of status: 0 ours, 3 not ours, 4 unknown. See eip-contracts in the reference for the other contracts.
    """
    settings().leaves_at_once = True


def _put(function: Callable[..., Any], options: list[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def account_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how AWS is reached."""
    return _put(
        function,
        [
            click.option("--region", metavar="NAME", help="AWS region (default: environment, profile, metadata)."),
            click.option("--profile", metavar="NAME", help="Profile of the AWS configuration."),
            click.option("--role-arn", metavar="ARN", help="Role to assume."),
            click.option("--endpoint-url", metavar="URL", help="EC2 endpoint, for instance an interface endpoint."),
            click.option("--dual-stack", is_flag=True, help="Use the dual-stack endpoint."),
            click.option("--fips", is_flag=True, help="Use the FIPS endpoint."),
        ],
    )


def node_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The addresses, the place on this node, the account and the contract."""
    return _put(
        account_options(function),
        [
            click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True),
            click.option("--interface", metavar="ENI", help="The interface of this node that counts (default: any)."),
            click.option("--private-ip", metavar="IP", help="The private address to which it belongs."),
            click.option(
                "--contract",
                type=click.Choice(CONTRACTS),
                default="plain",
                show_default=True,
                help="Whose words and exit codes to speak.",
            ),
        ],
    )


def _timeout(default_s: float) -> Callable[..., Any]:
    return click.option(
        "--timeout",
        "timeout_s",
        metavar="S",
        type=click.FloatRange(min=0.2, max=3600),
        default=default_s,
        show_default=True,
        help="Seconds after which the answer is given with what is known.",
    )


def _clients(options: dict[str, Any]) -> Clients:
    from haptk.aws.client import Access, Clients

    names = ("region", "profile", "role_arn", "endpoint_url", "dual_stack", "fips")
    return Clients(Access(**{name: options[name] for name in names}))


def _agents(options: dict[str, Any], on_step: Callable[[Step], None] | None = None) -> list[Agent]:
    from haptk.eip.agent import Agent

    clients = _clients(options)
    return [
        Agent(address, options["interface"], options["private_ip"], clients=clients, on_step=on_step)
        for address in dict.fromkeys(options["addresses"])
    ]


def _each(agents: list[Agent], work: Callable[[Agent], T]) -> list[T]:
    """The same work on every address, at once when there are several: one slow answer must not use up the others' time."""
    if len(agents) == 1:
        return [work(agents[0])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(16, len(agents))) as pool:
        return list(pool.map(work, agents))


def _finish(sayings: list[Saying], results: list[dict[str, Any]]) -> int:
    for saying in sayings:
        if saying.stderr:
            told(saying.stderr)
    body = results[0] if len(results) == 1 else {"addresses": results}
    text = "\n".join(saying.stdout for saying in sayings if saying.stdout)
    if text or settings().as_json:
        emit(body, text)
    # The worst of several: any failure counts, and "unknown" outweighs "not ours".
    return max(saying.code for saying in sayings)


@eip.command(cls=Command)
@node_options
@_timeout(3.6)
@click.option("--standby", is_flag=True, help="Not having it is well here (nagios, keepalived).")
@click.option(
    "--unknown-code", type=click.IntRange(0, 1), help="Exit code of keepalived when nothing is known [default: 0]."
)
def status(timeout_s: float, contract: str, standby: bool, unknown_code: int | None, **options: Any) -> int:
    """Say whether this node holds the address: ours, not ours or unknown."""
    from haptk.eip import watch
    from haptk.eip.contracts import words

    agents = _agents(options)

    def ask(agent: Agent) -> Status:
        return watch.status(agent, timeout_s)

    found = _each(agents, ask)
    sayings = [
        words.say_status(contract, agent.label, state, standby=standby, unknown_code=unknown_code)
        for agent, state in zip(agents, found, strict=True)
    ]
    return _finish(sayings, [words.as_dict(agent.address, state) for agent, state in zip(agents, found, strict=True)])


@eip.command(cls=Command)
@node_options
@_timeout(20.0)
def start(timeout_s: float, contract: str, **options: Any) -> int:
    """Bring the address to this node, from whoever holds it, in one call."""
    return _change("start", timeout_s, contract, options)


@eip.command(cls=Command)
@node_options
@_timeout(20.0)
def stop(timeout_s: float, contract: str, **options: Any) -> int:
    """Let the address go if this node holds it; never take it from another."""
    return _change("stop", timeout_s, contract, options)


def _change(action: str, timeout_s: float, contract: str, options: dict[str, Any]) -> int:
    from haptk.eip import watch
    from haptk.eip.contracts import words

    loud = settings().verbosity >= 1

    def tell(step: Step) -> None:  # called from a thread, where click's context is not
        if loud:
            told(step.what)

    agents = _agents(options, on_step=tell)

    def act(agent: Agent) -> Outcome:
        return watch.start(agent, timeout_s) if action == "start" else watch.stop(agent, timeout_s)

    outcomes = _each(agents, act)
    pairs = list(zip(agents, outcomes, strict=True))
    sayings = [words.say_outcome(contract, agent.label, action, outcome) for agent, outcome in pairs]
    return _finish(sayings, [_outcome_dict(agent.address, action, outcome) for agent, outcome in pairs])


def _outcome_dict(address: str, action: str, outcome: Outcome) -> dict[str, Any]:
    from haptk.eip.contracts import words

    if action not in ("start", "stop"):
        raise InternalError(what=f"no action {action}")
    return {
        "address": address,
        "action": action,
        "ok": outcome.ok,
        "acted": outcome.acted,
        "because": outcome.because,
        "status": words.as_dict(address, outcome.status),
        "steps": [{"at": step.at, "what": step.what} for step in outcome.steps],
        "error": outcome.trouble or None,
    }


def _install_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--prefix",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("/"),
            show_default=True,
            help="Root of the system to change.",
        ),
        click.option("--dry-run", is_flag=True, help="Show the plan and change nothing."),
        click.option(
            "--contract",
            "contracts",
            type=click.Choice(INSTALLABLE),
            multiple=True,
            required=True,
            help="Whose file (may be repeated).",
        ),
    ):
        function = option(function)
    return function


@eip.command(cls=Command)
@_install_options
@click.option("--force", is_flag=True, help="Replace a file that is not as haptk put it there.")
def install(contracts: tuple[str, ...], dry_run: bool, prefix: Path, force: bool) -> None:
    """Put the agent where Heartbeat, Pacemaker, init or keepalived look for it."""
    from haptk.eip.install import Installer

    installer, chosen = Installer(prefix), list(dict.fromkeys(contracts))
    changes = installer.plan(chosen, force=force) if dry_run else installer.install(chosen, force=force)
    _show(changes, dry_run)


@eip.command(cls=Command)
@_install_options
def uninstall(contracts: tuple[str, ...], dry_run: bool, prefix: Path) -> None:
    """Remove exactly what install has put in place."""
    from haptk.eip.install import Installer

    installer, chosen = Installer(prefix), list(dict.fromkeys(contracts))
    changes = installer.plan_removal(chosen) if dry_run else installer.uninstall(chosen)
    _show(changes, dry_run)


def _show(changes: list[Change], dry_run: bool) -> None:
    body = [{"what": one.what, "path": str(one.path), "contract": one.contract, "why": one.why} for one in changes]
    text = "\n".join(str(one) for one in changes) or "nothing to do"
    emit({"dry_run": dry_run, "changes": body}, text)


@eip.command(cls=Command)
@click.argument("address", metavar="ADDRESS")
@click.option("--to", "node", metavar="NODE", required=True, help="eni-..., i-... or the Name tag of an instance.")
@click.option("--private-ip", metavar="IP", help="The private address to which it belongs there.")
@account_options
@_timeout(20.0)
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def move(
    address: str, node: str, private_ip: str | None, timeout_s: float, dry_run: bool, yes: bool, **options: Any
) -> int:
    """Move the address to another node, by a plan that is shown first."""
    from haptk.eip import move as moving

    planned = moving.plan(address, node, private_ip, _clients(options), timeout_s)
    body: dict[str, Any] = {"address": address, "to": planned.interface, "needed": planned.needed, "moved": False}
    if dry_run or not planned.needed:
        emit(body, str(planned))
        return 2 if planned.needed else 0
    talk(str(planned))
    if not yes:
        click.confirm("Move it?", abort=True, err=True)
    outcome = moving.carry_out(planned, timeout_s)
    emit({**body, "moved": outcome.ok, "because": outcome.because}, outcome.because)
    from haptk.eip.contracts.words import code_of

    return 0 if outcome.ok else code_of(outcome.trouble)


@eip.command(cls=Command)
@click.argument("addresses", metavar="[ADDRESS...]", nargs=-1)
@click.option("--interface", metavar="ENI", help="The interface of this node (default: from metadata).")
@account_options
@_timeout(5.0)
def show(addresses: tuple[str, ...], interface: str | None, timeout_s: float, **options: Any) -> int:
    """Show who holds what, since when, and how that is known."""
    from dataclasses import asdict

    from haptk.eip.overview import Looker

    found = Looker(_clients(options), interface).look(list(addresses), timeout_s)
    if found.trouble:
        talk(f"EC2 could not be asked: {found.trouble}")
    body = {"addresses": [asdict(row) for row in found.rows], "trouble": found.trouble or None}
    emit(body, _table(found))
    return 4 if found.trouble else 0


def _table(found: Overview) -> str:
    """Columns as wide as their widest word: an address is never cut, whatever the terminal."""
    from haptk.io.clock import wall_text

    lines = [("ADDRESS", "NAME", "HELD BY", "PRIVATE", "HERE", "KNOWN SINCE", "SOURCE")]
    for row in found.rows:
        holder = " of ".join(text for text in (row.interface, row.instance) if text) or "nobody"
        here = {True: "yes", False: "no", None: "?"}[row.here]
        since = wall_text(row.since) if row.since else "-"
        lines.append((row.address, row.name or "-", holder, row.private_ip or "-", here, since, row.source))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


@eip.command(cls=Command)
@click.argument("peer", metavar="INSTANCE")
@click.option(
    "--table", metavar="NAME", required=True, help="The table of leases: its lease on the pair decides who may."
)
@click.option("--node", metavar="INSTANCE", help="This node's instance id (default: from metadata).")
@click.option("--force", is_flag=True, help="Do not wait for the peer's operating system to shut down.")
@account_options
@_timeout(120.0)
@click.option("--dry-run", is_flag=True, help="Check the preconditions and stop nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def fence(
    peer: str, table: str, node: str | None, force: bool, timeout_s: float, dry_run: bool, yes: bool, **options: Any
) -> int:
    """Stop the other node's instance, once, and wait until it is stopped."""
    from haptk.aws.client import this_instance
    from haptk.aws.ec2 import Ec2
    from haptk.aws.lease import LeaseStore
    from haptk.eip.fence import Fence

    clients = _clients(options)
    me = node or this_instance()
    action = Fence(me, peer, Ec2(clients), LeaseStore(clients, table), talk)
    if not dry_run and not yes:
        click.confirm(f"Stop instance {peer}?", abort=True, err=True)
    ended = action.run(timeout_s, force=force, dry_run=dry_run)
    emit({"peer": peer, "fenced": ended.ok, "because": ended.because}, ended.because)
    return 0 if ended.ok else 1
