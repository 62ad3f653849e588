"""Where a node's credentials come from, and what is said when they are missing, refused, expired or signed by a wrong clock.

Real commands over HTTP: metadata and STS are asked by botocore itself, and the region's record of calls says whose key
signed what.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from haptk.aws.client import Clients
from haptk.eip.agent import Agent
from haptk.eip.install import PLACES, Installer
from haptk.errors import AwsClock, AwsDenied, AwsNoCredentials

HAPTK = str(Path(sys.executable).with_name("haptk"))
ROLE_KEY = "ASIALABROLE000000001"
ROLE = "arn:aws:iam::123456789012:role/keeper-of-the-address"
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


def haptk(env: dict[str, str], *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, HAPTK, *arguments], env=env, capture_output=True, text=True, timeout=120)


def signed(lab: Any, since: int) -> list[tuple[str, str]]:
    """(action, whose key signed it) of each call since a mark."""
    return [(one["action"], one["access_key_id"]) for one in lab.calls(since)]


@pytest.fixture
def config(lab: Any) -> Any:
    """Writes ~/.aws/config of the node."""

    def write(text: str) -> None:
        place = lab.scratch / ".aws"
        place.mkdir(exist_ok=True)
        (place / "config").write_text(text)

    return write


def ocf(lab: Any, action: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    root = lab.scratch / "root"
    Installer(root).install(["ocf"])
    more = {"OCF_ROOT": "/usr/lib/ocf", "OCF_RESKEY_address": lab.ip(), "HA_LOGFACILITY": "none"}
    return subprocess.run(
        [str(root / PLACES["ocf"][0]), action], env={**env, **more}, capture_output=True, text=True, timeout=120
    )


# Where they come from.


def test_the_instance_role_and_the_region_of_metadata_are_enough(lab: Any) -> None:
    lab.role("lb1", ROLE_KEY)
    mark = lab.mark()
    done = haptk(without(lab.env("lb1"), *SECRETS, *REGIONS), "eip", "start", lab.ip())
    assert done.returncode == 0, done.stderr
    assert lab.holder() == "lb1"
    assert set(signed(lab, mark)) == {("DescribeAddresses", ROLE_KEY), ("AssociateAddress", ROLE_KEY)}


def test_without_any_role_it_says_what_is_missing_and_asks_nothing(lab: Any) -> None:
    lab.role("lb1", has_role=False)
    mark, env = lab.mark(), without(lab.env("lb1"), *SECRETS)
    done = haptk(env, "eip", "start", lab.ip())
    assert done.returncode == AwsNoCredentials.exit_code
    assert "instance role" in done.stderr and "ec2:DescribeAddresses" in done.stderr
    found = ocf(lab, "start", env)
    assert found.returncode == 4 and "ocf-exit-reason:" in found.stderr  # 4: another node may have what it needs
    assert lab.calls(mark) == []


def test_a_daemon_takes_up_the_next_credentials_of_its_role(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of an hour before their end botocore has to fetch new ones; the daemon's clients stay the same."""
    env = without(lab.env("lb1"), *SECRETS)
    monkeypatch.setattr(os, "environ", env)
    lab.role("lb1", ROLE_KEY, life_s=6 * 3600)
    clients = Clients()
    agent = Agent(lab.ip(), clients=clients, env=env)
    agent.warm()
    assert agent.start().ok and agent.stop().ok
    lab.role("lb1", "ASIALABROLE000000002")
    held = clients._get_session().get_credentials()
    monkeypatch.setattr(held, "_time_fetcher", lambda: datetime.now(UTC) + timedelta(hours=5, minutes=50))
    mark = lab.mark()
    assert agent.start().ok
    assert signed(lab, mark) == [("AssociateAddress", "ASIALABROLE000000002")]


