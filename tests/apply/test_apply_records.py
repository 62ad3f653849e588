"""The name in Route 53: planned, made, found again, against moto over HTTP; and an interruption after every call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from haptk.apply import records
from haptk.aws.client import Access, Clients
from haptk.cli.app import haptk
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster
from haptk.errors import OperatorError

GOOD = Path(__file__).parents[1] / "cluster" / "good" / "round-robin.toml"


@pytest.fixture
def zone(fresh_cloud: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A Route 53 with the zone example.com and nothing else; its client and the zone's id."""
    for name, value in (("ENDPOINT_URL", fresh_cloud), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    client = boto3.client("route53", endpoint_url=fresh_cloud)
    made = client.create_hosted_zone(Name="example.com", CallerReference="test")
    return client, made["HostedZone"]["Id"].rpartition("/")[2]


def text_for(zone_id: str, *changes: tuple[str, str]) -> str:
    text = GOOD.read_text().replace("Z0123456789ABCDEFGHIJ", zone_id)
    for old, new in changes:
        assert re.search(old, text, re.S)
        text = re.sub(old, new, text, flags=re.S)
    return text


def tier(zone_id: str, *changes: tuple[str, str]) -> Cluster:
    return load(text_for(zone_id, *changes)).cluster


SIMPLE = [("weighted", "simple"), (r"weight = \d+\n", ""), ("health_interval = 10", "health_checks = false")]
WITHOUT_THIRD = [
    (r'\[\[balancers\]\]\nname = "lb3".*?(?=\[\[addr)', ""),
    (r'\[\[addresses\]\]\nname = "web-3".*?(?=\[\[serv)', ""),
]


def apply_to(cluster: Cluster, clients: Any) -> records.RecordPlan:
    plan = records.plan(cluster, records.observe(cluster, clients))
    records.carry_out(cluster, plan, clients)
    return plan


def seen(client: Any, zone_id: str) -> dict[str, dict[str, Any]]:
    found = client.list_resource_record_sets(HostedZoneId=zone_id)["ResourceRecordSets"]
    return {one.get("SetIdentifier", ""): one for one in found if one["Type"] == "A"}


def test_records_and_checks_are_made_and_found_again(zone: tuple[Any, str]) -> None:
    client, zone_id = zone
    cluster, clients = tier(zone_id), Clients(Access(region="eu-west-1"))
    plan = apply_to(cluster, clients)
    assert len(plan.new_checks) == 3 and len(plan.wanted) == 3 and plan.surprises == ()
    found = seen(client, zone_id)
    assert {name: one["Weight"] for name, one in found.items()} == {"web-1": 10, "web-2": 10, "web-3": 5}
    checks = {one["Id"]: one["HealthCheckConfig"]["IPAddress"] for one in client.list_health_checks()["HealthChecks"]}
    assert all(checks[one["HealthCheckId"]] == one["ResourceRecords"][0]["Value"] for one in found.values())
    assert records.plan(cluster, records.observe(cluster, clients)).empty


def test_a_changed_check_replaces_the_old_one(zone: tuple[Any, str]) -> None:
    client, zone_id = zone
    clients = Clients(Access(region="eu-west-1"))
    apply_to(tier(zone_id), clients)
    before = {one["Id"] for one in client.list_health_checks()["HealthChecks"]}
    changed = tier(zone_id, ("/healthz", "/ready"))
    plan = apply_to(changed, clients)
    after = {one["Id"] for one in client.list_health_checks()["HealthChecks"]}
    assert set(plan.old_checks) == before and not before & after and len(after) == 3
    assert {one["HealthCheckId"] for one in seen(client, zone_id).values()} == after
    assert records.plan(changed, records.observe(changed, clients)).empty


def test_another_policy_leaves_nothing_of_the_old_one(zone: tuple[Any, str]) -> None:
    client, zone_id = zone
    clients = Clients(Access(region="eu-west-1"))
    apply_to(tier(zone_id), clients)
    apply_to(tier(zone_id, *SIMPLE), clients)
    (one,) = seen(client, zone_id).values()
    assert len(one["ResourceRecords"]) == 3 and "Weight" not in one
    assert client.list_health_checks()["HealthChecks"] == []
    apply_to(tier(zone_id), clients)
    assert set(seen(client, zone_id)) == {"web-1", "web-2", "web-3"}


def test_a_third_may_go_and_more_is_a_surprise(zone: tuple[Any, str]) -> None:
    _, zone_id = zone
    clients = Clients(Access(region="eu-west-1"))
    apply_to(tier(zone_id), clients)
    fewer = tier(zone_id, *WITHOUT_THIRD)
    assert records.plan(fewer, records.observe(fewer, clients)).surprises == ()
    moved = tier(zone_id, (r"203\.0\.113\.1", "198.51.100.1"))
    (why,) = records.plan(moved, records.observe(moved, clients)).surprises
    assert why.startswith("3 of 3 addresses would leave the name")


class Interrupted:
    """Clients that fail before the call number `at` that changes something."""

    def __init__(self, clients: Clients, at: int) -> None:
        self.clients, self.at, self.count = clients, at, 0

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        if not operation.startswith("List"):
            self.count += 1
            if self.count == self.at:
                raise InterruptedError
        return self.clients.call(service, operation, target, left_s, **parameters)


def test_an_interruption_before_any_call_ends_in_the_same_state(zone: tuple[Any, str]) -> None:
    """From the old checks to new ones: three are made, a batch, three are removed."""
    client, zone_id = zone
    clients = Clients(Access(region="eu-west-1"))
    one, two = tier(zone_id), tier(zone_id, ("/healthz", "/ready"))
    for at in range(1, 9):
        apply_to(one, clients)
        try:
            apply_to(two, Interrupted(clients, at))
        except InterruptedError:
            values = {record["ResourceRecords"][0]["Value"] for record in seen(client, zone_id).values()}
            assert len(values) == 3, "the name is whole at every moment"
            apply_to(two, clients)
        else:
            assert at == 8
        assert records.plan(two, records.observe(two, clients)).empty
        assert len(client.list_health_checks()["HealthChecks"]) == 3


def invoke(path: Path, *argv: str) -> Result:
    return CliRunner().invoke(haptk, ["--config", str(path), *argv], standalone_mode=False)


def test_the_commands(zone: tuple[Any, str], tmp_path: Path) -> None:
    client, zone_id = zone
    path = tmp_path / "cluster.toml"
    path.write_text(text_for(zone_id))
    assert invoke(path, "diff", "--aws").return_value == 2
    dry = invoke(path, "apply", "--aws", "--dry-run")
    assert dry.return_value == 2 and "203.0.113.10" in dry.stdout and not seen(client, zone_id)
    asked = invoke(path, "apply", "--aws")
    assert isinstance(asked.exception, OperatorError) and "--yes" in str(asked.exception)
    assert invoke(path, "apply", "--aws", "--yes").return_value == 0 and len(seen(client, zone_id)) == 3
    again = invoke(path, "apply", "--aws", "--yes")
    assert again.stdout.strip() == "nothing to do" and again.return_value == 0
    assert json.loads(invoke(path, "diff", "--aws", "--json").stdout)["changes"] == []
    path.write_text(text_for(zone_id, (r"203\.0\.113\.1", "198.51.100.1")))
    refused = invoke(path, "apply", "--aws", "--yes")
    assert isinstance(refused.exception, OperatorError) and "--force" in str(refused.exception)
    assert "203.0.113.10" in str(seen(client, zone_id))
    assert invoke(path, "apply", "--aws", "--yes", "--force").return_value == 0
    assert "203.0.113" not in str(seen(client, zone_id))


@pytest.mark.parametrize("changes", [[], SIMPLE], ids=["weighted", "simple"])
def test_the_way_back_from_a_load_balancer_is_one_batch_with_force(
    zone: tuple[Any, str], tmp_path: Path, changes: list[tuple[str, str]]
) -> None:
    client, zone_id = zone
    target = {"HostedZoneId": "Z2P70J7EXAMPLE", "DNSName": "elb.example.net.", "EvaluateTargetHealth": True}
    alias = {"Name": "www.example.com.", "Type": "A", "AliasTarget": target}
    batch = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": alias}]}
    client.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch=batch)
    path = tmp_path / "cluster.toml"
    path.write_text(text_for(zone_id, *changes))
    for argv in (("apply", "--aws", "--yes"), ("dns", "apply", "--yes")):
        refused = invoke(path, *argv)
        assert isinstance(refused.exception, OperatorError)
        assert "the name would leave elb.example.net." in str(refused.exception)
    drained = invoke(path, "dns", "drain", "lb1", "--yes")
    assert isinstance(drained.exception, OperatorError) and "is an alias of elb.example.net." in str(drained.exception)
    (there,) = seen(client, zone_id).values()
    assert there["AliasTarget"]["DNSName"] == "elb.example.net."
    done = invoke(path, "apply", "--aws", "--yes", "--force")
    assert done.return_value == 0 and "- www.example.com. A alias of elb.example.net." in done.stdout
    values = {value["Value"] for one in seen(client, zone_id).values() for value in one["ResourceRecords"]}
    assert values == {f"203.0.113.{at}" for at in (10, 11, 12)}
    assert invoke(path, "apply", "--aws", "--yes").stdout.strip() == "nothing to do"


def test_a_tier_without_a_name_is_told(tmp_path: Path) -> None:
    result = invoke(GOOD.with_name("standby-keepalived.toml"), "diff", "--aws")
    assert isinstance(result.exception, OperatorError) and "[dns]" in str(result.exception)
