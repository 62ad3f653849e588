"""Services of the control plane go on: an error about one item, no descriptors, a client that takes nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from haptk.proxy import names, supervise
from haptk.proxy.compile import compile_config
from haptk.proxy.runtime.dialog import Dialog
from haptk.proxy.runtime.shell import Runtime
from haptk.proxy.service import Desk
from haptk.proxy.tables import Bind, Process

pytestmark = pytest.mark.timeout(120)


def until(holds, what: str) -> None:
    deadline = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_service_rests_longer_after_each_failure_and_mends_itself() -> None:
    patience = supervise.Patience()
    pauses = [patience.after_failure(now) for now in (0.0, 0.1, 0.2)]
    assert pauses == [0.05, 0.1, 0.2]
    assert [patience.after_failure(now) for now in range(1, 9)][-1] == 5.0
    assert patience.after_failure(100.0) == 0.05
    stopping, seen = threading.Event(), []

    def turn() -> None:
        seen.append("turn")
        if len(seen) < 3:
            raise MemoryError
        stopping.set()

    supervise.keep("it", turn, stopping, lambda: seen.append("mend"))
    assert seen == ["turn", "mend", "turn", "mend", "turn"] or seen == ["turn", "mend", "turn"]


class Asking:
    """A request whose head breaks whoever reads it, or not."""

    def __init__(self, head: bytes, told: list[int]) -> None:
        self.head, self.told = head, told
        self.abandoned, self.service, self.frontend, self.backend = False, 1, 0, -1
        self.body, self.peer, self.minor, self.keep = b"", "", 1, True

    def answer(self, status: int, _wire: bytes) -> None:
        self.told.append(status)


class Hand:
    """What the desk sees of a worker."""

    def __init__(self) -> None:
        self.service_fd = os.eventfd(0)
        self.waiting: list[Asking] = []

    def requests(self) -> list[Asking]:
        os.eventfd_read(self.service_fd)
        found, self.waiting = self.waiting, []
        return found


def test_the_desk_outlives_a_request_that_it_cannot_read() -> None:
    hand, told = Hand(), []
    desk = Desk([hand], lambda ask: 1 / 0)  # type: ignore[arg-type, return-value]
    desk.start()
    for head in (b"rubbish", b"GET / HTTP/1.1\r\n\r\n"):
        hand.waiting.append(Asking(head, told))
        os.eventfd_write(hand.service_fd, 1)
        until(lambda: not hand.waiting, "it was taken")
    until(lambda: told == [500], "the second one was answered")
    desk.stop()
    os.close(hand.service_fd)


class Broken:
    """A world that fails once."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        raise RuntimeError("put in by a test")


def test_the_runtime_api_lives_and_rests_without_descriptors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime(Broken(), list)
    path = tmp_path / "s"
    runtime.open(Process(stats_sockets=(Bind("", 0, unix_path=str(path), level="admin"),)))
    turns: list[int] = []
    original = runtime._turn

    def turn(selector) -> bool:
        turns.append(1)
        if len(turns) == 1:
            raise MemoryError("put in by a test")
        return original(selector)

    runtime._turn = turn  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        runtime.start()
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.settimeout(10)
                sock.connect(str(path))
                sock.sendall(b"show info\n")
                sock.recv(100)
    assert "the runtime API failed (MemoryError)" in caplog.text
    until(lambda: len(turns) > 3, "it goes on")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as sock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
        try:
            before = time.process_time()
            sock.connect(str(path))
            time.sleep(0.6)
            spent = time.process_time() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert spent < 0.3, "it does not spin while there are no descriptors"
        sock.settimeout(20)
        sock.sendall(b"quit\n")
        assert sock.recv(100) == b""
    runtime.stop()


