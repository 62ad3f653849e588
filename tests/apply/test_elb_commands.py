"""`haptk elb` against the lab's cloud over HTTP; what it did is read back with the AWS command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from haptk.cli.app import haptk
from haptk.cluster.load import load
from haptk.errors import AwsNotFound, CannotWrite, ConfigError, OperatorError, PeerTimeout
from tests.apply.elb_cloud import ZONES, Cloud, cloud_of_tiers
from tests.apply.operator_guard import guard_of_file

__all__ = ["cloud_of_tiers"]
pytestmark = pytest.mark.real("aws")


class Tier:
    """A declaration in a file, and the command on it."""

    def __init__(self, cloud: Cloud, path: Path) -> None:
        self.cloud, self.path = cloud, path

    def declare(self, *arguments: Any, **named: Any) -> None:
        self.path.write_text(self.cloud.text(*arguments, **named))

    def run(self, *argv: str) -> Result:
        return CliRunner().invoke(haptk, ["--config", str(self.path), "elb", *argv], standalone_mode=False)

    def done(self, *argv: str) -> str:
        result = self.run(*argv)
        assert result.exception is None, result.exception
        return result.stdout

    def refused(self, *argv: str) -> str:
        result = self.run(*argv)
        assert isinstance(result.exception, OperatorError), result.output
        return str(result.exception)

    def status(self) -> tuple[int, dict[str, Any]]:
        result = self.run("status", "--json")
        assert result.exception is None, result.exception
        return int(result.return_value), json.loads(result.stdout)


@pytest.fixture
def tier(cloud_of_tiers: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tier:
    """Behind the policy of the tier that is declared at each call: whatever a command here asks, an operator may."""
    made = Tier(cloud_of_tiers, tmp_path / "cluster.toml")
    guard_of_file(made.path, cloud_of_tiers.text(), monkeypatch)
    return made


def test_a_network_load_balancer_holds_the_elastic_ips_of_its_zones(tier: Tier) -> None:
    cloud = tier.cloud
    cloud.start_instances(2)
    tier.declare("network", "stateless", servers=2, more="source_ip = true\n")
    planned = tier.run("plan")
    assert planned.return_value == 2 and "+ network load balancer web-nlb" in planned.stdout
    assert cloud.ask("elbv2", "describe_load_balancers")["LoadBalancers"] == []
    tier.done("apply", "--yes")
    assert tier.run("plan").stdout.strip() == "nothing to do" == tier.done("apply", "--yes").strip()

    (seen,) = cloud.aws("elbv2", "describe-load-balancers")["LoadBalancers"]
    zones = {one["SubnetId"]: one["LoadBalancerAddresses"][0] for one in seen["AvailabilityZones"]}
    assert [zones[subnet]["AllocationId"] for subnet in cloud.subnets] == [
        one["AllocationId"] for one in cloud.addresses
    ]
    held = cloud.aws("ec2", "describe-addresses")["Addresses"]
    assert all(one["NetworkInterfaceId"] for one in held)
    (group,) = cloud.aws("elbv2", "describe-target-groups")["TargetGroups"]
    assert (group["Protocol"], group["TargetType"], group["HealthCheckProtocol"]) == ("TCP", "instance", "HTTP")
    found = cloud.aws("elbv2", "describe-target-group-attributes", "--target-group-arn", group["TargetGroupArn"])
    attributes = {one["Key"]: one["Value"] for one in found["Attributes"]}
    assert (attributes["stickiness.enabled"], attributes["stickiness.type"]) == ("true", "source_ip")
    health = cloud.aws("elbv2", "describe-target-health", "--target-group-arn", group["TargetGroupArn"])
    targets = {one["Target"]["Id"] for one in health["TargetHealthDescriptions"]}
    assert targets == {one["InstanceId"] for one in cloud.machines}
    code, shown = tier.status()
    assert code == 0 and shown["problems"] == []
    assert [one["addresses"] for one in shown["zones"]] == [[cloud.public(0)], [cloud.public(1)]]


def test_an_elastic_ip_that_somebody_holds_or_nobody_has_is_refused_by_aws(tier: Tier) -> None:
    """The lab's cloud says no as EC2 does; moto alone would have taken anything."""
    cloud = tier.cloud
    card = cloud.ec2.create_network_interface(SubnetId=cloud.subnets[0])["NetworkInterface"]["NetworkInterfaceId"]
    cloud.ec2.associate_address(AllocationId=cloud.addresses[0]["AllocationId"], NetworkInterfaceId=card)
    tier.declare("network", "stateless")
    result = tier.run("apply", "--yes")
    assert "ResourceInUse" in str(result.exception)
    tier.path.write_text(tier.path.read_text().replace(cloud.addresses[0]["AllocationId"], "eipalloc-00000000"))
    assert "AllocationIdNotFound" in str(tier.run("apply", "--yes").exception)
    assert cloud.ask("elbv2", "describe_load_balancers")["LoadBalancers"] == []


