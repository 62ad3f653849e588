"""`haptk check proxy` asks a running `haptk proxy` over its stats socket while servers die, drain and return."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptk import __version__
from haptk.cli.app import haptk
from haptk.cli.base import run
from haptk.io import clock
from tests.ports import free_port

CONFIG = """global
    stats socket {folder}/proxy.sock mode 600 level admin
    stats socket {folder}/user.sock level user
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend site
    bind 127.0.0.1:{port}
    maxconn 100
    default_backend web
backend web
    server a 127.0.0.1:{a} check inter 200ms rise 1 fall 2
    server b 127.0.0.1:{b} check inter 200ms rise 1 fall 2
"""
SERVER = """import http.server, sys
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def wait_for(what: Callable[[], object], wish: str) -> None:
    deadline = clock.monotonic() + 40
    while not what():
        assert clock.monotonic() < deadline, f"never happened: {wish}"
        clock.sleep(0.05)


class Site:
    """Two servers and a proxy before them, each a process."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.ports = {name: free_port() for name in ("port", "a", "b")}
        self.servers = {name: self.serve(name) for name in ("a", "b")}
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=folder, **self.ports))
        self.proxy = self.start("-m", "haptk", "proxy", "-f", str(config))

    def serve(self, name: str) -> subprocess.Popen[bytes]:
        return self.start("-c", SERVER, str(self.ports[name]))

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.folder / "err").open("ab") as errors:
            child = subprocess.Popen([sys.executable, *argv], stdout=errors, stderr=errors, cwd=self.folder)
        self.stack.callback(child.wait, 20)
        self.stack.callback(child.kill)
        return child

    def ask(self, command: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(20)
            channel.connect(str(self.folder / "proxy.sock"))
            channel.sendall(f"{command}\n".encode())
            answer = b""
            while part := channel.recv(65536):
                answer += part
            return answer

    def tell(self, command: str) -> None:
        assert self.ask(command) == b"\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_the_check_follows_servers_that_die_drain_and_return(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def check(*more: str, at: str = "proxy.sock") -> tuple[int, str]:
        code = run(haptk, ["check", "proxy", "--socket", str(site.folder / at), *more])
        return code, capsys.readouterr().out.strip()

    def says(code: int, text: str, *more: str) -> Callable[[], bool]:
        return lambda: (found := check(*more))[0] == code and text in found[1]

    wait_for((site.folder / "proxy.sock").exists, "the proxy started")
    wait_for(lambda: site.ask("show stat").count(b",L4OK,") == 2, "both servers passed a check")
    assert says(0, "backend web 2/2 servers up")()
    code, out = check()
    assert out.startswith("PROXY OK"), out
    assert "frontend site OPEN; backend web 2/2 servers up" in out
    assert f"haptk-{__version__}, up 0d 0h00m" in out
    assert "'site load'=0%" in out
    assert check(at="user.sock")[0] == 0

    site.servers["b"].kill()
    wait_for(says(1, "backend web 1/2 servers up (b DOWN: Layer4 connection problem)"), "the dead server is seen")
    assert check("-c", "servers=1:")[0] == 0  # one is enough, says the person
    site.tell("set server web/a state drain")
    wait_for(says(2, "PROXY CRITICAL"), "nobody takes new sessions")
    site.tell("set server web/a state ready")
    site.tell("set server web/b state maint")
    wait_for(says(0, "backend web 1/1 servers up"), "what was taken out is not missing")
    site.tell("enable server web/b")
    site.serve("b")
    wait_for(says(0, "backend web 2/2 servers up", "web"), "the server is back")
    assert check("nosuch")[0] == 3

    site.proxy.terminate()
    assert site.proxy.wait(20) == 0
    code, out = check()
    assert code == 2, out
