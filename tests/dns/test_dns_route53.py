"""`haptk dns` with Route 53 and Elastic IPs, against moto over HTTP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from haptk.aws.client import Access, Clients
from haptk.cli.app import haptk
from haptk.cluster.load import load
from haptk.core.dns import Membership
from haptk.dns.members import Result as Probed
from haptk.dns.members import declared
from haptk.dns.route53 import Route53
from haptk.dns.watch import Watch, rules_of
from haptk.errors import OperatorError
from haptk.render.iam import iam_policy
from tests.apply.operator_guard import Guard, guard_of_file
from tests.dns.test_dns_bind import Member
from tests.fixtures_cloud import NET
from tests.ports import free_port

GOOD = Path(__file__).parents[1] / "cluster" / "good" / "round-robin.toml"
MULTIVALUE = [("weighted", "multivalue"), (r"weight = \d+\n", "")]
SIMPLE = [("weighted", "simple"), (r"weight = \d+\n", ""), ("health_interval = 10", "health_checks = false")]


class Zone:
    """A hosted zone, three Elastic IPs on three balancers, and the declaration of them."""

    def __init__(self, url: str, path: Path) -> None:
        self.route53 = boto3.client("route53", endpoint_url=url)
        self.ec2 = boto3.client("ec2", endpoint_url=url)
        made = self.route53.create_hosted_zone(Name="example.com", CallerReference="test")
        self.id = made["HostedZone"]["Id"].rpartition("/")[2]
        self.path = path
        subnet = self.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        self.allocations, self.addresses, cards = [], [], []
        for at in range(3):
            card = self.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
            # Addresses of loopback, so that a member can answer there.
            address = self.ec2.allocate_address(Domain="vpc", Address=f"{NET}.81.{at + 1}")
            self.ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=card)
            self.allocations.append(address["AllocationId"])
            self.addresses.append(address["PublicIp"])
            cards.append((f'name = "lb{at + 1}"', card))
        text = GOOD.read_text().replace("Z0123456789ABCDEFGHIJ", self.id)
        for at, (name, card) in enumerate(cards):
            text = text.replace(name, f'{name}\ninterface = "{card}"')
            text = text.replace(f"203.0.113.1{at}", self.addresses[at])
        self.text = text
        self.declare()

    def declare(self, *changes: tuple[str, str]) -> None:
        text = self.text
        for old, new in changes:
            text, count = re.subn(old, new, text, flags=re.S)
            assert count
        self.path.write_text(text)

    def run(self, *argv: str) -> Result:
        return CliRunner().invoke(haptk, ["--config", str(self.path), "dns", *argv], standalone_mode=False)

    def sets(self) -> list[dict[str, Any]]:
        found = self.route53.list_resource_record_sets(HostedZoneId=self.id)["ResourceRecordSets"]
        return [one for one in found if one["Type"] == "A"]

    def weights(self) -> dict[str, int]:
        """Weight by address; 1 where there are none."""
        return {value["Value"]: one.get("Weight", 1) for one in self.sets() for value in one["ResourceRecords"]}

    def put(self, action: str, record: dict[str, Any]) -> None:
        changes = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        self.route53.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch=changes)

    def problems(self, *more: str) -> set[tuple[str, str]]:
        """(code, address) of what the API showed; the name servers of the zone are not asked: port 9 is silent."""
        argv = ("check", "--json", "--no-probe", "--server", "127.0.0.1:9", "--deadline", "0.2", *more)
        result = self.run(*argv)
        assert result.exception is None and result.return_value in (2, 3)
        found = set()
        for one in json.loads(result.stdout)["problems"]:
            address = re.search(r"\d+\.\d+\.\d+\.\d+", one["text"])
            if one["code"] not in ("silent", "blind"):
                found.add((one["code"], address[0] if address else ""))
        return found


@pytest.fixture
def zone(fresh_cloud: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Zone:
    for name, value in (("ENDPOINT_URL", fresh_cloud), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    made = Zone(fresh_cloud, tmp_path / "cluster.toml")
    # Whatever a command asks here, an operator of the declared tier may.
    guard_of_file(made.path, made.text, monkeypatch)
    return made


def test_apply_show_and_a_second_apply(zone: Zone) -> None:
    assert zone.run("apply", "--dry-run").return_value == 2 and zone.sets() == []
    assert zone.run("apply", "--yes").return_value == 0
    assert zone.run("apply", "--yes").stdout.strip() == "nothing to do"
    shown = json.loads(zone.run("show", "--json").stdout)["members"]
    assert {(one["node"], one["weight"], one["state"]) for one in shown} == {
        ("lb1", 10, "in the name"), ("lb2", 10, "in the name"), ("lb3", 5, "in the name")
    }  # fmt: skip
    assert zone.problems() == set()


def test_each_planted_fault_is_found(zone: Zone) -> None:
    zone.run("apply", "--yes")
    first, second, third = zone.addresses
    one, two, _ = sorted(zone.sets(), key=lambda each: str(each["SetIdentifier"]))
    zone.put("UPSERT", {**one, "Weight": 3})
    zone.put("UPSERT", {key: value for key, value in two.items() if key != "HealthCheckId"})
    zone.put("CREATE", {**one, "SetIdentifier": "old", "ResourceRecords": [{"Value": "198.51.100.7"}]})
    zone.ec2.disassociate_address(PublicIp=third)
    assert zone.problems() == {
        ("weight", first), ("unchecked", second), ("stale", "198.51.100.7"), ("dangling", "198.51.100.7"),
        ("free", third),
    }  # fmt: skip


def test_an_address_on_another_node_and_a_released_one(zone: Zone) -> None:
    zone.run("apply", "--yes")
    first, second, _ = zone.addresses
    card = re.search(r'name = "lb1"\ninterface = "(eni-\w+)"', zone.text)
    assert card is not None
    zone.ec2.disassociate_address(PublicIp=first)
    zone.ec2.release_address(AllocationId=zone.allocations[0])
    zone.ec2.associate_address(AllocationId=zone.allocations[1], NetworkInterfaceId=card[1], AllowReassociation=True)
    assert zone.problems() == {("dangling", first), ("holder", second)}


def test_addresses_are_compared_for_a_zone_of_ones_own_too(zone: Zone) -> None:
    """Who holds an Elastic IP is EC2's to say, whoever serves the name."""
    own = 'zone = "example.com"\nprovider = "rfc2136"\nserver = "127.0.0.1"'
    zone.declare(*SIMPLE, ('zone = "example.com"', own))
    assert zone.problems() == set(), "not without --aws"
    assert zone.problems("--aws") == set()
    zone.ec2.disassociate_address(PublicIp=zone.addresses[2])
    assert zone.problems("--aws") == {("free", zone.addresses[2])}


