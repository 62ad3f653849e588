"""Defects of peers that are not awseip: one that is installable runs, of the others the defect is named and ours is asked.

`aws-vpc-route53` (resource-agents) keeps a DNS record instead of an address. HAProxy's Heartbeat script of the AWS
blueprint and the failover scripts of nginx and F5 are not packaged; what they do wrong is shown by the same calls of the
real aws CLI, in words of our own.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

from haptk.eip.contracts.request import ACTIONS
from haptk.eip.install import PLACES, Installer
from tests.eip.test_eip_credentials import HAPTK

ROUTE53 = "/usr/lib/ocf/resource.d/heartbeat/aws-vpc-route53"
# Everything that an agent may ask AWS without changing anything.
QUESTIONS = {
    "DescribeAddresses",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "GetItem",
    "AssumeRole",
}


def run(argv: list[str], env: dict[str, str], *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=seconds)


# aws-vpc-route53: its monitor writes.


class Zone:
    """A hosted zone of the region with one record, and the peer on a node."""

    def __init__(self, lab: Any, scratch: Path) -> None:
        self._lab, self._scratch = lab, scratch
        self._client = boto3.client(
            "route53", region_name="eu-west-1", endpoint_url=lab.cloud, aws_access_key_id="x", aws_secret_access_key="x"
        )
        self._zone = self._client.create_hosted_zone(Name="example.net", CallerReference=str(scratch))["HostedZone"][
            "Id"
        ]
        (scratch / ".aws").mkdir()
        (scratch / ".aws" / "config").write_text("[default]\nregion = eu-west-1\noutput = text\n")

    def point(self, ip: str) -> None:
        record = {"Name": "web.example.net.", "Type": "A", "TTL": 10, "ResourceRecords": [{"Value": ip}]}
        batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
        self._client.change_resource_record_sets(HostedZoneId=self._zone, ChangeBatch=batch)

    def points_to(self) -> str:
        found = self._client.list_resource_record_sets(HostedZoneId=self._zone)["ResourceRecordSets"]
        return str(next(one for one in found if one["Type"] == "A")["ResourceRecords"][0]["Value"])

    def peer(self, node: str, action: str, answer: str) -> int:
        """The agent as it is, where the metadata address, the resolver and its waiting of 20 s are this test's."""
        shim = self._scratch / f"shim-{node}"
        shim.mkdir(exist_ok=True)
        imds = self._lab.imds[node].replace("/", "\\/")
        words = {
            "curl": 'args=()\nfor word in "$@"; do args+=("${word/http:\\/\\/169.254.169.254/' + imds + '}"); done\n'
            f'exec {shutil.which("curl")} "${{args[@]}}"',
            "dig": f"echo {answer}",
            "sleep": "exit 0",
        }
        for name, body in words.items():
            (shim / name).write_text(f"#!/bin/bash\n{body}\n")
            (shim / name).chmod(0o755)
        env = self._lab.env(node, OCF_ROOT="/usr/lib/ocf", OCF_RESOURCE_INSTANCE="dns", HA_LOGFACILITY="none")
        env["OCF_RESKEY_awscli"] = str(shutil.which("aws", path=env["PATH"]))
        env |= {
            "PATH": f"{shim}:{env['PATH']}",
            "HOME": str(self._scratch),
            "OCF_RESKEY_hostedzoneid": self._zone.rpartition("/")[2],
            "OCF_RESKEY_fullname": "web.example.net.",
            "OCF_RESKEY_CRM_meta_interval": "10000",
        }
        return run([ROUTE53, action], env).returncode


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    Installer(tmp_path / "root").install(["ocf", "heartbeat", "keepalived"])
    return tmp_path / "root"


def _monitors(lab: Any, node: str, root: Path) -> list[tuple[list[str], dict[str, str]]]:
    """The recurring question of every contract, as its program asks it."""
    env = lab.env(node, OCF_ROOT="/usr/lib/ocf", OCF_RESKEY_address=lab.ip(), HA_LOGFACILITY="none")
    env["OCF_RESKEY_CRM_meta_interval"] = "10000"
    assert {"monitor", "status", "check"} <= {action for actions in ACTIONS.values() for action in actions}
    return [
        ([str(root / PLACES["ocf"][0]), "monitor"], env),
        ([str(root / PLACES["heartbeat"][0]), lab.ip(), "status"], env),
        ([str(root / PLACES["keepalived"][0]), "check", lab.ip()], env),
        ([HAPTK, "eip", "status", lab.ip(), "--contract", "nagios"], env),
        ([HAPTK, "check", "eip", lab.ip()], env),
    ]


@pytest.mark.real("aws-vpc-route53", "aws", "curl")
def test_a_monitor_that_writes(lab: Any, installed: Path, tmp_path: Path) -> None:
    """Peer: the monitor of a node that lost the service turns the record back to itself, and says 0.

    So two nodes that both run it pull at the record for ever. Ours asks, in every contract and in every state.
    """
    zone = Zone(lab, tmp_path)
    loser, winner = (lab.region.instance(name).private_ip for name in ("lb1", "lb2"))
    zone.point(winner)
    mark = lab.mark()
    assert zone.peer("lb1", "monitor", answer=winner) == 0
    assert zone.points_to() == loser, "the peer's monitor did not write"
    assert "ChangeResourceRecordSets" in _route53_calls(lab, mark)

    for state in ("held by another", "held here", "free", "API silent"):
        if state == "free":
            lab.free()
            lab.settle()
        elif state != "API silent":
            lab.give("lb2" if state == "held by another" else "lb1")
        else:
            lab.fault("reset")
        before, mark = lab.version(), lab.mark()
        for argv, env in _monitors(lab, "lb1", installed):
            run(argv, env)
        assert {one["action"] for one in lab.calls(mark)} <= QUESTIONS, state
        assert lab.version() == before, state


