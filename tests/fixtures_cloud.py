"""Fixtures around the lab's cloud, for every test that needs an EC2 API: load with `pytest_plugins`.

`cloud` is the URL of one server for the whole session; `fresh_cloud` is the same one, emptied first; `two_nodes` is a
region in it with two balancers and one free Elastic IP, made anew for each test; `cloud_client` is a client for it.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from haptk.lab.plan import AddressPlan, InstancePlan, Plan, Region, SubnetPlan
from haptk.lab.seed import ec2_client, seed

PLAN = Plan(
    region="eu-west-1",
    vpc_cidr="127.79.0.0/16",
    subnets=(SubnetPlan("a", "127.79.1.0/24", "a"), SubnetPlan("b", "127.79.2.0/24", "b")),
    instances=(
        InstancePlan("lb1", "a", "127.79.1.11", "AKIALB1", secondary_ips=("127.79.1.12",)),
        InstancePlan("lb2", "b", "127.79.2.11", "AKIALB2"),
    ),
    addresses=(AddressPlan("web", "127.79.200.10"),),
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
