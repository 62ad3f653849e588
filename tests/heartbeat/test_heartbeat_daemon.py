"""Two real daemons on loopback, without root: start, death, hand-over, stop, checks, keys, errors."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

SCRIPT = """#!/bin/sh
case $2 in
start) touch {dir}/up.$HA_CURHOST;;
stop) rm -f {dir}/up.$HA_CURHOST;;
status) if [ -f {dir}/up.$HA_CURHOST ]; then echo running; else echo stopped; fi;;
esac
"""


def wait_for(what: Callable[[], object], why: str, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {why}"
        time.sleep(0.02)


def haptk(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "haptk", *argv], capture_output=True, text=True, timeout=60)


class Daemons:
    """A pair below one directory; addresses of its own on loopback."""

    def __init__(self, base: Path) -> None:
        self.dir = base
        third = os.getpid() % 250 + 1
        self.address = {"a": f"127.{third}.71.1", "b": f"127.{third}.71.2"}
        self.reach = {"a": self.address["a"], "b": self.address["b"]}
        """Where each is found by the other: its own address, or a wire's (see test_eip_lease_witness)."""

        self.env: dict[str, dict[str, str]] = {}
        self.port = free_port(self.address["a"])
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        scripts = base / "resource.d"
        scripts.mkdir()
        (scripts / "web").write_text(SCRIPT.format(dir=base))
        (scripts / "web").chmod(0o755)
        assert haptk("heartbeat", "keygen", str(base / "key")).returncode == 0

    def start(self, name: str, *more: str, key: str = "key") -> None:
        other = "b" if name == "a" else "a"
        argv = [
            sys.executable, "-m", "haptk", "heartbeat", "--node", name, "--bind", self.address[name],
            "--peer", self.reach[other], "--udpport", str(self.port), "--keepalive", "100ms", "--deadtime", "1",
            "--initdead", "2", "--monitor", "500ms", "--key-file", str(self.dir / key), "--log-format", "json",
            "--state-dir", str(self.dir / f"state.{name}"), "--control", str(self.dir / f"{name}.sock"),
            "--resource-dir", str(self.dir / "resource.d"), "--resource", "web::x", *more,
        ]  # fmt: skip
        with (self.dir / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env.get(name)
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.dir / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and '"event"' in line]

    def said(self, name: str, event: str) -> bool:
        return any(line["event"] == event for line in self.events(name))

    def status(self, name: str) -> dict[str, Any]:
        done = haptk("heartbeat", "status", "--json", "--control", str(self.dir / f"{name}.sock"))
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def holders(self) -> str:
        return "".join(sorted(path.suffix[1:] for path in self.dir.glob("up.*")))

    def up(self, *more: str) -> None:
        self.start("a", *more)
        self.start("b", *more)
        wait_for(lambda: self.said("a", "resource_started") and self.said("b", "peer_up"), self.logs())

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.dir.glob("*.log"))

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).wait()

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Daemons]:
    made = Daemons(tmp_path)
    yield made
    made.close()


def test_death_and_return(pair: Daemons) -> None:
    pair.up()
    assert pair.holders() == "a"
    pair.kill("a")
    (pair.dir / "up.a").unlink()
    wait_for(lambda: pair.holders() == "b" and pair.said("b", "resource_started"), pair.logs())
    names = [line["event"] for line in pair.events("b")]
    assert names.index("peer_dead") < names.index("resource_start") < names.index("resource_started")
    pair.start("a")
    wait_for(lambda: pair.status("a").get("phase") == "stable", pair.logs())
    found = pair.status("b")
    assert (found["hold"], found["peer"]["hold"], found["rscstatus"]) == ("foreign", "none", "foreign")
    assert pair.holders() == "b"


def test_graceful_stop_hands_over_and_leaves_nothing(pair: Daemons) -> None:
    pair.up()
    pair.running["a"].send_signal(signal.SIGTERM)
    assert pair.running.pop("a").wait(timeout=20) == 0
    wait_for(lambda: pair.holders() == "b", pair.logs())
    assert not pair.said("b", "peer_dead")
    assert not (pair.dir / "a.sock").exists()
    assert haptk("heartbeat", "stop", "--control", str(pair.dir / "b.sock")).returncode == 0
    assert pair.running.pop("b").wait(timeout=20) == 0
    assert pair.holders() == ""


def test_a_second_signal_leaves_at_once(pair: Daemons) -> None:
    (pair.dir / "resource.d" / "web").write_text(SCRIPT.format(dir=pair.dir).replace("stop) ", "stop) sleep 30; "))
    pair.up()
    pair.running["a"].send_signal(signal.SIGTERM)
    wait_for(lambda: pair.said("a", "stopping"), pair.logs())
    pair.running["a"].send_signal(signal.SIGTERM)
    assert pair.running.pop("a").wait(timeout=10) == 1


