"""`haptk proxy status|drain|ready|maint|weight`, and the real hatop, on a running proxy."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haptk.cli.app import haptk
from haptk.cli.base import run

CONFIG = """global
    stats socket {folder}/admin level admin
    stats socket {folder}/user level user
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
listen web
    bind 127.0.0.1:{port}
    server a 127.0.0.1:{server} weight 10
    server b 127.0.0.1:{server}
"""


@pytest.fixture
def proxy(tmp_path: Path, scripted) -> Iterator[Path]:
    """The folder of the sockets of a running proxy."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = tmp_path / "x.cfg"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, server=scripted().port))
    with (tmp_path / "err").open("wb") as errors:
        argv = [sys.executable, "-m", "haptk", "proxy", "-f", str(config)]
        child = subprocess.Popen(argv, stdout=errors, stderr=errors)
    try:
        deadline = time.monotonic() + 60
        while "serving on" not in (tmp_path / "err").read_text():
            assert time.monotonic() < deadline, (tmp_path / "err").read_text()
            time.sleep(0.02)
        yield tmp_path
    finally:
        child.kill()
        child.wait(10)


def test_a_person_drains_and_weighs(proxy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*argv: str, at: str = "admin") -> tuple[int, str, str]:
        code = run(haptk, ["proxy", *argv, "--socket", str(proxy / at)])
        done = capsys.readouterr()
        return code, done.out, done.err

    def status() -> dict[str, str]:
        code, out, _ = say("status", "--json")
        assert code == 0
        return {row["svname"]: row["status"] for row in json.loads(out)["proxies"]}

    assert status() == {"FRONTEND": "OPEN", "a": "no check", "b": "no check", "BACKEND": "UP"}
    assert say("drain", "web/a")[0] == 0
    assert say("maint", "web/b")[0] == 0
    assert status() == {"FRONTEND": "OPEN", "a": "DRAIN", "b": "MAINT", "BACKEND": "DOWN"}
    assert say("ready", "web/a", "web/b")[0] == 0
    assert status()["BACKEND"] == "UP"
    assert json.loads(say("weight", "web/a", "50%", "--json")[1]) == {"server": "web/a", "weight": 5, "initial": 10}
    assert say("weight", "web/a")[1] == "web/a: 5 (initial 10)\n"
    assert "web/a" in say("status", "web")[1]

    code, _, err = say("drain", "web/zz")
    assert (code, "No such server." in err) == (76, True)
    code, _, err = say("weight", "web/a", "x")
    assert (code, "preceded by garbage" in err) == (76, True)
    assert say("status", "nosuch")[0] == 76
    code, _, err = say("drain", "web/a", at="user")
    assert (code, "level admin" in err) == (77, True)
    assert say("drain", "web/a;quit")[0] == 2
    code, _, err = say("status", at="nobody")
    assert (code, "nobody answers" in err) == (72, True)


def test_each_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("status", "drain", "ready", "maint", "weight"):
        assert run(haptk, ["proxy", verb, "--help"]) == 0
        assert "--socket" in capsys.readouterr().out


@pytest.mark.real("hatop")
def test_hatop_shows_it(proxy: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.environ["TERM"] = "xterm"
        os.execvp("hatop", ["hatop", "-s", str(proxy / "admin")])
    seen = b""

    def look(until: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 60
        while until not in re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", seen):
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536)

    try:
        look(b"BACKEND")
        look(b"HAProxy Version: ")
        os.write(terminal, b"q")
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    seen += os.read(terminal, 65536)
                except OSError:
                    continue
        assert ended[1] == 0, seen
        pid = 0
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        os.close(terminal)
