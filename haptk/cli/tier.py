"""What the commands on a declared tier share: reading cluster.toml, choosing a node, and what a rendering takes from outside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haptk.cli.base import say, settings
from haptk.errors import MissingFile, NotPermitted, OperatorError

if TYPE_CHECKING:
    from haptk.cluster.schema import Cluster
    from haptk.render.artefact import Site

DEFAULT = Path("/etc/haptk/cluster.toml")
NODE = click.option("--node", metavar="N", help="Only this balancer.")


def read_cluster() -> Cluster:
    """The declaration of --config, HAPTK_CONFIG or /etc/haptk/cluster.toml; its warnings go to stderr."""
    from haptk.cluster.load import load

    path = settings().config or DEFAULT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        why = "there is no such file; `haptk init` makes one, --config names another"
        raise MissingFile(path=path, why=why) from error
    except UnicodeDecodeError as error:
        raise MissingFile(path=path, why=f"not UTF-8 at byte {error.start}: TOML is UTF-8") from error
    except OSError as error:
        raise NotPermitted(what=f"read {path}", why=error.strerror or str(error)) from error
    loaded = load(text, str(path))
    for warning in loaded.warnings:
        say(f"haptk: warning: {warning}")
    return loaded.cluster


def chosen_nodes(cluster: Cluster, node: str | None) -> tuple[str, ...]:
    """The node that was named, else all of them; OperatorError for one that is not declared."""
    names = tuple(balancer.name for balancer in cluster.balancers)
    if node is None:
        return names
    if node not in names:
        raise OperatorError(what=f"no balancer is named {node!r}; there are {', '.join(names) or 'none'}")
    return (node,)


def this_node(cluster: Cluster, node: str | None) -> str:
    """The node that was named, else the one whose name this machine has."""
    import os

    if node is not None:
        return chosen_nodes(cluster, node)[0]
    name = os.uname().nodename.lower()
    names = [balancer.name for balancer in cluster.balancers]
    for known in names:
        if known in (name, name.split(".")[0]):
            return known
    declared = ", ".join(names) or "none"
    raise OperatorError(what=f"this machine is {name}, which is no balancer of the tier ({declared}): say --node")


def site(secret: str | None = None) -> Site:
    """The scripts of the haptk that runs now, and the given key or a fresh one of 256 bits."""
    import secrets

    from haptk.eip.contracts import files
    from haptk.eip.install import program
    from haptk.render.artefact import Site

    here = program()
    scripts = {"heartbeat": files.heartbeat, "keepalived": files.keepalived, "ocf": files.ocf}
    return Site(secret or secrets.token_hex(32), tuple((name, make(here)) for name, make in scripts.items()))


def existing_secret(places: Iterable[Path]) -> str | None:
    """The key of the first authkeys file that is there, so that the nodes of a pair get the same; never shown."""
    from haptk.formats import authkeys

    for place in places:
        try:
            text = place.read_text()
        except OSError:
            continue
        found = authkeys.parse(text, str(place))
        active = next(key for key in found.keys if key.number == found.active)
        if active.method == "sha1":
            return active.secret.decode()
    return None
