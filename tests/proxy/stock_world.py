"""A proxy as root under Debian's own haproxy.cfg, word for word, with every feature below it, in a mount namespace of its own.

/run/haproxy and /var/lib/haproxy/dev are directories of the test there, so that the stock paths can be used as they are
and a syslog socket stands where HAProxy looks for it after its chroot. What the file calls is served by this process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rrset

from tests.ports import free_ports

STOCK = Path("/etc/haproxy/haproxy.cfg")
HAPTK = str(Path(sys.executable).parent / "haptk")
PATIENCE_S = 90.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

FEATURES = """
resolvers names
    nameserver local 127.0.0.1:{dns}
    resolve_retries 2
    timeout retry 200ms
    hold valid 1s
ring memory
    format rfc5424
    maxlen 1200
    size 32764
peers tables
    peer one 127.0.0.1:{peer_one}
    peer two 127.0.0.1:{peer_two}
userlist people
    user me insecure-password secret
frontend web
    bind 127.0.0.1:{web}
    bind /run/haproxy/web.sock mode 600
    log ring@memory local0
    option http-server-close
    unique-id-format %{{+X}}o%ci:%cp_%Ts_%rt
    unique-id-header x-id
    acl secret path_reg ^/secr[e]t
    http-request deny if secret
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request redirect location /else?from=%[src] if {{ path /moved }}
    capture request header host len 20
    use_backend learned if {{ path_beg /learned }}
    use_backend gone if {{ path_beg /gone }}
    default_backend app
backend app
    balance leastconn
    cookie SRV insert indirect nocache
    option httpchk GET /check
    http-check expect status 200
    server http 127.0.0.1:{server} cookie a check inter 200ms
    server agent 127.0.0.1:{server} cookie b check inter 200ms agent-check agent-port {agent} agent-inter 200ms
    server named app.test:{server} cookie c check inter 200ms resolvers names init-addr none
backend tcp
    mode tcp
    option tcp-check
    tcp-check connect
    server tcp 127.0.0.1:{server} check inter 200ms
backend learned
    stick-table type string len 40 size 1k expire 1h peers tables store http_req_cnt
    stick on url_param(user)
    server s 127.0.0.1:{server}
backend gone
    server s 127.0.0.1:1 check inter 200ms
listen statistics
    bind 127.0.0.1:{stats}
    stats enable
    stats uri /st
    stats show-node
    stats admin if TRUE
listen locked
    bind 127.0.0.1:{locked}
    stats enable
    stats uri /st
    stats auth me:secret
