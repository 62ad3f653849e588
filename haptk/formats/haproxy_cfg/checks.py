"""How servers are checked: `option httpchk`, `option tcp-check`, `http-check`, `tcp-check` (configuration.txt 4.2).

Rules are kept in the order of the file (`http_rules`, `tcp_steps`), comments included, because HAProxy counts them;
proxy/compile_checks.py makes the steps of a check from them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section

_VALUES = (
    "min-recv", "comment", "ok-status", "error-status", "tout-status", "on-success", "on-error", "status-code",
)  # fmt: skip
_STATUSES = {
    "ok-status": ("L4OK", "L6OK", "L7OK", "L7OKC"),
    "error-status": ("L4CON", "L6RSP", "L7RSP", "L7STS", "L7OKC"),
    "tout-status": ("L4TOUT", "L6TOUT", "L7TOUT"),
}
_KEYS = {"ok-status": "ok_status", "error-status": "error_status", "tout-status": "timeout_status"}
HTTP_EXPECTS = ("status", "rstatus", "string", "rstring", "hdr", "fhdr")
TCP_EXPECTS = ("string", "rstring", "binary", "rbinary")
_HOWS = ("str", "beg", "end", "sub", "reg")
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


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
        head, _, body = extra.partition("\r\n\r\n") if not extra.startswith("\r\n") else ("", "", extra[2:])
        send["raw_suffix"] = head.encode("utf-8", "surrogateescape")
        if body:
            send["body"] = body.encode("utf-8", "surrogateescape")
    if "version" in send:
        _version(send["version"])
    section.set("check_kind", "http")
    section.set("httpchk", send)
    # whichever comes later, this or the first `http-check send`, says what both say
    section.set("httpchk_last", any(rule["action"] == "send" for rule in section.get("http_rules", ())))


def _version(text: str) -> str:
    if not re.fullmatch(r"HTTP/\d\.\d", text):
        raise Refused(f"invalid HTTP version {text!r} (expected HTTP/1.0 or HTTP/1.1)")
    return text


def _text(text: str, what: str) -> str:
    """A log-format without variables: `%%` is a percent sign."""
    if "%" in text.replace("%%", ""):
        raise Refused(
            f"{what}: {text!r} uses a variable of log-format, which haptk does not evaluate in checks (%% is a %)"
        )
    return text.replace("%%", "%")


def http_check(section: Section, args: Args) -> None:
    """`http-check send|expect|connect|comment|disable-on-404|send-state`."""
    action = args.take("one of send, expect, disable-on-404, connect, comment, send-state")
    if action == "disable-on-404":
        section.set("disable_on_404", True)
    elif action == "send-state":
        section.set("check_send_state", True)
    elif action == "send":
        section.append("http_rules", {"action": "send", **_send(args)})
    elif action == "expect":
        section.append("http_rules", _expect(args, HTTP_EXPECTS))
    elif action == "comment":
        section.append("http_rules", {"action": "comment", "comment": args.take("a text")})
    elif action == "connect":
        _first_connects(section.get("http_rules", ()))
        section.append("http_rules", _connect(args))
    elif action in ("set-var", "set-var-fmt", "unset-var"):
        raise Refused(f"http-check: HAProxy knows {action!r}, haptk does not")
    else:
        raise Refused(
            f"invalid http-check {action!r} (expected send, expect, disable-on-404, connect, comment, send-state)"
        )
    args.done()


def _send(args: Args) -> dict[str, Any]:
    send: dict[str, Any] = {}
    names: dict[str, str] = {}
    for word in args:
        if word == "meth":
            send["method"] = args.take("a method")
        elif word == "uri":
            send["uri"] = args.take("a URI")
        elif word == "ver":
            send["version"] = _version(args.take("a version"))
        elif word == "hdr":
            name = args.take("a header's name")
            if not re.fullmatch(_NAME, name):
                raise Refused(f"http-check send: invalid header name {name!r}")
            value = _text(args.take("a header's value"), f"http-check send hdr {name}")
            if name.lower() == "host" and "host" in names:
                raise Refused(f"http-check send: the Host header is already defined as {names['host']!r}")
            names[name.lower()] = value
            send["headers"] = (*send.get("headers", ()), (name, value))
        elif word == "body":
            send["body"] = args.take("a body").encode("utf-8", "surrogateescape")
        elif word in ("uri-lf", "body-lf"):
            raise Refused(f"http-check send: HAProxy knows {word!r}, haptk does not")
        elif word == "comment":
            send["comment"] = args.take("a text")
        else:
            raise Refused(f"invalid http-check send {word!r} (expected meth, uri, ver, hdr, body or comment)")
    return send


def _expect(args: Args, kinds: tuple[str, ...]) -> dict[str, Any]:
    """One expectation; the options may stand on both sides of the pattern."""
    expect: dict[str, Any] = {}
    step: dict[str, Any] = {"action": "expect", "expect": expect}
    for word in args:
        if word in _VALUES:
            _expect_option(step, word, args.take(f"the value of {word}"))
            continue
        kind = word
        while kind.startswith("!"):
            expect["negate"] = not expect.get("negate", False)
            kind = kind[1:] or args.take(f"one of {', '.join(kinds)}")
        if "kind" in expect:
            raise Refused(f"expect: one pattern is enough, found {kind!r} after {expect['kind']!r}")
        if kind in ("string-lf", "binary-lf"):
            raise Refused(f"expect: HAProxy knows {kind!r}, haptk does not")
        units.one_of(kind, "expect", kinds)
        expect["kind"] = kind
        if kind in ("hdr", "fhdr"):
            _header_pattern(args, expect)
        else:
            expect["pattern"] = args.take("a pattern")
        _check_pattern(kind, expect["pattern"])
    if "kind" not in expect:
        raise Refused(f"expect: the pattern is missing (expected one of {', '.join(kinds)})")
    return step


def _expect_option(step: dict[str, Any], word: str, value: str) -> None:
    expect = step["expect"]
    if word == "comment":
        step["comment"] = value
    elif word == "min-recv":
        expect["min_recv"] = units.integer(value, "min-recv", -1, 2**31 - 1)
    elif word in _STATUSES:
        if value.upper() not in _STATUSES[word]:
            raise Refused(f"invalid {word} {value!r} (expected {', '.join(_STATUSES[word])})")
        expect[_KEYS[word]] = value.upper()
    elif word in ("on-success", "on-error"):
        expect[word.replace("-", "_")] = _text(value, word)
    else:
        raise Refused(f"expect: HAProxy knows {word!r} ({value}), haptk does not")


def _header_pattern(args: Args, expect: dict[str, Any]) -> None:
    """`hdr name [-m HOW] NAME [value [-m HOW] VALUE]`; `pattern` has both for people to read."""
    kind = expect["kind"]
    if args.peek() in ("name-lf", "value-lf"):
        raise Refused(f"expect {kind}: HAProxy knows {args.peek()!r}, haptk does not")
    if args.take("name") != "name":
        raise Refused(f"expect {kind}: expected 'name [-m str|beg|end|sub|reg] NAME [value [-m ...] VALUE]'")
    expect["name_how"] = _how(args, kind)
    expect["name"] = args.take("a header's name")
    if args.peek() == "value-lf":
        raise Refused(f"expect {kind}: HAProxy knows 'value-lf', haptk does not")
    if args.peek() == "value":
        args.take("value")
        expect["value_how"] = _how(args, kind)
        expect["value"] = args.take("a value")
    expect["pattern"] = f"{expect['name']} {expect.get('value', '')}".strip()
    for how, text in (("name_how", "name"), ("value_how", "value")):
        if expect.get(how) == "reg":
            _check_pattern("rstring", expect[text])


def _how(args: Args, kind: str) -> str:
    if args.peek() != "-m":
        return "str"
    args.take("-m")
    how = args.take("a matching method")
    if how not in _HOWS:
        raise Refused(f"expect {kind}: invalid matching method {how!r} (expected {', '.join(_HOWS)})")
    return how


def _check_pattern(kind: str, pattern: str) -> None:
    if kind in ("rstatus", "rstring", "rbinary"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise Refused(f"expect {kind}: {pattern!r} is no regular expression: {error}") from None
    if kind == "status":
        if not re.fullmatch(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*", pattern):
            raise Refused(f"expect status: {pattern!r} is no status, list or range, such as 200,300-399")
        for low, dash, high in (part.partition("-") for part in pattern.split(",")):
            if dash and int(low) > int(high):
                raise Refused(f"expect status: invalid range {low}-{high} (expected the lower status first)")
    if kind == "binary":
        _hex(pattern)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refused(f"{text!r} is no even number of hexadecimal digits") from None


def _first_connects(rules: Sequence[dict[str, Any]]) -> None:
    steps = [rule["action"] for rule in rules if rule["action"] != "comment"]
    if steps and "connect" not in steps:
        raise Refused("connect: the first step must also be a connect when there is one at all")


def _connect(args: Args) -> dict[str, Any]:
    step: dict[str, Any] = {"action": "connect"}
    for word in args:
        if word == "port":
            step["port"] = units.integer(args.take("a port"), "connect port", 1, 65535)
        elif word == "addr":
            place = units.address(args.take("an address"), "connect addr")
            step["addr"] = place.unix_path or place.host
            step.setdefault("port", place.port or 0)
        elif word == "send-proxy":
            step["send_proxy"] = 1
        elif word == "default":
            step["plain"] = True
        elif word == "linger":
            step["linger"] = True
        elif word == "comment":
            step["comment"] = args.take("a text")
        elif word in ("via-socks4", "ssl", "sni", "alpn", "proto"):
            raise Refused(f"connect: HAProxy knows {word!r}, haptk does not")
        else:
            raise Refused(f"invalid connect {word!r} (expected port, addr, send-proxy, default, linger or comment)")
    return step


def tcp_check(section: Section, args: Args) -> None:
    """`tcp-check connect|send|send-binary|expect|comment`."""
    action = args.take("one of connect, send, send-binary, expect, comment")
    step: dict[str, Any]
    if action == "connect":
        _first_connects(section.get("tcp_steps", ()))
        step = _connect(args)
    elif action in ("send", "send-binary"):
        text = args.take("what to send")
        data = _hex(text) if action == "send-binary" else text.encode("utf-8", "surrogateescape")
        step = {"action": "send", "data": data}
        if args.peek() == "comment":
            args.take("comment")
            step["comment"] = args.take("a text")
    elif action == "expect":
        step = _expect(args, TCP_EXPECTS)
    elif action == "comment":
        step = {"action": "comment", "comment": args.take("a text")}
    elif action in ("send-lf", "send-binary-lf", "set-var", "set-var-fmt", "unset-var"):
        raise Refused(f"tcp-check: HAProxy knows {action!r}, haptk does not")
    else:
        raise Refused(f"invalid tcp-check {action!r} (expected connect, send, send-binary, expect or comment)")
    args.done()
    section.append("tcp_steps", step)


def option_tcp_check(section: Section, args: Args) -> None:
    """`option tcp-check`: the `tcp-check` lines are played."""
    args.done()
    section.set("check_kind", "tcp-check")
