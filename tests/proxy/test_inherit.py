"""`-x`: listening sockets from one process to the next, between haptk and the real HAProxy in every direction, under load."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Upstreams, free_ports, upstreams
from tests.proxy.test_howto_haproxy import Client, gone

pytestmark = pytest.mark.timeout(180)
PROGRAMS = {"haproxy": ["haproxy"], "haptk": [sys.executable, "-m", "haptk", "proxy"]}
FILE = """global
 stats socket {directory}/admin.sock mode 600 level admin {expose}
 nbthread {threads}

defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 2s

listen webfarm
 bind 127.0.0.1:{port}
 bind {directory}/web.sock mode 600
 cookie JSESSIONID prefix
 server A 127.0.0.1:{a} cookie A
 server B 127.0.0.1:{b} cookie B
"""


class Node:
    """One haproxy.cfg and whichever program runs it."""

    def __init__(self, directory: Path, servers: Upstreams) -> None:
        self.directory, self.servers = directory, servers
        (self.port,) = free_ports(1)
        self.write()

    def write(self, expose: str = "expose-fd listeners", threads: int = 1) -> None:
        a, b = self.servers.ports[:2]
        values = {"directory": self.directory, "port": self.port, "a": a, "b": b, "expose": expose, "threads": threads}
        (self.directory / "haproxy.cfg").write_text(FILE.format(**values))

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def start(self, kind: str, *words: str) -> subprocess.CompletedProcess[str]:
        files = ["-D", "-p", str(self.directory / "pid"), "-f", str(self.directory / "haproxy.cfg")]
        command = [*PROGRAMS[kind], *files, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def take_over(self, kind: str) -> None:
        """The next process; returns when the one before has ended."""
        old = self.pid
        done = self.start(kind, "-x", str(self.directory / "admin.sock"), "-sf", str(old))
        assert done.returncode == 0, done.stderr
        gone(old)

    def listening(self) -> set[str]:
        """The kernel's numbers of the sockets that listen on the port."""
        table = Path("/proc/net/tcp").read_text()
        return set(re.findall(rf":{self.port:04X} 00000000:0000 0A (?:\S+ +){{5}}(\d+)", table))

    def ask_unix(self) -> int:
        channel = http.client.HTTPConnection("localhost")
        channel.sock = socket.socket(socket.AF_UNIX)
        channel.sock.settimeout(5)
        channel.sock.connect(str(self.directory / "web.sock"))
        channel.request("GET", "/")
        return channel.getresponse().status


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with upstreams(2) as servers:
        for number in range(6):
            answer = f"HTTP/1.1 200 OK\r\nset-cookie: JSESSIONID=s{number}; path=/\r\ncontent-length: 2\r\n\r\nok"
            servers.scripts[str(number)] = answer.encode()
        made = Node(tmp_path, servers)
        yield made
        with contextlib.suppress(OSError, ValueError):
            os.kill(made.pid, signal.SIGKILL)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(("old", "new"), [("haproxy", "haptk"), ("haptk", "haproxy"), ("haptk", "haptk")])
def test_the_sockets_go_on(node: Node, old: str, new: str) -> None:
    assert node.start(old).returncode == 0
    before = node.listening()
    assert len(before) == 1
    clients = [Client(node.port, str(number)) for number in range(6)]
    for client in clients:
        client.start()
    time.sleep(0.3)
    for kind in (new, old, new):
        node.take_over(kind)
        assert node.listening() == before, "the same socket, not another one on the same address"
        assert node.ask_unix() == 200, "a unix path outlives the process that made it"
    time.sleep(0.3)
    for client in clients:
        client.over.set()
        client.join(10)
    assert not [failure for client in clients for failure in client.failures]
    assert all(len(client.homes) == 1 for client in clients)
    assert all(client.answers > 20 for client in clients)


def test_each_worker_takes_one(node: Node) -> None:
    node.write(threads=2)
    assert node.start("haptk").returncode == 0
    before = node.listening()
    assert len(before) == 2
    node.take_over("haptk")
    assert node.listening() == before


def test_what_no_bind_line_wants_is_closed(node: Node) -> None:
    assert node.start("haptk").returncode == 0
    old_port = node.port
    (node.port,) = free_ports(1)
    node.write()
    node.take_over("haptk")
    assert node.listening()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old_port), 5)


def test_sockets_that_are_not_given_are_an_error(node: Node) -> None:
    """Nothing is half-applied: who has the sockets goes on, and the line that gives them is named."""
    node.write(expose="")
    assert node.start("haptk").returncode == 0
    old = node.pid
    refused = node.start("haptk", "-x", str(node.directory / "admin.sock"), "-sf", str(old))
    assert refused.returncode == 76
    assert refused.stderr.count("\n") == 1 and "expose-fd listeners" in refused.stderr
    nobody = node.start("haptk", "-x", str(node.directory / "nobody.sock"))
    assert nobody.returncode == 76
    assert "nobody.sock" in nobody.stderr
    assert node.pid == old and node.ask_unix() == 200
    # a unit file that names a socket nobody has yet still starts: with -W that is a warning, as in HAProxy
    unit = node.start("haptk", "-W", "-x", str(node.directory / "nobody.sock"), "-sf", str(old))
    assert unit.returncode == 0 and "nobody.sock" in unit.stderr
    gone(old)
    old = node.pid
    assert node.start("haptk", "-x", "/dev/null", "-sf", str(old)).returncode == 0, "nobody to ask, as for HAProxy"
    gone(old)


def test_a_path_that_another_process_took_is_left(node: Node) -> None:
    assert node.start("haptk").returncode == 0
    path = node.directory / "web.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        pid = node.pid
        os.kill(pid, signal.SIGTERM)
        gone(pid)
        assert path.is_socket()


def test_expose_takes_one_word(node: Node) -> None:
    node.write(expose="expose-fd everything")
    done = node.start("haptk", "-c")
    assert done.returncode == 1
    assert "haproxy.cfg:2" in done.stderr and "listeners" in done.stderr
