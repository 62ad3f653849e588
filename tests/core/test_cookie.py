"""The cookie table against recorded exchanges of HAProxy 2.6.12, and against what must hold for any input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.core.cookie import (
    Asked,
    Candidate,
    CookieRule,
    decode_date,
    encode_date,
    inserted,
    is_cacheable,
    read_request,
    write_response,
)
from haptk.core.xxh64 import xxh64
from haptk.proxy.compile_servers import dynamic_cookie

SAMPLES = Path(__file__).parents[1] / "data" / "haproxy-cookie-exchanges.tsv"
RECORDED_S = 0xC03D80 << 8  # some second of the recording; dates of the samples are compared by shape
SERVERS = [Candidate("s1"), Candidate("s2"), Candidate("s3"), Candidate("s4")]
ATTRIBUTES = {"httponly": True, "secure": True, "domains": (".example.com", "a.example.org")}
RULES = {
    "prefix": {"mode": "prefix"},
    "prefix_nocache": {"mode": "prefix", "nocache": True},
    "prefix_indirect": {"mode": "prefix", "indirect": True},
    "insert": {"mode": "insert"},
    "insert_ind": {"mode": "insert", "indirect": True},
    "insert_ind_nc": {"mode": "insert", "indirect": True, "nocache": True},
    "insert_pres": {"mode": "insert", "preserve": True},
    "insert_ind_pres_nc": {"mode": "insert", "indirect": True, "preserve": True, "nocache": True},
    "insert_post": {"mode": "insert", "indirect": True, "nocache": True, "postonly": True},
    "insert_attrs": {
        "mode": "insert",
        "indirect": True,
        "nocache": True,
        **ATTRIBUTES,
        "attrs": ("SameSite=None", "Priority=High"),
    },
    "insert_idle": {"mode": "insert", "indirect": True, "nocache": True, "maxidle_s": 1800, "maxlife_s": 28800},
    "insert_maxidle": {"mode": "insert", "indirect": True, "maxidle_s": 1800},
    "insert_maxlife": {"mode": "insert", "indirect": True, "maxlife_s": 28800},
    "rewrite": {"mode": "rewrite"},
    "rewrite_nc": {"mode": "rewrite", "nocache": True},
    "passive": {},
}


@dataclass(frozen=True)
class Sample:
    mode: str
    case: str
    cookies: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    server: int
    received: str
    client: str
    flags: str


def samples() -> list[Sample]:
    found = []
    for line in SAMPLES.read_text().splitlines()[1:]:
        mode, case, cookies, response, got, client, log = line.split("\t")[:7]
        place = re.fullmatch(r"s(\d): (.*)", got)
        dated = re.match(r"px?-?idle|date|expir|old|idle|stamp|life|mi-|ml-|d-", case)
        if (
            mode not in RULES
            or not place
            or " ; s" in got
            or "@PREV@" in cookies
            or dated
            or case.startswith("srv-garbage")
        ):
            continue
        headers = [part.partition(": ") for part in response.split(" // ") if response != "—"]
        pairs = [(name.lower(), value) for name, _, value in headers if not name.startswith("HTTP/")]
        if "pragma" in case:
            pairs.append(("pragma", "no-cache"))
        received = "" if place[2] == "(no cookie)" else place[2]
        asked = () if cookies == "—" else tuple(cookies.split(" // "))
        text = client.replace(" (closed)", "")
        found.append(Sample(mode, case, asked, tuple(pairs), int(place[1]) - 1, received, text, log.split()[1]))
    return found


def test_recorded_exchanges() -> None:
    """Every usable row, both sides and the flags. Dates are blotted out: the recording does not say its seconds."""
    rows = samples()
    assert len(rows) > 1300
    wrong = []
    for row in rows:
        if "|" in "".join(row.cookies):
            continue  # bound to the time of the recording
        rule = CookieRule(**{"name": "JSESSIONID" if "prefix" in row.mode else "SRV", **RULES[row.mode]})  # type: ignore[arg-type]
        asked = read_request(rule, row.cookies, SERVERS, RECORDED_S)
        sent = " // ".join(value for value in asked.headers if value is not None)
        answered = write_response(
            rule,
            asked,
            SERVERS[row.server],
            row.answers,
            method="POST" if re.search(r"post|expect", row.case) else "GET",
            status=int(row.client.split()[0]),
            now_s=RECORDED_S,
            direct=asked.server is not None,
        )
        shown = " // ".join(v if n.startswith("set-cookie") else f"{n}: {v}" for n, v in answered.headers)
        have = (asked.server in (None, row.server), sent, blot(shown), f"--{asked.flag}{answered.flag}")
        want = (True, row.received, blot(row.client.partition(" ")[2].strip()), row.flags)
        if have != want:
            wrong.append(f"{row.mode} {row.case}: want {want}, have {have}")
    assert not wrong, "\n".join(wrong[:10])


def blot(text: str) -> str:
    return re.sub(r"\|[A-Za-z0-9+/]{5}", "|date", text)


INSERT = CookieRule("SRV", "insert", indirect=True)


def ask(value: str, rule: CookieRule = INSERT, now_s: int = 1_800_000_000, **more: bool) -> Asked:
    servers = [Candidate("s1"), Candidate("s2"), Candidate("s3", up=False), Candidate("s3")]
    return read_request(rule, [value], servers, now_s, **more)


@pytest.mark.parametrize(
    ("value", "server", "flag"),
    [
        ("SRV=s1", 0, "V"),
        ("SRV=s3", 3, "V"),  # two servers share the value: the one that is up
        ("SRV=zz; SRV=s2", 1, "V"),
        ("SRV=s2; SRV=zz", 1, "V"),
        ("SRV=zz", None, "I"),
        ("SRV=", None, "I"),
        ("SRV", None, "N"),
        ("srv=s1", None, "N"),
        ("", None, "N"),
    ],
)
def test_request_table(value: str, server: int | None, flag: str) -> None:
    asked = ask(value)
    assert (asked.server, asked.flag) == (server, flag)


def test_down_persist_and_ignore() -> None:
    servers = [Candidate("s1", up=False), Candidate("s2")]
    assert read_request(INSERT, ["SRV=s1"], servers, 0).flag == "D"
    assert read_request(INSERT, ["SRV=s1; SRV=s2"], servers, 0).server == 1
    forced = read_request(INSERT, ["SRV=s1"], servers, 0, persist=True)
    assert (forced.server, forced.flag) == (0, "D")
    ignored = read_request(INSERT, ["SRV=s2"], servers, 0, ignore=True)
    assert (ignored.server, ignored.flag, ignored.headers) == (None, "U", (None,))


def stamp(seconds: int) -> str:
    return encode_date(seconds >> 2)


NOW_S = 1_800_000_000
AGED = CookieRule("SRV", "insert", maxidle_s=1800, maxlife_s=28800)


@pytest.mark.parametrize(
    ("last", "first", "server", "flag"),
    [
        (NOW_S, NOW_S, 1, "V"),
        (NOW_S - 1800, NOW_S - 28800, 1, "V"),
        (NOW_S - 1804, NOW_S - 5000, None, "E"),
        (NOW_S - 1804, NOW_S - 28804, None, "O"),  # too old is looked at before idle
        (NOW_S, NOW_S - 28804, None, "O"),
        (NOW_S + 86400, NOW_S + 86400, 1, "V"),
        (NOW_S + 86404, NOW_S, None, "E"),
        (NOW_S, NOW_S + 86404, None, "O"),
    ],
)
def test_dates(last: int, first: int, server: int | None, flag: str) -> None:
    asked = ask(f"SRV=s2|{stamp(last)}|{stamp(first)}", AGED, NOW_S)
    assert (asked.server, asked.flag) == (server, flag)


@pytest.mark.parametrize("dates", ["", "|", "|x", "|!!!!!", "|abcd", "|AAAAA", "||", "|AAAAA|AAAA"])
def test_bad_dates_are_as_good_as_none(dates: str) -> None:
    asked = ask(f"SRV=s2{dates}", AGED, NOW_S)
    assert (asked.server, asked.flag, asked.last_s, asked.first_s) == (1, "V", 0, 0)
    answered = write_response(AGED, asked, SERVERS[1], [], method="GET", status=200, now_s=NOW_S, direct=True)
    assert answered.flag == "U"  # issued again, with dates this time


def test_dates_are_renewed_once_a_tick() -> None:
    fresh = ask(f"SRV=s2|{stamp(NOW_S + 3)}|{stamp(NOW_S)}", AGED, NOW_S)
    answered = write_response(AGED, fresh, SERVERS[1], [], method="GET", status=200, now_s=NOW_S, direct=True)
    assert (answered.headers, answered.flag) == ((), "N")
    stale = ask(f"SRV=s2|{stamp(NOW_S - 40)}|{stamp(NOW_S - 400)}", AGED, NOW_S)
    assert inserted(AGED, SERVERS[1], stale, NOW_S) == f"SRV=s2|{stamp(NOW_S + 3)}|{stamp(NOW_S - 400)}; path=/"


def test_server_without_a_value_unbinds() -> None:
    text = inserted(CookieRule("SRV", "insert", secure=True), Candidate(None), Asked(None, (), "N"), 0)
    assert text == "SRV=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/; Secure"


@pytest.mark.parametrize(
    ("method", "status", "headers", "expected"),
    [
        ("GET", 200, [("cache-control", "max-age=60")], True),
        ("GET", 200, [], False),
        ("POST", 200, [("etag", "x")], False),
        ("POST", 201, [("cache-control", "public, max-age=1")], True),
        ("GET", 302, [("etag", "x")], False),
        ("GET", 200, [("cache-control", "no-cache, public"), ("etag", "x")], True),
        ("GET", 200, [("cache-control", "public, no-cache"), ("etag", "x")], False),
        ("GET", 200, [("cache-control", 'private="a, b"'), ("etag", "x")], True),
        ("GET", 200, [("cache-control", "max-age=0"), ("etag", "x")], False),
        ("GET", 200, [("pragma", "No-Cache"), ("cache-control", "public"), ("etag", "x")], False),
    ],
)
def test_cacheable(method: str, status: int, headers: list[tuple[str, str]], expected: bool) -> None:
    assert is_cacheable(method, status, headers) is expected


def test_dynamic_values_are_those_of_haproxy() -> None:
    assert f"{xxh64(b''):016x}" == "ef46db3751d8e999"
    assert f"{xxh64(b'a'):016x}" == "d24ec4f1a98c6e5b"
    assert f"{xxh64(b'abc'):016x}" == "44bc2cf5ad770999"
    assert f"{xxh64(b'Nobody inspects the spammish repetition'):016x}" == "fbcea83c8a378bf1"
    assert re.fullmatch(r"[0-9a-f]{16}", dynamic_cookie("mysecret", "::1", 80))
    assert dynamic_cookie("mysecret", "127.0.0.1", 80) != dynamic_cookie("mysecret", "127.0.0.1", 81)


@given(st.integers(0, 2**30 - 1))
def test_dates_round_trip(value: int) -> None:
    assert decode_date(encode_date(value)) == value


HEADERS = st.lists(st.text(alphabet='SRV=s12~|;, "\\$aé\t', max_size=40), max_size=4)
MODES = st.sampled_from(["passive", "rewrite", "insert", "prefix"])


@given(HEADERS, MODES, st.booleans())
def test_never_fails_and_never_grows(headers: list[str], mode: str, indirect: bool) -> None:
    rule = CookieRule("SRV", mode, indirect=indirect and mode == "insert")
    asked = read_request(rule, headers, SERVERS, NOW_S)
    assert len(asked.headers) == len(headers)
    for before, after in zip(headers, asked.headers, strict=True):
        # One blank may take the place of what was removed; nothing else is ever added.
        assert after is None or len(after) <= len(before)
        if rule.indirect and after is not None and '"' not in before:
            assert not re.search(r"(?:^|[;,])[ \t]*SRV[ \t]*=", after)
    again = read_request(rule, [value for value in asked.headers if value is not None], SERVERS, NOW_S)
    if mode in ("passive", "rewrite"):
        assert again == asked


@given(st.lists(st.tuples(st.just("set-cookie"), st.text(alphabet='SRV=s12~|;, "ax', max_size=30)), max_size=4), MODES)
def test_responses_never_fail(headers: list[tuple[str, str]], mode: str) -> None:
    rule = CookieRule("SRV", mode)
    asked = Asked(None, (), "N")
    done = write_response(rule, asked, SERVERS[0], headers, method="GET", status=200, now_s=NOW_S, direct=False)
    assert len(done.headers) <= len(headers) + (mode == "insert")


@pytest.mark.parametrize(("ahead_s", "server"), [(86400, 0), (86401, None)])
def test_a_clock_may_be_a_day_behind_and_no_second_more(ahead_s: int, server: int | None) -> None:
    """A date of the future is that of a balancer whose clock goes before ours."""
    rule = CookieRule(name="SRV", mode="insert", maxidle_s=1800)
    date_s = 0x6500_0000
    asked = read_request(rule, (f"SRV=s1|{encode_date(date_s >> 2)}",), SERVERS, date_s - ahead_s)
    assert asked.server == server
    assert asked.flag == ("V" if server == 0 else "E")
