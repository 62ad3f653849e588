"""A real pair from generated files alone: keepalived and haproxy in namespaces move an Elastic IP of the lab's cloud.

Each node is a network, mount and process namespace of its own, in which the generated files lie at their own paths. The
cloud is in a third network namespace between them. What kills haproxy or a node is SIGKILL.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from haptk.cli.tier import site
from haptk.cluster.load import load
from haptk.io import clock
from haptk.render import catalogue

NET = "10.203.7"
TIER = """
[cluster]
name = "web"
pattern = "standby"
contract = "keepalived"

[[regions]]
name = "eu-west-1"
zones = ["eu-west-1a", "eu-west-1b"]

[[balancers]]
name = "lb1"
zone = "eu-west-1a"
private_ip = "10.203.7.11"
interface = "{lb1}"

[[balancers]]
name = "lb2"
zone = "eu-west-1b"
private_ip = "10.203.7.12"
interface = "{lb2}"

[[addresses]]
name = "web-a"
public_ip = "{address}"
active = "lb1"
standby = ["lb2"]

[[servers]]
name = "app1"
address = "10.203.7.1"

[frontend]
maxconn = 1000

[session]
design = "insert"
cookie = "SRV"

[check]
interval = "1s"
timeout = "500ms"
fall = 2

[timing]
keepalive = "300ms"
warntime = "600ms"
deadtime = "1200ms"
initdead = "3s"
"""
# The node's own view: generated files at their paths, nothing of the machine's in /run.
BOOT = """
set -e
mount --bind "$1/etc/keepalived" /etc/keepalived
mount --bind "$1/etc/haproxy" /etc/haproxy
mount -t tmpfs tmpfs /usr/libexec
mkdir /usr/libexec/haptk
cp "$1"/usr/libexec/haptk/* /usr/libexec/haptk/
mount -t tmpfs tmpfs /run
mkdir -p /run/haproxy
haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
keepalived --dont-fork --log-console --log-detail &
wait
"""
SEED = """
import sys
from haptk.lab.plan import AddressPlan, InstancePlan, Plan, SubnetPlan
from haptk.lab.seed import seed
plan = Plan("eu-west-1", "127.90.0.0/16", (SubnetPlan("a", "127.90.1.0/24", "a"), SubnetPlan("b", "127.90.2.0/24", "b")),
    (InstancePlan("lb1", "a", "127.90.1.11", "AKIALB1"), InstancePlan("lb2", "b", "127.90.2.11", "AKIALB2")),
    (AddressPlan("web", "127.90.200.10"),))
sys.stdout.buffer.write(seed(sys.argv[1], plan).to_json())
"""


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def until(what: str, true: Callable[[], bool], logs: Callable[[], str], patience_s: float = 40) -> None:
    end = clock.monotonic() + patience_s
    while not true():
        if clock.monotonic() > end:
            raise AssertionError(f"never: {what}\n{logs()}")
        clock.sleep(0.1)


class Node:
    """One balancer: `boot`, `kill`, and its proxy alone."""

    def __init__(self, name: str, namespace: str, root: Path, env: dict[str, str]) -> None:
        self.name, self.namespace, self.root, self.env = name, namespace, root, env
        self.log = root / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.stream: IO[bytes] | None = None

    def boot(self) -> None:
        self.stream = self.log.open("ab")
        view = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", BOOT, "sh"]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *view, str(self.root)],
            env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=self.stream, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def inside(self, command: str) -> str:
        assert self.process is not None
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return run("nsenter", "--target", child, "--mount", "--pid", "--net", "sh", "-c", command)

    def kill_proxy(self) -> None:
        self.inside("kill -9 $(cat /run/haproxy.pid)")

    def start_proxy(self) -> None:
        self.inside("haproxy -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid")

    def kill(self) -> None:
        """Every process of the node at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None
        if self.stream is not None:
            self.stream.close()

    def is_master(self) -> bool:
        return "169.254.112.51/32" in run("ip", "-n", self.namespace, "addr", "show", "lo")


class World:
    """The cloud and two nodes on a bridge."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.tag = f"hg{os.getpid() % 100000}"
        self.hub = f"{self.tag}c"
        self.nodes: dict[str, Node] = {}
        self.cloud: subprocess.Popen[str] | None = None
        self.url = ""
        self.interfaces: dict[str, str] = {}

    def network(self) -> None:
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "addr", "add", f"{NET}.1/24", "dev", "br0")
        for device in ("lo", "br0"):
            run("ip", "-n", self.hub, "link", "set", device, "up")
        for number, name in enumerate(("lb1", "lb2"), 11):
            space = f"{self.tag}{name}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", "ens5", "netns", space, "type", "veth", "peer", "name", name, "netns", self.hub)
            run("ip", "-n", self.hub, "link", "set", name, "master", "br0", "up")
            run("ip", "-n", space, "addr", "add", f"{NET}.{number}/24", "dev", "ens5")
            for device in ("lo", "ens5"):
                run("ip", "-n", space, "link", "set", device, "up")

    def start_cloud(self) -> dict[str, str]:
        """Start and fill the cloud; the ids by name."""
        inside = ["ip", "netns", "exec", self.hub, sys.executable]
        argv = [*inside, "-m", "haptk.lab.cloud", "--listen", f"{NET}.1:0", "--die-with-parent"]
        self.cloud = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.cloud.stdout is not None
        self.url = self.cloud.stdout.readline().strip()
        assert self.url.startswith(f"http://{NET}.1:"), self.url
        region = json.loads(run(*inside, "-c", SEED, self.url))
        found = {one["name"]: one["network_interface_id"] for one in region["instances"]}
        self.interfaces = {interface: name for name, interface in found.items()}
        return {**found, "address": region["addresses"][0]["public_ip"]}

    def generate(self, ids: dict[str, str]) -> None:
        cluster = load(TIER.format(**ids)).cluster
        for name, key in (("lb1", "AKIALB1"), ("lb2", "AKIALB2")):
            root = self.scratch / name
            for one in catalogue.files_of_node(cluster, name, site()):
                path = root / one.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(one.text)
                path.chmod(one.mode)
            env = {
                "AWS_ENDPOINT_URL": self.url,
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": "lab",
                "AWS_DEFAULT_REGION": "eu-west-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "HA_LOGFACILITY": "none",
            }
            self.nodes[name] = Node(name, f"{self.tag}{name}", root, env)

    def holder(self) -> str | None:
        """Who has the Elastic IP, as the cloud itself says."""
        text = run("ip", "netns", "exec", self.hub, "curl", "-sS", "--max-time", "5", f"{self.url}/_lab/associations")
        (address,) = json.loads(text)["addresses"]
        return self.interfaces.get(address["network_interface_id"])

    def logs(self) -> str:
        return "".join(f"== {node.name}\n{node.log.read_text()[-4000:]}" for node in self.nodes.values())

    def held_by(self, name: str) -> None:
        until(f"{name} holds the address", lambda: self.holder() == name, self.logs)

    def down(self) -> None:
        for node in self.nodes.values():
            node.kill()
        if self.cloud is not None:
            self.cloud.terminate()
            self.cloud.wait(20)
        for name in (self.hub, f"{self.tag}lb1", f"{self.tag}lb2"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def world() -> Iterator[World]:
    # Not below /tmp/pytest-of-...: keepalived runs scripts only from directories that are root's all the way.
    scratch = Path(tempfile.mkdtemp(prefix="haptk-tier-"))
    scratch.chmod(0o755)
    made = World(scratch)
    try:
        made.network()
        made.generate(made.start_cloud())
        yield made
    finally:
        made.down()
        shutil.rmtree(scratch)


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "nsenter", "unshare")
def test_the_address_leaves_a_dead_proxy_and_a_dead_node_and_does_not_fail_back(world: World) -> None:
    one, two = world.nodes["lb1"], world.nodes["lb2"]
    one.boot()
    two.boot()
    world.held_by("lb1")
    assert one.is_master() and not two.is_master()

    one.kill_proxy()
    world.held_by("lb2")
    until("lb1 is no master", lambda: not one.is_master(), world.logs)

    one.start_proxy()
    until(
        "lb1 is well again",
        lambda: "proxy_runs) succeeded" in one.log.read_text().split("proxy_runs) failed")[-1],
        world.logs,
    )
    until(
        "lb1 answers again",
        lambda: one.log.read_text().count("Changing effective priority from 40 to 100") >= 1,
        world.logs,
    )
    clock.sleep(1.5)
    assert world.holder() == "lb2" and two.is_master(), "without auto_failback the address stays"

    two.kill()
    world.held_by("lb1")
    assert one.is_master()


@pytest.mark.root
@pytest.mark.real("keepalived", "haproxy", "curl", "ip", "nsenter", "unshare")
def test_nopreempt_would_ignore_a_failed_check(world: World) -> None:
    """Why generated files have none: the reason that the template, the rules and `haptk init` give, seen in keepalived."""
    for node, priority in zip(world.nodes.values(), (150, 100), strict=True):
        path = node.root / "etc/keepalived/keepalived.conf"
        path.write_text(path.read_text().replace("    priority 100\n", f"    priority {priority}\n    nopreempt\n"))
        node.boot()
    one, two = world.nodes["lb1"], world.nodes["lb2"]
    world.held_by("lb1")
    one.kill_proxy()
    until("lb1 is lowered", lambda: "Changing effective priority from 150 to 90" in one.log.read_text(), world.logs)
    clock.sleep(3)
    assert one.is_master() and not two.is_master() and world.holder() == "lb1"
