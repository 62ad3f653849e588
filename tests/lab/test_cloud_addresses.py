"""Each correction of moto's Elastic IPs, over HTTP with boto3. The tests of the nine fail on moto 5.2 as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from haptk.lab.plan import Region
from haptk.lab.seed import ec2_client
from tests.fixtures_cloud import NET


@pytest.fixture
def ec2(cloud_client: Any, two_nodes: Region) -> Any:
    return cloud_client


def refused(call: Callable[..., Any], **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def give(ec2: Any, region: Region, name: str, **more: Any) -> str:
    """Associate the region's first address with an instance's interface; the association id."""
    parameters = {
        "AllocationId": region.addresses[0].allocation_id,
        "NetworkInterfaceId": region.interface_of(name),
    } | more
    return str(ec2.associate_address(**parameters)["AssociationId"])


def shown(ec2: Any, **query: Any) -> dict[str, Any]:
    return dict(ec2.describe_addresses(**query)["Addresses"][0])


def interface(ec2: Any, region: Region, name: str) -> dict[str, Any]:
    found = ec2.describe_network_interfaces(NetworkInterfaceIds=[region.interface_of(name)])
    return dict(found["NetworkInterfaces"][0])


# ---- the nine ----------------------------------------------------------------------------------------------------


def test_1_reassociation_is_automatic_unless_refused(ec2: Any, two_nodes: Region) -> None:
    first = give(ec2, two_nodes, "lb1")
    assert refused(lambda: give(ec2, two_nodes, "lb2", AllowReassociation=False)) == "Resource.AlreadyAssociated"
    assert shown(ec2)["AssociationId"] == first, "a refused call must change nothing"
    second = give(ec2, two_nodes, "lb2")
    assert second != first
    assert shown(ec2)["NetworkInterfaceId"] == two_nodes.interface_of("lb2")


def test_2_the_old_interface_loses_the_address(ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb1")
    give(ec2, two_nodes, "lb2", AllowReassociation=True)
    old = interface(ec2, two_nodes, "lb1")
    assert "Association" not in old
    assert all("Association" not in item for item in old["PrivateIpAddresses"])
    instances = {
        one["InstanceId"]: one.get("PublicIpAddress")
        for reservation in ec2.describe_instances()["Reservations"]
        for one in reservation["Instances"]
    }
    assert instances == {
        two_nodes.instance("lb1").instance_id: None,
        two_nodes.instance("lb2").instance_id: two_nodes.addresses[0].public_ip,
    }


def test_3_the_private_address_is_obeyed_and_checked(ec2: Any, two_nodes: Region) -> None:
    secondary = two_nodes.instance("lb1").secondary_ips[0]
    elsewhere = two_nodes.instance("lb2").private_ip
    assert refused(lambda: give(ec2, two_nodes, "lb1", PrivateIpAddress=elsewhere)) == "InvalidParameterValue"
    give(ec2, two_nodes, "lb1", PrivateIpAddress=secondary)
    assert shown(ec2)["PrivateIpAddress"] == secondary
    by_private = {
        item["PrivateIpAddress"]: item.get("Association", {}).get("PublicIp")
        for item in interface(ec2, two_nodes, "lb1")["PrivateIpAddresses"]
    }
    assert by_private == {
        two_nodes.instance("lb1").private_ip: None,
        secondary: two_nodes.addresses[0].public_ip,
    }


def test_4_the_instance_of_the_interface_is_the_holder(ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb1")
    assert shown(ec2)["InstanceId"] == two_nodes.instance("lb1").instance_id


def test_5_a_free_address_shows_no_holder_at_all(ec2: Any, two_nodes: Region) -> None:
    fields = {"InstanceId", "NetworkInterfaceId", "NetworkInterfaceOwnerId", "PrivateIpAddress", "AssociationId"}
    assert not fields & set(shown(ec2))
    ec2.disassociate_address(AssociationId=give(ec2, two_nodes, "lb1"))
    assert not fields & set(shown(ec2))


def test_6_a_terminated_instance_frees_the_address(ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb1")
    ec2.terminate_instances(InstanceIds=[two_nodes.instance("lb1").instance_id])
    assert "AssociationId" not in shown(ec2)
    ec2.terminate_instances(InstanceIds=[two_nodes.instance("lb1").instance_id])  # again is no error
    give(ec2, two_nodes, "lb2", AllowReassociation=False)


def test_6_an_interface_that_survives_its_instance_keeps_the_address(ec2: Any, two_nodes: Region) -> None:
    subnet = two_nodes.subnets[0].subnet_id
    made = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=f"{NET}.1.99")["NetworkInterface"]
    nics = [{"DeviceIndex": 0, "NetworkInterfaceId": made["NetworkInterfaceId"]}]
    run = ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, NetworkInterfaces=nics)
    instance_id = run["Instances"][0]["InstanceId"]
    give(ec2, two_nodes, "lb1", NetworkInterfaceId=made["NetworkInterfaceId"])
    assert shown(ec2)["InstanceId"] == instance_id
    ec2.terminate_instances(InstanceIds=[instance_id])
    assert shown(ec2)["NetworkInterfaceId"] == made["NetworkInterfaceId"]
    assert "InstanceId" not in shown(ec2)


def test_7_the_same_target_again_changes_nothing(ec2: Any, two_nodes: Region) -> None:
    first = give(ec2, two_nodes, "lb1")
    assert give(ec2, two_nodes, "lb1") == first
    assert give(ec2, two_nodes, "lb1", AllowReassociation=False) == first
    assert shown(ec2)["AssociationId"] == first


def test_8_an_instance_with_several_interfaces_needs_one_named(ec2: Any, two_nodes: Region) -> None:
    lb1 = two_nodes.instance("lb1")
    more = ec2.create_network_interface(SubnetId=lb1.subnet_id, PrivateIpAddress=f"{NET}.1.77")["NetworkInterface"]
    allocation = two_nodes.addresses[0].allocation_id
    ec2.associate_address(AllocationId=allocation, InstanceId=lb1.instance_id)
    assert shown(ec2)["NetworkInterfaceId"] == lb1.network_interface_id
    ec2.attach_network_interface(
        NetworkInterfaceId=more["NetworkInterfaceId"], InstanceId=lb1.instance_id, DeviceIndex=1
    )
    with pytest.raises(ClientError, match="There are multiple interfaces attached to instance") as caught:
        ec2.associate_address(AllocationId=allocation, InstanceId=lb1.instance_id)
    assert caught.value.response["Error"]["Code"] == "InvalidInstanceID"


def test_9_a_second_address_displaces_the_first(ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb1")
    first = two_nodes.addresses[0].public_ip
    other = ec2.allocate_address(Domain="vpc", Address=f"{NET}.200.11")["AllocationId"]
    assert (
        refused(lambda: give(ec2, two_nodes, "lb1", AllocationId=other, AllowReassociation=False))
        == "Resource.AlreadyAssociated"
    )
    give(ec2, two_nodes, "lb1", AllocationId=other)
    assert "AssociationId" not in shown(ec2, PublicIps=[first])
    assert interface(ec2, two_nodes, "lb1")["Association"]["PublicIp"] == f"{NET}.200.11"
    give(ec2, two_nodes, "lb1", PrivateIpAddress=two_nodes.instance("lb1").secondary_ips[0])
    held = {one["PublicIp"]: one["PrivateIpAddress"] for one in ec2.describe_addresses()["Addresses"]}
    assert held == {f"{NET}.200.11": f"{NET}.1.11", first: f"{NET}.1.12"}


# ---- filters and the codes of refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("instance-id", "{instance}", "i-0"),
        ("private-ip-address", "{net}.1.12", "{net}.1.11"),
        ("network-interface-owner-id", "123456789012", "000000000000"),
        ("network-border-group", "eu-west-1", "eu-west-2"),
        ("network-interface-id", "{interface}", "eni-0"),
        ("public-ip", "{net}.200.1?", "{net}.200.1"),
        ("tag:Name", "we*", "*x"),
        ("tag-key", "Name", "Other"),
    ],
)
def test_filters(ec2: Any, two_nodes: Region, name: str, right: str, wrong: str) -> None:
    lb1 = two_nodes.instance("lb1")
    give(ec2, two_nodes, "lb1", PrivateIpAddress=lb1.secondary_ips[0])
    ec2.allocate_address(Domain="vpc", Address=f"{NET}.199.250")
    value = right.format(instance=lb1.instance_id, interface=lb1.network_interface_id, net=NET)
    wrong = wrong.format(net=NET)

    def found(*values: str) -> set[str]:
        wanted = [{"Name": name, "Values": list(values)}]
        return {one["PublicIp"] for one in ec2.describe_addresses(Filters=wanted)["Addresses"]}

    assert f"{NET}.200.10" in found(value)
    assert f"{NET}.200.10" in found(wrong, value), "the values of one filter are alternatives"
    assert found(wrong) == set()
    assert found(value) == {f"{NET}.200.10"} or name == "network-border-group"


def test_filters_narrow_each_other_and_unknown_ones_are_refused(ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb1")
    both = [
        {"Name": "instance-id", "Values": [two_nodes.instance("lb1").instance_id]},
        {"Name": "public-ip", "Values": [f"{NET}.200.99"]},
    ]
    assert ec2.describe_addresses(Filters=both)["Addresses"] == []
    wrong = [{"Name": "instance", "Values": ["x"]}]
    assert refused(ec2.describe_addresses, Filters=wrong) == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("addresses.private-ip-address", "{net}.1.12", "lb1"),
        ("private-ip-address", "{net}.2.11", "lb2"),
        ("association.public-ip", "{net}.200.10", "lb1"),
        ("addresses.association.public-ip", "{net}.200.10", "lb1"),
        ("association.public-ip", "{net}.200.99", None),
        ("addresses.private-ip-address", "{net}.1.99", None),
    ],
)
def test_interfaces_are_found_by_any_address(
    ec2: Any, two_nodes: Region, name: str, value: str, found: str | None
) -> None:
    give(ec2, two_nodes, "lb1", PrivateIpAddress=two_nodes.instance("lb1").secondary_ips[0])
    wanted = [{"Name": name, "Values": [value.format(net=NET)]}]
    ids = [one["NetworkInterfaceId"] for one in ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]]
    assert ids == ([two_nodes.interface_of(found)] if found else [])


def test_codes_of_refusals(ec2: Any, two_nodes: Region) -> None:
    held = give(ec2, two_nodes, "lb1")
    address = two_nodes.addresses[0]
    eni = two_nodes.interface_of("lb2")
    assert refused(ec2.disassociate_address, AssociationId="eipassoc-0") == "InvalidAssociationID.NotFound"
    assert refused(ec2.release_address, AllocationId=address.allocation_id) == "InvalidIPAddress.InUse"
    assert shown(ec2)["AssociationId"] == held
    absent = {"AllocationId": "eipalloc-0", "NetworkInterfaceId": eni}
    assert refused(ec2.associate_address, **absent) == "InvalidAllocationID.NotFound"
    assert refused(ec2.describe_addresses, AllocationIds=["eipalloc-0"]) == "InvalidAllocationID.NotFound"
    assert refused(ec2.describe_addresses, PublicIps=["127.0.0.9"]) == "InvalidAddress.NotFound"
    nowhere = {"AllocationId": address.allocation_id, "NetworkInterfaceId": "eni-0"}
    assert refused(ec2.associate_address, **nowhere) == "InvalidNetworkInterfaceID.NotFound"
    assert refused(ec2.associate_address, AllocationId=address.allocation_id) == "MissingParameter"
    assert refused(ec2.associate_address, NetworkInterfaceId=eni) == "MissingParameter"
    assert refused(ec2.allocate_address, Address=address.public_ip) == "InvalidAddress.NotFound"
    ec2.disassociate_address(AssociationId=held)
    assert refused(ec2.disassociate_address, AssociationId=held) == "InvalidAssociationID.NotFound"
    ec2.terminate_instances(InstanceIds=[two_nodes.instance("lb2").instance_id])
    dead = {"AllocationId": address.allocation_id, "InstanceId": two_nodes.instance("lb2").instance_id}
    assert refused(ec2.associate_address, **dead) == "InvalidInstanceID"


def test_dropping_a_secondary_private_address_frees_its_elastic_ip(ec2: Any, two_nodes: Region) -> None:
    secondary = two_nodes.instance("lb1").secondary_ips[0]
    give(ec2, two_nodes, "lb1", PrivateIpAddress=secondary)
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=two_nodes.interface_of("lb1"), PrivateIpAddresses=[secondary])
    assert "AssociationId" not in shown(ec2)


# ---- the feed -------------------------------------------------------------------------------------------------------


def feed(cloud: str, after: int, timeout_ms: int = 0) -> dict[str, Any]:
    url = f"{cloud}/_lab/associations?after={after}&timeout_ms={timeout_ms}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return dict(json.load(answer))


def test_the_feed_tells_each_change_once_and_in_order(cloud: str, ec2: Any, two_nodes: Region) -> None:
    start = feed(cloud, 0)["version"]
    begun = time.monotonic()
    first = give(ec2, two_nodes, "lb1")
    second = give(ec2, two_nodes, "lb2")
    give(ec2, two_nodes, "lb2")
    ec2.disassociate_address(AssociationId=second)
    state = feed(cloud, start)
    assert [(one["change"], one["association_id"]) for one in state["history"]] == [
        ("associated", first),
        ("associated", second),
        ("disassociated", None),
    ], "a reassociation is one change: the address is never free in between"
    times = [one["at_monotonic_s"] for one in state["history"]]
    assert begun <= times[0] < times[1] < times[2] <= time.monotonic()
    assert state["history"][1]["was"]["instance_id"] == two_nodes.instance("lb1").instance_id
    assert state["addresses"][0]["since_monotonic_s"] == times[2]
    assert state["version"] == state["history"][-1]["version"]


def test_the_feed_waits_for_a_change(cloud: str, ec2: Any, two_nodes: Region) -> None:
    start = feed(cloud, 0)["version"]
    assert feed(cloud, start, timeout_ms=50)["history"] == []
    told: list[dict[str, Any]] = []
    waiter = threading.Thread(target=lambda: told.append(feed(cloud, start, timeout_ms=60_000)))
    waiter.start()
    time.sleep(0.2)
    assert told == []
    held = give(ec2, two_nodes, "lb1")
    waiter.join(20)
    assert not waiter.is_alive(), "a change has to end the wait long before its time-out"
    assert told[0]["addresses"][0]["association_id"] == held


def test_racing_takers_leave_one_owner(cloud: str, two_nodes: Region) -> None:
    """Compare-and-swap with AllowReassociation=False: of many takers of a free address exactly one wins."""
    outcomes: list[str] = []

    def take(name: str) -> None:
        client = ec2_client(cloud, two_nodes.region)
        try:
            give(client, two_nodes, name, AllowReassociation=False)
            outcomes.append(name)
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])

    takers = [threading.Thread(target=take, args=(name,)) for name in ("lb1", "lb2")]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
    assert sorted(outcomes)[0] == "Resource.AlreadyAssociated"
    assert sorted(outcomes)[1] in ("lb1", "lb2")


@pytest.mark.real("aws")
def test_the_aws_cli_and_the_feed_agree(cloud: str, ec2: Any, two_nodes: Region) -> None:
    give(ec2, two_nodes, "lb2")
    keep = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env = keep | {"AWS_ACCESS_KEY_ID": "AKIACLI", "AWS_SECRET_ACCESS_KEY": "x", "AWS_PAGER": ""}
    aws = Path(sys.executable).parent / "aws"
    argv = [str(aws), "--endpoint-url", cloud, "--region", two_nodes.region, "--output", "json"]
    done = subprocess.run([*argv, "ec2", "describe-addresses"], env=env, capture_output=True, timeout=60, check=True)
    told = json.loads(done.stdout)["Addresses"]
    state = feed(cloud, 0)["addresses"]
    assert [(one["PublicIp"], one["InstanceId"], one["NetworkInterfaceId"], one["AssociationId"]) for one in told] == [
        (one["public_ip"], one["instance_id"], one["network_interface_id"], one["association_id"]) for one in state
    ]
    assert told[0]["InstanceId"] == two_nodes.instance("lb2").instance_id
