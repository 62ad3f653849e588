"""Commands that change what runs, beyond a server's state and weight; and two that look. HAProxy 2.6's sentences."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from haptk.proxy.runtime.world import Proxy, Unknown, World
from haptk.proxy.whereabouts import Whereabouts

if TYPE_CHECKING:
    from haptk.proxy.health import Checked
    from haptk.proxy.runtime.commands import Caller

CONNECTIONS = (
    "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim idle_cur "
    "idle_per_thr"
)
BY = "by 'stats socket command'"
HIGHEST = 0x7FFFFFFF
HIGHEST_PORT = 65535


def _frontend(world: World, args: list[str]) -> tuple[Proxy, int]:
    """The frontend that is named, and its index; raises Unknown."""
    if not args:
        raise Unknown("A frontend name is expected.\n")
    for proxy in world.proxies:
        if proxy.frontend is not None and args[0] in (proxy.name, f"#{proxy.iid}"):
            return proxy, world.adjust.index_of(proxy.frontend)
    raise Unknown("No such frontend.\n")


# -- limits -----------------------------------------------------------------------------------------------------------


def set_maxconn_global(world: World, _caller: Caller, args: list[str]) -> str:
    if not args:
        return "Expects an integer value.\n"
    value = _leading(args[0])
    if not 0 <= value <= world.hard_maxconn():
        return "Value out of range.\n"
    world.adjust.limit_all(value)
    return ""


RATES = (
    "'set rate-limit' only supports :\n"
    "   - 'connections global' to set the per-process maximum connection rate\n"
    "   - 'sessions global' to set the per-process maximum session rate\n"
    "   - 'ssl-sessions global' to set the per-process maximum SSL session rate\n"
    "   - 'http-compression global' to set the per-process maximum compression speed in kB/s\n"
)


def set_rate_limit(world: World, args: list[str]) -> str:
    """Of connections or sessions; what there is none of (TLS, compression) cannot be limited and is said so."""
    what = args[0] if args[1:2] == ["global"] else ""
    if what not in ("connections", "sessions", "ssl-sessions", "http-compression"):
        return RATES
    if len(args) < 3:
        return "Expects an integer value.\n"
    value = _leading(args[2])
    if value < 0:
        return "Value out of range.\n"
    if what in ("ssl-sessions", "http-compression"):
        return "haptk has neither TLS nor compression to limit.\n"
    connections, sessions = world.adjust.rates
    world.adjust.limit_rates(value if what == "connections" else connections, value if what == "sessions" else sessions)
    return ""


def set_maxconn_frontend(world: World, _caller: Caller, args: list[str]) -> str:
    _, index = _frontend(world, args)
    if len(args) < 2:
        return "Integer value expected.\n"
    value = _leading(args[1])
    if not 0 <= value <= HIGHEST:
        return "Value out of range.\n"
    world.adjust.limit_frontend(index, value)
    return ""


def set_maxconn_server(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    if len(args) < 2:
        return "Require <maxconn>.\n"
    found = re.match(r"[+-]?\d+", args[1])
    if not found:
        return "maxconn string empty or preceded by garbage"
    if found[0] != args[1]:
        return "Trailing garbage in maxconn string"
    world.adjust.limit_server(one.gid, max(0, int(found[0])))
    return ""


def _leading(text: str) -> int:
    """The number at the beginning, 0 without one, as C's atoi() reads it."""
    found = re.match(r"\s*([+-]?\d+)", text)
    return int(found[1]) if found else 0


# -- frontends --------------------------------------------------------------------------------------------------------


def disable_frontend(world: World, _caller: Caller, args: list[str]) -> str:
    _, index = _frontend(world, args)
    if index in world.adjust.stopped:
        return "Frontend was previously shut down, cannot disable.\n"
    if index in world.adjust.paused:
        return "All sockets are already disabled.\n"
    world.adjust.pause(index, paused=True)
    return ""


def enable_frontend(world: World, _caller: Caller, args: list[str]) -> str:
    _, index = _frontend(world, args)
    if index in world.adjust.stopped:
        return "Frontend was previously shut down, cannot enable.\n"
    if index not in world.adjust.paused:
        return "All sockets are already enabled.\n"
    world.adjust.pause(index, paused=False)
    return ""


