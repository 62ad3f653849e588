"""What moving a tier to a load balancer of AWS gains and loses: each point from what the declaration says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from haptk.cli.app import haptk
from haptk.cluster.capacity import Load
from haptk.cluster.compare import Kind, Point, compare
from haptk.cluster.load import load
from haptk.cluster.schema import Cluster
from haptk.cluster.units import Seconds
from haptk.errors import OperatorError

GOOD = Path(__file__).parent / "good"


def tier(name: str, **tables: dict[str, Any]) -> Cluster:
    """A good declaration with keys of its tables changed."""
    cluster = load((GOOD / f"{name}.toml").read_text()).cluster
    changed = {key: msgspec.structs.replace(getattr(cluster, key), **values) for key, values in tables.items()}
    return msgspec.structs.replace(cluster, **changed)


def points(cluster: Cluster, kind: Kind, topic: str) -> list[Point]:
    return [one for one in compare(cluster, kind) if one.topic == topic]


def verdicts(cluster: Cluster, kind: Kind, topic: str) -> list[str]:
    return [one.verdict for one in points(cluster, kind, topic)]


@pytest.mark.parametrize(
    ("design", "topic", "application", "network"),
    [
        ("stateless", "sessions", ["same"], ["same"]),
        ("insert", "sessions", ["same"], ["stop"]),
        ("learn", "sessions", ["gain"], ["stop"]),
        ("prefix", "cookie prefixing", ["loss"], []),
        ("rewrite", "cookie rewriting", ["loss"], []),
    ],
)
def test_each_session_design(design: str, topic: str, application: list[str], network: list[str]) -> None:
    cookie = None if design == "stateless" else "SID"
    cluster = tier("round-robin", session={"design": design, "cookie": cookie})
    assert verdicts(cluster, "application", topic) == application
    assert verdicts(cluster, "network", topic) == network
    assert bool(points(cluster, "application", "open sessions")) == (design != "stateless")
    if design == "prefix":
        assert "SID=SERVER~" in points(cluster, "application", "open sessions")[0].text


def test_time_outs_are_those_that_are_declared() -> None:
    cluster = tier("round-robin", frontend={"client_timeout": Seconds(7), "server_timeout": Seconds(11)})
    (network,) = points(cluster, "network", "TCP time-outs")
    assert network.verdict == "loss" and "7s of silence" in network.text and "350 s" in network.text
    same, connect = points(cluster, "application", "TCP time-outs")
    assert same.verdict == "same" and connect.verdict == "loss" and "11s" in same.text
    patient = tier("round-robin", frontend={"connect_timeout": Seconds(10)})
    assert verdicts(patient, "application", "TCP time-outs") == ["same"]


def test_fixed_addresses_stay_one_a_zone_or_not_at_all() -> None:
    three = tier("round-robin")
    assert verdicts(three, "network", "fixed addresses") == ["loss", "loss"]
    assert "of 3 addresses 2 can stay" in points(three, "network", "fixed addresses")[0].text
    two = msgspec.structs.replace(three, addresses=three.addresses[:2])
    assert verdicts(two, "network", "fixed addresses") == ["same", "loss"]
    assert verdicts(two, "application", "fixed addresses") == ["loss"]
    assert verdicts(msgspec.structs.replace(two, dns=None), "application", "fixed addresses") == ["stop"]


def test_checks_have_elbs_limits() -> None:
    quick = tier("round-robin", check={"interval": Seconds(1), "timeout": Seconds(1), "fall": 2, "host": None})
    (one,) = [each for each in points(quick, "application", "checks") if "after" in each.text]
    assert one.verdict == "loss" and "2 s here, 10 s there" in one.text
    slow = tier("round-robin", check={"interval": Seconds(5), "fall": 3, "method": "GET", "host": None})
    assert verdicts(slow, "application", "checks") == ["same"]
    eager = tier("round-robin", check={"interval": Seconds(5), "fall": 50, "method": "GET", "host": None})
    assert verdicts(eager, "application", "checks") == ["gain"], "ten failures are enough there"


def test_weights_and_backups_have_no_counterpart() -> None:
    cluster = tier("round-robin")
    plain = tuple(msgspec.structs.replace(one, weight=1, backup=False) for one in cluster.servers)
    assert points(msgspec.structs.replace(cluster, servers=plain), "application", "servers") == []
    odd = (msgspec.structs.replace(plain[0], weight=7), msgspec.structs.replace(plain[1], backup=True))
    found = points(msgspec.structs.replace(cluster, servers=odd), "application", "servers")
    assert [one.verdict for one in found] == ["loss", "loss"]
    assert plain[1].name in found[0].text and f"{plain[0].name} 7" in found[1].text


def test_a_name_at_the_top_of_its_zone_needs_route_53() -> None:
    other = {"provider": "rfc2136", "server": "10.0.0.1"}
    apex = tier("round-robin", dns={**other, "name": "example.com"})
    assert verdicts(apex, "application", "name") == ["stop"]
    assert verdicts(tier("round-robin", dns=other), "application", "name") == ["same"]
    assert verdicts(tier("round-robin", dns={"name": "example.com"}), "application", "name") == ["same"]


def test_capacity_is_a_number_when_rates_are_known() -> None:
    cluster = tier("round-robin")

    def said(peak: float) -> Point:
        rates = {one.name: 5000.0 for one in cluster.balancers}
        found = compare(cluster, "application", Load(peak, rates))
        return next(one for one in found if one.topic == "capacity")

    assert said(9000).verdict == "gain" and "need 6 balancers" in said(9000).text
    assert said(100).verdict == "same"
    assert "maxconn 20000" in points(cluster, "network", "capacity")[1].text


def run(name: str, *argv: str) -> Result:
    argv = ("--config", str(GOOD / f"{name}.toml"), "elb", "compare", *argv)
    return CliRunner().invoke(haptk, argv, standalone_mode=False)


def test_the_command() -> None:
    both = json.loads(run("standby-heartbeat", "--json").stdout)
    assert set(both) == {"network", "application"} and all(one["verdict"] for one in both["network"])
    text = run("standby-heartbeat", "--to", "application").stdout
    assert text.startswith("application load balancer: gains ") and "network load balancer" not in text
    assert any(line.startswith("  - ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "argv", "word"),
    [
        ("elb-network", (), "no balancers of its own"),
        ("round-robin", ("--peak", "9"), "--peak and --per-node belong together"),
    ],
)
def test_what_cannot_be_compared_is_said(name: str, argv: tuple[str, ...], word: str) -> None:
    result = run(name, *argv)
    assert isinstance(result.exception, OperatorError) and word in str(result.exception)
