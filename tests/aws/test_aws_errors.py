"""botocore's errors in our words: who must act, which action on what, what to do; and the table of patience."""

from __future__ import annotations

import email.utils
from typing import Any

import pytest
from botocore import exceptions as boto

from haptk import errors
from haptk.aws.client import Access, Clients, translate
from haptk.aws.deadline import ROWS, patience
from haptk.io import clock


def answer(code: str, message: str = "said", status: int = 400, ahead_s: float | None = None) -> boto.ClientError:
    headers = {}
    if ahead_s is not None:
        headers["date"] = email.utils.formatdate(clock.wall() - ahead_s, usegmt=True)
    metadata: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    body: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return boto.ClientError(body, "AssociateAddress")


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (answer("RequestLimitExceeded", status=503), errors.AwsThrottled, "throttled"),
        (answer("ThrottlingException"), errors.AwsThrottled, "throttled"),
        (answer("RequestExpired"), errors.AwsClock, "clock"),
        (answer("SignatureDoesNotMatch", "Signature expired: x is now earlier than y"), errors.AwsClock, "clock"),
        (lambda: answer("AuthFailure", ahead_s=4000), errors.AwsClock, " s ahead of AWS"),
        (lambda: answer("AuthFailure", ahead_s=0), errors.AwsNoCredentials, "wrong or expired"),
        (answer("AuthFailure"), errors.AwsNoCredentials, "clock"),
        (lambda: answer("RequestExpired", ahead_s=1), errors.AwsNoCredentials, "past their end"),
        (lambda: answer("RequestExpired", ahead_s=-400), errors.AwsClock, " s behind AWS"),
        (answer("ExpiredToken"), errors.AwsNoCredentials, "expired"),
        (answer("UnauthorizedOperation", "You are not authorized. Encoded authorization failure message: AAAA"),
         errors.AwsDenied, "allow ec2:AssociateAddress"),
        (answer("InvalidAllocationID.NotFound"), errors.AwsNotFound, "does not exist"),
        (answer("InvalidAssociationID.NotFound"), errors.AwsNotFound, "does not exist"),
        (answer("InvalidAddress.NotFound"), errors.AwsNotFound, "does not exist"),
        (answer("Resource.AlreadyAssociated"), errors.AwsConflict, "AlreadyAssociated"),
        (answer("InvalidInstanceID", "There are multiple interfaces attached to instance 'i-1'."),
         errors.AwsError, "--interface"),
        (answer("InternalError", status=500), errors.AwsError, "HTTP 500"),
        (boto.NoCredentialsError(), errors.AwsNoCredentials, "instance role"),
        (boto.ConnectTimeoutError(endpoint_url="http://e"), errors.AwsUnreachable, "not accepted"),
        (boto.ReadTimeoutError(endpoint_url="http://e"), errors.AwsUnreachable, "no answer in time"),
        (boto.EndpointConnectionError(endpoint_url="http://e"), errors.AwsUnreachable, "http://e"),
        (boto.ConnectionClosedError(endpoint_url="http://e"), errors.AwsUnreachable, "closed"),
        (boto.ProfileNotFound(profile="x"), errors.OperatorError, "profile (x)"),
    ],
)  # fmt: skip
def test_every_error_says_who_must_act(error: Any, expected: type[errors.HaptkError], words: str) -> None:
    if not isinstance(error, Exception):
        error = error()  # one with a Date: made now, not when the tests were collected
    found = translate(error, "ec2:AssociateAddress", "eipalloc-1 to eni-1")
    assert type(found) is expected
    assert words in str(found)
    assert "ec2:AssociateAddress" in str(found) and "eipalloc-1" in str(found)
    assert "\n" not in str(found) and "AAAA" not in str(found)


def test_an_unknown_profile_is_an_operator_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.OperatorError, match="no-such-profile"):
        Clients(Access(profile="no-such-profile", region="eu-west-1")).call("ec2", "DescribeAddresses", "x", 1.0)


def test_no_region_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(errors.OperatorError, match="AWS_REGION"):
        Clients().call("ec2", "DescribeAddresses", "x", 1.0)


@pytest.mark.parametrize("left_s", [0.5, 1.0, 2.0, 2.5, 3.6, 5.0, 9.0, 12.0, 15.0, 20.0, 600.0])
def test_patience_never_outlasts_the_deadline(left_s: float) -> None:
    chosen = patience(left_s)
    assert chosen.worst_s() <= max(left_s, ROWS[-1].worst_s())
    assert chosen.attempts <= 3 and chosen.connect_s <= 1 and chosen.read_s <= 3


def test_the_rows_are_sorted_by_patience() -> None:
    worst = [row.worst_s() for row in ROWS]
    assert worst == sorted(worst, reverse=True)


@pytest.mark.parametrize(
    ("access", "host"),
    [
        (Access(region="eu-west-1"), "https://ec2.eu-west-1.amazonaws.com"),
        (Access(region="eu-west-1", dual_stack=True), "https://ec2.eu-west-1.api.aws"),
        (Access(region="us-east-1", fips=True), "https://ec2-fips.us-east-1.amazonaws.com"),
        (Access(region="cn-north-1"), "https://ec2.cn-north-1.amazonaws.com.cn"),
        (Access(region="eu-west-1", endpoint_url="https://vpce-1.ec2.eu-west-1.vpce.amazonaws.com"),
         "https://vpce-1.ec2.eu-west-1.vpce.amazonaws.com"),
    ],
)  # fmt: skip
def test_endpoints_come_out_of_the_trimmed_data(access: Access, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regional, dual-stack, FIPS, another partition and an interface endpoint; nothing is sent."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    sent: list[str] = []
    clients = Clients(access)
    client = clients.client("ec2", 3.0)

    def stop(request: Any, **_more: Any) -> None:
        sent.append(request.url)
        raise boto.ConnectTimeoutError(endpoint_url=request.url)

    client.meta.events.register("before-send.ec2", stop)
    with pytest.raises(errors.AwsUnreachable):
        clients.call("ec2", "DescribeAddresses", "x", 3.0)
    assert sent[0].rstrip("/") == host
