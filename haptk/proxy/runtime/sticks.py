"""`show table`, `set table`, `clear table`: HAProxy 2.6's words and forms, checked against the real one.

Two things are kinder than there: an address that is none is refused instead of becoming 0.0.0.0, and `clear table`
needs the level operator.
"""

from __future__ import annotations

import ipaddress
import operator
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from haptk.core.sticktable import ARRAYS, KINDS, SERVER_ID, show_key
from haptk.proxy.runtime.world import Unknown, World
from haptk.proxy.sticktables import Row, Store, rows

FILTERS_MAX = 4
LINES_AT_ONCE = 256
STORED = ("server_id", "server_key")
MASK = 0xFFFFFFFF
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "le": operator.le, "ge": operator.ge, "lt": operator.lt, "gt": operator.gt,
}  # fmt: skip
SHOW_USAGE = 'Optional argument only supports "data.<store_data_type>" <operator> <value> and key <key>\n'
CLEAR_USAGE = 'Required arguments: <table> "data.<store_data_type>" <operator> <value> or <table> key <key>\n'
SET_USAGE = "Required arguments: <table> key <key> [data.<store_data_type> <value>]*\n"


@dataclass(frozen=True)
class Filter:
    """One `data.TYPE OPERATOR VALUE`; `place` is the kind and element, None for a server's name, which never passes."""

    store: Store
    place: tuple[int, int] | None
    holds: Callable[[int, int], bool]
    value: int

    def __call__(self, row: Row) -> bool:
        """Whether a row passes."""
        if self.place is None:
            return False
        found = row[2] if self.place[0] == SERVER_ID else self.store.seek(row[0], *self.place)
        return found is not None and self.holds(found, self.value)


def show(world: World, args: list[str]) -> tuple[str, Iterator[str] | None]:
    """`show table [NAME [data.* OPERATOR VALUE]* | NAME key KEY]`: the beginning, and the lines as they are asked for."""
    if not args:
        return "".join(_head(store) for store in reversed(list(world.stores.values()))), None
    store, rest = _table(world, args), args[1:]
    if rest[:1] == ["key"]:
        row = store.get(_key(store, rest, "Showing"))
        return ("" if row is None else _head(store) + _line(world, store, row)), None
    filters = _filters(world, store, rest, SHOW_USAGE)
    return _head(store), _lines(world, store, filters)


def _lines(world: World, store: Store, filters: list[Filter]) -> Iterator[str]:
    """In the order of the keys. Only those are kept meanwhile: a table may be larger than what a client takes at once."""
    keys = sorted(row[0] for row in rows(store))
    for start in range(0, len(keys), LINES_AT_ONCE):
        found = (store.get(key) for key in keys[start : start + LINES_AT_ONCE])
        text = [_line(world, store, row) for row in found if row is not None and all(passes(row) for passes in filters)]
        if text:
            yield "".join(text)


def clear(world: World, args: list[str]) -> str:
    """`clear table NAME [data.* OPERATOR VALUE]* | NAME key KEY`."""
    if not args:
        return CLEAR_USAGE
    store, rest = _table(world, args), args[1:]
    if rest[:1] == ["key"]:
        key = _key(store, rest, "Removing")
        return "Entry currently in use, cannot remove\n" if not store.delete(key) and store.get(key) else ""
    filters = _filters(world, store, rest, CLEAR_USAGE)
    if not filters:
        store.clear()
        return ""
    for row in list(rows(store)):
        if all(passes(row) for passes in filters):
            store.delete(row[0])
    return ""


def put(world: World, args: list[str]) -> str:
    """`set table NAME key KEY [data.server_id N]*`."""
    if not args:
        return SET_USAGE
    store, rest = _table(world, args), args[1:]
    if not rest:
        return ""
    if rest[0].startswith("data."):
        return 'content-based lookup is only supported with the "show" and "clear" actions\n'
    if rest[0] != "key":
        return SET_USAGE
    key = _key(store, rest, "Inserting")
    before = store.get(key)
    server_id, name = (before[2], before[3]) if before is not None else (0, b"")
    answer = ""
    words = rest[2:]
    values: list[tuple[int, int, int]] = []
    while words:
        answer, place, value = _stored_value(world, store, words)
        if answer:
            break
        words = words[2:]
        assert place is not None  # noqa: S101
        if place[0] == SERVER_ID:
            server_id = value
        else:
            values.append((*place, value))
    store.learn(key, server_id, name)
    for kind, element, value in values:
        store.put(key, kind, value & (MASK << 32 | MASK if KINDS[kind].startswith("bytes_") else MASK), element)
    return answer


