"""Fixtures around the lab's cloud, for every test that needs an EC2 API: load with `pytest_plugins`.

`cloud` is the URL of one server for the whole session; `fresh_cloud` is the same one, emptied first; `two_nodes` is a
region in it with two balancers and one free Elastic IP, made anew for each test; `cloud_client` is a client for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from haptk.lab.plan import AddressPlan, InstancePlan, Plan, Region, SubnetPlan
from haptk.lab.seed import ec2_client, seed

NET = f"127.{100 + os.getpid() % 150}"
"""Two test runs on one machine do not meet: each has a loopback network after its process id."""

PLAN = Plan(
    region="eu-west-1",
    vpc_cidr=f"{NET}.0.0/16",
    subnets=(SubnetPlan("a", f"{NET}.1.0/24", "a"), SubnetPlan("b", f"{NET}.2.0/24", "b")),
    instances=(
        InstancePlan("lb1", "a", f"{NET}.1.11", "AKIALB1", secondary_ips=(f"{NET}.1.12",)),
        InstancePlan("lb2", "b", f"{NET}.2.11", "AKIALB2"),
    ),
    addresses=(AddressPlan("web", f"{NET}.200.10"),),
)


@pytest.fixture(scope="session")
def cloud() -> Iterator[str]:
    """The URL of the lab's cloud, a process of its own that ends with the session."""
    argv = [sys.executable, "-m", "haptk.lab.cloud", "--listen", "127.0.0.1:0", "--die-with-parent"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), f"the cloud did not start: {url!r}"
        yield url
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def fresh_cloud(cloud: str) -> str:
    """The cloud with nothing in it."""
    with urllib.request.urlopen(urllib.request.Request(f"{cloud}/moto-api/reset", method="POST"), timeout=20) as answer:
        assert answer.status == 200
    return cloud


@pytest.fixture(scope="session")
def cloud_client(cloud: str) -> Any:
    """A boto3 EC2 client for PLAN's region (making one takes longer than a test)."""
    return ec2_client(cloud, PLAN.region)


@pytest.fixture
def two_nodes(fresh_cloud: str, cloud_client: Any) -> Region:
    """A fresh region after PLAN."""
    return seed(fresh_cloud, PLAN, cloud_client)
