"""Every variable of a format in every place that takes a format, with every flag, beside the real HAProxy.

One section per place and flag; each format names all variables behind labels. A file in which nothing is logged at all
is played too: what a format needs must be there whoever asks for it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.diff.log_worlds import VARIABLES_TCP
from tests.diff.rig import PLAIN, THREADS, Pair, Result, Upstreams, exchange, upstreams

VARIABLES = (
    "B", "CC", "CS", "H", "HM", "HP", "HPO", "HQ", "HU", "HV", "ID", "ST", "T", "Ta", "Tc", "Td", "Th", "Ti", "Tl", "Tq",
    "TR", "Tr", "Ts", "Tt", "Tu", "Tw", "U", "ac", "b", "bc", "bi", "bp", "bq", "ci", "cp", "f", "fc", "fi", "fp", "ft",
    "hr", "hrl", "hs", "hsl", "lc", "ms", "pid", "r", "rc", "rt", "s", "sc", "si", "sp", "sq", "sslc", "sslv", "t", "tr", "trg", "trl",
    "ts", "tsc",
)  # fmt: skip
FLAGS = ("", "+Q", "+X", "+E", "+M", "+Q,+X,+E,+M")
REQUEST = (
    b'GET /case/@CASE@/%22x?q=[1]&r=\\2 HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nX-Cap: a|b "c" ]\r\n'
    b"X-Old: old\r\nCookie: app=one\r\nConnection: close\r\n\r\n"
)
ANSWER = b'HTTP/1.1 200 OK\r\nX-Res: one "two" ]\r\nSet-Cookie: app=two\r\ncontent-length: 2\r\n\r\nok'
CAPTURES = """
    capture request header X-Cap len 20
    capture request header Not-There len 20
    capture response header X-Res len 20
    capture cookie app len 20
