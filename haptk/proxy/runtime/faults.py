"""`show errors [PROXY|ID] [request|response]`: HAProxy's answer about the last messages that were none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptk.core.httpfault import STATES, dump, locate
from haptk.core.logline import haproxy_date
from haptk.io import clock
from haptk.proxy.faults import Fault
from haptk.proxy.runtime.world import Proxy, World

if TYPE_CHECKING:
    from haptk.proxy.runtime.commands import Caller


def show_errors(world: World, _caller: Caller, args: list[str]) -> str:
    """Requests before responses, proxies in the order of the file; a filter also takes what a proxy was at the other end of."""
    wanted = -1
    if args and args[0] != "-1":
        found = [proxy.iid for proxy in world.proxies if args[0] in (proxy.name, str(proxy.iid))]
        if not found:
            return "No such proxy.\n"
        wanted = found[0]
    kinds = {"request": (False,), "response": (True,)}.get(args[1] if len(args) > 1 else "", (False, True))
    total, raw = world.engine.image.faults()
    faults = [one if isinstance(one, Fault) else Fault(*one) for one in raw]
    out = f"Total events captured on [{_date(clock.wall())}] : {total}\n"
    numbered = [(_proxy(world, fault, response=fault.response), fault) for fault in faults]
    for proxy, fault in sorted(numbered, key=lambda pair: (pair[0].iid, pair[1].response)):
        other = _proxy(world, fault, response=not fault.response) if fault.other >= 0 else None
        if fault.response in kinds and wanted in (-1, proxy.iid, other.iid if other else -1):
            out += _event(world, fault, proxy, other)
    return out


def _date(wall_s: float) -> str:
    return haproxy_date(wall_s, clock.local_offset_s(wall_s))


def _proxy(world: World, fault: Fault, *, response: bool) -> Proxy:
    """The frontend of a fault, or (`response`) its backend."""
    index = fault.proxy if fault.response == response else fault.other
    tables = world.engine.tables
    if response:
        return next(proxy for proxy in world.proxies if proxy.backend is tables.backends[index])
    return next(proxy for proxy in world.proxies if proxy.frontend is tables.frontends[index])


def _event(world: World, fault: Fault, proxy: Proxy, other: Proxy | None) -> str:
    size = world.engine.tables.process.bufsize
    at, state = (fault.at, "MSG_CHUNK_SIZE") if fault.at >= 0 else locate(fault.data, response=fault.response)
    end = f"{other.name} (#{other.iid})" if other else "<NONE> (#-1)"
    side, far, what = ("backend", "frontend", "response") if fault.response else ("frontend", "backend", "request")
    return (
        f" \n[{_date(fault.wall_s)}] {side} {proxy.name} (#{proxy.iid}): invalid {what}\n"
        f"  {far} {end}, server {_server(world, fault)}, event #{fault.event}, src {fault.src or 'unix'}:{fault.src_port}\n"
        f"  buffer starts at 0 (including 0 out), {max(size - len(fault.data), 0)} free,\n"
        f"  len {len(fault.data)}, wraps at {size}, error at position {at}\n"
        "  H1 connection flags 0x00000000, H1 stream flags 0x00000000\n"
        f"  H1 msg state {state}({STATES[state]}), H1 msg flags 0x00000000\n"
        f"  H1 chunk len 0 bytes, H1 body len 0 bytes :\n  \n{dump(fault.data)}"
    )


def _server(world: World, fault: Fault) -> str:
    servers = [one.server for one in world.health.servers]
    if not 0 <= fault.server < len(servers):
        return "<NONE> (#-1)"
    return f"{servers[fault.server].name} (#{servers[fault.server].id})"
