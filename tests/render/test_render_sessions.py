"""Real haproxy pairs on generated files: sessions stay on their server when the balancer that made them dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from haptk.cli.tier import site
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster
from haptk.render import catalogue
from tests.render.world import NET, Node, World, run, until

TIER = f"""
[cluster]
name = "web"
pattern = "round-robin"

[[regions]]
name = "eu-west-1"
zones = ["eu-west-1a", "eu-west-1b"]

[[balancers]]
name = "lb1"
zone = "eu-west-1a"
private_ip = "{NET}.11"

[[balancers]]
name = "lb2"
zone = "eu-west-1b"
private_ip = "{NET}.12"

[[addresses]]
name = "a"
public_ip = "203.0.113.10"
active = "lb1"

[[addresses]]
name = "b"
public_ip = "203.0.113.11"
active = "lb2"

[[servers]]
name = "app1"
address = "{NET}.1"
port = 9001

[[servers]]
name = "app2"
address = "{NET}.1"
port = 9002

[frontend]
maxconn = 1000

[check]
interval = "500ms"
timeout = "500ms"

[session]
design = "learn"
cookie = "JSESSIONID"

[dns]
name = "www.example.com"
zone = "example.com"
zone_id = "Z0123456789ABCDEFGHIJ"
"""
BOOT = """
set -e
mount --bind "$1/etc/haproxy" /etc/haproxy
mount -t tmpfs tmpfs /run
mkdir -p /run/haproxy
haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
while :; do sleep 1000; done
"""
# An application with a session of its own; in design rewrite it also hands out the cookie that the balancer fills.
APPLICATION = """
import http.server, itertools, json, sys, threading
counter = itertools.count(1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"server": self.server.label, "cookie": self.headers.get("Cookie", "")}).encode()
        self.send_response(200)
        if "JSESSIONID=" not in self.headers.get("Cookie", ""):
            self.send_header("Set-Cookie", f"JSESSIONID={self.server.label}x{next(counter)}; Path=/")
        if "SRV=" not in self.headers.get("Cookie", ""):
            self.send_header("Set-Cookie", "SRV=reserved; Path=/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = lambda self: (self.send_response(200), self.send_header("Content-Length", "0"), self.end_headers())
    log_message = lambda *_: None
for label, port in (("app1", 9001), ("app2", 9002)):
    server = http.server.ThreadingHTTPServer((sys.argv[1], port), Handler)
    server.label = label
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"""
# One request for each session in argv[2]: cookies by name in, what came back out.
CLIENT = """
import http.client, json, sys
found = []
for jar in json.loads(sys.argv[2]):
    connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
    connection.request("GET", "/", headers={"Cookie": "; ".join(f"{k}={v}" for k, v in jar.items())} if jar else {})
    answer = connection.getresponse()
    body = json.loads(answer.read()) if answer.status == 200 else {"server": str(answer.status)}
    for cookie in answer.headers.get_all("Set-Cookie") or ():
        name, _, value = cookie.partition(";")[0].partition("=")
        jar[name] = value
    found.append({**body, "jar": jar})
    connection.close()
print(json.dumps(found))
"""


class Tier(World):
    """The network of World with an application in the middle, without a cloud."""

    def start_application(self) -> None:
        argv = ["ip", "netns", "exec", self.hub, sys.executable, "-c", APPLICATION, f"{NET}.1"]
        application = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.services.append(application)
        assert application.stdout is not None and application.stdout.readline() == "ready\n"

    def boot(self, cluster: Cluster, name: str) -> Node:
        root = Path(tempfile.mkdtemp(dir=self.scratch))
        for one in catalogue.files_of_node(cluster, name, site("0" * 64)):
            path = root / one.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one.text)
        node = self.nodes[name] = Node(name, f"{self.tag}{name}", root, BOOT, {})
        node.boot()
        return node

    def ask(self, name: str, jars: list[dict[str, str]]) -> list[dict[str, Any]]:
        host = f"{NET}.{11 if name == 'lb1' else 12}"
        return list(
            json.loads(run("ip", "netns", "exec", self.hub, sys.executable, "-c", CLIENT, host, json.dumps(jars)))
        )

    def answers(self, name: str) -> bool:
        try:
            return all(one["server"].startswith("app") for one in self.ask(name, [{}]))
        except AssertionError:
            return False  # nobody listens yet


@pytest.fixture(scope="module")
def tier() -> Iterator[Tier]:
    scratch = Path(tempfile.mkdtemp(prefix="haptk-sessions-"))
    found = Tier(scratch, "ens5")
    try:
        found.network()
        found.start_application()
        yield found
    finally:
        found.down()
        shutil.rmtree(scratch)


@pytest.mark.root
@pytest.mark.real("haproxy", "ip", "nsenter", "socat", "unshare")
@pytest.mark.parametrize(
    ("design", "cookie", "style"),
    [("prefix", "JSESSIONID", "classic"), ("insert", "LB", "modern"), ("rewrite", "SRV", "modern"),
     ("learn", "JSESSIONID", "modern")],
)  # fmt: skip
def test_sessions_outlive_their_balancer(tier: Tier, design: str, cookie: str, style: str) -> None:
    cluster = load(TIER).cluster
    cluster = msgspec.structs.replace(
        cluster,
        session=msgspec.structs.replace(cluster.session, design=design, cookie=cookie),
        frontend=msgspec.structs.replace(cluster.frontend, style=style),
    )
    one, two = tier.boot(cluster, "lb1"), tier.boot(cluster, "lb2")
    try:
        until("both answer", lambda: tier.answers("lb1") and tier.answers("lb2"), tier.logs)
        if design == "learn":
            # Peers connect within seconds; what is learned after that is sent at once.
            until("the peers see each other", lambda: peers_connected(one), tier.logs)
        first = tier.ask("lb1", [{} for _ in range(8)])
        servers = [answer["server"] for answer in first]
        assert set(servers) == {"app1", "app2"}
        assert [answer["server"] for answer in tier.ask("lb1", [answer["jar"] for answer in first])] == servers
        if design == "learn":
            until("lb2 has learned", lambda: learned(two) >= 8, tier.logs)
        one.kill()
        second = tier.ask("lb2", [answer["jar"] for answer in first])
        assert [answer["server"] for answer in second] == servers
        # The application sees its own session and never the balancer's mark in it.
        assert all("~" not in answer["cookie"] for answer in second)
        if design == "learn":
            # A balancer that comes back is taught by its peer, and serves alone after that.
            one = tier.boot(cluster, "lb1")
            until("lb1 answers", lambda: tier.answers("lb1"), tier.logs)
            until("lb1 was taught", lambda: learned(one) >= 8, tier.logs)
            two.kill()
            third = tier.ask("lb1", [answer["jar"] for answer in first])
            assert [answer["server"] for answer in third] == servers
    finally:
        one.kill()
        two.kill()


def socket(node: Node, command: str) -> str:
    return node.inside(f"echo '{command}' | socat - UNIX-CONNECT:/run/haproxy/admin.sock")


def peers_connected(node: Node) -> bool:
    return "last_status=ESTA" in socket(node, "show peers")


def learned(node: Node) -> int:
    table = socket(node, "show table web-servers")
    return sum("key=" in line for line in table.splitlines())