def test_weights_and_drains_keep_each_other(zone: Zone) -> None:
    zone.run("apply", "--yes")
    first, second, third = zone.addresses
    assert zone.run("weight", "lb1", "3", "--dry-run").return_value == 2 and zone.weights()[first] == 10
    assert zone.run("weight", "lb1", "3", "--yes").return_value == 0
    assert zone.run("drain", "lb2", "--yes").return_value == 0
    assert zone.weights() == {first: 3, second: 0, third: 5}
    assert zone.run("drain", "lb2", "--yes").stdout.strip() == "nothing to do"
    assert zone.run("drain", "lb3", "--yes").return_value == 0
    for argv in (("drain", "lb1", "--yes"), ("weight", "lb1", "0", "--yes")):
        refused = zone.run(*argv)
        assert isinstance(refused.exception, OperatorError) and "last one" in str(refused.exception)
    assert zone.run("apply", "--yes").return_value == 0
    assert zone.weights() == {first: 10, second: 10, third: 5}
    assert all(one["HealthCheckId"] for one in zone.sets())


@pytest.mark.parametrize("changes", [MULTIVALUE, SIMPLE], ids=["multivalue", "simple"])
def test_a_drain_without_weights_removes_and_apply_returns(zone: Zone, changes: list[tuple[str, str]]) -> None:
    """The health check of a drained record stays: Route 53 would refuse its reference a second time."""
    zone.declare(*changes)
    zone.run("apply", "--yes")
    before = {one["Id"] for one in zone.route53.list_health_checks()["HealthChecks"]}
    assert zone.run("drain", "lb2", "--yes").return_value == 0
    assert set(zone.weights()) == {zone.addresses[0], zone.addresses[2]}
    refused = zone.run("weight", "lb1", "3", "--yes")
    assert isinstance(refused.exception, OperatorError) and "has no weights" in str(refused.exception)
    assert ("missing", zone.addresses[1]) in zone.problems()
    assert zone.run("apply", "--yes").return_value == 0 and set(zone.weights()) == set(zone.addresses)
    assert {one["Id"] for one in zone.route53.list_health_checks()["HealthChecks"]} == before