def _stored_value(world: World, store: Store, words: list[str]) -> tuple[str, tuple[int, int] | None, int]:
    """(complaint, (kind, element), number) of one `data.TYPE VALUE`."""
    nothing = None
    kind = words[0].removeprefix("data.")
    if kind == words[0]:
        return '"data.<type>" followed by a value expected\n', nothing, 0
    if kind not in KINDS:
        return "Unknown data type\n", nothing, 0
    place = _place(world, store, kind)
    if place is None and not (kind == "server_key" and _stores_servers(world, store)):
        return "Data type not stored in this table\n", nothing, 0
    if place is None or len(words) < 2 or not re.fullmatch(r"[+-]?\d{1,18}", words[1]):
        return "Require a valid integer value to store\n", nothing, 0
    return "", place, int(words[1])


def _place(world: World, store: Store, name: str) -> tuple[int, int] | None:
    """Where a table stores what a name says: (kind, element), of an array the first one; None for nowhere."""
    kind = KINDS.index(name)
    if kind == SERVER_ID:
        return (SERVER_ID, 0) if _stores_servers(world, store) else None
    return (kind, 0) if any(kind == stored for stored, _, _ in store.stored) else None


def _table(world: World, args: list[str]) -> Store:
    if args[0] not in world.stores:
        raise Unknown("No such table\n")
    return world.stores[args[0]]


def _stores_servers(world: World, store: Store) -> bool:
    """Whether some stick rule (or appsession) uses the table: only then entries have servers."""
    return store.name in world.sticky


def _key(store: Store, words: list[str], doing: str) -> bytes:
    """The key behind the word `key`; raises Unknown with HAProxy's sentence."""
    if len(words) < 2 or not words[1]:
        raise Unknown("Key value expected\n")
    text = words[1]
    if store.type == "string":
        return text.encode("utf-8", "surrogateescape")[: store.length]
    if store.type == "integer":
        if not re.fullmatch(r"\d{1,10}", text) or int(text) > 0xFFFFFFFF:
            raise Unknown("Invalid key\n")
        return int(text).to_bytes(4, "little")
    if store.type in ("ip", "ipv6"):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise Unknown("Invalid key\n") from None
        if address.version != (4 if store.type == "ip" else 6):
            raise Unknown("Invalid key\n")
        return address.packed
    preposition = "into" if doing == "Inserting" else "from"
    others = "tables of type other than ip, ipv6, string and integer is not supported"
    raise Unknown(f"{doing} keys {preposition} {others}\n")


def _filters(world: World, store: Store, words: list[str], usage: str) -> list[Filter]:
    """The filters of a command; raises Unknown with HAProxy's sentence."""
    if words and not words[0].startswith("data."):
        raise Unknown(usage)
    found: list[Filter] = []
    for number in range(1, FILTERS_MAX + 1):
        if not words:
            return found
        kind = words[0].removeprefix("data.")
        if kind not in KINDS:
            raise Unknown(f"Filter entry #{number}: Unknown data type\n")
        place = _place(world, store, kind)
        if place is None and not (kind == "server_key" and _stores_servers(world, store)):
            raise Unknown(f"Filter entry #{number}: Data type not stored in this table\n")
        if len(words) < 2 or words[1] not in OPERATORS:
            names = '"eq", "ne", "le", "ge", "lt", "gt"'
            raise Unknown(f"Filter entry #{number}: Require and operator among {names}\n")
        if len(words) < 3 or not re.fullmatch(r"[+-]?\d{1,18}", words[2]):
            raise Unknown(f"Filter entry #{number}: Require a valid integer value to compare against\n")
        found.append(Filter(store, place, OPERATORS[words[1]], int(words[2])))
        last, words = words[2], words[3:]
    if words:
        behind = 4 + 3 * FILTERS_MAX
        raise Unknown(f"Detected extra data in filter, {behind}th word of input, after '{last}'\n")
    return found


def _head(store: Store) -> str:
    return f"# table: {store.name}, type: {store.type}, size:{store.size}, used:{store.used}\n"


def _line(world: World, store: Store, row: Row) -> str:
    """One entry. The address in front is HAProxy's own affair; here it is a number made from the key."""
    key, left_ms, server_id, name, *_ = row
    shown = show_key(store.type, store.length, key)
    holders, values = store.values(key) or (0, [])
    periods = {kind: period_ms for kind, _, period_ms in store.stored}
    words = [(kind, element, f"{_label(kind, element, periods[kind])}={value}") for kind, element, value in values]
    if _stores_servers(world, store):
        words.append((SERVER_ID, 0, f"server_id={server_id}"))
        words.append((KINDS.index("server_key"), 0, f"server_key={name.decode('utf-8', 'replace') or '-'}"))
    data = "".join(f" {word}" for _, _, word in sorted(words))
    return f"{zlib.crc32(key) | 1 << 40:#x}: key={shown} use={holders} exp={left_ms}{data}\n"


def _label(kind: int, element: int, period_ms: int) -> str:
    """How `show table` names an element: gpc1 of an array gpc, http_req_rate(10000)."""
    name = KINDS[kind]
    if name in ARRAYS:
        name = name.replace("gpc", f"gpc{element}").replace("gpt", f"gpt{element}")
    return f"{name}({period_ms})" if "_rate" in name else name
