"""What somebody can do who may connect to the peers port: names without end, idle connections, foreign addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haptk._fast.table import Table
from haptk.core.peers import wire
from haptk.core.peers.door import Door
from tests.ports import free_ports

HAPTK = [sys.executable, "-m", "haptk", "proxy", "-d", "-f"]
CONFIG = """global
 stats socket {folder}/{name}.sock level admin
peers tier
 peer A {host_a}:{a}
 peer B {host_b}:{b}
defaults
 mode http
 timeout connect 1s
 timeout client 5s
 timeout server 5s
listen web
 bind unix@{folder}/{name}.web
 stick-table type string len 32 size 100k expire 10m peers tier
 stick on hdr(x)
 server one 127.0.0.1:9
"""
pytestmark = pytest.mark.timeout(180)


def until(what, why: str, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError):
            if what():
                return
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


class Node:
    """A haptk process that is one of the peers."""

    def __init__(self, name: str, folder: Path, values: dict[str, object], prefix: tuple[str, ...] = ()) -> None:
        self.name, self.folder = name, folder
        config = folder / f"{name}.cfg"
        config.write_text(CONFIG.format(folder=folder, name=name, **values))
        with (folder / f"{name}.out").open("wb") as out:
            self.child = subprocess.Popen(
                [*prefix, *HAPTK, str(config), "-L", name],
                stdout=out,
                stderr=out,
                env={**os.environ, "HAPTK_NO_FAST": ""},
            )
        until(lambda: self.cli("show table web"), f"{name} answers")

    def cli(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(self.folder / f"{self.name}.sock"))
            sock.sendall(command.encode() + b"\n")
            out = b""
            while part := sock.recv(65536):
                out += part
        return out.decode("utf-8", "replace")

    def said(self) -> str:
        return (self.folder / f"{self.name}.out").read_text()

    def memory_kb(self) -> int:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def stop(self) -> None:
        self.child.kill()
        self.child.wait(10)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Node, int]]:
    a, b = free_ports(2)
    node = Node("A", tmp_path, {"a": a, "b": b, "host_a": "127.0.0.1", "host_b": "127.0.0.1"})
    yield node, a
    node.stop()


class Stranger:
    """Speaks the protocol as peer B."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 20)
        self.sock.settimeout(20)
        self.sock.sendall(wire.put_hello(wire.Hello("A", "B", 1)))
        assert self.sock.recv(100).startswith(b"200")
        definition = wire.Definition(1, "web", wire.KEY_TYPES["string"], 33, (0, 19), 600_000)
        self.sock.sendall(wire.put_message(wire.UPDATES, wire.DEFINE, definition.encode()))

    def update(self, number: int, key: bytes, name: bytes) -> bytes:
        told = wire.put_int(number % 128 + 1) + wire.put_int(len(name)) + name
        data = (
            struct.pack(">I", number) + wire.put_int(len(key)) + key + wire.put_int(1) + wire.put_int(len(told)) + told
        )
        return wire.put_message(wire.UPDATES, wire.UPDATE, data)

    def learn(self) -> bytes:
        """Ask for everything; what comes until the end of it."""
        self.sock.sendall(wire.put_message(wire.CONTROL, wire.RESYNC_REQUEST))
        got = b""
        while not got.endswith((b"\x00\x01", b"\x00\x02")):
            part = self.sock.recv(1 << 20)
            assert part, "the connection was closed while it was taught"
            got += part
        return got


def test_many_long_names_end_nothing(alone: tuple[Node, int]) -> None:
    """A section that taught them ran out of the room that it had counted for 128 names."""
    node, port = alone
    stranger = Stranger(port)
    names = [b"n%05d" % number + b"x" * 4000 for number in range(400)]
    stranger.sock.sendall(b"".join(stranger.update(n, b"k%d" % n, name) for n, name in enumerate(names, 1)))
    until(lambda: "used:400" in node.cli("show table web"), "it was taught")
    stranger.sock.close()
    until(lambda: node.cli("show peers").count("ESTA") == 0, "the stranger is gone")
    got = Stranger(port).learn()
    assert all(name in got for name in names)
    assert "stopped" not in node.said() and "Traceback" not in node.said()


def test_names_that_nobody_uses_are_given_back(alone: tuple[Node, int]) -> None:
    node, port = alone
    before = node.memory_kb()
    stranger = Stranger(port)
    for number in range(40_000):
        # one key, and a new name of 4 kB each time: 160 MB
        stranger.sock.sendall(stranger.update(number, b"k", b"%06d" % number + b"y" * 4000))
    until(lambda: "used:1" in node.cli("show table web"), "it was taught")
    until(lambda: node.memory_kb() - before < 40_000, f"{node.memory_kb() - before} kB more than before", 5)
    assert "Traceback" not in node.said()


def test_the_sum_of_names_is_limited_and_numbers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("t", "string", 32, 1000, 60)
    own = table.number_of(b"own", True)
    big = [b"%06d" % number + b"z" * 1000 for number in range(10_000)]
    numbers = [table.number_of(name) for name in big]
    assert numbers[0] and not numbers[-1], "there is a limit"
    assert table.number_of(b"another own", True), "our own servers always have a number"
    kept = next(name for name in big if table.number_of(name))
    table.learn(b"key", 1, kept)
    deadline = time.monotonic() + 60
    while not table.number_of(b"new" + b"z" * 5000):  # two looks, some seconds apart
        assert time.monotonic() < deadline, "numbers that no entry has come back"
        time.sleep(0.5)
    assert table.get(b"key")[3] == kept
    assert table.number_of(b"own") == own
    assert table.renamed


