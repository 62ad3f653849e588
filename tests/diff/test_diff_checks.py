"""What a check finds, kind of expectation by kind of answer, beside the real haproxy: code, status and text of every cell."""

from __future__ import annotations

import contextlib
import csv
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.diff.rig import HAPTK, ask, start
from tests.ports import free_ports

Answer = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 All Right\r\n"
BODY = b"the body says hello to all"


def sends(*parts: bytes, end: str = "close", pause_s: float = 0.0) -> Answer:
    """Send the parts one by one, then close, reset, or hold the connection."""

    def answer(channel: socket.socket) -> None:
        for part in parts:
            channel.sendall(part)
            if pause_s:
                time.sleep(pause_s)
        if end == "hold":
            channel.settimeout(20)
            with contextlib.suppress(OSError):
                while channel.recv(4096):
                    pass
        elif end == "reset":
            time.sleep(0.05)  # what was sent is read before
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def endless(first: bytes, more: bytes) -> Answer:
    def answer(channel: socket.socket) -> None:
        channel.sendall(first)
        while True:
            channel.sendall(more)

    return answer


def whole(status: bytes = b"200 All Right", body: bytes = BODY, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s" % (status, len(body), fields, body)


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
HTTP: dict[str, Answer] = {
    "whole": sends(whole(fields=b"X-Test: one, two\r\nServer: Apache/2\r\n")),
    "kept": sends(whole(), end="hold"),
    "nothing": sends(),
    "reset": sends(end="reset"),
    "silence": sends(end="hold"),
    "half-head": sends(HEAD + b"content-le"),
    "half-head-held": sends(HEAD + b"content-le", end="hold"),
    "half-head-reset": sends(HEAD + b"content-le", end="reset"),
    "pieces": sends(*[bytes([byte]) for byte in whole()], pause_s=0.001),
    "until-close": sends(HEAD + b"\r\n" + BODY),
    "until-close-held": sends(HEAD + b"\r\n" + BODY, end="hold"),
    "until-reset": sends(HEAD + b"\r\n" + BODY, end="reset"),
    "endless": endless(HEAD + b"\r\n", b"x" * 4096),
    "short": sends(HEAD + b"content-length: 1000\r\n\r\n" + BODY),
    "short-held": sends(HEAD + b"content-length: 1000\r\n\r\n" + BODY, end="hold"),
    "chunked": sends(CHUNKED + b"d\r\nthe body says\r\nd\r\n hello to all\r\n0\r\n\r\n"),
    "chunked-held": sends(CHUNKED + b"d\r\nthe body says\r\nd\r\n hello to all\r\n0\r\n\r\n", end="hold"),
    "chunked-cut": sends(CHUNKED + b"d\r\nthe body says\r\n"),
    "chunked-bad": sends(CHUNKED + b"zz\r\nthe body says hello\r\n"),
    "empty-body": sends(whole(body=b"")),
    "no-content": sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "huge": sends(whole(body=b"a" * 100_000 + b"hello")),
    "huge-early": sends(whole(body=b"hello" + b"a" * 100_000)),
    "404": sends(whole(b"404 Not Here")),
    "503": sends(whole(b"503 Too \x1bMuch")),
    "no-reason": sends(b"HTTP/1.1 500\r\ncontent-length: 0\r\n\r\n"),
    "interim": sends(b"HTTP/1.1 100 Continue\r\n\r\n" + whole()),
    "switching": sends(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
    "garbage": sends(b"SSH-2.0-OpenSSH_9.2\r\n", end="hold"),
    "garbage-closed": sends(b"hello\r\n"),
    "bad-field": sends(HEAD + b"no colon\r\n\r\n" + BODY),
    "bad-status": sends(b"HTTP/1.1 2x0 Odd\r\n\r\n"),
    "old": sends(b"HTTP/1.0 200 OK\r\n\r\n" + BODY),
}
HTTP_RULES = {
    "plain": "option httpchk",
    "head": "option httpchk HEAD / HTTP/1.1",
    "head-body": "option httpchk HEAD / HTTP/1.0\n http-check expect string hello",
    "head-not": "option httpchk HEAD / HTTP/1.0\n http-check expect ! string hello",
    "404": "option httpchk GET /\n http-check disable-on-404",
    "404-body": "option httpchk GET /\n http-check disable-on-404\n http-check expect string hello",
    "status": "option httpchk GET /\n http-check expect status 200,204",
    "not-status": "option httpchk GET /\n http-check expect ! status 503",
    "rstatus": "option httpchk GET /\n http-check expect rstatus ^2",
    "not-rstatus": "option httpchk GET /\n http-check expect ! rstatus ^5",
    "string": "option httpchk GET /\n http-check expect string hello",
    "not-string": "option httpchk GET /\n http-check expect ! string hello",
    "not-other": "option httpchk GET /\n http-check expect ! string goodbye",
    "rstring": "option httpchk GET /\n http-check expect rstring b.dy.*hello",
    "not-rstring": "option httpchk GET /\n http-check expect ! rstring b.dy.*hello",
    "not-rother": "option httpchk GET /\n http-check expect ! rstring good.*bye",
    "hdr": "option httpchk GET /\n http-check expect hdr name x-test value two",
    "fhdr": "option httpchk GET /\n http-check expect fhdr name -m beg X-T value -m end two",
    "not-hdr": "option httpchk GET /\n http-check expect ! hdr name server value -m reg ^Apa",
    "both": "option httpchk GET /\n http-check expect ! string goodbye\n http-check expect string hello",
    "min": "option httpchk GET /\n http-check expect min-recv 10 ! string goodbye",
    "min-short": "option httpchk GET /\n http-check expect min-recv 500 string hello",
    "words": (
        "option httpchk GET /\n http-check comment first\n http-check expect status 200 on-error 'it is %% wrong' "
        "on-success 'fine' error-status L6RSP ok-status L4OK tout-status L4TOUT comment 'mine'"
    ),
    "words-body": (
        "option httpchk GET /\n http-check comment first\n http-check expect ! string goodbye on-error 'it is wrong' on-success 'fine' "
        "error-status L7STS tout-status L6TOUT"
    ),
    "commented": "option httpchk GET /\n http-check comment 'to see'\n http-check expect string hello",
    "conditional": "option httpchk GET /\n http-check expect status 200 ok-status L7OKC",
    "again": (
        "option httpchk\n http-check connect\n http-check send meth GET uri /1\n http-check expect status 200\n"
        " http-check connect\n http-check send meth HEAD uri /2\n http-check expect status 200-299"
    ),
}

TCP: dict[str, Answer] = {
    "greets": sends(b"220 mail ESMTP\r\n", end="hold"),
    "greets-closes": sends(b"220 mail ESMTP\r\n"),
    "greets-resets": sends(b"220 mail ESMTP\r\n", end="reset"),
    "closes": sends(),
    "resets": sends(end="reset"),
    "silent": sends(end="hold"),
    "pieces": sends(*[bytes([byte]) for byte in b"220 mail ESMTP\r\n"], end="hold", pause_s=0.005),
    "other": sends(b"554 \0\1\xff no\r\n", end="hold"),
    "other-closes": sends(b"554 \0\1\xff no\r\n"),
    "endless": endless(b"22", b"x" * 4096),
    "huge": sends(b"y" * 40_000 + b"220 mail", end="hold"),
    "tiny": sends(b"2"),
}
TCP_RULES = {
    "none": "option tcp-check",
    "connect": "option tcp-check\n tcp-check connect",
    "string": "option tcp-check\n tcp-check expect string 220",
    "not-string": "option tcp-check\n tcp-check expect ! string 554",
    "rstring": "option tcp-check\n tcp-check expect rstring ^220.*SMTP",
    "not-rstring": "option tcp-check\n tcp-check expect ! rstring ^554",
    "binary": "option tcp-check\n tcp-check expect binary 323230",
    "not-binary": "option tcp-check\n tcp-check expect ! binary 000130",
    "has-binary": "option tcp-check\n tcp-check expect binary 0001ff",
    "rbinary": "option tcp-check\n tcp-check expect rbinary ^3232",
    "not-rbinary": "option tcp-check\n tcp-check expect ! rbinary ^3535",
    "chain": "option tcp-check\n tcp-check expect string 220\n tcp-check expect string ESMTP",
    "chain-not": "option tcp-check\n tcp-check expect ! string 554\n tcp-check expect string ESMTP",
    "chain-not-last": "option tcp-check\n tcp-check expect string 220\n tcp-check expect ! string ESMTP",
    "min": "option tcp-check\n tcp-check expect min-recv 3 ! string 554",
    "min-more": "option tcp-check\n tcp-check expect min-recv 300 string 220",
    "min-zero": "option tcp-check\n tcp-check expect min-recv 0 string ESMTP",
    "sends": "option tcp-check\n tcp-check connect\n tcp-check send PING\\r\\n comment hi\n tcp-check expect string 220 comment 'a greeting'",
    "sends-only": "option tcp-check\n tcp-check send-binary 00ff",
    "commented": (
        "option tcp-check\n tcp-check comment 'look here'\n tcp-check expect string 220\n"
        " tcp-check comment 'and there'\n tcp-check expect ! string ESMTP"
    ),
    "words": (
        "option tcp-check\n tcp-check expect ! string 554 on-error 'bad one' on-success 'good one' error-status L7STS "
        "tout-status L4TOUT ok-status L7OK"
    ),
    "linger": "option tcp-check\n tcp-check connect linger\n tcp-check expect string 220",
    "twice": "option tcp-check\n tcp-check connect\n tcp-check expect string 220\n tcp-check connect linger\n tcp-check expect string ESMTP",
    "plain": "",
}


# where the next connection of a script is refused because the answer on the one before was cut: HAProxy sees that or not,
# as the end of it comes early or late
BY_CHANCE = ("again short", "again chunked-cut")


class Server:
    """Listens once for each kind of answer."""

    def __init__(self, answers: dict[str, Answer], *, asked: bool) -> None:
        self.answers = answers
        self.asked = asked
        self.listeners = {name: socket.create_server(("127.0.0.1", 0), backlog=512) for name in answers}
        self.ports = {name: listener.getsockname()[1] for name, listener in self.listeners.items()}
        for name, listener in self.listeners.items():
            threading.Thread(target=self._accept, args=(listener, answers[name]), daemon=True).start()

    def _accept(self, listener: socket.socket, answer: Answer) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel, answer), daemon=True).start()

    def _serve(self, channel: socket.socket, answer: Answer) -> None:
        channel.settimeout(20)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with channel, contextlib.suppress(OSError):
            if self.asked:
                data = b""
                while b"\r\n\r\n" not in data:
                    part = channel.recv(4096)
                    if not part:
                        return
                    data += part
            answer(channel)

    def close(self) -> None:
        for listener in self.listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def found_by(
    kind: str, folder: Path, rules: dict[str, str], ports: dict[str, int]
) -> dict[str, tuple[str, str, str, str]]:
    """(code, status of the answer, text, state) for each rule and answer."""
    folder.mkdir()
    lines = [
        "global", f" stats socket {folder}/sock level admin", " stats timeout 60s", "defaults", " mode http", " timeout connect 2s",
        " timeout client 9s", " timeout server 9s", " timeout check 1500ms",
        " default-server check inter 4s rise 1 fall 1", "frontend any", f" bind {folder}/any",
    ]  # fmt: skip
    for name, rule in rules.items():
        lines += [f"backend {name}", f" {rule}" if rule else ""]
        lines += [f" server {answer} 127.0.0.1:{port}" for answer, port in ports.items()]
    config = folder / "x.cfg"
    config.write_text("\n".join([*lines, ""]))
    argv = ["haproxy", "-db"] if kind == "haproxy" else [str(HAPTK), "proxy"]
    found: dict[str, tuple[str, str, str, str]] = {}
    with (folder / "err").open("wb") as errors:
        child = subprocess.Popen([*argv, "-f", str(config)], stdout=errors, stderr=errors)
    deadline = time.monotonic() + 60
    try:
        while len(found) < len(rules) * len(ports):
            assert time.monotonic() < deadline and child.poll() is None, (len(found), (folder / "err").read_text())
            time.sleep(0.3)
            with contextlib.suppress(OSError):
                for row in csv.DictReader(ask(folder / "sock", "show stat").removeprefix("# ").splitlines()):
                    if row["check_status"] and not row["check_status"].startswith("*") and row["check_status"] != "INI":
                        seen = (row["check_status"], row["check_code"], row["last_chk"], row["status"].split()[0])
                        found.setdefault(f"{row['pxname']} {row['svname']}", seen)
    finally:
        child.kill()
        child.wait(10)
    return found


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, tuple[str, str, str, str]]]]:
    server = Server(HTTP, asked=True)
    folder = tmp_path_factory.mktemp("http")
    yield {kind: found_by(kind, folder / kind, HTTP_RULES, server.ports) for kind in ("haproxy", "haptk")}
    server.close()


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, tuple[str, str, str, str]]]]:
    server = Server(TCP, asked=False)
    dead = socket.create_server(("127.0.0.1", 0))
    port = dead.getsockname()[1]
    dead.close()
    folder = tmp_path_factory.mktemp("tcp")
    ports = {**server.ports, "refused": port}
    yield {kind: found_by(kind, folder / kind, TCP_RULES, ports) for kind in ("haproxy", "haptk")}
    server.close()


