"""The real keepalived and the real HAProxy act on haptk's checks, and haptk judges them while they do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from haptk.cli.app import haptk
from haptk.cli.base import run
from haptk.io import clock
from tests.ports import free_port

HAPTK = str(Path(sys.executable).with_name("haptk"))


def check(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = run(haptk, ["check", *argv])
    return code, capsys.readouterr().out.strip()


def wait_for(what: Callable[[], object], wish: str, limit_s: float = 40.0) -> None:
    """Wait until `what()` is true; the limit is generous, because this machine may be busy."""
    deadline = clock.monotonic() + limit_s
    while not what():
        assert clock.monotonic() < deadline, f"never happened: {wish}"
        clock.sleep(0.1)


class Page(BaseHTTPRequestHandler):
    """Answers with the server's status and, where the status is 0, not at all."""

    def do_GET(self) -> None:
        status = self.server.status  # type: ignore[attr-defined]
        if status == 0:
            self.server.release.wait(30)  # type: ignore[attr-defined]
            return
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_args: object) -> None:
        pass


class Site:
    """A web server whose health can be changed."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.server.daemon_threads = True
        self.server.status = 200  # type: ignore[attr-defined]
        self.server.release = threading.Event()  # type: ignore[attr-defined]
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answers(self, status: int) -> None:
        self.server.status = status  # type: ignore[attr-defined]

    def close(self) -> None:
        self.server.release.set()  # type: ignore[attr-defined]
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


# -- monitoring plugins --------------------------------------------------------------------------------------------------

PLUGINS = Path("/usr/lib/nagios/plugins")
RANGES = ("0", "1", "2", "1:", "2:", "~:1", "1:2", "@1:2", "@0", "0:0", "@2:", "3:3", "~:", "@~:0")


@pytest.mark.real("monitoring-plugins")
def test_ranges_mean_what_the_real_check_procs_makes_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers of processes and the same thresholds for both: the same exit code, and the same thresholds shown."""
    children = []
    for count in (1, 2, 3):
        program = tmp_path / f"hcc{os.getpid()}-{count}"
        shutil.copy("/bin/sleep", program)
        children += [subprocess.Popen([str(program), "1000"]) for _ in range(count)]
    try:
        wrong = []
        for count in range(4):
            for text in RANGES:
                for option in ("-w", "-c"):
                    # Both thresholds are given, because haptk would use its default for a count of 0.
                    argv = [option, text, "-c" if option == "-w" else "-w", "~:"]
                    theirs = subprocess.run(
                        [str(PLUGINS / "check_procs"), "-C", f"hcc{os.getpid()}-{count}", *argv],
                        capture_output=True,
                        text=True,
                    )
                    code, out = check(capsys, "process", f"hcc{os.getpid()}-{count}", *argv)
                    if code != theirs.returncode:
                        wrong.append(
                            f"{count} {argv}: {code} {out!r}, check_procs: {theirs.returncode} {theirs.stdout!r}"
                        )
        assert not wrong, "\n".join(wrong)
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.mark.real("monitoring-plugins")
def test_the_real_negate_reads_our_exit_codes(tmp_path: Path, site: Site) -> None:
    plugin = tmp_path / "check_haptk_http"
    plugin.symlink_to(HAPTK)
    for status, expected in ((200, 2), (503, 0)):
        site.answers(status)
        argv = [str(PLUGINS / "negate"), "-t", "30", "-s", str(plugin), f"http://127.0.0.1:{site.port}/"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == expected, done.stdout
        # -s puts the new state's word into our line: it was found where plugins have it.
        assert done.stdout.startswith("HTTP CRITICAL: " if expected == 2 else "HTTP OK: ")


# -- HAProxy -----------------------------------------------------------------------------------------------------------

HAPROXY = """
global
  external-check
  insecure-fork-wanted
  stats socket {folder}/admin.sock mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  timeout check 10s
frontend web
  bind {folder}/web.sock
  default_backend checked
backend checked
  option external-check
  external-check command {folder}/check
  external-check path "{path}"
  server a 127.0.0.1:{port} check inter 3s fastinter 3s rise 1 fall 1
frontend page
  bind 127.0.0.1:{page}
  stats enable
  stats uri /stats
"""

EXTERNAL = """#!/bin/sh
# HAProxy calls this with: proxy address, proxy port, server address, server port.
exec {haptk} check http -H "$3" -p "$4" --uri /health --timeout 5s --contract script
"""


@pytest.mark.real("haproxy")
def test_haproxy_acts_on_a_check_and_is_judged_itself(
    tmp_path: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "check"
    program.write_text(EXTERNAL.format(haptk=HAPTK))
    program.chmod(0o755)
    page = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(folder=tmp_path, path=os.environ["PATH"], port=site.port, page=page))
    admin = str(tmp_path / "admin.sock")
    with (tmp_path / "err").open("wb") as errors:
        haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=errors, stderr=errors)
    try:
        wait_for(lambda: Path(admin).exists(), "haproxy started")
        # L7OK of an external check shows that it was run and passed, and not only that the server starts as UP.
        wait_for(lambda: b"External check passed" in ask(admin, "show stat"), "the first check passed")
        code, out = check(capsys, "haproxy", "--socket", admin)
        assert code == 0, out
        assert "frontend web OPEN; backend checked 1/1 servers up" in out
        assert "(HAProxy 2." in out
        assert check(capsys, "haproxy", "--url", f"http://127.0.0.1:{page}/stats", "checked")[0] == 0
        site.answers(503)
        wait_for(lambda: check(capsys, "haproxy", "--socket", admin, "checked")[0] == 2, "HAProxy took the server out")
        code, out = check(capsys, "haproxy", "--url", f"http://127.0.0.1:{page}/stats", "checked")
        assert (code, "backend checked 0/1 servers up (a DOWN: External check error)" in out) == (2, True), out
        site.answers(200)
        wait_for(lambda: check(capsys, "haproxy", "--socket", admin, "checked")[0] == 0, "HAProxy put it back")
        ask(admin, "set server checked/a state maint")
        code, out = check(capsys, "haproxy", "--socket", admin, "checked")
        assert (code, "checked 0/0 servers up" in out) == (2, True), out
    finally:
        haproxy.terminate()
        haproxy.wait(20)
    code, out = check(capsys, "haproxy", "--socket", admin)
    assert code == 2, out


