"""Leases in one DynamoDB table: conditional writes, nothing else. What they mean is decided in `core.lease`.

Item: `name` (key), `owner`, `rvn`, `epoch`, `ttl_s`. Reads are strongly consistent. An item is never deleted.
Permissions: dynamodb:GetItem and UpdateItem on the table; CreateTable and DescribeTable for `haptk lease init`. Neither
PutItem nor DeleteItem is needed, so that no member can begin an epoch again.
"""

from __future__ import annotations

from typing import Any

from haptk.aws.client import Clients
from haptk.aws.deadline import Deadline
from haptk.core.lease import Record
from haptk.errors import AwsConflict, AwsError, AwsNotFound
from haptk.io import clock

TABLE = "haptk-leases"


class LeaseStore:
    """The leases of one table. Thread-safe. Every method raises AwsError; AwsConflict means that somebody was faster."""

    def __init__(self, clients: Clients, table: str = TABLE) -> None:
        self._clients = clients
        self.table = table

    def _call(self, operation: str, name: str, deadline: Deadline, **parameters: Any) -> dict[str, Any]:
        target = f"{name} in {self.table}"
        return self._clients.call("dynamodb", operation, target, deadline.left(), TableName=self.table, **parameters)

    def read(self, name: str, deadline: Deadline) -> Record | None:
        """The record of a name; None when there never was one."""
        answer = self._call("GetItem", name, deadline, Key={"name": {"S": name}}, ConsistentRead=True)
        item = answer.get("Item")
        return None if not item else _record(item)

    def take(self, name: str, me: str, seen: Record | None, ttl_s: float, deadline: Deadline) -> Record:
        """Become the owner, if the record still is what was seen. The epoch grows by one."""
        mine = Record(me, (seen.rvn if seen else 0) + 1, (seen.epoch if seen else 0) + 1, ttl_s)
        condition = "attribute_not_exists(#name)" if seen is None else "rvn = :seen AND epoch = :epoch"
        values = {} if seen is None else {":seen": _number(seen.rvn), ":epoch": _number(seen.epoch)}
        self._write(name, mine, condition, values, deadline)
        return mine

    def renew(self, name: str, mine: Record, deadline: Deadline) -> Record:
        """Change the rvn, if the record is still ours."""
        return self._change(name, mine, mine._replace(rvn=mine.rvn + 1), deadline)

    def let_go(self, name: str, mine: Record, deadline: Deadline) -> Record:
        """Leave an empty owner, if the record is still ours; the epoch stays."""
        return self._change(name, mine, mine._replace(owner="", rvn=mine.rvn + 1), deadline)

    def _change(self, name: str, mine: Record, after: Record, deadline: Deadline) -> Record:
        # Not conditional on the rvn: a renewal whose answer was lost has changed it, and it is ours all the same.
        condition = "#owner = :me AND epoch = :epoch"
        self._write(name, after, condition, {":me": {"S": mine.owner}, ":epoch": _number(mine.epoch)}, deadline)
        return after

    def _write(self, name: str, record: Record, condition: str, values: dict[str, Any], deadline: Deadline) -> None:
        names = {"#owner": "owner"} | ({"#name": "name"} if "#name" in condition else {})
        new = {
            ":owner": {"S": record.owner},
            ":rvn": _number(record.rvn),
            ":new_epoch": _number(record.epoch),
            ":ttl": {"N": repr(record.ttl_s)},
        }
        self._call(
            "UpdateItem",
            name,
            deadline,
            Key={"name": {"S": name}},
            UpdateExpression="SET #owner = :owner, rvn = :rvn, epoch = :new_epoch, ttl_s = :ttl",
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={**new, **values},
        )

    def init(self, deadline: Deadline) -> bool:
        """Make the table and wait until it can be used; False when it was there."""
        try:
            if self._status(deadline) == "ACTIVE":
                return False
        except AwsNotFound:
            try:
                self._call(
                    "CreateTable",
                    "the table",
                    deadline,
                    AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
                    KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
                    BillingMode="PAY_PER_REQUEST",
                )
            except AwsConflict:
                pass  # somebody else makes it at this moment
        while self._status(deadline) != "ACTIVE":
            if deadline.left() < 0.5:
                raise AwsError(action="dynamodb:CreateTable", target=self.table, why="it is not active yet; run again")
            clock.sleep(0.5)
        return True

    def _status(self, deadline: Deadline) -> str:
        return str(self._call("DescribeTable", "the table", deadline)["Table"]["TableStatus"])


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _record(item: dict[str, Any]) -> Record:
    try:
        return Record(item["owner"]["S"], int(item["rvn"]["N"]), int(item["epoch"]["N"]), float(item["ttl_s"]["N"]))
    except (KeyError, ValueError) as error:
        raise AwsError(action="dynamodb:GetItem", target="a lease", why=f"the item is not a lease: {error}") from error