def unlike(found: dict[str, dict[str, tuple[str, str, str, str]]], rule: str) -> list[str]:
    return [
        f"{cell}: haproxy {real}, haptk {found['haptk'][cell]}"
        for cell, real in sorted(found["haproxy"].items())
        if cell.split()[0] == rule and cell not in BY_CHANCE and found["haptk"][cell] != real
    ]


@pytest.mark.real("haproxy")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("rule", HTTP_RULES)
def test_http_checks_find_what_haproxys_find(http: dict[str, dict[str, tuple[str, str, str, str]]], rule: str) -> None:
    assert not unlike(http, rule)


@pytest.mark.real("haproxy")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("rule", TCP_RULES)
def test_tcp_checks_find_what_haproxys_find(tcp: dict[str, dict[str, tuple[str, str, str, str]]], rule: str) -> None:
    assert not unlike(tcp, rule)


# -- what the application sees

ENDS_RULES = {
    "plain": "",
    "connect": "option tcp-check",
    "connect-linger": "option tcp-check\n tcp-check connect linger",
    "expect": "option tcp-check\n tcp-check expect string 220",
    "expect-linger": "option tcp-check\n tcp-check connect linger\n tcp-check expect string 220",
    "send": "option tcp-check\n tcp-check send hello",
    "proxy": "option tcp-check\n tcp-check connect send-proxy\n tcp-check expect string 220",
    "httpchk": "option httpchk GET /",
    "httpchk-linger": "option httpchk\n http-check connect linger\n http-check send meth GET uri /",
}


