"""AWS's own load balancer: planned, made, changed, found again, against moto over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from haptk.aws.client import Clients
from haptk.cli.app import haptk
from haptk.errors import OperatorError
from tests.apply.elb_cloud import ZONES, Cloud, cloud_of_tiers

__all__ = ["cloud_of_tiers"]


@pytest.mark.parametrize(("kind", "design"), [("application", "insert"), ("network", "stateless")])
def test_a_load_balancer_is_made_and_found_again(cloud_of_tiers: Cloud, kind: str, design: str) -> None:
    cloud = cloud_of_tiers
    tier = cloud.tier(kind, design)
    plan = cloud.apply(tier)
    assert [step.operation for step in plan.steps if step.operation.startswith("Create")] == [
        *(["CreateSecurityGroup"] if kind == "application" else []),
        "CreateLoadBalancer", "CreateTargetGroup", "CreateListener",
    ]  # fmt: skip
    (balancer,) = cloud.elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Type"] == kind
    assert cloud.plan(tier).lines() == []


def test_changes_touch_only_what_differs(cloud_of_tiers: Cloud) -> None:
    cloud = cloud_of_tiers
    tier = cloud.tier()
    cloud.apply(tier)
    assert cloud.stickiness() == "lb_cookie"
    learned = cloud.tier(design="prefix")
    assert [step.operation for step in cloud.apply(learned).steps] == ["ModifyTargetGroupAttributes"]
    assert cloud.stickiness() == "app_cookie"
    slower = msgspec.structs.replace(learned, check=msgspec.structs.replace(learned.check, fall=5))
    (step,) = cloud.apply(slower).steps
    assert step.operation == "ModifyTargetGroup" and step.parameters["UnhealthyThresholdCount"] == 5
    assert cloud.plan(slower).lines() == []


def test_servers_come_and_go_and_many_at_once_are_a_surprise(cloud_of_tiers: Cloud) -> None:
    cloud = cloud_of_tiers
    cloud.apply(cloud.tier(servers=3))
    plan = cloud.apply(cloud.tier(servers=4))
    assert [step.operation for step in plan.steps] == ["RegisterTargets"] and plan.surprises == ()
    plan = cloud.plan(cloud.tier(servers=2))
    assert plan.surprises == ("2 of 4 servers would go",)
    plan = cloud.apply(cloud.tier(servers=3))
    assert [step.operation for step in plan.steps] == ["DeregisterTargets"] and plan.surprises == ()


def test_what_cannot_change_in_place_is_said(cloud_of_tiers: Cloud) -> None:
    cloud = cloud_of_tiers
    cloud.apply(cloud.tier())
    tier = cloud.tier()
    tier = msgspec.structs.replace(tier, servers=tuple(msgspec.structs.replace(one, port=9999) for one in tier.servers))
    with pytest.raises(OperatorError, match="has Port 8080, declared is 9999"):
        cloud.plan(tier)


class Interrupted:
    """Clients that fail at the changing call number `at`."""

    def __init__(self, clients: Clients, at: int) -> None:
        self.clients, self.at, self.count = clients, at, 0

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        self.count += 1
        if self.count == self.at:
            raise InterruptedError
        return self.clients.call(service, operation, target, left_s, **parameters)


@pytest.mark.parametrize("at", range(1, 9))
def test_an_interruption_before_any_call_is_finished_by_the_next_apply(cloud_of_tiers: Cloud, at: int) -> None:
    cloud = cloud_of_tiers
    tier = cloud.tier()
    with pytest.raises(InterruptedError):
        cloud.apply(tier, Interrupted(cloud.clients, at))
    cloud.apply(tier)
    assert cloud.plan(tier).lines() == []
    assert len(cloud.elb.describe_load_balancers()["LoadBalancers"]) == 1
    assert len(cloud.elb.describe_target_groups()["TargetGroups"]) == 1


def test_the_commands(cloud_of_tiers: Cloud, tmp_path: Path) -> None:
    """From haptk init to nothing to do."""
    cloud = cloud_of_tiers
    path = tmp_path / "cluster.toml"
    flags = ["--elb", "application", "--vpc", cloud.vpc, "--server", "app1=10.0.0.10", "--cookie", "S"]
    for zone, subnet in zip(ZONES, cloud.subnets, strict=True):
        flags += ["--subnet", f"{zone}={subnet}"]

    def invoke(*argv: str) -> Any:
        return CliRunner().invoke(haptk, ["--config", str(path), *argv], standalone_mode=False)

    assert invoke("init", *flags).exception is None
    dry = invoke("apply", "--aws", "--dry-run")
    assert dry.return_value == 2 and "+ application load balancer web-alb" in dry.stdout
    assert cloud.elb.describe_load_balancers()["LoadBalancers"] == []
    assert invoke("apply", "--aws", "--yes").return_value == 0
    assert invoke("apply", "--aws", "--yes").stdout.strip() == "nothing to do"
    assert invoke("diff", "--aws").return_value == 0
