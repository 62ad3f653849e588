"""`haptk init`: write a cluster.toml from flags, from answers, or from the files that are there already."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, emit, say, settings
from haptk.errors import CannotWrite, ConfigError, MissingFile, OperatorError

if TYPE_CHECKING:
    from haptk.cluster.discover import Found
    from haptk.cluster.draft import Draft

_BALANCER = re.compile(r"([^=]+)=([\d.]+)@([a-z0-9-]+)((?:,[^,]+)*)")
_ADDRESS = re.compile(r"([^=]+)=([\d.]+):([^,:]+)((?:,[^,]+)*)")
_SERVER = re.compile(r"([^=]+)=([\d.]+)(?::(\d+))?(?:@([a-z0-9-]+))?((?:,i-[^,]+)?)")
_SUBNET = re.compile(r"([^=]+)=(subnet-[0-9a-f]+)")
FORMS = {
    "--balancer": "NAME=PRIVATE_IP@ZONE[,i-...][,eni-...]",
    "--address": "NAME=ELASTIC_IP:ACTIVE[,STANDBY...][,eipalloc-...]",
    "--server": "NAME=IP[:PORT][@ZONE][,i-...]",
    "--subnet": "ZONE=subnet-...",
}
COMMENT = """cluster.toml, written by haptk init. Every key is explained in cluster.toml(5).
Next: haptk generate all --output-dir DIR, haptk diff, haptk apply"""


@click.command(cls=Command, short_help="Write a cluster.toml by flags, questions or existing files.")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--from", "sources", metavar="FILE[,FILE...]", multiple=True,
              help="Read a haproxy.cfg, ha.cf, haresources or keepalived.conf (of each node); repeatable.")  # fmt: skip
@click.option("--from-aws", metavar="NAME", help="Read the tier that has the tag haptk:cluster=NAME.")
@click.option("--region", metavar="NAME", help="AWS region of --from-aws (default: environment, profile, metadata).")
@click.option("--name", metavar="NAME", help="Name of the tier [default: web].")
@click.option("--pattern", type=click.Choice(["round-robin", "standby", "elb"]), help="How it stays available.")
@click.option("--contract", type=click.Choice(["heartbeat", "keepalived", "pacemaker", "pool"]), help="Who moves it.")
@click.option("--balancer", "balancers", multiple=True, metavar=FORMS["--balancer"], help="A balancer; repeatable.")
@click.option("--address", "addresses", multiple=True, metavar=FORMS["--address"], help="An address; repeatable.")
@click.option("--server", "servers", multiple=True, metavar=FORMS["--server"], help="A server; repeatable.")
@click.option("--design", type=click.Choice(["stateless", "prefix", "insert", "rewrite", "learn"]), help="Of sessions.")
@click.option("--cookie", metavar="NAME", help="The session cookie.")
@click.option("--check-path", metavar="PATH", help="What a check asks a server for.")
@click.option("--dns-name", metavar="NAME", help="The name of the tier.")
@click.option("--zone-id", metavar="ID", help="Its hosted zone in Route 53.")
@click.option("--elb", type=click.Choice(["network", "application"]), help="AWS's own load balancer (pattern elb).")
@click.option("--vpc", metavar="VPC", help="Its VPC.")
@click.option("--subnet", "subnets", multiple=True, metavar=FORMS["--subnet"], help="Its subnet in a zone; repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(
    path: Path | None, sources: tuple[str, ...], from_aws: str | None, region: str | None, force: bool, **flags: Any
) -> None:
    """Write a cluster.toml by flags, questions or existing files.

    PATH is where it goes (default: --config, HAPTK_CONFIG or /etc/haptk/cluster.toml); - prints it. Without any flag on
    a terminal the questions are asked. What is wrong in the files of --from is named with file and line.

    \b
    Example:
      haptk init cluster.toml --pattern standby --contract keepalived \\
        --balancer lb1=10.0.1.10@eu-west-1a --balancer lb2=10.0.2.10@eu-west-1b \\
        --address web=203.0.113.10:lb1,lb2 --server app1=10.0.1.20:8080 --cookie JSESSIONID
    """
    from haptk.cluster.discover import discover
    from haptk.cluster.load import load

    found = discover(_read(sources))
    for problem in found.problems:
        say(f"{problem}")
    for note in found.notes:
        say(f"haptk: {note}")
    if from_aws is not None:
        _read_aws(found.draft, from_aws, region, "elb" if flags["elb"] else flags["pattern"])
    elif not sources and not any(flags.values()):
        flags = _ask(flags)
    _apply_flags(found.draft, flags)
    text = found.draft.text(COMMENT)
    target = path or settings().config or Path("/etc/haptk/cluster.toml")
    try:
        warnings = load(text, str(target)).warnings
    except ConfigError as error:
        _keep_draft(text, target, error)
        raise
    for warning in warnings:
        say(f"haptk: warning: {warning}")
    _write(text, target, found, force)


def _read(sources: tuple[str, ...]) -> list[tuple[str, str]]:
    files = []
    for name in (part for source in sources for part in source.split(",") if part):
        try:
            files.append((name, Path(name).read_text(errors="replace")))
        except OSError as error:
            raise MissingFile(path=name, why=error.strerror) from error
    return files


def _read_aws(draft: Draft, name: str, region: str | None, pattern: str | None) -> None:
    """What the tags of a tier say: haptk:cluster, haptk:role, haptk:active, haptk:standby.

    For a load balancer of AWS that is the servers: balancers and addresses are what it takes the place of.
    """
    from haptk.aws import tier
    from haptk.aws.client import Access, Clients

    found = tier.read(name, Clients(Access(region=region)))
    draft.set("cluster", name=name)
    own = pattern != "elb"
    for node in found.balancers if own else ():
        draft.put("balancers", node.name, zone=node.zone, private_ip=node.private_ip, instance=node.instance,
                  interface=node.interface or None)  # fmt: skip
    for server in found.servers:
        draft.put("servers", server.name, address=server.private_ip, zone=server.zone, instance=server.instance)
    for address in found.addresses if own else ():
        standby = None if pattern == "round-robin" else list(address.standby) or None
        draft.put("addresses", address.name, public_ip=address.public_ip, allocation=address.allocation,
                  active=address.active or None, standby=standby)  # fmt: skip


def _parts(option: str, text: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    found = pattern.fullmatch(text)
    if found is None:
        raise OperatorError(what=f"{option} {text!r}: {FORMS[option]} is accepted")
    return tuple(group or "" for group in found.groups())


def _apply_flags(draft: Draft, flags: dict[str, Any]) -> None:
    """What the flags say, over what files said."""
    for text in flags["balancers"] or ():
        name, private_ip, zone, more = _parts("--balancer", text, _BALANCER)
        ids = more.strip(",").split(",") if more else []
        instance = next((word for word in ids if word.startswith("i-")), None)
        interface = next((word for word in ids if word.startswith("eni-")), None)
        draft.put("balancers", name, zone=zone, private_ip=private_ip, instance=instance, interface=interface)
    for text in flags["addresses"] or ():
        name, public_ip, active, more = _parts("--address", text, _ADDRESS)
        words = more.strip(",").split(",") if more else []
        standby = [word for word in words if not word.startswith("eipalloc-")] or None
        allocation = next((word for word in words if word.startswith("eipalloc-")), None)
        draft.put("addresses", name, public_ip=public_ip, active=active, standby=standby, allocation=allocation)
    for text in flags["servers"] or ():
        name, address, port, zone, instance = _parts("--server", text, _SERVER)
        draft.put("servers", name, address=address, port=int(port) if port else None, zone=zone or None,
                  instance=instance.lstrip(",") or None)  # fmt: skip
    said = draft.tables.get("cluster", {})
    guess = "elb" if flags["elb"] else "standby" if flags["contract"] else said.get("pattern")
    draft.set(
        "cluster",
        name=flags["name"] or said.get("name") or "web",
        pattern=flags["pattern"] or guess,
        contract=flags["contract"],
    )
    cookie = flags["cookie"]
    session = draft.tables.get("session", {})
    design = flags["design"] or session.get("design") or ("prefix" if cookie else "stateless")
    draft.set("session", design=design, cookie=cookie)
    draft.set("check", path=flags["check_path"])
    if flags["dns_name"]:
        zone = flags["dns_name"].split(".", 1)[-1]
        draft.set("dns", name=flags["dns_name"], zone=zone, zone_id=flags["zone_id"])
    subnets = {}
    for text in flags["subnets"] or ():
        zone, subnet = _parts("--subnet", text, _SUBNET)
        subnets[zone] = subnet
    draft.set("elb", type=flags["elb"], vpc=flags["vpc"], subnets=subnets or None)
    _regions(draft)


def _regions(draft: Draft) -> None:
    """The regions of the zones that were named."""
    zones: dict[str, list[str]] = {}
    for array in ("balancers", "servers"):
        for element in draft.arrays.get(array, {}).values():
            zone = element.get("zone", "")
            if zone and zone not in zones.setdefault(zone[:-1], []):
                zones[zone[:-1]].append(zone)
    for zone in draft.tables.get("elb", {}).get("subnets", {}):
        if zone not in zones.setdefault(zone[:-1], []):
            zones[zone[:-1]].append(zone)
    for region, names in zones.items():
        draft.put("regions", region, zones=sorted(names))


def _somebody_there() -> bool:
    return sys.stdin.isatty()


def _ask(flags: dict[str, Any]) -> dict[str, Any]:
    """The same values by questions, on stderr so that `haptk init -` can be redirected."""
    if not _somebody_there() or settings().as_json:
        raise OperatorError(what="nothing is said about the tier: give flags or --from, or run it on a terminal")
    prompt: Callable[..., Any] = click.prompt
    answers = dict(flags)
    answers["name"] = prompt("name of the tier", default="web", err=True)
    choices = click.Choice(["round-robin", "standby", "elb"])
    answers["pattern"] = prompt("how does it stay available", type=choices, default="standby", err=True)
    elb = answers["pattern"] == "elb"
    if answers["pattern"] == "standby":
        contracts = click.Choice(["heartbeat", "keepalived", "pacemaker", "pool"])
        answers["contract"] = prompt("who moves an address", type=contracts, default="keepalived", err=True)
    if elb:
        kinds = click.Choice(["network", "application"])
        answers["elb"] = prompt("kind of load balancer", type=kinds, default="application", err=True)
        answers["vpc"] = prompt("its VPC (vpc-...)", err=True)
        answers["subnets"] = _several(prompt, "--subnet")
    fixed = not elb or answers["elb"] == "network"
    asked = {"balancers": not elb, "addresses": fixed, "servers": True}
    for key in [name for name, wanted in asked.items() if wanted]:
        answers[key] = _several(prompt, f"--{key.removesuffix('es') if key == 'addresses' else key.removesuffix('s')}")
    if answers["elb"] != "network":
        answers["cookie"] = prompt("session cookie of the application (empty: stateless)", default="", err=True) or None
    if answers["pattern"] == "round-robin":
        answers["dns_name"] = prompt("the name of the tier (www.example.com)", err=True)
        answers["zone_id"] = prompt("its hosted zone in Route 53 (Z...)", err=True)
    return answers


def _several(prompt: Callable[..., Any], option: str) -> tuple[str, ...]:
    """Answers in the form of a repeatable option until an empty one."""
    said: list[str] = []
    while text := prompt(f"{option[2:]} {FORMS[option]} (empty ends)", default="", show_default=False, err=True):
        said.append(text)
    return tuple(said)


def _keep_draft(text: str, target: Path, error: ConfigError) -> None:
    """An incomplete declaration is kept beside the target, so that only the missing words have to be added."""
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    from haptk.io.files import write_atomic

    draft = target.with_name(f"{target.name}.draft")
    if target.parent.is_dir():
        write_atomic(draft, text.encode())
        say(f"haptk: what is known stands in {draft}; complete it and move it to {target}")


def _write(text: str, target: Path, found: Found, force: bool) -> None:
    if str(target) == "-":
        emit({"cluster_toml": text, "faults": [str(one) for one in found.problems]}, text.removesuffix("\n"))
        return
    from haptk.io.files import write_atomic

    if target.exists() and not force:
        raise CannotWrite(path=target, why="it exists already; --force replaces it, - prints to the screen")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(path=target.parent, why=error.strerror) from error
    write_atomic(target, text.encode())
    next_step = f"wrote {target}; next: haptk --config {target} generate all --output-dir DIR"
    emit({"path": str(target), "faults": [str(one) for one in found.problems]}, next_step)
