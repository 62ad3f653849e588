"""Rings and time zones of log lines beside the real HAProxy: `show events`, local time, and a change to summer time while running."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.log_worlds import Actors, get
from tests.diff.rig import HAPTK, free_ports

pytestmark = pytest.mark.real("haproxy")
TEXT = """global
    stats socket {socket} level admin
    {more}
defaults
    mode http
    timeout connect 1s
    timeout client 3s
    timeout server 3s
ring kept
    description "what was"
    format timed
    maxlen 200
    size 16384
listen web
    bind 127.0.0.1:{port}
    option httplog
    log ring@kept local1 info
    {log}
    server s1 127.0.0.1:{server}
"""


class Pair:
    """haproxy and haptk on the same file; `zone` is their TZ."""

    def __init__(self, work: Path, *, zone: str = "UTC", log: bool = False) -> None:
        self.actors = Actors()
        self.ports = free_ports(2)
        self.sockets = [work / "haproxy.sock", work / "haptk.sock"]
        self.logs = [work / "haproxy.log", work / "haptk.log"]
        self.children: list[subprocess.Popen[bytes]] = []
        for index, argv in enumerate((["haproxy"], [str(HAPTK), "proxy", "-q"])):
            file = work / f"{index}.cfg"
            file.write_text(
                TEXT.format(
                    socket=self.sockets[index], port=self.ports[index], server=self.actors.port, more="",
                    log="log stdout local0" if log else "",
                )
            )  # fmt: skip
            with self.logs[index].open("wb") as out:
                env = {**os.environ, "TZ": zone}
                self.children.append(
                    subprocess.Popen([*argv, "-db", "-f", str(file)], stdout=out, stderr=subprocess.DEVNULL, env=env)
                )
        for port in self.ports:
            self._up(port)

    def _up(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def ask(self, path: str) -> None:
        for port in self.ports:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                sock.sendall(get(path))
                assert b"hello" in sock.recv(4096)

    def say(self, index: int, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.sockets[index]))
            sock.sendall(f"{text}\n".encode())
            out = b""
            while part := sock.recv(65536):
                out += part
            return out.decode()

    def close(self) -> None:
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5)
        self.actors.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    both = Pair(tmp_path)
    try:
        yield both
    finally:
        both.close()


def _plain(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "ISO", text)
    text = re.sub(r"127\.0\.0\.1:\d+ \[[^]]*\]", "CLIENT", text)
    return re.sub(r" \d+/\d+/\d+/\d+/\d+ (\d+) \d+ ", r" TIMES \1 BYTES ", text)


def _events(pair: Pair, question: str, wanted: str) -> list[str]:
    """The answers of both, once the line that is waited for is there."""
    deadline = time.monotonic() + 10
    while True:
        found = [_plain(pair.say(index, question)) for index in (0, 1)]
        if all(wanted in text for text in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_show_events(pair: Pair) -> None:
    for number in range(3):
        pair.ask(f"/{number}")
    pair.ask("/long" + "x" * 400)
    theirs, ours = _events(pair, "show events kept", "/long")
    theirs, ours = ("".join(line for line in text.splitlines(True) if "BADREQ" not in line) for text in (theirs, ours))
    assert ours == theirs
    assert "<6>ISO CLIENT web web/s1 TIMES 200 BYTES - - ---- " in ours
    assert pair.say(1, "show events nothing") == pair.say(0, "show events nothing")
    assert pair.say(1, "show events kept -x") == pair.say(0, "show events kept -x")
    row = next(line for line in pair.say(0, "show events").splitlines() if " kept " in line)
    assert row in pair.say(1, "show events").splitlines()
    assert pair.say(1, "show events").splitlines()[0] == pair.say(0, "show events").splitlines()[0]


@pytest.mark.parametrize("options", ["-w", "-wn", "-w -n"])
def test_waiting_for_events(pair: Pair, options: str) -> None:
    pair.ask("/before")
    _events(pair, "show events kept", "/before")
    got = []
    for index in (0, 1):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(pair.sockets[index]))
            sock.sendall(f"show events kept {options}\n".encode())
            time.sleep(0.3)
            with socket.create_connection(("127.0.0.1", pair.ports[index]), 5) as client:
                client.sendall(get("/after"))
                client.recv(4096)
            out = b""
            while b"/after" not in out:
                part = sock.recv(65536)
                assert part, out
                out += part
            if index == 1:
                sock.sendall(b"\n")  # which HAProxy 2.6 does not heed, whatever its manual says
                while part := sock.recv(65536):
                    out += part
            got.append("".join(line for line in _plain(out.decode()).splitlines(True) if "BADREQ" not in line).strip())
    assert got[1] == got[0]
    assert ("/before" in got[1]) == ("n" not in options)


def _moments(text: str) -> list[tuple[str, str]]:
    """The syslog date and the accept date of each line for a request."""
    return re.findall(r"<134>(\w{3} [ \d]\d [\d:]{8}) .*? \[(\d\d/\w{3}/\d{4}:[\d:]{8})\.\d{3}\] .*GET", text)


def test_local_time_and_a_change_to_summer_time(tmp_path: Path) -> None:
    """A zone whose summer begins some seconds from now: lines before and after are an hour apart, in both programs."""
    change = time.gmtime(time.time() + 3600 + 7)  # standard time is an hour east of Greenwich
    day, rest = change.tm_yday - 1, time.strftime("%H:%M:%S", change)
    begins = time.time() + 7
    both = Pair(tmp_path, zone=f"ABC-1DEF-2,{day}/{rest},{(day + 100) % 365}/02:00:00", log=True)
    try:
        both.ask("/winter")
        early = time.time()
        while time.time() < begins + 0.5:
            time.sleep(0.1)
        both.ask("/summer")
        deadline = time.monotonic() + 10
        while any(len(_moments(log.read_text())) < 2 for log in both.logs):
            assert time.monotonic() < deadline, [log.read_text() for log in both.logs]
            time.sleep(0.05)
        for log in both.logs:
            for number, (stamp, accepted) in enumerate(_moments(log.read_text())):
                offset_s = 3600 if number == 0 else 7200
                local = time.strptime(accepted, "%d/%b/%Y:%H:%M:%S")
                truth = early if number == 0 else begins
                assert abs(_seconds(local) - offset_s - truth) < 5, (log, stamp, accepted)
                assert stamp[7:] == accepted[12:], "the header's time is another zone's"
        assert early < begins - 0.5, "the machine was too slow to see winter"
    finally:
        both.close()


def _seconds(local: time.struct_time) -> float:
    import calendar

    return calendar.timegm(local)