class Witness:
    """An application that keeps its connections open and writes down how each one went."""

    def __init__(self, rules: dict[str, str]) -> None:
        self.seen: dict[str, set[tuple[int, str]]] = {name: set() for name in rules}
        self.listeners = {name: socket.create_server(("127.0.0.1", 0), backlog=512) for name in rules}
        self.ports = {name: listener.getsockname()[1] for name, listener in self.listeners.items()}
        for name, listener in self.listeners.items():
            threading.Thread(target=self._accept, args=(name, listener), daemon=True).start()

    def _accept(self, name: str, listener: socket.socket) -> None:
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(name, channel), daemon=True).start()

    def _serve(self, name: str, channel: socket.socket) -> None:
        size = 0
        end = "closed"
        channel.settimeout(20)
        with channel:
            try:
                if name.startswith(("expect", "proxy")):
                    channel.sendall(b"220 hello\r\n")
                while part := channel.recv(4096):
                    size += len(part)
                    if name.startswith("httpchk"):
                        channel.sendall(whole())
            except OSError:
                end = "reset"
        self.seen[name].add((0 if name == "proxy" else size, end))  # the header's length varies with the port

    def close(self) -> None:
        for listener in self.listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.mark.real("haproxy")
@pytest.mark.timeout(120)
def test_an_application_sees_of_checks_what_haproxys_show(tmp_path: Path) -> None:
    """A check that only connects is not seen at all; others end with a reset, or as `linger` says."""
    seen = {}
    for kind in ("haproxy", "haptk"):
        witness = Witness(ENDS_RULES)
        for name, rule in ENDS_RULES.items():
            found = found_by(kind, tmp_path / f"{kind}-{name}", {name: rule}, {"s": witness.ports[name]})
            assert found[f"{name} s"][3] == "UP", (kind, name, found)
        time.sleep(0.3)
        seen[kind] = witness.seen
        witness.close()
    assert seen["haproxy"] == seen["haptk"]
    assert not seen["haptk"]["plain"]
    assert seen["haptk"]["expect"] == {(0, "reset")} and seen["haptk"]["expect-linger"] == {(0, "closed")}


