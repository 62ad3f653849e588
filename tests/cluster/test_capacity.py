"""How many balancers a load needs, and which losses a declared tier survives."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from haptk.cli.app import haptk
from haptk.cluster.capacity import Load, judge, measured, needed, shares
from haptk.cluster.load import load
from haptk.cluster.schema import Balancer, Cluster
from haptk.errors import OperatorError, PeerError

GOOD = Path(__file__).parent / "good"
ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")


def tier(name: str) -> Cluster:
    return load((GOOD / f"{name}.toml").read_text()).cluster


def alike(cluster: Cluster, peak: float, each: float, limit: float = 1.0) -> Load:
    return Load(peak, {one.name: each for one in cluster.balancers}, limit=limit)


def problems(cluster: Cluster, found: Load) -> dict[str, tuple[str, ...]]:
    return {case.name: case.problems for case in judge(cluster, found).cases}


def test_a_pair_carries_what_one_of_it_can() -> None:
    pair = tier("standby-keepalived")
    assert judge(pair, alike(pair, 1000, 1000)).survives
    found = judge(pair, alike(pair, 1001, 1000))
    assert not found.survives and found.cases[0].problems == ("lb1 would get 1001/s of the 1000/s that it may carry",)
    assert found.needed == {"as it is": 2, "without one node": 4, "without one zone": 4}


def test_a_weak_standby_is_found_only_where_it_has_to_carry() -> None:
    pair = tier("standby-keepalived")
    found = problems(pair, Load(800, {"lb1": 1000, "lb2": 500}, limit=1.0))
    assert found["as it is"] == () and found["without lb2"] == ()
    assert found["without lb1"] == ("lb2 would get 800/s of the 500/s that it may carry",)
    assert found["without eu-west-1a"] == found["without lb1"]


def test_round_robin_shares_by_weight_and_the_rest_takes_over() -> None:
    three = tier("round-robin")  # weights 10, 10, 5; lb2 and lb3 share a zone
    assert shares(three, ()) == ({"lb1": 0.4, "lb2": 0.4, "lb3": 0.2}, 0.0)
    living, unserved = shares(three, ("lb1",))
    assert unserved == 0 and living == pytest.approx({"lb2": 2 / 3, "lb3": 1 / 3})
    assert problems(three, alike(three, 900, 600)) == {
        "as it is": (),
        "without lb1": (),
        "without lb2": (),
        "without lb3": (),
        "without eu-west-1a": (),
        "without eu-west-1b": ("lb1 would get 900/s of the 600/s that it may carry",),
    }


def test_an_address_without_a_living_holder_reaches_nobody() -> None:
    pair = tier("standby-keepalived")
    alone = msgspec.structs.replace(pair, addresses=(msgspec.structs.replace(pair.addresses[0], standby=()),))
    found = problems(alone, alike(alone, 10, 1000))
    assert found["without lb1"] == ("100% of the clients reach nobody",) and found["without lb2"] == ()


def test_a_pool_gives_an_address_to_whoever_carries_least() -> None:
    pair = tier("standby-keepalived")
    spare = msgspec.structs.replace(pair.balancers[1], name="lb3", private_ip="10.0.2.11", interface=None)
    addresses = tuple(
        msgspec.structs.replace(pair.addresses[0], name=f"a{n}", active=f"lb{n}", standby=()) for n in (1, 2)
    )
    tied = msgspec.structs.replace(
        pair,
        cluster=msgspec.structs.replace(pair.cluster, contract="pool"),
        balancers=(*pair.balancers, spare),
        addresses=addresses,
    )
    assert shares(tied, ("lb1",)) == ({"lb2": 0.5, "lb3": 0.5}, 0.0)
    assert needed(tied, alike(tied, 100, 60)) == {"as it is": 2, "without one node": 3, "without one zone": 4}


def test_servers_are_counted_and_a_zone_with_all_of_them_is_a_loss() -> None:
    three = tier("round-robin")
    servers = tuple(msgspec.structs.replace(one, zone="eu-west-1a", backup=False) for one in three.servers)
    together = msgspec.structs.replace(three, servers=servers)
    assert "every server is in eu-west-1a" in problems(together, alike(together, 1, 1000))["without eu-west-1a"]
    few = Load(900, {one.name: 10_000.0 for one in three.balancers}, per_server=100.0, limit=1.0)
    assert all(any("servers may carry" in why for why in found) for found in problems(three, few).values())


def test_backups_work_only_when_nobody_else_does() -> None:
    three = tier("round-robin")
    one, two = three.servers[0], three.servers[1]
    first = msgspec.structs.replace(one, zone="eu-west-1a", backup=False)
    backup = msgspec.structs.replace(two, zone="eu-west-1b", backup=True)
    mixed = msgspec.structs.replace(three, servers=(first, backup))
    found = problems(mixed, Load(90, {each.name: 1e6 for each in three.balancers}, per_server=100.0, limit=1.0))
    assert all(not why for why in found.values()), found
    more = problems(mixed, Load(150, {each.name: 1e6 for each in three.balancers}, per_server=100.0, limit=1.0))
    assert more["as it is"] == ("1 servers may carry 100/s",), "the backup waits"


@given(
    st.integers(1, 9), st.integers(1, 3), st.floats(1, 1e5), st.floats(1, 1e5), st.sampled_from([0.5, 0.8, 1.0])
)  # fmt: skip
def test_what_is_said_to_be_needed_survives(more: int, zones: int, peak: float, each: float, limit: float) -> None:
    """The number for every loss, spread over the zones, carries the peak; one fewer does not."""
    elb = tier("elb-balancers")

    def with_balancers(count: int, spread: int) -> Cluster:
        made = tuple(
            Balancer(name=f"lb{n}", zone=ZONES[n % spread], private_ip=f"10.0.1.{n % 250}") for n in range(count)
        )
        return msgspec.structs.replace(elb, balancers=made, servers=elb.servers)

    start = with_balancers(more, min(zones, more))
    numbers = needed(start, alike(start, peak, each, limit))
    if max(numbers.values()) > 60:
        return
    spread = max(2, len({one.zone for one in start.balancers}))
    for state, count in numbers.items():
        enough = with_balancers(count, spread)
        found = {case.name: case for case in judge(enough, alike(enough, peak, each, limit)).cases}
        chosen = {"as it is": ["as it is"], "without one node": [f"without {one.name}" for one in enough.balancers]}
        names = chosen.get(state) or [f"without {one}" for one in {each_one.zone for each_one in enough.balancers}]
        assert all(found[name].carried for name in names), (state, count, found)
    least = numbers["as it is"]
    if least > 1:
        fewer = with_balancers(least - 1, spread)
        assert not judge(fewer, alike(fewer, peak, each, limit)).cases[0].carried


def run(name: str, *argv: str) -> Result:
    return CliRunner().invoke(haptk, ["--config", str(GOOD / f"{name}.toml"), "capacity", *argv], standalone_mode=False)


def test_the_command_judges_by_its_exit_code() -> None:
    good = run("standby-keepalived", "--peak", "4000", "--per-node", "5000", "--json")
    assert good.return_value == 0 and json.loads(good.stdout)["survives"] is True
    bad = run("standby-keepalived", "--peak", "4001", "--per-node", "5000")
    assert bad.return_value == 1 and "it does not survive" in bad.stdout
    one = run("standby-keepalived", "--peak", "100", "--per-node", "5000", "--per-node", "lb2=50", "--json")
    assert one.return_value == 1 and json.loads(one.stdout)["per_node"] == {"lb1": 5000, "lb2": 50}


@pytest.mark.parametrize(
    ("name", "argv", "word"),
    [
        ("standby-keepalived", (), "nothing says what lb1, lb2 can do"),
        ("standby-keepalived", ("--per-node", "lb1=9"), "nothing says what lb2 can do"),
        ("standby-keepalived", ("--per-node", "lb7=9"), "no balancer is named 'lb7'; there are lb1, lb2"),
        ("standby-keepalived", ("--per-node", "many"), "a number of requests per second above 0 is accepted"),
        ("elb-network", ("--per-node", "9"), "AWS sizes its load balancer"),
    ],
)
def test_what_is_missing_is_said(name: str, argv: tuple[str, ...], word: str) -> None:
    result = run(name, "--peak", "10", *argv)
    assert isinstance(result.exception, OperatorError) and word in str(result.exception)


def test_a_quiet_proxy_tells_nothing() -> None:
    assert measured(1000, 10, 5, 2) == 400
    for requests, cpu_s in ((199, 5.0), (1000, 0.1)):
        with pytest.raises(ValueError, match="too few to tell"):
            measured(requests, 10, cpu_s, 1)


@pytest.mark.real("haproxy")
def test_a_real_proxy_is_measured_under_load(tmp_path: Path) -> None:
    """Requests against a haproxy that answers by itself; its own process time is the witness."""
    with tempfile.TemporaryDirectory(prefix="haptk-cap-") as short:
        socket = Path(short) / "s"
        config = tmp_path / "haproxy.cfg"
        port = 20000 + os.getpid() % 20000
        config.write_text(
            f"global\n stats socket {socket} level admin\n nbthread 1\ndefaults\n mode http\n timeout client 9s\n"
            f"frontend f\n bind 127.0.0.1:{port}\n http-request return status 200\n"
        )
        proxy = subprocess.Popen(["/usr/sbin/haproxy", "-f", str(config)], stderr=subprocess.DEVNULL)
        load_maker = None
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                    break
                except OSError:
                    assert proxy.poll() is None and time.monotonic() < deadline
                    time.sleep(0.05)
            quiet = run("standby-keepalived", "--peak", "10", "--measure", str(socket), "--seconds", "1")
            assert isinstance(quiet.exception, OperatorError) and "too few to tell" in str(quiet.exception)
            load_maker = subprocess.Popen(
                ["wrk", "-t1", "-c8", "-d30s", f"http://127.0.0.1:{port}/"], stdout=subprocess.DEVNULL
            )
            result = run("standby-keepalived", "--peak", "10", "--measure", str(socket), "--seconds", "3", "--json")
            assert result.exception is None, result.exception
            rates = set(json.loads(result.stdout)["per_node"].values())
            (rate,) = rates
            assert rate > 500 and math.isfinite(rate)
        finally:
            if load_maker is not None:
                load_maker.terminate()
                load_maker.wait(20)
            proxy.terminate()
            proxy.wait(20)


def test_a_process_that_is_not_here_cannot_be_measured() -> None:
    from haptk.io.process import cpu_seconds

    assert cpu_seconds(os.getpid()) > 0
    with pytest.raises(PeerError, match="not on this machine"):
        cpu_seconds(2**22 + 1)
