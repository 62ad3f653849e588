"""A cloud and two balancers that run generated files alone, for the tests of real pairs.

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
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from haptk.cli.tier import site
from haptk.cluster.load import load
from haptk.io import clock
from haptk.render import catalogue

NET = "10.203.7"
COMMON = """
[cluster]
name = "web"
pattern = "standby"
contract = "{contract}"

[[regions]]
name = "eu-west-1"
zones = ["eu-west-1a", "eu-west-1b"]

[[balancers]]
name = "lb1"
zone = "eu-west-1a"
private_ip = "10.203.7.11"
device = "{device}"
interface = "{lb1}"

[[balancers]]
name = "lb2"
zone = "eu-west-1b"
private_ip = "10.203.7.12"
device = "{device}"
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
port = 8080

[session]
design = "insert"
cookie = "SRV"

[check]
interval = "1s"
timeout = "500ms"
fall = 2
"""
METADATA = """
import asyncio, sys
from pathlib import Path
from haptk.lab.feed import Feed
from haptk.lab.imds import Imds, Metadata
from haptk.lab.plan import Region

async def serve():
    region = Region.from_json(Path(sys.argv[1]).read_bytes())
    feed = Feed(sys.argv[2])
    poll = asyncio.create_task(feed.run())
    imds = Imds(Metadata(region, region.instance(sys.argv[3]), feed))
    async with await asyncio.start_server(imds.serve, "169.254.169.254", 80):
        await poll

asyncio.run(serve())
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
    """One balancer: `boot`, `kill`, and its proxy alone. Its log is what its programs said."""

    def __init__(self, name: str, namespace: str, root: Path, boot: str, env: dict[str, str]) -> None:
        self.name, self.namespace, self.root, self.env = name, namespace, root, env
        self.log = root / "log"
        self._boot = boot
        self.process: subprocess.Popen[bytes] | None = None
        self.stream: IO[bytes] | None = None

    def boot(self) -> None:
        self.stream = self.log.open("ab")
        view = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *view, "sh", "-c", self._boot, "sh", str(self.root), self.name],
            env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=self.stream, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def inside(self, command: str) -> str:
        """Run a command as on the node itself."""
        assert self.process is not None
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return run("nsenter", "--target", child, "--mount", "--uts", "--pid", "--net", "sh", "-c", command)

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
        """Whether keepalived has marked this node."""
        return "169.254.112.51/32" in run("ip", "-n", self.namespace, "addr", "show", "lo")


class World:
    """The cloud, two nodes on a bridge, and a metadata service in each node's namespace."""

    def __init__(self, scratch: Path, device: str) -> None:
        self.scratch, self.device = scratch, device
        self.tag = f"hg{os.getpid() % 100000}"
        self.hub = f"{self.tag}c"
        self.nodes: dict[str, Node] = {}
        self.services: list[subprocess.Popen[str]] = []
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
            ends = ["type", "veth", "peer", "name", name, "netns", self.hub]
            run("ip", "link", "add", self.device, "netns", space, *ends)
            run("ip", "-n", self.hub, "link", "set", name, "master", "br0", "up")
            run("ip", "-n", space, "addr", "add", f"{NET}.{number}/24", "dev", self.device)
            run("ip", "-n", space, "addr", "add", "169.254.169.254/32", "dev", "lo")
            for device in ("lo", self.device):
                run("ip", "-n", space, "link", "set", device, "up")

    def start_cloud(self) -> dict[str, str]:
        """Start and fill the cloud and the metadata services; the ids by name."""
        inside = ["ip", "netns", "exec", self.hub, sys.executable]
        argv = [*inside, "-m", "haptk.lab.cloud", "--listen", f"{NET}.1:0", "--die-with-parent"]
        cloud = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.services.append(cloud)
        assert cloud.stdout is not None
        self.url = cloud.stdout.readline().strip()
        assert self.url.startswith(f"http://{NET}.1:"), self.url
        text = run(*inside, "-c", SEED, self.url)
        (self.scratch / "region.json").write_text(text)
        region = json.loads(text)
        for name in ("lb1", "lb2"):
            service = [sys.executable, "-c", METADATA, str(self.scratch / "region.json"), self.url, name]
            argv = ["ip", "netns", "exec", f"{self.tag}{name}", *service]
            self.services.append(subprocess.Popen(argv, text=True))
        found = {one["name"]: one["network_interface_id"] for one in region["instances"]}
        self.interfaces = {interface: name for name, interface in found.items()}
        return {**found, "address": region["addresses"][0]["public_ip"], "device": self.device}

    def generate(self, ids: dict[str, str], contract: str, timing: str, boot: str) -> None:
        """Write every generated file of both nodes below the scratch directory."""
        cluster = load((COMMON + timing).format(**ids, contract=contract)).cluster
        env = {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "eu-west-1", "HA_LOGFACILITY": "none"}
        chosen = site()
        for name in ("lb1", "lb2"):
            root = self.scratch / name
            for one in catalogue.files_of_node(cluster, name, chosen):
                path = root / one.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(one.text)
                path.chmod(one.mode)
            self.nodes[name] = Node(name, f"{self.tag}{name}", root, boot, env)

    def holder(self) -> str | None:
        """Who has the Elastic IP, as the cloud itself says."""
        text = run("ip", "netns", "exec", self.hub, "curl", "-sS", "--max-time", "5", f"{self.url}/_lab/associations")
        (address,) = json.loads(text)["addresses"]
        return self.interfaces.get(address["network_interface_id"])

    def logs(self) -> str:
        return "".join(f"== {node.name}\n{node.log.read_text()[-6000:]}" for node in self.nodes.values())

    def held_by(self, name: str) -> None:
        until(f"{name} holds the address", lambda: self.holder() == name, self.logs)

    def down(self) -> None:
        for node in self.nodes.values():
            node.kill()
        for service in reversed(self.services):
            service.terminate()
            service.wait(20)
        for name in (self.hub, f"{self.tag}lb1", f"{self.tag}lb2"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@contextmanager
def made(contract: str, timing: str, boot: str, device: str) -> Iterator[World]:
    """A world whose nodes wait to be booted."""
    # Not below /tmp/pytest-of-...: keepalived runs scripts only from directories that are root's all the way.
    scratch = Path(tempfile.mkdtemp(prefix="haptk-tier-"))
    scratch.chmod(0o755)
    world = World(scratch, device)
    try:
        world.network()
        world.generate(world.start_cloud(), contract, timing, boot)
        yield world
    finally:
        world.down()
        shutil.rmtree(scratch)