def test_kill_minus_nine_and_restart_goes_on(pair: Daemons) -> None:
    slow = ("--deadtime", "20", "--initdead", "20")
    pair.up(*slow)
    generation = pair.status("a")["generation"]
    pair.kill("a")
    pair.start("a", *slow)
    wait_for(lambda: pair.said("a", "resource_found"), pair.logs())
    wait_for(lambda: pair.status("a").get("hold") == "local", pair.logs())
    assert pair.status("a")["generation"] == generation + 1
    assert pair.holders() == "a"
    assert not pair.said("b", "resource_start")


def test_standby_and_takeover(pair: Daemons) -> None:
    pair.up()
    wait_for(lambda: pair.status("a").get("stable") and pair.status("a")["peer"]["stable"], pair.logs())
    done = haptk("heartbeat", "standby", "--control", str(pair.dir / "a.sock"))
    assert (done.returncode, done.stdout) == (0, "asked b to take all\n"), done.stderr
    wait_for(lambda: pair.holders() == "b" and pair.said("a", "handed_over"), pair.logs())
    assert haptk("heartbeat", "takeover", "--control", str(pair.dir / "a.sock")).returncode == 0
    wait_for(lambda: pair.holders() == "a", pair.logs())


def test_a_resource_that_dies_is_started_again(pair: Daemons) -> None:
    pair.up()
    (pair.dir / "up.a").unlink()
    wait_for(lambda: pair.said("a", "resource_lost"), pair.logs())
    wait_for(lambda: pair.holders() == "a", pair.logs())


