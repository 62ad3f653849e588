"""The steps of a check from the rules of a section, numbered as HAProxy numbers them in its texts.

HAProxy counts rules as they stand in the file, comments included; the request of `option httpchk` is rule 0, as is the
connection that it puts in front where the file begins with something else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from haptk.formats.haproxy_cfg import Section
from haptk.proxy.tables import Expect, HttpSend, TcpStep

if TYPE_CHECKING:
    from haptk.proxy.compile import _Compiler

IMPLICIT = TcpStep("connect", implicit=True, plain=True)
USUAL = Expect("status", "200-399")
_SENT = ("method", "uri", "version", "headers", "body", "raw_suffix")


def steps(work: _Compiler, section: Section) -> tuple[TcpStep, ...]:
    """What a check of this section does; a connection at least."""
    kind = section.get("check_kind", "tcp")
    if kind == "http":
        found = _http_steps(work, section)
    elif kind == "tcp-check":
        found = [_step(rule, number) for number, rule in enumerate(section.get("tcp_steps", ()), 1)]
    else:
        found = []
    return tuple(_commented(_connected(found)))


def http_steps(send: HttpSend, expects: tuple[Expect, ...] = ()) -> tuple[TcpStep, ...]:
    """A connection, one request, what is expected of its answer (a status from 200 to 399 unless said)."""
    wanted = [TcpStep("expect", expect=expect, number=at) for at, expect in enumerate(expects or (USUAL,), 1)]
    if not expects:
        wanted = [replace(wanted[0], number=2)]
    return (IMPLICIT, TcpStep("send", send=send, number=1), *wanted)


def _http_steps(work: _Compiler, section: Section) -> list[TcpStep]:
    rules: list[dict[str, Any]] = section.get("http_rules", [])
    option: dict[str, Any] = section.get("httpchk", {})
    found: list[TcpStep] = []
    merged = False
    for number, rule in enumerate(rules, 1):
        _check_order(work, section, [step for step in found if step.action != "comment"], rule, merged=merged)
        if rule["action"] == "send" and not merged:
            merged, later = True, section.get("httpchk_last", False)
            both = {**rule, **option} if later else {**option, **rule}
            found.append(_step(both, number))
        else:
            found.append(_step(rule, number))
    if not merged:
        at = next((at + 1 for at, step in enumerate(found) if step.action == "connect"), 0)
        found.insert(at, _step({"action": "send", **option}, found[at - 1].number + 1 if at else 1))
    last = [step for step in found if step.action != "comment"][-1]
    if last.action == "send":
        found.append(TcpStep("expect", expect=USUAL, number=last.number + 1))
    return found


def _check_order(
    work: _Compiler, section: Section, before: list[TcpStep], rule: dict[str, Any], *, merged: bool
) -> None:
    """A request needs a connection, an expectation a request."""
    action = rule["action"]
    if not before or action == "comment":
        return
    last = before[-1].action
    if action == "send" and last != "connect" and merged:
        work.error(section, f"{section.title}: http-check send: a connect rule must come before another request")
    elif action == "expect" and last == "connect" and merged:
        work.error(section, f"{section.title}: http-check expect: a send rule must come first")
    elif action == "connect" and last != "expect":
        work.error(section, f"{section.title}: http-check connect: an expect rule must come before another connection")


def _step(rule: dict[str, Any], number: int) -> TcpStep:
    values: dict[str, Any] = {
        key: rule[key] for key in ("action", "data", "port", "comment", "addr", "linger", "plain") if key in rule
    }
    if rule.get("send_proxy"):
        values["send_proxy"] = rule["send_proxy"]
    if rule["action"] == "send" and "data" not in rule:
        said = {key: rule[key] for key in _SENT if key in rule}
        if "headers" in said:
            said.pop("raw_suffix", None)
        values["send"] = HttpSend(**said)
    if "expect" in rule:
        values["expect"] = Expect(**rule["expect"])
    return TcpStep(number=number, **values)


def _connected(found: list[TcpStep]) -> list[TcpStep]:
    first = next((step for step in found if step.action != "comment"), None)
    return found if first is not None and first.action == "connect" else [IMPLICIT, *found]


def _commented(found: list[TcpStep]) -> list[TcpStep]:
    """A comment belongs to the steps of one kind that follow it and have none of their own."""
    out: list[TcpStep] = []
    comment = ""
    before = "comment"
    for step in found:
        if step.action != before and before != "comment":
            comment = ""
        before = step.action
        if step.action == "comment":
            comment = step.comment
            continue
        out.append(step if step.comment or not comment else replace(step, comment=comment))
        if step.action == "connect":
            comment = ""
    return out


def request(send: HttpSend, state: str = "") -> bytes:
    """The bytes of an HTTP check, as HAProxy writes them; `state` is the value of X-Haproxy-Server-State."""
    version = send.version.upper()
    fields = [
        (name.strip(), value.strip())
        for name, _, value in (line.partition(b":") for line in send.raw_suffix.split(b"\r\n") if line.strip())
    ]
    fields += [(_bytes(name), _bytes(value)) for name, value in send.headers]
    # The length is that of the body, whatever the file says. (HAProxy writes what stands behind option httpchk's version once more.)
    length = (b"content-length", b"transfer-encoding")
    fields = [(name.lower(), value) for name, value in fields if value and name.lower() not in length]
    names = {name for name, _ in fields}
    if state:
        fields.append((b"x-haproxy-server-state", _bytes(state)))
    bodiless = send.method.upper() in ("OPTIONS", "GET", "HEAD", "DELETE")
    if send.body or not bodiless:
        fields.append((b"content-length", b"%d" % len(send.body)))
    if b"connection" not in names and version >= "HTTP/1.1":
        fields.append((b"connection", b"close"))
    if version == "HTTP/1.0":
        fields = [field for field in fields if field != (b"connection", b"close")]
    lines = [_bytes(f"{send.method} {send.uri} {send.version}")] + [b"%s: %s" % field for field in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + send.body


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
