"""`resolvers`: servers that follow their names, with a real dnsmasq, beside the real haproxy."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haptk.formats.haproxy_cfg import Source, parse
from haptk.proxy import resolver
from haptk.proxy.tables import NameServer, Resolvers
from tests.diff.rig import HAPTK, PROGRAMS, Program, exchange, free_ports, start
from tests.proxy.conftest import ScriptedServer, keep_answering

pytestmark = [pytest.mark.real("haproxy", "dnsmasq"), pytest.mark.timeout(180)]
FILE = """defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 1s
 retries 0

resolvers here
 nameserver nobody 127.0.0.1:{dead}
 nameserver dnsmasq 127.0.0.1:{dns}
 resolve_retries 2
 timeout resolve 200ms
 timeout retry 300ms
 hold valid 300ms
 hold nx 1s
 hold timeout 1s
 hold obsolete 0s

listen web
 bind 127.0.0.1:{port}
 server app app.test:{server} resolvers here resolve-prefer ipv4 init-addr none

listen six
 bind 127.0.0.1:{six}
 server app both.test:{server} resolvers here init-addr none

listen spread
 bind 127.0.0.1:{spread}
 balance roundrobin
 server-template app 2 two.test:{server} resolvers here resolve-prefer ipv4 init-addr none
"""


class Dns:
    """dnsmasq over a hosts file that the test writes."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        self.hosts = directory / "hosts"
        self.hosts.write_text("")
        program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
        words = ["--no-daemon", "--no-hosts", "--no-resolv", "--local=/test/", "--bind-interfaces", "--local-ttl=0"]
        where = [
            f"--addn-hosts={self.hosts}",
            f"--port={self.port}",
            "--listen-address=127.0.0.1",
            "--user=root",
            "--pid-file=",
        ]
        with (directory / "dnsmasq.out").open("wb") as out:
            self.process = subprocess.Popen([program, *words, *where], stdout=out, stderr=out)
        deadline = time.monotonic() + 20
        while b"started" not in (directory / "dnsmasq.out").read_bytes():  # before that SIGHUP ends it
            assert time.monotonic() < deadline and self.process.poll() is None, "dnsmasq does not come up"
            time.sleep(0.05)

    def say(self, *lines: str) -> None:
        self.hosts.write_text("".join(f"{line}\n" for line in lines))
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def dns(tmp_path: Path) -> Iterator[Dns]:
    made = Dns(tmp_path)
    yield made
    made.stop()


def answering(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text)


@pytest.fixture
def machines() -> Iterator[int]:
    """127.0.0.2, 127.0.0.3 and ::1 are three machines with the same port."""
    first = ScriptedServer(keep_answering(answering(b"two")), "127.0.0.2", 0)
    others = [
        ScriptedServer(keep_answering(answering(text)), host, first.port)
        for host, text in (("127.0.0.3", b"three"), ("::1", b"six"))
    ]
    yield first.port
    for each in (first, *others):
        each.close()


