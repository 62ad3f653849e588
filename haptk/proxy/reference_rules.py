"""Carrying out http-request, http-response and redirect rules on a message: header edits and answers of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from haptk.core.acl import Facts, Format, comma_pieces, compiled, fill_groups, holds, path_of, query_of
from haptk.core.acl import text as expression_text
from haptk.core.logline import expand
from haptk.proxy.pages import REDIRECT_REASONS, reason, title
from haptk.proxy.pages import body as page_body
from haptk.proxy.tables import Rule

Headers = list[tuple[str, str]]


@dataclass
class Reply:
    """An answer that the proxy gives itself."""

    status: int
    headers: Headers
    body: bytes = b""
    reason: str = ""
    is_page: bool = False  # an error file of the proxy serves in its place
    cause: str = ""  # first letter of the termination state when a rule gave the answer
    ends: bool = False  # HAProxy does not go on behind it when the request had a body
    service: str = ""  # the control plane is to answer instead


def page(status: int, *, close: bool = False) -> Reply:
    """The built-in page of a status, with the words that HAProxy's users know."""
    body = page_body(status)
    headers = [("content-length", str(len(body))), ("cache-control", "no-cache")]
    if close:
        headers.append(("connection", "close"))
    return Reply(status, [*headers, ("content-type", "text/html")], body, title(status), is_page=True)


_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?]*)")


class Unfit(Exception):
    """A rule asks for what is no proper message; the text says what."""


@dataclass
class Message:
    """The parts of a message that rules may change."""

    headers: Headers
    method: str = ""
    target: str = ""
    status: int = 0
    reason: str = ""
    changed: bool = False


def apply(rules: Iterable[Rule], kind: str, message: Message, facts: Facts) -> Reply | None:
    """Carry out the rules of one kind in order; returns the answer of the first that gives one.

    `facts` follows the changes, because later conditions look at what earlier rules made.
    """
    for rule in rules:
        if rule.kind != kind or not holds(rule.condition, facts):
            continue
        values: dict[str, Any] = dict(rule.values)
        if rule.action == "allow":
            return None
        if rule.action == "use-service":
            return Reply(0, [], service=values["service"])
        if rule.action in ("deny", "return"):
            return _answer(rule.action, values, facts)
        if rule.action == "redirect":
            if values.get("ignore_empty") and not expand(values["format"], facts):
                continue
            return _redirect(values, facts)
        if rule.action == "set-log-level":
            facts.log_level = values["level"]
            continue
        if rule.action == "disable-l7-retry":
            facts.retries_answers = False
            continue
        if rule.action == "capture":
            found = expression_text(values["expr"], facts)
            if found is not None:
                facts.captures.put(values["slot"], found, response=kind == "http-response")
            continue
        _edit(rule.action, values, message, facts)
        message.changed = True
        if kind == "http-request":
            facts.headers, facts.method, facts.target = message.headers, message.method, message.target
        else:
            facts.res_headers, facts.status = message.headers, message.status
    return None


def _edit(action: str, values: dict[str, Any], message: Message, facts: Facts) -> None:
    name = values.get("name", "").lower()
    if action in ("set-header", "add-header"):
        text = expand(values["format"], facts).strip(" \t")
        if action == "set-header":
            message.headers = [(key, value) for key, value in message.headers if key != name]
        message.headers = [*message.headers, (name, text)]
    elif action == "del-header":
        framing = ("content-length", "transfer-encoding")
        message.headers = [(k, v) for k, v in message.headers if k in framing or not _name_matches(values, k)]
    elif action in ("replace-header", "replace-value"):
        message.headers = [
            (k, _replaced(action, values, v, facts).strip(" \t") if k == name else v) for k, v in message.headers
        ]
    elif action == "set-status":
        message.status, message.reason = values["status"], values["reason"] or reason(values["status"])
    elif action == "set-method":
        method = expand(values["format"], facts)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", method) or "CONNECT" in {method, message.method} - {
            method if method == message.method else ""
        }:
            raise Unfit(f"the method {method!r}")
        message.method = method
    elif action in ("set-path", "set-pathq", "set-query", "set-uri", "replace-path", "replace-pathq", "replace-uri"):
        text = expand(values["format"], facts)
        if action.startswith("replace"):
            new = _replaced_part(action, values["pattern"], text, message.target)
            if new is None:
                return
            action, text = action.replace("replace", "set"), new
        message.target = _target(action, message.target, text)
        if not re.fullmatch(r"[\x21\x22\x24-\x7e]+", message.target):
            raise Unfit(f"the target {message.target!r}")
        if action == "set-uri" and (found := _AUTHORITY.match(message.target)):
            message.headers = [(key, found[2] if key == "host" else value) for key, value in message.headers]


