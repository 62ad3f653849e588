"""The cloud as a process: what it prints, how it ends, what it says when it cannot start; plans and regions as JSON."""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from haptk.errors import AwsUnreachable, OperatorError
from haptk.lab.plan import Plan, Region
from haptk.lab.seed import seed
from tests.fixtures_cloud import NET, PLAN

CLOUD = [sys.executable, "-m", "haptk.lab.cloud"]
PATIENCE_S = 30.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_on_stdout_and_a_clean_end(number: int) -> None:
    process = subprocess.Popen(
        [*CLOUD, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        seed(url, PLAN)
        process.send_signal(number)
        rest, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, rest, said) == (0, "", "")
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_a_cloud_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        with pytest.raises(AwsUnreachable):
            seed("http://{}:{}".format(*taken.getsockname()), PLAN)


def test_a_taken_port_is_one_line(cloud: str) -> None:
    listen = cloud.removeprefix("http://")
    done = subprocess.run([*CLOUD, "--listen", listen], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr == f"haptk-lab-cloud: cannot listen on {listen}: Address already in use\n"


def test_the_end_can_come_while_it_starts() -> None:
    process = subprocess.Popen(
        [*CLOUD, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://")
    process.terminate()
    assert process.communicate(timeout=PATIENCE_S) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("listen", ["5000", "localhost:", "127.0.0.1:65536", ":80"])
def test_a_wrong_listen_is_one_line(listen: str) -> None:
    done = subprocess.run([*CLOUD, "--listen", listen], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 64
    assert "HOST:PORT" in done.stderr and done.stderr.count("\n") == 1


def test_the_cloud_dies_with_its_parent() -> None:
    """The parent starts a cloud and is killed; the cloud's pipe closes, so it is gone."""
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen({[*CLOUD, '--listen', '127.0.0.1:0', '--die-with-parent']!r})\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    assert urllib.request.urlopen(f"{url}/_lab/associations", timeout=PATIENCE_S).status == 200
    parent.kill()
    assert parent.wait(PATIENCE_S) == -signal.SIGKILL
    assert parent.stdout.read() == "", "end of file comes when the last holder of the pipe, the cloud, is gone"
    parent.stdout.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/_lab/associations", timeout=PATIENCE_S)


def test_a_wrong_question_to_the_feed(cloud: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cloud}/_lab/associations?after=x", timeout=PATIENCE_S)
    assert caught.value.code == 400
    caught.value.close()


def test_plan_and_region_survive_json(two_nodes: Region) -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN
    assert Region.from_json(two_nodes.to_json()) == two_nodes
    with pytest.raises(OperatorError, match="not a Region document"):
        Region.from_json(PLAN.to_json())


def test_the_region_is_exactly_the_plan(two_nodes: Region) -> None:
    assert [one.private_ip for one in two_nodes.instances] == [one.private_ip for one in PLAN.instances]
    assert [one.public_ip for one in two_nodes.addresses] == [one.public_ip for one in PLAN.addresses]
    assert [one.availability_zone for one in two_nodes.subnets] == ["eu-west-1a", "eu-west-1b"]
    assert two_nodes.instance("lb1") == two_nodes.instance(two_nodes.instance("lb1").instance_id)
    with pytest.raises(OperatorError, match="there are lb1, lb2"):
        two_nodes.instance("lb3")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vpc_cidr": "10.0.0.0/16"}, "127.0.0.0/8"),
        ({"vpc_cidr": "127.1.0.1/16"}, "not an IPv4 network"),
        ({"vpc_cidr": "127.80.0.0/16"}, "not inside the VPC"),
        ({"instances": (dataclasses.replace(PLAN.instances[0], subnet="z"),)}, "no subnet is named 'z'"),
        ({"instances": (dataclasses.replace(PLAN.instances[0], private_ip=f"{NET}.2.1"),)}, "is outside"),
        ({"instances": (*PLAN.instances, dataclasses.replace(PLAN.instances[0], name="x"))}, "belongs to both"),
        ({"addresses": (dataclasses.replace(PLAN.addresses[0], public_ip="203.0.113.1"),)}, "not in 127"),
        ({"addresses": (dataclasses.replace(PLAN.addresses[0], holder="lb9"),)}, "no instance is named 'lb9'"),
    ],
)
def test_plans_that_cannot_be(change: dict[str, object], why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        dataclasses.replace(PLAN, **change).check()  # type: ignore[arg-type]


def test_an_address_can_have_a_holder_from_the_start(fresh_cloud: str, cloud_client: object) -> None:
    plan = dataclasses.replace(PLAN, addresses=(dataclasses.replace(PLAN.addresses[0], holder="lb2"),))
    region = seed(fresh_cloud, plan, cloud_client)
    found = cloud_client.describe_addresses()["Addresses"][0]  # type: ignore[attr-defined]
    assert found["InstanceId"] == region.instance("lb2").instance_id