def shutdown_frontend(world: World, _caller: Caller, args: list[str]) -> str:
    _, index = _frontend(world, args)
    if index in world.adjust.stopped:
        return "Frontend was already shut down.\n"
    world.adjust.shut(index)
    return ""


# -- counters and checks ----------------------------------------------------------------------------------------------


def clear_counters(world: World, caller: Caller, args: list[str]) -> str:
    everything = args[:1] == ["all"]
    if not caller.may("admin" if everything else "operator"):
        return "Permission denied\n"
    world.adjust.clear(everything=everything)
    return ""


def disable_health(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    world.health.pause(one.gid, paused=True)
    return ""


def enable_health(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    if one.plan is None:
        return "Health check was not configured on this server, cannot enable.\n"
    world.health.pause(one.gid, paused=False)
    return ""


def disable_agent(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    world.health.pause_agent(one.gid, paused=True)
    return ""


def enable_agent(world: World, _caller: Caller, args: list[str]) -> str:
    _, one = world.server(args[0] if args else "")
    if one.agent is None:
        return "Agent was not configured on this server, cannot enable.\n"
    world.health.pause_agent(one.gid, paused=False)
    return ""


def set_agent(world: World, one: Checked, value: str) -> str:
    """`set server B/S agent up|down`."""
    if one.agent is None or not one.agent.state.enabled:
        return "agent checks are not enabled on this server.\n"
    if value not in ("up", "down"):
        return "'set server <srv> agent' expects 'up' or 'down'.\n"
    world.health.say_for_agent(one.gid, up=value == "up")
    return ""


def set_agent_plan(world: World, one: Checked, what: str, args: list[str]) -> str:
    """`set server B/S agent-addr ADDRESS [port PORT]`, `agent-port PORT`, `agent-send TEXT`."""
    wants = {"agent-addr": " an address and optionally a port", "agent-port": " a port"}.get(what)
    if wants is not None and not (args and args[0]):
        return f"set server <b>/<s> {what} requires{wants}.\n"
    if one.agent is None or not one.agent.state.enabled:
        return "agent checks are not enabled on this server" + (".\n" if what == "agent-send" else "")
    if what == "agent-send":
        world.health.send_to_agent(one.gid, (args[0] if args else "").encode("utf-8", "surrogateescape"))
        return ""
    host, port, wrong = _elsewhere(what, args)
    if wrong:
        return wrong
    at = replace(one.at, agent_host=one.at.agent_host if host is None else host)
    world.health.relocate(one.gid, at if port is None else replace(at, agent_port=port))
    return ""


def set_check_place(world: World, one: Checked, what: str, args: list[str]) -> str:
    """`set server B/S check-addr ADDRESS [port PORT]`, `check-port PORT`."""
    wants = " an address and optionally a port" if what == "check-addr" else " a port"
    if not (args and args[0]):
        return f"set server <b>/<s> {what} requires{wants}.\n"
    if one.plan is None or one.paused:
        return "health checks are not enabled on this server"
    host, port, wrong = _elsewhere(what, args)
    if wrong:
        return wrong
    if port == 0 and one.at.mapped:
        return "can't unset 'port' since MAPPORTS is in use"
    at = replace(one.at, check_host=one.at.check_host if host is None else host)
    world.health.relocate(one.gid, at if port is None else replace(at, check_port=port))
    return ""


def _elsewhere(what: str, args: list[str]) -> tuple[str | None, int | None, str]:
    """(address, port, what is wrong) of a change; None for what stays."""
    host: str | None = None
    text: str | None = args[0]
    if what.endswith("-addr"):
        try:
            host = str(ipaddress.ip_address(args[0]))
        except ValueError:
            return None, None, f"invalid addr '{args[0]}'"
        text = (args[2] if len(args) > 2 else "") if args[1:2] == ["port"] else None
    if text is None:
        return host, None, ""
    if not re.fullmatch(r"[+-]?\d+", text):
        return None, None, "provided port is not an integer"
    if not 0 <= int(text) <= HIGHEST_PORT:
        return None, None, "provided port is invalid"
    return host, int(text), ""


# -- addresses --------------------------------------------------------------------------------------------------------


def set_address(world: World, one: Checked, args: list[str]) -> str:
    """`set server B/S addr ADDRESS [port PORT]`; says what became of each, as HAProxy does."""
    if not (args and args[0]):
        return "set server <b>/<s> addr requires an address and optionally a port.\n"
    try:
        host = str(ipaddress.ip_address(args[0]))
    except ValueError:
        return f"Invalid addr '{args[0]}' {BY}\n"
    if one.server.unix_path:
        return f"Update for the current server address family is only supported through configuration file {BY}\n"
    at = one.at
    said = f"IP changed from '{at.host}' to '{args[0]}'" if host != at.host else "no need to change the addr"
    at = replace(at, host=host)
    if args[1:2] == ["port"]:
        at, told = _port_changed(at, args[2] if len(args) > 2 else "")
        said = f"{said}, {told}"
    if at != one.at:
        world.health.relocate(one.gid, at)
    return f"{said} {BY}\n"


def _port_changed(at: Whereabouts, text: str) -> tuple[Whereabouts, str]:
    """The record with another port, and what is said of it: `+N` and `-N` are added to the port that clients ask for."""
    found = re.match(r"\s*([+-]?\d+)", text)
    if found is None:
        return at, f"problem converting port '{text}' to an int"
    port, mapped = int(found[1]) & HIGHEST_PORT, text[0] in "+-"
    if mapped and not at.mapped and not at.check_port:
        return at, (
            "can't change <port> to port map because it is incompatible with current health check port configuration "
            "(use 'port' statement from the 'server' directive."
        )
    if port == at.port and (at.mapped or not mapped):
        return at, "no need to change the port"
    sign = text[0] if mapped else ""
    shown = -port & HIGHEST_PORT if sign == "-" else port
    told = f"port changed from '{'+' if at.mapped else ''}{at.port}' to '{sign}{shown}'"
    return replace(at, port=port, mapped=mapped), told


FQDN_MAX = 255
FQDN = re.compile(r"[A-Za-z0-9_.-]+")


def set_fqdn(world: World, one: Checked, args: list[str]) -> str:
    """`set server B/S fqdn NAME`: another name to look up, where the server has a `resolvers` section."""
    if not (args and args[0]):
        return "set server <b>/<s> fqdn requires a FQDN.\n"
    if not one.server.resolvers:
        return "set server <b>/<s> fqdn failed because no resolution is configured.\n"
    name = args[0]
    if name == one.at.hostname:
        return f"no need to change the FDQN {BY}\n"
    if len(name) > FQDN_MAX or not FQDN.fullmatch(name):
        return f"invalid fqdn '{name}' {BY}\n"
    before = one.at.hostname
    if not before:
        return f"could not update {one.name} FQDN {BY}\n"
    world.health.relocate(one.gid, replace(one.at, hostname=name))
    return f"{one.name} changed its FQDN from {before} to {name} {BY}\n"


# -- the whole --------------------------------------------------------------------------------------------------------


def reload(world: World, _caller: Caller, _args: list[str]) -> str:
    """Read the files again (haptk's own; HAProxy has it on its master's socket)."""
    if world.reload is None:
        return "There is no file to read again.\n"
    refusal = world.reload()
    return f"The new configuration was refused, the old one stays: {refusal}\n" if refusal else ""


# -- looking ----------------------------------------------------------------------------------------------------------


def show_servers_conn(world: World, _caller: Caller, args: list[str]) -> str:
    chosen = [world.backend(args[0])] if args else [proxy for proxy in world.proxies if proxy.backend is not None]
    workers = max(1, world.tables.process.nbthread)
    lines = [f"{CONNECTIONS}[{workers}]\n"]
    for proxy in chosen:
        for one in proxy.servers:
            tally = world.tallies.servers[one.gid]
            each = " ".join(map(str, world.idle_per_worker(one.gid)))
            lines.append(
                f"{proxy.name}/{one.server.name} {proxy.iid}/{one.server.id} {one.host or '-'} {one.at.port} - "
                f"{int(one.server.pool_purge_delay_s * 1000)} {tally.used} {max(tally.used, tally.live_max)} {tally.used} 0 {tally.idle} "
                f"{one.server.pool_max_conn} {tally.idle} {each}\n"
            )
    return "".join(lines)
