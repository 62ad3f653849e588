"""`haptk dns` against real BIND servers on loopback: every planted fault is found, and updates are signed and guarded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from haptk.cli.app import haptk
from haptk.cluster.load import load
from haptk.dns.rfc2136 import Rfc2136, read_key
from haptk.errors import ConfigError, NotPermitted, OperatorError, PeerError
from tests.fixtures_cloud import NET
from tests.ports import free_port

pytestmark = pytest.mark.real("named")
# BIND listens on addresses that an interface has, so two servers share one address and differ in the port.
HERE = "127.0.0.1"
FIRST, SECOND = "first", "second"
MEMBERS = [f"{NET}.80.{at}" for at in (1, 2, 3)]
STALE = f"{NET}.80.9"
KEY = 'key "haptk" {\n  algorithm hmac-sha256;\n  secret "c2VjcmV0IG9mIGEgdGVzdCwgMzIgYnl0ZXMhISE=";\n};\n'
WRONG = KEY.replace("c2VjcmV0", "d3JvbmdX")


class Quiet(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Member:
    """A balancer: an HTTP server that can die and come back."""

    def __init__(self, host: str, port: int) -> None:
        self.where = (host, port)
        self.server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        self.server = ThreadingHTTPServer(self.where, Quiet)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class Rig:
    """A tier with its declaration, its members and as many name servers as a test starts."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = {name: free_port(HERE) for name in (FIRST, SECOND)}
        self.port = self.ports[FIRST]
        web = free_port(*MEMBERS)
        self.members = [Member(host, web) for host in MEMBERS]
        self.running: list[subprocess.Popen[bytes]] = []
        self.config = place / "cluster.toml"
        self.config.write_text(declaration(web))
        self.key = place / "dns.key"
        self.key.write_text(KEY)
        self.key.chmod(0o600)

    def home(self, name: str, addresses: list[str], serial: int, ttl: int) -> Path:
        """The directory of a server with the zone in it."""
        home = self.place / name
        home.mkdir()
        records = "".join(f"www {ttl} IN A {one}\n" for one in addresses)
        names = f"@ IN NS ns1\n@ IN NS ns2\nns1 IN A {HERE}\nns2 IN A 127.0.0.2\n"
        soa = f"@ IN SOA ns1 admin ( {serial} 3600 600 86400 60 )\n"
        (home / "zone").write_text(f"$ORIGIN example.com.\n$TTL 300\n{soa}{names}{records}")
        return home

    def start(self, argv: list[str], home: Path, ready: bytes) -> None:
        """Start a server and wait until its log says that it is ready."""
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        self.running.append(process)
        deadline = time.monotonic() + 30
        while ready not in (home / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.02)

    def named(self, name: str, addresses: list[str], *, serial: int = 7, ttl: int = 30, order: str = "cyclic") -> None:
        """Start a BIND that serves example.com and wait until it answers."""
        home = self.home(name, addresses, serial, ttl)
        (home / "named.conf").write_text(
            f'{KEY}controls {{ }};\noptions {{ directory "{home}"; listen-on port {self.ports[name]} {{ {HERE}; }};\n'
            f"listen-on-v6 {{ none; }}; recursion no; notify no; dnssec-validation no; pid-file none;\n"
            f"session-keyfile none; rrset-order {{ order {order}; }}; }};\n"
            'zone "example.com" { type primary; file "zone";\n'
            # As the generated fragment of a zone says it.
            "update-policy { grant haptk name www.example.com. A; }; };\n"
        )
        argv = ["/usr/sbin/named", "-g", "-n", "1", "-c", str(home / "named.conf")]
        self.start(argv, home, b"running\n")

    def close(self) -> None:
        for member in self.members:
            member.stop()
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(20)

    def run(self, *argv: str) -> Result:
        return CliRunner().invoke(haptk, ["--config", str(self.config), "dns", *argv], standalone_mode=False)

    def change(self, *argv: str) -> Result:
        return self.run(*argv, "--port", str(self.port), "--key-file", str(self.key))

    def check(self, *names: str, more: tuple[str, ...] = ()) -> tuple[int, dict[str, str]]:
        """The exit code, and severity by code of what was found."""
        servers = [word for name in names for word in ("--server", f"{HERE}:{self.ports[name]}")]
        result = self.run("check", "--json", *servers, *more)
        assert result.exception is None, result.exception
        body = json.loads(result.stdout)
        return int(result.return_value), {one["code"]: one["severity"] for one in body["problems"]}

    def published(self) -> set[str]:
        shown = json.loads(self.change("show", "--json").stdout)
        return {one["address"] for one in shown["members"] if one["weight"]}


