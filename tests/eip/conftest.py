"""A region over HTTP for the agent's tests: the corrected cloud, the fault switch and two metadata services, as processes.

One region serves the whole run; `lab` hands it out with every address free, no fault and no lag.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from haptk.io import clock
from haptk.io.control import call
from haptk.lab.plan import AddressPlan, InstancePlan, Plan, Region, SubnetPlan
from haptk.lab.seed import ec2_client, seed


def _free_network() -> str:
    """A loopback /16 that no other run uses: its claim is an abstract socket that lives as long as this process."""
    for step in range(90):
        net = f"127.{2 + (os.getpid() + step) % 90}"
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0haptk-tests-{net}")
            with socket.create_server((f"{net}.0.3", 5000)):
                pass
        except OSError:
            claim.close()
            continue
        CLAIMS.append(claim)
        return net
    raise RuntimeError("no loopback network is free")


CLAIMS: list[socket.socket] = []
NET = _free_network()
REGION = "eu-west-1"
PLAN = Plan(
    region=REGION,
    vpc_cidr=f"{NET}.0.0/16",
    subnets=(SubnetPlan("a", f"{NET}.1.0/24", "a"),),
    instances=(
        InstancePlan("lb1", "a", f"{NET}.1.11", "AKIALABLB10000000000", secondary_ips=(f"{NET}.1.21",)),
        InstancePlan("lb2", "a", f"{NET}.1.12", "AKIALABLB20000000000", secondary_ips=(f"{NET}.1.22",)),
        InstancePlan("lb3", "a", f"{NET}.1.13", "AKIALABLB30000000000", secondary_ips=(f"{NET}.1.23",)),
    ),
    addresses=(
        AddressPlan("web", f"{NET}.9.15"),
        AddressPlan("longer", f"{NET}.9.155"),
        AddressPlan("third", f"{NET}.9.16"),
    ),
)


@dataclass
class Lab:
    """The running region, and what a test does to it."""

    region: Region
    api: str
    cloud: str
    control: Path
    imds: dict[str, str]
    scratch: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _admin: Any = None

    @property
    def ec2(self) -> Any:
        """An administrator's client, which goes past the fault switch."""
        if self._admin is None:
            self._admin = ec2_client(self.cloud, REGION)
        return self._admin

    def ip(self, name: str = "web") -> str:
        return self.region.address(name).public_ip

    def allocation(self, name: str = "web") -> str:
        return self.region.address(name).allocation_id

    def eni(self, node: str) -> str:
        return self.region.interface_of(node)

    def env(self, node: str, **more: str) -> dict[str, str]:
        """The environment of a process on this node."""
        instance = self.region.instance(node)
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.scratch),
            "HAPTK_RUN_DIR": str(self.scratch / f"run-{node}"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds[node],
            "AWS_ENDPOINT_URL": self.api,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": instance.access_key_id,
            "AWS_SECRET_ACCESS_KEY": instance.secret_access_key,
            **more,
        }

    def holder(self, name: str = "web") -> str | None:
        """The node that holds the address, as the cloud itself says."""
        found = self.ec2.describe_addresses(AllocationIds=[self.allocation(name)])["Addresses"][0]
        names = {instance.network_interface_id: instance.name for instance in self.region.instances}
        return names.get(found.get("NetworkInterfaceId", ""))

    def association(self, name: str = "web") -> str | None:
        found = self.ec2.describe_addresses(AllocationIds=[self.allocation(name)])["Addresses"][0]
        return found.get("AssociationId") or None

    def give(self, node: str, name: str = "web") -> None:
        """Put the address on a node behind everybody's back, and wait until metadata knows."""
        self.ec2.associate_address(
            AllocationId=self.allocation(name), NetworkInterfaceId=self.eni(node), AllowReassociation=True
        )
        self.settle()

    def free(self, name: str = "web") -> None:
        association = self.association(name)
        if association:
            self.ec2.disassociate_address(AssociationId=association)

    def fault(self, mode: str, **rule: Any) -> None:
        call(self.control, {"op": "faults", "set": {"mode": mode, **rule}})

    def lag(self, node: str, lag_ms: int) -> None:
        call(self.control, {"op": "imds_lag", "instance_id": node, "lag_ms": lag_ms})

    def role(self, node: str, key: str = "", life_s: int = 6 * 3600, has_role: bool = True) -> None:
        """What the node's instance role gives from now on; without arguments, what it gave at first."""
        key = key or self.region.instance(node).access_key_id
        wanted = {"access_key_id": key, "credentials_life_s": life_s, "has_role": has_role}
        call(self.control, {"op": "imds_role", "instance_id": node, **wanted})

    def freeze(self, node: str, seconds: float = 3.0) -> None:
        """Let the node's metadata show what is now for the next seconds, whatever happens: it lags by that much."""
        clock.sleep(seconds + 0.2)
        self.lag(node, int(seconds * 1000))

    def power(self, node: str, on: bool) -> None:
        call(self.control, {"op": "power", "instance_id": node, "on": on})

    def mark(self) -> int:
        """A place in the record of API calls, for `calls`."""
        return int(call(self.control, {"op": "calls", "since": 0})["next"])

    def calls(self, since: int, action: str | None = None) -> list[dict[str, Any]]:
        """The API calls recorded since a mark."""
        found = call(self.control, {"op": "calls", "since": since})["calls"]
        return [one for one in found if action in (None, one["action"])]

    def version(self) -> int:
        """The cloud's count of changes of any association."""
        return int(self._associations(-1, 0)["version"])

    def wait_change(self, version: int) -> float:
        """Wait for the next change of any association; returns when it was made (CLOCK_MONOTONIC seconds)."""
        history = self._associations(version, 30_000)["history"]
        return float(history[0]["at_monotonic_s"])

    def _associations(self, after: int, timeout_ms: int) -> dict[str, Any]:
        import urllib.request

        with urllib.request.urlopen(f"{self.cloud}/_lab/associations?after={after}&timeout_ms={timeout_ms}") as answer:
            return dict(json.load(answer))

    def settle(self) -> None:
        """Wait until the metadata services have the cloud's newest association."""
        wanted = self.version()
        for _ in range(500):
            if call(self.control, {"op": "associations", "after": 0})["version"] >= wanted:
                return
            subprocess.run(["sleep", "0.01"])
        raise AssertionError("the metadata services do not follow the cloud")


