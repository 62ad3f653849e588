"""`haptk heartbeat`: the daemon, and the commands that talk to it over its control socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, Group, emit, say, settings
from haptk.formats import durations

if TYPE_CHECKING:
    pass


class Duration(click.ParamType[float]):
    """A duration in seconds, written as in ha.cf."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return durations.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


CONTROL_HELP = "The daemon's control socket (default /run/haptk/heartbeat.sock)."
DURATION = Duration()
PATH = click.Path(path_type=Path)


def _options(command: Any) -> Any:
    """The daemon's own options, in the order in which the help shows them."""
    for option in reversed(
        [
            click.option(
                "-f", "--ha-dir", type=PATH, help="Read ha.cf, haresources and authkeys here, like heartbeat."
            ),
            click.option("--peer", metavar="ADDR", help="Address of the other node."),
            click.option("--peer-name", metavar="NAME", help="Its node name (learned from its messages by default)."),
            click.option("--node", metavar="NAME", help="Our node name (uname -n by default)."),
            click.option("--bind", metavar="ADDR", default="", help="Address to listen on (all by default)."),
            click.option("--udpport", type=click.IntRange(1, 65535), default=694, show_default=True),
            click.option("--keepalive", type=DURATION, default=2.0, show_default=True, help="Time between statuses."),
            click.option("--deadtime", type=DURATION, default=30.0, show_default=True, help="Silence that means dead."),
            click.option("--initdead", type=DURATION, help="The same at our own start (default 120, or deadtime)."),
            click.option("--warntime", type=DURATION, help="Silence that is worth a warning (half of deadtime)."),
            click.option("--auto-failback", type=click.Choice(["on", "off", "legacy"]), default="off"),
            click.option("--key-file", type=PATH, help="authkeys file (default /etc/haptk/authkeys)."),
            click.option("--allow-crc", is_flag=True, help="Accept the crc method, which protects nothing."),
            click.option("--resource", "resources", multiple=True, metavar="R", help="As in haresources; repeatable."),
            click.option("--preferred", metavar="NODE", help="The node it belongs to (the smaller name by default)."),
            click.option("--resource-dir", type=PATH, multiple=True, help="Where resource scripts are looked for."),
            click.option(
                "--on-stop-failure",
                default="block",
                show_default=True,
                metavar="block|reboot|PROGRAM",
                help="What to do when a resource cannot be stopped.",
            ),
            click.option("--monitor", type=DURATION, default=10.0, show_default=True, help="Look at what is held."),
            click.option("--monitor-rise", type=click.IntRange(1), default=2, show_default=True, help="Good looks."),
            click.option("--monitor-fall", type=click.IntRange(1), default=3, show_default=True, help="Bad looks."),
            click.option("--ping", "pings", multiple=True, metavar="HOST", help="A witness to ping; repeatable."),
            click.option("--check", metavar="URL", help="Our own service: http://HOST:PORT/PATH or tcp:HOST:PORT."),
            click.option("--check-inter", type=DURATION, default=2.0, show_default=True),
            click.option("--check-rise", type=click.IntRange(1), default=2, show_default=True),
            click.option("--check-fall", type=click.IntRange(1), default=3, show_default=True),
            click.option("--check-timeout", type=DURATION, help="Default: --check-inter, at most 2 s."),
            click.option("--lease", metavar="TABLE/NAME", help="A DynamoDB lease for each group, as a witness."),
            click.option("--lease-ttl", type=DURATION, help="A lease not renewed for this long ends (0.6 deadtime)."),
            click.option("--state-dir", type=PATH, help="Where generations are kept."),
            click.option("--control", type=PATH, help=CONTROL_HELP),
            click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain", show_default=True),
            click.option("--syslog", metavar="FACILITY", help="Log to syslog instead of stderr."),
            click.option(
                "--clock-window",
                type=DURATION,
                default=600.0,
                show_default=True,
                help="A haptk peer whose clock is further off must prove that it is no recording.",
            ),
            click.option("--realtime", is_flag=True, help="Realtime priority and locked memory."),
            click.option(
                "--check-config", is_flag=True, help="Read everything, say what would be wrong, start nothing."
            ),
            click.option("--die-with-parent", is_flag=True, hidden=True),
        ]
    ):
        command = option(command)
    return command


