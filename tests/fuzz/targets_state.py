"""Guided targets for what is learned: the peers' wire and stick tables. Each is a function of bytes that raises for a finding."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SIZE = 6  # entries of a small table, so that it is soon full


def check(holds: bool, text: str) -> None:
    """`assert` is not used because a finding must survive -O."""
    if not holds:
        raise RuntimeError(text)


def peers() -> Callable[[bytes], None]:
    """Byte 0 is the size of the pieces in which the rest arrives on a session; both codecs make the same of it."""
    import fuzz_peers

    def one(data: bytes) -> None:
        step = data[0] + 1 if data else 1
        pieces = [step] * min(len(data), 200)
        found = fuzz_peers.outcomes(data[1:], pieces)
        check(found[0] == found[1], f"the codecs differ: {found}")

    return one


class Words:
    """Numbers and keys out of the input; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def left(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def key(self, kind: str) -> bytes:
        if kind == "string":
            size = self.byte() % 12
            return bytes(self.byte() % 3 + 97 for _ in range(size))
        return bytes([0, 0, 0, self.byte() % 16]) if kind != "binary" else bytes(self.byte() % 4 for _ in range(5))


def rows(table: object) -> Iterator[tuple[Any, ...]]:
    """All entries of a table, in portions."""
    at = 0
    while True:
        at, some = table.entries(at, 4)  # type: ignore[attr-defined]
        yield from some
        if not at:
            return


def tables() -> Callable[[bytes], None]:
    """Operations on a small table beside a dictionary: what is remembered is right, and all ways to ask agree."""
    from haptk._fast.table import Bell, Table

    kinds = {"string": 8, "ip": 4, "integer": 4, "binary": 5}

    def plain(key: bytes) -> bytes:
        return key.rstrip(b"\0")  # what a binary key is padded with

    def one(data: bytes) -> None:
        words = Words(data)
        first = words.byte()
        kind = list(kinds)[first % 4]
        table = Table("t", kind, kinds[kind], SIZE, 60.0 if first & 4 else None, bool(first & 8))
        if first & 16:
            table.listen(Bell(), 8)
        learned: dict[bytes, set[tuple[int, bytes]]] = {}  # whatever was said of a key since it was forgotten
        while words.left():
            operation, key, server = words.byte(), words.key(kind), words.byte() % 5
            short = plain(key[: kinds[kind]])
            name = (b"", b"s1", b"s2", b"n" * 300, b"\xff")[server]
            if operation % 12 < 4:
                if table.learn(key, server, name):
                    learned[short] = {(server, name)}
            elif operation % 12 == 4:
                table.teach(key, words.byte() * 300, server, name)
                learned.setdefault(short, set()).add((server, name))
            elif operation % 12 == 5:
                table.merge(key, words.byte() * 300, server, name, words.byte(), bool(words.byte() & 1))
                learned.setdefault(short, set()).add((server, name))
            elif operation % 12 == 6:
                table.delete(key)
                check(table.get(key) is None, "deleted and still there")
                learned.pop(short, None)
            elif operation % 12 == 7 and operation > 200:
                table.clear()
                learned.clear()
            elif operation % 12 == 8:
                timed = words.byte() & 1
                first |= 4 * timed
                table.reshape(words.byte() % 9 + 1, 60.0 if timed else None, bool(words.byte() & 1))
            elif operation % 12 == 9:
                table.changes(words.byte(), words.byte() % 9 + 1)
            else:
                found = table.find(key)
                check(found is None or found in learned.get(short, ()), f"{short!r} gives {found}, never said")
        look(table, learned, timed=bool(first & 4))

    def look(table: Table, learned: dict[bytes, set[tuple[int, bytes]]], *, timed: bool) -> None:
        all_rows = list(rows(table))
        check(timed or len(all_rows) == table.used, f"{table.used} used, {len(all_rows)} rows")
        check(table.used <= table.size, "more entries than its size")
        check(len({row[0] for row in all_rows}) == len(all_rows), "a key stands there twice")
        for key, _, server, name, *_ in all_rows:
            check((server, name) in learned.get(plain(key), ()), f"{key!r} has {server} {name!r}, never said")
            again = table.get(key)
            check(timed or (again is not None and again[2:4] == (server, name)), f"{key!r} is listed only")

    return one