def declaration(web: int) -> str:
    blocks = ['[cluster]\nname = "web"\npattern = "round-robin"\n']
    blocks.append('[[regions]]\nname = "eu-west-1"\nzones = ["eu-west-1a"]\n')
    for at, host in enumerate(MEMBERS, 1):
        blocks.append(f'[[balancers]]\nname = "lb{at}"\nzone = "eu-west-1a"\nprivate_ip = "10.0.1.{at}"\n')
        blocks.append(f'[[addresses]]\nname = "web-{at}"\npublic_ip = "{host}"\nactive = "lb{at}"\n')
    blocks.append('[[servers]]\nname = "app1"\naddress = "10.0.1.20"\n[session]\ndesign = "stateless"\n')
    blocks.append(
        f'[frontend]\nport = {web}\n[check]\nmethod = "GET"\ninterval = "200ms"\ntimeout = "200ms"\nfall = 2\nrise = 2\n'
    )
    blocks.append('[dns]\nname = "www.example.com"\nzone = "example.com"\nprovider = "rfc2136"\n')
    blocks.append(f'server = "{HERE}"\npolicy = "simple"\nttl = "30s"\nhealth_checks = false\n')
    return "\n".join(blocks)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    try:
        yield one
    finally:
        one.close()


def test_a_tier_as_declared_is_ok_and_each_fault_is_found(rig: Rig) -> None:
    rig.named(FIRST, MEMBERS)
    rig.named(SECOND, [*MEMBERS[:2], STALE], serial=6, ttl=600)
    assert rig.check(FIRST) == (0, {})
    code, found = rig.check(FIRST, SECOND)
    assert code == 2
    assert found == {"behind": "critical", "stale": "critical", "missing": "critical", "ttl": "warning"}
    rig.members[1].stop()
    assert rig.check(FIRST) == (2, {"dead": "critical"})
    assert rig.check(FIRST, more=("--no-probe",)) == (0, {})


def test_the_servers_of_the_zone_are_found_and_a_silent_one_costs_no_more_than_the_deadline(rig: Rig) -> None:
    from haptk.dns.resolve import Server, authoritative

    rig.named(FIRST, MEMBERS)
    found = authoritative("example.com", 5.0, Server(HERE, rig.port))
    assert {(one.name, one.host) for one in found} == {("ns1.example.com", HERE), ("ns2.example.com", "127.0.0.2")}
    started = time.monotonic()
    code, problems = rig.check(FIRST, SECOND, more=("--deadline", "1"))
    assert (code, problems) == (2, {"silent": "critical"}) and time.monotonic() - started < 20


def test_a_server_that_does_not_rotate_is_found(rig: Rig) -> None:
    rig.named(FIRST, MEMBERS, order="none")
    assert rig.check(FIRST) == (1, {"rotation": "warning"})


def test_a_resolver_that_keeps_an_old_answer_is_a_warning(rig: Rig) -> None:
    rig.named(FIRST, MEMBERS)
    rig.named(SECOND, [*MEMBERS, STALE])
    resolver = ("--resolver", f"{HERE}:{rig.ports[SECOND]}")
    assert rig.check(FIRST, more=resolver) == (1, {"stale": "warning"})


def test_nobody_answers_is_unknown(rig: Rig) -> None:
    code, found = rig.check(FIRST, more=("--deadline", "1"))
    assert code == 3 and set(found.values()) == {"unknown"}


