"""The lab's network process, driven only from outside: HTTP, TCP connections and its control socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from haptk.errors import PeerError
from haptk.io import control
from haptk.lab.plan import Region
from tests.fixtures_cloud import NET, PLAN

EIP = (f"{NET}.200.10", 18080)
IMDS = {"lb1": (f"{NET}.1.11", 18169), "lb2": (f"{NET}.2.11", 18169)}
PATIENCE_S = 20.0


@dataclass
class Running:
    """The process, and how to talk to it."""

    process: subprocess.Popen[str]
    socket: Path
    region: Region
    state: dict[str, Any]

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        return control.call(self.socket, {"op": op, **fields}, what="the network", timeout_s=PATIENCE_S)

    @property
    def api(self) -> str:
        return f"http://{self.state['listens']['api']}"

    def wait_path(self, wanted: str, instance: str | None = None) -> None:
        """Until the path to the address is in this state, held by this instance."""
        holder = self.region.instance(instance).instance_id if instance else None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            path = self.call("state")["paths"][0]
            if path["state"] == wanted and path["instance_id"] == holder:
                return
            time.sleep(0.005)
        raise AssertionError(f"the path is {path}, not {wanted} at {instance}")


def spec(cloud: str, region: Region, control_socket: Path) -> dict[str, Any]:
    return {
        "cloud": cloud.removeprefix("http://"),
        "api": f"{NET}.0.3:0",
        "control": str(control_socket),
        "region": region.to_dict(),
        "imds": [{"instance": name, "listen": f"{host}:{port}"} for name, (host, port) in IMDS.items()],
        "addresses": [{"address": "web", "ports": [EIP[1]]}],
    }


@contextlib.contextmanager
def running(document: dict[str, Any], region: Region, directory: Path) -> Iterator[Running]:
    path = directory / "network.json"
    path.write_text(json.dumps(document))
    argv = [sys.executable, "-m", "haptk.lab.network", str(path), "--die-with-parent"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Running(process, Path(document["control"]), region, json.loads(line))
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == "", "nothing may be left to complain about"
        assert not Path(document["control"]).exists()


@pytest.fixture
def network(cloud: str, two_nodes: Region, tmp_path: Path) -> Iterator[Running]:
    with running(spec(cloud, two_nodes, tmp_path / "n.sock"), two_nodes, tmp_path) as started:
        yield started


@pytest.fixture
def via_switch(network: Running) -> Any:
    """An EC2 client of lb1 through the fault switch: one attempt, a second of patience."""
    return client(network, "AKIALB1")


def client(network: Running, key: str) -> Any:
    import boto3

    config = Config(connect_timeout=5, read_timeout=1, retries={"total_max_attempts": 1}, proxies={})
    session = boto3.session.Session(key, "x", region_name=network.region.region)
    return session.client("ec2", endpoint_url=network.api, config=config)


def give(ec2: Any, region: Region, name: str) -> str:
    made = ec2.associate_address(
        AllocationId=region.addresses[0].allocation_id, NetworkInterfaceId=region.interface_of(name)
    )
    return str(made["AssociationId"])


# ---- the data path ---------------------------------------------------------------------------------------------------


@dataclass
class Echo:
    """A TCP server on a private address: says its name and who the client is, then echoes."""

    name: str
    host: str
    peers: list[str] = field(default_factory=list)
    listener: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.listener = socket.create_server((self.host, EIP[1]))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, peer = self.listener.accept()
                self.peers.append(peer[0])
                threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel, contextlib.suppress(OSError):
            channel.sendall(f"{self.name}\n".encode())
            while data := channel.recv(65536):
                channel.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def servers() -> Iterator[dict[str, Echo]]:
    made = {name: Echo(name, host) for name, (host, _) in IMDS.items()}
    yield made
    for one in made.values():
        one.close()


def connect(source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(EIP, timeout=PATIENCE_S, source_address=(source, 0))


def receive(channel: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            break
        data += part
    return data


def silent(channel: socket.socket, seconds: float = 0.4) -> bool:
    """Nothing comes, not even an end."""
    channel.settimeout(seconds)
    try:
        channel.recv(1)
    except TimeoutError:
        return True
    return False


def test_an_address_that_nobody_holds_refuses(network: Running, cloud_client: Any, servers: dict[str, Echo]) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect()
    held = give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    connect().close()
    cloud_client.disassociate_address(AssociationId=held)
    network.wait_path("refused")
    with pytest.raises(ConnectionRefusedError):
        connect()


def test_a_held_address_relays_and_keeps_the_client_address(
    network: Running, cloud_client: Any, servers: dict[str, Echo]
) -> None:
    give(cloud_client, network.region, "lb2")
    network.wait_path("relayed", "lb2")
    with connect("127.0.0.77") as channel:
        assert receive(channel, 4) == b"lb2\n"
        big = os.urandom(3_000_000)
        sender = threading.Thread(target=channel.sendall, args=(big,))
        sender.start()
        assert receive(channel, len(big)) == big
        sender.join(PATIENCE_S)
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(1) == b"", "the end of the client's half comes back as the end of the server's"
    assert servers["lb2"].peers == ["127.0.0.77"]
    assert servers["lb1"].peers == []


def test_a_move_resets_connections_and_new_ones_reach_the_new_holder(
    network: Running, cloud_client: Any, servers: dict[str, Echo]
) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    with connect() as channel:
        assert receive(channel, 4) == b"lb1\n"
        give(cloud_client, network.region, "lb2")
        with pytest.raises(ConnectionResetError):
            channel.recv(1)
    network.wait_path("relayed", "lb2")
    with connect() as channel:
        assert receive(channel, 4) == b"lb2\n"


def test_a_holder_without_a_listener_resets(network: Running, cloud_client: Any) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    with pytest.raises(ConnectionResetError), connect() as channel:  # connect() itself may see it already
        channel.recv(1)


def test_a_holder_that_is_off_is_a_black_hole_until_the_address_moves(
    network: Running, cloud_client: Any, servers: dict[str, Echo]
) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    with connect() as before:
        assert receive(before, 4) == b"lb1\n"
        network.call("power", instance_id="lb1", on=False)
        servers["lb1"].close()
        before.sendall(b"x")
        assert silent(before), "an existing connection freezes"
        with connect() as during:
            during.sendall(b"x")
            assert silent(during), "a new one is accepted and never answered"
            give(cloud_client, network.region, "lb2")
            for channel in (before, during):
                channel.settimeout(PATIENCE_S)
                with pytest.raises(ConnectionResetError):
                    channel.recv(1)
    network.wait_path("relayed", "lb2")
    with connect() as after:
        assert receive(after, 4) == b"lb2\n"


def test_a_machine_that_comes_back_does_not_know_its_old_connections(
    network: Running, cloud_client: Any, servers: dict[str, Echo]
) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    with connect() as channel:
        assert receive(channel, 4) == b"lb1\n"
        network.call("power", instance_id="lb1", on=False)
        assert network.call("state")["off"] == [network.region.instance("lb1").instance_id]
        network.call("power", instance_id="lb1", on=True)
        with pytest.raises(ConnectionResetError):
            channel.recv(1)
    with connect() as channel:
        assert receive(channel, 4) == b"lb1\n"


def test_many_connections_at_once(network: Running, cloud_client: Any, servers: dict[str, Echo]) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(connect()) for _ in range(200)]
        for number, channel in enumerate(channels):
            channel.sendall(f"{number:06}".encode())
        for number, channel in enumerate(channels):
            assert receive(channel, 10) == f"lb1\n{number:06}".encode()
        assert network.call("state")["paths"][0]["connections"] == 200
    deadline = time.monotonic() + PATIENCE_S
    while network.call("state")["paths"][0]["connections"]:
        assert time.monotonic() < deadline, "closed connections have to be forgotten"
        time.sleep(0.01)


def test_an_address_that_somebody_else_listens_on_is_told_and_tried_again(
    network: Running, cloud_client: Any, servers: dict[str, Echo]
) -> None:
    def wait_failure(wanted: bool) -> str | None:
        deadline = time.monotonic() + PATIENCE_S
        while bool(failure := network.call("state")["paths"][0]["failure"]) is not wanted:
            assert time.monotonic() < deadline, failure
            time.sleep(0.01)
        return str(failure)

    with socket.create_server(EIP):
        give(cloud_client, network.region, "lb1")
        assert wait_failure(True) == "Address already in use"
    wait_failure(False)
    with connect() as channel:
        assert receive(channel, 4) == b"lb1\n"


def test_the_path_outlives_the_cloud(two_nodes: Region, tmp_path: Path, servers: dict[str, Echo]) -> None:
    """A dead control plane does not stop packets, and a new one is followed."""
    from haptk.lab.seed import ec2_client, seed

    def start(listen: str) -> tuple[subprocess.Popen[str], str]:
        argv = [sys.executable, "-m", "haptk.lab.cloud", "--listen", listen, "--die-with-parent"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    first, url = start("127.0.0.1:0")
    second = None
    try:
        region = seed(url, PLAN)
        give(ec2_client(url, region.region), region, "lb1")
        with running(spec(url, region, tmp_path / "n.sock"), region, tmp_path) as network:
            network.wait_path("relayed", "lb1")
            first.send_signal(signal.SIGKILL)
            first.wait(PATIENCE_S)
            with connect() as channel:
                assert receive(channel, 4) == b"lb1\n"
            with pytest.raises(ClientError) as caught:
                client(network, "AKIALB1").describe_addresses()
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
            second, _ = start(url.removeprefix("http://"))
            network.wait_path("refused")
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait(PATIENCE_S)
                assert process.stdout is not None
                process.stdout.close()


# ---- metadata through the network -----------------------------------------------------------------------------------


def ask_imds(name: str, path: str, token: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection(*IMDS[name], timeout=1)
    with contextlib.closing(connection):
        if token:
            connection.request("GET", path, headers={"X-aws-ec2-metadata-token": token})
        else:
            connection.request("PUT", path, headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_each_instance_has_its_metadata_until_it_is_off(network: Running, cloud_client: Any) -> None:
    tokens = {name: ask_imds(name, "/latest/api/token")[1] for name in IMDS}
    for name, token in tokens.items():
        status, told = ask_imds(name, "/latest/meta-data/instance-id", token)
        assert (status, told) == (200, network.region.instance(name).instance_id)
    assert ask_imds("lb2", "/latest/meta-data/instance-id", tokens["lb1"])[0] == 401, "a token is for one machine"
    network.call("power", instance_id="lb1", on=False)
    with pytest.raises(TimeoutError):
        ask_imds("lb1", "/latest/api/token")
    assert ask_imds("lb2", "/latest/api/token")[0] == 200
    network.call("power", instance_id="lb1", on=True)
    assert ask_imds("lb1", "/latest/api/token")[0] == 200


def test_metadata_can_lag_behind_the_cloud(network: Running, cloud_client: Any) -> None:
    token = ask_imds("lb1", "/latest/api/token")[1]
    network.call("imds_lag", instance_id="lb1", lag_ms=600_000)
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    assert ask_imds("lb1", "/latest/meta-data/public-ipv4", token)[0] == 404
    network.call("imds_lag", instance_id="lb1", lag_ms=0)
    assert ask_imds("lb1", "/latest/meta-data/public-ipv4", token) == (200, EIP[0])


# ---- the fault switch --------------------------------------------------------------------------------------------


def last_call(network: Running) -> dict[str, Any]:
    return dict(network.call("calls")["calls"][-1])


def test_calls_pass_and_are_recorded(network: Running, via_switch: Any) -> None:
    begun = time.monotonic()
    via_switch.describe_addresses()
    call = last_call(network)
    assert (call["action"], call["access_key_id"], call["service"]) == ("DescribeAddresses", "AKIALB1", "ec2")
    assert (call["status"], call["fault"], call["source"]) == (200, None, "127.0.0.1")
    assert begun <= call["arrived_monotonic_s"] <= call["answered_monotonic_s"] <= time.monotonic()
    following = network.call("calls")["next"]
    assert network.call("calls", since=following)["calls"] == []
    via_switch.describe_instances()
    assert [one["action"] for one in network.call("calls", since=following)["calls"]] == ["DescribeInstances"]


def test_throttle_is_counted_and_refuses_as_ec2_does(network: Running, via_switch: Any) -> None:
    network.call("faults", set={"mode": "throttle", "count": 2})
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            via_switch.describe_addresses()
        assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    via_switch.describe_addresses()
    assert network.call("faults")["rules"] == []


def test_throttle_speaks_json_to_json_protocols(network: Running) -> None:
    import boto3

    network.call("faults", set={"mode": "throttle"})
    config = Config(retries={"total_max_attempts": 1}, proxies={})
    dynamodb = boto3.session.Session("k", "x", region_name="eu-west-1").client(
        "dynamodb", endpoint_url=network.api, config=config
    )
    with pytest.raises(ClientError) as caught:
        dynamodb.list_tables()
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    call = last_call(network)
    assert (call["action"], call["service"], call["fault"]) == ("ListTables", "dynamodb", "throttle")


def test_error_is_a_500(network: Running, via_switch: Any) -> None:
    network.call("faults", set={"mode": "error", "action": "AssociateAddress"})
    via_switch.describe_addresses()
    with pytest.raises(ClientError) as caught:
        give(via_switch, network.region, "lb1")
    assert caught.value.response["Error"]["Code"] == "InternalError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert network.call("faults", clear=True) == {"cleared": 1}
    give(via_switch, network.region, "lb1")


def test_an_answer_that_is_lost_after_the_call_was_carried_out(
    network: Running, via_switch: Any, cloud_client: Any
) -> None:
    network.call("faults", set={"mode": "error", "when": "after", "action": "AssociateAddress", "count": 1})
    with pytest.raises(ClientError):
        give(via_switch, network.region, "lb1")
    found = cloud_client.describe_addresses()["Addresses"][0]
    assert found["NetworkInterfaceId"] == network.region.interface_of("lb1")
    assert last_call(network)["fault"] == "error after"


def test_hang_cuts_off_one_node_alone(network: Running, via_switch: Any) -> None:
    from botocore.exceptions import ReadTimeoutError

    rule = network.call("faults", set={"mode": "hang", "access_key_id": "AKIALB1"})["rule"]
    with pytest.raises(ReadTimeoutError):
        via_switch.describe_addresses()
    assert last_call(network)["answered_monotonic_s"] is None
    client(network, "AKIALB2").describe_addresses()
    assert network.call("faults", clear=rule["id"]) == {"cleared": 1}
    via_switch.describe_addresses()


def test_reset_by_source_address(network: Running) -> None:
    network.call("faults", set={"mode": "reset", "source": "127.0.0.55"})
    host, _, port = network.state["listens"]["api"].partition(":")
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), PATIENCE_S, source_address=("127.0.0.55", 0)) as channel:
        channel.sendall(request)
        with pytest.raises(ConnectionResetError):
            channel.recv(1)
    with socket.create_connection((host, int(port)), PATIENCE_S) as channel:
        channel.sendall(request)
        assert channel.recv(9) == b"HTTP/1.1 "


def test_slow_takes_its_time(network: Running, via_switch: Any) -> None:
    network.call("faults", set={"mode": "slow", "slow_ms": 300})
    begun = time.monotonic()
    via_switch.describe_addresses()
    assert time.monotonic() - begun >= 0.3


def test_pass_takes_calls_out_of_later_rules(network: Running, via_switch: Any) -> None:
    network.call("faults", set={"mode": "pass", "action": "DescribeAddresses"})
    network.call("faults", set={"mode": "error"})
    via_switch.describe_addresses()
    with pytest.raises(ClientError):
        via_switch.describe_instances()


def test_one_connection_carries_many_calls(network: Running) -> None:
    """Keep-alive, pipelining, chunked bodies and HEAD on one connection; then the close that was asked for."""
    host, _, port = network.state["listens"]["api"].partition(":")
    form = b"Action=DescribeRegions&Version=2016-11-15"
    scope = b"Authorization: AWS4-HMAC-SHA256 Credential=AKIAX/20260101/eu-west-1/ec2/aws4_request, Signature=0\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n" + scope
    sized = head + b"Content-Length: %d\r\n\r\n" % len(form) + form
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + form[:5] + b"\r\n%x\r\n" % len(form[5:]) + form[5:]
    chunked += b"\r\n0\r\n\r\n"
    closing = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(form) + form
    with socket.create_connection((host, int(port)), PATIENCE_S) as channel:
        channel.sendall(sized + chunked + b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + closing)
        data = b""
        while part := channel.recv(65536):
            data += part
    assert data.count(b"HTTP/1.1 ") == 4
    assert data.count(b"</DescribeRegionsResponse>") == 3
    assert [one["action"] for one in network.call("calls")["calls"]] == [
        "DescribeRegions",
        "DescribeRegions",
        "HEAD",
        "DescribeRegions",
    ]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"mode": "explode"}, "explode"),
        ({}, "mode"),
        ({"mode": "slow"}, "slow_ms"),
        ({"mode": "error", "count": 0}, "count"),
        ({"mode": "error", "count": True}, "count"),
        ({"mode": "error", "when": "later"}, "later"),
        ({"mode": "error", "action": 7}, "action"),
        ({"mode": "error", "who": "x"}, "who"),
    ],
)
def test_rules_that_make_no_sense_are_refused(network: Running, rule: dict[str, Any], why: str) -> None:
    with pytest.raises(PeerError, match=why):
        network.call("faults", set=rule)
    assert network.call("faults")["rules"] == []


# ---- control and spec ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"op": "sing"}, "op is one of"),
        ({"op": "power", "instance_id": "lb9", "on": True}, "lb1, lb2"),
        ({"op": "power", "instance_id": "lb1", "on": 1}, "true or false"),
        ({"op": "calls", "since": -1}, "since"),
        ({"op": "imds_lag", "instance_id": "lb1", "lag_ms": "5"}, "lag_ms"),
    ],
)
def test_control_refuses_with_a_sentence(network: Running, request_: dict[str, Any], why: str) -> None:
    with pytest.raises(PeerError, match=why):
        control.call(network.socket, request_)


def test_the_control_socket_is_private_and_survives_rubbish(network: Running) -> None:
    assert network.socket.stat().st_mode & 0o777 == 0o600
    for rubbish in (b"\n", b"[1]\n", b"{" * 70_000, b"\xff\xfe\n", b""):
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(PATIENCE_S)
            channel.connect(str(network.socket))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                channel.sendall(rubbish)
                channel.shutdown(socket.SHUT_WR)
                assert b"error" in channel.recv(65536)
    assert network.call("state")["pid"] == network.process.pid


def test_associations_through_the_network(network: Running, cloud_client: Any) -> None:
    held = give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    told = network.call("associations")
    assert told["addresses"][0]["association_id"] == held
    assert told["history"][-1]["association_id"] == held
    assert network.call("associations", after=told["version"])["history"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cloud": "nowhere"}, "HOST:PORT"),
        ({"imds": [{"instance": "lb7", "listen": "127.0.0.1:1"}]}, "lb7"),
        ({"addresses": [{"address": "web", "ports": [0]}]}, "1 to 65535"),
        ({"addresses": [{"address": "db", "ports": [1]}]}, "db"),
        ({"api": 7}, r"\$\.api"),
        ({"region": {}}, r"\$\.region"),
    ],
)
def test_a_wrong_spec_is_one_line(two_nodes: Region, tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec("http://127.0.0.1:1", two_nodes, tmp_path / "s") | change))
    argv = [sys.executable, "-m", "haptk.lab.network", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    import re

    assert re.search(why, done.stderr)


def test_a_second_network_does_not_take_the_control_socket(cloud: str, network: Running, tmp_path: Path) -> None:
    document = spec(cloud, network.region, network.socket) | {"imds": [], "addresses": []}
    path = tmp_path / "second.json"
    path.write_text(json.dumps(document))
    argv = [sys.executable, "-m", "haptk.lab.network", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 79
    assert network.call("state")["pid"] == network.process.pid


def test_a_taken_address_is_one_line(cloud: str, network: Running, tmp_path: Path) -> None:
    path = tmp_path / "second.json"
    path.write_text(json.dumps(spec(cloud, network.region, tmp_path / "other.sock")))
    argv = [sys.executable, "-m", "haptk.lab.network", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 71
    assert f"{NET}.1.11:18169" in done.stderr and done.stderr.count("\n") == 1


def test_abrupt_clients_do_no_harm(network: Running, cloud_client: Any, servers: dict[str, Echo]) -> None:
    give(cloud_client, network.region, "lb1")
    network.wait_path("relayed", "lb1")
    for _ in range(50):
        channel = connect()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.close()
    with connect() as channel:
        assert receive(channel, 4) == b"lb1\n"
