"""The top of the command line: `haptk` itself and `--version`."""

from __future__ import annotations

import os

import click

from haptk import __version__
from haptk.cli import COMMANDS
from haptk.cli.base import LazyGroup


def fast_path() -> tuple[bool, str]:
    """Whether the compiled data path would be used, and why (not); looks for the file, imports nothing compiled."""
    if os.environ.get("HAPTK_NO_FAST") == "1":
        return False, "HAPTK_NO_FAST=1 is set"
    import importlib.util

    if importlib.util.find_spec("haptk._fast.worker") is None:
        return False, "the extensions were not compiled when haptk was installed"
    return True, "compiled"


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform

    built, why = fast_path()
    click.echo(
        f"haptk {__version__}, Python {platform.python_version()}, fast path: {'yes' if built else 'no'} ({why})"
    )
    ctx.exit()


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show version and build."
)
def haptk() -> None:
    """Keep a self-run load-balancer tier on AWS alive."""