def test_drain_apply_and_the_last_one(rig: Rig) -> None:
    rig.named(FIRST, [*MEMBERS, STALE])
    dry = rig.change("drain", "lb2", "--dry-run")
    assert dry.return_value == 2 and f"A {MEMBERS[1]}" in dry.stdout and rig.published() == {*MEMBERS, STALE}
    asked = rig.change("drain", "lb2")
    assert isinstance(asked.exception, OperatorError) and "--yes" in str(asked.exception)
    assert rig.change("drain", "lb2", "--yes").return_value == 0
    assert rig.published() == {MEMBERS[0], MEMBERS[2], STALE}, "what else is there stays"
    assert rig.change("apply", "--yes").return_value == 0 and rig.published() == set(MEMBERS)
    assert rig.change("apply", "--yes").stdout.strip() == "nothing to do"
    for node in ("lb1", "lb2"):
        assert rig.change("drain", node, "--yes").return_value == 0
    last = rig.change("drain", "lb3", "--yes")
    assert isinstance(last.exception, OperatorError) and "last one" in str(last.exception)
    assert rig.published() == {MEMBERS[2]}
    unknown = rig.change("drain", "lb7", "--yes")
    assert isinstance(unknown.exception, OperatorError) and "lb1, lb2, lb3" in str(unknown.exception)


def test_a_change_in_between_is_not_overwritten(rig: Rig) -> None:
    rig.named(FIRST, MEMBERS)
    provider = Rfc2136(load(rig.config.read_text()).cluster, HERE, rig.port, read_key(rig.key))
    mine, other = provider.plan({MEMBERS[0]: 0}), provider.plan({MEMBERS[1]: 0})
    other.commit()
    with pytest.raises(PeerError, match="somebody else changed it"):
        mine.commit()
    assert rig.published() == {MEMBERS[0], MEMBERS[2]}


def test_a_wrong_key_changes_nothing_and_is_in_no_message(rig: Rig) -> None:
    rig.named(FIRST, MEMBERS)
    good = rig.key.read_text()
    rig.key.write_text(WRONG)
    result = rig.change("drain", "lb1", "--yes")
    assert isinstance(result.exception, PeerError) and "d3Jvbmd" not in str(result.exception) + result.output
    rig.key.write_text(good)
    assert rig.published() == set(MEMBERS)
    rig.key.chmod(0o640)
    with pytest.raises(NotPermitted, match="chmod 0600"):
        read_key(rig.key)
    rig.key.chmod(0o600)
    for text in ("", "secret", KEY.replace("hmac-sha256", "hmac-md5"), KEY.replace("c2VjcmV0I", "abc")):
        rig.key.write_text(text)
        with pytest.raises(ConfigError, match="accepted"):
            read_key(rig.key)


def eventually(rig: Rig, wanted: set[str]) -> None:
    deadline = time.monotonic() + 30
    while (seen := rig.published()) != wanted:
        assert time.monotonic() < deadline, f"{seen} instead of {wanted}"
        time.sleep(0.05)


def test_watch_withdraws_returns_and_keeps_the_last(rig: Rig, tmp_path: Path) -> None:
    rig.named(FIRST, MEMBERS)
    state = tmp_path / "watch.json"
    argv = [sys.executable, "-m", "haptk", "--config", str(rig.config), "dns", "watch", "--port", str(rig.port)]
    argv += ["--key-file", str(rig.key), "--state", str(state)]
    log = tmp_path / "watch.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as stream:
            return subprocess.Popen(argv, stderr=stream)

    process = start()
    try:
        rig.members[0].stop()
        eventually(rig, set(MEMBERS[1:]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert json.loads(state.read_text())["withdrawn"] == {MEMBERS[0]: 1}
        rig.members[0].start()
        process = start()
        eventually(rig, set(MEMBERS))
        rig.members[0].stop()
        rig.members[1].stop()
        eventually(rig, {MEMBERS[2]})
        rig.members[2].stop()
        seen, deadline = log.read_text().count("nobody answers"), time.monotonic() + 30
        while log.read_text().count("nobody answers") == seen:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert rig.published() == {MEMBERS[2]}
        rig.members[1].start()
        eventually(rig, {MEMBERS[1]})
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