"""


class Surroundings:
    """What the file talks to: an HTTP server, an agent, a name server, a syslog socket."""

    def __init__(self, folder: Path) -> None:
        names = ("web", "stats", "locked", "peer_one", "peer_two", "later")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.lines: list[str] = []
        self._open: list[socket.socket] = []
        self.ports["server"] = self._tcp(self._http)
        self.ports["agent"] = self._tcp(lambda channel: channel.sendall(b"up 80%\n"))
        self.ports["dns"] = self._udp(self._name)
        (folder / "dev").mkdir()
        (folder / "run").mkdir()
        shutil.chown(folder / "run", "haproxy", "haproxy")  # as Debian's tmpfiles.d has it
        (folder / "run").chmod(0o2775)
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind(str(folder / "dev/log"))
        (folder / "dev/log").chmod(0o666)
        self._open.append(log)
        threading.Thread(target=self._log, args=(log,), daemon=True).start()

    def _tcp(self, serve: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open.append(listener)

        def one(channel: socket.socket) -> None:
            with channel, contextlib.suppress(OSError):
                serve(channel)

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    def _http(self, channel: socket.socket) -> None:
        data = b""
        while part := channel.recv(65536):
            data += part
            while b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
                channel.sendall(OK)

    def _udp(self, answer: Callable[[bytes], bytes]) -> int:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self._open.append(sock)

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, place = sock.recvfrom(4096)
                    sock.sendto(answer(data), place)

        threading.Thread(target=run, daemon=True).start()
        return int(sock.getsockname()[1])

    def _name(self, data: bytes) -> bytes:
        question = dns.message.from_wire(data)
        reply = dns.message.make_response(question)
        if question.question[0].rdtype == 1:
            reply.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", "127.0.0.1"))
            # types that the library loads when it meets them
            for kind, text in (("TXT", '"x"'), ("MX", "1 mail.test."), ("CAA", '0 issue "ca.test"')):
                reply.additional.append(dns.rrset.from_text(question.question[0].name, 60, "IN", kind, text))
        return reply.to_wire()

    def _log(self, log: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.lines.append(log.recv(65536).decode("latin-1"))

    def close(self) -> None:
        for one in self._open:
            one.close()


class Stock:
    """One program under the stock file. `name` is its name among its peers."""

    def __init__(
        self,
        folder: Path,
        around: Surroundings,
        program: list[str],
        name: str,
        *,
        text: str = "",
        trace: Path | None = None,
    ) -> None:
        self.folder, self.around, self.name = folder, around, name
        self.config = folder / "haproxy.cfg"
        stock = (text or STOCK.read_text()) + FEATURES.format(**around.ports)
        self.config.write_text(stock)
        self.pidfile = folder / "pid"
        inside = 'mount --bind "$0/run" /run/haproxy && mount --bind "$0/dev" /var/lib/haproxy/dev && exec "$@"'
        tracer = (
            ["strace", "-f", "-qq", "-e", "trace=%file,execve,setuid,setresuid,chroot", "-o", str(trace)]
            if trace
            else []
        )
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, str(folder), *tracer, *program]
        argv += ["-f", str(self.config), "-p", str(self.pidfile), "-L", name]
        self.said = folder / "said"
        with self.said.open("wb") as said:
            self.child = subprocess.Popen(argv, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
        self.until(lambda: self.http("/", "web").startswith(b"HTTP/1.1 200"), "serves")

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                if holds():
                    return
            assert time.monotonic() < deadline, f"never: {what}; it said {self.said.read_text()[-3000:]}"
            time.sleep(0.05)

    def http(
        self, target: str, port: str, *, method: str = "GET", body: bytes = b"", headers: tuple[str, ...] = ()
    ) -> bytes:
        """The whole response to one request."""
        head = [f"{method} {target} HTTP/1.1", "host: a", "connection: close", *headers]
        if body:
            head += ["content-type: application/x-www-form-urlencoded", f"content-length: {len(body)}"]
        with socket.create_connection(("127.0.0.1", self.around.ports[port]), 20) as channel:
            channel.settimeout(20)
            channel.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            out = b""
            with contextlib.suppress(ConnectionResetError):
                while part := channel.recv(65536):
                    out += part
            return out

    def status(self, target: str, port: str, **more: object) -> int:
        return int(self.http(target, port, **more).split(b" ", 2)[1])  # type: ignore[arg-type]

    def command(self, text: str) -> str:
        """The answer of the stock stats socket to one command."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(20)
            channel.connect(str(self.folder / "run/admin.sock"))
            channel.sendall(text.encode() + b"\n")
            out = b""
            while part := channel.recv(65536):
                out += part
            return out.decode("latin-1")

    def states(self) -> dict[str, str]:
        """backend/server -> status."""
        rows = [line.split(",") for line in self.command("show stat -1 4 -1").splitlines() if line and line[0] != "#"]
        return {f"{row[0]}/{row[1]}": row[17].split(" ")[0] for row in rows if len(row) > 17}

    def stop(self) -> None:
        """End it softly, whether it went to the background or not; what does not end is killed."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while self.alive() and time.monotonic() < deadline:
            self.child.poll()
            time.sleep(0.05)
        left = self.alive()
        if left:
            os.kill(self.pid, signal.SIGKILL)
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
        assert not left, "it did not end after SIGUSR1"

    def alive(self) -> bool:
        """Whether the process of the pid file runs and is ours."""
        try:
            return os.fsencode(self.config) in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False


@contextlib.contextmanager
def stock(
    folder: Path, program: list[str], name: str = "one", ports: dict[str, int] | None = None, **more: object
) -> Iterator[Stock]:
    """A running one; it is stopped in the end. `ports` are not drawn anew."""
    folder.mkdir(exist_ok=True)
    surroundings = Surroundings(folder)
    surroundings.ports.update(ports or {})
    found = None
    try:
        found = Stock(folder, surroundings, program, name, **more)  # type: ignore[arg-type]
        yield found
    finally:
        if found is not None:
            found.stop()
        surroundings.close()
