"""`haptk check eip`."""

from __future__ import annotations

import click

from haptk.checks import eip as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--standby", is_flag=True, help="This node does not have to hold it, but somebody has.")
@click.option("--interface", metavar="ENI", help="The interface of this node that counts (default: any of it).")
@click.option("--private-ip", metavar="IP", help="The private address to which it belongs.")
@click.option("--region", metavar="NAME", help="AWS region (default: environment, profile, metadata).")
@click.option("--profile", metavar="NAME", help="Profile of the AWS configuration.")
@click.option("--role-arn", metavar="ARN", help="Role to assume.")
@click.option("--endpoint-url", metavar="URL", help="EC2 endpoint, for instance an interface endpoint.")
def eip(
    *,
    limits: Limits,
    timeout_s: float,
    addresses: tuple[str, ...],
    standby: bool,
    interface: str | None,
    private_ip: str | None,
    region: str | None,
    profile: str | None,
    role_arn: str | None,
    endpoint_url: str | None,
) -> list[Check]:
    """See whether this node holds an address.

    ADDRESS as in `haptk eip`. CRITICAL: not ours, or no answer in time; UNKNOWN: arguments or credentials are wrong.
    """
    from haptk.aws.client import Access, Clients
    from haptk.eip.agent import Agent

    clients = Clients(Access(region=region, profile=profile, role_arn=role_arn, endpoint_url=endpoint_url))
    return [
        checks.eip(
            address,
            Agent(address, interface, private_ip, clients=clients).status,
            timeout_s,
            limits,
            standby=standby,
        )
        for address in addresses
    ]
