"""Log lines of the compiled path: what HAProxy's users read, through a real syslog datagram socket."""

from __future__ import annotations

import re
import socket

import pytest

from haptk.proxy.tables import CookieRule, LogPlan, LogTarget

GET = b"GET /a?b=1 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def syslog():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def _plan(sock: socket.socket, style: str = "http") -> LogPlan:
    return LogPlan((LogTarget(f"127.0.0.1:{sock.getsockname()[1]}", format="raw"),), style)


def _line(sock: socket.socket) -> str:
    return sock.recv(4096).decode().strip()


def test_httplog_line(scripted, proxied, syslog):
    proxy = proxied(scripted(), fe_log=_plan(syslog), cookie=CookieRule("SRV", "insert"))
    proxy.talk(GET, quiet_s=0.1)
    pattern = (
        r"127\.0\.0\.1:\d+ \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] web web/s1 0/0/\d+/\d+/\d+ 200 \d+ - - --NI "
        r'1/1/0/0/0 0/0 "GET /a\?b=1 HTTP/1\.1"'
    )
    line = _line(syslog)
    assert re.fullmatch(pattern, line), line
    proxy.talk(GET.replace(b"Host", b"Cookie: SRV=s1\r\nHost"), quiet_s=0.1)
    assert " --VN " in _line(syslog)


def test_termination_states(scripted, proxied, syslog, closed_port):
    def silent(server, sock, _number):
        server.read_head(sock)

    proxied(closed_port, fe_log=_plan(syslog), redispatch=None, retries=0).talk(GET)
    assert re.search(r"web/s1 0/0/-1/-1/\d+ 503 \d+ - - SCNN ", _line(syslog))
    proxied(scripted(silent), fe_log=_plan(syslog)).talk(GET)
    assert re.search(r"web/s1 0/0/\d+/-1/\d+ 502 \d+ - - SHNN ", _line(syslog))
    proxied(scripted(), fe_log=_plan(syslog)).talk(b"BAD\r\n\r\n")
    assert re.search(r'web/<NOSRV> -1/-1/-1/-1/\d+ 400 \d+ - - PR-- .* "<BADREQ>"', _line(syslog))


def test_empty_connections(scripted, proxied, syslog):
    proxied(scripted(), fe_log=_plan(syslog)).connect().close()
    assert "CR--" in _line(syslog)
    plan = LogPlan(_plan(syslog).targets, "http", dontlognull=True)
    quiet = proxied(scripted(), fe_log=plan)
    quiet.connect().close()
    quiet.talk(GET, quiet_s=0.1)
    assert '"GET /a?b=1 HTTP/1.1"' in _line(syslog)


def test_every_line_comes_even_when_there_are_many(scripted, proxied, syslog):
    syslog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    proxy = proxied(scripted(), fe_log=_plan(syslog))
    with proxy.connect() as sock:
        sock.sendall(b"".join(b"GET /%03d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(300)))
        lines = [_line(syslog) for _ in range(300)]
    assert [line.split('"GET /')[1][:3] for line in lines] == [f"{number:03}" for number in range(300)]


def test_tcplog_line(scripted, proxied, syslog):
    def script(_server, sock, _number):
        sock.sendall(sock.recv(100))

    proxy = proxied(scripted(script), fe_log=_plan(syslog, "tcp"), mode="tcp", cookie=None, forwardfor=None)
    proxy.talk(b"hello", quiet_s=1.0)
    assert re.search(r"web/s1 \d+/\d+/\d+ 5 -- 1/1/0/0/0 0/0$", _line(syslog))
