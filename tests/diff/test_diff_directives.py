"""Directives that are no rules, beside the real haproxy: where errors send a client, when a monitor fails, keep-alives."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import PROGRAMS, Program, Upstreams, exchange, start, upstreams
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(120)]
NAMES = ("located", "overridden", "monitored", "alive", "count")
FILE = """defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 1s
 retries 0
 option httplog
 log @LOG@ local0
 errorloc303 504 http://default.example/

listen located
 bind 127.0.0.1:{located}
 errorloc 503 http://sorry.example/503?a=b
 errorloc302 400 /bad
 errorloc303 403 http://sorry.example/403
 http-request deny if {{ path_end /forbidden }}
 server dead 127.0.0.1:{dead}

listen overridden
 bind 127.0.0.1:{overridden}
 errorfile 503 {page}
 errorloc 503 http://last.example/
 server dead 127.0.0.1:{dead}

frontend monitored
 bind 127.0.0.1:{monitored}
 monitor-uri /alive
 acl few nbsrv(gone) lt 1
 monitor fail if {{ hdr(X-Fail) yes }}
 monitor fail if few {{ hdr(X-Site) gone }}
 errorloc 503 http://down.example/
 http-request set-header X-Seen %[path]
 default_backend there

backend there
 server s1 127.0.0.1:{s1}

backend gone

listen alive
 mode tcp
 bind 127.0.0.1:{alive}
 option tcplog
 option tcpka
 clitcpka-cnt 4
 clitcpka-idle 100
 clitcpka-intvl 7s
 srvtcpka-cnt 5
 srvtcpka-idle 3m
 srvtcpka-intvl 9
 server s2 127.0.0.1:{s2}
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Upstreams]:
    with upstreams(2) as found:
        yield found


@pytest.fixture(scope="module", params=PROGRAMS)
def running(
    request: pytest.FixtureRequest, servers: Upstreams, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Program, dict[str, int]]]:
    directory: Path = tmp_path_factory.mktemp("directives")
    page = directory / "503.http"
    page.write_text("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    *found, dead = free_ports(len(NAMES) + 1)
    ports = {**dict(zip(NAMES, found, strict=True)), "dead": dead, "s1": servers.ports[0], "s2": servers.ports[1]}
    addresses = [("127.0.0.1", ports[name]) for name in NAMES[:-1]]
    program = start(request.param, FILE.format(page=page, **ports), directory, addresses)
    yield program, ports
    program.stop()


LOCATED = [
    ("located", "/case/503", "", ("302", "http://sorry.example/503?a=b"), "503 SC"),
    ("located", "/case/denied/forbidden", "", ("303", "http://sorry.example/403"), "403 PR"),
    ("overridden", "/case/last", "", ("302", "http://last.example/"), "503 SC"),
]


@pytest.mark.parametrize(("name", "path", "more", "wanted", "log"), LOCATED)
def test_errors_send_the_client_elsewhere(
    running: tuple[Program, dict[str, int]], name: str, path: str, more: str, wanted: tuple[str, str], log: str
) -> None:
    program, ports = running
    got = exchange(("127.0.0.1", ports[name]), f"GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode())
    assert (str(got.status), got.values("location")[0]) == wanted
    assert got.values("content-length") == ["0"]
    assert got.values("cache-control") == ["no-cache"]
    line = program.log.line(path.split("/")[2], 5.0)
    status, flags = log.split()
    assert re.search(rf" {status} \d+ - - {flags}-- ", line), program.log.lines


MONITORED = [("", 200), ("X-Fail: yes\r\n", 302), ("X-Fail: no\r\n", 200), ("X-Site: gone\r\n", 302)]


@pytest.mark.parametrize(("headers", "status"), MONITORED)
def test_a_monitor_fails_by_its_conditions(running: tuple[Program, dict[str, int]], headers: str, status: int) -> None:
    program, ports = running
    address = ("127.0.0.1", ports["monitored"])
    got = exchange(address, f"GET /alive HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())
    assert got.status == status
    served = exchange(address, f"GET /case/served HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())
    assert served.status == 200 and served.body == b"ok", "only the monitor fails"
    assert program.log.line("served", 5.0)
    assert not [line for lines in program.log.lines.values() for line in lines if "/alive " in line], "never logged"


def test_a_request_that_is_none_is_sent_elsewhere_too(running: tuple[Program, dict[str, int]]) -> None:
    """HAProxy 2.6 forgets its error files here unless they are empty; its manual promises them, and haptk keeps that."""
    program, ports = running
    got = exchange(("127.0.0.1", ports["located"]), b"GET /with space HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (got.status, got.values("location")) == ((400, []) if program.kind == "haproxy" else (302, ["/bad"]))


def test_keepalives_reach_both_sockets(running: tuple[Program, dict[str, int]]) -> None:
    _, ports = running
    with socket.create_connection(("127.0.0.1", ports["alive"]), 5) as client:
        client.sendall(b"GET /case/alive HTTP/1.1\r\nHost: h\r\n\r\n")
        client.settimeout(5)
        assert client.recv(100)
        own = client.getsockname()[1]
        ends = (rf":{ports['alive']} +127\.0\.0\.1:{own}", rf":\d+ +127\.0\.0\.1:{ports['s2']}")
        deadline = time.monotonic() + 20
        found: list[re.Match[str] | None] = []
        while time.monotonic() < deadline and not (found and all(found)):  # until nothing waits for its acknowledgement
            shown = subprocess.run(["ss", "-tnoH"], capture_output=True, text=True, check=True).stdout
            found = [re.search(rf"^ESTAB .*{end} .*timer:\(keepalive,(\w+),0\)", shown, re.M) for end in ends]
    left = [match[1] for match in found if match]
    assert re.match(r"1min(40|[23]\d)", left[0]), left
    assert re.match(r"3min|2min[45]\d", left[1]), left
