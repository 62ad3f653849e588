"""Small servers in every state a check has to tell apart; each on a loopback port of its own, all stopped at the end."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from haptk.io import control

Talk = Callable[[socket.socket], None]


def _short(number: int) -> str:
    """Base 36: process numbers up to 2**22 in five characters."""
    return "" if number == 0 else _short(number // 36) + "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36]


# Names of processes are seen by every run on this machine, and have room for 15 characters.
NAME = f"hc{_short(os.getpid())}"


class Server:
    """Accepts on a socket and lets `talk` answer, each connection in a thread."""

    def __init__(self, talk: Talk, path: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.talk = talk
        self.tls = tls
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.socket.bind(path or ("127.0.0.1", 0))
        self.socket.listen(1024)
        self.at = path or f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.socket.accept()
            except OSError:
                return
            self.open.append(channel)
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                channel = self.tls.wrap_socket(channel, server_side=True)
                self.open.append(channel)
            self.talk(channel)
            channel.close()

    def close(self) -> None:
        # shutdown wakes the accepting thread, which close alone does not.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for channel in self.open:
            channel.close()


def http_answer(status: str, body: str = "hello, all is well", headers: str = "X-Node: a\r\n") -> Talk:
    def talk(channel: socket.socket) -> None:
        seen = b""
        while b"\r\n\r\n" not in seen:
            part = channel.recv(4096)
            if not part:
                return
            seen += part
        channel.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode())

    return talk


def say(data: bytes) -> Talk:
    """Says it at once and reads until the peer has enough."""

    def talk(channel: socket.socket) -> None:
        channel.sendall(data)
        channel.recv(4096)

    return talk


def silent(channel: socket.socket) -> None:
    """Accepts, reads and never answers."""
    while channel.recv(4096):
        pass


def memcached(mode: str) -> Talk:
    """The part of memcached's text protocol that a check needs; `mode` says what is wrong with it."""

    def talk(channel: socket.socket) -> None:
        stream = channel.makefile("rwb")
        kept: dict[bytes, bytes] = {}
        while line := stream.readline():
            words = line.split()
            if words[0] == b"set":
                value = stream.read(int(words[4]) + 2)[:-2]
                if mode == "full":
                    stream.write(b"SERVER_ERROR out of memory storing object\r\n")
                else:
                    kept[words[1]] = value
                    stream.write(b"STORED\r\n")
            elif words[0] == b"get":
                value = kept.get(words[1]) if mode != "forgets" else None
                if value is not None:
                    stream.write(
                        b"VALUE %s 0 %d\r\n%s\r\n" % (words[1], len(value), value[::-1] if mode == "mad" else value)
                    )
                stream.write(b"END\r\n")
            elif words[0] == b"delete":
                stream.write(b"DELETED\r\n" if kept.pop(words[1], None) else b"NOT_FOUND\r\n")
            elif words[0] == b"stats":
                figures = b"version 1.6.18", b"curr_connections 10", b"max_connections 1024", b"evictions 7"
                figures += b"limit_maxbytes 1000", b"bytes 250", b"cmd_get 8", b"get_hits 6", b"uptime 60"
                stream.write(b"".join(b"STAT %s\r\n" % figure for figure in figures) + b"END\r\n")
            stream.flush()

    return talk


REDIS_INFO = {
    "redis_version": "7.0.15",
    "connected_clients": "3",
    "maxclients": "10000",
    "used_memory": "1048576",
    "maxmemory": "0",
    "uptime_in_seconds": "60",
    "loading": "0",
    "role": "master",
    "connected_slaves": "1",
}


def redis(password: str = "", refuse_set: str = "", **info: str) -> Talk:
    """The part of redis that a check needs."""

    def talk(channel: socket.socket) -> None:
        stream = channel.makefile("rwb")
        kept: dict[bytes, bytes] = {}
        allowed = not password
        while head := stream.readline():
            words = []
            for _ in range(int(head[1:])):
                words.append(stream.read(int(stream.readline()[1:]) + 2)[:-2])
            name = words[0].upper()
            if name == b"AUTH":
                allowed = words[-1].decode() == password
                reply = b"+OK" if allowed else b"-WRONGPASS invalid username-password pair or user is disabled."
            elif not allowed:
                reply = b"-NOAUTH Authentication required."
            elif name == b"INFO":
                text = "\r\n".join(f"{key}:{value}" for key, value in {**REDIS_INFO, **info}.items()).encode()
                reply = b"$%d\r\n# all\r\n%s" % (len(text) + 7, text)
            elif name == b"SET" and refuse_set:
                reply = refuse_set.encode()
            elif name == b"SET":
                kept[words[1]] = words[2]
                reply = b"+OK"
            elif name == b"GET":
                value = kept.get(words[1])
                reply = b"$-1" if value is None else b"$%d\r\n%s" % (len(value), value)
            elif name == b"DEL":
                reply = b":%d" % (kept.pop(words[1], None) is not None)
            else:
                reply = b"+PONG"
            stream.write(reply + b"\r\n")
            stream.flush()

    return talk


