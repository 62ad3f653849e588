"""What a daemon says of its own number: it is the one in its pid file, in traffic, in %pid and in news of servers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.diff.rig import HAPTK, LogServer, exchange
from tests.ports import free_ports


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("way", ["-D", "daemon", "-W -D"])
def test_a_daemon_logs_its_own_pid(tmp_path: Path, way: str) -> None:
    log = LogServer()
    port, dead = free_ports(2)
    pidfile, file = tmp_path / "pid", tmp_path / "haproxy.cfg"
    file.write_text(
        f"global\n    log 127.0.0.1:{log.port} local0\n{'    daemon' * (way == 'daemon')}\n"
        f'listen l\n    mode http\n    bind 127.0.0.1:{port}\n    log global\n    log-format "/case/line %pid %{{+X}}pid"\n'
        "    timeout client 5s\n    timeout connect 5s\n    timeout server 5s\n"
        f"    http-request return status 200 hdr X-Pid %pid\n    server gone 127.0.0.1:{dead} check inter 100ms fall 1\n"
    )
    words = [word for word in way.split() if word.startswith("-")]
    subprocess.run([str(HAPTK), "proxy", *words, "-p", str(pidfile), "-f", str(file)], check=True, timeout=60)
    pids = [int(word) for word in pidfile.read_text().split()]
    try:
        got = exchange(("127.0.0.1", port), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got.values("x-pid") == [str(pids[0])]
        found = re.search(r"\[(\d+)\]: /case/line (\d+) ([0-9A-F]+)", log.line("line", 10))
        assert found
        assert {int(found[1]), int(found[2]), int(found[3], 16)} == {pids[0]}
        deadline = time.monotonic() + 10
        while not (news := [line for line in log.lines.get("", []) if "gone is DOWN" in line]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert f"[{pids[0]}]: " in news[0]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while not all(map(gone, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        log.close()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_daemon_greets_its_peers_with_its_own_pid(tmp_path: Path) -> None:
    port, own = free_ports(2)
    pidfile, file = tmp_path / "pid", tmp_path / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0)) as other:
        file.write_text(
            f"global\n    localpeer here\npeers p\n    peer here 127.0.0.1:{own}\n    peer there 127.0.0.1:{other.getsockname()[1]}\n"
            f"    table t type ip size 10\nlisten l\n    mode http\n    bind 127.0.0.1:{port}\n    timeout client 5s\n"
            "    timeout connect 5s\n    timeout server 5s\n    stick on src table p/t\n    server s 127.0.0.1:9\n"
        )
        subprocess.run([str(HAPTK), "proxy", "-D", "-p", str(pidfile), "-f", str(file)], check=True, timeout=60)
        pid = int(pidfile.read_text())
        try:
            other.settimeout(30)
            channel, _ = other.accept()
            with channel:
                channel.settimeout(30)
                hello = b""
                while hello.count(b"\n") < 3:
                    hello += channel.recv(4096)
            assert hello.split(b"\n")[2].split()[:2] == [b"here", str(pid).encode()]
        finally:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while not gone(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
