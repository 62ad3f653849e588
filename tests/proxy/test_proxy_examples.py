"""Configurations as people have them, unmodified: the addresses of the file exist in a network of the test's own."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HAPTK = [sys.executable, "-m", "haptk", "proxy"]
PREFIX = """listen webfarm
       bind 192.168.1.1:80
       mode http
       balance roundrobin
       cookie JSESSIONID prefix
       option httpclose
       option forwardfor
       option httpchk HEAD /check.txt HTTP/1.0
       server webA 10.0.0.1:80 cookie A check
       server webB 10.0.0.2:80 cookie B check
"""
TIMES = "defaults\n  mode http\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
INSERT = """frontend www
  bind 192.168.1.1:80
  default_backend apps
backend apps
  balance leastconn
  cookie SERVERID insert indirect nocache
  option httpchk GET /check.txt
  option redispatch
  retries 3
  default-server inter 2s fall 3 rise 2
  server app1 10.0.0.1:80 cookie app1 check maxconn 100
  server app2 10.0.0.2:80 cookie app2 check maxconn 100
  server spare 10.0.0.3:80 backup
"""
EXAMPLES = {
    "prefix": (PREFIX, "prefix"),
    "insert": (TIMES + INSERT, "insert"),
    "insert postonly": (TIMES + INSERT.replace("indirect nocache", "postonly indirect"), "postonly"),
    "insert with dates": (TIMES + INSERT.replace("nocache", "nocache maxidle 30m maxlife 8h"), "insert"),
    "rewrite": (TIMES + INSERT.replace("insert indirect nocache", "rewrite").replace("SERVERID", "JSESSIONID"), "rewrite"),
    "appsession": (
        TIMES + INSERT.replace("cookie SERVERID insert indirect nocache", "appsession JSESSIONID len 52 timeout 3h request-learn"),
        "learned",
    ),
    "stick on a cookie": (
        TIMES + INSERT.replace(
            "cookie SERVERID insert indirect nocache",
            "stick-table type string len 64 size 1m expire 30m\n  stick store-response res.cook(JSESSIONID)\n  stick match req.cook(JSESSIONID)",
        ),
        "learned",
    ),
    "source": (TIMES + INSERT.replace("balance leastconn", "balance source").replace("  cookie SERVERID insert indirect nocache\n", ""), "source"),
}  # fmt: skip

# Runs inside `unshare -n`: the addresses, two servers that name themselves and set JSESSIONID, a proxy, and a client.
STAGE = r"""
import http.cookiejar, http.server, json, socket, subprocess, sys, threading, time, urllib.request
command, method = json.loads(sys.argv[1]), sys.argv[2]
run = lambda *words: subprocess.run(words, check=True)
run("ip", "link", "set", "lo", "up")
for host in ("192.168.1.1", "192.168.1.9", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.11", "10.0.0.12"):
    run("ip", "address", "add", host + "/32", "dev", "lo")
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"" if self.command == "HEAD" else json.dumps(
            [self.server.server_address[0], self.headers["Cookie"] or "", self.headers["X-Forwarded-For"] or ""]).encode()
        self.send_response(200)
        if "JSESSIONID" not in (self.headers["Cookie"] or "") and "check" not in self.path:
            self.send_header("Set-Cookie", "JSESSIONID=s%s; Path=/" % self.server.server_address[0][-1])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_GET
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *words): pass
old = ("10.0.0.1", 80), ("10.0.0.2", 80), ("10.0.0.3", 80)
for host, port in (("10.0.0.11", 8080), ("10.0.0.12", 8080)) if "--listen" in command else old:
    server = http.server.ThreadingHTTPServer((host, port), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
try:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("192.168.1.1", 80), 1).close()
            break
        except OSError:
            assert time.monotonic() < end and proxy.poll() is None, "the proxy did not come up"
            time.sleep(0.05)
    clients = []
    for number in range(6):
        jar = http.cookiejar.CookieJar()
        client = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar))
        answers = []
        for _ in range(5):
            data = b"x" if method == "POST" else None
            answers.append(json.loads(client.open("http://192.168.1.1/app", data, 20).read()))
        clients.append([answers, {one.name: one.value for one in jar}])
    print(json.dumps(clients))
finally:
    proxy.terminate()
    proxy.wait(20)
