"""What is left out of botocore: nothing that a call of ours needs, and nothing that anybody else would miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from botocore.session import Session

from haptk.aws.client import Access, Clients
from haptk.aws.trim import OPERATIONS

ENV = {
    "PATH": os.environ["PATH"],
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
}
# Events around a call that name a service, as botocore emits them.
EVENTS = (
    "before-parameter-build.{service}.{operation}",
    "before-endpoint-resolution.{service}",
    "before-call.{service}.{operation}",
    "request-created.{service}.{operation}",
    "choose-signer.{service}.{operation}",
    "before-sign.{service}.{operation}",
    "before-send.{service}.{operation}",
    "needs-retry.{service}.{operation}",
    "before-parse.{service}.{operation}",
    "response-received.{service}.{operation}",
    "after-call.{service}.{operation}",
    "after-call-error.{service}.{operation}",
)


def in_a_process(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "first",
    [
        "Clients().client('ec2', 3.0)",
        "Clients().credentials_ready()",
        "Clients()._get_session()",
        "with contextlib.suppress(AwsUnreachable): Clients().call('ec2', 'DescribeAddresses', 'x', 1.0)",
    ],
)
def test_a_client_loads_no_writer_of_documents_and_no_http2(first: str) -> None:
    """Whichever comes first in a process: the command asks for a client, a daemon for its credentials."""
    unwanted = ("html.parser", "botocore.docs", "botocore.docs.docstring", "botocore.docs.service", "urllib3.http2")
    found = in_a_process(
        "import contextlib, json, sys\nfrom haptk.aws.client import Clients\nfrom haptk.errors import AwsUnreachable\n"
        f"{first}\nClients().client('ec2', 3.0)\n"
        f"print(json.dumps([name for name in {unwanted!r} if name in sys.modules]))"
    )
    assert found == []


def test_who_wants_them_afterwards_gets_the_real_ones() -> None:
    found = in_a_process(
        "import json, sys\nfrom haptk.aws.client import Clients\n"
        "Clients().client('ec2', 3.0)\n"
        "import boto3, urllib3.http2, botocore.docs\n"
        "from botocore.docs.docstring import ClientMethodDocstring as Real\n"
        "print(json.dumps([isinstance(Real, type), callable(urllib3.http2.inject_into_urllib3),"
        " callable(botocore.docs.generate_docs), boto3.client('sts').meta.region_name]))"
    )
    assert found == [True, True, True, "eu-west-1"]


@pytest.mark.parametrize("service", sorted(OPERATIONS))
def test_no_handler_that_a_call_of_ours_would_run_is_left_out(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each event of each operation: the same handlers in the same order as a stock session of botocore has."""
    for name in ("AWS_PROFILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    ours = Clients(Access(region="eu-west-1"))._get_session().get_component("event_emitter")
    stock = Session().get_component("event_emitter")
    names = _event_names(service)
    compared = 0
    for operation in OPERATIONS[service]:
        for event in (text.format(service=name, operation=operation) for text in EVENTS for name in names):
            wanted = [_name(one) for one in _handlers(stock, event)]
            assert [_name(one) for one in _handlers(ours, event)] == wanted, event
            compared += len(wanted)
    for name in names:
        event = f"creating-client-class.{name}"
        assert [_name(one) for one in _handlers(ours, event)] == [_name(one) for one in _handlers(stock, event)]
    assert compared > 0


def _event_names(service: str) -> tuple[str, ...]:
    client = Session().create_client(service, region_name="eu-west-1")
    return (service, str(client.meta.service_model.service_id.hyphenize()))


def _handlers(emitter: Any, event: str) -> list[Any]:
    hierarchical = emitter._emitter
    return list(hierarchical._handlers.prefix_search(emitter._alias_event_name(event)))


def _name(handler: Any) -> str:
    return f"{getattr(handler, '__module__', '')}.{getattr(handler, '__qualname__', repr(type(handler)))}"
