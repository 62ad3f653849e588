"""AWS's own load balancer: planned, made, changed, found again, against moto over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from click.testing import CliRunner

from haptk.apply import balancing
from haptk.aws.client import Access, Clients
from haptk.cli.app import haptk
from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError

ZONES = ("eu-west-1a", "eu-west-1b")


class Cloud:
    """A VPC with two subnets, two instances and two addresses, and what ELB says about it."""

    def __init__(self, url: str) -> None:
        self.ec2 = boto3.client("ec2", endpoint_url=url, region_name="eu-west-1")
        self.elb = boto3.client("elbv2", endpoint_url=url, region_name="eu-west-1")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=zone)["Subnet"][
                "SubnetId"
            ]
            for n, zone in enumerate(ZONES)
        ]
        self.addresses = [self.ec2.allocate_address(Domain="vpc") for _ in ZONES]
        self.clients = Clients(Access(region="eu-west-1"))

    def tier(self, kind: str = "application", design: str = "insert", servers: int = 3) -> Cluster:
        from haptk.cluster.load import load

        subnets = ", ".join(f'{zone} = "{subnet}"' for zone, subnet in zip(ZONES, self.subnets, strict=True))
        addresses = "".join(
            f'[[addresses]]\nname = "a{n}"\npublic_ip = "203.0.113.{n}"\nactive = "{zone}"\n'
            f'allocation = "{self.addresses[n]["AllocationId"]}"\n'
            for n, zone in enumerate(ZONES)
        )
        members = "".join(f'[[servers]]\nname = "app{n}"\naddress = "10.0.0.{10 + n}"\n' for n in range(servers))
        cookie = "" if design == "stateless" else 'cookie = "SRV"\n'
        return load(
            '[cluster]\nname = "web"\npattern = "elb"\n[[regions]]\nname = "eu-west-1"\n'
            f'zones = ["eu-west-1a", "eu-west-1b"]\n{addresses if kind == "network" else ""}{members}'
            f'[session]\ndesign = "{design}"\n{cookie}[elb]\ntype = "{kind}"\nvpc = "{self.vpc}"\nsubnets = {{ {subnets} }}\n'
        ).cluster

    def plan(self, cluster: Cluster) -> balancing.BalancerPlan:
        return balancing.plan(cluster, balancing.observe(cluster, self.clients))

    def apply(self, cluster: Cluster, clients: Any = None) -> balancing.BalancerPlan:
        plan = self.plan(cluster)
        balancing.carry_out(plan, clients or self.clients)
        return plan

    def stickiness(self) -> str:
        (group,) = self.elb.describe_target_groups()["TargetGroups"]
        found = self.elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
        return next(one["Value"] for one in found if one["Key"] == "stickiness.type")


@pytest.fixture
def cloud_of_tiers(fresh_cloud: str, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in (("ENDPOINT_URL", fresh_cloud), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return Cloud(fresh_cloud)


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
