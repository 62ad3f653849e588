"""Random heads, tests and formats, and the same question to core.acl and to the compiled path. For property tests and the fuzzer."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from haptk._fast.probe import Probe
from haptk.core.acl import CONVERTERS, FETCHES, Call, Condition, Expr, Facts, Format, Term, Test, Variable, matches
from haptk.core.logline import expand
from haptk.proxy.compile import load_text
from haptk.proxy.reference_http import Bad, parse_request, parse_response
from haptk.proxy.reference_messages import without_hops
from haptk.proxy.reference_rules import Message, Unfit, apply, settle
from haptk.proxy.reference_session import render
from haptk.proxy.tables import Rule

FILE = """
frontend web
    bind 127.0.0.1:1 name here
    mode http
    default_backend b
backend b
    mode http
    server s1 127.0.0.1:2
    server s2 127.0.0.1:3
    server s3 127.0.0.1:4 backup
"""
PIECES = ["a", "b", "A", "x", "c", "ab", "", " ", ",", ";", "=", "&", '"', "\\", "\t", "/", "?", ".", ":", "%41", "%", "+", "-", "1", "12", "007",
          "1.2.3.4", "10.0.0.1:80", "::1", "\xe9", "\x01", "$", "~", "99999999999999999999", "c=1", "c=", "a=b; c=d"]  # fmt: skip
NAMES = ["x-a", "x-b", "cookie", "x-c"]
REGEXES = ["a", "^a", "b$", "[ab]+", "(a)(b)?", "x*", ".", "^$", "(?i)A", "a|b", "[^,]+", "\\d+", "\\.", "(a*)*b"]
SKIPPED = {"env", "hostname", "date", "srv_name", "be_conn"}


def text(rng: random.Random, most: int = 4) -> str:
    return "".join(rng.choices(PIECES, k=rng.randrange(most + 1)))


def request(rng: random.Random) -> bytes:
    target = "/" + re.sub(r"[^\x21\x22\x24-\x7e]", "", text(rng, 6))
    if rng.random() < 0.1:
        target = "http://h.example" + target
    lines = [f"{rng.choice(['GET', 'HEAD', 'POST', 'PATCH'])} {target} HTTP/1.{rng.randrange(2)}", "Host: h.example"]
    lines += [f"{rng.choice(NAMES).title()}:{text(rng, 6)}" for _ in range(rng.randrange(6))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response(rng: random.Random) -> bytes:
    names = ["x-a", "x-b", "set-cookie"]
    lines = [f"HTTP/1.1 {rng.choice([200, 302, 404, 500])} Why"]
    lines += [f"{rng.choice(names)}:{text(rng, 6)}" for _ in range(rng.randrange(6))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _arguments(rng: random.Random, name: str) -> tuple[str, ...]:
    if name in ("int",):
        return (str(rng.randrange(-20, 20)),)
    if name in ("bool",):
        return (rng.choice(["1", "false"]),)
    if name == "nbsrv":
        return rng.choice([(), ("b",)])
    if name == "url_param":
        return rng.choice([("c",), ("a",), ("a", ";"), ("x", "?")])
    if "cook" in name:
        return (rng.choice(["c", "a", "C"]),)
    if "hdr" in name:
        where = ("X-A" if rng.random() < 0.7 else rng.choice(NAMES),)
        many = FETCHES[name].high > 1 and rng.random() < 0.4
        return (*where, str(rng.choice([1, 2, 3, -1, -2, -10, -11]))) if many else where
    return tuple("ab" for _ in range(FETCHES[name].low))


def _converter(rng: random.Random) -> Call:
    name = rng.choice(sorted(CONVERTERS))
    arguments: tuple[str, ...] = ()
    if name in ("add", "sub", "mul", "div", "mod", "and", "or", "xor"):
        arguments = (str(rng.choice([1, 2, 7, -1, -3, 9223372036854775807, -9223372036854775808])),)
    elif name == "bytes":
        arguments = rng.choice([("1",), ("0", "2"), ("5", "1")])
    elif name in ("rtrim", "ltrim"):
        arguments = (rng.choice(["a", " b", "=1"]),)
    elif name in ("field", "word"):
        arguments = (str(rng.choice([1, 2, -1, -2, 3])), rng.choice([",", ";=", "a"]))
    elif name == "concat":
        arguments = (rng.choice(["!", "ab"]),)
    elif name == "url_dec":
        arguments = rng.choice([(), ("1",), ("0",)])
    elif name == "regsub":
        arguments = (
            rng.choice(REGEXES[:-1]),
            rng.choice(["-", "<\\0>", "\\1\\2", "\\x41\\\\"]),
            rng.choice(["", "g", "i", "gi"]),
        )
    return Call(name, arguments)


def expression(rng: random.Random, *, answering: bool) -> Expr:
    names = [
        name
        for name in sorted(FETCHES)
        if name not in SKIPPED and not name.startswith("capture.") and (answering or not FETCHES[name].response)
    ]
    name = rng.choice(names)
    return Expr(
        Call(name, _arguments(rng, name)), tuple(_converter(rng) for _ in range(rng.choice([0, 0, 1, 1, 2, 3])))
    )


def test_of(rng: random.Random, *, answering: bool) -> Test:
    method = rng.choice(["str", "beg", "end", "sub", "dir", "dom", "reg", "len", "int", "ip", "found", "bool"])
    values: list[str] = []
    for _ in range(rng.randrange(1, 4)):
        if method == "reg":
            values.append(rng.choice(REGEXES[:-1]))
        elif method in ("len", "int"):
            values.append(rng.choice(["0", "1", "5", "1:9", ":3", "7:", "12"]))
        elif method == "ip":
            values.append(rng.choice(["127.0.0.0/8", "10.0.0.1", "::1", "1.2.3.4/31", "0.0.0.0/0"]))
        elif method not in ("found", "bool"):
            values.append(rng.choice(["a", "b", "ab", "/", "A", "", text(rng, 2)]))
    return Test(expression(rng, answering=answering), method, tuple(values), rng.random() < 0.3)


def _edit(rng: random.Random) -> Rule:
    name = rng.choice(["X-A", "X-B", "x-new", "Host", "Via"])
    chosen = Format(
        tuple(
            rng.choices(
                ["v", "a,b", expression(rng, answering=False), Variable("HU"), Variable("HM")], k=rng.randrange(4)
            )
        )
    )
    kind = rng.randrange(8)
    if kind == 0:
        values: dict[str, object] = {"name": name, "format": chosen}
        action = "set-header"
    elif kind == 1:
        action, values = "add-header", {"name": name.replace("Host", "X-H"), "format": chosen}
    elif kind == 2:
        action, values = (
            "del-header",
            {
                "name": rng.choice(["x-a", "x", "a", "^x-[ab]$"]),
                "match": rng.choice(["str", "beg", "end", "sub", "reg"]),
            },
        )
    elif kind in (3, 4):
        action = "replace-header" if kind == 3 else "replace-value"
        values = {
            "name": name,
            "pattern": rng.choice(REGEXES[:-1]),
            "format": Format((rng.choice(["", "<\\0>", "\\1,\\2", "\\x2c"]), *chosen.parts)),
        }
    elif kind == 5:
        action, values = "set-method", {"format": Format((rng.choice(["PUT", "GET", "CONNECT", "b d"]),))}
    else:
        action = rng.choice(["set-path", "set-pathq", "set-query", "set-uri"])
        fronts = {
            "set-path": "/new",
            "set-pathq": "/p?q",
            "set-query": "k=v",
            "set-uri": rng.choice(["/u?v", "http://o.example/z"]),
        }
        values = {"format": Format((rng.choice([fronts[action], fronts[action] + "x y"]), *chosen.parts[:1]))}
    condition = None
    if rng.random() < 0.4:
        condition = Condition(((Term("", (test_of(rng, answering=False),), rng.random() < 0.5),),), rng.random() < 0.3)
    return Rule("http-request", action, tuple(sorted(values.items())), condition, where="f:1")


def edited_by_reference(rules: tuple[Rule, ...], facts: Facts) -> bytes | None:
    """The head that the reference would send to a server; None when a rule asks for what is no message."""
    message = Message(list(facts.headers), facts.method, facts.target)
    try:
        apply(rules, "http-request", message, facts)
        settle(message)
    except Unfit:
        return None
    headers = without_hops(message.headers)
    if facts.version == "1.0":
        headers.append(("connection", "keep-alive"))
    return render(f"{message.method} {message.target} HTTP/{facts.version}", headers)


class World:
    """One compiled probe and the facts of the reference for it."""

    def __init__(self) -> None:
        self.tables = load_text(FILE)
        self.probe = Probe(self.tables)

    def facts(self, head: bytes, *, answering: bool) -> Facts | None:
        """What the reference sees; None for what is no head."""
        facts = Facts(
            src="127.0.0.1", src_port=1234, dst="127.0.0.1", dst_port=80, frontend="web", backend="b", bind_id=1, bind_name="here",
            usable_servers={"b": 2},
        )  # fmt: skip
        try:
            if answering:
                parsed = parse_response(head)
                assert parsed is not None
                return replace(
                    facts, status=parsed.status, res_headers=parsed.headers, res_version=f"1.{parsed.minor}",
                    answering=True, method="PATCH", line="PATCH / HTTP/1.1",
                )  # fmt: skip
            parsed = parse_request(head, lax=False)
        except Bad:
            return None
        assert parsed is not None
        line = f"{parsed.method} {parsed.target} HTTP/1.{parsed.minor}"
        return replace(
            facts,
            method=parsed.method,
            target=parsed.target,
            version=f"1.{parsed.minor}",
            headers=parsed.headers,
            line=line,
        )

    def disagreement(self, rng: random.Random) -> str:
        """One question to both; "" when they agree."""
        answering = rng.random() < 0.25
        head = response(rng) if answering else request(rng)
        facts = self.facts(head, answering=answering)
        if facts is None:
            return ""
        if answering:
            self.probe.format(Format(), b"PATCH / HTTP/1.1\r\nHost: a\r\n\r\n")
        if rng.random() < 0.5:
            test = test_of(rng, answering=answering)
            ours, theirs = self.probe.test(test, head, answering), matches(test, facts)
            return "" if ours is theirs else f"{test}\n{head!r}\ncompiled {ours}, core.acl {theirs}"
        chosen = Format(("<", expression(rng, answering=answering), ">"))
        made, expected = self.probe.format(chosen, head, answering), expand(chosen, facts).encode("latin-1")
        return "" if made == expected else f"{chosen}\n{head!r}\ncompiled {made!r}, core.acl {expected!r}"

    def edits_disagreement(self, rng: random.Random) -> str:
        """A few random edits carried out by both; "" when they agree."""
        head = request(rng)
        facts = self.facts(head, answering=False)
        if facts is None:
            return ""
        rules = tuple(_edit(rng) for _ in range(rng.randrange(1, 6)))
        front = replace(self.tables.frontends[0], rules=rules)
        probe = Probe(replace(self.tables, frontends=(front,)))
        what, _, made = probe.request(head)
        expected = edited_by_reference(rules, replace(facts, backend=""))
        if (what == "go" and made == expected) or (what == "failed" and expected is None):
            return ""
        return f"{rules}\n{head!r}\ncompiled {what} {made!r}\nreference {expected!r}"
