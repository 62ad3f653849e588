"""An answer that is complete before the request is, beside the real haproxy: whether the client's connection lasts.

HAProxy reads the rest of a request that a server has answered, also when that server takes no more of it; an answer of its
own ends the connection, unless the whole body is there already.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.diff.rig import start
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(240)]
FILE = """global
 log @LOG@ local0
defaults
 mode http
 log global
 option httplog
 timeout client 2s
 timeout server 2s
 timeout connect 1s
frontend f
 bind {host}:{port}
 monitor-uri /monitor
 http-request deny if {{ path_beg /deny }}
 http-request return status 200 content-type text/plain string x if {{ path_beg /return }}
 http-request redirect location /x if {{ path_beg /redirect }}
 use_backend nobody if {{ path_beg /nobody }}
 default_backend b
backend nobody
backend b
 http-response return status 201 content-type text/plain string x if {{ capture.req.uri -m sub rule=return }}
 http-response deny if {{ capture.req.uri -m sub rule=deny }}
 http-response redirect location /x if {{ capture.req.uri -m sub rule=redirect }}
 server s 127.0.0.1:{server}
"""
HOWS = ("keep", "close", "closehold", "fin", "reset", "chunked")
PATHS = (
    *("/deny", "/return", "/redirect", "/monitor", "/nobody"),
    *(f"/?how={how}" for how in HOWS),
    *(f"/?how={how}&rule={rule}" for how in ("keep", "close", "chunked", "fin") for rule in ("return", "deny", "redirect")),
)  # fmt: skip
BODY = b"x" * 20
KINDS = ("together", "after", "half", "missing", "chunked", "broken chunk", "GET", "HEAD")


def steps(path: str, kind: str) -> list[bytes]:
    """What a client sends, each part after the answer to the one before it has had time to come."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n".encode()
    coded = head.replace(b"Content-Length: 20", b"Transfer-Encoding: chunked")
    return {
        "together": [head + BODY], "after": [head, BODY], "half": [head + BODY[:7], BODY[7:]], "missing": [head],
        "chunked": [coded + b"5\r\nab", b"cde\r\n0\r\n\r\n"], "broken chunk": [coded + b"5\r\nab", b"cdeNO"],
        "GET": [f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()], "HEAD": [f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()],
    }[kind]  # fmt: skip


class Server:
    """Answers each head at once, as how=... in its target says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        channel.settimeout(5)
        data = b""
        with channel, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in data:
                    part = channel.recv(65536)
                    if not part:
                        return
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                asked = re.search(rb"how=(\w+)", head)
                how = asked[1].decode() if asked else "keep"
                framing = b"transfer-encoding: chunked\r\n" if how == "chunked" else b"content-length: 2\r\n"
                close = b"connection: close\r\n" if how in ("close", "closehold") else b""
                body = b"2\r\nok\r\n0\r\n\r\n" if how == "chunked" else b"ok"
                channel.sendall(
                    b"HTTP/1.1 200 OK\r\n" + framing + close + b"\r\n" + (b"" if head[:4] == b"HEAD" else body)
                )
                if how == "closehold":
                    time.sleep(1)
                elif how == "fin":
                    channel.shutdown(socket.SHUT_WR)
                    time.sleep(1)
                elif how == "reset":
                    time.sleep(0.1)  # the answer arrives first
                    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if how not in ("keep", "chunked"):
                    return
                while length and len(data) < int(length[1]):
                    part = channel.recv(65536)
                    if not part:
                        return
                    data += part
                data = data[int(length[1]) if length else 0 :]


def read(channel: socket.socket, pause_s: float = 0.6) -> tuple[str, bool]:
    """(statuses and Connection lines of what comes until nothing more does, whether the connection ended)"""
    data = b""
    ended = False
    channel.settimeout(pause_s)
    with contextlib.suppress(TimeoutError):
        try:
            while part := channel.recv(65536):
                data += part
        except ConnectionError:
            pass
        ended = True
    found = re.findall(rb"HTTP/1\.1 (\d+)|(?i:connection: (\S+))", data)
    return b" ".join(one or other for one, other in found).decode(), ended


def play(address: tuple[str, int], path: str, kind: str) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    with socket.create_connection(address) as channel:
        for part in (*steps(path, kind), b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"):
            with contextlib.suppress(OSError):
                channel.sendall(part)
            found.append(read(channel))
            if found[-1][1]:
                break
    return found


def test_an_early_answer_ends_or_keeps_the_client_as_in_haproxy(tmp_path: Path) -> None:
    server = Server()
    programs = []
    for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
        (port,) = free_ports(1)
        text = FILE.format(host=host, port=port, server=server.port)
        programs.append(((host, port), start(kind, text, tmp_path, [(host, port)])))
    cells = [(path, kind) for path in PATHS for kind in KINDS]
    found: list[dict[tuple[str, str], object]] = [{}, {}]

    def run(index: int, path: str, kind: str) -> None:
        found[index][path, kind] = play(programs[index][0], path, kind)

    threads = [threading.Thread(target=run, args=(index, *cell)) for cell in cells for index in (0, 1)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(0.004)
        for thread in threads:
            thread.join()
    finally:
        for _, program in programs:
            program.stop()
        server.listener.close()
    theirs, ours = found
    wrong = [f"{cell}: {theirs[cell]} | {ours[cell]}" for cell in cells if theirs[cell] != ours[cell]]
    assert not wrong, "\n".join(wrong)
    assert len(theirs) == len(PATHS) * len(KINDS)


RULED = """defaults
 mode http
 timeout client 2s
 timeout server 2s
 timeout connect 1s
