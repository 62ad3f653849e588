"""`show servers state`: the lines that `load-server-state-from-file` reads (management.txt, 9.3; version 1)."""

from __future__ import annotations

from haptk.core.health import State
from haptk.proxy.health import Checked
from haptk.proxy.runtime.rows import check_code
from haptk.proxy.runtime.world import Proxy, World

VERSION = 1
COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port"
)
STOPPED, RUNNING, STOPPING = 0, 2, 3
FORCED_MAINT, INHERITED_MAINT, CONFIGURED_MAINT, FORCED_DRAIN, NO_ADDRESS, RENAMED = 1, 2, 4, 8, 32, 64
ASKING, CONFIGURED, ENABLED, PAUSED, AGENT = 1, 2, 4, 8, 16
CODES = {
    "INI": 1, "HANA": 4, "SOCKERR": 5, "L4OK": 6, "L4TOUT": 7, "L4CON": 8, "L6OK": 9, "L6TOUT": 10, "L6RSP": 11,
    "L7TOUT": 12, "L7RSP": 13, "L7OK": 15, "L7OKC": 16, "L7STS": 17,
}  # fmt: skip
UNKNOWN, FAILED, PASSED, CONDITIONALLY = 0, 2, 3, 4


def table(world: World, proxies: list[Proxy]) -> str:
    """Version, header and a line for each server of `proxies`."""
    lines = [f"{VERSION}\n# {COLUMNS}\n"]
    lines += [_line(world, proxy, one) for proxy in proxies for one in proxy.servers]
    return "".join(lines)


def _line(world: World, proxy: Proxy, one: Checked) -> str:
    server, health = one.server, one.health
    # a server without checks that the file disables keeps the mark of a paused check in HAProxy, even when it is enabled
    result, checking = UNKNOWN, PAUSED if server.disabled else 0
    if one.plan is not None:
        checking = (
            CONFIGURED | (0 if one.paused else ENABLED) | (PAUSED if health.wish == "maint" and not one.paused else 0)
        )
        checking |= ASKING if one.busy else 0
        if one.last is not None:
            result = (CONDITIONALLY if health.stopping else PASSED) if one.last.ok or health.stopping else FAILED
    code = CODES.get(check_code(one), 0) if one.plan is not None else CODES["INI"]
    at = one.at
    agent_state = 0
    if one.agent is not None:
        state = one.agent.state
        agent_state = AGENT | CONFIGURED | (ENABLED if state.enabled else 0) | (ASKING if one.agent.asking else 0)
    counter = 0 if health.wish == "maint" or (one.plan is None and server.disabled) else health.health
    host = one.host or "-"
    return (
        f"{proxy.iid} {proxy.name} {server.id} {server.name} {host} {_operational(world, one)} {_wish(world, one)} "
        f"{one.weight} {server.weight} {world.age_s(one.since)} {code} {result} {counter} {checking} {agent_state} 0 "
        f"{int(server.forced_id)} "
        f"{at.hostname or '-'} {at.port} - 0 {at.check_port} {at.check_host or '-'} "
        f"{at.agent_host or '-'} {at.agent_port}\n"
    )


def _operational(world: World, one: Checked) -> int:
    state = world.state(one)
    if not state.usable:
        return STOPPED
    chain = world.health.chain(one)
    return STOPPING if (chain[-1] if chain else one).health.stopping else RUNNING


def _wish(world: World, one: Checked) -> int:
    """HAProxy's bits for who took the server out, and how."""
    wish = one.health.wish
    bits = {"maint": FORCED_MAINT, "drain": FORCED_DRAIN}.get(wish, 0)
    if one.server.disabled:
        bits |= CONFIGURED_MAINT
    if any(each.health.state is State.MAINT for each in world.health.chain(one)):
        bits |= INHERITED_MAINT
    if not one.host and not one.server.unix_path and not one.dynamic:
        bits |= NO_ADDRESS
    if one.at.hostname != one.server.hostname:
        bits |= RENAMED
    return bits