"""


def play(command: list[str], method: str = "GET") -> list[tuple[list[list[str]], dict[str, str]]]:
    """Six clients with five requests each: what they saw (server, its Cookie, its X-Forwarded-For), and their cookies."""
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", STAGE, json.dumps(command), method],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(answers, cookies) for answers, cookies in json.loads(done.stdout)]


@pytest.mark.root
@pytest.mark.real("unshare", "ip")
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_unmodified(tmp_path: Path, name: str) -> None:
    text, kind = EXAMPLES[name]
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    clients = play([*HAPTK, "-f", str(file)], "POST" if kind == "postonly" else "GET")
    homes = [{answer[0] for answer in answers} for answers, _ in clients]
    assert all(len(home) == 1 for home in homes), homes  # everybody stays
    used = set().union(*homes)
    assert used == {"10.0.0.1", "10.0.0.2"} if kind != "source" else len(used) == 1
    _, cookies = clients[0]
    home = next(iter(homes[0]))
    letter = {"10.0.0.1": ("A", "app1"), "10.0.0.2": ("B", "app2")}[home]
    if kind == "prefix":
        assert cookies == {"JSESSIONID": f"{letter[0]}~s{home[-1]}"}
        assert clients[0][0][1][1:] == [f"JSESSIONID=s{home[-1]}", "192.168.1.1"]  # what the server is told
    elif kind in ("insert", "postonly"):
        assert cookies["SERVERID"].split("|")[0] == letter[1]
        assert "SERVERID" not in clients[0][0][1][1]
    elif kind == "rewrite":
        assert cookies == {"JSESSIONID": letter[1]}
    else:
        assert cookies == {"JSESSIONID": f"s{home[-1]}"}


@pytest.mark.root
@pytest.mark.real("unshare", "ip")
def test_without_a_file() -> None:
    words = ["--listen", ":80", "--cookie", "JSESSIONID:prefix", "A=10.0.0.11:8080", "B=10.0.0.12:8080"]
    clients = play([*HAPTK, *words])
    homes = [{answer[0] for answer in answers} for answers, _ in clients]
    assert all(len(home) == 1 for home in homes)
    assert set().union(*homes) == {"10.0.0.11", "10.0.0.12"}
    assert {cookies["JSESSIONID"][:2] for _, cookies in clients} == {"A~", "B~"}


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "appsession"])
def test_examples_are_what_haproxy_accepts(tmp_path: Path, name: str) -> None:
    """Our examples are no dialect of our own; appsession was removed from HAProxy, which is why people need it here."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(EXAMPLES[name][0])
    assert subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, check=False).returncode == 0
    told = subprocess.run([*HAPTK, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "Configuration file is valid" in told.stdout


# -- HAProxy's arguments -------------------------------------------------------------------------------------------

SIMPLE = TIMES + "listen web\n  bind {host}:{port}\n  monitor-uri /alive\n  server s 127.0.0.1:1\n"


def served(child: subprocess.Popen[str], port: int) -> str:
    """Wait until it serves; the answer to monitor-uri."""
    import urllib.request

    deadline = time.monotonic() + 20
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            return str(opener.open(f"http://127.0.0.1:{port}/alive", timeout=5).read().decode())
        except OSError:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.05)


def test_the_words_of_haproxys_service_file(tmp_path: Path) -> None:
    """Everything that unit files and wrappers pass, at once."""
    from tests.ports import free_port

    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(SIMPLE.format(host="127.0.0.1", port=port))
    words = [
        "-Ws",
        "-W",
        "-d",
        "-db",
        "-q",
        "-C",
        str(tmp_path),
        "-f",
        "haproxy.cfg",
        "-p",
        "pid",
        "-L",
        "node1",
        "-n",
        "100",
    ]
    words += ["-S", str(tmp_path / "master.sock"), "-x", str(tmp_path / "old.sock")]
    child = subprocess.Popen([*HAPTK, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        assert "Service ready" in served(child, port)
        assert int((tmp_path / "pid").read_text()) == child.pid
    finally:
        child.send_signal(signal.SIGUSR1)
        assert child.wait(20) == 0


@pytest.mark.parametrize("words", [["-v"], ["-vv"]])
def test_versions(words: list[str]) -> None:
    told = subprocess.run([*HAPTK, *words], capture_output=True, text=True, check=True).stdout
    assert re.search(r"\d+\.\d+", told)


# -- privileges ----------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_after_start_it_is_nobody_in_an_empty_room(tmp_path: Path) -> None:
    """chroot, user and group: no rights, no groups, no file open for writing, nothing that it could write to."""
    from tests.ports import free_port

    room = tempfile_root(tmp_path) / "room"
    room.mkdir(mode=0o755)
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(
        f"global\n  chroot {room}\n  user nobody\n  group nogroup\n" + SIMPLE.format(host="127.0.0.1", port=port)
    )
    child = subprocess.Popen(
        [*HAPTK, "-f", str(tmp_path / "haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert "Service ready" in served(child, port)
        proc = Path(f"/proc/{child.pid}")
        assert (proc / "root").readlink() == room
        nobody = pwd.getpwnam("nobody").pw_uid
        for task in (proc / "task").iterdir():  # every thread
            status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            assert status["Uid"].split() == [str(nobody)] * 4
            assert status["Groups"].split() == []
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            for descriptor in (task / "fd").iterdir():
                target = str(descriptor.readlink())
                flags = int(re.search(r"flags:\s*(\d+)", (task / "fdinfo" / descriptor.name).read_text())[1], 8)  # type: ignore[index]
                writable = flags & os.O_ACCMODE != os.O_RDONLY
                assert not (target.startswith("/") and writable and not target.startswith("/dev/")), target
        assert not list(room.iterdir())
        assert room.stat().st_uid == 0
    finally:
        child.terminate()
        assert child.wait(20) == 0


def tempfile_root(tmp_path: Path) -> Path:
    """A place whose parents anybody may enter."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    return tmp_path
