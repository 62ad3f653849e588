"""Descriptors that one side opens and another uses: a wake-up must reach its reader, never a stranger's connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.diff.rig import ask
from tests.ports import free_port
from tests.proxy.conftest import ScriptedServer

HAPTK = Path(sys.executable).parent / "haptk"
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
DEADLINE_S = 30.0


def _until(what, why: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.01)


class Backend:
    """Answers 500 to what asks for /bad; counts the checks."""

    def __init__(self) -> None:
        self.checks = 0
        self.server = ScriptedServer(self._serve)
        self.port = self.server.port

    def _serve(self, server: ScriptedServer, sock: socket.socket, _number: int) -> None:
        rest = b""
        while True:
            head, rest = server.read_head(sock, rest)
            if not head:
                return
            if head.startswith(b"OPTIONS"):
                self.checks += 1
            sock.sendall(BROKEN if head.startswith(b"GET /bad") else FINE)


@contextlib.contextmanager
def _running(text: str, path: Path, port: int, **more):
    file = path / "haproxy.cfg"
    file.write_text(text)
    command = [str(HAPTK), "proxy", "-db", "-f", str(file)]
    process = subprocess.Popen(command, **more)
    try:

        def up() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            return False

        _until(up, "it listens")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answer(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith((b"ok", b"no")):
        part = sock.recv(1000)
        assert part, data
        data += part
    return data


OBSERVED = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
global
  nbthread {threads}
  {extra}
listen web
  bind 127.0.0.1:{port}
  option httpchk
  server s 127.0.0.1:{server} check inter 60s fastinter 50ms fall 1000 rise 1 observe layer7 error-limit 2 on-error fastinter
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_alarm_of_observe_reaches_the_checks_and_no_client(tmp_path: Path, threads: int) -> None:
    backend, port = Backend(), free_port()
    text = OBSERVED.format(threads=threads, port=port, server=backend.port, extra="")
    with _running(text, tmp_path, port), contextlib.ExitStack() as stack:
        _until(lambda: backend.checks >= 1, "the first check")
        # enough clients for every small number of a worker's table
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) for _ in range(30 * threads)
        ]
        for client in clients:
            client.sendall(GET % b"")
            assert _answer(client) == FINE.lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 OK")
        _errors_bring_a_check(clients[0], backend)
        for client in clients:
            client.sendall(GET % b"")
            assert _answer(client) == FINE.lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 OK")
            client.settimeout(0.001)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(DEADLINE_S)


# -- the numbers that a process is born with


FULL = """
global
  nbthread {threads}
  stats socket {socket} level admin
  log 127.0.0.1:{log} local0
{more}
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend web
  bind 127.0.0.1:{port}
  log stdout format raw local0
  log fd@7 format raw local0
  log fd@11 format raw local0
  stats enable
  stats uri /stats
  default_backend back
backend back
  option httpchk
  server s 127.0.0.1:{server} check inter 60s fastinter 50ms fall 1000 rise 1 observe layer7 error-limit 2 on-error fastinter
"""


def _errors_bring_a_check(sock: socket.socket, backend: Backend) -> None:
    """Two errors of live traffic; again while nothing comes, because a check that is under way brings no other one."""
    before, end = backend.checks, time.monotonic() + DEADLINE_S
    while backend.checks == before:
        assert time.monotonic() < end, "errors of live traffic bring the next check sooner"
        for _ in range(2):
            sock.sendall(GET % b"bad")
            assert _answer(sock) == b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"
        sleep = time.monotonic() + 0.3
        while backend.checks == before and time.monotonic() < sleep:
            time.sleep(0.01)


def _traffic(port: int, backend: Backend, clients: int) -> None:
    """Requests, errors that live traffic reports, the statistics page; every answer is whole and nothing else comes."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) for _ in range(clients)]
        for _ in range(2):
            for sock in socks:
                sock.sendall(GET % b"")
                assert _answer(sock) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            _errors_bring_a_check(socks[0], backend)
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
            sock.sendall(b"GET /stats;csv HTTP/1.0\r\n\r\n")
            page = b""
            while part := sock.recv(65536):
                page += part
            assert page.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\nback,s" in page
        for sock in socks:
            sock.settimeout(0.001)
            with pytest.raises(TimeoutError):
                sock.recv(1)


