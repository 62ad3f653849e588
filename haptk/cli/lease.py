"""`haptk lease`: leases in DynamoDB, and the pool that stands on them. The work is in `haptk.aws.lease` and `haptk.eip.pool`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, Group, emit, settings
from haptk.cli.base import say as talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptk.aws.lease import LeaseStore

TABLE = "haptk-leases"


@click.group(cls=Group)
def lease() -> None:
    """Share addresses among a pool of nodes by leases in DynamoDB.

    N addresses, M spare nodes: any spare takes the address of any node that fails. The store decides who may; a store
    that is down takes nothing from a healthy holder and gives nothing to anybody else.
    """


def _store_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--endpoint-url", "every_endpoint_url", metavar="URL", help="Endpoint of DynamoDB and EC2, for a lab."
        ),
        click.option("--profile", metavar="NAME", help="Profile of the AWS configuration."),
        click.option("--region", metavar="NAME", help="AWS region (default: environment, profile, metadata)."),
        click.option("--table", metavar="NAME", default=TABLE, show_default=True, help="The DynamoDB table."),
    ):
        function = option(function)
    return function


def _store(table: str, options: dict[str, Any]) -> LeaseStore:
    from haptk.aws.client import Access, Clients
    from haptk.aws.lease import LeaseStore

    return LeaseStore(Clients(Access(**options)), table)


@lease.command(cls=Command)
@_store_options
def init(table: str, **options: Any) -> None:
    """Make the table of leases, if it is not there."""
    from haptk.aws.deadline import Deadline

    made = _store(table, options).init(Deadline(60.0))
    emit({"table": table, "made": made}, f"{table}: {'made' if made else 'is there already, nothing to do'}")


@lease.command(cls=Command)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_store_options
def show(addresses: tuple[str, ...], table: str, **options: Any) -> None:
    """Show who has the lease of each address."""
    from haptk.aws.deadline import Deadline

    store = _store(table, options)
    rows: list[dict[str, Any]] = []
    for address in addresses:
        record = store.read(address, Deadline(5.0))
        rows.append({"address": address, **(record._asdict() if record else {"owner": None})})
    lines = [
        f"{row['address']}: {row['owner'] or ('let go' if row['owner'] == '' else 'never leased')}"
        + (f" (epoch {row['epoch']}, renews every {row['ttl_s'] / 3:g} s)" if row["owner"] else "")
        for row in rows
    ]
    emit({"leases": rows}, "\n".join(lines))


@lease.command(cls=Command)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--node", metavar="NAME", default=lambda: os.uname().nodename, help="This member's name [default: host].")
@click.option("--interface", metavar="ENI", help="The interface of this node (default: from metadata).")
@click.option("--ttl", "ttl_s", type=click.FloatRange(1.0, 600.0), default=9.0, show_default=True, metavar="S",
              help="Seconds without renewal after which a spare takes over.")  # fmt: skip
@click.option("--check", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A program that exits with 0 while this node is healthy.")  # fmt: skip
@_store_options
def pool(
    addresses: tuple[str, ...],
    node: str,
    interface: str | None,
    ttl_s: float,
    check: Path | None,
    table: str,
    **options: Any,
) -> None:
    """Be a member of the pool: hold one of the addresses, or stand by for any."""
    from haptk.aws.client import Access, Clients
    from haptk.aws.lease import LeaseStore
    from haptk.eip import pool_daemon
    from haptk.eip.agent import Agent
    from haptk.eip.pool import Member

    clients = Clients(Access(**options))
    agents = {address: Agent(address, interface, clients=clients) for address in dict.fromkeys(addresses)}
    log = pool_daemon.logger(settings().verbosity, settings().as_json)
    healthy = pool_daemon.check_program(check, ttl_s / 3) if check else lambda: True
    member = Member(node, agents, LeaseStore(clients, table), ttl_s, healthy, log)
    talk(f"member {node}, {len(agents)} addresses, time to live {ttl_s:g} s")
    pool_daemon.run(member)
