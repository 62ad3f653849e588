"""The entries of one table on one connection, in both directions: what _fast/peerwire.pyx does, readable and slow.

Outwards a stream has two modes. `push` sends what changed here since the last call; `teach` goes once through all there
is. Server names are sent once and then by a number that both sides remember (`Names`, one for each connection).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from haptk.core.peers.wire import (
    CONTENT_VERSION,
    ENTRIES,
    NEXT_TIMED_UPDATE,
    NEXT_UPDATE,
    RATES,
    SERVER_ID,
    SERVER_KEY,
    TIMED_UPDATE,
    UPDATE,
    UPDATES,
    VERSION_MAX,
    Bad,
    Definition,
    common_kinds,
    get_message,
    need_int,
    put_int,
    put_message,
    skip_data,
)

NAMES = 128  # what HAProxy remembers
Row = tuple[bytes, int, int, bytes, int, tuple[int, ...]]


class Table(Protocol):
    """What a stream needs of a table."""

    type: str
    expire_ms: int
    stored: tuple[tuple[int, int, int], ...]  # (kind, elements, period) of the data beside the server

    def audience(self, tag: int, kin: bool, others: int) -> None:
        """The number of this node among its peers, whether one of them is haptk, and how many are not."""

    def entries(self, start: int = 0, count: int = 4096) -> tuple[int, list[Row]]:
        """(next start or 0, rows of key, ms left, server id, server name, version, data)."""

    def changes(self, after: int, count: int, kin: bool = True) -> tuple[int, list[tuple[int, Row]]] | None:
        """(last number, numbered rows) of what changed here after a change's number; None when that is too long ago."""

    @property
    def seq(self) -> int:
        """The number of the last change."""

    def merge(
        self, key: bytes, left_ms: int, server_id: int, name: bytes, acked: int = 0, version: int = 0,
        data: tuple[int, ...] = (), quiet: bool = False, kinds: Iterable[int] | None = None,
    ) -> bool:  # fmt: skip
        """Take an entry of another node, which has confirmed our changes up to `acked`.

        Between haptk nodes the greater `version` wins everywhere. A node without versions (0) is believed unless it
        cannot have known our last change: then we say ours again.
        """


class Names:
    """Server names of one connection: what was sent and what was received under which number (1 to 128)."""

    def __init__(self) -> None:
        self.sent: dict[bytes, int] = {}
        self.turn = 0
        self.received: dict[int, bytes] = {}

    def put(self, name: bytes) -> bytes:
        """The stored data that stands for a name."""
        if not name:
            return put_int(0)
        number = self.sent.get(name)
        if number is not None:
            data = put_int(number)
        else:
            self.turn = self.turn % NAMES + 1
            number = self.turn
            self.sent = {old: slot for old, slot in self.sent.items() if slot != number}
            self.sent[name] = number
            data = put_int(number) + put_int(len(name)) + name
        return put_int(len(data)) + data

    def get(self, data: bytes) -> bytes:
        """The name that stored data stands for; raises Bad."""
        if not data:
            return b""
        number, at = need_int(data, 0)
        if not 1 <= number <= NAMES:
            raise Bad(f"a name under the number {number}")
        if at == len(data):
            if number not in self.received:
                raise Bad("a name that was never sent")
            return self.received[number]
        length, at = need_int(data, at)
        if at + length != len(data):
            raise Bad("a name of another length")
        self.received[number] = data[at:]
        return data[at:]