"""


def words(names: tuple[str, ...] | list[str], flags: str) -> str:
    """A format that prints each variable behind its label."""
    prefix = f"%{{{flags}}}o" if flags else ""
    return prefix + "".join(f"~{name}:%{name}" for name in names) + "~"


def header(name: str) -> Callable[[Result], str]:
    return lambda result: "".join(result.got.values(name))


def sent(name: str) -> Callable[[Result], str]:
    return lambda result: "".join(result.seen[-1].values(name)) if result.seen else ""


@dataclass(frozen=True)
class Place:
    """Where a format stands (@F@), and where what it printed is seen."""

    name: str
    lines: str
    seen: Callable[[Result], str]
    log: str = "log @LOG@ len 8192 local0"
    backend: bool = False  # the lines stand in a backend of its own


def logged(result: Result) -> str:
    return result.log


PLACES = (
    Place("log", 'log-format "@F@"', logged),
    Place("set", 'http-request set-header X-F "@F@"', sent("x-f")),
    Place("add", 'http-request add-header X-F "@F@"', sent("x-f")),
    Place("replace", 'http-request replace-header X-Old .* "@F@"', sent("x-old")),
    Place("value", 'http-request replace-value X-Old .* "@F@"', sent("x-old")),
    Place("location", 'http-request redirect location "/@F@"', header("location")),
    Place("prefix", 'http-request redirect prefix "/p@F@"', header("location")),
    Place("scheme", 'http-request redirect scheme "s@F@"', header("location")),
    Place("body", 'http-request return status 200 content-type text/plain lf-string "@F@"',
          lambda result: result.got.body.decode("latin-1")),
    Place("hdr", 'http-request return status 200 hdr X-F "@F@"', header("x-f")),
    Place("deny", 'http-request deny deny_status 403 hdr X-F "@F@"', header("x-f")),
    Place("answer", 'http-response set-header X-F "@F@"', header("x-f")),
    Place("answered", 'http-response add-header X-F "@F@"', header("x-f")),
    Place("changed", 'http-response replace-header X-Res .* "@F@"', header("x-res")),
    Place("back", 'http-request set-header X-F "@F@"', sent("x-f"), backend=True),
    Place("backanswer", 'http-response set-header X-F "@F@"', header("x-f"), backend=True),
)  # fmt: skip
SIZE = 4  # variables of one unique id, which HAProxy cuts at 127 bytes
GROUPS = [VARIABLES[at : at + SIZE] for at in range(0, len(VARIABLES), SIZE)]


def sections(host: str, ports: dict[str, int], servers: Upstreams, *, log: bool) -> str:
    server = f"    server s1 127.0.0.1:{servers.ports[0]}\n"
    text = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
    for name, place, _flags, form in cases():
        target = f"    {place.log}\n" if log or "log" in place.name else ""
        lines = f"    {place.lines}\n".replace("@F@", form)
        bind = f"    bind {host}:{ports[name]}\n"
        if place.backend:
            # without it HAProxy's frontend does not know the request line when its backend asks
            text += f"frontend {name}\n{bind}{target}{CAPTURES}    option httplog\n    default_backend b{name}\nbackend b{name}\n{lines}{server}"
        else:
            text += f"listen {name}\n{bind}{target}{CAPTURES}{lines}{server}"
    return text if log else "".join(line for line in text.splitlines(keepends=True) if "@LOG@" not in line)


def cases() -> list[tuple[str, Place, str, str]]:
    """(name of the section, place, flags, format)."""
    found = [
        (f"{place.name}{number}", place, flags, words(VARIABLES, flags))
        for place in PLACES
        for number, flags in enumerate(FLAGS)
    ]
    for number, group in enumerate(GROUPS):
        place = Place("unique", 'unique-id-format "@F@"\n    unique-id-header X-F', sent("x-f"))
        found.append((f"unique{number}", place, "", words(group, "")))
        found.append((f"uniquehex{number}", place, "+X", words(group, "+X")))
    return found


_DATES = (
    (r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}", "DATE.MS"),
    (r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", "DATE ZONE"),
    (r"127\.0\.0\.[19]", "HOST"),
    (r"7F00000[19]", "HEXHOST"),
    (r"(haproxy|fast)-\d+", "CASE"),
)
_REACHED = ("Tc", "Th", "Ti", "Tq", "TR", "Tr", "Tw")
_RUNNING = ("Ta", "Td", "Tt", "Tu")
_NUMBERS = ("Ts", "ms", "pid", "cp", "bp", "fp", "sp", "rt", "lc")


def tidy(text: str) -> dict[str, str]:
    """What each variable printed, without what no two programs share."""
    found: dict[str, str] = {}
    for pattern, shown in _DATES:
        text = re.sub(pattern, shown, text)
    for part in text.split("~")[1:-1]:
        name, _, value = part.partition(":")
        if name in _REACHED:
            value = re.sub(r"\d+", "N", value.replace("-1", "MINUS"))
        elif name in _RUNNING:
            value = re.sub(r"-?\d+", "N", value)
        elif name in _NUMBERS:
            value = re.sub(r"[0-9A-F]+", "N", value)
        elif name in ("B", "U"):
            value = re.sub(r"[1-9]\d*", "N", value)  # test_diff_bytes.py compares them
        found[name] = value
    return found


@pytest.fixture(scope="module", params=["logged", "unlogged"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    names = [name for name, *_ in cases()]
    log = request.param == "logged"

    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        return sections(host, dict(zip(names, ports, strict=True)), servers, log=log)

    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp(request.param), servers, names, config)
        both.logs = log  # type: ignore[attr-defined]
        try:
            yield both
        finally:
            both.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("place", [*PLACES, Place("unique", "", sent("x-f"))], ids=lambda place: place.name)
def test_a_format_prints_what_haproxy_prints(pair: Pair, place: Place) -> None:
    """All flags of one place, every variable."""
    if place.seen is logged and not pair.logs:  # type: ignore[attr-defined]
        pytest.skip("nothing is logged")
    wrong: list[str] = []
    for name, one, flags, form in cases():
        if one.name != place.name:
            continue
        # the rig waits for the line of a path that names its case
        request = REQUEST if one.seen is logged else REQUEST.replace(b"/case/", b"/path/")
        theirs, ours = (tidy(one.seen(result)) for result in pair.run(name, request, ANSWER, timeout_s=10.0))
        assert theirs or "CASE" in form, f"{name}: HAProxy printed nothing"
        for label in sorted({*theirs, *ours}):
            if THREADS and label in ("ac", "fc"):
                continue  # who has just left may still be counted by another thread, in both programs
            if theirs.get(label) != ours.get(label):
                wrong.append(f"{name} {flags!r} %{label}: {theirs.get(label)!r}, haptk {ours.get(label)!r}")
    assert not wrong, "\n".join(wrong)
    assert pair.programs[1][1].process.poll() is None


# -- TCP ---------------------------------------------------------------------------------------------------------------


def tcp_config(names: list[str], *, log: bool) -> Callable[[str, list[int], Upstreams, int], str]:
    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        text = "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        for name, port in zip(names, ports, strict=True):
            number = int(re.sub(r"\D", "", name))
            form = words(VARIABLES_TCP, FLAGS[number])
            target = "    log @LOG@ len 8192 format rfc5424 local0\n" if log else ""
            unique = words([one for one in VARIABLES_TCP if one != "ID"][number * 7 : number * 7 + 7], "")
            text += f"listen {name}\n    bind {host}:{port}\n    option dontlognull\n{target}"
            text += f'    unique-id-format "{unique}"\n    log-format "{form} /case/{name}/"\n'
            text += f'    error-log-format "{form}"\n    log-format-sd "{form}"\n'
            text += f"    server s1 127.0.0.1:{servers.ports[0]}\n"
        return text

    return config


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("log", [True, False], ids=["logged", "unlogged"])
def test_formats_of_tcp_print_what_haproxy_prints(tmp_path: Path, log: bool) -> None:
    names = [f"tcp{number}" for number in range(len(FLAGS))]
    with upstreams(1) as servers:
        pair = Pair("fast", tmp_path, servers, names, tcp_config(names, log=log))
        try:
            for name in names:
                found = []
                for host, program in pair.programs:
                    got = exchange((host, pair.ports[name]), b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                    assert got.head.startswith(PLAIN[:15])
                    lines = program.log.line(name) if log else ""
                    found.append([tidy(part) for part in lines.partition("~ ")[::2]])
                assert found[0] == found[1], name
        finally:
            pair.stop()


@pytest.mark.real("haproxy")
def test_formats_of_requests_that_are_none(tmp_path: Path) -> None:
    """error-log-format, and the unique id of a session without a request."""
    names = [f"error{number}" for number in range(len(FLAGS))]

    def config(host: str, ports: list[int], _servers: Upstreams, _dead: int) -> str:
        text = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        for number, (name, port) in enumerate(zip(names, ports, strict=True)):
            form = words(VARIABLES, FLAGS[number])
            text += f"listen {name}\n    bind {host}:{port}\n    log @LOG@ len 8192 local0\n{CAPTURES}"
            text += f'    unique-id-format %t\n    option dontlognull\n    error-log-format "/case/{name}/ {form}"\n'
        return text

    with upstreams(1) as servers:
        pair = Pair("fast", tmp_path, servers, names, config)
        try:
            for name in names:
                found = []
                for host, program in pair.programs:
                    with socket.create_connection((host, pair.ports[name]), 5) as channel:
                        channel.sendall(b"BAD\r\n\r\n")
                        channel.settimeout(5)
                        while channel.recv(4096):
                            pass
                    found.append(tidy(program.log.line(name)))
                assert found[0] == found[1], name
                assert found[0]
        finally:
            pair.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("variable", ["t", "Ts", "trl"])
def test_a_unique_id_with_a_date_needs_no_log(tmp_path: Path, variable: str) -> None:
    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        return (
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
            f"listen only\n    bind {host}:{ports[0]}\n    unique-id-format x~{variable}:%{variable}~\n"
            f"    unique-id-header X-F\n    server s1 127.0.0.1:{servers.ports[0]}\n"
        )

    with upstreams(1) as servers:
        pair = Pair("fast", tmp_path, servers, ["only"], config)
        try:
            request = REQUEST.replace(b"/case/", b"/path/")
            theirs, ours = (tidy(sent("x-f")(result)) for result in pair.run("only", request, ANSWER))
            assert ours == theirs
            assert ours[variable]
        finally:
            pair.stop()
