"""Reload while requests run: nothing refused, nothing cut, no leak; the server-state file, both ways with HAProxy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.proxy.conftest import read_answer
from tests.proxy.test_runtime_real import ask, wait_for

RELOADS = int(os.environ.get("HAPTK_RELOADS", "30"))
CONFIG = """global
    stats socket {folder}/admin level admin
    server-state-base {folder}
    server-state-file states
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    load-server-state-from-file {scope}
listen web
    bind 127.0.0.1:{port}
    cookie SRV insert indirect nocache
    server s1 127.0.0.1:{server} cookie a weight 10 check inter 100s
    server s2 127.0.0.1:{server} cookie b weight 20 check inter 100s
    server s3 127.0.0.1:{server} cookie c
    server s4 127.0.0.1:{server} cookie d weight 30
listen raw
    mode tcp
    bind 127.0.0.1:{raw}
    server s1 127.0.0.1:{server}
"""


class Proxy:
    """A process, haptk or haproxy, on one file."""

    def __init__(self, folder: Path, kind: str, server: int, scope: str = "none") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.kind = folder, kind
        self.port, self.raw = free_ports(2)
        self.config = folder / "x.cfg"
        text = CONFIG.format(folder=folder, port=self.port, raw=self.raw, server=server, scope=scope)
        self.config.write_text(text)
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        argv = ["haproxy", "-db"] if self.kind == "haproxy" else [sys.executable, "-m", "haptk", "proxy"]
        with (self.folder / "err").open("ab") as errors:
            argv = [*argv, "-f", str(self.config)]
            self.child = subprocess.Popen(argv, stdout=errors, stderr=errors, env={**os.environ, **env})
        wait_for(lambda: "web" in self("show backend"), "it answers")

    def __call__(self, text: str) -> str:
        return ask(self.folder / "admin", text)

    def stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait(10)
            self.child = None

    def states(self) -> dict[str, list[str]]:
        """Operational and administrative state and weights by server of `web`."""
        rows = (line.split() for line in self("show servers state web").splitlines())
        return {row[3]: row[5:9] for row in rows if len(row) > 20 and not row[0].startswith("#")}


@pytest.fixture
def proxies(tmp_path: Path, scripted) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []
    server = scripted().port

    def make(name: str = "haptk", scope: str = "none") -> Proxy:
        made.append(Proxy(tmp_path / name, name.split("-")[0], server, scope))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Clients:
    """Clients that ask all the time, on lasting and on new connections; `wrong` is what should not have happened."""

    def __init__(self, port: int, raw: int) -> None:
        self.wrong: list[str] = []
        self.served = 0
        self.ending = threading.Event()
        works = (self._lasting, self._new, self._new, self._raw)
        self.threads = [threading.Thread(target=self._guard, args=(work, port, raw), daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def _guard(self, work: Callable[[int, int], None], port: int, raw: int) -> None:
        try:
            work(port, raw)
        except (OSError, AssertionError) as error:
            self.wrong.append(f"{work.__name__}: {error!r}")

    def _ask(self, sock: socket.socket) -> bool:
        """One request; False when the connection was not kept."""
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        head, body, _ = read_answer(sock)
        assert b" 200 " in head
        assert body == b"ok"
        self.served += 1
        return b"connection: close" not in head.lower()

    def _lasting(self, port: int, _raw: int) -> None:
        """Keep-alive. An old configuration may close between two requests, so that the next one is on a new connection."""
        while not self.ending.is_set():
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                count = 0
                while not self.ending.is_set():
                    try:
                        stays = self._ask(sock)
                    except (BrokenPipeError, ConnectionResetError, AssertionError):
                        # closed while idle: allowed between two requests, never before the first
                        assert count, "a new connection was not served"
                        break
                    count += 1
                    if not stays:
                        break

    def _new(self, port: int, _raw: int) -> None:
        while not self.ending.is_set():
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                self._ask(sock)

    def _raw(self, _port: int, raw: int) -> None:
        """One TCP connection from the beginning to the end: no reload may cut it."""
        with socket.create_connection(("127.0.0.1", raw), 10) as sock:
            while not self.ending.is_set():
                assert self._ask(sock)
                time.sleep(0.002)

    def end(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(20)
        assert not self.wrong, self.wrong[:5]


def memory_kb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_many_reloads_under_load(proxies: Callable[..., Proxy]) -> None:
    """HAPTK_RELOADS=100 for the long form."""
    one = proxies()
    one.start()
    assert one.child is not None
    pid = one.child.pid
    one("disable server web/s4;set server web/s1 weight 5")
    clients = Clients(one.port, one.raw)
    try:
        figures = []
        for number in range(RELOADS):
            assert one("reload") == "\n"
            assert not clients.wrong, clients.wrong
            if number in (RELOADS // 3, RELOADS - 1):
                # the TCP connection keeps the first engine, all between have to be gone
                most = figures[0][1] if figures else 9
                wait_for(lambda most=most: threads(pid) <= most, f"old engines end: {threads(pid)} threads")
                figures.append((memory_kb(pid), threads(pid), descriptors(pid)))
    finally:
        clients.end()
    (memory, _, open_before), (after, _, open_after) = figures
    assert after < memory * 1.15 + 2000, figures
    assert open_after <= open_before + 5, figures
    assert clients.served > RELOADS
    assert one.states()["s4"][1] == "1"
    assert one.states()["s1"][2] == "5"
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children == []
    one.child.terminate()
    assert one.child.wait(20) == 0


@pytest.mark.real("wrk", "nginx")
@pytest.mark.parametrize("header", ["X: y", "Connection: close"], ids=["keep-alive", "new-connections"])
def test_a_load_at_full_speed_sees_no_error(proxies: Callable[..., Proxy], tmp_path: Path, header: str) -> None:
    """wrk sends its next request as soon as an answer is there, so an idle connection never is one for long."""
    one, page = proxies(), free_ports(1)[0]
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {tmp_path}/pid; error_log /dev/null; events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{page} backlog=4096;"
        f' location / {{ return 200 "ok"; }} }} }}\n'
    )
    old = re.findall(r"server s1 127.0.0.1:(\d+)", one.config.read_text())[0]
    one.config.write_text(one.config.read_text().replace(f"127.0.0.1:{old}", f"127.0.0.1:{page}"))
    nginx = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL)
    wrk = None
    try:
        wait_for(lambda: socket.create_connection(("127.0.0.1", page), 5).close() is None, "nginx listens")
        one.start()
        assert one.child is not None
        address = f"http://127.0.0.1:{one.port}/"
        wrk = subprocess.Popen(
            ["wrk", "-t1", "-c32", "-d300s", "--timeout", "20s", "-H", header, address],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(RELOADS):
            if number % 3 < 2:
                one.child.send_signal((signal.SIGUSR2, signal.SIGHUP)[number % 3])
                time.sleep(0.05)
            else:
                assert one("reload") == "\n"
        wait_for(lambda: threads(one.child.pid) <= 12, "old engines end")
        wrk.send_signal(signal.SIGINT)
        told = wrk.communicate(timeout=60)[0]
        assert re.search(r"[1-9]\d* requests in", told), told
        assert "Socket errors" not in told, told
        assert "Non-2xx" not in told, told
    finally:
        for child in (nginx, wrk):
            if child is not None:
                child.kill()
                child.wait(10)


def test_people_reload_and_see_what_is_wrong(proxies: Callable[..., Proxy]) -> None:
    one = proxies()
    one.start()
    command = [sys.executable, "-m", "haptk", "proxy", "reload", "--socket", str(one.folder / "admin")]
    good = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert (good.returncode, json.loads(good.stdout)) == (0, {"reloaded": True}), good.stderr
    text = one.config.read_text()
    one.config.write_text(text.replace("cookie SRV", "cokie SRV"))
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode != 0
    assert f"{one.config}:13" in bad.stderr
    assert "cokie" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert "web" in one("show backend")


def test_systemd_hears_of_a_reload(proxies: Callable[..., Proxy], tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.bind(str(path))
        hears.settimeout(20)
        one = proxies()
        one.start(NOTIFY_SOCKET=str(path))
        assert b"READY=1" in hears.recv(4096)
        assert one.child is not None
        one.child.send_signal(signal.SIGHUP)
        first = hears.recv(4096).decode().splitlines()
        assert "RELOADING=1" in first
        assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", line) for line in first)
        assert b"READY=1" in hears.recv(4096)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize(("writer", "reader"), [("haptk", "haproxy"), ("haproxy", "haptk"), ("haptk", "haptk-two")])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_states_survive_in_the_file(proxies: Callable[..., Proxy], writer: str, reader: str, scope: str) -> None:
    first, second = proxies(writer, scope), proxies(reader, scope)
    first.start()
    first(
        "set server web/s1 weight 3;set server web/s2 state drain;set server web/s3 state maint;"
        "set server web/s4 weight 50%;set server web/s1 health down"
    )
    wanted = first.states()
    assert wanted["s1"] == ["0", "0", "3", "10"]
    (second.folder / ("states" if scope == "global" else "web")).write_text(first("show servers state"))
    second.start()
    wait_for(lambda: second.states() == wanted, f"{second.states()} is {wanted}")
    # another configured weight, and a server that the file does not know, go by the configuration
    second.stop()
    text = second.config.read_text().replace("weight 10", "weight 11").replace("server s4", "server new")
    second.config.write_text(text)
    second.start()
    assert second.states()["s1"][2:] == ["11", "11"]
    assert second.states()["new"] == ["2", "0", "30", "30"]
    assert second.states()["s3"][1] == wanted["s3"][1]


def test_a_broken_state_file_stops_nobody(proxies: Callable[..., Proxy]) -> None:
    one = proxies("haptk", "global")
    (one.folder / "states").write_bytes(b"1\n# x\n3 web 1 s1\n3 web 1 s1 " + b"x " * 30 + b"\n\xff\xfe\n")
    one.start()
    assert one.states()["s1"] == ["2", "0", "10", "10"]
    with contextlib.suppress(OSError):
        assert "states:3: passed over" in (one.folder / "err").read_text()


QUEUED = """
global
  nbthread {threads}
  stats socket {control} level admin
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 127.0.0.1:{port}
  maxconn 1
  http-request return status 200 content-type text/plain string ok
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("before", "after"), [(4, 1), (4, 3), (2, 1)])
def test_who_waits_to_be_accepted_survives_a_reload_to_fewer_threads(tmp_path: Path, before: int, after: int) -> None:
    (port,) = free_ports(1)
    control, file = tmp_path / "control", tmp_path / "x.cfg"

    def write(threads: int) -> None:
        file.write_text(QUEUED.format(threads=threads, control=control, port=port))

    write(before)
    child = subprocess.Popen([sys.executable, "-m", "haptk", "proxy", "-q", "-db", "-f", str(file)])
    try:
        wait_for(control.exists, "it listens")
        with contextlib.ExitStack() as stack:

            def client() -> socket.socket:
                return stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))

            first = client()
            first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_answer(first)
            # the only place is taken: these stay in the queues of all workers' sockets
            waiting = [client() for _ in range(24)]
            write(after)
            assert ask(control, "reload").strip() == ""
            first.close()
            for sock in waiting:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            lost = 0
            for sock in waiting:
                sock.settimeout(30)
                try:
                    lost += not sock.recv(4096).startswith(b"HTTP/1.1 200")
                except ConnectionError:
                    lost += 1
            assert lost == 0, f"{lost} of {len(waiting)} lost their connection"
    finally:
        child.kill()
        child.wait(10)