def test_a_balancer_may_take_itself_out_and_bring_itself_back(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the role of the balancers, which has the records and no health check of Route 53."""
    assert zone.run("apply", "--yes").exception is None
    guard = Guard(lambda: json.loads(iam_policy(load(zone.path.read_text()).cluster)[0].text)).install(monkeypatch)
    for argv in (("drain", "lb2", "--yes"), ("weight", "lb2", "3", "--yes"), ("show",)):
        assert zone.run(*argv).exception is None
    assert zone.weights()[zone.addresses[1]] == 3
    assert {one for one in guard.used if one.startswith("route53:")} == {
        "route53:ChangeResourceRecordSets", "route53:ListHealthChecks", "route53:ListResourceRecordSets",
    }  # fmt: skip


def test_a_name_of_another_provider_is_told(zone: Zone) -> None:
    zone.declare(*SIMPLE, ('zone = "example.com"', 'zone = "example.com"\nprovider = "octodns"'))
    refused = zone.run("show")
    assert isinstance(refused.exception, OperatorError) and "route53 and rfc2136" in str(refused.exception)


@pytest.mark.parametrize("changes", [[], MULTIVALUE], ids=["weighted", "multivalue"])
def test_watch_withdraws_and_returns_with_the_live_weight(
    zone: Zone, tmp_path: Path, changes: list[tuple[str, str]]
) -> None:
    zone.declare(*changes)
    zone.run("apply", "--yes")
    if not changes:
        zone.run("weight", "lb1", "4", "--yes")
    before = zone.weights()
    cluster = load(zone.path.read_text()).cluster
    wanted, rules = declared(cluster), rules_of(cluster)
    results: dict[str, Probed] = dict.fromkeys(zone.addresses, (True, "200"))
    one = Watch(
        wanted,
        Route53(cluster, Clients(Access(region="eu-west-1"))),
        lambda: results,
        Membership(wanted, rules, {}, 0.0),
        tmp_path / "state.json",
        lambda _: None,
    )
    one.step()
    assert zone.weights() == before
    results[zone.addresses[0]] = (False, "refused")
    for _ in range(rules.fall):
        assert zone.weights() == before
        one.step()
    assert zone.weights().get(zone.addresses[0], 0) == 0 and len({**zone.weights(), zone.addresses[0]: 0}) == 3
    results[zone.addresses[0]] = (True, "200")
    for _ in range(rules.rise):
        assert zone.weights().get(zone.addresses[0], 0) == 0
        one.step()
    assert zone.weights() == before and all(each["HealthCheckId"] for each in zone.sets())


def test_watch_as_a_daemon(zone: Zone, tmp_path: Path) -> None:
    """The process itself: real members die and return, the weight in Route 53 follows, the last one stays."""
    port = free_port(*zone.addresses)
    quick = 'interval = "200ms"\ntimeout = "200ms"\nfall = 2\nrise = 2'
    zone.declare((r"\[check\]", f"[frontend]\nport = {port}\n[check]\n{quick}"))
    zone.run("apply", "--yes")
    first, second, third = zone.addresses
    members = [Member(address, port) for address in zone.addresses]
    log = tmp_path / "watch.log"
    argv = [sys.executable, "-m", "haptk", "--config", str(zone.path), "dns", "watch", "--state", str(tmp_path / "s")]

    def eventually(wanted: dict[str, int]) -> None:
        deadline = time.monotonic() + 30
        while zone.weights() != wanted:
            assert time.monotonic() < deadline, f"{zone.weights()}\n{log.read_text()}"
            time.sleep(0.05)

    with log.open("wb") as stream:
        process = subprocess.Popen(argv, stderr=stream)
    try:
        members[0].stop()
        eventually({first: 0, second: 10, third: 5})
        members[1].stop()
        eventually({first: 0, second: 0, third: 5})
        members[2].stop()
        deadline = time.monotonic() + 30
        while "nobody answers" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert zone.weights() == {first: 0, second: 0, third: 5}
        members[0].start()
        members[2].start()
        eventually({first: 10, second: 0, third: 5})
        assert all(one["HealthCheckId"] for one in zone.sets())
    finally:
        process.send_signal(signal.SIGTERM)
        for member in members:
            member.stop()
        assert process.wait(20) == 0, log.read_text()
