"""`haptk check config`."""

from __future__ import annotations

import click

from haptk.checks import config as checks
from haptk.checks.base import Check, Limits
from haptk.cli.checks.common import CheckCommand


@click.command(cls=CheckCommand, figures=checks.FIGURES)
@click.argument("files", metavar="[[KIND=]FILE]...", nargs=-1)
def config(*, limits: Limits, timeout_s: float, files: tuple[str, ...]) -> list[Check]:
    """Have the configuration files of this node read by their programs.

    Without a FILE: those that are at their usual places. KIND is haproxy, proxy (haptk's), keepalived, cluster,
    ha.cf, haresources, authkeys or checks; it may be left out where the file's name says it.
    """
    found = [checks.kind_of(text) for text in files] or checks.present()
    if not found:
        raise ValueError(f"no file is at its usual place: {', '.join(kind.path for kind in checks.KINDS.values())}")
    return [checks.config(kind, path, timeout_s, limits) for kind, path in found]
