"""How servers are checked: `option httpchk`, `option tcp-check`, `http-check`, `tcp-check` (configuration.txt 4.2)."""

from __future__ import annotations

import re
from typing import Any

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section

_METHODS = ("OPTIONS", "HEAD", "GET", "POST", "PUT", "DELETE", "TRACE", "CONNECT")
_EXPECT_HINTS = (
    "min-recv", "comment", "ok-status", "error-status", "tout-status", "on-success", "on-error", "status-code",
)  # fmt: skip
HTTP_EXPECTS = ("status", "rstatus", "string", "rstring", "hdr", "fhdr")
TCP_EXPECTS = ("string", "rstring", "binary", "rbinary")


def httpchk(section: Section, args: Args) -> None:
    """`option httpchk [[METHOD] URI [VERSION]]`; a VERSION may carry `\\r\\nHost:\\ www` as old files have it."""
    words = args.rest()
    if len(words) > 3:
        raise Refused(f"option httpchk takes at most a method, a URI and a version, found {words[3]!r}")
    send: dict[str, Any] = {}
    if len(words) == 1:
        send["uri"] = words[0]
    elif words:
        send["method"], send["uri"] = words[0], words[1]
    if len(words) == 3:
        version, _, extra = words[2].partition("\r\n")
        send["version"] = version
        head, _, body = extra.partition("\r\n\r\n")
        send["raw_suffix"] = head.encode("utf-8", "surrogateescape")
        if body:
            send["body"] = body.encode("utf-8", "surrogateescape")
    if "version" in send:
        _version(send["version"])
    section.set("check_kind", "http")
    section.set("httpchk", send)


def _version(text: str) -> str:
    if not re.fullmatch(r"HTTP/\d\.\d", text):
        raise Refused(f"{text!r} is no HTTP version; accepted are HTTP/1.0 and HTTP/1.1")
    return text


def http_check(section: Section, args: Args) -> None:
    """`http-check send|expect|disable-on-404|send-state|comment|connect`."""
    action = args.take("one of send, expect, disable-on-404, connect, comment, send-state")
    if action == "send":
        section.set("http_send", _send(args))
    elif action == "expect":
        section.append("http_expects", _expect(args, HTTP_EXPECTS))
    elif action == "disable-on-404":
        section.set("disable_on_404", True)
    elif action == "comment":
        args.take("a text")
    elif action == "connect":
        section.append("http_connects", _connect(args))
    elif action in ("send-state", "set-var", "set-var-fmt", "unset-var"):
        raise Refused(f"http-check: HAProxy knows {action!r}, haptk does not")
    else:
        raise Refused(f"http-check: {action!r} is unknown; accepted are send, expect, disable-on-404, connect, comment")
    args.done()


def _send(args: Args) -> dict[str, Any]:
    send: dict[str, Any] = {"headers": ()}
    for word in args:
        if word == "meth":
            send["method"] = args.take("a method")
        elif word == "uri":
            send["uri"] = args.take("a URI")
        elif word == "ver":
            send["version"] = _version(args.take("a version"))
        elif word == "hdr":
            name = args.take("a header's name")
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise Refused(f"http-check send: {name!r} is no header name")
            send["headers"] += ((name, args.take("a header's value")),)
        elif word == "body":
            send["body"] = args.take("a body").encode("utf-8", "surrogateescape")
        elif word in ("uri-lf", "body-lf"):
            raise Refused(f"http-check send: HAProxy knows {word!r}, haptk does not")
        elif word == "comment":
            args.take("a text")
        else:
            raise Refused(f"http-check send: {word!r} is unknown; accepted are meth, uri, ver, hdr, body, comment")
    return send


def _expect(args: Args, kinds: tuple[str, ...]) -> dict[str, Any]:
    while args.peek() in _EXPECT_HINTS:
        word = args.take("")
        value = args.take(f"the value of {word}")
        if word not in ("comment",):
            raise Refused(f"expect: HAProxy knows {word!r} ({value}), haptk does not")
    negate = args.peek() == "!"
    if negate:
        args.take("!")
    kind = args.take(f"one of {', '.join(kinds)}")
    if kind.startswith("!") and len(kind) > 1:
        negate, kind = True, kind[1:]
    units.one_of(kind, "expect", kinds)
    pattern = args.take("a pattern")
    if kind in ("hdr", "fhdr"):
        pattern = _header_pattern(args, pattern)
    _check_pattern(kind, pattern)
    return {"kind": kind, "pattern": pattern, "negate": negate}


def _header_pattern(args: Args, first: str) -> str:
    """`hdr name NAME [value VALUE]` as "NAME" or "NAME VALUE"."""
    if first != "name" or args.peek() == "-m":
        raise Refused("expect hdr: accepted is 'name NAME [value VALUE]' without -m")
    name = args.take("a header's name")
    if args.peek() != "value":
        return name
    args.take("value")
    if args.peek() == "-m":
        raise Refused("expect hdr: accepted is 'name NAME [value VALUE]' without -m")
    return f"{name} {args.take('a value')}"


def _check_pattern(kind: str, pattern: str) -> None:
    if kind in ("rstatus", "rstring", "rbinary"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise Refused(f"expect {kind}: {pattern!r} is no regular expression: {error}") from None
    if kind == "status" and not re.fullmatch(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*", pattern):
        raise Refused(f"expect status: {pattern!r} is no status, list or range, such as 200,300-399")
    if kind == "binary":
        _hex(pattern)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refused(f"{text!r} is no even number of hexadecimal digits") from None


def _connect(args: Args) -> dict[str, Any]:
    step: dict[str, Any] = {"action": "connect"}
    for word in args:
        if word == "port":
            step["port"] = units.integer(args.take("a port"), "connect port", 1, 65535)
        elif word == "send-proxy":
            step["send_proxy"] = True
        elif word in ("default", "linger"):
            pass
        elif word == "comment":
            args.take("a text")
        elif word in ("addr", "via-socks4", "ssl", "sni", "alpn", "proto"):
            raise Refused(f"connect: HAProxy knows {word!r}, haptk does not")
        else:
            raise Refused(f"connect: {word!r} is unknown; accepted are port, send-proxy, default, linger, comment")
    return step


def tcp_check(section: Section, args: Args) -> None:
    """`tcp-check connect|send|send-binary|expect|comment`."""
    action = args.take("one of connect, send, send-binary, expect, comment")
    step: dict[str, Any]
    if action == "connect":
        step = _connect(args)
    elif action in ("send", "send-binary"):
        text = args.take("what to send")
        data = _hex(text) if action == "send-binary" else text.encode("utf-8", "surrogateescape")
        step = {"action": action, "data": data}
        if args.peek() == "comment":
            args.take("comment")
            args.take("a text")
    elif action == "expect":
        step = {"action": "expect", "expect": _expect(args, TCP_EXPECTS)}
    elif action == "comment":
        args.take("a text")
        args.done()
        return
    elif action in ("send-lf", "send-binary-lf", "set-var", "set-var-fmt", "unset-var"):
        raise Refused(f"tcp-check: HAProxy knows {action!r}, haptk does not")
    else:
        raise Refused(f"tcp-check: {action!r} is unknown; accepted are connect, send, send-binary, expect, comment")
    args.done()
    section.append("tcp_steps", step)


def option_tcp_check(section: Section, args: Args) -> None:
    """`option tcp-check`: the `tcp-check` lines are played."""
    args.done()
    section.set("check_kind", "tcp-check")