HEAD = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,status,type,check_status,check_desc,new_column,"


def haproxy_stats(*rows: str, stopping: int = 0) -> Talk:
    info = f"Name: HAProxy\nVersion: 2.6.12\nUptime: 0d 0h01m00s\nStopping: {stopping}\n\n"
    text = info + "\n".join([HEAD, *rows]) + "\n\n"

    def talk(channel: socket.socket) -> None:
        channel.recv(4096)
        channel.sendall(text.encode())

    return talk


FRONT = "fe,FRONTEND,,,12,20,200,100,OPEN,0,,,,"
BACK = "be,BACKEND,3,9,7,20,20,100,UP,1,,,,"
UP_A = "be,a,0,0,4,9,,50,UP,2,L7OK,,,"
DOWN_B = "be,b,0,0,3,9,,50,DOWN,2,L4CON,Layer4 connection problem,,"
MAINT_C = "be,c,0,0,0,0,,0,MAINT,2,,,,"


def heartbeat_status(**change: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "node": "lb1",
        "state": "active",
        "hold": "local",
        "check": {"state": "up"},
        "peer": {
            "name": "lb2",
            "state": "active",
            "check": "up",
            "heard_s_ago": 0.5,
            "links": {"udp 10.0.0.2": "up"},
        },
        "resources": [{"name": "eip", "state": "held", "held": True, "why": ""}],
    }
    for key, value in change.items():
        place, _, field = key.partition("__")
        if field:
            status[place] = {**status[place], field: value}
        else:
            status[place] = value
    return status