def _whole_life(tmp_path: Path, threads: int, start: list[str], pass_fds: tuple[int, ...] = (), more: str = "") -> None:
    backend, port = Backend(), free_port()
    file, control = tmp_path / "haproxy.cfg", tmp_path / "control"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        file.write_text(
            FULL.format(
                threads=threads, socket=control, port=port, server=backend.port, log=log.getsockname()[1], more=more
            )
        )
        command = [*start, str(HAPTK), "proxy", *([] if more else ["-db"]), "-f", str(file)]
        process = subprocess.Popen(command, pass_fds=pass_fds)
        pid = process.pid
        try:
            if more:
                assert process.wait(DEADLINE_S) == 0
            _until(control.exists, "it opens its stats socket")
            pid = int(
                dict(line.split(": ", 1) for line in ask(control, "show info").splitlines() if ": " in line)["Pid"]
            )
            for number in (0, 1, 2):
                found = str(Path(f"/proc/{pid}/fd/{number}").readlink())
                assert not found.startswith(("socket:", "anon_inode:")), f"descriptor {number} is {found}"
            _traffic(port, backend, 20 * threads)
            assert ask(control, "reload").strip() == ""
            _traffic(port, backend, 20 * threads)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            _until(lambda: not Path(f"/proc/{pid}").exists() or process.poll() is not None, "it ends")


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "0<&-", "1>&-", "2>&-", "0<&- 2>&-"])
@pytest.mark.parametrize("background", [False, True])
def test_standard_descriptors_that_are_closed_do_not_become_ours(
    tmp_path: Path, threads: int, closed: str, background: bool
) -> None:
    wrapper = ["bash", "-c", f'exec {closed}; exec "$@"', "closed"]
    more = f"  daemon\n  pidfile {tmp_path}/pid\n" if background else ""
    _whole_life(tmp_path, threads, wrapper, more=more)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("background", [False, True])
def test_nothing_is_written_to_descriptors_of_others(tmp_path: Path, threads: int, background: bool) -> None:
    pairs = [socket.socketpair() for _ in range(60)]
    # what the file names as fd@7 and fd@11 may be among them: those get log lines, and only those
    more = f"  daemon\n  pidfile {tmp_path}/pid\n" if background else ""
    given = tuple(theirs.fileno() for _, theirs in pairs)
    try:
        _whole_life(tmp_path, threads, [], given, more)
        for ours, theirs in pairs:
            if theirs.fileno() in (7, 11):
                continue
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.recv(1)
    finally:
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

modules = [Extension("haptk._fast.descriptors", ["haptk/_fast/descriptors.pyx"], define_macros=[("HAPTK_CHECKED", "1")])]
setup(name="checked", packages=[], ext_modules=cythonize(modules, language_level=3, quiet=True))
"""


def test_a_checked_build_ends_at_the_first_use_by_somebody_else(tmp_path: Path) -> None:
    # the register alone is compiled anew, so that this runs with every build
    pytest.importorskip("Cython")
    source = Path(__file__).parents[2] / "haptk" / "_fast"
    package = tmp_path / "haptk" / "_fast"
    package.mkdir(parents=True)
    for name in ("descriptors.pyx", "descriptors.pxd"):
        shutil.copy(source / name, package / name)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (tmp_path / "setup.py").write_text(SETUP)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    program = "from haptk._fast import descriptors; assert descriptors.CHECKED; descriptors.use_wrongly(60000)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGABRT, done.stderr
    assert done.stderr.startswith(
        "descriptor 60000: rung as the alarm of observe, but it belongs to a client's connection\n"
    )
