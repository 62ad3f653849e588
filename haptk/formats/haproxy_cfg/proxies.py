"""The table of what `defaults`, `frontend`, `listen` and `backend` accept, except the lines that have a module of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from haptk.formats.haproxy_cfg import binds, captures, checks, cookies, logs, options, rules, servers, stats, units
from haptk.formats.haproxy_cfg.model import Args, Directive, Parser, Refused, Section

_TIMEOUTS = {
    "client": "f", "server": "b", "connect": "b", "check": "b", "queue": "b", "http-keep-alive": "",
    "http-request": "", "tunnel": "b", "tarpit": "", "client-fin": "f", "server-fin": "b",
}  # fmt: skip
RETRY_EVENTS = (
    "none", "conn-failure", "empty-response", "junk-response", "response-timeout", "0rtt-rejected", "all-retryable-errors",
)  # fmt: skip
_RETRY_STATUSES = ("401", "403", "404", "408", "425", "500", "501", "502", "503", "504")
_ERROR_STATUSES = (
    200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504,
)  # fmt: skip


def _number(key: str, low: int = 0) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, units.integer(args.take("a number"), args.words[0], low))
        args.done()

    return parse


def _word(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, args.take("a value"))
        args.done()

    return parse


def _choice(key: str, *accepted: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        section.set(key, units.one_of(args.take("a value"), args.words[0], accepted))
        args.done()

    return parse


def _flag(key: str, value: bool = True) -> Parser:
    def parse(section: Section, args: Args) -> None:
        args.done()
        section.set(key, value)

    return parse


def _inert(why: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        args.rest()
        section.warn(args.line, f"{args.words[0]}: accepted; it has no effect: {why}")

    return parse


def _mode(section: Section, args: Args) -> None:
    mode = args.take("a mode")
    if mode == "health":
        raise Refused("mode health was removed from HAProxy; use 'http-request return' in mode http")
    section.set("mode", units.one_of(mode, "mode", ("http", "tcp")))
    args.done()


def _timeout(section: Section, args: Args) -> None:
    name = args.take("the name of a timeout")
    if name not in _TIMEOUTS:
        raise Refused(f"timeout: {name!r} is unknown; accepted are {', '.join(sorted(_TIMEOUTS))}")
    value = units.time_s(args.take("a time"), f"timeout {name}")
    args.done()
    side = _TIMEOUTS[name]
    if side and not section.has(side):
        half = "frontend" if side == "f" else "backend"
        section.warn(args.line, f"timeout {name}: ignored, because {section.title} has no {half} side (as in HAProxy)")
        return
    section.merge("timeouts", **{name.replace("-", "_"): value})


def _old_timeout(name: str, instead: str) -> Parser:
    def parse(_section: Section, _args: Args) -> None:
        raise Refused(f"{name!r} was removed from HAProxy; use {instead!r}")

    return parse


def _retries(section: Section, args: Args) -> None:
    section.set("retries", units.integer(args.take("a number"), "retries", 0))
    args.done()


def _retry_on(section: Section, args: Args) -> None:
    events = args.rest()
    if not events:
        raise Refused(f"retry-on needs events; accepted are {', '.join((*RETRY_EVENTS, *_RETRY_STATUSES))}")
    for event in events:
        units.one_of(event, "retry-on", (*RETRY_EVENTS, *_RETRY_STATUSES))
    if "none" in events and len(events) > 1:
        raise Refused("retry-on: 'none' stands alone")
    section.set("retry_on", events)


def _balance(section: Section, args: Args) -> None:
    """`balance ALGORITHM [argument] [modifiers]`."""
    word = args.take("an algorithm")
    name, opened, inside = word.partition("(")
    balance: dict[str, Any] = {"algorithm": name}
    if opened:
        if not inside.endswith(")") or name not in ("hdr", "random"):
            raise Refused(f"balance: {word!r} is unknown")
        if name == "hdr":
            balance["argument"] = inside[:-1]
        else:
            balance["draws"] = units.integer(inside[:-1], "balance random", 1)
    if name == "uri":
        _balance_uri(args, balance)
    elif name == "url_param":
        balance["argument"] = args.take("the name of a parameter")
        if args.peek() == "check_post":
            raise Refused("balance url_param: HAProxy knows 'check_post', haptk does not")
    elif name == "hdr":
        if not balance.get("argument"):
            raise Refused("balance hdr needs a header's name: hdr(NAME)")
        if args.peek() == "use_domain_only":
            args.take("")
            balance["use_domain_only"] = True
    elif name == "rdp-cookie":
        raise Refused("balance: HAProxy knows 'rdp-cookie', haptk does not")
    else:
        accepted = ("roundrobin", "static-rr", "leastconn", "first", "source", "random")
        units.one_of(name, "balance", (*accepted, "uri", "url_param", "hdr(NAME)"))
    args.done()
    section.set("balance", balance)


def _balance_uri(args: Args, balance: dict[str, Any]) -> None:
    for word in args:
        if word in ("len", "depth"):
            key = "uri_length" if word == "len" else "uri_depth"
            balance[key] = units.integer(args.take("a number"), f"balance uri {word}", 1)
        elif word == "whole":
            balance["uri_whole"] = True
        elif word == "path-only":
            balance["uri_path_only"] = True
        else:
            raise Refused(f"balance uri: {word!r} is unknown; accepted are len, depth, whole, path-only")


def _hash_type(section: Section, args: Args) -> None:
    method = units.one_of(args.take("a method"), "hash-type", ("map-based", "consistent"))
    value: dict[str, Any] = {"hash_consistent": method == "consistent"}
    if args:
        functions = ("sdbm", "djb2", "wt6", "crc32")
        if args.peek() != "avalanche":
            value["hash_function"] = units.one_of(args.take(""), "hash-type", functions)
        if args:
            units.one_of(args.take(""), "hash-type", ("avalanche",))
            value["hash_avalanche"] = True
    args.done()
    section.set("hash_type", value)


def _errorfile(section: Section, args: Args) -> None:
    status = units.integer(args.take("a status"), "errorfile")
    if status not in _ERROR_STATUSES:
        raise Refused(f"errorfile: {status} is not accepted; accepted are {', '.join(map(str, _ERROR_STATUSES))}")
    section.settings["errorfiles"] = {
        **section.get("errorfiles", {}), status: (args.take("a file"), args.line.file, args.line.number, b""),
    }  # fmt: skip
    args.done()


def _errorloc(code: int, reason: str) -> Parser:
    """`errorloc|errorloc302|errorloc303 STATUS URL`: an error file that sends the client elsewhere."""

    def parse(section: Section, args: Args) -> None:
        keyword = args.words[0]
        status = units.integer(args.take("a status"), keyword)
        if status not in _ERROR_STATUSES:
            raise Refused(f"{keyword}: {status} is not accepted; accepted are {', '.join(map(str, _ERROR_STATUSES))}")
        url = args.take("a URL")
        args.done()
        if not re.fullmatch(r"[!-~]+", url):
            raise Refused(f"{keyword}: {url!r} is no URL")
        answer = f"HTTP/1.1 {code} {reason}\r\nCache-Control: no-cache\r\nContent-length: 0\r\nLocation: {url}\r\n\r\n"
        section.settings["errorfiles"] = {
            **section.get("errorfiles", {}), status: ("", args.line.file, args.line.number, answer.encode()),
        }  # fmt: skip

    return parse


def _keepalive(key: str, read: Callable[[str, str], int]) -> Parser:
    """`clitcpka-cnt|idle|intvl` and `srvtcpka-...`: what `option clitcpka` and `srvtcpka` ask of the kernel."""

    def parse(section: Section, args: Args) -> None:
        section.set(key, read(args.take("a value"), args.words[0]))
        args.done()

    return parse


def _probes(text: str, what: str) -> int:
    return units.integer(text, what, 1, 127)  # MAX_TCP_KEEPCNT


def _whole_seconds(text: str, what: str) -> int:
    seconds = int(units.time_s(text, what, unit="s"))
    if not 1 <= seconds <= 32767:  # MAX_TCP_KEEPIDLE
        raise Refused(f"{what}: {text!r} is not from 1s to 32767s")
    return seconds


def _monitor(section: Section, args: Args) -> None:
    """`monitor fail if|unless CONDITION`: when `monitor-uri` answers 503."""
    units.one_of(args.take("'fail'"), "monitor", ("fail",))
    found = rules.condition(section, args)
    if found is None:
        raise Refused("monitor fail needs a condition: if or unless")
    section.append("monitor_fails", {"condition": found, "where": args.line.where})


def _source(section: Section, args: Args) -> None:
    text = units.expand(args.take("an address"))
    units.address(text, "source", port_range=True)
    if args:
        raise Refused(f"source: HAProxy knows {args.peek()!r}, haptk takes an address only")
    section.set("source", text)


def _id(section: Section, args: Args) -> None:
    section.set("id", units.integer(args.take("a number"), "id", 1))
    args.done()


def _default_backend(section: Section, args: Args) -> None:
    section.set("default_backend", (args.take("the name of a backend"), args.line.file, args.line.number))
    args.done()


def _http_reuse(section: Section, args: Args) -> None:
    section.set("reuse", units.one_of(args.take("a mode"), "http-reuse", ("never", "safe", "aggressive", "always")))
    args.done()


def _monitor_uri(section: Section, args: Args) -> None:
    uri = args.take("a URI")
    args.done()
    if not re.fullmatch(r"[!-~]+", uri):
        raise Refused(f"monitor-uri: {uri!r} is no URI")
    section.set("monitor_uri", uri)


def _state_file(section: Section, args: Args) -> None:
    section.set("load_server_state", units.one_of(args.take("a scope"), args.words[0], ("none", "local", "global")))
    args.done()


def _state_file_name(section: Section, args: Args) -> None:
    """`server-state-file-name [use-backend-name|FILE]`: where `load-server-state-from-file local` looks."""
    name = args.take("") if args else "use-backend-name"
    args.done()
    section.set("state_file_name", "" if name == "use-backend-name" else name)


def _removed(advice: str) -> Parser:
    def parse(_section: Section, args: Args) -> None:
        raise Refused(f"{args.words[0]!r} was removed from HAProxy; {advice}")

    return parse


# keyword -> row. Letters: d defaults, f frontend, l listen, b backend. `side` is who uses it (see Directive).
DIRECTIVES: dict[str, Directive] = {
    "acl": Directive(rules.acl, "dflb"),
    "appsession": Directive(cookies.appsession, "lb"),
    "backlog": Directive(_number("backlog", 1), "dfl", side="f"),
    "balance": Directive(_balance, "dlb", side="b"),
    "bind": Directive(binds.bind, "fl", side="f"),
    "capture": Directive(captures.capture, "fl", side="f"),
    "clitimeout": Directive(_old_timeout("clitimeout", "timeout client"), "dflb", removed=True),
    "contimeout": Directive(_old_timeout("contimeout", "timeout connect"), "dflb", removed=True),
    "cookie": Directive(cookies.cookie, "dlb", side="b"),
    "clitcpka-cnt": Directive(_keepalive("clitcpka_probes", _probes), "dfl", side="f"),
    "clitcpka-idle": Directive(_keepalive("clitcpka_idle_s", _whole_seconds), "dfl", side="f"),
    "clitcpka-intvl": Directive(_keepalive("clitcpka_interval_s", _whole_seconds), "dfl", side="f"),
    "declare": Directive(captures.declare, "fl"),
    "default-server": Directive(servers.default_server, "dlb"),
    "default_backend": Directive(_default_backend, "dfl", side="f"),
    "description": Directive(lambda s, a: s.set("description", " ".join(a.rest())), "flb"),
    "disabled": Directive(_flag("disabled"), "dflb"),
    "dynamic-cookie-key": Directive(cookies.dynamic_cookie_key, "dlb", side="b"),
    "enabled": Directive(_flag("disabled", False), "dflb"),
    "error-log-format": Directive(logs.error_log_format, "dfl", side="f"),
    "errorfile": Directive(_errorfile, "dflb"),
    "errorloc": Directive(_errorloc(302, "Found"), "dflb"),
    "errorloc302": Directive(_errorloc(302, "Found"), "dflb"),
    "errorloc303": Directive(_errorloc(303, "See Other"), "dflb"),
    "force-persist": Directive(rules.persist, "lb", side="b"),
    "fullconn": Directive(_number("fullconn", 1), "dlb", side="b"),
    "grace": Directive(_inert("use hard-stop-after"), "dflb"),
    "hash-type": Directive(_hash_type, "dlb", side="b"),
    "http-check": Directive(checks.http_check, "dlb", side="b"),
    "http-request": Directive(rules.http_request, "dflb"),
    "http-response": Directive(rules.http_response, "dflb"),
    "http-reuse": Directive(_http_reuse, "dlb", side="b"),
    "id": Directive(_id, "flb"),
    "ignore-persist": Directive(rules.persist, "lb", side="b"),
    "load-server-state-from-file": Directive(_state_file, "dlb", side="b"),
    "server-state-file-name": Directive(_state_file_name, "dlb", side="b"),
    "log": Directive(logs.log, "dflb", no=True),
    "log-format": Directive(logs.log_format, "dfl", side="f"),
    "log-format-sd": Directive(logs.log_format_sd, "dfl", side="f"),
    "log-tag": Directive(_word("log_tag"), "dflb"),
    "max-keep-alive-queue": Directive(_number("max_keep_alive_queue"), "dlb", side="b"),
    "maxconn": Directive(_number("maxconn"), "dfl", side="f"),
    "mode": Directive(_mode, "dflb"),
    "monitor": Directive(_monitor, "fl", side="f"),
    "monitor-uri": Directive(_monitor_uri, "dfl", side="f"),
    "option": Directive(options.option, "dflb", no=True),
    "redirect": Directive(rules.redirect, "flb"),
    "redispatch": Directive(_removed("use 'option redispatch'"), "dflb", removed=True),
    "reqadd": Directive(_removed("use 'http-request add-header'"), "dflb", removed=True),
    "rspadd": Directive(_removed("use 'http-response add-header'"), "dflb", removed=True),
    "retries": Directive(_retries, "dlb", side="b"),
    "retry-on": Directive(_retry_on, "dlb"),
    "server": Directive(servers.server, "lb"),
    "server-template": Directive(servers.server_template, "lb"),
    "source": Directive(_source, "dlb", side="b"),
    "srvtcpka-cnt": Directive(_keepalive("srvtcpka_probes", _probes), "dlb", side="b"),
    "srvtcpka-idle": Directive(_keepalive("srvtcpka_idle_s", _whole_seconds), "dlb", side="b"),
    "srvtcpka-intvl": Directive(_keepalive("srvtcpka_interval_s", _whole_seconds), "dlb", side="b"),
    "srvtimeout": Directive(_old_timeout("srvtimeout", "timeout server"), "dflb", removed=True),
    "stats": Directive(stats.proxy_stats, "dflb"),
    "stick": Directive(cookies.stick, "lb", side="b"),
    "stick-table": Directive(cookies.stick_table, "flb"),
    "tcp-check": Directive(checks.tcp_check, "dlb", side="b"),
    "timeout": Directive(_timeout, "dflb"),
    "unique-id-format": Directive(logs.unique_id_format, "dfl", side="f"),
    "unique-id-header": Directive(logs.unique_id_header, "dfl", side="f"),
    "use_backend": Directive(rules.use_backend, "fl", side="f"),
}
