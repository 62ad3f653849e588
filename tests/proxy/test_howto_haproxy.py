"""docs/howto/replace-haproxy.md typed into bash, while clients with sessions go on; the real HAProxy on the other side."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Upstreams, upstreams
from tests.ports import free_ports

pytestmark = [pytest.mark.real("haproxy", "socat", "ip"), pytest.mark.timeout(180)]
HOWTO = Path(__file__).parents[2] / "docs/howto/replace-haproxy.md"
STAGE = [""]  # which step is being typed
FILE = """global
 stats socket {directory}/haproxy/admin.sock mode 600 level admin

defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 2s

listen webfarm
 bind 127.0.0.1:{port}
 cookie JSESSIONID prefix
 server A 127.0.0.1:{a} cookie A
 server B 127.0.0.1:{b} cookie B
"""


def commands(step: int) -> str:
    """What the how-to tells to type in one of its numbered steps."""
    STAGE.append(f"step {step}")
    text = HOWTO.read_text().split(f"\n{step}. ", 1)[1]
    text = re.split(r"\n\d+\. |\n## ", text)[0]
    return "\n".join(line.strip() for line in text.splitlines() if line.startswith("       "))


class Client(threading.Thread):
    """One browser: a new connection for each request, and the cookie it was given."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.port, self.label = port, name
        self.cookie = ""
        self.homes: set[str] = set()
        self.answers = 0
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            try:
                self._ask()
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{STAGE[-1]}: {error!r}")

    def _ask(self) -> None:
        channel = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        channel.request("GET", "/", headers={"X-Case": self.label, **({"Cookie": self.cookie} if self.cookie else {})})
        answer = channel.getresponse()
        answer.read()
        assert answer.status == 200
        if found := answer.getheader("Set-Cookie"):
            self.cookie = found.split(";")[0]
        self.homes.add(self.cookie.partition("=")[2][:2])
        channel.close()


def in_a_network_of_its_own(work: Callable[[], None]) -> None:
    """Run `work` in a thread that has left the machine's network; what it starts comes along."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0, os.strerror(ctypes.get_errno())
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            work()
        except BaseException as error:  # handed to the test, whatever it is
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@pytest.fixture
def type_in(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    (tmp_path / "haproxy").mkdir()

    def typed(text: str) -> str:
        text = text.replace("/etc/haproxy/haproxy.cfg", str(tmp_path / "haproxy.cfg")).replace("/run/", f"{tmp_path}/")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    yield typed
    for pid in (tmp_path / "haproxy.pid").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def running(pid: int) -> str:
    """The program of a process, "" when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while running(pid):
        assert time.monotonic() < deadline, f"{running(pid)} does not end"
        time.sleep(0.05)


@pytest.mark.root
def test_the_howto(tmp_path: Path, type_in: Callable[[str], str]) -> None:
    def work() -> None:
        with upstreams(2) as servers:
            follow(tmp_path, servers, type_in)

    in_a_network_of_its_own(work)


def follow(tmp_path: Path, servers: Upstreams, type_in: Callable[[str], str]) -> None:
    (port,) = free_ports(1)
    file = tmp_path / "haproxy.cfg"
    file.write_text(FILE.format(directory=tmp_path, port=port, a=servers.ports[0], b=servers.ports[1]))
    for number in range(6):
        answer = f"HTTP/1.1 200 OK\r\nset-cookie: JSESSIONID=s{number}; path=/\r\ncontent-length: 2\r\n\r\nok"
        servers.scripts[str(number)] = answer.encode()
    type_in(f"haproxy -D -p {tmp_path}/haproxy.pid -f {file}")
    first = int((tmp_path / "haproxy.pid").read_text())
    assert "Configuration file is valid" in type_in(commands(1))
    type_in(commands(4))
    clients = [Client(port, str(number)) for number in range(6)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    type_in(commands(5))
    gone(first)
    second = int((tmp_path / "haproxy.pid").read_text())
    assert "haptk proxy" in running(second)
    told = type_in(commands(6))
    assert "webfarm" in told and "Version: 2.6.12-haptk-" in told
    type_in(commands(7))
    time.sleep(0.5)
    type_in(commands(8))
    gone(second)
    assert running(int((tmp_path / "haproxy.pid").read_text())).startswith("haproxy ")
    time.sleep(0.5)
    for client in clients:
        client.over.set()
        client.join(10)
    assert not [failure for client in clients for failure in client.failures]
    assert all(client.answers > 20 for client in clients), [client.answers for client in clients]
    assert all(len(client.homes) == 1 for client in clients), [client.homes for client in clients]
    assert {home for client in clients for home in client.homes} == {"A~", "B~"}
