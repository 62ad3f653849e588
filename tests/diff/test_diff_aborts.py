"""A client that leaves, in each phase of a request, with and without `option abortonclose`, beside the real haproxy: what the client
still gets, what the server sees, the log line and the counters.

A client leaves by ending its direction (fin), by closing, or by a reset; the phases are the head, a queue, a connection that does
not come up, the wait for an answer, its body, a request that is not whole, and those of them that TCP mode has.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.diff.rig import Program, ask, start
from tests.diff.test_diff_timeouts import hole
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
WAYS = ("fin", "close", "rst")
ABORT = " option abortonclose\n"
GET = "GET /case/{}?{} HTTP/1.1\r\nHost: h\r\n\r\n"
POST = "POST /case/{}?{} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
# name: (mode, where the server is, what is sent, how the server behaves)
CASES = {
    "head": ("http", "server", "GET /case/{}?{} HTTP", ""),
    "wait": ("http", "server", GET, "d=2.0"),
    "wait-post": ("http", "server", POST + "12345", "d=2.0"),
    "body": ("http", "server", GET, "d=2.0&part=1"),
    "half": ("http", "server", POST + "12", "d=2.0"),
    "connect": ("http", "hole", GET, ""),
    "connect-post": ("http", "hole", POST + "12345", ""),
    "connect-half": ("http", "hole", POST + "12", ""),
    "queue": ("http", "full", GET, "d=0"),
    "queue-post": ("http", "full", POST + "12345", "d=0"),
    "queue-half": ("http", "full", POST + "12", "d=0"),
    "tcp": ("tcp", "server", "raw /case/{} d=2.0 {}", ""),
    "tcp-nothing": ("tcp", "server", "", ""),
    "tcp-connect": ("tcp", "hole", "raw /case/{} d=0.1 {}", ""),
    "tcp-connect-nothing": ("tcp", "hole", "", ""),
    "tcp-queue": ("tcp", "full", "raw /case/{} d=0.1 {}", ""),
    "tcp-queue-nothing": ("tcp", "full", "", ""),
}
KEYS = [(name, abort, way) for name in CASES for abort in ("", "abort") for way in WAYS]
# HAProxy counts an abort of the client here whose log line says that the server did not answer
COUNTED = {("connect", "", "rst"), ("connect-post", "", "rst")}


class Server:
    """Answers after the delay that a request names; notes whether the other side left meanwhile, and how."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.saw: dict[str, str] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel, contextlib.suppress(OSError):
            while True:
                channel.settimeout(8)
                data = b""
                while b"\r\n\r\n" not in data and b"raw" not in data:
                    part = channel.recv(4096)
                    if not part:
                        return
                    data += part
                found = re.search(rb"/case/([\w-]+)", data)
                case = found[1].decode() if found else ""
                delay = re.search(rb"d=([\d.]+)", data)
                if b"part=" in data:
                    channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
                self.saw[case] = self._watch(channel, float(delay[1]) if delay else 0.0)
                if self.saw[case]:
                    return
                channel.sendall(b"ok" if b"part=" in data else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    @staticmethod
    def _watch(channel: socket.socket, seconds: float) -> str:
        channel.settimeout(seconds or 0.01)
        try:
            while channel.recv(4096):
                pass
        except TimeoutError:
            return ""
        except OSError:
            return "reset"
        return "ended"


class World:
    """One program with a section for each case, so that log lines and counters are the case's own."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.server, (self.hole, self.kept) = Server(), hole()
        self.ports = dict(zip(KEYS, free_ports(len(KEYS)), strict=True))
        self.socket = directory / "stats.sock"
        text = f"global\n log @LOG@ local0\n maxconn 2000\n stats socket {self.socket} level admin\n"
        for key, port in self.ports.items():
            mode, where, _, _ = CASES[key[0]]
            target = self.hole.getsockname()[1] if where == "hole" else self.server.port
            text += f"defaults\n mode {mode}\n log global\n option {mode}log\n retries 0\n timeout client 4s\n timeout server 4s\n"
            text += f" timeout connect 1200ms\n timeout queue 2s\n{ABORT if key[1] else ''}"
            text += f"listen {self.name(key)}\n bind 127.0.0.1:{port}\n"
            text += f" server s 127.0.0.1:{target}{' maxconn 1' if where == 'full' else ''}\n"
        self.program: Program = start(kind, text, directory, [("127.0.0.1", self.ports[KEYS[0]])])
        time.sleep(0.3)
        self.program.log.lines.clear()
        self.got: dict[tuple[str, str, str], object] = {}

    @staticmethod
    def name(key: tuple[str, str, str]) -> str:
        return "_".join(part for part in key if part)

    def play(self, key: tuple[str, str, str]) -> None:
        mode, where, request, query = CASES[key[0]]
        address = ("127.0.0.1", self.ports[key])
        with contextlib.ExitStack() as stack:
            if where == "full":
                holder = stack.enter_context(socket.create_connection(address))
                holder.settimeout(3)
                held = "raw d=1.2" if mode == "tcp" else "GET /?d=1.2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                holder.sendall(held.encode())
                time.sleep(0.15)
            client = stack.enter_context(socket.create_connection(address))
            client.settimeout(3.5)
            client.sendall(request.format(self.name(key).replace("_", "-"), query).encode())
            time.sleep(0.5)
            self.got[key] = self.leave(client, key[2])
            if where == "full":
                with contextlib.suppress(OSError):
                    while holder.recv(4096):
                        pass

    @staticmethod
    def leave(client: socket.socket, way: str) -> object:
        if way != "fin":
            if way == "rst":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return None
        client.shutdown(socket.SHUT_WR)
        data = b""
        try:
            while part := client.recv(4096):
                data += part
        except OSError as error:
            return data[:12], type(error).__name__
        return data[:12], data[-2:]

    def run(self) -> dict[str, tuple[object, list[str], str, tuple[str, ...]]]:
        threads = [threading.Thread(target=self.play, args=(key,)) for key in KEYS]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        time.sleep(2.0)  # the last time-out has its line
        rows = csv.DictReader(io.StringIO(ask(self.socket, "show stat").lstrip("# ")))
        counted = {row["pxname"]: row for row in rows if row["svname"] == "BACKEND"}
        lines = [line for each in self.program.log.lines.values() for line in each]
        found = {}
        for key in KEYS:
            name = self.name(key)
            matches = [
                re.search(r" (-?\d+) \d+ - - (\S{4}) ", line) or re.search(r"() \d+ (\S\S) \d+/", line)
                for line in lines
                if f" {name} {name}/" in line
            ]
            row = counted[name]
            counts = tuple(row[column] for column in ("cli_abrt", "srv_abrt", "econ", "eresp"))
            if key in COUNTED:
                counts = counts[1:]
            log = sorted("".join(match.groups()) for match in matches if match)
            found[name] = (self.got[key], log, self.server.saw.get(name.replace("_", "-"), "nothing"), counts)
        self.program.stop()
        for one in (self.server.listener, self.hole, *self.kept):
            one.close()
        return found


def test_clients_leave_in_each_phase(tmp_path: Path) -> None:
    found: list[dict[str, tuple[object, list[str], str, tuple[str, ...]]]] = [{}, {}]
    worlds = []
    for kind in ("haproxy", "fast"):
        (tmp_path / kind).mkdir()
        worlds.append(World(kind, tmp_path / kind))

    def run(index: int) -> None:
        found[index] = worlds[index].run()

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    theirs, ours = found
    assert len(theirs) == len(KEYS)
    wrong = [f"{name}: {theirs[name]} | {ours[name]}" for name in theirs if theirs[name] != ours[name]]
    assert not wrong, "\n".join(wrong)