def until(port: int, wanted: object, why: str) -> None:
    """Ask until the body (or the status, for a number) is `wanted`."""
    deadline = time.monotonic() + 20
    while True:
        got = exchange(("127.0.0.1", port), b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        if wanted in (got.status, got.body):
            return
        assert time.monotonic() < deadline, f"{why}: wanted {wanted!r}, got {got}"
        time.sleep(0.1)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_servers_follow_their_names(kind: str, tmp_path: Path, dns: Dns, machines: int) -> None:
    port, six, spread, dead = free_ports(4)
    text = FILE.format(dead=dead, dns=dns.port, port=port, six=six, spread=spread, server=machines)
    program: Program = start(kind, text, tmp_path, [("127.0.0.1", port), ("127.0.0.1", six), ("127.0.0.1", spread)])
    try:
        until(port, 503, "a name that does not exist yet")
        dns.say("127.0.0.2 app.test two.test", "127.0.0.3 both.test two.test", "::1 both.test")
        until(port, b"two", "the name appears")
        until(six, b"six", "ipv6 is preferred unless the file says otherwise")
        for wanted in (b"two", b"three"):
            until(spread, wanted, "two servers of one name take one address each")
        dns.say("127.0.0.3 app.test both.test")
        until(port, b"three", "the name moves")
        until(six, b"three", "no address of the preferred family is left")
        dns.say("127.0.0.9 other.test")
        until(port, 503, "the name is gone for longer than hold nx")
        dns.say("127.0.0.2 app.test")
        until(port, b"two", "the name returns")
        dns.process.send_signal(signal.SIGSTOP)
        until(port, 503, "no answer for longer than hold timeout, which the file names")
        dns.process.send_signal(signal.SIGCONT)
        until(port, b"two", "the name server is back")
    finally:
        program.stop()


def test_a_silent_name_server_ends_nobody_unless_the_file_says_so(tmp_path: Path, dns: Dns, machines: int) -> None:
    port, six, spread, dead = free_ports(4)
    text = FILE.format(dead=dead, dns=dns.port, port=port, six=six, spread=spread, server=machines)
    text = text.replace(" hold timeout 1s\n", "").replace("hold nx 1s", "hold nx 0s")
    dns.say("127.0.0.2 app.test")
    program = start("fast", text, tmp_path, [("127.0.0.1", port)])
    try:
        until(port, b"two", "the name is known")
        dns.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 4  # several rounds of questions
        while time.monotonic() < deadline:
            until(port, b"two", "nobody knows better")
            time.sleep(0.2)
    finally:
        program.stop()


def test_what_the_name_server_says(dns: Dns) -> None:
    dns.say("127.0.0.2 app.test", "10.1.2.3 app.test", *(f"10.9.{n // 200}.{n % 200} many.test" for n in range(600)))
    rules = Resolvers("r", (NameServer("127.0.0.1", dns.port),), retries=2, retry_s=2)
    deadline = time.monotonic() + 20
    while resolver.ask(rules, "many.test", "ipv4").status != "valid":
        assert time.monotonic() < deadline, "dnsmasq does not come up"
        time.sleep(0.1)
    assert set(resolver.ask(rules, "app.test", "ipv4").addresses) == {"127.0.0.2", "10.1.2.3"}
    assert resolver.ask(rules, "app.test", "ipv6", ("10.0.0.0/8",)).addresses[0] == "10.1.2.3"
    assert len(resolver.ask(rules, "many.test", "ipv4").addresses) == 600, "too long for a datagram"
    assert resolver.ask(rules, "no.test", "ipv4").status == "nx"
    assert resolver.ask(rules, "elsewhere.example", "ipv4").status == "refused"
    assert resolver.ask(rules, "a..b", "ipv4").status == "other"
    over_tcp = Resolvers("r", (NameServer("127.0.0.1", dns.port, tcp=True),), retries=1, retry_s=2)
    assert resolver.ask(over_tcp, "app.test", "ipv4").status == "valid"
    nobody = Resolvers("r", (NameServer("127.0.0.1", free_ports(1)[0]),), retries=2, retry_s=0.2)
    assert resolver.ask(nobody, "app.test", "ipv4").status == "timeout"


WRONG = [
    ("nameserver a 10.0.0.1\n nameserver a 10.0.0.2", "same name"),
    ("nameserver a ns.example:53", "no IP address"),
    ("nameserver a 10.0.0.2 source 1.2.3.4", "address only"),
    ("hold forever 1s", "nx, obsolete"),
    ("timeout connect 1s", "resolve, retry"),
    ("accepted_payload_size 100", "512"),
    ("resolve_retries 0", "1"),
    ("search example.com", "search"),
]


@pytest.mark.parametrize(("line", "told"), WRONG)
def test_wrong_lines_are_named(line: str, told: str) -> None:
    found = parse([Source("x.cfg", f"resolvers r\n {line}\n")])
    assert len(found.errors) == 1
    assert told in found.errors[0].why and str(found.errors[0]).startswith("x.cfg:")


def test_names_of_services_and_missing_sections_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "x.cfg"
    file.write_text(
        "listen l\n mode http\n bind 127.0.0.1:1\n server a _http._tcp.test:1\n server b b.test:1 resolvers gone\n"
    )
    done = subprocess.run([HAPTK, "proxy", "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{file}:4" in done.stderr and "SRV" in done.stderr
    assert f"{file}:5" in done.stderr and "no resolvers section 'gone'" in done.stderr
