"""The learned tables of a running configuration: which there are, and how they go over to the next one.

A table belongs to the process, not to a configuration: a reload hands it over whole as long as name, type and length
stay the same, and takes what else the new file says into use when the new configuration does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from haptk.core.peers import wire
from haptk.proxy.tables import Backend, ProxyTables, StickTable

APPSESSION_SIZE = 1_000_000  # HAProxy 1.5 had no bound at all
Row = tuple[bytes, int, int, bytes, int, tuple[int, ...]]


class Store(Protocol):
    """What both kinds of tables can do; keys are bytes (core.sticktable), times milliseconds."""

    name: str
    type: str
    length: int
    stored: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        """The most entries."""

    @property
    def used(self) -> int:
        """Entries that have not expired."""

    @property
    def expire_ms(self) -> int:
        """How long an unused entry stays; 0 for ever."""

    def reshape(self, size: int, expire_s: float | None = None, nopurge: bool = False) -> None:
        """Change what may change; a smaller table keeps what was used last."""

    def entries(self, start: int = 0, count: int = 4096) -> tuple[int, list[Row]]:
        """(next start, rows of key, ms left, server id, server name, version, data); 0 is the end."""

    def get(self, key: bytes) -> Row | None:
        """One row, without using it."""

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """(server id, name) of a key, whose time begins anew."""

    def learn(self, key: bytes, server_id: int, name: bytes = b"") -> bool:
        """Set the server of a key; False when there is no room."""

    def teach(self, key: bytes, left_ms: int, server_id: int, name: bytes = b"") -> bool:
        """The same with the time that is left."""

    def merge(
        self, key: bytes, left_ms: int, server_id: int, name: bytes, acked: int = 0, version: int = 0,
        data: tuple[int, ...] = (), quiet: bool = False, kinds: Iterable[int] | None = None,
    ) -> bool:  # fmt: skip
        """Take a row of another table; see core.peers.updates."""

    def hold(self, key: bytes) -> int:
        """Track a key as a session does: a number for `count`, 0 without room. `release` it."""

    def release(self, tracked: int) -> None:
        """The end of what `hold` began."""

    def count(self, tracked: int, kinds: Iterable[int], n: int = 1, element: int = 0) -> None:
        """Add to the kinds that are stored."""

    def put(self, key: bytes, kind: int, value: int, element: int = 0) -> bool:
        """Set one element; False when nothing such is stored, or without room."""

    def seek(self, key: bytes, kind: int, element: int = 0) -> int | None:
        """The value of a key, or None without such an entry; its time goes on."""

    def values(self, key: bytes) -> tuple[int, list[tuple[int, int, int]]] | None:
        """(holders, [(kind, element, value)]) of a key; None when there is no such entry."""

    def delete(self, key: bytes) -> bool:
        """Forget one key; False when it is not there."""

    def clear(self) -> None:
        """Forget everything."""


Stores = Mapping[str, Store]
Make = Callable[[StickTable], Store]


def appsession_name(backend: Backend) -> str:
    """The name of the table behind a backend's appsession."""
    return f"{backend.name}/appsession"


def wanted(tables: ProxyTables) -> tuple[StickTable, ...]:
    """All tables of a configuration: those that it declares, and one for each appsession."""
    sessions = (
        StickTable(appsession_name(one), "string", one.appsession.length, APPSESSION_SIZE, one.appsession.timeout_s)
        for one in tables.backends
        if one.appsession is not None
    )
    return (*tables.stick_tables, *sessions)


def stores_for(tables: ProxyTables, make: Make, before: Stores | None = None) -> dict[str, Store]:
    """A store for each table: the one of `before` where name, type, length and data agree, else a new one.

    Nothing of `before` changes yet; `settle` does that once the new configuration is in use.
    """
    found: dict[str, Store] = {}
    for table in wanted(tables):
        old = (before or {}).get(table.name)
        if old is None or (old.type, old.length) != (table.type, table.length):
            found[table.name] = make(table)
            continue
        fresh = make(table)
        if type(fresh) is type(old) and fresh.stored == old.stored:
            found[table.name] = old
        else:
            # from the compiled path to the reference or back, or something else is to be stored from now on
            kept = [one for one in fresh.stored if one in old.stored]
            for key, left_ms, server_id, name, version, told in rows(old):
                data = tuple(
                    number
                    for kind, number in zip(_kinds(old), told, strict=True)
                    if kind in {kind for kind, _, _ in kept}
                )
                fresh.merge(key, left_ms, server_id, name, 0, version, data, kinds=[kind for kind, _, _ in kept])
            found[table.name] = fresh
    return found


def settle(tables: ProxyTables, stores: Stores) -> None:
    """Give the tables the size, time and purging of this configuration."""
    for table in wanted(tables):
        stores[table.name].reshape(table.size, table.expire_s, table.nopurge)


def rows(store: Store) -> Iterator[Row]:
    """Every row, a piece at a time."""
    start = 0
    while True:
        start, found = store.entries(start)
        yield from found
        if not start:
            return


def _kinds(store: Store) -> list[int]:
    """The kind of each number of a row's data."""
    return [
        kind for kind, elements, _ in sorted(store.stored) for _ in range(elements * (3 if kind in wire.RATES else 1))
    ]