def test_role_arn_is_assumed_with_the_nodes_own_credentials(lab: Any) -> None:
    """Also where only metadata knows the region: STS is asked in it too."""
    mark = lab.mark()
    done = haptk(without(lab.env("lb1"), *REGIONS), "eip", "start", lab.ip(), "--role-arn", ROLE)
    assert done.returncode == 0, done.stderr
    calls = signed(lab, mark)
    assert calls[0] == ("AssumeRole", lab.region.instance("lb1").access_key_id)
    keys = {key for _, key in calls[1:]}
    assert [action for action, _ in calls[1:]] == ["DescribeAddresses", "AssociateAddress"]
    assert len(keys) == 1 and keys.pop().startswith("ASIA") and lab.holder() == "lb1"


def test_role_arn_upon_the_instance_role(lab: Any) -> None:
    lab.role("lb1", ROLE_KEY)
    mark = lab.mark()
    found = ocf(lab, "start", {**without(lab.env("lb1"), *SECRETS), "OCF_RESKEY_role_arn": ROLE})
    assert found.returncode == 0, found.stderr
    assert signed(lab, mark)[0] == ("AssumeRole", ROLE_KEY)


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        (f"[profile keeper]\nregion = eu-west-1\nrole_arn = {ROLE}\nsource_profile = base\n"
         "[profile base]\naws_access_key_id = AKIALABBASE000000001\naws_secret_access_key = lab\n",
         "AKIALABBASE000000001"),
        (f"[profile keeper]\nregion = eu-west-1\nrole_arn = {ROLE}\ncredential_source = Ec2InstanceMetadata\n", ROLE_KEY),
        (f"[profile keeper]\nregion = eu-west-1\nrole_arn = {ROLE}\ncredential_source = Environment\n", "environment"),
    ],
    ids=["source_profile", "instance", "environment"],
)  # fmt: skip
def test_a_profile_that_assumes_a_role(lab: Any, config: Any, text: str, whose: str) -> None:
    config(text)
    lab.role("lb1", ROLE_KEY)
    env = lab.env("lb1")
    if whose == "environment":
        whose = env["AWS_ACCESS_KEY_ID"]
    else:
        env = without(env, *SECRETS)
    mark = lab.mark()
    done = haptk(without(env, *REGIONS), "eip", "start", lab.ip(), "--profile", "keeper")
    assert done.returncode == 0, done.stderr
    calls = signed(lab, mark)
    assert calls[0] == ("AssumeRole", whose)
    assert calls[-1][0] == "AssociateAddress" and calls[-1][1].startswith("ASIA")


def test_a_profile_of_a_credentials_file_and_one_of_a_program(lab: Any, config: Any) -> None:
    program = lab.scratch / "give"
    program.write_text(
        '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "AKIALABPROGRAM000001", "SecretAccessKey": "lab"}\'\n'
    )
    program.chmod(0o755)
    config(f"[profile program]\ncredential_process = {program}\n")
    (lab.scratch / ".aws" / "credentials").write_text(
        "[file]\naws_access_key_id = AKIALABFILE000000001\naws_secret_access_key = lab\n"
    )
    for profile, key in (("file", "AKIALABFILE000000001"), ("program", "AKIALABPROGRAM000001")):
        mark = lab.mark()
        done = haptk({**without(lab.env("lb1"), *SECRETS), "AWS_PROFILE": profile}, "eip", "status", lab.ip())
        assert done.returncode == 3, done.stderr
        assert signed(lab, mark) == [("DescribeAddresses", key)]


def test_a_web_identity(lab: Any) -> None:
    (lab.scratch / "token").write_text("header.payload.signature")
    more = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(lab.scratch / "token")}
    mark = lab.mark()
    done = haptk({**without(lab.env("lb1"), *SECRETS), **more}, "eip", "status", lab.ip())
    assert done.returncode == 3, done.stderr
    assert [action for action, _ in signed(lab, mark)] == ["AssumeRoleWithWebIdentity", "DescribeAddresses"]


# What is said when they do not do.


