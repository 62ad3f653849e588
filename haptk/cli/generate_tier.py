"""`haptk generate WHAT` from cluster.toml: every file and document of a declared tier, printed or written to a directory.

One command a word, made from the catalogue of haptk.render, so that a new artefact is a new command without more text
than its line in WORDS.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, emit, say
from haptk.cli.tier import NODE
from haptk.errors import CannotWrite, OperatorError

if TYPE_CHECKING:
    from haptk.cluster.schema import Cluster
    from haptk.render.artefact import Artefact

WORDS = {
    "all": "Write everything that the declared tier needs.",
    "cloud-init": "User data that makes a balancer from a bare instance.",
    "elb": "A load balancer of AWS: CloudFormation and plain calls.",
    "heartbeat": "ha.cf, haresources, authkeys and the scripts beside them.",
    "iam-policy": "The policy of the balancers' instance role.",
    "operator-policy": "The policy of who runs haptk dns, elb, lease init and apply --aws.",
    "keepalived": "keepalived.conf with its check and notify scripts.",
    "octodns": "A zone file and configuration of octoDNS.",
    "pacemaker": "Commands of pcs and crm, and the OCF agent.",
    "pool": "The unit and the check of a member of a pool.",
    "route53": "Change batch, health checks and CloudFormation of Route 53.",
    "security-group": "The security group with every port that the tier needs.",
    "systemd": "Units and drop-ins.",
    "zone": "Records of the name for a zone file of BIND or Knot.",
}
HIDDEN = "# (a fresh key; it is shown nowhere and written only with --output-dir)\n"
OUTPUT = click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="D",
    help="Write the files below D: D/NODE/etc/..., D/aws/...",
)


def add_commands(group: click.Group) -> None:
    """Give the group one command for each word of the catalogue."""
    for what, text in WORDS.items():
        group.add_command(_command(what, text))


def _command(what: str, text: str) -> click.Command:
    @click.command(what, cls=Command, short_help=text, help=text + " Reads cluster.toml.")
    @NODE
    @OUTPUT
    def run(node: str | None, output_dir: Path | None) -> None:
        generate(what, node, output_dir)

    return run


def generate(what: str, node: str | None, output_dir: Path | None) -> None:
    """Render a word (or all) of the declared tier and print it, or write it below `output_dir`."""
    from haptk.cli.tier import read_cluster
    from haptk.render import catalogue

    cluster = read_cluster()
    if what == "all" and output_dir is None:
        raise OperatorError(what="generate all writes many files: say where with --output-dir")
    kinds = [*catalogue.kinds_of_node(cluster), *catalogue.kinds_of_tier(cluster)] if what == "all" else [what]
    for kind in kinds:
        why = catalogue.why_not(cluster, kind)
        if why:
            raise OperatorError(what=f"generate {kind}: {why}")
    found = list(_render(cluster, kinds, node, output_dir))
    if output_dir is None:
        _print(found)
    else:
        _write(found, output_dir)


def _render(cluster: Cluster, kinds: list[str], node: str | None, output_dir: Path | None) -> Iterable[Artefact]:
    from haptk.cli.tier import chosen_nodes, existing_secret, site
    from haptk.render import catalogue
    from haptk.render.heartbeat import DIRECTORY

    sites: dict[tuple[str, ...], Any] = {}
    nodes = chosen_nodes(cluster, node)
    seen: set[tuple[str, str]] = set()
    for kind in kinds:
        if kind in catalogue.OF_TIER:
            yield from catalogue.OF_TIER[kind](cluster)
            continue
        for name in nodes:
            group = tuple(balancer.name for balancer in cluster.group(name))
            if group not in sites:
                # A pair has one key: one that an earlier run wrote for either node is used again.
                old = [output_dir / member / DIRECTORY[1:] / "authkeys" for member in group] if output_dir else []
                sites[group] = site(existing_secret(old))
            for one in catalogue.OF_NODE[kind](cluster, name, sites[group]):
                if (one.node, one.path) not in seen:
                    seen.add((one.node, one.path))
                    yield one


def _shown(one: Artefact) -> str:
    return HIDDEN if one.secret else one.text


def _print(found: list[Artefact]) -> None:
    files = [
        {"path": one.path, "node": one.node or None, "mode": f"{one.mode:04o}", "owner": one.owner, "text": _shown(one),
         "validate": list(one.validate), "reload": list(one.reload)}
        for one in found
    ]  # fmt: skip
    if len(found) == 1:
        text = _shown(found[0]).removesuffix("\n")
    else:
        text = "\n".join(f"==> {_title(one)} <==\n{_shown(one)}" for one in found).removesuffix("\n")
    emit({"files": files}, text)


def _title(one: Artefact) -> str:
    return f"{one.node}:{one.path}" if one.node else one.path


def _write(found: list[Artefact], directory: Path) -> None:
    from haptk.io.files import write_atomic

    written = []
    for one in found:
        place = directory / one.node / one.path.lstrip("/")
        if one.keep and place.exists():
            say(f"kept {place}")
            continue
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(path=place.parent, why=error.strerror) from error
        write_atomic(place, one.text.encode(), one.mode)
        written.append(str(place))
    emit({"written": written}, "\n".join(written))
