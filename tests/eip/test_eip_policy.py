"""The policy of the balancers' role allows what the agent asks, and nothing beside it; judged call by call."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from haptk.aws.client import Access
from haptk.cluster.schema import Cluster
from haptk.eip.agent import Agent
from haptk.render.iam import iam_policy
from tests.apply.operator_guard import Guard
from tests.render.test_render_tier import TIERS


@pytest.fixture
def agent(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(node: str) -> Agent:
        env = lab.env(node)
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
            monkeypatch.setenv(key, env[key])
        return Agent(lab.ip(), env=env, access=Access(endpoint_url=lab.api))

    return make


def declared(lab: Any, *, with_ids: bool) -> Cluster:
    """The lab's two nodes and address as a tier."""
    tier = TIERS["standby-keepalived"]
    balancers = tuple(
        msgspec.structs.replace(one, interface=lab.eni(one.name) if with_ids else None, instance=None)
        for one in tier.balancers
    )
    allocation = lab.allocation() if with_ids else None
    addresses = tuple(msgspec.structs.replace(one, allocation=allocation) for one in tier.addresses)
    return msgspec.structs.replace(tier, balancers=balancers, addresses=addresses)


def guarded(lab: Any, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, tags: dict[str, str]) -> Guard:
    (document,) = iam_policy(cluster)
    policy = json.loads(document.text)

    def place(association: str) -> tuple[str, str]:
        (found,) = lab.ec2.describe_addresses(Filters=[{"Name": "association-id", "Values": [association]}])[
            "Addresses"
        ]
        return found["AllocationId"], found["NetworkInterfaceId"]

    return Guard(lambda: policy, place=place, tags=tags).install(monkeypatch)


def test_by_the_ids_of_the_declaration(lab: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = declared(lab, with_ids=True)
    guard = guarded(lab, monkeypatch, cluster, {})
    assert agent("lb1").start().ok and lab.holder() == "lb1"
    assert agent("lb2").start().ok and lab.holder() == "lb2"
    outcome = agent("lb2").stop()
    assert outcome.ok and lab.holder() is None
    agent("lb2").status()
    allowed = {action for one in json.loads(iam_policy(cluster)[0].text)["Statement"] for action in one["Action"]}
    # A private address of its own on the interface is looked up only where one is named (test_eip_agent).
    assert allowed - guard.used <= {"ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces"}
    assert {"ec2:AssociateAddress", "ec2:DisassociateAddress", "ec2:DescribeAddresses"} <= guard.used


def test_without_ids_by_the_tag_and_not_without_it(lab: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = declared(lab, with_ids=False)
    with monkeypatch.context() as patch:
        guarded(lab, patch, cluster, {})
        outcome = agent("lb1").start()
        assert not outcome.ok and lab.holder() is None
        assert "not allowed" in outcome.because
    with monkeypatch.context() as patch:
        guarded(lab, patch, cluster, {"aws:ResourceTag/haptk:cluster": cluster.cluster.name})
        assert agent("lb1").start().ok and lab.holder() == "lb1"
        assert agent("lb1").stop().ok and lab.holder() is None


def test_not_the_address_of_another_tier(lab: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = declared(lab, with_ids=True)
    other = tuple(msgspec.structs.replace(one, allocation="eipalloc-0123456789abcdef0") for one in cluster.addresses)
    guarded(lab, monkeypatch, msgspec.structs.replace(cluster, addresses=other), {})
    assert not agent("lb1").start().ok
    assert lab.holder() is None
