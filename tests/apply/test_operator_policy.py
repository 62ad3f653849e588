"""The operator policy is what the commands need and nothing beside it. That every call of the commands' own tests is
allowed is seen there: their fixtures stand behind the same guard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from haptk.cli.app import haptk
from haptk.cluster.load import load
from haptk.errors import AwsDenied
from haptk.render import catalogue
from tests.apply.elb_cloud import Cloud, cloud_of_tiers
from tests.apply.operator_guard import Guard, allows, needs, policy_of
from tests.render.test_render_tier import TIERS

__all__ = ["cloud_of_tiers"]
GOOD = Path(__file__).parents[1] / "cluster" / "good"

# What only a change in place, a wait or a classic load balancer asks; its own test stands behind the guard.
ASKED_ELSEWHERE = {
    "elasticloadbalancing:DescribeInstanceHealth",
    "elasticloadbalancing:DescribeListenerAttributes",
    "elasticloadbalancing:DescribeLoadBalancerPolicies",
    "elasticloadbalancing:DeleteListener",
    "elasticloadbalancing:ModifyListener",
    "elasticloadbalancing:ModifyListenerAttributes",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:SetSecurityGroups",
    "elasticloadbalancing:SetSubnets",
    "ec2:DescribeAddresses",
    "ec2:DescribeInstances",
    "ec2:DescribeSubnets",
}


def actions(policy: dict[str, Any]) -> set[str]:
    return {action for one in policy["Statement"] for action in one["Action"]}


def test_nothing_is_allowed_that_no_command_asks(
    cloud_of_tiers: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of a tier is made, drained and made again; what the policy has beyond that is named above."""
    cloud, path = cloud_of_tiers, tmp_path / "cluster.toml"
    zone = cloud.ask("route53", "create_hosted_zone", Name="example.com", CallerReference="t")["HostedZone"]["Id"]
    name = f'[dns]\nname = "www.example.com"\nzone = "example.com"\nzone_id = "{zone.rpartition("/")[2]}"\n'
    guard = Guard(lambda: policy_of(load(path.read_text()).cluster)).install(monkeypatch)

    def run(*argv: str) -> None:
        result = CliRunner().invoke(haptk, ["--config", str(path), *argv], standalone_mode=False)
        assert result.exception is None, result.exception

    path.write_text(cloud.text() + name)
    run("apply", "--aws", "--yes")
    run("elb", "drain", "app1", "--yes")
    run("elb", "status")
    wanted = actions(policy_of(load(path.read_text()).cluster))
    assert wanted - guard.used == ASKED_ELSEWHERE

    text = (GOOD / "round-robin.toml").read_text()
    path.write_text(text.replace("Z0123456789ABCDEFGHIJ", zone.rpartition("/")[2]))
    cloud.ask(
        "route53",
        "change_resource_record_sets",
        HostedZoneId=zone,
        ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": one} for one in records(cloud, zone)]},
    )
    guard.used.clear()
    run("dns", "apply", "--yes")
    path.write_text(path.read_text().replace("health_interval = 10", "health_interval = 30"))
    run("dns", "apply", "--yes")
    assert actions(policy_of(load(path.read_text()).cluster)) - guard.used == {
        f"ec2:{one}" for one in ("DescribeAddresses", "DescribeInstances", "DescribeSecurityGroups", "DescribeSubnets")
    }


def records(cloud: Cloud, zone: str) -> list[dict[str, Any]]:
    found = cloud.ask("route53", "list_resource_record_sets", HostedZoneId=zone)["ResourceRecordSets"]
    return [one for one in found if one["Type"] == "A"]


def test_the_table_of_leases(cloud_of_tiers: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(TIERS["standby-haptk-lease"])
    guard = Guard(lambda: policy).install(monkeypatch)
    for argv in (["init"], ["show", "web/x"]):
        result = CliRunner().invoke(haptk, ["lease", *argv, "--region", "eu-west-1"], standalone_mode=False)
        assert result.exception is None, result.exception
    assert {one for one in actions(policy) if one.startswith("dynamodb:")} == guard.used
    result = CliRunner().invoke(
        haptk, ["lease", "init", "--table", "another", "--region", "eu-west-1"], standalone_mode=False
    )
    assert isinstance(result.exception, AwsDenied)


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("route53", "ChangeResourceRecordSets", {"HostedZoneId": "ZANOTHER"}),
    ("elbv2", "CreateLoadBalancer", {"Name": "another-nlb", "Type": "network", "Tags": [{}]}),
    ("elbv2", "RegisterTargets", {"TargetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web-x/1"}),
    ("elbv2", "ModifyListener", {"ListenerArn": "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/web-alb-2/1/2"}),
    ("elbv2", "DeleteLoadBalancer", {"LoadBalancerArn": "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/net/web-nlb/1"}),
    ("dynamodb", "UpdateItem", {"TableName": "haptk-leases"}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "operation", "parameters"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_belongs_to_others_is_refused(service: str, operation: str, parameters: dict[str, Any]) -> None:
    tiers = [*TIERS.values(), msgspec.structs.replace(TIERS["elb-network"], dns=TIERS["round-robin"].dns)]
    for cluster in tiers:
        policy = policy_of(cluster)
        assert not all(allows(policy, need) for need in needs(service, operation, parameters, "eu-west-1"))


def test_only_a_group_with_the_tag_of_the_tier_is_opened() -> None:
    policy = policy_of(TIERS["elb-application"])
    (need,) = needs("ec2", "AuthorizeSecurityGroupIngress", {"GroupId": "sg-1"}, "eu-west-1")
    tagged = need._replace(keys={"aws:ResourceTag/Name": f"{TIERS['elb-application'].cluster.name}-alb"})
    opens = TIERS["elb-application"].elb
    assert opens is not None
    assert allows(policy, tagged) != bool(opens.security_groups)
    assert not allows(policy, need._replace(keys={}))


def test_it_is_generated_where_there_is_something_to_operate() -> None:
    asked = {name for name, cluster in TIERS.items() if "operator-policy" in catalogue.kinds_of_tier(cluster)}
    assert {"round-robin", "elb-network", "elb-application", "standby-pool", "standby-haptk-lease"} <= asked
    for cluster in TIERS.values():
        (one,) = catalogue.OF_TIER["operator-policy"](cluster)
        # The limit of a managed policy, without white space.
        assert len("".join(one.text.split())) < 6144