def _route53_calls(lab: Any, mark: int) -> str:
    """Route 53 speaks REST: the record of calls shows its verb; the operation is one of a zone's record set."""
    verbs = [one["action"] for one in lab.calls(mark) if one["service"] == "route53"]
    return "ChangeResourceRecordSets" if "POST" in verbs else str(verbs)


# The blueprint's Heartbeat script: "stopped" and 0 whatever happened.


@pytest.mark.real("aws")
def test_a_stop_that_failed_is_not_called_stopped(lab: Any, installed: Path) -> None:
    """Peer: `disassociate-address` with an option that does not exist, then "stopped" and exit 0; start is 0 with the
    API down. Heartbeat believes both: the address stays on a node that gave it up."""
    lab.give("lb1")
    env = lab.env("lb1", HA_LOGFACILITY="none")
    broken = ["aws", "ec2", "disassociate-address", "--allocation-id", lab.allocation(), "--instance", "i-0"]
    peer = ["sh", "-c", '"$@" >/dev/null 2>&1; echo stopped', "stop", *broken]
    done = run(peer, env)
    assert (done.returncode, done.stdout) == (0, "stopped\n") and lab.holder() == "lb1", "what the peer does"

    ours = [str(installed / PLACES["heartbeat"][0]), lab.ip()]
    for mode, action in (("reset", None), ("deny", "DisassociateAddress"), ("error", "DisassociateAddress")):
        lab.fault(mode, **({"action": action} if action else {}))
        done = run([*ours, "stop"], env)
        assert done.returncode != 0 and "stopped" not in done.stdout and done.stderr, mode
        done = run([*ours, "status"], env)
        assert done.stdout == "running\n", mode
        _clear(lab)
    assert lab.holder() == "lb1"
    assert run([*ours, "stop"], env).returncode == 0 and lab.holder() is None


def test_a_start_with_the_api_down_is_no_success(lab: Any, installed: Path) -> None:
    """Peer: start is 0 with the API down. Ours says why not, and no word that Heartbeat takes for owned follows."""
    env = lab.env("lb1", HA_LOGFACILITY="none")
    ours = [str(installed / PLACES["heartbeat"][0]), lab.ip()]
    for mode in ("reset", "deny", "expire", "error"):
        lab.fault(mode)
        done = run([*ours, "start"], env)
        assert done.returncode != 0 and done.stderr and not done.stdout, mode
        done = run([*ours, "status"], env)
        assert "running" not in done.stdout and "OK" not in done.stdout, mode
        _clear(lab)
    assert lab.holder() is None


def _clear(lab: Any) -> None:
    from haptk.io.control import call

    call(lab.control, {"op": "faults", "clear": True})


# nginx's and F5's: let go, then take, for whoever is named.


def test_no_contract_ever_leaves_the_address_to_nobody(lab: Any, installed: Path) -> None:
    """Peers: disassociate, then associate. Between the two nobody owns the address, and when the second call fails it
    stays so. Ours is one call; when it fails, the holder still has it."""
    env = {name: lab.env(name, OCF_ROOT="/usr/lib/ocf", OCF_RESKEY_address=lab.ip()) for name in ("lb1", "lb2")}
    ocf, heartbeat, keepalived = (str(installed / PLACES[name][0]) for name in ("ocf", "heartbeat", "keepalived"))
    takes = (
        [ocf, "start"],
        [heartbeat, lab.ip(), "start"],
        [keepalived, "notify", lab.ip(), "INSTANCE", "VI_1", "MASTER", "100"],
        [HAPTK, "eip", "start", lab.ip()],
        [HAPTK, "eip", "move", lab.ip(), "--to", "lb1", "--yes"],
    )
    for take in takes:
        lab.give("lb2")
        before = lab.version()
        lab.fault("error", action="AssociateAddress")
        assert run(take, env["lb1"]).returncode != 0, take
        assert lab.version() == before and lab.holder() == "lb2", take
        _clear(lab)
        assert run(take, env["lb1"]).returncode == 0, take
        lab.settle()
        assert _holders(lab, before) == [lab.eni("lb1")], take


def _holders(lab: Any, version: int) -> list[str | None]:
    from haptk.io.control import call

    history = call(lab.control, {"op": "associations", "after": version})["history"]
    return [one["network_interface_id"] for one in history if one["public_ip"] == lab.ip()]


def test_an_address_is_not_pushed_to_a_node_that_cannot_serve(lab: Any) -> None:
    """Peers: give the address to a peer that nobody checked. `start` only takes it to the node that it runs on; `move`
    refuses a stopped instance and an interface that is attached to none."""
    lab.give("lb1")
    third = lab.region.instance("lb3")
    spare = lab.ec2.create_network_interface(SubnetId=third.subnet_id)["NetworkInterface"]["NetworkInterfaceId"]
    lab.ec2.stop_instances(InstanceIds=[third.instance_id])
    try:
        for node, word in (("lb3", "stopped"), (third.network_interface_id, "stopped"), (spare, "no instance")):
            done = run([HAPTK, "eip", "move", lab.ip(), "--to", node, "--yes"], lab.env("lb1"))
            assert done.returncode == 64 and word in done.stderr, node
        assert lab.holder() == "lb1"
    finally:
        lab.ec2.start_instances(InstanceIds=[third.instance_id])
        lab.ec2.delete_network_interface(NetworkInterfaceId=spare)