def _start(arguments: list[str], log: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments, "--die-with-parent"],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, log.read_text()
    return process, line.strip()


@pytest.fixture(scope="session")
def _region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from make_region(tmp_path_factory)


def make_region(places: Any) -> Iterator[Lab]:
    """Start the processes, hand the region out, stop them. `places.mktemp(name)` gives a directory."""
    scratch = places.mktemp("region")
    cloud_process, cloud = _start(["haptk.lab.cloud", "--listen", f"{NET}.0.2:0"], scratch / "cloud.log")
    processes = [cloud_process]
    try:
        region = seed(cloud, PLAN)
        spec = scratch / "network.json"
        spec.write_text(
            json.dumps(
                {
                    "cloud": cloud.removeprefix("http://"),
                    "api": f"{NET}.0.3:5000",
                    "control": str(scratch / "control.sock"),
                    "region": region.to_dict(),
                    "imds": [{"instance": one.name, "listen": f"{one.private_ip}:8169"} for one in region.instances],
                    "addresses": [],
                }
            )
        )
        network, _state = _start(["haptk.lab.network", str(spec)], scratch / "network.log")
        processes.append(network)
        imds = {one.name: f"http://{one.private_ip}:8169" for one in region.instances}
        yield Lab(region, f"http://{NET}.0.3:5000", cloud, scratch / "control.sock", imds, scratch, processes)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture
def lab(_region: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The region as new: every address free, nothing broken, nothing remembered by any agent."""
    for name in [key for key in os.environ if key.startswith(("AWS_", "OCF_", "HAPTK_RUN_DIR"))]:
        monkeypatch.delenv(name)
    call(_region.control, {"op": "faults", "clear": True})
    _region.scratch = tmp_path
    for instance in _region.region.instances:
        _region.lag(instance.name, 0)
        _region.role(instance.name)
        _region.power(instance.name, True)
    for address in _region.region.addresses:
        _region.free(address.name)
    _region.settle()
    return _region