def test_definitions_do_not_add_up(alone: tuple[Node, int]) -> None:
    node, port = alone
    before = node.memory_kb()
    stranger = Stranger(port)
    for number in range(2, 3000):
        definition = wire.Definition(number, "t" * 4000, wire.KEY_TYPES["string"], 33, (0, 19), 600_000)
        stranger.sock.sendall(wire.put_message(wire.UPDATES, wire.DEFINE, definition.encode()))
    assert stranger.learn()
    assert node.memory_kb() - before < 8000


def test_who_asks_and_does_not_read_is_not_read(alone: tuple[Node, int]) -> None:
    """Each finished lesson is confirmed: without an end to what waits for a peer, it says so for ever."""
    node, port = alone
    stranger = Stranger(port)
    before = node.memory_kb()
    stranger.sock.settimeout(10)
    with contextlib.suppress(TimeoutError, ConnectionError):  # it is ended after five seconds
        for _ in range(100):
            stranger.sock.sendall(wire.put_message(wire.CONTROL, wire.RESYNC_FINISHED) * 500_000)
    assert node.memory_kb() - before < 30_000
    assert "show info" in node.cli("help")


def test_idle_connections_do_not_keep_a_peer_out(alone: tuple[Node, int]) -> None:
    node, port = alone
    idle = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(40)]
    stranger = Stranger(port)
    assert stranger.learn()
    assert node.cli("show peers").count("ESTA") == 1
    for sock in idle:
        sock.close()


def test_the_newest_connection_of_a_peer_replaces_the_old(alone: tuple[Node, int]) -> None:
    _, port = alone
    first = Stranger(port)
    second = Stranger(port)
    assert second.learn()
    rest = b"x"
    with contextlib.suppress(ConnectionError):
        while rest:
            rest = first.sock.recv(65536)
    assert second.learn(), "and stays"


def test_an_error_about_one_connection_ends_that_one(tmp_path: Path) -> None:
    """A fault that nobody has thought of, put into the session: the section lives and other peers are served."""
    (tmp_path / "sitecustomize.py").write_text(
        "from haptk.core.peers import session\n"
        "taught = session.Session._teach\n"
        "def broken(self):\n"
        "    broken.count += 1\n"
        "    if broken.count == 1:\n"
        "        raise MemoryError('put in by a test')\n"
        "    return taught(self)\n"
        "broken.count = 0\n"
        "session.Session._teach = broken\n"
    )
    a, b = free_ports(2)
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        node = Node("A", tmp_path, {"a": a, "b": b, "host_a": "127.0.0.1", "host_b": "127.0.0.1"})
    finally:
        del os.environ["PYTHONPATH"]
    try:
        with pytest.raises((AssertionError, ConnectionError)):
            Stranger(a).learn()
        assert Stranger(a).learn()
        assert "put in by a test" in node.said()
    finally:
        node.stop()


# -- who may come


def test_only_the_addresses_of_peer_lines_are_let_in() -> None:
    door = Door({"10.0.0.1", "2001:db8::1", "127.0.0.1"})
    assert all(door.admits(each) for each in ("10.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0::1", "127.8.8.8", "::1"))
    assert not any(door.admits(each) for each in ("10.0.0.2", "2001:db8::2", "fe80::1%eth0", ""))
    assert Door({"0.0.0.0"}).admits("127.0.0.1") and not Door({"0.0.0.0"}).admits("10.0.0.1")


def test_who_waits_longest_of_the_largest_crowd_gives_way() -> None:
    door = Door({"10.0.0.1", "10.0.0.2"}, 3)
    assert [door.came(number, "10.0.0.1") for number in (1, 2)] == [None, None]
    assert door.came(3, "10.0.0.2") is None
    assert door.came(4, "10.0.0.2") in (1, 3)
    door = Door({"10.0.0.1"}, 2)
    assert [door.came(number, "10.0.0.1") for number in (1, 2, 3)] == [None, None, 1]


@pytest.fixture
def network() -> Iterator[str]:
    """A namespace with four addresses."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and ip")
    name = f"haptk-peers-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        for last in (1, 2, 3):
            subprocess.run(["ip", "-n", name, "addr", "add", f"10.91.0.{last}/32", "dev", "lo"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def greet(network: str, source: str, port: int) -> str:
    """What a peers port answers to a right greeting from an address."""
    code = (
        "import socket,sys\n"
        f"s = socket.create_connection(('10.91.0.1', {port}), 10, ('{source}', 0))\n"
        "s.settimeout(10)\n"
        "try:\n s.sendall(b'HAProxyS 2.1\\nA\\nB 1 1\\n'); print(s.recv(100).decode())\n"
        "except ConnectionError: print('reset')\n"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", network, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_strangers_are_not_answered(tmp_path: Path, network: str) -> None:
    values = {"a": 5001, "b": 5002, "host_a": "10.91.0.1", "host_b": "10.91.0.2"}
    prefix = ("ip", "netns", "exec", network)
    node = Node("A", tmp_path, values, prefix)
    other = None
    try:
        assert greet(network, "10.91.0.3", 5001) in ("", "reset")
        assert greet(network, "10.91.0.2", 5001).startswith("200")
        other = Node("B", tmp_path, values, prefix)
        until(lambda: "ESTA" in node.cli("show peers"), "a real peer comes from the address of its line")
    finally:
        node.stop()
        if other is not None:
            other.stop()
