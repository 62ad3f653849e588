"""`haptk proxy`: takes HAProxy's own arguments, so that its service files and wrappers work with the name exchanged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, emit, say, settings, told

if TYPE_CHECKING:
    from haptk.proxy.tables import ProxyTables

CONTEXT = {"help_option_names": ["-h", "--help"], "ignore_unknown_options": False}


class ProxyCommand(Command):
    """HAProxy's single-dash words (-db) and options that take all numbers that follow (-sf PID...), in click's form."""

    VERBS = ("status", "drain", "ready", "maint", "weight", "reload")
    WORDS = frozenset({"-db", "-dM", "-dr", "-dV", "-de", "-dS", "-dL", "-Ws", "-vv"})

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """`haptk proxy status` and its like are commands of their own, for the proxy that runs already."""
        if args and args[0] in self.VERBS:
            from haptk.cli.proxy_control import COMMANDS

            return COMMANDS[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        out: list[str] = []
        index = 0
        while index < len(args):
            word = args[index]
            index += 1
            if word in ("-sf", "-st"):
                while index < len(args) and args[index].isdigit():
                    out += [f"-{word}", args[index]]
                    index += 1
            elif word in self.WORDS:
                out.append(f"-{word}")
            else:
                out.append(word)
        return super().parse_args(ctx, out)


@click.command(cls=ProxyCommand, short_help="Run the sticky HTTP proxy on a haproxy.cfg.", context_settings=CONTEXT)
@click.option("-f", "files", multiple=True, type=click.Path(path_type=Path), help="A file or a directory of *.cfg.")
@click.option("-c", "check", is_flag=True, help="Check the configuration and exit (0: valid, 1: not).")
@click.option("-D", "background", is_flag=True, help="Go to the background.")
@click.option("--db", "foreground", is_flag=True, help="Stay in the foreground (also -db).")
@click.option("-W", "master", is_flag=True, help="Accepted: SIGUSR2 reloads in any mode.")
@click.option("--Ws", "master_notify", is_flag=True, help="Accepted (also -Ws): systemd is notified in any mode.")
@click.option("-d", "debug_mode", is_flag=True, help="Foreground, and say more.")
@click.option("-p", "pidfile", type=click.Path(path_type=Path), help="Write the process id here.")
@click.option("-C", "directory", type=click.Path(path_type=Path, exists=True), help="Change to this directory first.")
@click.option("-L", "node", help="Name of this node, also among its peers.")
@click.option("-n", "maxconn", type=click.IntRange(1), help="Limit of concurrent connections.")
@click.option("-q", "silent", is_flag=True, help="No messages at start.")
@click.option("-V", "chatty", is_flag=True, help="More messages at start.")
@click.option("--sf", "finish", multiple=True, type=int, help="Tell these processes to finish (also -sf PID...).")
@click.option("--st", "terminate", multiple=True, type=int, help="Tell these processes to stop (also -st PID...).")
@click.option(
    "-x", "old_socket", metavar="SOCKET", help="Take the listening sockets over from the proxy of this stats socket."
)
@click.option("-S", "master_socket", help="Accepted for compatibility; not used.")
@click.option("--process-name", metavar="NAME", help="Name of the process for killall, pidof and ps, such as haproxy.")
@click.option("-v", "version", is_flag=True, help="Version (-vv: with how it was built).")
@click.option("--vv", "long_version", is_flag=True, hidden=True)
@click.option("--dM", "--dr", "--dV", "--de", "--dS", "--dL", "_ignored", is_flag=True, hidden=True)
@click.option("--listen", metavar="[HOST]:PORT", help="Run without a file: listen here and balance over SERVERS.")
@click.option(
    "--cookie", metavar="NAME[:MODE]", help="With --listen: the persistence cookie; MODE is prefix or insert."
)
@click.argument("servers", nargs=-1, metavar="[NAME=HOST:PORT]...")
@click.option("--die-with-parent", is_flag=True, hidden=True)
def proxy(**chosen: Any) -> int:
    """Run the sticky HTTP proxy on a haproxy.cfg.

    Or without a file: `--listen :80 --cookie JSESSIONID:prefix A=10.0.0.11:8080 B=10.0.0.12:8080`.

    Takes HAProxy's own arguments. Runs in the foreground unless -D is given. SIGTERM and SIGUSR1 finish the open
    connections, a second SIGTERM stops at once, SIGHUP and SIGUSR2 read the files again.

    A running proxy with a `stats socket` obeys `haptk proxy status [PROXY]...`, `drain`, `ready` and `maint
    BACKEND/SERVER...`, `weight BACKEND/SERVER [WEIGHT]` and `reload`; each has its own --help.
    """
    if chosen["version"] or chosen["long_version"]:
        return _print_version(long=bool(chosen["long_version"]))
    directory = chosen["directory"]
    if isinstance(directory, Path):
        os.chdir(directory)
    if chosen["listen"] and not chosen["files"]:
        text = _inline(chosen["listen"], chosen["cookie"], chosen["servers"])
        return _check(None, text, chosen["node"]) if chosen["check"] else _run(None, text, chosen)
    if chosen["servers"] or chosen["cookie"] or chosen["listen"]:
        raise click.UsageError("--listen, --cookie and NAME=HOST:PORT stand for a file: use them without -f")
    if not chosen["files"]:
        raise click.UsageError("no configuration: give at least one with -f FILE, or --listen with servers")
    return _check(chosen["files"], "", chosen["node"]) if chosen["check"] else _run(chosen["files"], "", chosen)


def _inline(listen: str, cookie: str | None, servers: tuple[str, ...]) -> str:
    """The haproxy.cfg that the arguments stand for; raises UsageError for what cannot be one."""
    name, _, mode = (cookie or "").partition(":")
    if mode not in ("", "prefix", "insert"):
        raise click.UsageError(f"--cookie {cookie}: the mode is prefix or insert")
    lines = [
        "defaults",
        "    mode http",
        "    timeout connect 5s",
        "    timeout client 1m",
        "    timeout server 1m",
        "    timeout http-request 10s",
        "listen haptk",
        f"    bind {listen}",
        "    balance roundrobin",
        "    option forwardfor",
        "    option redispatch",
    ]
    if name:
        lines.append(f"    cookie {name} {'prefix' if mode == 'prefix' else 'insert indirect nocache'}")
    for server in servers:
        label, equals, address = server.partition("=")
        if not equals or not label or ":" not in address or re.search(r"[\s\"'\\#]", server):
            raise click.UsageError(f"{server!r} is no server: NAME=HOST:PORT is expected")
        lines.append(f"    server {label} {address} {f'cookie {label} ' if name else ''}check")
    if not servers:
        raise click.UsageError("--listen needs at least one server, as NAME=HOST:PORT")
    if re.search(r"[\s\"'\\#]", listen + name):
        raise click.UsageError("--listen and --cookie are single words")
    return "\n".join(lines) + "\n"


def _load(files: tuple[Path, ...] | None, text: str, node: object = None) -> ProxyTables:
    from haptk.proxy.compile import load, load_text

    name = node if isinstance(node, str) else ""
    return load_text(text, "command line", localpeer=name) if files is None else load(files, localpeer=name)


def _listens(tables: ProxyTables) -> bool:
    """Whether anybody could connect: to a frontend, a stats socket, or this node of a peers section, as HAProxy counts."""
    fronts = any(frontend.binds and not frontend.disabled for frontend in tables.frontends)
    return fronts or bool(tables.process.stats_sockets) or any(section.local for section in tables.peers)


def _check(files: tuple[Path, ...] | None, text: str = "", node: object = None) -> int:
    """Like `haproxy -c`: every problem on stderr, the verdict on stdout; 0, 1, or 2 when nothing would listen."""
    from haptk.errors import ConfigError

    warnings: tuple[str, ...] = ()
    problems: list[str] = []
    listens = False
    try:
        tables = _load(files, text, node)
        warnings = tables.warnings
        listens = _listens(tables)
    except ConfigError as error:
        problems = str(error).splitlines()
    for line in problems:
        told(f"haptk: error: {line}")
    for line in warnings:
        say(f"haptk: warning: {line}")
    verdict = "Configuration file is not valid" if problems else "Configuration file is valid"
    if not problems and not listens:
        verdict = "Configuration file has no error but will not start (no listener)"
    emit({"valid": not problems, "errors": problems, "warnings": list(warnings)}, verdict)
    return 1 if problems else 0 if listens else 2


def _run(files: tuple[Path, ...] | None, text: str, chosen: dict[str, Any]) -> int:
    from dataclasses import replace

    from haptk.errors import ConfigError
    from haptk.io import logs
    from haptk.proxy.daemon import Daemon, Options
    from haptk.proxy.loader import Loader, wanted

    def shaped(tables: ProxyTables) -> ProxyTables:
        process = tables.process
        if isinstance(chosen["maxconn"], int):
            process = replace(process, maxconn=chosen["maxconn"])
        if isinstance(chosen["node"], str):
            process = replace(process, node=chosen["node"])
        return replace(tables, process=process)

    if chosen["die_with_parent"]:
        from haptk.io.process import die_with_parent

        die_with_parent()

    def read() -> ProxyTables:
        return shaped(_load(files, text, chosen["node"]))

    tables = read()
    if not _listens(tables):
        where = tables.frontends[0].where if tables.frontends else f"{files[0] if files else 'command line'}:1"
        file, _, line = where.rpartition(":")
        raise ConfigError(file=file, line=line, why="no enabled listener found: add a 'bind' line")
    if not chosen["silent"]:
        for warning in tables.warnings:
            say(f"haptk: warning: {warning}")
    verbosity = settings().verbosity + (1 if chosen["debug_mode"] else 0) - (1 if chosen["silent"] else 0)
    logs.setup("haptk-proxy", verbose=verbosity, as_json=settings().as_json)
    pidfile = chosen["pidfile"]
    finish, terminate = chosen["finish"], chosen["terminate"]
    options = Options(
        pidfile=pidfile if isinstance(pidfile, Path) else None,
        background=bool(chosen["background"] or tables.process.daemon)
        and not (chosen["foreground"] or chosen["debug_mode"]),
        finish_pids=finish if isinstance(finish, tuple) else (),
        terminate_pids=terminate if isinstance(terminate, tuple) else (),
        old_socket=chosen["old_socket"] or "",
        old_socket_may_fail=bool(chosen["master"] or chosen["master_notify"]),
    )
    loader = Loader(read) if wanted(tables) else None
    if isinstance(name := chosen["process_name"], str):
        _be_called(name)
    return Daemon(tables, options, read, loader).run()


def _be_called(name: str) -> None:
    """What killall, pgrep, pidof and ps find; after the loader was made, which keeps its own name."""
    import sys

    from haptk.io.process import NAME_BYTES, name_process, show_arguments

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or len(name) > NAME_BYTES:
        raise click.UsageError(
            f"--process-name: invalid name {name!r} (expected 1 to {NAME_BYTES} letters, digits, . _ -)"
        )
    name_process(name)
    show_arguments([name, *sys.argv[2:]])


def _print_version(*, long: bool) -> int:
    import platform

    from haptk import __version__
    from haptk.cli.app import fast_path

    built, why = fast_path()
    result = {"version": __version__, "python": platform.python_version(), "fast_path": built, "why": why}
    text = f"haptk proxy {__version__}"
    if long:
        text += (
            f"\nPython {result['python']}, data path: {'compiled' if built else why}\nspeaks haproxy.cfg of HAProxy 2.6"
        )
    emit(result, text)
    return 0
