"""`haptk generate`: print configuration for the programs around haptk, from flags or from cluster.toml."""

from __future__ import annotations

from pathlib import Path

import click

from haptk.cli.base import Group, emit
from haptk.cli.generate_tier import OUTPUT, add_commands
from haptk.cli.tier import NODE
from haptk.errors import OperatorError


@click.group(cls=Group, short_help="Print configuration for the programs around haptk.")
def generate() -> None:
    """Print configuration for the programs around haptk.

    Everything is rendered from cluster.toml and goes to stdout, or below --output-dir. `haptk generate haproxy` with
    --server needs no cluster.toml.
    """


@generate.command("haproxy", short_help="Print a sticky listen section of a haproxy.cfg.")
@click.option(
    "--server",
    "servers",
    metavar="NAME=HOST:PORT",
    multiple=True,
    help="A server; its name is its cookie value. Without any, cluster.toml is read.",
)
@click.option("--cookie", default="JSESSIONID", show_default=True, help="The cookie that carries the session.")
@click.option(
    "--mode",
    type=click.Choice(["prefix", "insert", "rewrite"]),
    default="prefix",
    show_default=True,
    help="How the cookie says which server is meant.",
)
@click.option("--bind", default="127.0.0.1:8080", show_default=True, metavar="ADDR:PORT", help="Where to listen.")
@click.option("--name", default="webfarm", show_default=True, help="The name of the section.")
@click.option(
    "--check-uri", default="", metavar="URI", help="Check servers with a request for this, not with a connection."
)
@click.option(
    "--check-method",
    type=click.Choice(["HEAD", "GET", "OPTIONS"]),
    default="HEAD",
    show_default=True,
    help="The method of that request.",
)
@NODE
@OUTPUT
def haproxy(
    servers: tuple[str, ...],
    cookie: str,
    mode: str,
    bind: str,
    name: str,
    check_uri: str,
    check_method: str,
    node: str | None,
    output_dir: Path | None,
) -> None:
    """Print a sticky listen section of a haproxy.cfg.

    Both haproxy and `haptk proxy -f` run it as it is. Without --server, the whole haproxy.cfg of each balancer in
    cluster.toml.

    \b
    Example:
      haptk generate haproxy --server A=10.0.0.11:8080 --server B=10.0.0.12:8080 \\
          --cookie JSESSIONID --mode prefix --bind :80 --check-uri /health
    """
    if not servers:
        from haptk.cli.generate_tier import generate as generate_from_tier

        generate_from_tier("haproxy", node, output_dir)
        return
    from haptk.render.haproxy import ListenSpec, listen_section, parse_server

    try:
        spec = ListenSpec(
            servers=tuple(parse_server(text) for text in servers),
            name=name,
            bind=bind,
            cookie=cookie,
            mode=mode,
            check_uri=check_uri,
            check_method=check_method,
        )
        text = listen_section(spec)
    except ValueError as error:
        raise OperatorError(what=str(error)) from error
    emit({"haproxy_cfg": text}, text.removesuffix("\n"))


add_commands(generate)
