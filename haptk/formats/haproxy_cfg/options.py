"""`option NAME ...` and `no option NAME` as one table. The key of a setting is `option_NAME` with underscores."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from haptk.formats.haproxy_cfg import checks, units
from haptk.formats.haproxy_cfg.model import Args, Parser, Refused, Section, names


def _forward(section: Section, args: Args, key: str, header: str) -> None:
    name = args.words[1]
    value: dict[str, Any] = {"header": header, "if_none": False, "except_networks": ()}
    for word in args:
        if word == "except":
            value["except_networks"] = (_network(args.take("a network"), name),)
        elif word == "header":
            value["header"] = args.take("a header's name")
        elif word == "if-none" and name == "forwardfor":
            value["if_none"] = True
        else:
            accepted = "except, header, if-none" if name == "forwardfor" else "except, header"
            raise Refused(f"option {name}: {word!r} is unknown; accepted are {accepted}")
    section.set(key, value)


def _network(text: str, name: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Refused(f"option {name} except: {text!r} is no address or network") from None


def _forwardfor(section: Section, args: Args) -> None:
    _forward(section, args, "option_forwardfor", "X-Forwarded-For")


def _originalto(section: Section, args: Args) -> None:
    _forward(section, args, "option_originalto", "X-Original-To")


def _redispatch(section: Section, args: Args) -> None:
    interval = units.integer(args.take("a number"), "option redispatch", -(2**31) + 1) if args else -1
    args.done()
    section.set("option_redispatch", interval)


def _httplog(section: Section, args: Args) -> None:
    if args:
        section.set("log_style", units.one_of(args.take(""), "option httplog", ("clf",)))
        args.done()
        return
    section.set("log_style", "http")


def _tcplog(section: Section, args: Args) -> None:
    args.done()
    section.set("log_style", "tcp")


_CONNECTION = ("http-keep-alive", "http-server-close", "httpclose")


def _connection(section: Section, args: Args) -> None:
    args.done()
    section.set("connection", args.words[1])


@dataclass(frozen=True)
class Option:
    """`side`: f or b for the half that uses it, "" for both. `inert` is why it is accepted without an effect."""

    side: str = ""
    parse: Parser | None = None
    inert: str = ""


_KERNEL = "the kernel decides this here"
OPTIONS: dict[str, Option] = {
    "abortonclose": Option("b"),
    "accept-invalid-http-request": Option("f"),
    "accept-invalid-http-response": Option("b"),
    "allbackups": Option("b"),
    "clitcpka": Option("f"),
    "contstats": Option("f", inert="counters are always live here"),
    "dontlog-normal": Option("f"),
    "dontlognull": Option("f"),
    "forwardfor": Option("", _forwardfor),
    "http-ignore-probes": Option("f"),
    "http-keep-alive": Option("", _connection),
    "http-no-delay": Option("", inert="small packets are never delayed here"),
    "http-pretend-keepalive": Option("b"),
    "http-server-close": Option("", _connection),
    "httpchk": Option("b", checks.httpchk),
    "httpclose": Option("", _connection),
    "httplog": Option("f", _httplog),
    "independent-streams": Option(""),
    "log-health-checks": Option("b"),
    "log-separate-errors": Option("f"),
    "logasap": Option("f"),
    "nolinger": Option(""),
    "originalto": Option("", _originalto),
    "persist": Option("b"),
    "prefer-last-server": Option("b"),
    "redispatch": Option("b", _redispatch),
    "socket-stats": Option("f"),
    "splice-auto": Option("", inert="haptk copies large bodies with large reads, never through a pipe"),
    "splice-request": Option("", inert="haptk copies large bodies with large reads, never through a pipe"),
    "splice-response": Option("", inert="haptk copies large bodies with large reads, never through a pipe"),
    "srvtcpka": Option("b"),
    "strict-persist": Option("b"),
    "tcp-check": Option("b", checks.option_tcp_check),
    "tcp-smart-accept": Option("f", inert=_KERNEL),
    "tcp-smart-connect": Option("b", inert=_KERNEL),
    "tcpka": Option(""),
    "tcplog": Option("f", _tcplog),
}

UNSUPPORTED = names(
    "checkcache disable-h2-upgrade external-check h1-case-adjust-bogus-client h1-case-adjust-bogus-server "
    "http-buffer-request http-restrict-req-hdr-names http-use-proxy-header http-use-htx httpslog "
    "idle-close-on-response ldap-check mysql-check pgsql-check redis-check smtpchk spop-check ssl-hello-chk transparent"
)
REMOVED = {"forceclose": "httpclose", "http-tunnel": "", "tcpsplice": ""}


def option(section: Section, args: Args) -> None:
    """`option NAME ...`, `no option NAME` (back to off) and `default option NAME`."""
    name = args.take("the name of an option")
    row = OPTIONS.get(name)
    if row is None:
        raise Refused(_unknown(name))
    if row.side and not section.has(row.side):
        half = "frontend" if row.side == "f" else "backend"
        section.warn(args.line, f"option {name}: ignored, because {section.title} has no {half} side (as in HAProxy)")
        args.rest()
        return
    key = "option_" + name.replace("-", "_")
    if args.line.negated:
        _switch_off(section, name, key)
    elif row.parse:
        row.parse(section, args)
    else:
        args.done()
        section.set(key, True)
    if row.inert and not args.line.negated:
        section.warn(args.line, f"option {name}: accepted; it has no effect: {row.inert}")


def _switch_off(section: Section, name: str, key: str) -> None:
    if name in ("forwardfor", "originalto", "httpchk", "tcp-check", "httplog", "tcplog"):
        raise Refused(f"'no option {name}' is not accepted, in HAProxy neither")
    if name in _CONNECTION:
        if section.get("connection") == name:
            section.set("connection", "http-keep-alive")
        return
    section.set(key, None if name == "redispatch" else False)


def _unknown(name: str) -> str:
    accepted = ", ".join(sorted(OPTIONS))
    if name in REMOVED:
        advice = f"use {REMOVED[name]!r}" if REMOVED[name] else "there is no replacement"
        return f"option {name!r} was removed from HAProxy: {advice}"
    if name in UNSUPPORTED:
        return f"HAProxy knows option {name!r}, haptk does not; accepted are {accepted}"
    return f"unknown option {name!r}, which HAProxy does not know either; accepted are {accepted}"
