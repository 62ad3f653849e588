"""Commands that change what runs, beyond a server's state and weight; and two that look. HAProxy 2.6's sentences."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from haptk.proxy.runtime.world import Proxy, Unknown, World

if TYPE_CHECKING:
    from haptk.proxy.health import Checked
    from haptk.proxy.runtime.commands import Caller

CONNECTIONS = (
    "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim idle_cur "
    "idle_per_thr"
)
BY = "by 'stats socket command'"
HIGHEST = 0x7FFFFFFF


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
    if one.agent is None or not one.agent.state.enabled:
        return f"agent checks are not enabled on this server{'.' if what == 'agent-send' else ''}" + (
            "\n" if what == "agent-send" else ""
        )
    plan = one.agent.plan
    if what == "agent-send":
        plan = replace(plan, send=(args[0] if args else "").encode("utf-8", "surrogateescape"))
    elif what == "agent-port":
        if not args:
            return "set server <b>/<s> agent-port requires a port.\n"
        port = _port(args[0])
        if isinstance(port, str):
            return port
        plan = replace(plan, port=port)
    else:
        if not args:
            return "set server <b>/<s> agent-addr requires an address and optionally a port.\n"
        try:
            plan = replace(plan, host=str(ipaddress.ip_address(args[0])))
        except ValueError:
            return f"invalid addr '{args[0]}'"
        if args[1:2] == ["port"]:
            port = _port(args[2] if len(args) > 2 else "")
            if isinstance(port, str):
                return port
            plan = replace(plan, port=port)
    world.health.ask_at(one.gid, plan)
    return ""


def _port(text: str) -> int | str:
    found = re.fullmatch(r"[+-]?\d+", text)
    if not found:
        return "provided port is not an integer"
    return int(text) if 0 < int(text) < 65536 else "provided port is not in range"


# -- addresses --------------------------------------------------------------------------------------------------------


def set_address(world: World, one: Checked, args: list[str]) -> str:
    """`set server B/S addr ADDRESS [port PORT]`; says what became of each, as HAProxy does."""
    if not args:
        return "set server <b>/<s> addr requires an address and optionally a port.\n"
    try:
        host = str(ipaddress.ip_address(args[0]))
    except ValueError:
        return f"Invalid addr '{args[0]}' {BY}\n"
    said = [f"IP changed from '{one.host}' to '{host}'" if host != one.host else "no need to change the addr"]
    port = one.port
    if args[1:2] == ["port"]:
        text = args[2] if len(args) > 2 else ""
        if not re.fullmatch(r"\d{1,5}", text) or not 0 < int(text) < 65536:
            said.append(f"problem converting port '{text}' to an int")
            return f"{', '.join(said)} {BY}\n"
        port = int(text)
        said.append(f"port changed from '{one.port}' to '{port}'" if port != one.port else "no need to change the port")
    if (host, port) != (one.host, one.port):
        world.health.move(one.gid, host, port)
    return f"{', '.join(said)} {BY}\n"


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
                f"{proxy.name}/{one.server.name} {proxy.iid}/{one.server.id} {one.host or '-'} {one.port} - "
                f"{int(one.server.pool_purge_delay_s * 1000)} {tally.used} {max(tally.used, tally.live_max)} {tally.used} 0 {tally.idle} "
                f"{one.server.pool_max_conn} {tally.idle} {each}\n"
            )
    return "".join(lines)
