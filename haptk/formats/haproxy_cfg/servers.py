"""`server`, `default-server` and `server-template` lines with their options (configuration.txt 5.2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from haptk.formats.haproxy_cfg import resolvers, units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section, names

Reader = Callable[[Args, str], Any]
INIT_STATES = ("fully-up", "up", "down", "fully-down")


def _time(args: Args, word: str) -> float:
    value = units.time_s(args.take(f"the time of {word}"), word)
    if value <= 0:
        raise Refused(f"{word}: the time is more than 0")
    return value


def _slowstart(args: Args, word: str) -> float:
    # HAProxy counts a warm-up in whole seconds, rounded up.
    return float(-(-int(1000 * units.time_s(args.take("the time"), word)) // 1000))


def _time_or_zero(args: Args, word: str) -> float:
    return units.time_s(args.take(f"the time of {word}"), word)


def _number(low: int, high: int = 2**31 - 1) -> Reader:
    return lambda args, word: units.integer(args.take(f"the value of {word}"), word, low, high)


def _text(args: Args, word: str) -> str:
    return args.take(f"the value of {word}")


def _always(value: Any) -> Reader:
    return lambda _args, _word: value


def _one_of(*accepted: str) -> Reader:
    return lambda args, word: units.one_of(args.take(f"the value of {word}"), word, accepted)


def _init_addr(args: Args, word: str) -> tuple[str, ...]:
    methods = tuple(args.take("a list of methods").split(","))
    for method in methods:
        if method not in ("last", "libc", "none") and not re.fullmatch(r"[0-9a-fA-F:.]+", method):
            raise Refused(f"{word}: {method!r} is unknown; accepted are last, libc, none and an IP address")
    return methods


def _address(args: Args, word: str) -> units.Address:
    return units.address(args.take("an address"), word)


def _source(args: Args, word: str) -> str:
    text = units.expand(args.take("an address"))
    units.address(text, word, port_range=True)
    if args.peek() in ("usesrc", "interface"):
        raise Refused(f"{word}: HAProxy knows {args.peek()!r}, haptk does not")
    return text


# option -> (key, reader). `no-` forms are rows of their own, as in HAProxy.
OPTIONS: dict[str, tuple[str, Reader]] = {
    "addr": ("check_addr", _address),
    "agent-addr": ("agent_addr", _text),
    "agent-check": ("agent_check", _always(True)),
    "agent-inter": ("agent_inter_s", _time),
    "agent-port": ("agent_port", _number(1, 65535)),
    "agent-send": ("agent_send", _text),
    "backup": ("backup", _always(True)),
    "check": ("check", _always(True)),
    "check-send-proxy": ("check_send_proxy", _always(True)),
    "cookie": ("cookie", _text),
    "disabled": ("disabled", _always(True)),
    "downinter": ("downinter_s", _time),
    "enabled": ("disabled", _always(False)),
    "error-limit": ("error_limit", _number(1)),
    "fall": ("fall", _number(1)),
    "fastinter": ("fastinter_s", _time),
    "id": ("id", _number(1)),
    "init-addr": ("init_addr", _init_addr),
    "init-state": ("init_state", _one_of(*INIT_STATES)),
    "inter": ("inter_s", _time),
    "maxconn": ("maxconn", _number(0)),
    "maxqueue": ("maxqueue", _number(0)),
    "max-reuse": ("max_reuse", _number(-1)),
    "minconn": ("minconn", _number(0)),
    "no-agent-check": ("agent_check", _always(False)),
    "no-backup": ("backup", _always(False)),
    "no-check": ("check", _always(False)),
    "no-check-send-proxy": ("check_send_proxy", _always(False)),
    "no-send-proxy": ("send_proxy", _always(0)),
    "no-send-proxy-v2": ("send_proxy", _always(0)),
    "no-ssl": ("no_ssl", _always(True)),
    "non-stick": ("non_stick", _always(True)),
    "observe": ("observe", _one_of("layer4", "layer7")),
    "on-error": ("on_error", _one_of("fastinter", "fail-check", "sudden-death", "mark-down")),
    "on-marked-down": ("on_marked_down", _one_of("shutdown-sessions")),
    "on-marked-up": ("on_marked_up", _one_of("shutdown-backup-sessions")),
    "pool-low-conn": ("pool_low_conn", _number(0)),
    "pool-max-conn": ("pool_max_conn", _number(-1)),
    "pool-purge-delay": ("pool_purge_delay_s", _time_or_zero),
    "port": ("check_port", _number(1, 65535)),
    "redir": ("redir", _text),
    "resolve-net": ("resolve_net", resolvers.networks),
    "resolve-opts": ("resolve_opts", resolvers.options),
    "resolve-prefer": ("resolve_prefer", resolvers.prefer),
    "resolvers": ("resolvers", _text),
    "rise": ("rise", _number(1)),
    "send-proxy": ("send_proxy", _always(1)),
    "send-proxy-v2": ("send_proxy", _always(2)),
    "slowstart": ("slowstart_s", _slowstart),
    "source": ("source", _source),
    "stick": ("non_stick", _always(False)),
    "track": ("track", _text),
    "weight": ("weight", _number(0, 256)),
}

UNSUPPORTED = names(
    "allow-0rtt alpn ca-file check-alpn check-proto check-sni check-ssl check-via-socks4 ciphers ciphersuites crl-file "
    "crt force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 log-proto namespace no-check-ssl "
    "no-send-proxy-v2-ssl no-send-proxy-v2-ssl-cn no-ssl-reuse no-sslv3 no-tfo no-tls-tickets no-tlsv10 no-tlsv11 "
    "no-tlsv12 no-tlsv13 npn proto proxy-v2-options "
    "send-proxy-v2-ssl send-proxy-v2-ssl-cn shard sni socks4 ssl ssl-max-ver ssl-min-ver ssl-reuse tcp-ut tfo "
    "tls-tickets usesrc verify verifyhost ws"
)


def read_options(args: Args, what: str) -> dict[str, Any]:
    """The option words of a server line as a dict; the last word of a kind wins."""
    options: dict[str, Any] = {}
    for word in args:
        row = OPTIONS.get(word)
        if row:
            options[row[0]] = row[1](args, word)
        elif word in UNSUPPORTED:
            raise Refused(f"{what}: HAProxy knows {word!r}, haptk does not; accepted are {', '.join(sorted(OPTIONS))}")
        else:
            raise Refused(
                f"{what}: unknown word {word!r}, which HAProxy does not know either; "
                f"accepted are {', '.join(sorted(OPTIONS))}"
            )
    return options


_BAD_NAME = re.compile(r"[^A-Za-z0-9_.:-]")


def check_name(name: str, what: str) -> str:
    """A name as HAProxy allows it for proxies and servers: letters, digits and `-_.:`."""
    found = _BAD_NAME.search(name)
    if found or not name:
        raise Refused(
            f"{what}: the name {name!r} has a character that names may not have; accepted are A-Z a-z 0-9 - _ . :"
        )
    return name


def default_server(section: Section, args: Args) -> None:
    """Options for the servers that follow; later lines add to earlier ones."""
    if not args:
        raise Refused("'default-server' expects options")
    for refused in ("id", "track"):
        if refused in args.words[1:2]:
            raise Refused(f"'{refused}' is not accepted in default-server")
    section.merge("default_server", **read_options(args, "default-server"))


def server(section: Section, args: Args) -> None:
    """`server NAME ADDRESS[:PORT] [options]`."""
    name = check_name(args.take("a name"), "server")
    text = units.expand(args.take("an address"))
    place = units.address(text, f"server {name}", offset=True)
    if place.fd >= 0:
        raise Refused(f"server {name}: a server cannot be a file descriptor")
    if not place.host and not place.unix_path and text[:1] not in ("*", ":", "0"):
        raise Refused(f"server {name}: invalid address {text!r} (expected ADDRESS[:PORT])")
    own = read_options(args, f"server {name}")
    known = [known["name"] for known in section.get("servers", ())]
    if name in known:
        raise Refused(f"server {name}: another server of this section has the same name")
    section.append("servers", _record(section, name, place, own, args.line.where))


def _record(section: Section, name: str, place: units.Address, own: dict[str, Any], where: str) -> dict[str, Any]:
    return {**section.get("default_server", {}), **own, "name": name, "place": place, "where": where}


def server_template(section: Section, args: Args) -> None:
    """`server-template PREFIX LOW-HIGH ADDRESS[:PORT] [options]`: the same server several times under numbered names."""
    prefix = check_name(args.take("a prefix"), "server-template")
    span = args.take("a count or a range")
    low, dash, high = span.partition("-")
    first = units.integer(low, "server-template", 1) if dash else 1
    last = units.integer(high if dash else low, "server-template", 1)
    if last < first or last - first > 10_000:
        raise Refused(f"server-template: {span!r} is no count or range of at most 10000")
    place = units.address(args.take("an address"), f"server-template {prefix}", offset=True)
    own = read_options(args, f"server-template {prefix}")
    for number in range(first, last + 1):
        section.append("servers", _record(section, f"{prefix}{number}", place, own, args.line.where))
