"""Where log lines go when their reader is slow, gone or full: traffic goes on, and what is lost is counted."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from haptk.proxy.tables import LogPlan, LogRing, LogTarget

GET = b"GET /%05d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE_S = 20.0


def wait_for(what, *, why="it never came true"):
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def plan(address: str, **more: object) -> LogPlan:
    return LogPlan((LogTarget(address, format="raw", **more),), "http")  # type: ignore[arg-type]


def ask(proxy, count: int, start: int = 0) -> None:
    """`count` requests on one connection, pipelined; every one is answered."""
    with proxy.connect() as sock:
        for at in range(start, start + count, 50):
            some = range(at, min(at + 50, start + count))
            sock.sendall(b"".join(GET % number for number in some))
            data = b""
            while data.count(b"HTTP/1.1 200") < len(some):
                part = sock.recv(1 << 20)
                assert part, "the proxy stopped answering"
                data += part


def settled(proxy, lines: int) -> None:
    """Every line was either sent or counted as dropped."""

    def counted() -> int:
        return proxy.engine.journal.writer.counts()[0] + proxy.counters()["log_dropped"]

    wait_for(lambda: counted() >= lines, why=f"{counted()} of {lines} lines")
    assert counted() == lines


@pytest.fixture
def fast_only(proxied):
    from haptk.proxy.engine import data_plane
    from haptk.proxy.tables import ProxyTables

    if not hasattr(data_plane(ProxyTables((), ()))[1], "requests"):
        pytest.skip("the reference sends its lines itself")
    return proxied


def test_a_full_datagram_socket(scripted, fast_only, tmp_path):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        proxy = fast_only(scripted(), fe_log=plan(path))
        ask(proxy, 3000)
        settled(proxy, 3000)
        dropped = proxy.counters()["log_dropped"]
        assert dropped > 1000
        # a reader that wakes up gets what was waiting for it, and the lines of now
        reader.setblocking(False)
        seen: list[bytes] = []

        def drained() -> bool:
            while True:
                try:
                    seen.append(reader.recv(4096))
                except BlockingIOError:
                    return any(b"/90000 " in line for line in seen)

        drained()
        ask(proxy, 1, 90000)
        wait_for(drained)
        assert all(
            re.fullmatch(rb'127\.0\.0\.1:\d+ \[.*\] web web/s1 .* "GET /\d{5} HTTP/1\.1"\n', line) for line in seen
        )
        assert proxy.counters()["log_dropped"] == dropped


def test_a_slow_reader_of_a_datagram_socket_loses_nothing(scripted, fast_only, tmp_path):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        reader.settimeout(DEADLINE_S)
        proxy = fast_only(scripted(), fe_log=plan(path))
        found: list[bytes] = []

        def read() -> None:
            while len(found) < 600:
                found.append(reader.recv(4096))
                if len(found) % 20 == 0:
                    time.sleep(0.005)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        ask(proxy, 600)
        thread.join(DEADLINE_S)
        assert [int(re.search(rb"GET /(\d+)", line)[1]) for line in found] == list(range(600))
        assert proxy.counters()["log_dropped"] == 0


def test_a_reader_that_goes_and_comes_back(scripted, fast_only, tmp_path):
    path = Path(tmp_path / "log")
    proxy = fast_only(scripted(), fe_log=plan(str(path)))
    ask(proxy, 5)
    settled(proxy, 5)
    assert proxy.counters()["log_dropped"] == 5  # nobody was there at all
    for number in (1, 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
            reader.bind(str(path))
            reader.settimeout(0.2)
            deadline = time.monotonic() + DEADLINE_S
            while True:
                ask(proxy, 1, 1000 * number)
                try:
                    assert b"GET /" in reader.recv(4096)
                    break
                except TimeoutError:
                    assert time.monotonic() < deadline, "the lines never came back"
        path.unlink()
        ask(proxy, 1)


def test_a_full_pipe(scripted, fast_only):
    read_end, write_end = os.pipe()
    try:
        proxy = fast_only(scripted(), fe_log=plan(f"fd@{write_end}"))
        ask(proxy, 3000)
        settled(proxy, 3000)
        assert proxy.counters()["log_dropped"] > 1000
        os.set_blocking(read_end, False)
        text = b""
        while True:
            try:
                text += os.read(read_end, 1 << 20)
            except BlockingIOError:
                break
        lines = text.splitlines(keepends=True)
        assert len(lines) + proxy.counters()["log_dropped"] == 3000
        assert all(
            re.fullmatch(rb'127\.0\.0\.1:\d+ \[.*\] web web/s1 .* "GET /\d{5} HTTP/1\.1"\n', line) for line in lines
        )
        ask(proxy, 1, 90000)
        wait_for(lambda: _has(read_end, b"/90000 "))
    finally:
        os.close(read_end)
        os.close(write_end)


def _has(descriptor: int, what: bytes) -> bool:
    try:
        return what in os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return False


def test_a_full_disk(scripted, fast_only):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        proxy = fast_only(scripted(), fe_log=plan(f"fd@{descriptor}"))
        ask(proxy, 500)
        settled(proxy, 500)
        assert proxy.counters()["log_dropped"] == 500
    finally:
        os.close(descriptor)


def test_one_full_place_costs_the_others_nothing(scripted, fast_only, tmp_path):
    path = str(tmp_path / "log")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stalled,
        (tmp_path / "file").open("wb") as kept,
    ):
        stalled.bind(path)
        targets = (LogTarget(path, format="raw"), LogTarget(f"fd@{kept.fileno()}", format="raw"))
        proxy = fast_only(scripted(), fe_log=LogPlan(targets, "http"))
        ask(proxy, 2000)
        settled(proxy, 4000)
        numbers = [int(found) for found in re.findall(rb"GET /(\d+)", (tmp_path / "file").read_bytes())]
        assert numbers == list(range(2000))


def test_lines_that_nobody_waits_for_are_written_before_the_end(scripted, fast_only, tmp_path):
    with (tmp_path / "file").open("wb") as kept:
        proxy = fast_only(scripted(), fe_log=plan(f"fd@{kept.fileno()}"))
        ask(proxy, 200)
        proxy.engine.stop(now=True)
        assert proxy.engine.wait(5)
        assert (tmp_path / "file").read_bytes().count(b"\n") == 200


def test_long_lines_are_cut_where_len_says(scripted, fast_only):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader:
        reader.bind(("127.0.0.1", 0))
        reader.settimeout(5)
        address = f"127.0.0.1:{reader.getsockname()[1]}"
        targets = (LogTarget(address, format="raw", length=80), LogTarget(address, length=100))
        proxy = fast_only(scripted(), fe_log=LogPlan(targets, "http"))
        proxy.talk(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", quiet_s=0.1)
        lines = sorted((reader.recv(9000) for _ in range(2)), key=len)
        assert [len(line) for line in lines] == [81, 101]
        assert all(line.endswith(b"\n") for line in lines)
        assert lines[1].startswith(b"<134>")


def test_rings_keep_the_newest(scripted):
    from haptk._fast.logwriter import EventRing
    from haptk.proxy.engine import Engine
    from haptk.proxy.listeners import Listeners
    from tests.proxy.conftest import tables_for

    tables = tables_for([scripted().port], fe_log=LogPlan((LogTarget("ring@kept"),), "http"))
    from dataclasses import replace

    engine = Engine(replace(tables, rings=(LogRing("kept", format="raw", size=16384),)), Listeners())
    listeners = engine.adjust.listeners
    engine.start()
    try:
        port = int(listeners.addresses()[0].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            for number in range(400):
                sock.sendall(GET % number)
                sock.recv(4096)
        ring = engine.journal.rings["kept"]
        assert isinstance(ring, EventRing)
        wait_for(lambda: b"/00399 " in b"".join(ring.read()[0]))
        lines, end = ring.read()
        numbers = [int(re.search(rb"GET /(\d+)", line)[1]) for line in lines]
        assert numbers == list(range(400 - len(lines), 400))
        assert 16384 - 200 < sum(len(line) + 4 for line in lines) <= 16384
        assert ring.read(end) == ([], end)
        assert ring.dropped == 0
    finally:
        engine.stop(now=True)
        assert engine.wait(5)
        listeners.close()