@click.group(
    cls=Group,
    name="heartbeat",
    short_help="Watch a peer and take over its resources when it dies.",
    invoke_without_command=True,
)
@_options
@click.pass_context
def heartbeat(ctx: click.Context, /, **options: Any) -> int:
    """Watch a peer and take over its resources when it dies.

    Without a subcommand this is the daemon, in the foreground. It speaks the protocol of Linux-HA heartbeat 3.0.6, so
    the peer may be either. All --resource options together form one group that moves as a whole.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from haptk.heartbeat import start

    default = click.core.ParameterSource.DEFAULT
    options["explicit"] = {name for name in options if ctx.get_parameter_source(name) is not default}
    if options["check_config"]:
        emit(start.check_config(options), "would start")
        return 0
    return start.daemon(options, verbosity=settings().verbosity)


def _control(path: Path | None) -> Path:
    from haptk.heartbeat.settings import control_path

    given = path or click.get_current_context().find_root().params.get("control")
    parent = click.get_current_context().parent
    if given is None and parent is not None:
        given = parent.params.get("control")
    return control_path(given)


def _call(path: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    from haptk.io import control

    return control.call(_control(path), request, what="haptk heartbeat")


_control_option = click.option("--control", type=PATH, help=CONTROL_HELP)


@heartbeat.command(cls=Command, short_help="Make a key file.")
@click.argument("path", type=PATH, required=False)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def keygen(path: Path | None, force: bool) -> None:
    """Make a key file with 256 random bits; copy it to the other node. Without PATH: /etc/haptk/authkeys; - prints it."""
    import secrets

    from haptk.errors import CannotWrite
    from haptk.formats import authkeys
    from haptk.heartbeat.settings import KEY_FILE
    from haptk.io.files import write_atomic

    text = authkeys.render(secrets.token_hex(32))
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    target = path or KEY_FILE
    if target.exists() and not force:
        raise CannotWrite(path=target, why="it exists already; --force replaces it, on both nodes at once please")
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, mode=0o755)
    write_atomic(target, text.encode(), 0o600)
    emit({"key_file": str(target)}, f"made {target}; copy it to the other node, readable for its owner only")


@heartbeat.command(cls=Command, short_help="Show this node, its peer and its resources.")
@_control_option
def status(control: Path | None) -> None:
    """Show this node, its peer and its resources."""
    found = _call(control, {"op": "status"})
    emit(found, _status_text(found))


def _status_text(found: dict[str, Any]) -> str:
    peer = found["peer"]
    heard = "never heard" if peer["heard_s_ago"] is None else f"heard {peer['heard_s_ago']:.1f} s ago"
    lines = [
        f"node {found['node']}: {found['state']}, holding {found['hold']} ({found['rscstatus']}), "
        f"check {found['check']['state']}, generation {found['generation']}",
        f"peer {peer['name'] or '(name not known yet)'}: {peer['state']}, {heard}, says it holds {peer['hold']}",
    ]
    lines += [f"  link {name}: {state}" for name, state in peer["links"].items()]
    lines += [f"ping node {name}: {state}" for name, state in found["witnesses"].items()]
    lines += [f"resource {item['name']} (of {item['owner']}): {item['state']}" for item in found["resources"]]
    return "\n".join(lines)


HOLD = click.Choice(["all", "local", "foreign"])


@heartbeat.command(cls=Command, short_help="Hand resources over to the peer.")
@click.argument("hold", type=HOLD, default="all")
@_control_option
def standby(hold: str, control: Path | None) -> None:
    """Hand resources over to the peer: all, those that belong here (local), or those of the peer (foreign)."""
    found = _call(control, {"op": "standby", "hold": hold})
    emit(found, found["result"])


@heartbeat.command(cls=Command, short_help="Take resources over from the peer.")
@click.argument("hold", type=HOLD, default="all")
@_control_option
def takeover(hold: str, control: Path | None) -> None:
    """Ask the peer to hand resources over to this node."""
    found = _call(control, {"op": "takeover", "hold": hold})
    emit(found, found["result"])


@heartbeat.command(cls=Command, short_help="Stop the daemon; the peer takes over.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is gone.")
@_control_option
def stop(wait: bool, control: Path | None) -> None:
    """Stop the daemon gracefully: it hands over to the peer, then leaves."""
    found = _call(control, {"op": "stop"})
    if wait:
        from haptk.heartbeat import start

        start.wait_until_gone(_control(control))
        found["result"] = "stopped"
    emit(found, found["result"])


@heartbeat.command(cls=Command, short_help="Read the keys again.")
@_control_option
def reload(control: Path | None) -> None:
    """Read the key file again, and say what else changed and needs a restart. A bad file keeps the old keys."""
    found = _call(control, {"op": "reload"})
    for name in found.get("restart_needed_for", []):
        say(f"{name} has changed: it is used after a restart")
    emit(found, found["result"])
