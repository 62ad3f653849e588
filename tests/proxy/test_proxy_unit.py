"""The systemd unit of the proxy: accepted by systemd, well sandboxed, and every command that it names does its work.

systemd is not process 1 where tests run: the commands are started as it would start them, with its notify socket and
with the capabilities that the unit leaves.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "packaging/systemd/haptk-proxy.service"
HAPTK = str(Path(sys.executable).parent / "haptk")
CONFIG = """global
    user nobody
    group nogroup
    stats socket {folder}/sock mode 600 level admin user nobody
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend {name}
    bind 127.0.0.1:{port}
    monitor-uri /alive
"""


def values(key: str) -> list[str]:
    """The values of a key, in order."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def command(line: str, config: Path, pid: int = 0) -> list[str]:
    """A command of the unit as systemd would run it."""
    line = line.replace("/usr/bin/haptk", HAPTK).replace("${CONFIG}", str(config)).replace("$EXTRAOPTS", "")
    return line.replace("$MAINPID", str(pid)).split()


@pytest.mark.real("systemd-analyze")
def test_systemd_accepts_the_unit_and_finds_it_well_closed(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/haptk", HAPTK))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    about = [line for line in done.stderr.splitlines() if copy.name in line]
    assert about == []
    limit = ["systemd-analyze", "security", "--offline=yes", "--threshold=35", str(copy)]
    judged = subprocess.run(limit, capture_output=True, text=True, timeout=60, check=False)
    assert judged.returncode == 0, judged.stdout[-300:]


@pytest.mark.real("systemd-analyze")
def test_the_system_calls_of_the_workers_are_not_filtered() -> None:
    named = values("SystemCallFilter")[0].split()
    allowed: set[str] = {name for name in named if not name.startswith("@")}
    groups = [name for name in named if name.startswith("@")]
    while groups:
        done = subprocess.run(
            ["systemd-analyze", "syscall-filter", groups.pop()], capture_output=True, text=True, timeout=60, check=True
        )
        for word in re.findall(r"^\s+(@?[a-z0-9_-]+)$", done.stdout, re.MULTILINE):
            if word.startswith("@"):
                groups.append(word)
            else:
                allowed.add(word)
    wanted = "unshare close_range epoll_wait accept4 eventfd2 chroot setuid setgid setgroups prlimit64 clone3 recvfrom sendto"
    assert set(wanted.split()) <= allowed


class Manager:
    """What systemd does for a Type=notify service, as far as the unit relies on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "haproxy.cfg"
        with socket.create_server(("127.0.0.1", 0)) as spare:
            self.port = spare.getsockname()[1]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o777)
        self.notify.settimeout(20)
        self.write("fe")
        self.child: subprocess.Popen[bytes] | None = None

    def write(self, name: str, more: str = "") -> None:
        self.config.write_text(CONFIG.format(folder=self.folder, port=self.port, name=name) + more)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        pid = self.child.pid if self.child else 0
        return subprocess.run(command(line, self.config, pid), capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> None:
        rights = ",".join(
            ["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in values("CapabilityBoundingSet")[0].split())]
        )
        closed = ["setpriv", "--bounding-set", rights, "--no-new-privs"]
        environ = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        self.child = subprocess.Popen([*closed, *command(values("ExecStart")[0], self.config)], env=environ)
        self.hear("READY=1")

    def hear(self, word: str) -> None:
        deadline = time.monotonic() + 30
        while word not in self.notify.recv(4096).decode().splitlines():
            assert time.monotonic() < deadline, word

    def serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1.1 200")
        return False

    def ask(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.folder / "sock"))
            sock.sendall(text.encode() + b"\n")
            return sock.recv(65536).decode()

    def close(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
        self.notify.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:  # `user nobody` reads the file again at a reload
        if str(folder).startswith("/tmp/pytest"):
            folder.chmod(folder.stat().st_mode | 0o055)
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_every_command_of_the_unit_does_its_work(manager: Manager) -> None:
    checked = manager.run(values("ExecStartPre")[0])
    assert checked.returncode == 0, checked.stderr
    manager.start()
    assert manager.child is not None
    assert manager.serves()
    status = Path(f"/proc/{manager.child.pid}/status").read_text()
    nobody = re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)
    assert nobody and int(nobody[1]) == pwd.getpwnam("nobody").pw_uid
    assert "NoNewPrivs:\t1" in status
    manager.write("other")
    for line in values("ExecReload"):
        done = manager.run(line)
        assert done.returncode == 0, done.stderr
    manager.hear("READY=1")
    assert "other" in manager.ask("show stat -1 1 -1")
    manager.write("third", "    nonsense\n")
    done = manager.run(values("ExecReload")[0])
    assert done.returncode != 0
    assert "haproxy.cfg" in done.stderr and "nonsense" in done.stderr
    assert manager.serves()
    manager.child.terminate()
    assert manager.child.wait(20) == 0