def ask(path: str, command: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(20)
        channel.connect(path)
        channel.sendall(command.encode() + b"\n")
        answer = b""
        while part := channel.recv(65536):
            answer += part
        return answer


# -- keepalived --------------------------------------------------------------------------------------------------------

KEEPALIVED = """
global_defs {{
  router_id {name}
  enable_script_security
  script_user root
  vrrp_garp_master_delay 1
}}
vrrp_script site {{
  script "{haptk} check http http://127.0.0.1:8080/ --timeout 2s --contract script"
  interval 1
  timeout 5
  rise 1
  fall 2
}}
vrrp_instance VI_1 {{
  state BACKUP
  interface v0
  virtual_router_id 51
  priority {priority}
  advert_int 1
  unicast_src_ip {own}
  unicast_peer {{
    {peer}
  }}
  virtual_ipaddress {{
    10.98.7.100/24
  }}
  track_script {{
    site
  }}
}}
"""

SERVE = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Page).serve_forever()
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Node:
    """A namespace with a web server and a keepalived that checks it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{self.name}.{Path(argv[0]).name}.log").open("wb") as log:
            # `ip netns exec` becomes the program, so the child's pid is the program's.
            child = subprocess.Popen(["ip", "netns", "exec", self.name, *argv], stdout=log, stderr=log)
        self.children.append(child)
        return child

    def serve(self) -> subprocess.Popen[bytes]:
        return self.start(sys.executable, "-c", SERVE)

    def keepalived(self, priority: int, own: str, peer: str) -> subprocess.Popen[bytes]:
        config = self.folder / f"{self.name}.conf"
        config.write_text(KEEPALIVED.format(name=self.name, haptk=HAPTK, priority=priority, own=own, peer=peer))
        files = [f"--{kind}={self.folder}/{self.name}.{kind}" for kind in ("pid", "vrrp_pid", "checkers_pid")]
        return self.start("keepalived", "-n", "-l", "-D", "-f", str(config), *files)

    def has_address(self) -> bool:
        shown = subprocess.run(["ip", "-n", self.name, "-4", "-o", "addr"], capture_output=True, text=True)
        return "10.98.7.100/" in shown.stdout

    def log(self) -> str:
        path = self.folder / f"{self.name}.keepalived.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(15)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two namespaces joined by a veth pair."""
    names = [f"haptkhc{os.getpid()}{letter}" for letter in "ab"]
    nodes = [Node(name, tmp_path) for name in names]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.98.7.{number}/24", "dev", "v0")
            ip("-n", name, "link", "set", "v0", "up")
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.stop()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.root
@pytest.mark.real("keepalived", "ip")
def test_keepalived_acts_on_a_check_and_is_judged_itself(
    pair: tuple[Node, Node], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = pair
    web = first.serve()
    second.serve()
    daemon = first.keepalived(150, "10.98.7.1", "10.98.7.2")
    second.keepalived(100, "10.98.7.2", "10.98.7.1")
    pid_file = f"{tmp_path}/{first.name}.pid"
    judge = ["keepalived", "-f", pid_file, "--timeout", "5"]
    try:
        wait_for(lambda: first.has_address() and not second.has_address(), "the first node is master")
        code, out = check(capsys, *judge, "--state", "MASTER", "VI_1")
        assert code == 0, out
        assert out.startswith("KEEPALIVED OK: VI_1 is MASTER; keepalived runs (")
        # The web server dies: two failed checks later the address is on the other node.
        os.kill(web.pid, signal.SIGKILL)
        wait_for(lambda: second.has_address() and not first.has_address(), "the address moved")
        code, out = check(capsys, *judge, "--state", "any")
        assert (code, "VI_1 is FAULT" in out) == (2, True), out
        # It hangs instead: a check that hangs is a failure, not a pass.
        replaced = first.serve()
        wait_for(first.has_address, "the address came back")
        os.kill(replaced.pid, signal.SIGSTOP)
        wait_for(lambda: second.has_address() and not first.has_address(), "the address moved from a hung server")
        os.kill(replaced.pid, signal.SIGKILL)
        assert "Script `site` now returning 1" in first.log()
        # keepalived itself is frozen, and then dead.
        parent = int(Path(pid_file).read_text())
        os.kill(parent, signal.SIGSTOP)
        wait_for(lambda: check(capsys, *judge)[0] == 2, "a frozen keepalived is noticed")
        code, out = check(capsys, *judge)
        assert "keepalived is stopped: process" in out
        os.kill(parent, signal.SIGCONT)
        wait_for(lambda: check(capsys, *judge)[0] == 0, "it runs again")
    finally:
        daemon.terminate()
        daemon.wait(30)
    assert check(capsys, *judge)[0] == 2


def test_the_unit_of_the_howto_is_accepted_by_systemd(tmp_path: Path) -> None:
    """That it also acts on it is in test_check_monitoring.py."""
    howto = Path(__file__).resolve().parents[2] / "docs" / "howto" / "health-checks.md"
    block = howto.read_text().partition("```ini\n")[2].partition("```")[0]
    assert "ExecCondition=/usr/bin/haptk check" in block
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not on this machine")
    unit = tmp_path / "web.service"
    unit.write_text(block.replace("/usr/bin/haptk", HAPTK) + "\n[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "Unknown key" not in done.stderr
    assert done.returncode == 0, done.stderr
