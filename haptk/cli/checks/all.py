"""`haptk check all`: the checks of checks.toml side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from haptk.checks import setfile
from haptk.checks.base import Check, Limits
from haptk.cli.base import emit
from haptk.cli.checks.common import CheckCommand, Wishes, conduct
from haptk.errors import ConfigError

# Options of a single check that would mean nothing inside a set.
OF_THE_WHOLE = ("contract", "unknown_is", "watch")


class AllCommand(CheckCommand):
    """Plans each entry of the file with its own kind's command, so that one grammar holds everywhere."""

    def plan(self, ctx: click.Context) -> tuple[Wishes, list[Check]]:
        params: dict[str, Any] = dict(ctx.params)
        wishes = Wishes(**{name: params[name] for name in Wishes._fields})
        found = setfile.read(params["file"])
        given = ctx.get_parameter_source("timeout") is not click.core.ParameterSource.DEFAULT
        if found.deadline_s is not None and not given:
            wishes = wishes._replace(timeout=found.deadline_s)
        checks: list[Check] = []
        for entry in chosen(found, params["names"]):
            checks += plan_entry(ctx, found.path, entry)
        return wishes, checks

    def act(self, ctx: click.Context) -> Any:
        wishes, checks = self.plan(ctx)
        if not ctx.params["list_only"]:
            return conduct("ALL", wishes, checks)
        rows = [{"service": check.service, "name": check.name, "timeout_s": check.timeout_s} for check in checks]
        emit({"checks": rows}, "\n".join(f"{check.service:<12}{check.name}" for check in checks))
        return 0


def chosen(found: setfile.CheckSet, names: Sequence[str]) -> list[setfile.Entry]:
    """The entries that were asked for; UsageError names those there are."""
    known = {entry.name: entry for entry in found.entries}
    missing = [name for name in names if name not in known]
    if missing:
        raise click.UsageError(f"no check {', '.join(missing)} in {found.path}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(found.entries)


def plan_entry(ctx: click.Context, path: Path, entry: setfile.Entry) -> list[Check]:
    """The checks of one entry, named after it; ConfigError with its line when its words are wrong."""
    group = ctx.parent.command if ctx.parent else None
    kind, *words = entry.words
    kinds = sorted(set(group.commands) - {"all"}) if isinstance(group, click.Group) else []
    if not isinstance(group, click.Group) or kind not in kinds:
        why = f"{entry.name}: {kind!r} is no kind of check; there are {', '.join(kinds)}"
        raise ConfigError(file=path, line=entry.line, why=why)
    command = group.commands[kind]
    try:
        # Not `make_context` of the command: that one would answer wrong words itself, and end.
        inner = click.Command.make_context(command, kind, words, parent=ctx)
        if not isinstance(command, CheckCommand):
            raise click.UsageError(f"{kind} cannot be run here")
        for name in OF_THE_WHOLE:
            if inner.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(f"{option} is about all checks together: give it to `haptk check all`")
        _, checks = command.plan(inner)
    except click.UsageError as error:
        raise ConfigError(file=path, line=entry.line, why=f"{entry.name}: {error.format_message()}") from None
    except click.exceptions.Exit:
        raise ConfigError(file=path, line=entry.line, why=f"{entry.name}: --help and --version check nothing") from None
    several = len(checks) > 1
    return [check._replace(name=f"{entry.name} {check.name}" if several else entry.name) for check in checks]


@click.command("all", cls=AllCommand)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    default=setfile.PATH,
    show_default=True,
    envvar="HAPTK_CHECKS",
    help="Where the checks of this node stand.",
)
@click.option("--list", "list_only", is_flag=True, help="Say what would be looked at, and look at nothing.")
def all_checks(*, limits: Limits, timeout_s: float, names: tuple[str, ...], file: Path, list_only: bool) -> list[Check]:
    """Run every check of this node side by side inside one deadline.

    The file's table [checks] has NAME = "KIND ..." as after `haptk check`; NAMEs choose some of them. The worst state
    is the state of all. --timeout is the deadline of all (default: the file's, else 10 s).
    """
    raise NotImplementedError  # AllCommand plans by itself