@pytest.mark.real("haproxy")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("action", ["mark-down", "sudden-death", "fail-check"])
def test_what_live_traffic_took_down_is_told_as_haproxy_tells_it(tmp_path: Path, action: str) -> None:
    told = {}
    for kind in ("haproxy", "fast"):
        server = Server({"bad": sends(whole(b"500 Sorry"))}, asked=True)
        (port,) = free_ports(1)
        text = (
            "defaults\n mode http\n log @LOG@ local0\n timeout connect 2s\n timeout client 9s\n timeout server 9s\n"
            f"listen web\n bind 127.0.0.1:{port}\n option log-health-checks\n server s 127.0.0.1:{server.ports['bad']} check inter 60s fall 1 "
            f"observe layer7 error-limit 3 on-error {action}\n"
        )
        program = start(kind, text, tmp_path, [("127.0.0.1", port)])
        try:
            deadline = time.monotonic() + 40
            lines: list[str] = []
            while not any("is DOWN" in line for line in lines):
                assert time.monotonic() < deadline, (kind, lines)
                for _ in range(3):
                    with socket.create_connection(("127.0.0.1", port), 5) as channel:
                        channel.settimeout(5)
                        channel.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                        while channel.recv(4096):
                            pass
                time.sleep(0.3)
                lines = [line for each in list(program.log.lines.values()) for line in list(each)]
            heard = [
                re.sub(r"^<(\d+)>.*?\]: ", r"<\1> ", line)
                for line in lines
                if "erver web/s" in line and "Layer4" not in line
            ]
            told[kind] = [re.sub(r"duration: \d+ms|\d+ sessions active", "N", line) for line in heard]
        finally:
            program.stop()
            server.close()
    assert told["fast"] == told["haproxy"]
    assert any("Detected 3 consecutive errors" in line for line in told["fast"])