class Service(http.server.BaseHTTPRequestHandler):
    well = True

    def do_GET(self) -> None:
        self.send_response(200 if type(self).well else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_failing_check_hands_over_to_a_healthy_peer(pair: Daemons) -> None:
    class First(Service):
        pass

    class Second(Service):
        pass

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (First, Second)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name, server in zip("ab", servers, strict=True):
            url = f"http://127.0.0.1:{server.server_port}/index.html"
            pair.start(name, "--check", url, "--check-inter", "100ms", "--check-fall", "3")
        wait_for(lambda: pair.holders() == "a" and pair.said("b", "local_check_up"), pair.logs())
        First.well = False
        wait_for(lambda: pair.holders() == "b", pair.logs())
        wait_for(lambda: pair.said("a", "resource_stopped"), pair.logs())
        names = [line["event"] for line in pair.events("a")]
        assert names.index("local_check_down") < names.index("handover") < names.index("resource_stopped")
        Second.well = False  # now nobody could serve: the holder keeps it
        wait_for(lambda: pair.said("b", "local_check_down"), pair.logs())
        time.sleep(1)
        assert pair.holders() == "b"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def test_key_rotation_without_a_gap(pair: Daemons) -> None:
    """Both nodes know both keys; they switch one after the other. The original declares the peer dead here."""
    pair.up()
    key = pair.dir / "key"
    old = key.read_text().splitlines()[1]
    for active in (1, 2):
        key.write_text(f"auth {active}\n{old}\n2 sha1 another\n")
        for name in "ab":
            done = haptk("heartbeat", "reload", "--control", str(pair.dir / f"{name}.sock"))
            assert f"signing with key {active}" in done.stdout, done.stderr
            time.sleep(1.2)  # longer than the dead time, with the two nodes signing differently
    assert not pair.said("a", "peer_dead")
    assert not pair.said("b", "peer_dead")
    key.write_text("auth 3\n")
    assert "the old configuration stays" in haptk("heartbeat", "reload", "--control", str(pair.dir / "a.sock")).stderr
    time.sleep(1.2)
    assert pair.status("b")["peer"]["state"] == "active"


def test_garbage_and_strangers_do_not_disturb(pair: Daemons) -> None:
    pair.up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for packet in (b"", b"###\n", b"x" * 60000, b">>>\nt=status\nauth=1 00\n<<<\n") * 20:
            sender.sendto(packet, (pair.address["a"], pair.port))
    time.sleep(0.5)
    assert pair.status("a")["peer"]["state"] == "active"
    refused = [line for line in pair.events("a") if line["event"] == "refused"]
    assert 1 <= len(refused) <= 3


def test_another_daemon_in_the_same_place_is_refused(pair: Daemons) -> None:
    pair.start("a")
    wait_for(lambda: pair.status("a"), pair.logs())
    before = len(pair.logs())
    pair.start("a")
    assert pair.running["a"].wait(timeout=20) != 0
    assert "is running already" in pair.logs()[before:]
    assert haptk("heartbeat", "stop", "--control", str(pair.dir / "a.sock")).returncode == 0


def test_a_failed_stop_is_escalated_and_the_peer_starts_nothing(pair: Daemons) -> None:
    web = pair.dir / "resource.d" / "web"
    tries = "stop) echo x >> {dir}/tries; [ $(wc -l < {dir}/tries) -gt 12 ] || exit 1; rm"
    web.write_text(SCRIPT.replace("stop) rm", tries).format(dir=pair.dir))
    tool = pair.dir / "escalate"
    tool.write_text(f"#!/bin/sh\necho $HA_FAILED_RESOURCE > {pair.dir}/escalated\n")
    tool.chmod(0o755)
    pair.up("--on-stop-failure", str(tool))
    assert haptk("heartbeat", "stop", "--no-wait", "--control", str(pair.dir / "a.sock")).returncode == 0
    wait_for((pair.dir / "escalated").exists, pair.logs(), 40)
    assert pair.holders() == "a"
    wait_for(lambda: pair.holders() == "b", pair.logs())  # the next round of tries succeeds
    assert pair.running.pop("a").wait(timeout=20) == 0
    assert (pair.dir / "escalated").read_text() == "web::x\n"
    assert pair.said("a", "stop_blocked")


def test_systemd_hears_ready_watchdog_and_stopping(pair: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = pair.dir / "notify"
        systemd.bind(str(path))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        pair.start("a")
        heard: list[bytes] = []
        while not any(b"WATCHDOG=1" in message for message in heard):
            heard.append(systemd.recv(4096))
        assert heard[0].startswith(b"READY=1\nSTATUS=")
        pair.running["a"].send_signal(signal.SIGTERM)
        while not any(b"STOPPING=1" in message for message in heard):
            heard.append(systemd.recv(4096))
    assert pair.running.pop("a").wait(timeout=20) == 0


def test_what_a_restart_has_to_know_is_on_disk(pair: Daemons) -> None:
    pair.up()
    file = pair.dir / "state.a" / "peers.json"
    wait_for(file.exists, pair.logs())
    peers = json.loads(file.read_text())
    assert peers["b"]["generation"] == pair.status("b")["generation"]
    assert peers["b"]["uuid"] == pair.status("b")["uuid"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "who is the other node? --peer ADDR"),
        (["--peer", "10.0.1.5", "--key-file", "/nonexistent/key"], "haptk heartbeat keygen /nonexistent/key"),
        (["--peer", "lb2", "--key-file", "KEY"], "'lb2' is not an IP address"),
        (["--peer", "10.0.1.5", "--key-file", "KEY", "--deadtime", "3"], "more than twice the keepalive"),
        (["--peer", "10.0.1.5", "--key-file", "KEY", "--initdead", "3"], "initdead 3 s is below deadtime"),
        (["--peer", "10.0.1.5", "--key-file", "CRC"], "crc protects nothing"),
        (["--peer", "10.0.1.5", "--key-file", "OPEN"], "chmod 600"),
        (["--peer", "10.0.1.5", "--key-file", "KEY", "--node", "x", "--peer-name", "X"], "both nodes are called x"),
        (["--peer", "10.0.1.5", "--key-file", "KEY", "--check", "ftp://x"], "http://HOST:PORT/PATH or tcp:HOST:PORT"),
        (["-f", "/nonexistent"], "/nonexistent/ha.cf: heartbeat's configuration"),
        (["-f", "/nonexistent", "--keepalive", "2"], "--keepalive cannot be given with -f"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, argv: list[str], why: str) -> None:
    for name, text, mode in (("KEY", "1 sha1 x", 0o600), ("CRC", "1 crc", 0o600), ("OPEN", "1 sha1 x", 0o644)):
        (tmp_path / name).write_text(f"auth 1\n{text}\n")
        (tmp_path / name).chmod(mode)
    words = [str(tmp_path / word) if word in ("KEY", "CRC", "OPEN") else word for word in argv]
    done = haptk("heartbeat", *words, "--state-dir", str(tmp_path / "state"), "--control", str(tmp_path / "x.sock"))
    assert done.returncode not in (0, 1)
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert why in lines[0]


def test_keygen_makes_a_private_file_and_keeps_an_old_one(tmp_path: Path) -> None:
    target = tmp_path / "key"
    assert haptk("heartbeat", "keygen", str(target)).returncode == 0
    before = target.read_text()
    assert target.stat().st_mode & 0o777 == 0o600
    assert before.startswith("auth 1\n1 sha1 ")
    assert len(before.split()[-1]) == 64
    done = haptk("heartbeat", "keygen", str(target))
    assert "it exists already" in done.stderr
    assert target.read_text() == before


def test_status_of_nothing(tmp_path: Path) -> None:
    done = haptk("heartbeat", "status", "--control", str(tmp_path / "x.sock"))
    assert done.returncode == 72
    assert "haptk heartbeat is not running" in done.stderr
