"""The lab's metadata service: IMDSv2's rules over HTTP, the live interface tree, its lag and its silence."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from haptk.lab.feed import Feed
from haptk.lab.imds import Imds, Metadata, Tokens
from haptk.lab.plan import Region
from tests.fixtures_cloud import NET

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
PATIENCE_S = 20.0


@dataclass
class Service:
    """The service of lb1 in a thread of this process, on a loopback address of its own."""

    address: tuple[str, int]
    imds: Imds
    feed: Feed
    region: Region

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()}

    def token(self, ttl_s: int = 60) -> str:
        status, body, headers = self.ask("PUT", "/latest/api/token", {TTL: str(ttl_s)})
        assert status == 200
        assert headers[TTL.lower()] == str(ttl_s)
        return body

    def get(self, path: str) -> tuple[int, str]:
        return self.ask("GET", path, {"X-aws-ec2-metadata-token": self.token()})[:2]

    def text(self, path: str) -> str:
        status, body = self.get(f"/latest/meta-data/{path}")
        assert status == 200, f"{path}: {status}"
        return body

    def until(self, path: str, wanted: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.get(path)[0] != wanted:
            assert time.monotonic() < deadline, f"{path} never became {wanted}"
            time.sleep(0.01)


@pytest.fixture
def service(cloud: str, two_nodes: Region) -> Iterator[Service]:
    started = threading.Event()
    made: list[Any] = []

    async def serve() -> None:
        feed = Feed(cloud)
        imds = Imds(Metadata(two_nodes, two_nodes.instance("lb1"), feed))
        server = await asyncio.start_server(imds.serve, f"{NET}.1.11", 0)
        following = asyncio.create_task(feed.run())
        await feed.known.wait()
        stop = asyncio.Event()
        made.extend((server.sockets[0].getsockname(), imds, feed, asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        following.cancel()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(PATIENCE_S)
    address, imds, feed, loop, stop = made
    yield Service(address, imds, feed, two_nodes)
    loop.call_soon_threadsafe(stop.set)
    thread.join(PATIENCE_S)


def give(ec2: Any, region: Region, private_ip: str | None = None) -> str:
    target = {"PrivateIpAddress": private_ip} if private_ip else {}
    made = ec2.associate_address(
        AllocationId=region.addresses[0].allocation_id, NetworkInterfaceId=region.interface_of("lb1"), **target
    )
    return str(made["AssociationId"])


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "-1", "ten", "1.5", "99999999999999999999"])
def test_a_session_needs_a_ttl_from_1_to_21600(service: Service, ttl: str | None) -> None:
    assert service.ask("PUT", "/latest/api/token", {TTL: ttl} if ttl is not None else {})[0] == 400


def test_a_session_through_a_proxy_is_forbidden(service: Service) -> None:
    headers = {TTL: "60", "X-Forwarded-For": "10.0.0.1"}
    assert service.ask("PUT", "/latest/api/token", headers)[0] == 403


def test_no_token_no_answer(service: Service) -> None:
    assert service.ask("GET", "/latest/meta-data/instance-id")[0] == 401
    assert service.ask("GET", "/latest/meta-data/instance-id", {"X-aws-ec2-metadata-token": "x"})[0] == 401
    assert service.ask("GET", "/latest/no-such-thing")[0] == 401, "what exists is told only to those with a token"


def test_only_get_and_put(service: Service) -> None:
    for method in ("POST", "DELETE", "HEAD"):
        status, _, headers = service.ask(method, "/latest/meta-data/instance-id")
        assert (status, headers["allow"]) == (405, "GET, PUT")
    assert service.ask("PUT", "/latest/meta-data/", {TTL: "60"})[0] == 405


def test_tokens_end_and_cannot_be_forged() -> None:
    mine, other = Tokens(), Tokens()
    token = mine.make(60, now=1000.0)
    assert mine.valid(token, 1059.9)
    assert not mine.valid(token, 1060.0)
    assert not other.valid(token, 1000.0)
    for at in range(len(token)):
        forged = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert not mine.valid(forged, 1000.0)
    for rubbish in ("", "=", "é", "A" * 56, token + "A", token[:-4]):
        assert not mine.valid(rubbish, 1000.0)


def test_who_am_i(service: Service) -> None:
    lb1 = service.region.instance("lb1")
    assert service.text("instance-id") == lb1.instance_id
    assert service.text("local-ipv4") == lb1.private_ip
    assert service.text("mac") == lb1.mac
    assert service.text("placement/availability-zone") == "eu-west-1a"
    assert service.text("placement/region") == "eu-west-1"
    assert "instance-id\n" in service.text("") and "network/" in service.text("")
    assert service.get("/")[1] == "latest"
    assert service.get("/latest/")[1] == "dynamic/\nmeta-data/"


def test_the_interface(service: Service) -> None:
    lb1 = service.region.instance("lb1")
    assert service.text("network/interfaces/macs/") == f"{lb1.mac}/"
    base = f"network/interfaces/macs/{lb1.mac}/"
    assert service.text(base + "interface-id") == lb1.network_interface_id
    assert service.text(base + "local-ipv4s") == f"{NET}.1.11\n{NET}.1.12"
    assert service.text(base + "subnet-id") == lb1.subnet_id
    assert "ipv4-associations" not in service.text(base), "there is none without an Elastic IP"


def test_what_does_not_exist_and_what_is_a_directory(service: Service) -> None:
    for path in ("meta-data/nothing", "meta-data/mac/", "meta-data/mac/x", "meta-data//mac", "x", "meta-data/../"):
        assert service.get(f"/latest/{path}")[0] == 404, path
    assert service.get("/1066-10-14/meta-data/")[0] == 404
    headers = {"X-aws-ec2-metadata-token": service.token()}
    status, _, shown = service.ask("GET", "/latest/meta-data/placement", headers)
    assert (status, shown["location"]) == (301, "/latest/meta-data/placement/")


def test_associations_are_live(service: Service, cloud_client: Any) -> None:
    lb1 = service.region.instance("lb1")
    eip = service.region.addresses[0].public_ip
    base = f"network/interfaces/macs/{lb1.mac}/"
    leaf = f"/latest/meta-data/{base}ipv4-associations/{eip}"
    assert service.get(leaf)[0] == 404
    held = give(cloud_client, service.region)
    service.until(leaf, 200)
    assert service.get(leaf)[1] == lb1.private_ip
    assert service.text(base + "ipv4-associations/") == eip
    assert service.text(base + "public-ipv4s") == eip
    assert service.text("public-ipv4") == eip
    give(cloud_client, service.region, f"{NET}.1.12")
    service.until("/latest/meta-data/public-ipv4", 404)
    assert service.get(leaf)[1] == f"{NET}.1.12"
    assert held
    cloud_client.associate_address(
        AllocationId=service.region.addresses[0].allocation_id, NetworkInterfaceId=service.region.interface_of("lb2")
    )
    service.until(leaf, 404)


def test_the_view_can_lag(service: Service, cloud_client: Any) -> None:
    lb1 = service.region.instance("lb1")
    leaf = (
        f"/latest/meta-data/network/interfaces/macs/{lb1.mac}/ipv4-associations/{service.region.addresses[0].public_ip}"
    )
    service.imds.metadata.lag_ms = 600_000
    give(cloud_client, service.region)
    deadline = time.monotonic() + PATIENCE_S
    while not service.feed.holder(service.region.addresses[0].public_ip):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert service.get(leaf)[0] == 404, "the cloud moved it, the metadata do not know yet"
    service.imds.metadata.lag_ms = 0
    assert service.get(leaf)[0] == 200
    service.imds.metadata.lag_ms = 1
    service.until(leaf, 200)


def test_credentials_and_identity(service: Service) -> None:
    role = service.text("iam/security-credentials/")
    found = json.loads(service.text(f"iam/security-credentials/{role}"))
    assert (found["Code"], found["Type"], found["AccessKeyId"]) == ("Success", "AWS-HMAC", "AKIALB1")
    assert found["Expiration"] > found["LastUpdated"]
    document = json.loads(service.get("/latest/dynamic/instance-identity/document")[1])
    lb1 = service.region.instance("lb1")
    assert (document["instanceId"], document["privateIp"]) == (lb1.instance_id, lb1.private_ip)
    assert (document["region"], document["accountId"]) == ("eu-west-1", service.region.account_id)


def test_a_machine_that_is_off_is_silent(service: Service) -> None:
    service.imds.powered = False
    connection = http.client.HTTPConnection(*service.address, timeout=0.5)
    with contextlib.closing(connection):
        connection.request("PUT", "/latest/api/token", headers={TTL: "60"})
        with pytest.raises(TimeoutError):
            connection.getresponse()
    service.imds.powered = True
    assert service.token()


def test_rubbish_is_400(service: Service) -> None:
    import socket

    for rubbish in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"):
        with socket.create_connection(service.address, PATIENCE_S) as channel:
            channel.sendall(rubbish)
            assert channel.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_botocore_finds_its_credentials_and_region_there(service: Service) -> None:
    """The AWS SDK itself accepts the service: no keys in the environment, only the address of the service."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    url = "http://{}:{}".format(*service.address)
    env = keep | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url, "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    env |= {"AWS_CONFIG_FILE": "/nonexistent", "AWS_EC2_METADATA_V1_DISABLED": "true"}
    code = "import botocore.session as s; c = s.get_session().get_credentials(); print(c.method, c.access_key)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "iam-role AKIALB1\n", done.stderr
