"""`show table`, `set table`, `clear table`: HAProxy 2.6's words and forms, checked against the real one.

Two things are kinder than there: an address that is none is refused instead of becoming 0.0.0.0, and `clear table`
needs the level operator.
"""

from __future__ import annotations

import ipaddress
import operator
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from haptk.core.sticktable import show_key
from haptk.proxy.runtime.world import Unknown, World
from haptk.proxy.sticktables import Row, Store, rows

FILTERS_MAX = 4
STORED = ("server_id", "server_key")
# What HAProxy's tables may store; ours learn servers only.
KNOWN = (
    *STORED, "gpt0", "gpc0", "gpc0_rate", "conn_cnt", "conn_rate", "conn_cur", "sess_cnt", "sess_rate", "http_req_cnt",
    "http_req_rate", "http_err_cnt", "http_err_rate", "bytes_in_cnt", "bytes_in_rate", "bytes_out_cnt",
    "bytes_out_rate", "gpc1", "gpc1_rate", "http_fail_cnt", "http_fail_rate", "gpt", "gpc", "gpc_rate",
)  # fmt: skip
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "le": operator.le, "ge": operator.ge, "lt": operator.lt, "gt": operator.gt,
}  # fmt: skip
SHOW_USAGE = 'Optional argument only supports "data.<store_data_type>" <operator> <value> and key <key>\n'
CLEAR_USAGE = 'Required arguments: <table> "data.<store_data_type>" <operator> <value> or <table> key <key>\n'
SET_USAGE = "Required arguments: <table> key <key> [data.<store_data_type> <value>]*\n"


@dataclass(frozen=True)
class Filter:
    """One `data.TYPE OPERATOR VALUE`."""

    stored: str
    holds: Callable[[int, int], bool]
    value: int

    def __call__(self, row: Row) -> bool:
        """Whether a row passes; a server's name is no number and never does."""
        return self.stored == "server_id" and self.holds(row[2], self.value)


def show(world: World, args: list[str]) -> str:
    """`show table [NAME [data.* OPERATOR VALUE]* | NAME key KEY]`."""
    if not args:
        return "".join(_head(store) for store in reversed(list(world.stores.values())))
    store, rest = _table(world, args), args[1:]
    if rest[:1] == ["key"]:
        row = store.get(_key(store, rest, "Showing"))
        return "" if row is None else _head(store) + _line(world, store, row)
    filters = _filters(world, store, rest, SHOW_USAGE)
    chosen = (row for row in rows(store) if all(passes(row) for passes in filters))
    return _head(store) + "".join(_line(world, store, row) for row in sorted(chosen, key=lambda row: row[0]))


def clear(world: World, args: list[str]) -> str:
    """`clear table NAME [data.* OPERATOR VALUE]* | NAME key KEY`."""
    if not args:
        return CLEAR_USAGE
    store, rest = _table(world, args), args[1:]
    if rest[:1] == ["key"]:
        store.delete(_key(store, rest, "Removing"))
        return ""
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
    while words:
        answer, value = _stored_value(world, store, words)
        if answer:
            break
        server_id, words = value, words[2:]
    store.learn(key, server_id, name)
    return answer


def _stored_value(world: World, store: Store, words: list[str]) -> tuple[str, int]:
    """(complaint, number) of one `data.TYPE VALUE`."""
    kind = words[0].removeprefix("data.")
    if kind == words[0]:
        return '"data.<type>" followed by a value expected\n', 0
    if kind not in KNOWN:
        return "Unknown data type\n", 0
    if not (kind in STORED and _stores_servers(world, store)):
        return "Data type not stored in this table\n", 0
    if kind != "server_id" or len(words) < 2 or not re.fullmatch(r"[+-]?\d{1,9}", words[1]):
        return "Require a valid integer value to store\n", 0
    return "", int(words[1])


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
        if kind not in KNOWN:
            raise Unknown(f"Filter entry #{number}: Unknown data type\n")
        if not (kind in STORED and _stores_servers(world, store)):
            raise Unknown(f"Filter entry #{number}: Data type not stored in this table\n")
        if len(words) < 2 or words[1] not in OPERATORS:
            names = '"eq", "ne", "le", "ge", "lt", "gt"'
            raise Unknown(f"Filter entry #{number}: Require and operator among {names}\n")
        if len(words) < 3 or not re.fullmatch(r"[+-]?\d{1,18}", words[2]):
            raise Unknown(f"Filter entry #{number}: Require a valid integer value to compare against\n")
        found.append(Filter(kind, OPERATORS[words[1]], int(words[2])))
        last, words = words[2], words[3:]
    if words:
        place = 4 + 3 * FILTERS_MAX
        raise Unknown(f"Detected extra data in filter, {place}th word of input, after '{last}'\n")
    return found


def _head(store: Store) -> str:
    return f"# table: {store.name}, type: {store.type}, size:{store.size}, used:{store.used}\n"


def _line(world: World, store: Store, row: Row) -> str:
    """One entry. The address in front is HAProxy's own affair; here it is a number made from the key."""
    key, left_ms, server_id, name = row
    shown = show_key(store.type, store.length, key)
    data = f" server_id={server_id} server_key={name.decode('utf-8', 'replace') or '-'}"
    return (
        f"{zlib.crc32(key) | 1 << 40:#x}: key={shown} use=0 exp={left_ms}"
        f"{data if _stores_servers(world, store) else ''}\n"
    )
