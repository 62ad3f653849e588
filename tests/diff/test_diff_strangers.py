"""Every byte that a stranger can put into a reason, an agent's word, a header or a request line, on every surface that
shows it to people or programs: log lines, the stats socket, the statistics page, `show errors`. Beside HAProxy.
"""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, exchange, start
from tests.ports import free_ports

# without CR, LF and NUL, which end what they stand in; a text of HAProxy's for a check has 127 bytes
SIZE = 24
TEXTS = [
    b"x" + bytes(range(at, min(at + SIZE, 256))).replace(b"\r", b"").replace(b"\n", b"") + b"y"
    for at in range(1, 256, SIZE)
]


class Strangers:
    """An HTTP server and an agent per text, which is what they have to say."""

    def __init__(self) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2 * len(TEXTS))]
        self.ports = [one.getsockname()[1] for one in self.listeners]
        for number, listener in enumerate(self.listeners):
            text, agent = TEXTS[number // 2], number % 2
            # of the agents, some say it as the reason and some as a word
            said = (
                (b"down #" if number % 4 == 1 else b"up ") + text + b"\n"
                if agent
                else b"HTTP/1.1 500 " + text + b"\r\ncontent-length: 0\r\n\r\n"
            )
            threading.Thread(target=self._serve, args=(listener, said, agent), daemon=True).start()

    def _serve(self, listener: socket.socket, said: bytes, agent: int) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            with channel:
                try:
                    channel.settimeout(5)
                    if not agent:
                        channel.recv(4096)
                    channel.sendall(said)
                    channel.shutdown(socket.SHUT_WR)
                    while channel.recv(4096):
                        pass
                except OSError:
                    pass

    def close(self) -> None:
        for one in self.listeners:
            one.close()


def config(host: str, port: int, strangers: Strangers, path: Path) -> str:
    text = (
        f"global\n    stats socket {path} level admin\n"
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n    log @LOG@ len 8192 local0\n"
        f"listen front\n    bind {host}:{port}\n    stats uri /stats\n    stats show-legends\n    option httplog\n"
        "    capture request header X-In len 200\n    capture response header X-Out len 200\n"
        "    http-request return status 200 hdr X-Out %[req.hdr(x-in)] hdr X-Line %HU if { path_beg /back }\n"
        "backend checked\n    option httpchk\n    option log-health-checks\n"
    )
    for number in range(len(TEXTS)):
        text += f"    server s{number} 127.0.0.1:{strangers.ports[2 * number]} check inter 200ms fall 1 rise 1\n"
    text += "backend asked\n"
    for number in range(len(TEXTS)):
        port = strangers.ports[2 * number + 1]
        text += f"    server a{number} 127.0.0.1:9 agent-check agent-port {port} agent-inter 200ms\n"
    return text


def ask(path: Path, command: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(path))
        channel.sendall(command.encode() + b"\n")
        text = b""
        while part := channel.recv(65536):
            text += part
    return text


class Side:
    """One program."""

    def __init__(self, kind: str, host: str, directory: Path, strangers: Strangers) -> None:
        (self.port,) = free_ports(1, host)
        self.host, self.path = host, directory / f"{kind}.sock"
        self.program: Program = start(
            kind, config(host, self.port, strangers, self.path), directory, [(host, self.port)]
        )

    def until(self, command: str, pattern: bytes, count: int) -> bytes:
        deadline = time.monotonic() + 20
        while not self.path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        while True:
            found = ask(self.path, command)
            if len(re.findall(pattern, found)) >= count:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Side]]:
    strangers = Strangers()
    found: list[Side] = []
    try:
        directory = tmp_path_factory.mktemp("strangers")
        for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
            found.append(Side(kind, host, directory, strangers))
        for side in found:
            # every text is there, on both sides
            side.until("show stat", rb"(?m)^checked,s\d+,.*L7STS", len(TEXTS))
            side.until("show stat", rb"(?m)^asked,a\d+,.*L7(?:STS|OK)", len(TEXTS))
        yield found
    finally:
        for side in found:
            side.program.stop()
        strangers.close()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("surface", ["csv", "typed", "json"])
@pytest.mark.parametrize("what", ["check", "agent"])
def test_the_stats_socket_shows_a_strangers_text_as_haproxy_does(sides: list[Side], surface: str, what: str) -> None:
    command = {"csv": "show stat", "typed": "show stat typed", "json": "show stat json"}[surface]
    found: list[list[bytes]] = []
    for side in sides:
        # while a check is under way there is no text
        texts: set[bytes] = set()
        deadline = time.monotonic() + 20
        while len(texts) < len(TEXTS) and time.monotonic() < deadline:
            texts |= set(shown(ask(side.path, command), surface, what))
        found.append(sorted(texts))
    assert found[1] == found[0]
    assert len(found[0]) == len(TEXTS)


