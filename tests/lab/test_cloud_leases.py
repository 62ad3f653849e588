"""The lab's DynamoDB where moto's own differs from AWS: a reader sees an item before a write or after it."""

from __future__ import annotations

import threading
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.dynamodb import models

from haptk.aws.lease import TABLE
from haptk.lab import moto_more

SET = "SET #owner = :owner, rvn = :one"


@mock_aws(config={"core": {"mock_credentials": True}})
def test_a_read_in_the_middle_of_a_write_sees_no_half_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto makes a new item first and sets its attributes one by one then; here a read starts exactly between."""
    moto_more.apply()
    client = boto3.client("dynamodb", region_name="eu-west-1")
    client.create_table(
        TableName=TABLE,
        AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    key = {"name": {"S": "x"}}
    found: list[dict[str, Any]] = []
    reader = threading.Thread(
        target=lambda: found.append(client.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item", {}))
    )
    execute = models.UpdateExpressionExecutor.execute

    def between(self: Any, *node: Any) -> Any:
        if not node:  # the whole expression; its parts follow
            reader.start()
            reader.join(1.0)  # long enough for a read that does not wait
        return execute(self, *node)

    monkeypatch.setattr(models.UpdateExpressionExecutor, "execute", between)
    client.update_item(
        TableName=TABLE,
        Key=key,
        UpdateExpression=SET,
        ExpressionAttributeNames={"#owner": "owner"},
        ExpressionAttributeValues={":owner": {"S": "a"}, ":one": {"N": "1"}},
    )
    reader.join(20)
    assert found == [{"name": {"S": "x"}, "owner": {"S": "a"}, "rvn": {"N": "1"}}]
