"""Requests that wait in a queue when their server goes into maintenance, drains or is down, beside the real haproxy: bound by a
cookie or a hash, or to nobody, with and without `option redispatch` and `option persist`; and queues that are full.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.diff.rig import Program, ask, start
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(300)]
BINDINGS = {
    "cookie": " cookie S insert indirect\n", "hash": " balance uri\n", "ring": " balance uri\n hash-type consistent\n", "any": "",
    "full": " cookie S insert indirect\n",
}  # fmt: skip
OPTIONS = {
    "plain": "",
    "redispatch": " option redispatch\n",
    "persist": " option persist\n",
    "both": " option redispatch\n option persist\n",
}
CHANGES = {"maint": "state maint", "drain": "state drain", "down": "health down", "none": ""}
KEYS = [
    (how, option, change)
    for how in BINDINGS
    for option in OPTIONS
    for change in CHANGES
    if how != "full" or change == "none"
]
HELD_S = 1.5  # that the server's only slot is taken
Key = tuple[str, str, str]


class Server:
    """Answers after the time that the request names, with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
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
            channel.settimeout(10)
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    part = channel.recv(4096)
                    if not part:
                        return
                    data += part
                found = re.search(rb"d=([\d.]+)", data)
                time.sleep(float(found[1]) if found else 0)
                channel.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nserver: " + self.name.encode() + b"\r\n\r\n")


class World:
    def __init__(self, kind: str, directory: Path) -> None:
        self.servers = [Server("a"), Server("b")]
        self.ports = dict(zip(KEYS, free_ports(len(KEYS)), strict=True))
        self.socket = directory / "stats.sock"
        text = f"global\n log @LOG@ local0\n maxconn 2000\n stats socket {self.socket} level admin\n"
        text += (
            "defaults\n mode http\n log global\n option httplog\n retries 2\n timeout client 8s\n timeout server 8s\n"
        )
        text += " timeout connect 2s\n timeout queue 4s\n"
        for key, port in self.ports.items():
            text += f"listen {'_'.join(key)}\n bind 127.0.0.1:{port}\n{BINDINGS[key[0]]}{OPTIONS[key[1]]}"
            more = " maxqueue 1" if key[0] == "full" else ""
            text += f" server a 127.0.0.1:{self.servers[0].port} cookie a maxconn 1{more}\n"
            text += f" server b 127.0.0.1:{self.servers[1].port} cookie b{' maxconn 1' if key[0] == 'any' else ''}\n"
        self.program: Program = start(kind, text, directory, [("127.0.0.1", self.ports[KEYS[0]])])
        self.found: dict[Key, list[tuple[int, str, bool]]] = {}

    def get(self, key: Key, case: str, path: str = "", query: str = "d=0") -> tuple[int, str, bool]:
        """Status, server, and whether it took as long as the slot was held."""
        begin = time.monotonic()
        cookie = "Cookie: S=a\r\n" if key[0] in ("cookie", "full") else ""
        with socket.create_connection(("127.0.0.1", self.ports[key])) as channel:
            channel.settimeout(10)
            channel.sendall(
                f"GET {path}/case/{case}?{query} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{cookie}\r\n".encode()
            )
            data = b""
            with contextlib.suppress(OSError):
                while part := channel.recv(4096):
                    data += part
        server, status = re.search(rb"server: (\w)", data), re.match(rb"HTTP/1.\d (\d+)", data)
        waited = time.monotonic() - begin > HELD_S / 2
        return int(status[1]) if status else 0, server[1].decode() if server else "", waited

    def path_to_a(self, key: Key) -> str:
        if key[0] not in ("hash", "ring"):
            return ""
        return next(path for path in (f"/p{number}" for number in range(100)) if self.get(key, "probe", path)[1] == "a")

    def play(self, key: Key) -> None:
        path, name = self.path_to_a(key), "-".join(key)
        holders = [
            threading.Thread(target=self.get, args=(key, "held", path, f"d={HELD_S}"))
            for _ in range(1 + (key[0] == "any"))
        ]
        for thread in holders:
            thread.start()
        time.sleep(0.25)
        waiting = []
        found: dict[int, tuple[int, str, bool]] = {}
        for number in range(3 if key[0] == "full" else 1):

            def wait(number: int = number) -> None:
                found[number] = self.get(key, f"{name}-{number}", path)

            waiting.append(threading.Thread(target=wait))
            waiting[-1].start()
            time.sleep(0.05)
        time.sleep(0.2)
        if CHANGES[key[2]]:
            assert not ask(self.socket, f"set server {'_'.join(key)}/a {CHANGES[key[2]]}").strip()
        for thread in (*waiting, *holders):
            thread.join()
        self.found[key] = [found[number] for number in sorted(found)]

    def run(self) -> dict[Key, object]:
        threads = [threading.Thread(target=self.play, args=(key,)) for key in KEYS]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        stats = {
            line.split(",")[0]: line.split(",")
            for line in ask(self.socket, "show stat").split("\n")
            if ",BACKEND," in line
        }
        result: dict[Key, object] = {}
        for key in KEYS:
            lines = [self.program.log.line(f"{'-'.join(key)}-{number}", 5) for number in range(len(self.found[key]))]
            said = [
                re.search(r"/(\S+) \d+/-?\d+/\S+ (-?\d+) \d+ - - (\S{4}) \d+/\d+/\d+/\d+/(\S+) ", line)
                for line in lines
            ]
            letters = [match.groups() if match else line for match, line in zip(said, lines, strict=True)]
            row = stats["_".join(key)]
            result[key] = (self.found[key], letters, {"wretr": row[15], "wredis": row[16], "econ": row[13]})
            if key[0] == "any":  # either of the two
                result[key] = [(status, waited) for status, _, waited in self.found[key]]
        self.program.stop()
        return result


def test_a_queue_whose_server_changes(tmp_path: Path) -> None:
    found: list[dict[Key, object]] = [{}, {}]
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
    wrong = [f"{key}: {theirs[key]} | {ours[key]}" for key in theirs if theirs[key] != ours[key]]
    assert not wrong, "\n".join(wrong)