def shown(answer: bytes, surface: str, what: str) -> list[bytes]:
    """The texts in an answer. HAProxy's JSON is none when a text has a quote in it: it is read back here."""
    name = b"last_chk" if what == "check" else b"last_agt"
    if surface == "csv":
        rows = csv.DictReader(io.StringIO(answer.decode("latin-1").removeprefix("# "), newline="\n"))
        texts = [row[name.decode()].encode("latin-1") for row in rows if row["svname"][0] in "sa"]
    elif surface == "typed":
        texts = [line.partition(b":str:")[2] for line in answer.split(b"\n") if b"." + name + b"." in line]
    else:
        pattern = rb'"name":"' + name + rb'"\}[^\n]*?"value":\{"type":"str","value":"(.*?)"\}\}'
        texts = [
            json.loads(b'"' + text + b'"').encode("latin-1")
            if b"\\u" in text or b'\\"' in text or b"\\\\" in text
            else text
            for text in re.findall(pattern, answer, re.S)
        ]
    return [text for text in texts if b"x" in text or b"via" in text]


@pytest.mark.real("haproxy")
def test_a_log_line_shows_a_strangers_text_as_haproxy_does(sides: list[Side]) -> None:
    found = []
    for side in sides:
        with side.program.log.changed:
            lines = [line for group in side.program.log.lines.values() for line in group]
        news = {re.sub(r"duration: \d+ms", "", line.partition("]: ")[2]) for line in lines if "Health check" in line}
        found.append(sorted(line.partition(", status")[0] for line in news))
    assert found[1] == found[0]
    assert len(found[0]) >= len(TEXTS)


@pytest.mark.real("haproxy")
def test_the_page_shows_no_byte_of_a_stranger_as_it_came(sides: list[Side]) -> None:
    for side in sides:
        body = exchange((side.host, side.port), b"GET /stats HTTP/1.1\r\nHost: h\r\n\r\n", timeout_s=20).body
        assert not set(body) & {*range(9), 11, 12, *range(14, 32), 127}, side.program.kind
        assert b"x&#1;&#2;" in body


def header_texts() -> list[bytes]:
    # what a header's value may have: no control characters but the tab
    return [b"x" + bytes(c for c in text if c == 9 or (c >= 32 and c != 127)) + b"y" for text in TEXTS]


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("where", ["header", "target"])
def test_a_clients_bytes_are_logged_and_answered_as_haproxy_does(sides: list[Side], where: str) -> None:
    found = []
    for side in sides:
        seen = []
        for number, text in enumerate(header_texts()):
            raw = re.sub(rb"[\x00-\x20\x7f-\xff#]", b"", text) if where == "target" else text
            target = b"/back/case/%s-%d/" % (where.encode(), number) + (raw if where == "target" else b"")
            value = text if where == "header" else b"-"
            got = exchange(
                (side.host, side.port), b"GET " + target + b" HTTP/1.1\r\nHost: h\r\nX-In: " + value + b"\r\n\r\n"
            )
            line = side.program.log.line(f"{where}-{number}", 10)
            seen.append(
                (
                    got.status,
                    got.values("x-out"),
                    got.values("x-line"),
                    re.sub(r"^.*? (\d{3}) \d+ (.*? )\d+/\d+/", r"\1 \2", line),
                )
            )  # and the client before may just be leaving
        found.append(seen)
    for theirs, ours in zip(*found, strict=True):
        assert ours == theirs


@pytest.mark.real("haproxy")
def test_show_errors_shows_a_bad_request_as_haproxy_does(sides: list[Side]) -> None:
    bad = [b"GET /x" + text + b" HTTP/1.1\r\nHost: h\r\n\r\n" for text in TEXTS]
    bad += [b"GET / HTTP/1.1\r\nHost: h\r\nX-" + text + b": 1\r\n\r\n" for text in TEXTS]
    for raw in bad:
        found = []
        for side in sides:
            before = ask(side.path, "show errors")
            got = exchange((side.host, side.port), raw)
            deadline = time.monotonic() + 5
            while (
                got.status == 400 and (dump := ask(side.path, "show errors")) == before and time.monotonic() < deadline
            ):
                time.sleep(0.02)
            lines = re.findall(r"(?m)^  \d{5}[ +] .*$", dump.decode("latin-1").lower()) if got.status == 400 else []
            found.append((got.status, lines))
        assert found[1] == found[0], raw
