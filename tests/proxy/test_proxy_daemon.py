"""`haptk proxy` as a process: HAProxy's arguments, signals, reload, exhaustion of descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port

HAPTK = [sys.executable, "-m", "haptk", "proxy"]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CONFIG = """defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
listen web
    bind 127.0.0.1:{port}
    cookie SRV insert indirect
    server s1 127.0.0.1:{server} cookie {cookie}
"""


def _get(port: int, request: bytes = GET) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 15) as sock:
        sock.sendall(request)
        sock.settimeout(15)
        return sock.recv(65536)


class Daemon:
    def __init__(self, work: Path, server: int) -> None:
        self.work = work
        self.port = free_port()
        self.server = server
        self.config = work / "haproxy.cfg"
        self.children: list[subprocess.Popen[str]] = []
        self.write()

    def write(self, cookie: str = "one", more: str = "") -> None:
        self.config.write_text(CONFIG.format(port=self.port, server=self.server, cookie=cookie) + more)

    def start(self, *args: str, **popen: object) -> subprocess.Popen[str]:
        argv = [*HAPTK, "-f", str(self.config), *args]
        child = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, **popen)  # type: ignore[call-overload]
        self.children.append(child)
        self.wait_until_served()
        return child

    def wait_until_served(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert b"ok" in _get(self.port)
                return
            except OSError:
                assert time.monotonic() < deadline, self.children[-1].poll()
                time.sleep(0.05)


@pytest.fixture
def daemon(tmp_path, scripted):
    found = Daemon(tmp_path, scripted().port)
    yield found
    for child in found.children:
        if child.poll() is None:
            child.kill()
        child.wait(5)
        if child.stderr:
            child.stderr.close()


def _exit_code(child: subprocess.Popen[str]) -> int:
    return child.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_stops_cleanly(daemon, number):
    child = daemon.start("-db")
    child.send_signal(number)
    assert _exit_code(child) == 0
    with pytest.raises(ConnectionRefusedError):
        _get(daemon.port)


def test_second_term_stops_now(tmp_path, scripted):
    def slow(server, sock, number):
        server.read_head(sock)
        if number > 1:
            time.sleep(8)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    daemon = Daemon(tmp_path, scripted(slow).port)
    child = daemon.start()
    with socket.create_connection(("127.0.0.1", daemon.port), 5) as sock:
        sock.sendall(GET)
        time.sleep(0.2)
        began = time.monotonic()
        child.terminate()
        time.sleep(0.5)
        assert child.poll() is None
        child.terminate()
        assert _exit_code(child) == 0
        assert time.monotonic() - began < 5
    assert child.stderr is not None
    child.stderr.close()


def test_reload_changes_the_configuration_without_losing_a_request(daemon):
    child = daemon.start()
    assert b"SRV=one" in _get(daemon.port)
    daemon.write(cookie="two")
    child.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + 60
    while b"SRV=two" not in _get(daemon.port):
        assert time.monotonic() < deadline
    child.terminate()
    assert _exit_code(child) == 0


def test_reloads_on_the_reference_path_and_between_the_paths(daemon):
    """A file with rules is served by the reference; whichever path comes next accepts on the same sockets."""
    rule = "    http-request deny if { path_beg /never }\n"
    daemon.write(cookie="v0", more=rule)
    child = daemon.start()
    for number, more in enumerate((rule, rule, "", rule, ""), 1):
        daemon.write(cookie=f"v{number}", more=more)
        child.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while f"SRV=v{number}".encode() not in _get(daemon.port):
            assert time.monotonic() < deadline
            assert child.poll() is None
    child.terminate()
    assert _exit_code(child) == 0


def test_hard_stop_after_bounds_the_connections_of_an_old_configuration(daemon):
    text = daemon.config.read_text().replace("timeout client 5s", "timeout client 60s")
    daemon.config.write_text("global\n    hard-stop-after 1s\n" + text.replace("mode http", "mode tcp", 1).replace(
        "    cookie SRV insert indirect\n", "").replace(" cookie one", ""))  # fmt: skip
    child = daemon.start()
    with socket.create_connection(("127.0.0.1", daemon.port), 5) as sock:
        sock.sendall(GET)
        assert b"ok" in sock.recv(1000)
        child.send_signal(signal.SIGUSR2)
        sock.settimeout(10)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
        assert time.monotonic() - began > 0.5
    assert b"ok" in _get(daemon.port)


def test_bad_file_at_reload_keeps_the_old_one(daemon):
    child = daemon.start()
    daemon.write(cookie="two", more="    nonsense here\n")
    child.send_signal(signal.SIGHUP)
    assert child.stderr is not None
    while "refused" not in (line := child.stderr.readline()):
        assert line
    assert "nonsense" in line
    assert b"SRV=one" in _get(daemon.port)


def test_sf_replaces_a_running_process(daemon):
    old = daemon.start()
    daemon.write(cookie="two")
    new = daemon.start("-sf", str(old.pid))
    assert _exit_code(old) == 0
    assert b"SRV=two" in _get(daemon.port)
    assert new.poll() is None


def test_background_and_pidfile(daemon):
    pidfile = daemon.work / "pid"
    daemon.start("-D", "-p", str(pidfile), "-q")
    pid = int(pidfile.read_text())
    try:
        assert daemon.children[0].wait(5) == 0
        assert b"ok" in _get(daemon.port)
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        pytest.fail("the background process did not end")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["-p", "/nowhere/at/all/pid"], "/nowhere/at/all/pid"), ([], "address")],
    ids=["pid file", "address in use"],
)
def test_background_says_why_it_does_not_serve(daemon, words, told):
    """Who types -D learns the outcome: the exit code and the reason of the process in the background."""
    with socket.socket() as taken:
        if told == "address":
            taken.bind(("127.0.0.1", daemon.port))
            taken.listen()
        command = [*HAPTK, "-D", "-f", str(daemon.config), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode not in (0, 70)
    assert told in done.stderr.lower()
    assert "Traceback" not in done.stderr


def _check(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HAPTK, "-c", "-f", str(config)], capture_output=True, text=True, timeout=30)


def test_check_says_what_haproxy_says(daemon):
    good = _check(daemon.config)
    assert (good.returncode, good.stdout) == (0, "Configuration file is valid\n")
    daemon.write(more="    nonsense here\n    also wrong\n")
    bad = _check(daemon.config)
    assert bad.returncode == 1
    assert f"{daemon.config}:10" in bad.stderr
    assert f"{daemon.config}:11" in bad.stderr


def test_errors_are_one_line_without_a_trace(daemon):
    with socket.create_server(("127.0.0.1", daemon.port)):
        done = subprocess.run([*HAPTK, "-f", str(daemon.config)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 71
    assert f"cannot listen on 127.0.0.1:{daemon.port}" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*HAPTK, "-f", "/does/not/exist"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 66
    assert done.stderr.count("\n") == 1


def test_dies_with_its_parent(daemon):
    script = (
        "import subprocess,sys,time\n"
        "child = subprocess.Popen(sys.argv[1:])\nprint(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    argv = [sys.executable, "-c", script, *HAPTK, "-f", str(daemon.config), "--die-with-parent"]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    daemon.wait_until_served()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            _get(daemon.port)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("it outlived its parent")


def test_survives_when_descriptors_run_out(daemon):
    # a process that cannot have what its maxconn needs does not start; another one may take them while it runs
    child = daemon.start()
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (40, 40))
    socks = []
    for _ in range(80):
        sock = socket.create_connection(("127.0.0.1", daemon.port), 5)
        sock.sendall(GET)
        socks.append(sock)
    time.sleep(0.5)
    for sock in socks:
        sock.close()
    time.sleep(0.3)
    assert b"ok" in _get(daemon.port)
    assert child.poll() is None


def test_runs_the_webfarm_block_unmodified(tmp_path, scripted):
    first, second = scripted(), scripted()
    daemon = Daemon(tmp_path, first.port)
    daemon.config.write_text(
        f"""listen webfarm
       bind 127.0.0.1:{daemon.port}
       mode http
       balance roundrobin
       cookie JSESSIONID prefix
       option httpclose
       option forwardfor
       option httpchk HEAD /index.html HTTP/1.0
       server Apache-A 127.0.0.1:{first.port} cookie A check
       server Apache-B 127.0.0.1:{second.port} cookie B check
"""
    )
    child = daemon.start()
    for _ in range(3):
        _get(daemon.port, b"GET /app HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=B~abc\r\n\r\n")
    sticky = [seen for seen in second.seen if seen.startswith(b"GET /app")]
    assert len(sticky) == 3
    assert sticky[0].split(b"\r\n")[1:] == [
        b"host: a", b"cookie: JSESSIONID=abc", b"x-forwarded-for: 127.0.0.1", b"connection: close",
    ]  # fmt: skip
    second.close()
    deadline = time.monotonic() + 60
    while b"ok" not in _get(daemon.port, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: JSESSIONID=B~abc\r\n\r\n"):
        assert time.monotonic() < deadline
    child.terminate()
    assert _exit_code(child) == 0
    assert child.stderr is not None
    child.stderr.close()