def test_the_elastic_ip_of_a_zone_cannot_change_in_place_and_is_free_after_a_deletion(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare("network", "stateless")
    tier.done("apply", "--yes")
    cloud.addresses.reverse()
    tier.declare("network", "stateless")
    assert "AWS cannot change that in place" in tier.refused("plan")
    code, shown = tier.status()
    assert code == 1 and "AWS cannot change that in place" in shown["problems"][0]
    cloud.ask("elbv2", "delete_load_balancer", LoadBalancerArn=cloud.balancer()["LoadBalancerArn"])
    assert not any("AssociationId" in one for one in cloud.ask("ec2", "describe_addresses")["Addresses"])


@pytest.mark.parametrize(("design", "sticky"), [("insert", "lb_cookie"), ("prefix", "app_cookie"), ("stateless", None)])
def test_an_application_load_balancer_keeps_sessions_as_the_design_says(
    tier: Tier, design: str, sticky: str | None
) -> None:
    cloud = tier.cloud
    tier.declare("application", design)
    tier.done("apply", "--yes")
    attributes = cloud.group_attributes()
    assert attributes["stickiness.enabled"] == ("true" if sticky else "false")
    if sticky:
        assert attributes["stickiness.type"] == sticky
    assert attributes.get("stickiness.app_cookie.cookie_name") == ("SRV" if sticky == "app_cookie" else None)
    assert cloud.let_in() == {80}


def test_listeners_move_with_the_declaration_and_closing_one_needs_force(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare()
    tier.done("apply", "--yes")
    certificate = cloud.ask("acm", "request_certificate", DomainName="www.example.com")["CertificateArn"]
    tier.declare(more=f'certificate = "{certificate}"\n')
    assert "~ listener HTTP 80" in tier.done("apply", "--yes")
    listeners = cloud.listeners()
    assert listeners[443]["Certificates"][0]["CertificateArn"] == certificate
    assert listeners[80]["DefaultActions"][0]["RedirectConfig"]["StatusCode"] == "HTTP_301"
    assert tier.run("plan").stdout.strip() == "nothing to do"
    tier.path.write_text(tier.path.read_text() + "[frontend]\nport = 8088\n")
    assert "the listener on port 80 would close" in tier.refused("apply", "--yes")
    tier.done("apply", "--yes", "--force")
    assert set(cloud.listeners()) == {443, 8088} and cloud.let_in() == {80, 443, 8088}


def test_the_idle_time_out_of_a_network_load_balancer_follows(tier: Tier) -> None:
    cloud = tier.cloud

    def idle() -> str:
        arn = cloud.listeners()[80]["ListenerArn"]
        found = cloud.ask("elbv2", "describe_listener_attributes", ListenerArn=arn)["Attributes"]
        return next(one["Value"] for one in found if one["Key"] == "tcp.idle_timeout.seconds")

    tier.declare("network", "stateless", more='tcp_idle_timeout = "10m"\n')
    assert "~ tcp.idle_timeout.seconds = 600" in tier.done("apply", "--yes") and idle() == "600"
    assert tier.run("plan").stdout.strip() == "nothing to do"
    tier.declare("network", "stateless")
    assert tier.done("apply", "--yes").splitlines()[0] == "~ tcp.idle_timeout.seconds = 350" and idle() == "350"
    assert tier.run("plan").stdout.strip() == "nothing to do"


def test_subnets_and_security_groups_follow(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare()
    tier.done("apply", "--yes")
    cidr = {"VpcId": cloud.vpc, "CidrBlock": "10.0.77.0/24", "AvailabilityZone": ZONES[1]}
    cloud.subnets[1] = cloud.ec2.create_subnet(**cidr)["Subnet"]["SubnetId"]
    own = cloud.ec2.create_security_group(GroupName="own", Description="own", VpcId=cloud.vpc)["GroupId"]
    tier.declare(more=f'security_groups = ["{own}"]\n')
    assert tier.run("plan").stdout.splitlines()[0].startswith("~ subnets subnet-")
    tier.done("apply", "--yes")
    seen = cloud.balancer()
    assert {one["SubnetId"] for one in seen["AvailabilityZones"]} == set(cloud.subnets)
    assert seen["SecurityGroups"] == [own]
    assert tier.run("plan").stdout.strip() == "nothing to do"


def test_security_groups_come_to_a_network_load_balancer_only_when_it_is_made(tier: Tier) -> None:
    cloud = tier.cloud
    own = cloud.ec2.create_security_group(GroupName="own", Description="own", VpcId=cloud.vpc)["GroupId"]
    tier.declare("network", "stateless")
    tier.done("apply", "--yes")
    tier.declare("network", "stateless", more=f'security_groups = ["{own}"]\n')
    assert "has security groups none" in tier.refused("plan")
    cloud.ask("elbv2", "delete_load_balancer", LoadBalancerArn=cloud.balancer()["LoadBalancerArn"])
    tier.done("apply", "--yes")
    assert cloud.balancer()["SecurityGroups"] == [own] and tier.run("plan").stdout.strip() == "nothing to do"


def test_status_judges_what_serves(tier: Tier) -> None:
    cloud = tier.cloud
    cloud.start_instances(3)
    tier.declare()
    code, shown = tier.status()
    assert code == 2 and shown["problems"][0] == "there is no load balancer web-alb"
    tier.done("apply", "--yes")
    code, shown = tier.status()
    assert (code, shown["state"], shown["listeners"]) == (0, "active", ["HTTP 80"])
    assert [one["state"] for one in shown["targets"]] == ["healthy"] * 3
    assert "ELB OK: web-alb: 3 of 3 targets healthy" in tier.done("status")
    identities = [one["InstanceId"] for one in cloud.machines]
    cloud.ec2.stop_instances(InstanceIds=identities[:1])
    code, shown = tier.status()
    assert code == 1 and shown["problems"] == ["app0 is unused: Target is in the stopped state"]
    assert "last one" not in tier.done("drain", "app1", "--yes"), "app2 serves"
    cloud.ec2.stop_instances(InstanceIds=identities[2:])
    code, shown = tier.status()
    assert code == 2 and "no target is healthy" in shown["problems"]


def test_drain_lets_one_go_and_never_the_last(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare(servers=2, more='deregistration_delay = "1s"\n')
    tier.done("apply", "--yes")
    dry = tier.run("drain", "app0", "--dry-run")
    assert dry.return_value == 2 and "app0 (10.0.0.10:8080), healthy" in dry.stdout
    assert "--yes agrees" in tier.refused("drain", "app0")
    tier.done("drain", "app0", "--yes")
    code, shown = tier.status()
    assert code == 1 and {one["node"]: one["state"] for one in shown["targets"]} == {
        "app0": "draining", "app1": "healthy"
    }  # fmt: skip
    assert tier.done("drain", "app0", "--yes").strip() == "nothing to do"
    assert "app1 is the last one that serves" in tier.refused("drain", "app1", "--yes")
    assert "no target is named 'app7'; there are app0, app1" in tier.refused("drain", "app7", "--yes")
    tier.done("drain", "app0", "--yes", "--wait")
    assert cloud.targets() == [("10.0.0.11", 8080)]
    assert "+ servers 10.0.0.10" in tier.done("apply", "--yes")
    assert tier.status()[0] == 0


def test_a_wait_that_takes_too_long_is_an_error(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    from haptk.io import clock

    tier.declare(servers=2, more='deregistration_delay = "30m"\n')
    tier.done("apply", "--yes")
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(clock, "sleep", lambda seconds: now.__setitem__(0, now[0] + 500 * seconds))
    result = tier.run("drain", "app0", "--yes", "--wait")
    assert isinstance(result.exception, PeerTimeout) and "app0 is still draining" in str(result.exception)
    assert "+ servers 10.0.0.10" in tier.run("plan").stdout, "one that is leaving can be called back"


def test_what_somebody_changed_by_hand_is_named(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare(servers=2)
    tier.done("apply", "--yes")
    arn = cloud.group()["TargetGroupArn"]
    cloud.ask("elbv2", "modify_target_group", TargetGroupArn=arn, HealthCheckPath="/other")
    cloud.ask("elbv2", "register_targets", TargetGroupArn=arn, Targets=[{"Id": "10.0.0.99", "Port": 8080}])
    code, shown = tier.status()
    assert code == 1 and "not as declared: ~ HealthCheckPath = /" in shown["problems"]
    assert {"node": "", "id": "10.0.0.99", "port": 8080, "state": "healthy", "why": ""} in shown["targets"]
    tier.done("apply", "--yes", "--force")
    assert tier.status()[0] == 0


def test_balancers_of_ones_own_stand_behind_it(tier: Tier) -> None:
    cloud = tier.cloud
    tier.declare("network", "stateless", servers=2)
    text = tier.path.read_text().replace('design = "stateless"', 'design = "learn"\ncookie = "JSESSIONID"')
    for number, zone in enumerate(ZONES):
        text += f'[[balancers]]\nname = "lb{number}"\nzone = "{zone}"\nprivate_ip = "10.0.{number}.50"\n'
    tier.path.write_text(text)
    tier.done("apply", "--yes")
    assert cloud.targets() == [("10.0.0.50", 80), ("10.0.1.50", 80)]
    assert cloud.group()["TargetGroupName"] == "web-balancers"
    tier.done("drain", "lb1", "--yes")
    assert "last one" in tier.refused("drain", "lb0", "--yes")


def test_a_tier_of_another_pattern_is_told(tmp_path: Path) -> None:
    good = Path(__file__).parents[1] / "cluster" / "good" / "round-robin.toml"
    for argv in (["plan"], ["status"], ["drain", "lb1"]):
        result = CliRunner().invoke(haptk, ["--config", str(good), "elb", *argv], standalone_mode=False)
        assert isinstance(result.exception, OperatorError) and "no load balancer of AWS" in str(result.exception)


# -- the name -----------------------------------------------------------------------------------------------------------


def names(tier: Tier, zone: str) -> list[dict[str, Any]]:
    found = tier.cloud.ask("route53", "list_resource_record_sets", HostedZoneId=zone)["ResourceRecordSets"]
    return [one for one in found if one["Type"] == "A"]


@pytest.mark.parametrize("kind", ["nothing", "simple", "weighted"])
def test_the_name_becomes_an_alias_in_place_of_what_it_had(tier: Tier, kind: str) -> None:
    """The move from balancers of one's own: their addresses leave in the batch that brings the alias, with --force."""
    cloud = tier.cloud
    zone = cloud.ask("route53", "create_hosted_zone", Name="example.com", CallerReference="t")["HostedZone"]["Id"]
    zone = zone.rpartition("/")[2]
    old = {
        "nothing": [],
        "simple": [{"ResourceRecords": [{"Value": "203.0.113.1"}, {"Value": "203.0.113.2"}]}],
        "weighted": [
            {"SetIdentifier": f"w{n}", "Weight": 1, "ResourceRecords": [{"Value": f"203.0.113.{n}"}]} for n in (1, 2)
        ],
    }[kind]
    sets = [{"Name": "www.example.com.", "Type": "A", "TTL": 60, **one} for one in old]
    if sets:
        changes = [{"Action": "CREATE", "ResourceRecordSet": one} for one in sets]
        cloud.ask("route53", "change_resource_record_sets", HostedZoneId=zone, ChangeBatch={"Changes": changes})
    tier.declare()
    named = f'[dns]\nname = "www.example.com"\nzone = "example.com"\nzone_id = "{zone}"\n'
    tier.path.write_text(tier.path.read_text() + named)

    def apply(*argv: str) -> Result:
        return CliRunner().invoke(haptk, ["--config", str(tier.path), "apply", "--aws", *argv], standalone_mode=False)

    dry = apply("--dry-run")
    assert dry.return_value == 2 and "+ www.example.com. A alias of web-alb" in dry.stdout
    if old:
        refused = apply("--yes")
        assert "2 addresses would leave the name: 203.0.113.1, 203.0.113.2" in str(refused.exception)
        assert len(names(tier, zone)) == len(old)
    assert apply("--yes", "--force").return_value == 0
    (alias,) = names(tier, zone)
    assert alias["AliasTarget"]["DNSName"].rstrip(".") == cloud.balancer()["DNSName"]
    assert alias["AliasTarget"]["HostedZoneId"] == cloud.balancer()["CanonicalHostedZoneId"]
    again = apply("--yes")
    assert again.stdout.strip() == "nothing to do" and again.return_value == 0
    shown = CliRunner().invoke(haptk, ["--config", str(tier.path), "dns", "show"], standalone_mode=False)
    assert isinstance(shown.exception, OperatorError) and "alias of AWS's load balancer" in str(shown.exception)


# -- classic ------------------------------------------------------------------------------------------------------------


def old_one(
    cloud: Cloud, name: str, subnets: list[str], ports: list[tuple[str, int, int]], check: dict[str, Any]
) -> None:
    """A classic load balancer in front of every instance."""
    listeners = [
        {"Protocol": kind, "LoadBalancerPort": port, "InstanceProtocol": kind, "InstancePort": inside}
        for kind, port, inside in ports
    ]
    cloud.ask("elb", "create_load_balancer", LoadBalancerName=name, Subnets=subnets, Listeners=listeners)
    cloud.ask("elb", "configure_health_check", LoadBalancerName=name, HealthCheck=check)
    machines = [{"InstanceId": one["InstanceId"]} for one in cloud.machines]
    cloud.ask("elb", "register_instances_with_load_balancer", LoadBalancerName=name, Instances=machines)


@pytest.fixture
def classic(tier: Tier) -> Tier:
    """An old load balancer `old`: HTTP with an application cookie, three instances of which two have one name."""
    cloud = tier.cloud
    cloud.start_instances(3)
    twins = [one["InstanceId"] for one in cloud.machines[1:]]
    cloud.ec2.create_tags(Resources=twins, Tags=[{"Key": "Name", "Value": "twin"}])
    old_one(
        cloud, "old", cloud.subnets, [("HTTP", 80, 8080), ("TCP", 2222, 22)],
        {"Target": "HTTP:8080/healthz", "Interval": 6, "Timeout": 5, "UnhealthyThreshold": 2, "HealthyThreshold": 3},
    )  # fmt: skip
    name = {"LoadBalancerName": "old"}
    cloud.ask("elb", "create_app_cookie_stickiness_policy", **name, PolicyName="sticky", CookieName="JSESSIONID")
    cloud.ask("elb", "set_load_balancer_policies_of_listener", **name, LoadBalancerPort=80, PolicyNames=["sticky"])
    attributes = {"ConnectionSettings": {"IdleTimeout": 90}, "ConnectionDraining": {"Enabled": True, "Timeout": 45}}
    cloud.ask("elb", "modify_load_balancer_attributes", **name, LoadBalancerAttributes=attributes)
    return tier


def test_a_classic_load_balancer_is_read_declared_and_replaced(classic: Tier, tmp_path: Path) -> None:
    tier, cloud = classic, classic.cloud
    region = ("--region", "eu-west-1")
    assert tier.done("classic", *region).strip() == "old"
    shown = json.loads(tier.done("classic", "old", *region, "--json"))
    assert shown["classic"]["listeners"][0]["policies"] == ["sticky"] and shown["written"] is None
    said = tier.done("classic", "old", *region, "--output", str(tier.path))
    assert "the listener TCP 2222 to 22 is not taken over" in said and "sessions on JSESSIONID begin anew" in said
    cluster = load(tier.path.read_text()).cluster
    assert cluster.elb is not None
    assert (cluster.elb.type, cluster.elb.vpc, cluster.elb.idle_timeout) == ("application", cloud.vpc, 90)
    assert cluster.elb.deregistration_delay == 45 and dict(cluster.elb.subnets) == dict(zip(ZONES, cloud.subnets))  # noqa: B905
    assert (cluster.session.design, cluster.session.cookie) == ("learn", "JSESSIONID")
    assert (cluster.check.path, cluster.check.interval, cluster.check.fall, cluster.check.rise) == ("/healthz", 6, 2, 3)
    ids = [one["InstanceId"] for one in cloud.machines]
    assert {one.name: one.instance for one in cluster.servers} == {"app0": ids[0], ids[1]: ids[1], ids[2]: ids[2]}
    assert all(one.port == 8080 for one in cluster.servers)
    tier.done("apply", "--yes")
    assert tier.status()[0] == 0
    assert (cloud.group()["HealthCheckPath"], cloud.group()["HealthCheckIntervalSeconds"]) == ("/healthz", 6)
    assert cloud.aws("elb", "describe-load-balancers")["LoadBalancerDescriptions"], "the old one is untouched"


def test_a_cookie_of_the_classic_load_balancers_own_becomes_a_cookie_of_the_new_ones(classic: Tier) -> None:
    tier, name = classic, {"LoadBalancerName": "old"}
    own = {"PolicyName": "own", "CookieExpirationPeriod": 600}
    tier.cloud.ask("elb", "create_lb_cookie_stickiness_policy", **name, **own)
    kind = {"PolicyName": "odd", "PolicyTypeName": "ProxyProtocolPolicyType", "PolicyAttributes": []}
    tier.cloud.ask("elb", "create_load_balancer_policy", **name, **kind)
    chosen = {"LoadBalancerPort": 80, "PolicyNames": ["own", "odd"]}
    tier.cloud.ask("elb", "set_load_balancer_policies_of_listener", **name, **chosen)
    said = tier.done("classic", "old", "--region", "eu-west-1", "--output", str(tier.path))
    assert "the new cookie lives for a day, and not for 600 s" in said
    assert "the policy odd (ProxyProtocolPolicyType) is not taken over" in said
    session = load(tier.path.read_text()).cluster.session
    assert (session.design, session.cookie) == ("insert", "AWSALB")


def test_a_classic_load_balancer_of_tcp_becomes_a_network_one(tier: Tier, tmp_path: Path) -> None:
    cloud = tier.cloud
    cloud.start_instances(1)
    check = {"Target": "TCP:8001", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 2, "HealthyThreshold": 10}
    old_one(cloud, "raw", cloud.subnets[:1], [("TCP", 8000, 8001)], check)
    said = tier.done("classic", "raw", "--region", "eu-west-1", "--name", "raw", "--output", str(tier.path))
    assert "its check TCP:8001 asks for no path" in said
    cluster = load(tier.path.read_text()).cluster
    assert cluster.elb is not None and cluster.elb.type == "network" and cluster.frontend.port == 8000
    assert cluster.session.design == "stateless" and cluster.servers[0].port == 8001
    refused = tier.run("classic", "raw", "--region", "eu-west-1", "--output", str(tier.path))
    assert isinstance(refused.exception, CannotWrite)


def test_a_classic_load_balancer_that_lacks_something_leaves_a_draft(tier: Tier) -> None:
    check = {"Target": "HTTP:80/", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 2, "HealthyThreshold": 10}
    old_one(tier.cloud, "bare", tier.cloud.subnets[:1], [("HTTP", 80, 80)], check)
    result = tier.run("classic", "bare", "--region", "eu-west-1", "--output", str(tier.path))
    assert isinstance(result.exception, ConfigError) and "[[servers]]" in str(result.exception)
    assert tier.path.with_name("cluster.toml.draft").exists() and not tier.path.exists()


def test_a_classic_load_balancer_that_is_not_there(tier: Tier) -> None:
    assert "no classic load balancer" in tier.done("classic", "--region", "eu-west-1")
    result = tier.run("classic", "gone", "--region", "eu-west-1")
    assert isinstance(result.exception, AwsNotFound), result.exception


def test_the_clouds_one_zone_rule_is_of_application_load_balancers_alone(tier: Tier) -> None:
    cloud = tier.cloud
    for kind in ("network", "application"):
        made = cloud.elb.create_load_balancer(Name=f"x-{kind}", Type=kind, Subnets=cloud.subnets)["LoadBalancers"][0]
        if kind == "network":
            cloud.elb.set_subnets(LoadBalancerArn=made["LoadBalancerArn"], Subnets=cloud.subnets[:1])
            continue
        with pytest.raises(ClientError):
            cloud.elb.set_subnets(LoadBalancerArn=made["LoadBalancerArn"], Subnets=cloud.subnets[:1])
