"""A VPC in the lab's cloud that a declared load balancer can stand in, for the tests of haptk.apply and `haptk elb`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from haptk.apply import balancing
from haptk.aws.client import Access, Clients
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster

ZONES = ("eu-west-1a", "eu-west-1b")


class Cloud:
    """A VPC with two subnets, two instances and two addresses, and what ELB says about it."""

    def __init__(self, url: str) -> None:
        self.url = url
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
        self.others: dict[str, Any] = {"elbv2": self.elb, "ec2": self.ec2}
        self.machines: list[dict[str, Any]] = []
        self.clients = Clients(Access(region="eu-west-1"))

    def text(self, kind: str = "application", design: str = "insert", servers: int = 3, more: str = "") -> str:
        """A declaration of this cloud; `more` are lines of [elb]."""
        subnets = ", ".join(f'{zone} = "{subnet}"' for zone, subnet in zip(ZONES, self.subnets, strict=True))
        addresses = "".join(
            f'[[addresses]]\nname = "a{n}"\npublic_ip = "{self.public(n)}"\nactive = "{zone}"\n'
            f'allocation = "{self.addresses[n]["AllocationId"]}"\n'
            for n, zone in enumerate(ZONES)
        )
        members = "".join(
            f'[[servers]]\nname = "app{n}"\naddress = "{self.private(n)}"\n{self.instance(n)}' for n in range(servers)
        )
        cookie = "" if design == "stateless" else 'cookie = "SRV"\n'
        return (
            '[cluster]\nname = "web"\npattern = "elb"\n[[regions]]\nname = "eu-west-1"\n'
            f'zones = ["eu-west-1a", "eu-west-1b"]\n{addresses if kind == "network" else ""}{members}'
            f'[session]\ndesign = "{design}"\n{cookie}[elb]\ntype = "{kind}"\nvpc = "{self.vpc}"\n'
            f"subnets = {{ {subnets} }}\n{more}"
        )

    def public(self, number: int) -> str:
        """moto's addresses are of 127.0.0.0/8; a declaration takes those."""
        return str(self.addresses[number]["PublicIp"])

    def private(self, number: int) -> str:
        return self.machines[number]["PrivateIpAddress"] if self.machines else f"10.0.0.{10 + number}"

    def instance(self, number: int) -> str:
        return f'instance = "{self.machines[number]["InstanceId"]}"\n' if self.machines else ""

    def start_instances(self, count: int) -> None:
        """Real instances to be the targets, named app0, app1 ..."""
        for number in range(count):
            tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": f"app{number}"}]}]
            started = self.ec2.run_instances(
                ImageId="ami-12c6146b",
                MinCount=1,
                MaxCount=1,
                SubnetId=self.subnets[number % 2],
                TagSpecifications=tags,
            )
            self.machines.append(started["Instances"][0])

    def ask(self, service: str, operation: str, **parameters: Any) -> Any:
        """One call with boto3's whole service data, which haptk does not use."""
        if service not in self.others:
            self.others[service] = boto3.client(service, endpoint_url=self.url, region_name="eu-west-1")
        return getattr(self.others[service], operation)(**parameters)

    def balancer(self) -> Any:
        """The only load balancer."""
        (found,) = self.ask("elbv2", "describe_load_balancers")["LoadBalancers"]
        return found

    def listeners(self) -> dict[int, Any]:
        """Its listeners by port."""
        arn = self.balancer()["LoadBalancerArn"]
        return {one["Port"]: one for one in self.ask("elbv2", "describe_listeners", LoadBalancerArn=arn)["Listeners"]}

    def group(self) -> Any:
        """The only target group."""
        (found,) = self.ask("elbv2", "describe_target_groups")["TargetGroups"]
        return found

    def group_attributes(self) -> dict[str, str]:
        arn = self.group()["TargetGroupArn"]
        found = self.ask("elbv2", "describe_target_group_attributes", TargetGroupArn=arn)["Attributes"]
        return {one["Key"]: one["Value"] for one in found}

    def targets(self) -> list[tuple[str, int]]:
        """Id and port of everything that its health is told of."""
        found = self.ask("elbv2", "describe_target_health", TargetGroupArn=self.group()["TargetGroupArn"])
        return [(one["Target"]["Id"], one["Target"]["Port"]) for one in found["TargetHealthDescriptions"]]

    def let_in(self) -> set[int]:
        """The ports that the load balancer's security group lets everybody in at."""
        found = self.ask("ec2", "describe_security_groups", GroupIds=self.balancer()["SecurityGroups"])[
            "SecurityGroups"
        ]
        rules = [rule for group in found for rule in group["IpPermissions"]]
        return {rule["FromPort"] for rule in rules if rule["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]}

    def aws(self, *argv: str) -> Any:
        """What the AWS command line says: a witness that is not ours."""
        aws = str(Path(sys.executable).with_name("aws"))
        env = {**os.environ, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_PAGER": ""}
        command = [aws, *argv, "--endpoint-url", self.url, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def tier(self, kind: str = "application", design: str = "insert", servers: int = 3, more: str = "") -> Cluster:
        return load(self.text(kind, design, servers, more)).cluster

    def plan(self, cluster: Cluster) -> balancing.BalancerPlan:
        return balancing.plan(cluster, balancing.observe(cluster, self.clients))

    def apply(self, cluster: Cluster, clients: Any = None) -> balancing.BalancerPlan:
        plan = self.plan(cluster)
        balancing.carry_out(plan, clients or self.clients)
        return plan

    def stickiness(self) -> str:
        return self.group_attributes()["stickiness.type"]


@pytest.fixture
def cloud_of_tiers(fresh_cloud: str, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in (("ENDPOINT_URL", fresh_cloud), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return Cloud(fresh_cloud)