def test_one_name_that_breaks_the_resolver_ends_nobody_else() -> None:
    from haptk.formats.haproxy_cfg import Source, parse

    text = "listen l\n mode http\n bind 127.0.0.1:1\n server a bad.test:1 init-addr none\n server b good.test:1 init-addr none\n"
    tables = compile_config(parse([Source("x.cfg", text)], {}), lambda _: None)
    moves: list[tuple[int, str]] = []
    slow = threading.Event()

    def look_up(host: str) -> list[str]:
        if host == "bad.test":
            slow.wait(3)
            raise RecursionError("put in by a test")
        return ["10.0.0.1"]

    watch = names.NameWatch(tables, lambda gid, host, *_: moves.append((gid, host)), lookup=look_up, eager_s=0.05)
    began = time.monotonic()
    watch.start()
    until(lambda: moves, "the good one is found")
    assert time.monotonic() - began < 2.5, "a slow name does not hold others up"
    slow.set()
    time.sleep(0.2)
    watch.stop()
    assert moves == [(1, "10.0.0.1")]


def test_whatever_a_name_server_says_is_an_answer() -> None:
    """Mutated responses, an address of another class, and then the truth: nothing raises, and the truth is found."""
    import random

    import dns.message
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.rrset

    from haptk.proxy import resolver
    from haptk.proxy.tables import NameServer, Resolvers

    random_ = random.Random(11)

    def foreign() -> dns.rrset.RRset:
        kind = (dns.rdataclass.CH, dns.rdatatype.A)
        return dns.rrset.from_rdata("a.test.", 5, dns.rdata.GenericRdata(*kind, b"\x0a\0\0\3"))

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = sock.recvfrom(4096)
                response = dns.message.make_response(dns.message.from_wire(data))
                response.answer.append(dns.rrset.from_text("a.test.", 5, "IN", "A", "10.0.0.1", "10.0.0.2"))
                wire = response.to_wire()
                other = dns.message.make_response(dns.message.from_wire(data))
                other.answer.append(foreign())
                for lie in [other.to_wire(), *(mutated(wire) for _ in range(40)), b"", b"\0" * 12, wire]:
                    sock.sendto(lie, client)

    def mutated(wire: bytes) -> bytes:
        data = bytearray(wire)
        for _ in range(random_.randint(1, 9)):
            data[random_.randrange(2, len(data))] = random_.choice((0, 0xC0, 0xFF, random_.randrange(256)))
        return bytes(data[: random_.randrange(12, len(data) + 1)])

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
        rules = Resolvers("r", (NameServer("127.0.0.1", sock.getsockname()[1]),), retries=2, retry_s=2)
        for _ in range(20):
            answer = resolver.ask(rules, "a.test", "ipv4")
            assert answer.status in ("valid", "nx", "other", "refused", "timeout")
        query = dns.message.make_query("a.test", dns.rdatatype.A)
        response = dns.message.make_response(query)
        response.answer.append(foreign())
        assert resolver._meaning(response, dns.rdatatype.A).addresses == ()


class Rows:
    """A table of a million rows as far as `show table` asks."""

    name, type, length, stored, size, expire_ms = "big", "string", 8, (), 1 << 20, 0
    used = 100_000

    def __init__(self) -> None:
        self.asked = 0

    def entries(self, start: int = 0, count: int = 4096):
        end = min(start + count, self.used)
        return (end if end < self.used else 0), [(b"%08d" % n, 0, 0, b"", 0, ()) for n in range(start, end)]

    def get(self, key: bytes):
        self.asked += 1
        return key, 0, 0, b"", 0, ()

    def values(self, _key: bytes):
        return 0, []


def test_a_long_answer_is_made_as_it_is_taken() -> None:
    class Look:
        stores: ClassVar = {"big": Rows()}
        sticky: frozenset[str] = frozenset()

    dialog = Dialog(Look, "admin")  # type: ignore[arg-type]
    dialog.receive(b"show table big\n")
    pieces = [dialog.step() for _ in range(3)]
    assert all(pieces) and sum(map(len, pieces)) < 100_000
    assert Look.stores["big"].asked < 2000
    while (piece := dialog.step()) is not None:
        pieces.append(piece)
    text = b"".join(pieces)
    assert text.count(b"key=") == 100_000 and text.endswith(b"\n\n") and dialog.over