def certificate(folder: Path, name: str, days: float, authority: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """A key and a certificate for 127.0.0.1 and `name`, written as NAME.pem; signed by `authority` or by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days, hours=1)
    alternatives = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority[1].subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end, now) - datetime.timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(authority[0] if authority else key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.pem").write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key, made


def tls_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Names(threading.Thread):
    """A DNS server on UDP that knows web.test, and is silent about anything else below silent.test."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.at = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def run(self) -> None:
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rrset

        while True:
            try:
                data, source = self.socket.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            question = dns.message.from_wire(data)
            name = question.question[0].name.to_text()
            if name.endswith("silent.test."):
                continue
            answer = dns.message.make_response(question)
            if name == "web.test.":
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1", "192.0.2.2"))
            elif name == "broken.test.":
                answer.set_rcode(dns.rcode.SERVFAIL)
            elif name != "empty.test.":
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self.socket.sendto(answer.to_wire(), source)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Daemon:
    """A control socket of haptk that always gives one answer."""

    def __init__(self, path: Path, answer: dict[str, Any]) -> None:
        self.server = control.Server(path, lambda _request: answer)
        os.set_blocking(self.server.fileno(), True)
        self.at = str(path)
        self.closed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        import select

        while not self.closed:
            if select.select([self.server], [], [], 0.05)[0]:
                self.server.accept()

    def close(self) -> None:
        self.closed = True
        self.server.close()


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def named_process(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A process of that name that sleeps."""
    program = folder / name
    if not program.exists():
        shutil.copy("/bin/sleep", program)
    return subprocess.Popen([str(program), "1000"])


def wait_for_state(pid: int, letters: str) -> None:
    for _ in range(500):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        if state in letters:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"process {pid} never was {letters}")


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt, and good, soon and old: certificates with 90, 10 and -1 days left."""
    folder = tmp_path_factory.mktemp("tls")
    authority = certificate(folder, "ca", 3650)
    for name, days in (("good", 90), ("soon", 10), ("old", -1)):
        certificate(folder, name, days, authority)
    return folder


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Names and pid files of processes: alive, stopped, zombie, stale, a long name, and several of one name."""
    folder = tmp_path_factory.mktemp("processes")
    # A parent that does not wait before its input ends: until then its child is a zombie.
    zombie_name = f"{NAME}-zombie"
    shutil.copy("/bin/true", folder / zombie_name)
    text = "import subprocess, sys; c = subprocess.Popen([sys.argv[1]]); print(c.pid, flush=True); sys.stdin.read(); c.wait()"
    with contextlib.ExitStack() as stack:

        def keep(child: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
            stack.callback(child.wait)
            stack.callback(child.kill)
            return child

        alive, stopped = keep(named_process(folder, f"{NAME}-alive")), keep(named_process(folder, f"{NAME}-stopped"))
        keep(named_process(folder, f"{NAME}-a-name-longer-than-fifteen"))
        half = [keep(named_process(folder, f"{NAME}-half")) for _ in range(2)]
        argv = [sys.executable, "-c", text, str(folder / zombie_name)]
        parent = keep(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(parent.communicate)  # last in, first out: it reaps its child before it is killed
        zombie = int(parent.stdout.readline())
        for one in (stopped, half[0]):
            one.send_signal(signal.SIGSTOP)
            wait_for_state(one.pid, "T")
        wait_for_state(zombie, "Z")
        found = {"alive": alive.pid, "stopped": stopped.pid, "zombie": zombie, "gone": 2**22 - 1}
        files = {"p": NAME}
        for name, pid in found.items():
            (folder / f"{name}.pid").write_text(f"{pid}\n")
            files[f"{name}_pid"] = str(folder / f"{name}.pid")
        (folder / "junk.pid").write_text("not a number\n")
        yield files | {"junk_pid": str(folder / "junk.pid"), "no_pid": str(folder / "no.pid")}


@pytest.fixture(scope="session")
def targets(
    tmp_path_factory: pytest.TempPathFactory, tls_files: Path, processes: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Placeholder -> address of a server in that state, or path of a file."""
    folder = tmp_path_factory.mktemp("t")
    talks: dict[str, Talk] = {
        "http_ok": http_answer("200 OK"),
        "http_500": http_answer("500 Internal Server Error"),
        "http_404": http_answer("404 Not Found"),
        "http_302": http_answer("302 Found", ""),
        "http_evil": http_answer("503 x|y=1\x1b[2J"),
        "garbage": say(b"\x00\x01 what?\r\n\r\n"),
        "cut": say(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "silent": silent,
        "banner": say(b"220 mail.test ready\r\n"),
        "memcached_ok": memcached("ok"),
        "memcached_full": memcached("full"),
        "memcached_forgets": memcached("forgets"),
        "memcached_mad": memcached("mad"),
        "redis_ok": redis(),
        "redis_auth": redis(password="s3cret"),
        "redis_loading": redis(loading="1", loading_loaded_perc="12.5"),
        "redis_replica": redis(role="slave", master_link_status="up", master_last_io_seconds_ago="1"),
        "redis_cut": redis(
            role="slave", master_link_status="down", master_host="10.0.0.9", master_link_down_since_seconds="33"
        ),
        "redis_disk": redis(
            refuse_set="-MISCONF Redis is configured to save RDB snapshots, but it is unable to persist"
        ),
    }
    sockets: dict[str, Talk] = {
        "ha_ok": haproxy_stats(FRONT, UP_A, MAINT_C, BACK),
        "ha_one_down": haproxy_stats(FRONT, UP_A, DOWN_B, BACK),
        "ha_down": haproxy_stats(FRONT, DOWN_B, BACK.replace("UP", "DOWN")),
        "ha_full": haproxy_stats(FRONT.replace(",12,", ",190,"), UP_A, BACK),
        "ha_closed": haproxy_stats(FRONT.replace("OPEN", "STOP"), UP_A, BACK),
        "ha_stopping": haproxy_stats(FRONT, UP_A, BACK, stopping=1),
        "ha_resolution": haproxy_stats(MAINT_C.replace("MAINT", "MAINT (resolution)"), UP_A, BACK),
        "ha_denied": say(b"Permission denied\n\n"),
        "ha_silent": silent,
    }
    daemons = {
        "hb_ok": heartbeat_status(),
        "hb_alone": heartbeat_status(peer__state="dead"),
        "hb_failed": heartbeat_status(
            hold="none", resources=[{"name": "eip", "state": "failed", "held": False, "why": "API said no"}]
        ),
        "hb_link": heartbeat_status(peer__links={"udp 10.0.0.2": "up", "serial": "dead"}),
        "hb_sick": heartbeat_status(check={"state": "down"}),
        "hb_starting": heartbeat_status(state="up", hold="none"),
        "hb_error": {"error": "not now"},
    }
    started: list[Any] = []
    with contextlib.ExitStack() as stack:

        def keep(server: Any) -> Any:
            started.append(server)
            stack.callback(server.close)
            return server

        found = {name: keep(Server(talk)).at for name, talk in talks.items()}
        found |= {name: keep(Server(talk, str(folder / name))).at for name, talk in sockets.items()}
        found |= {name: keep(Daemon(folder / name, answer)).at for name, answer in daemons.items()}
        for name in ("good", "soon", "old"):
            context = tls_context(tls_files / f"{name}.pem")
            found[f"tls_{name}"] = keep(Server(http_answer("200 OK"), tls=context)).at
        names = keep(Names())
        names.start()
        found["names"] = names.at
        closed = socket.socket()
        stack.callback(closed.close)
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and nobody else gets the port
        found["refused"] = f"127.0.0.1:{closed.getsockname()[1]}"
        found |= {"ca": str(tls_files / "ca.crt"), "nothing": str(folder / "nothing"), **processes}
        (folder / "secret").write_text("s3cret\n")
        (folder / "wrong").write_text("wrong\n")
        found |= {"secret": str(folder / "secret"), "wrong": str(folder / "wrong")}
        found["plugin"] = script(
            folder / "plugin", "echo \"DISK WARNING: 80% | /var=80%;75;90\"; echo '/var is filling'; exit 1\n"
        )
        found["fails"] = script(folder / "fails", "echo not well; exit 7\n")
        found["hangs"] = script(folder / "hangs", "sleep 1000 & sleep 1000\n")
        yield found