def settle(message: Message) -> None:
    """After the last rule: Host is a proper one, and an absolute target names the same place. Raises Unfit."""
    host = next((value for name, value in message.headers if name == "host"), None)
    if host is not None and not re.fullmatch(r"[\x21\x22\x24-\x2b\x2d\x2e\x30-\x3e\x41-\x5b\x5d-\x7e]*", host):
        raise Unfit(f"the host {host!r}")
    found = _AUTHORITY.match(message.target)
    if message.method != "CONNECT" and found and host is not None:
        message.target = found[1] + host + message.target[found.end() :]
    absolute = re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+://([^/?]+)", message.target)
    if message.method == "CONNECT":
        fits = not message.target.startswith("/")
    else:
        fits = message.target.startswith("/") or (message.target == "*" and message.method == "OPTIONS")
        fits = fits or (absolute is not None and "@" not in absolute[1])
    if not fits:
        raise Unfit(f"the target {message.target!r}")


def _name_matches(values: dict[str, Any], key: str) -> bool:
    name: str = values["name"].lower()
    kind: str = values["match"]
    if kind == "reg":
        return compiled(values["name"], False).search(key) is not None  # keys are in lower case
    return {"str": key == name, "beg": key.startswith(name), "end": key.endswith(name), "sub": name in key}[kind]


def _replaced(action: str, values: dict[str, Any], value: str, facts: Facts) -> str:
    """`replace-header` matches the whole line, `replace-value` each comma-separated value of it."""
    pattern = compiled(values["pattern"], False)
    template = expand(values["format"], facts)

    def substitute(text: str) -> str | None:
        found = pattern.search(text)
        return _groups(template, found) if found else None

    if action == "replace-header":
        new = substitute(value)
        return value if new is None else new
    parts = []
    for part in comma_pieces(value):
        new = substitute(part.strip(" \t"))
        # The blanks around a value that is replaced go with it, as in HAProxy.
        parts.append(part if new is None else new)
    return ",".join(parts)


def _groups(template: str, found: re.Match[str]) -> str:
    return fill_groups(template, found)


def _replaced_part(action: str, pattern: str, template: str, target: str) -> str | None:
    """What `replace-path|pathq|uri` make of their part of the target; None when that does not match."""
    path, query = path_of(target), query_of(target)
    part = {"path": path, "pathq": path + ("?" + query if "?" in target else ""), "uri": target}[action[8:]]
    if not path and action != "replace-uri":
        return None
    found = compiled(pattern, False).search(part)
    return fill_groups(template, found) if found else None


def _target(action: str, target: str, text: str) -> str:
    """The target with one of its parts replaced; an authority in front of the path stays."""
    if action == "set-uri":
        return text or "/"
    path, query = path_of(target), query_of(target)
    found = _AUTHORITY.match(target)
    front = found[0] if found else ""
    if action == "set-path":
        return front + text + (f"?{query}" if "?" in target else "")
    if action == "set-pathq":
        return front + text
    return front + path + (f"?{text}" if text else "")


def _answer(action: str, values: dict[str, Any], facts: Facts) -> Reply:
    status = values["status"]
    body = values.get("body")
    cause = "P" if action == "deny" else "L"
    extra = tuple((name.lower(), expand(chosen, facts)) for name, chosen in values.get("headers", ()))
    if body is None and values.get("errorfiles"):
        return replace(page(status), cause=cause)
    content = expand(body, facts).encode("latin-1") if isinstance(body, Format) else b""
    headers = list(extra)
    if status not in (204, 304):
        headers.append(("content-length", str(len(content))))
    if isinstance(body, Format) and body.parts and values.get("content_type"):
        headers.append(("content-type", values["content_type"]))
    return Reply(status, headers, content, reason(status), cause=cause)


def _redirect(values: dict[str, Any], facts: Facts) -> Reply:
    text = expand(values["format"], facts)
    target = facts.target
    if values["kind"] == "location":
        location = text
    else:
        path = path_of(target) or "/"
        query = query_of(target)
        if query and not values.get("drop_query"):
            path += f"?{query}"
        if values["kind"] == "prefix":
            location = path if text == "/" else text + path
        else:
            host = next((value for name, value in facts.headers if name == "host"), "")
            location = f"{text}://{host}{path}"
        if values.get("append_slash") and not location.endswith("/"):
            location += "/"
    headers = [("content-length", "0"), ("location", location)]
    if values["code"] in (302, 303, 307):
        headers.append(("cache-control", "no-cache"))
    if "set_cookie" in values:
        headers.append(("set-cookie", f"{values['set_cookie']}; path=/;"))
    if "clear_cookie" in values:
        headers.append(("set-cookie", f"{values['clear_cookie']}; path=/; Max-Age=0;"))
    return Reply(values["code"], headers, b"", REDIRECT_REASONS[values["code"]], cause="L", ends=True)
