"""The table of commands: words, the line that `help` shows, the level that is needed, and the function that obeys.

The sentences are HAProxy 2.6's, word for word, because scripts compare them. A command that HAProxy has and haptk has
not is answered as an unknown one, with the closest ones that are known: nothing is accepted and then not done.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Refused
from haptk.proxy.listeners import describe
from haptk.proxy.runtime import (
    changes,
    dynamic,
    events,
    faults,
    identity,
    lines,
    rows,
    schema,
    sessions,
    state_of_process,
    states,
    stats,
    sticks,
)
from haptk.proxy.runtime.world import Unknown, World

LEVELS = ("user", "operator", "admin")
STATES = {"ready": "ready", "drain": "drain", "maint": "maint"}
HEALTHS = ("up", "stopping", "down")
DENIED = "Permission denied\n"
# what a question may be answered with instead of its answer
FAILURES = frozenset({
    DENIED, "Can't find backend.\n", "No such backend.\n", "No such server.\n", "Require 'backend/server'.\n",
    "No such proxy.\n", "No such table\n",
})  # fmt: skip


@dataclass
class Caller:
    """One connection: what it may do, whether it wants a prompt, how long it may be silent, whether it is to end."""

    level: str = "operator"
    prompt: bool = False
    timeout_s: float = 10.0
    over: bool = False
    severity: str = "none"  # in front of answers: none, number or string
    follow: events.Follow | None = None  # `show events -w`: what it waits for
    rest: Iterator[str] | None = None  # of a long answer, piece by piece as it is taken

    def may(self, level: str) -> bool:
        """True when its level is at least `level`."""
        return LEVELS.index(self.level) >= LEVELS.index(level)


Obey = Callable[[World, Caller, list[str]], str]


class Command(NamedTuple):
    """`words` are what the line begins with; `usage` and `text` are what help shows."""

    words: tuple[str, ...]
    usage: str
    text: str
    level: str
    obey: Obey


SEVERITIES = {"number": ("[3]: ", "[4]: ", "[6]: "), "string": ("[err]: ", "[warning]: ", "[info]: ")}


def run(world: World, caller: Caller, words: list[str]) -> str:
    """Obey one command; the answer is without the empty line behind it, and has its severity where that was asked for."""
    answer = _obey(world, caller, words)
    if caller.severity == "none" or not answer or not words or words[:2] == ["set", "severity-output"]:
        return answer
    error, warning, info = SEVERITIES[caller.severity]
    if words[:2] == ["show", "version"]:
        return info + answer
    if " by 'stats socket command'" in answer:
        return warning + answer
    asked = words[0] in ("show", "get", "help") and answer not in FAILURES
    return answer if asked or answer.startswith("Unknown command") else error + answer


def _obey(world: World, caller: Caller, words: list[str]) -> str:
    if words and words[0] == "help":
        return listing("The following commands are valid at this level:\n", matching(words[1:]))
    for command in COMMANDS:
        if tuple(words[: len(command.words)]) == command.words:
            if not caller.may(command.level):
                return DENIED
            try:
                return command.obey(world, caller, words[len(command.words) :])
            except Unknown as unknown:
                return str(unknown)
    if not words:
        return listing("Unknown command. Please enter one of the following commands only:\n", list(COMMANDS))
    return listing("Unknown command, but maybe one of the following ones is a better match:\n", near(words))


# -- help --------------------------------------------------------------------------------------------------------------


def matching(words: list[str]) -> list[Command]:
    """The commands that begin with `words` (all of them without a word)."""
    return [command for command in COMMANDS if list(command.words[: len(words)]) == words[: len(command.words)]]


def near(words: list[str]) -> list[Command]:
    """The commands that somebody may have meant: the same first words, else a similar spelling."""
    for length in range(len(words), 0, -1):
        found = [command for command in COMMANDS if list(command.words[:length]) == words[:length]]
        if found:
            return found
    names = {" ".join(command.words): command for command in COMMANDS}
    close = difflib.get_close_matches(" ".join(words[:3]).lower(), names, n=5, cutoff=0.5)
    return [command for command in COMMANDS if " ".join(command.words) in close]


def listing(head: str, found: list[Command]) -> str:
    """`head`, a line for each command, and the three that always work."""
    lines = [f"  {command.usage:<40}: {command.text}\n" for command in found if command.usage not in ALWAYS]
    lines += [f"  {usage:<40}: {text}\n" for usage, text in ALWAYS.items()]
    return head + "".join(lines)


ALWAYS = {
    "help [<command>]": "list matching or all commands",
    "prompt": "toggle interactive mode with prompt",
    "quit": "disconnect",
}


# -- show --------------------------------------------------------------------------------------------------------------


def show_info(world: World, _caller: Caller, args: list[str]) -> str:
    form = "typed" if "typed" in args else "json" if "json" in args else ""
    return stats.info_text(stats.info(world), form, desc="desc" in args, exact="float" in args)


def show_stat(world: World, caller: Caller, args: list[str]) -> str:
    scope = ("-1", -1, -1)
    flags = frozenset(args)
    if len(args) >= 3 and not flags & {"json", "typed", "up", "no-maint", "desc"} & set(args[:3]):
        name, kinds, sid = args[0], _number(args[1]), _number(args[2])
        if name != "-1" and not name.isdecimal() and name not in [proxy.name for proxy in world.proxies]:
            return "No such proxy.\n"
        scope, flags = (name, kinds, sid), frozenset(args[3:])
    secret = not caller.may("operator")
    if not flags & {"json", "typed"}:
        return stats.csv_header() + "".join(lines.csv_lines(world, scope, flags, secret=secret))
    found = rows.rows(world, scope, flags, secret=secret)
    if "json" in flags and "typed" not in flags:
        return stats.json_rows(found)
    return "".join(stats.typed_row(row, desc="desc" in flags) for row in found)


def _number(text: str) -> int:
    return int(text) if text.removeprefix("-").isdecimal() else 0


def show_servers_state(world: World, _caller: Caller, args: list[str]) -> str:
    chosen = [world.backend(args[0])] if args else [proxy for proxy in world.proxies if proxy.backend is not None]
    return states.table(world, chosen)


def show_backend(world: World, _caller: Caller, _args: list[str]) -> str:
    return "# name\n" + "".join(f"{proxy.name}\n" for proxy in world.proxies if proxy.backend is not None)


def show_version(_world: World, _caller: Caller, _args: list[str]) -> str:
    return f"{identity.VERSION}\n"


def show_cli_level(_world: World, caller: Caller, _args: list[str]) -> str:
    return f"{caller.level}\n"


def show_cli_sockets(world: World, _caller: Caller, _args: list[str]) -> str:
    lines = (f"{'unix@' if bind.unix_path else ''}{describe(bind)} {bind.level} all\n" for bind in world.sockets)
    return "# socket lvl processes\n" + "".join(lines)


# -- servers -----------------------------------------------------------------------------------------------------------


def disable_server(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    world.health.admin(one.gid, "maint")
    return ""


def enable_server(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    world.health.admin(one.gid, "ready")
    return ""


def get_weight(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    return f"{one.weight} (initial {one.server.weight})\n"


def set_weight(world: World, _caller: Caller, args: list[str]) -> str:
    proxy, one = world.server(args[0] if args else "")
    if len(args) < 2:
        return "Require <weight> or <weight%>.\n"
    return world.set_weight(proxy, one, args[1])


def set_server(world: World, caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    what = args[1] if len(args) > 1 else ""
    value = args[2] if len(args) > 2 else ""
    if what == "weight":
        return set_weight(world, caller, [args[0], *args[2:]])
    if what == "state":
        if value not in STATES:
            return "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n"
        world.health.admin(one.gid, value)
        return ""
    if what == "health":
        if one.server.track:
            return "cannot change health on a tracking server.\n"
        if value not in HEALTHS:
            return "'set server <srv> health' expects 'up', 'stopping', or 'down'.\n"
        world.health.force(one.gid, value)
        return ""
    if what == "agent":
        return changes.set_agent(world, one, value)
    if what == "addr":
        return changes.set_address(world, one, args[2:])
    if what == "fqdn":
        return changes.set_fqdn(world, one, args[2:])
    if what in ("check-addr", "check-port"):
        return changes.set_check_place(world, one, what, args[2:])
    if what in ("agent-addr", "agent-port", "agent-send"):
        return changes.set_agent_plan(world, one, what, args[2:])
    if what == "ssl" and one.dynamic:
        return "'set server <srv> ssl' not supported on dynamic servers\n"
    if what == "ssl":
        return "'set server <srv> ssl' cannot be set.  default-server should define ssl settings\n"
    return (
        "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | agent-send | "
        "check-addr | check-port | fqdn | health | ssl | state | weight\n"
    )


def shutdown_sessions(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    if world.health.end is not None:
        world.health.end(one.gid)
    return ""


def show_sess(world: World, _caller: Caller, args: list[str]) -> str:
    return sessions.show(world, args)


def shutdown_session(world: World, _caller: Caller, args: list[str]) -> str:
    return sessions.shutdown(world, args)


def show_fd(world: World, _caller: Caller, args: list[str]) -> str:
    return sessions.descriptors(world, args)


def show_activity(world: World, _caller: Caller, _args: list[str]) -> str:
    return state_of_process.activity(world)


def show_peers(world: World, _caller: Caller, args: list[str]) -> str:
    return state_of_process.peers(world, args)


def show_schema(_world: World, _caller: Caller, _args: list[str]) -> str:
    return schema.text()


def set_rate_limit(world: World, _caller: Caller, args: list[str]) -> str:
    return changes.set_rate_limit(world, args)


# -- learned tables ----------------------------------------------------------------------------------------------------


def show_table(world: World, caller: Caller, args: list[str]) -> str:
    text, caller.rest = sticks.show(world, args)
    return text


def set_table(world: World, _caller: Caller, args: list[str]) -> str:
    return sticks.put(world, args)


def clear_table(world: World, _caller: Caller, args: list[str]) -> str:
    return sticks.clear(world, args)


# -- the connection itself ---------------------------------------------------------------------------------------------


def set_timeout(_world: World, caller: Caller, args: list[str]) -> str:
    if not args or args[0] != "cli":
        return "'set timeout' only supports 'cli'.\n"
    if len(args) < 2:
        return "Expects an integer value.\n"
    try:
        wanted = units.time_s(args[1], "set timeout cli", unit="s")
    except Refused:
        return "Invalid timeout value.\n"
    if wanted < 1:
        return "Invalid timeout value.\n"
    caller.timeout_s = wanted
    return ""


def set_severity(_world: World, caller: Caller, args: list[str]) -> str:
    if not args or args[0] not in ("none", "number", "string"):
        return "one of 'none', 'number', 'string' is a required argument\n"
    caller.severity = args[0]
    return ""


def lower(level: str) -> Obey:
    """`operator` and `user`: give up rights for the rest of the connection."""

    def obey(_world: World, caller: Caller, _args: list[str]) -> str:
        caller.level = level
        return ""

    return obey


def toggle_prompt(_world: World, caller: Caller, _args: list[str]) -> str:
    caller.prompt = not caller.prompt
    return ""


def leave(_world: World, caller: Caller, _args: list[str]) -> str:
    caller.over = True
    return ""


def _command(usage: str, text: str, level: str, obey: Obey, words: str = "") -> Command:
    return Command(tuple((words or usage).split()), usage, text, level, obey)


_OLD = "(use 'set server' instead)"
COMMANDS: tuple[Command, ...] = (
    _command("add server <bk>/<srv>", "create a new server", "admin", dynamic.add_server, "add server"),
    _command("clear counters [all]", "clear max statistics counters (or all counters)", "operator",
             changes.clear_counters, "clear counters"),
    _command("clear table <table> [<filter>]*", "remove an entry from a table (filter: data/key)", "operator",
             clear_table, "clear table"),
    _command("del server <bk>/<srv>", "remove a dynamically added server", "admin", dynamic.del_server, "del server"),
    _command("disable agent", "disable agent checks", "admin", changes.disable_agent),
    _command("disable frontend <frontend>", "temporarily disable specific frontend", "admin", changes.disable_frontend,
             "disable frontend"),
    _command("disable health", "disable health checks", "admin", changes.disable_health),
    _command("disable server (DEPRECATED)", f"disable a server for maintenance {_OLD}", "admin", disable_server,
             "disable server"),
    _command("enable agent", "enable agent checks", "admin", changes.enable_agent),
    _command("enable frontend <frontend>", "re-enable specific frontend", "admin", changes.enable_frontend,
             "enable frontend"),
    _command("enable health", "enable health checks", "admin", changes.enable_health),
    _command("enable server  (DEPRECATED)", f"enable a disabled server {_OLD}", "admin", enable_server,
             "enable server"),
    _command("get weight <bk>/<srv>", "report a server's current weight", "user", get_weight, "get weight"),
    _command("operator", "lower the level of the current CLI session to operator", "operator", lower("operator")),
    _command("reload", "read the configuration files again", "admin", changes.reload),
    _command("set maxconn frontend <frontend> <value>", "change a frontend's maxconn setting", "admin",
             changes.set_maxconn_frontend, "set maxconn frontend"),
    _command("set maxconn global <value>", "change the per-process maxconn setting", "admin",
             changes.set_maxconn_global, "set maxconn global"),
    _command("set maxconn server <bk>/<srv>", "change a server's maxconn setting", "admin",
             changes.set_maxconn_server, "set maxconn server"),
    _command("set rate-limit <setting> <value>", "change a rate limiting value", "admin", set_rate_limit,
             "set rate-limit"),
    _command("set server <bk>/<srv> [opts]", "change a server's state, weight, address or ssl", "admin", set_server,
             "set server"),
    _command("set severity-output [none|number|string]", "set presence of severity level in feedback information", "user",
             set_severity, "set severity-output"),
    _command("set table <table> key <k> [data.* <v>]*", "update or create a table entry's data", "operator", set_table,
             "set table"),
    _command("set timeout [cli] <delay>", "change a timeout setting", "user", set_timeout, "set timeout"),
    _command("set weight <bk>/<srv>  (DEPRECATED)", f"change a server's weight {_OLD}", "admin", set_weight,
             "set weight"),
    _command("show activity", "show per-thread activity stats (for support/developers)", "user", show_activity),
    _command("show backend", "list backends in the current running config", "user", show_backend),
    _command("show cli level", "display the level of the current CLI session", "user", show_cli_level),
    _command("show cli sockets", "dump list of cli sockets", "user", show_cli_sockets),
    _command("show errors [<px>] [request|response]", "report last request and/or response errors for each proxy",
             "operator", faults.show_errors, "show errors"),
    _command("show events [<sink>] [-w] [-n]", "show event sink state", "operator", events.show_events, "show events"),
    _command("show fd [num]", "dump list of file descriptors in use or a specific one", "operator", show_fd, "show fd"),
    _command("show info [desc|json|typed|float]*", "report information about the running process", "user", show_info,
             "show info"),
    _command("show peers [dict|-] [section]", "dump some information about all the peers or this peers section", "user",
             show_peers, "show peers"),
    _command("show schema json", "report schema used for stats", "user", show_schema),
    _command("show servers conn [<backend>]", "dump server connections status (all or for a single backend)", "user",
             changes.show_servers_conn, "show servers conn"),
    _command("show servers state [<backend>]", "dump volatile server information (all or for a single backend)",
             "user", show_servers_state, "show servers state"),
    _command("show sess [id]", "report the list of current sessions or dump this exact session", "operator", show_sess,
             "show sess"),
    _command("show stat [desc|json|no-maint|typed|up]*", "report counters for each proxy and server", "user",
             show_stat, "show stat"),
    _command("show table <table> [<filter>]*", "report table usage stats or dump this table's contents (filter: data/key)",
             "user", show_table, "show table"),
    _command("show version", "show version of the current process", "user", show_version),
    _command("shutdown frontend <frontend>", "stop a specific frontend", "admin", changes.shutdown_frontend,
             "shutdown frontend"),
    _command("shutdown session [id]", "kill a specific session", "admin", shutdown_session, "shutdown session"),
    _command("shutdown sessions server <bk>/<srv>", "kill sessions on a server", "admin", shutdown_sessions,
             "shutdown sessions server"),
    _command("user", "lower the level of the current CLI session to user", "user", lower("user")),
    _command("prompt", ALWAYS["prompt"], "user", toggle_prompt),
    _command("quit", ALWAYS["quit"], "user", leave),
)  # fmt: skip
