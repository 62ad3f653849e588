"""`haptk apply`: make this machine what cluster.toml declares."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, emit, say, settings, told
from haptk.cli.tier import NODE
from haptk.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptk.apply.plan import Plan
    from haptk.apply.remote import RemotePlan
    from haptk.aws.client import Clients

STATE = Path("var/lib/haptk/apply")
ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="The directory that is / (an image, a staging tree): no daemon is told.",
)
KEY_FILE = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="authkeys of the other node, for a node that has none yet.",
)


AWS = click.option(
    "--aws",
    is_flag=True,
    help="What the tier has in AWS (name, health checks, load balancer), not the files of a node.",
)


def planned(node: str | None, root: Path, key_file: Path | None = None) -> Plan:
    """The plan for one node: the one that is named, else this machine."""
    from haptk.apply.plan import make
    from haptk.cli.tier import existing_secret, read_cluster, site, this_node
    from haptk.errors import MissingFile
    from haptk.render.catalogue import files_of_node

    cluster = read_cluster()
    secret = None
    if key_file is not None:
        secret = existing_secret([key_file])
        if secret is None:
            raise MissingFile(path=key_file, why="no sha1 key can be read from it")
    return make(files_of_node(cluster, this_node(cluster, node), site(secret)), root)


def show(plan: Plan, *, done: str = "") -> None:
    """The plan on stdout: diffs and a summary, or JSON."""
    from haptk.apply.plan import CREATE

    changes = plan.changes
    counts = [sum(one.kind == CREATE for one in changes), sum(one.kind != CREATE for one in changes)]
    summary = done or f"{counts[0]} to create, {counts[1]} to change, {len(plan.files) - len(changes)} as declared"
    body: dict[str, Any] = {
        "changes": [one.as_dict() for one in changes],
        "surprises": list(plan.surprises),
        "reloads": [list(argv) for argv in plan.reloads()],
        "summary": summary,
    }
    text = "nothing to do" if not changes else "".join(one.diff() for one in changes) + summary
    emit(body | {"summary": summary if changes else "nothing to do"}, text)


@click.command(cls=Command)
@NODE
@ROOT
@KEY_FILE
@AWS
@click.option("--dry-run", is_flag=True, help="Show the plan, prove it, and exit with 2 when something would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--force", is_flag=True, help="Also make surprising changes: files of others, a third of the servers gone."
)
@click.option("--no-reload", is_flag=True, help="Write the files and tell no daemon.")
def apply(
    node: str | None,
    root: Path,
    key_file: Path | None,
    aws: bool,
    dry_run: bool,
    yes: bool,
    force: bool,
    no_reload: bool,
) -> int:
    """Make this machine what cluster.toml declares.

    Shows the plan, has the real programs judge every new file before anything is replaced, keeps a backup in
    /var/lib/haptk/apply/backups, replaces the files and reloads the daemons. An interrupted apply is finished or undone
    by the next. A second apply says "nothing to do".

    With --aws the same for what the tier has in AWS, once and from anywhere.
    """
    if aws:
        return _apply_remote(dry_run=dry_run, yes=yes, force=force)
    from haptk.apply.change import Changer
    from haptk.apply.prove import prove

    reload = root == Path("/") and not no_reload
    changer = Changer(root / STATE, reload=reload)
    changer.lock.acquire()
    try:
        if not dry_run:
            recovered = changer.recover()
            if recovered:
                say(f"haptk: {recovered}")
        plan = planned(node, root, key_file)
        if not plan.changes:
            show(plan)
            return 0
        for verdict in prove(plan, changer.state / "candidates", strict=root == Path("/")):
            if verdict.skipped:
                say(f"haptk: {verdict.path}: not judged: {verdict.skipped}", level=0 if verdict.program else 1)
        if plan.surprises and not (force or dry_run):
            raise OperatorError(
                what="surprising, so nothing was changed (--force does it):\n  " + "\n  ".join(plan.surprises)
            )
        if dry_run:
            show(plan)
            return 2
        agree("".join(one.diff() for one in plan.changes), len(plan.changes), "files", yes)
        changed = changer.carry_out(plan)
        told = f", {len(plan.reloads())} reloads" if reload else ""
        show(plan, done=f"{len(changed)} files written{told}")
        return 0
    finally:
        changer.lock.release()


def refuse_surprises(surprises: tuple[str, ...], force: bool) -> None:
    """OperatorError with the surprising changes, unless --force."""
    if surprises and not force:
        listed = "\n  ".join(surprises)
        raise OperatorError(what=f"surprising, so nothing was changed (--force does it):\n  {listed}")


def agree(shown: str, count: int, what: str, yes: bool) -> None:
    """Ask, unless --yes; without a terminal there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty() or settings().as_json:
        raise OperatorError(what=f"{count} {what} would change: --yes agrees, --dry-run shows them")
    told(shown)
    click.confirm(f"change these {count} {what}?", abort=True, err=True)


def carry_out(
    lines: list[str],
    surprises: tuple[str, ...],
    commit: Callable[[], None],
    *,
    what: str,
    done: str,
    dry_run: bool,
    yes: bool,
    force: bool,
) -> int:
    """Show a plan's lines, ask, and commit it; `done` is what is said then. Returns 0, or 2 for a dry run with changes."""
    body: dict[str, Any] = {"changes": lines, "surprises": list(surprises)}
    if not lines:
        emit(body | {"summary": "nothing to do"}, "nothing to do")
        return 0
    if dry_run:
        summary = f"{len(lines)} changes"
        emit(body | {"summary": summary}, "\n".join([*lines, summary]))
        return 2
    refuse_surprises(surprises, force)
    agree("\n".join(lines), len(lines), what, yes)
    commit()
    emit(body | {"summary": done}, "\n".join([*lines, done]))
    return 0


def planned_remote() -> tuple[RemotePlan, Clients]:
    """What AWS has against what is declared."""
    from haptk.apply import remote
    from haptk.aws.client import Access, Clients
    from haptk.cli.tier import read_cluster

    cluster = read_cluster()
    clients = Clients(Access(region=cluster.regions[0].name))
    return remote.make(cluster, clients), clients


def show_remote(plan: RemotePlan, done: str = "") -> None:
    """The plan for AWS on stdout, or JSON."""
    lines = plan.lines()
    summary = (done or f"{len(lines)} changes") if lines else "nothing to do"
    emit(
        {"changes": lines, "surprises": list(plan.surprises), "summary": summary},
        "\n".join([*lines, summary]),
    )


def _apply_remote(*, dry_run: bool, yes: bool, force: bool) -> int:
    from haptk.apply import remote

    plan, clients = planned_remote()
    lines = plan.lines()
    if dry_run or not lines:
        show_remote(plan)
        return 2 if lines else 0
    refuse_surprises(plan.surprises, force)
    agree("\n".join(lines), len(lines), "things in AWS", yes)
    remote.carry_out(plan, clients)
    show_remote(plan, done=f"{len(lines)} changes made")
    return 0
