"""`haptk proxy status|drain|ready|maint|weight|reload`: HAProxy's runtime commands for people, over the stats socket.

They speak the same language as any script on that socket, so they work on a real haproxy too.
"""

from __future__ import annotations

import csv
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haptk.cli.base import Command, emit
from haptk.errors import NotPermitted, NotRunning, PeerError, PeerTimeout

if TYPE_CHECKING:
    from rich.console import Console

SOCKET = Path("/run/haptk/proxy.sock")
TIMEOUT_S = 5.0
RELOAD_S = 40.0
SERVER = "BACKEND/SERVER"

socket_option = click.option(
    "--socket", "path", type=click.Path(path_type=Path), default=SOCKET, show_default=True, help="The stats socket."
)


def ask(path: Path, command: str, timeout_s: float = TIMEOUT_S) -> str:
    """One runtime command; the answer without the empty line. Raises NotRunning, NotPermitted, PeerTimeout, PeerError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(timeout_s)
        parts = []
        try:
            channel.connect(str(path))
            channel.sendall(f"{command}\n".encode())
            while part := channel.recv(65536):
                parts.append(part)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            advice = f"nobody answers on {path}; its haproxy.cfg needs `stats socket {path} level admin`"
            raise NotRunning(what="the proxy", advice=advice) from error
        except PermissionError as error:
            raise NotPermitted(what=f"talk to {path}", why="ask its owner or root") from error
        except TimeoutError as error:
            raise PeerTimeout(peer="the proxy", timeout_s=timeout_s, why=f"on {path}") from error
        except OSError as error:
            raise PeerError(peer="the proxy", why=f"{path}: {error.strerror}") from error
    answer = b"".join(parts).decode("utf-8", "replace").strip("\n")
    if answer.startswith("Permission denied"):
        raise NotPermitted(what=command, why=f"{path} has not the level that it needs (level admin)")
    return answer


def tell(path: Path, command: str) -> None:
    """A command that answers nothing when it was obeyed; raises PeerError with the proxy's own sentence."""
    answer = ask(path, command)
    if answer:
        raise PeerError(peer="the proxy", why=f"{command}: {answer.splitlines()[0]}")


def one_word(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
    """A name cannot carry a second command to the socket."""
    for text in value if isinstance(value, tuple) else (value,):
        if text is not None and any(char in text for char in " \t\r\n;\\"):
            raise click.BadParameter(f"{text!r} is no name")
    return value


@click.command(cls=Command, short_help="Show frontends, backends and servers.")
@socket_option
@click.argument("proxies", nargs=-1, metavar="[PROXY]...")
def status(path: Path, proxies: tuple[str, ...]) -> int:
    """Show frontends, backends and servers of the running proxy.

    PROXY names some of them (default: all).
    """
    text = ask(path, "show stat")
    if not text.startswith("# pxname,"):
        raise PeerError(peer="the proxy", why=f"`show stat` was answered with {text[:60]!r}")
    rows = list(csv.DictReader(text.removeprefix("# ").splitlines()))
    present = {row["pxname"] for row in rows}
    missing = sorted(set(proxies) - present)
    if missing:
        raise PeerError(peer="the proxy", why=f"no proxy is called {', '.join(missing)}")
    chosen = [row for row in rows if not proxies or row["pxname"] in proxies]
    names = ("pxname", "svname", "status", "weight", "scur", "stot", "econ", "lastchg", "check_status", "last_chk")
    result = [{name: row.get(name) or "" for name in names} for row in chosen]
    emit({"proxies": result}, lambda console: _draw(console, result))
    return 0


def _draw(console: Console, rows: list[dict[str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from haptk.core.printable import printable

    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "STATUS", "WEIGHT", "SESSIONS", "TOTAL", "FOR", "CHECK"):
        table.add_column(title, justify="right" if title in ("WEIGHT", "SESSIONS", "TOTAL", "FOR") else "left")
    for row in rows:
        colour = {"UP": "green", "OPEN": "green", "DOWN": "red", "STOP": "red"}.get(row["status"].split(" ")[0], "")
        status_text = escape(row["status"])
        age = f"{row['lastchg']}s" if row["lastchg"] else ""
        table.add_row(
            escape(f"{row['pxname']}/{row['svname']}"), f"[{colour}]{status_text}[/]" if colour else status_text,
            row["weight"], row["scur"], row["stot"], age,
            escape(printable(f"{row['check_status']} {row['last_chk']}".strip())),
        )  # fmt: skip
    console.print(table)


def _state(wish: str, short: str, text: str) -> click.Command:
    @click.command(wish, cls=Command, short_help=short, help=f"{text}\n\nEach {SERVER} is one server.")
    @socket_option
    @click.argument("servers", nargs=-1, required=True, metavar=f"{SERVER}...", callback=one_word)
    def command(path: Path, servers: tuple[str, ...]) -> int:
        for server in servers:
            tell(path, f"set server {server} state {wish}")
        emit({"state": wish, "servers": list(servers)}, "\n".join(f"{server}: {wish}" for server in servers))
        return 0

    return command


drain = _state("drain", "Let a server finish its sessions.", "New sessions go elsewhere; those it has stay.")
ready = _state("ready", "Put a server back.", "Take back drain or maint: health checks decide again.")
maint = _state("maint", "Take a server out.", "No sessions and no checks until it is ready again.")


@click.command(cls=Command, short_help="Show or set a server's weight.")
@socket_option
@click.argument("server", metavar=SERVER, callback=one_word)
@click.argument("value", metavar="[WEIGHT]", required=False, callback=one_word)
def weight(path: Path, server: str, value: str | None) -> int:
    """Show or set a server's weight: 0 to 256, or a share of the configured one (50%)."""
    if value is not None:
        tell(path, f"set server {server} weight {value}")
    answer = ask(path, f"get weight {server}")
    now, _, initial = answer.removesuffix(")").partition(" (initial ")
    if not (now.isdecimal() and initial.isdecimal()):
        raise PeerError(peer="the proxy", why=f"get weight {server}: {answer}")
    emit({"server": server, "weight": int(now), "initial": int(initial)}, f"{server}: {answer}")
    return 0


@click.command(cls=Command, short_help="Read the configuration files again.")
@socket_option
def reload(path: Path) -> int:
    """Have the running proxy read its files again.

    A bad file changes nothing: its errors are shown, the exit code says so. Open connections go on.
    """
    answer = ask(path, "reload", RELOAD_S)
    if answer.startswith("Unknown command"):
        raise PeerError(peer="the proxy", why=f"what listens on {path} cannot reload; send it a signal")
    if answer:
        raise PeerError(peer="the proxy", why=answer)
    emit({"reloaded": True}, "reloaded")
    return 0


COMMANDS: dict[str, click.Command] = {one.name or "": one for one in (status, drain, ready, maint, weight, reload)}