def test_expired_credentials_are_not_called_a_wrong_clock(lab: Any) -> None:
    """EC2 has one code, RequestExpired, for both; the Date of its answer tells them apart."""
    lab.fault("expire")
    done = haptk(lab.env("lb1"), "eip", "start", lab.ip())
    assert done.returncode == AwsNoCredentials.exit_code
    assert "past their end" in done.stderr and "clock is right" in done.stderr
    assert haptk(lab.env("lb1"), "eip", "status", lab.ip(), "--contract", "nagios").returncode == 3
    monitor, start = (ocf(lab, action, lab.env("lb1")) for action in ("monitor", "start"))
    assert (monitor.returncode, start.returncode) == (1, 4)
    assert all("ocf-exit-reason:" in found.stderr and "past their end" in found.stderr for found in (monitor, start))
    assert lab.holder() is None


def test_expired_credentials_at_the_lease_store(lab: Any) -> None:
    lab.fault("expire")
    done = haptk(lab.env("lb1"), "lease", "show", lab.ip())
    assert done.returncode == AwsNoCredentials.exit_code and "dynamodb:GetItem" in done.stderr
    assert "ExpiredToken" in done.stderr and "clock" not in done.stderr


@pytest.mark.real("faketime")
@pytest.mark.parametrize(("shift", "words"), [("+1h", "s ahead of AWS"), ("-1h", "s behind AWS")])
def test_a_wrong_clock_is_named_with_how_far_it_is_off(lab: Any, shift: str, words: str) -> None:
    before = ("faketime", "-f", shift)
    done = haptk(lab.env("lb1"), "eip", "start", lab.ip(), before=before)
    assert done.returncode == AwsClock.exit_code and "clock" in done.stderr
    seconds = int(done.stderr.partition(f" {words}")[0].rpartition(" ")[2])
    assert 3590 <= seconds <= 3700
    assert lab.holder() is None
    # The other protocols say it in other words: STS in front of the role, DynamoDB for the lease.
    done = haptk(lab.env("lb1"), "eip", "status", lab.ip(), "--role-arn", ROLE, before=before)
    assert done.returncode == 4 and "sts:AssumeRole" in done.stdout and words in done.stdout
    done = haptk(lab.env("lb1"), "lease", "show", lab.ip(), before=before)
    assert done.returncode == AwsClock.exit_code and "dynamodb:GetItem" in done.stderr and words in done.stderr


def test_a_role_that_may_not_be_assumed_is_named_with_the_right_action(lab: Any) -> None:
    lab.fault("deny", action="AssumeRole")
    done = haptk(lab.env("lb1"), "eip", "start", lab.ip(), "--role-arn", ROLE)
    assert done.returncode == AwsDenied.exit_code
    assert "allow sts:AssumeRole" in done.stderr and ROLE in done.stderr and "DescribeAddresses" not in done.stderr


def test_the_action_that_is_denied_and_its_target_are_named(lab: Any) -> None:
    lab.fault("deny", action="AssociateAddress")
    done = haptk(lab.env("lb1"), "eip", "start", lab.ip())
    assert done.returncode == AwsDenied.exit_code
    assert "allow ec2:AssociateAddress" in done.stderr and lab.allocation() in done.stderr and "AAAA" not in done.stderr
    found = ocf(lab, "start", lab.env("lb1"))
    assert found.returncode == 4 and "allow ec2:AssociateAddress" in found.stderr
    assert lab.holder() is None


@pytest.mark.parametrize("way", ["--role-arn", "--profile"])
def test_an_sts_that_hangs_is_unknown_in_time_and_named(lab: Any, config: Any, way: str) -> None:
    """botocore's own time-outs would be a minute, five times over."""
    config(f"[profile keeper]\nrole_arn = {ROLE}\ncredential_source = Environment\n")
    lab.fault("hang", action="AssumeRole")
    value = ROLE if way == "--role-arn" else "keeper"
    done = haptk(lab.env("lb1"), "eip", "status", lab.ip(), way, value)
    assert done.returncode == 4
    assert "sent no answer in time" in done.stdout and "name resolution" not in done.stdout
