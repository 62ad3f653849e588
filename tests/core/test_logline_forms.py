"""The readable twin of the compiled log lines: dates, flags, headers, and what a client cannot do to a line."""

from __future__ import annotations

import pytest

from haptk.core.acl import Facts
from haptk.core.logline import Record, apache_date, custom_line, haproxy_date, http_line, syslog_header, tcp_line
from haptk.formats.haproxy_cfg.expressions import format_string

MOMENT_S = 1795687445.123456  # 26 Nov 2026, 10:04:05 in Greenwich


def record(**more: object) -> Record:
    facts = Facts(src="192.0.2.7", src_port=4321, dst="192.0.2.1", dst_port=80, frontend="web", backend="farm")
    values: dict[str, object] = {
        "facts": facts, "accepted_s": MOMENT_S, "request_s": MOMENT_S, "server": "s1", "status": 200, "bytes_down": 96,
        "flags": "--NI", "request_ms": 1, "queue_ms": 2, "connect_ms": 3, "response_ms": 4, "active_ms": 11,
        "total_ms": 12, "request_line": "GET /a?b=1 HTTP/1.1",
    }  # fmt: skip
    return Record(**{**values, **more})  # type: ignore[arg-type]


def line(text: str, **more: object) -> str:
    return custom_line(format_string(text, "log-format", log=True), record(**more))


def test_dates_are_in_the_zone_that_is_passed_in() -> None:
    assert haproxy_date(MOMENT_S) == "26/Nov/2026:10:04:05.123"
    assert haproxy_date(MOMENT_S, 7200) == "26/Nov/2026:12:04:05.123"
    assert apache_date(MOMENT_S, -12600) == "26/Nov/2026:06:34:05 -0330"
    assert line("%t %T", offset_of=lambda at: 3600) == "26/Nov/2026:11:04:05.123 26/Nov/2026:10:04:05 +0000"


def test_the_named_formats_are_what_their_texts_say() -> None:
    from haptk.proxy.logformats import named

    odd = record(request_captures=("a|b", None), client_cookie="k=v", redispatched=True, retries=2, early=True)
    assert http_line(odd) == custom_line(named("http"), odd)
    assert tcp_line(odd) == custom_line(named("tcp"), odd)
    assert "{a#7Cb|}" in http_line(odd)
    assert "/+11 200 +96 k=v - --NI 1/1/0/0/+2 " in http_line(odd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%ci:%cp %b/%s", "192.0.2.7:4321 farm/s1"),
        ("a   b  %hr  c", "a b c"),
        ("%{+Q}s %s", '"s1" s1'),
        ("%{+Q}o %s %{-Q}s %CC", '"s1" s1 ""'),
        ("%{+X}ci %{+X}cp", "C0000207 10E1"),
        ("%CC %{+Q}CC", '- ""'),
        ("%HM %HP %HQ %HV", "GET /a ?b=1 HTTP/1.1"),
        ("%TR/%Tw/%Tc/%Tr/%Ta %Td", "1/2/3/4/11 1"),
        ("%{+E,+Q}[str(a]b)]", '"a\\]b"'),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert line(text) == expected


def test_no_client_begins_a_line_or_ends_a_quotation() -> None:
    assert line("%r", request_line='GET /"\n#\xff HTTP/1.1') == "GET /#22#0A#23#FF HTTP/1.1"
    assert line("%{+E}r", request_line="GET /a]b\\ HTTP/1.1") == "GET /a\\]b\\\\ HTTP/1.1"
    assert line("%HU %B", bare=True) == "<BADREQ> 0"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("local", "<134>Nov 26 11:04:05 web[7]: "),
        ("rfc3164", "<134>Nov 26 11:04:05 localhost web[7]: "),
        ("rfc5424", "<134>1 2026-11-26T11:04:05.123456+01:00 - web 7 - [a b] "),
        ("priority", "<134>"),
        ("short", "<6>"),
        ("timed", "<6>2026-11-26T11:04:05.123456+01:00 "),
        ("iso", "2026-11-26T11:04:05.123456+01:00 "),
        ("raw", ""),
    ],
)
def test_headers(form: str, expected: str) -> None:
    assert syslog_header(form, 16, 6, MOMENT_S, 3600, "", "web", 7, "[a b] ") == expected