listen returned
 bind {host}:{0}
 http-response return status 200 content-type text/plain string x if {{ status 200 404 }}
 server s 127.0.0.1:{server}
listen redirected
 bind {host}:{1}
 http-response redirect location /x if {{ status 200 404 }}
 server s 127.0.0.1:{server}
listen denied
 bind {host}:{2}
 http-response deny if {{ status 200 404 }}
 server s 127.0.0.1:{server}
listen methods
 bind {host}:{3}
 http-request set-method POST if {{ hdr(x-make) -m found }}
 http-request deny deny_status 410 if {{ method POST }}
 http-request deny deny_status 429 if {{ method FOO BAR }}
 http-request deny deny_status 403 if METH_GET
 http-request set-header x-m %[method]
 server s 127.0.0.1:{server}
"""
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "until close": b"HTTP/1.1 200 OK\r\n\r\nok",
    "old": b"HTTP/1.0 404 No\r\n\r\nno", "close": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
}  # fmt: skip


class Once:
    """Gives the answer of that number once, and closes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self.listener.accept()
                with channel, contextlib.suppress(OSError):
                    channel.settimeout(5)
                    head = channel.recv(65536)
                    found = re.search(rb"/answer/(\d)", head)
                    channel.sendall(list(ANSWERS.values())[int(found[1])] if found else ANSWERS["length"])


def test_what_a_server_s_answer_was_does_not_end_the_client_of_one_that_replaces_it(tmp_path: Path) -> None:
    server, found = Once(), []
    for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
        ports = free_ports(4)
        text = RULED.format(*ports, host=host, server=server.port)
        program = start(kind, text, tmp_path, [(host, port) for port in ports])
        outcome: dict[tuple[object, ...], object] = {}
        try:
            for at, place in enumerate(("returned", "redirected", "denied")):
                for number, name in enumerate(ANSWERS):
                    for method in ("GET", "HEAD", "POST"):
                        length = "Content-Length: 0\r\n" if method == "POST" else ""
                        with socket.create_connection((host, ports[at])) as channel:
                            channel.sendall(f"{method} /answer/{number} HTTP/1.1\r\nHost: h\r\n{length}\r\n".encode())
                            outcome[place, name, method] = read(channel, 0.15)
            for method in ("GET", "POST", "PUT", "FOO", "PATCH"):
                for make in ("", "X-Make: 1\r\n"):
                    with socket.create_connection((host, ports[3])) as channel:
                        channel.sendall(f"{method} / HTTP/1.1\r\nHost: h\r\n{make}Content-Length: 0\r\n\r\n".encode())
                        outcome[method, make] = read(channel, 0.3)
        finally:
            program.stop()
        found.append(outcome)
    server.listener.close()
    wrong = [f"{key}: {found[0][key]} | {found[1][key]}" for key in found[0] if found[0][key] != found[1][key]]
    assert not wrong, "\n".join(wrong)
