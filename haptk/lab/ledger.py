"""Who holds which Elastic IP, as the cloud's own process knows it: a version, the present rows, and every change.

The rule: all changes happen inside `changing()`, one at a time. When the outermost block ends, the rows are read
again and compared with those before; each address whose association differs becomes one history entry with the
CLOCK_MONOTONIC second of the change. So a reader can neither see half a reassociation (the address is never free in
between) nor miss one, and the drill's judge compares these times with those of the other processes of the machine.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from haptk.io import clock

HISTORY_MAX = 10_000
Row = dict[str, Any]
HELD = ("association_id", "network_interface_id", "instance_id", "private_ip")


class Ledger:
    """Rows come from `read`, which is called under the lock; each row has `region`, `public_ip` and the HELD fields."""

    def __init__(self, read: Callable[[], list[Row]]) -> None:
        self._read = read
        self._changed = threading.Condition(threading.RLock())
        self._depth = 0
        self._rows: dict[tuple[str, str], Row] = {}
        self._history: deque[Row] = deque(maxlen=HISTORY_MAX)
        self.version = 1

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Serialise one change of the cloud's state and publish what became of the addresses, even after an error."""
        with self._changed:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._publish()

    def _publish(self) -> None:
        now = clock.monotonic()
        rows = {(row["region"], row["public_ip"]): row for row in self._read()}
        changes: list[Row] = []
        for key, row in rows.items():
            before = self._rows.get(key)
            same = before is not None and all(before[field] == row[field] for field in HELD)
            row["since_monotonic_s"] = before["since_monotonic_s"] if before is not None and same else now
            if before is None or not same:
                changes.append(self._change("moved" if before else "allocated", row, before, now))
        for key, before in self._rows.items():
            if key not in rows:
                changes.append(self._change("released", before | dict.fromkeys(HELD), before, now))
        self._rows = rows
        if changes:
            self.version += 1
            self._history.extend(change | {"version": self.version} for change in changes)
            self._changed.notify_all()

    @staticmethod
    def _change(what: str, row: Row, before: Row | None, now: float) -> Row:
        if what == "moved":
            what = "associated" if row["association_id"] else "disassociated"
        was = None if before is None else {field: before[field] for field in HELD}
        fields = {name: value for name, value in row.items() if name != "since_monotonic_s"}
        return {"change": what, "at_monotonic_s": now, "was": was, **fields}

    def wait(self, after: int, timeout_s: float) -> Row:
        """The state as soon as its version is not `after` any more, or after `timeout_s`.

        `history` holds the changes newer than `after`, or all that are kept when `after` is from an earlier life of
        the cloud.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.version != after, timeout_s)
            known = after if after <= self.version else 0
            return {
                "version": self.version,
                "addresses": list(self._rows.values()),
                "history": [change for change in self._history if change["version"] > known],
            }