class Stream:
    """One table on one connection. `at` is the last change that was sent, `last_id` the last one received."""

    def __init__(self, table: Table, names: Names, at: int) -> None:
        self.table = table
        self.names = names
        self.at = at
        self.last_id = 0
        self.acked = at
        self.kin = False  # the other side tells and takes versions
        self.quiet = False  # we asked for what comes now
        self.fresh = False  # something was received since the last acknowledgement
        self._sent_id: int | None = None
        self._place = 0
        self._rows: list[Row] = []

    # -- sending

    def behind(self) -> bool:
        """Whether something changed here that was not sent."""
        return self.at != self.table.seq

    def push(self, timed: bool, limit: int = 65536) -> bytes | None:
        """Messages of what changed here, b"" when nothing did; None when too much did to tell."""
        found = self.table.changes(self.at, max(1, limit // 64), self.kin)
        if found is None:
            return None
        upto, rows = found
        self.at = upto
        return b"".join([self._message(row, number, timed) for number, row in rows])

    def begin_teaching(self) -> None:
        """From now on `teach` goes through all entries."""
        self._place, self._rows = -1, []

    def teach(self, timed: bool, limit: int = 65536) -> bytes:
        """Messages of the next entries; b"" at the end."""
        out: list[bytes] = []
        size = 0
        while size < limit:
            if not self._rows:
                if self._place == 0:
                    break
                self._place, self._rows = self.table.entries(max(self._place, 0))
                continue
            out.append(self._message(self._rows.pop(), self.at, timed))
            size += len(out[-1])
        return b"".join(out)

    def _message(self, row: Row, number: int, timed: bool) -> bytes:
        key, left_ms, server_id, name, version, told = row
        following = self._sent_id is not None and number == (self._sent_id + 1) & 0xFFFFFFFF
        self._sent_id = number
        data = b"" if following else number.to_bytes(4, "big")
        if timed:
            data += left_ms.to_bytes(4, "big")
        if self.table.type == "string":
            data += put_int(len(key)) + key
        elif self.table.type == "integer":
            data += key[::-1]
        else:
            data += key.ljust(self.key_size, b"\0")
        data += self._content(server_id, name, version, told)
        if timed:
            return put_message(UPDATES, NEXT_TIMED_UPDATE if following else TIMED_UPDATE, data)
        return put_message(UPDATES, NEXT_UPDATE if following else UPDATE, data)

    def _content(self, server_id: int, name: bytes, version: int, told: tuple[int, ...]) -> bytes:
        out = put_int(server_id & 0xFFFFFFFFFFFFFFFF)
        numbers = iter(told)
        later = [SERVER_KEY, *(kind for kind, _, _ in self.table.stored), *([CONTENT_VERSION] if self.kin else [])]
        elements = {kind: count for kind, count, _ in self.table.stored}
        for kind in sorted(later):
            if kind == SERVER_KEY:
                out += self.names.put(name)
            elif kind == CONTENT_VERSION:
                out += put_int(version)
            else:
                out += b"".join(put_int(next(numbers)) for _ in range(elements[kind] * (3 if kind in RATES else 1)))
        return out

    @property
    def key_size(self) -> int:
        """Bytes of a key that has no length of its own on the wire."""
        fixed = {"ip": 4, "ipv6": 16, "integer": 4}
        return fixed.get(self.table.type) or int(getattr(self.table, "length", 0))

    # -- receiving

    def take(self, data: bytes, at: int, definition: Definition) -> int:
        """Learn from the update messages that begin at `at`; the place behind the last complete one. Raises Bad."""
        while at + 2 <= len(data) and data[at] == UPDATES and data[at + 1] in ENTRIES:
            found = get_message(data, at)
            if found is None:
                return at
            _, what, body, at = found
            self._learn(what, body, definition)
        return at

    def _learn(self, what: int, body: bytes, definition: Definition) -> None:
        at = 0
        if what in (UPDATE, TIMED_UPDATE):
            self.last_id, at = int.from_bytes(body[:4], "big"), 4
        else:
            self.last_id = (self.last_id + 1) & 0xFFFFFFFF
        left_ms = self.table.expire_ms
        if what in (TIMED_UPDATE, NEXT_TIMED_UPDATE):
            left_ms, at = min(int.from_bytes(body[at : at + 4], "big"), left_ms), at + 4
        if self.table.type == "string":
            length, at = need_int(body, at)
        else:
            length = self.key_size
        key, at = body[at : at + length], at + length
        if at > len(body):
            raise Bad("an entry that ends in its key")
        if self.table.type == "integer":
            key = key[::-1]
        kinds = common_kinds(definition, self.table.stored)
        server_id, name, version, data, at = self._stored(body, at, definition, kinds)
        if at > len(body):
            raise Bad("an entry that ends in its data")
        self.fresh = True
        self.table.merge(key, left_ms, server_id, name, self.acked, version, data, self.quiet, kinds)

    def _stored(
        self, body: bytes, at: int, definition: Definition, kinds: frozenset[int]
    ) -> tuple[int, bytes, int, tuple[int, ...], int]:
        server_id, name, version = 0, b"", 0
        data: list[int] = []
        for kind in definition.stored:
            if kind == SERVER_KEY:
                length, at = need_int(body, at)
                name = self.names.get(body[at : at + length])
                at += length
                continue
            for _ in range(skip_data(definition, kind)):
                value, at = need_int(body, at)
                if kind == SERVER_ID:
                    server_id = value & 0x7FFFFFFF
                elif kind == CONTENT_VERSION:
                    version = value if value <= VERSION_MAX else 0
                elif kind in kinds:
                    data.append(value)
        return server_id, name, version, tuple(data), at