@pytest.mark.real("haproxy")
@pytest.mark.timeout(120)
def test_a_conditional_pass_brings_a_server_back_as_haproxys_does(tmp_path: Path) -> None:
    """`ok-status L7OKC` counts for a server that is down: it returns, and takes no new sessions."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for kind in ("haproxy", "fast"):
        statuses = iter([b"503 No"] * 2 + [b"200 Yes"] * 40)
        server = Server({"s": lambda channel, left=statuses: channel.sendall(whole(next(left)))}, asked=True)  # type: ignore[misc]
        text = (
            f"global\n stats socket {tmp_path}/{kind}.sock level admin\ndefaults\n mode http\n timeout connect 2s\n timeout client 9s\n"
            f" timeout server 9s\nlisten web\n bind {tmp_path}/{kind}.web\n option httpchk\n"
            " http-check expect ok-status L7OKC status 200\n"
            f" server s 127.0.0.1:{server.ports['s']} check inter 300ms fall 1 rise 2\n"
        )
        program = start(kind, text, tmp_path, [])
        states: list[tuple[str, str]] = []
        try:
            deadline = time.monotonic() + 40
            while not states or states[-1][0] != "NOLB":
                assert time.monotonic() < deadline, (kind, states)
                time.sleep(0.05)
                with contextlib.suppress(OSError):
                    rows = csv.DictReader(ask(tmp_path / f"{kind}.sock", "show stat").removeprefix("# ").splitlines())
                    row = next(each for each in rows if each["svname"] == "s")
                    state = (row["status"].split()[0], row["check_status"].lstrip("* "))
                    if state[1] not in ("", "INI") and (not states or states[-1] != state):
                        states.append(state)
        finally:
            program.stop()
            server.close()
        seen[kind] = states
    assert seen["fast"] == seen["haproxy"]
