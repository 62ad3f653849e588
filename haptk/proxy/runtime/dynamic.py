"""`add server` and `del server`: HAProxy 2.6's rules and sentences.

A server that is added has nothing from `default-server` and begins in maintenance, with its checks and its agent not
enabled; it lives until a reload. A word that HAProxy does not take for such servers is refused here, too.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from haptk.core.health import State
from haptk.errors import ConfigError
from haptk.formats.haproxy_cfg import Source, parse
from haptk.proxy.compile import compile_config
from haptk.proxy.runtime.world import Proxy, Unknown, World
from haptk.proxy.tables import Server

if TYPE_CHECKING:
    from haptk.proxy.health import Checked
    from haptk.proxy.runtime.commands import Caller

DYNAMIC = ("roundrobin", "leastconn", "first", "random")
STATIC_ONLY = frozenset({
    "cookie", "init-addr", "log-proto", "max-reuse", "namespace", "non-stick", "redir", "resolve-net", "resolve-opts",
    "resolve-prefer", "resolvers", "stick", "socks4",
})  # fmt: skip
HOSTNAME = re.compile(r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\\"'# "})
TWICE = "Already exists a server with the same name in backend.\n"


def _place(world: World, args: list[str]) -> tuple[Proxy, str]:
    backend, slash, name = (args[0] if args else "").partition("/")
    if not slash or not name or not backend:
        raise Unknown("Require 'backend/server'.")
    try:
        return world.backend(backend), name
    except Unknown:
        raise Unknown("No such backend.") from None


def add_server(world: World, _caller: Caller, args: list[str]) -> str:
    """`add server B/S ADDRESS[:PORT] [WORD]*`."""
    proxy, name = _place(world, args)
    backend = proxy.backend
    assert backend is not None  # noqa: S101
    if backend.balance.algorithm not in DYNAMIC or backend.disabled:
        return "Backend must use a dynamic load balancing to support dynamic servers."
    if len(args) < 2:
        return "'server' expects <name> and <addr>[:<port>] as arguments.\n"
    if word := next((each for each in args[2:] if each in STATIC_ONLY), None):
        return f"'{word}' option is not accepted for dynamic server\n"
    taken = {one.server.id: one for one in proxy.servers}
    try:
        server = _server(name, args[1:])
    except ConfigError as error:
        return _refusal(proxy, name, str(error).partition(": ")[2])
    if server.hostname and not HOSTNAME.fullmatch(server.hostname):
        return f"Can't create DNS resolution for server '{name}'\n"
    if "id" in args[2:]:
        if (other := taken.get(server.id)) is not None:
            return f"'id' : custom id {server.id} already used at (null):0 ('server {other.server.name}').\n"
    else:
        server = replace(server, id=next(number for number in range(1, 1 << 30) if number not in taken))
    if server.check is not None and backend.check_template is not None:
        plan = backend.check_template
        what = {key: getattr(plan, key) for key in ("kind", "send", "expects", "steps", "disable_on_404", "send_state")}
        server = replace(server, check=replace(server.check, timeout_s=plan.timeout_s, **what))
    if server.track and (wrong := _cannot_follow(world, proxy, server.track)):
        return wrong
    if any(one.server.name == name for one in proxy.servers):
        return TWICE
    try:
        enabled = "enabled" in args[2:] and not server.disabled
        world.engine.add_server(world.tables.backends.index(backend), server, enabled=enabled)
    except ValueError as error:
        return f"{error}\n"
    return "New server registered.\n"


def _server(name: str, words: list[str]) -> Server:
    """The server that the words mean; raises ConfigError."""
    line = " ".join(word.translate(SPECIAL) for word in ("server", name, *words))
    asked = set(words[1:])
    if not words[0].startswith(("[", ":", "/", "unix@", "abns@", "*")):
        # a name is not looked up: `set server addr` will say where the server is
        line += " init-addr none"
    track = ""
    if "track" in asked:
        # who is followed stands in another file
        at = words.index("track")
        track = "".join(words[at + 1 : at + 2])
        line = " ".join(word.translate(SPECIAL) for word in ("server", name, *words[:at], *words[at + 2 :]))
    text = f"listen dynamic\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n bind 127.0.0.1:1\n {line}\n"
    tables = compile_config(parse([Source("CLI", text)], {}), lambda _: None)
    server = tables.backends[0].servers[0]
    return replace(server, track=track)


def _refusal(proxy: Proxy, name: str, why: str) -> str:
    """What is wrong with the words; HAProxy's sentence where scripts may know it."""
    if "neither a port" in why:
        return (
            f"config: proxy '{proxy.name}': server '{name}' has neither service port nor check port nor tcp_check rule "
            "'connect' with port information.\n"
        )
    if "does not resolve" in why:
        return f"could not resolve address '{why.partition(' does not resolve')[0].rpartition(' ')[2]}'.\n"
    word = re.search(r"unknown word '([^']*)'", why)
    return f"unknown keyword '{word[1]}'.\n" if word else f"{why.splitlines()[0]}\n"


def _cannot_follow(world: World, proxy: Proxy, track: str) -> str:
    where = track if "/" in track else f"{proxy.name}/{track}"
    with contextlib.suppress(Unknown):
        _, leader = world.server(where)
        if leader.plan is not None or leader.agent is not None or leader.server.track:
            return ""
        return f"unable to use {where} for tracking as it does not have any check nor agent enabled.\n"
    backend = where.partition("/")[0]
    if any(one.name == backend for one in world.proxies):
        return f"unable to find required server '{where.partition('/')[2]}' for tracking.\n"
    return f"unable to find required proxy '{backend}' for tracking.\n"


def del_server(world: World, _caller: Caller, args: list[str]) -> str:
    """`del server B/S`: one in maintenance, without requests and idle connections, that nothing else points to."""
    proxy, name = _place(world, args)
    one = next((each for each in proxy.servers if each.server.name == name), None)
    if one is None:
        return "No such server."
    if _pointed_to(world, one):
        return "This server cannot be removed at runtime due to other configuration elements pointing to it."
    if world.state(one) is not State.MAINT:
        return "Only servers in maintenance mode can be deleted."
    if not world.engine.remove_server(one):
        return "Server still has connections attached to it, cannot remove it."
    return "Server deleted."


def _pointed_to(world: World, one: Checked) -> bool:
    """Whether another server follows it, or resolvers do."""
    return bool(one.server.resolvers) or one.name in world.health.leaders.values()
