"""Choosing servers in the reference proxy: states, algorithms, hashes, stick tables. Independent of the compiled path.

One `Farm` per backend holds what changes: states, sessions, positions and learned keys, under one lock.
"""

from __future__ import annotations

import bisect
import ipaddress
import random
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from haptk.core.acl import Facts, path_of
from haptk.io import clock
from haptk.proxy.tables import Backend, Server

POINTS_PER_WEIGHT = 16
CHANGES_KEPT = 65536
RING_STRIDE = 4096  # points that HAProxy reserves for each server id


@dataclass
class Seat:
    """A server with its state: UP, DRAIN, DOWN or MAINT."""

    server: Server
    index: int
    state: str = "UP"
    weight: int = 1
    sessions: int = 0
    observed: int = 0  # errors in a row, for `observe`
    tripped: int = 0
    place: tuple[str, int] = ("", 0)  # host and port now; ("", 0) while its name does not resolve
    due: float = 0.0  # next turn of the weighted round robin
    maxconn: int = 0

    @property
    def usable(self) -> bool:
        """A session that is bound to it may go there."""
        return self.state in ("UP", "DRAIN")

    @property
    def eligible(self) -> bool:
        """New sessions may go there."""
        return self.state == "UP" and self.weight > 0


class Farm:
    """The servers of one backend. All methods may be called from any thread."""

    def __init__(self, backend: Backend, seed: int) -> None:
        self.backend = backend
        self.seats = [
            Seat(
                server,
                index,
                "MAINT" if server.disabled or not (server.host or server.unix_path) else "UP",
                server.weight,
                place=(server.host, server.port),
                maxconn=server.maxconn,
            )
            for index, server in enumerate(backend.servers)
        ]
        self.changed = threading.Condition()
        self.busy = 0  # sessions in this backend, those that wait included
        self._next = 0
        self._now = 0.0
        self._ring_of: tuple[tuple[int, int], ...] = ()
        self._points: list[tuple[int, int]] = []
        self._random = random.Random(seed)  # noqa: S311 (a spread of load, no secret)

    def tier(self, avoid: Seat | None) -> list[Seat]:
        """The seats that may be chosen: actives, else backups (the first of them, or all with allbackups)."""
        actives = [seat for seat in self.seats if seat.eligible and not seat.server.backup]
        backups = [seat for seat in self.seats if seat.eligible and seat.server.backup]
        found = actives or (backups if self.backend.allbackups else backups[:1])
        return [seat for seat in found if seat is not avoid] or found

    def choose(self, facts: Facts, avoid: Seat | None = None) -> Seat | None:
        """A server for a session that is bound to none."""
        with self.changed:
            seats = self.tier(avoid)
            if not seats:
                return None
            algorithm = self.backend.balance.algorithm
            if algorithm == "leastconn":
                return min(self._turned(seats), key=lambda seat: seat.sessions / seat.weight)
            if algorithm == "first":
                return next((seat for seat in seats if not self.full(seat)), seats[0])
            if algorithm == "random":
                drawn = self._random.choices(seats, [s.weight for s in seats], k=self.backend.balance.draws)
                return min(drawn, key=lambda seat: seat.sessions / seat.weight)
            if algorithm in ("source", "uri", "url_param", "hdr"):
                key = self.hashed(facts)
                if key is not None:
                    return (
                        self._on_ring(seats, key) if self.backend.balance.hash_consistent else self._mapped(seats, key)
                    )
            return self._turn(seats)

    def full(self, seat: Seat) -> bool:
        """Whether a server has all the sessions that it may have now, between minconn and maxconn."""
        server, fullconn = seat.server, max(1, self.backend.fullconn)
        most = max(seat.maxconn, server.minconn) if seat.maxconn or server.minconn else 0
        if 0 < server.minconn < most and self.busy < fullconn:
            most = max(server.minconn, self.busy * most // fullconn)
        return 0 < most <= seat.sessions

    def _turned(self, seats: list[Seat]) -> list[Seat]:
        """The seats beginning behind the one that was used last, so that equals take turns."""
        self._next += 1
        at = self._next % len(seats)
        return seats[at:] + seats[:at]

    def _turn(self, seats: list[Seat]) -> Seat:
        """Earliest virtual deadline first: a seat's deadlines lie 1/weight apart."""
        for seat in seats:
            if seat.due < self._now - 1:
                seat.due = self._now
        best = min(seats, key=lambda seat: (seat.due + 1 / seat.weight, -seat.weight, seat.index))
        best.due += 1 / best.weight
        self._now = max(self._now, best.due - 1 / best.weight)
        return best

    def _mapped(self, seats: list[Seat], key: int) -> Seat:
        """The hash counts positions; each seat stands there as often as it weighs."""
        at = key % sum(seat.weight for seat in seats)
        for seat in seats:
            at -= seat.weight
            if at < 0:
                return seat
        return seats[-1]

    def _on_ring(self, seats: list[Seat], key: int) -> Seat:
        """Consistent hashing: each seat has 16 points per weight on a ring; the point nearest to the hash wins."""
        points = self._ring(tuple((seat.index, seat.weight) for seat in seats))
        at = bisect.bisect_left(points, (key, -1))
        after, before = points[at % len(points)], points[at - 1]
        below, above = (key - before[0]) & 0xFFFFFFFF, (after[0] - key) & 0xFFFFFFFF
        return self.seats[(before if below <= above else after)[1]]

    def _ring(self, seats: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
        if self._ring_of != seats:
            self._ring_of = seats
            self._points = sorted(
                (avalanche(self.seats[index].server.id * RING_STRIDE + node), index)
                for index, weight in seats
                for node in range(weight * POINTS_PER_WEIGHT)
            )
        return self._points

    def hashed(self, facts: Facts) -> int | None:
        """The 32-bit hash of what the algorithm looks at; None where it is missing (round robin is used then)."""
        balance = self.backend.balance
        if balance.algorithm == "source":
            packed = ipaddress.ip_address(facts.src or "0.0.0.0").packed
            value = 0
            for at in range(0, len(packed), 4):
                value ^= int.from_bytes(packed[at : at + 4], "big")
            return avalanche(value) if balance.hash_avalanche or balance.hash_consistent else value
        text: str | None
        if balance.algorithm == "uri":
            text = self._uri(facts.target)
        elif balance.algorithm == "url_param":
            query = facts.target.partition("?")[2]
            text = next(
                (v for k, _, v in (p.partition("=") for p in query.split("&") if "=" in p) if k == balance.argument),
                None,
            )
        else:
            text = next((value for name, value in facts.headers if name == balance.argument.lower()), None)
            if text is not None:
                text = first_value(text)
                text = domain_of(text) if balance.use_domain_only else text
        if text is None:
            return None
        value = HASHES[balance.hash_function or "sdbm"](text.encode("latin-1", "replace"))
        # Consistent hashing without a function is sdbm with avalanche.
        mixed = balance.hash_avalanche or (balance.hash_consistent and not balance.hash_function)
        return avalanche(value) if mixed else value

    def _uri(self, target: str) -> str:
        balance = self.backend.balance
        text = (
            path_of(target) + target.partition("?")[1] + target.partition("?")[2] if balance.uri_path_only else target
        )
        text = text[: balance.uri_length] if balance.uri_length else text
        if not balance.uri_whole:
            text = text.partition("?")[0]
        if balance.uri_depth:
            parts = text.split("/")
            text = "/".join(parts[: balance.uri_depth + 1])
        return text


def first_value(text: str) -> str:
    """The first value of a comma list; quotes hide a comma."""
    found = re.match(r'(?:"(?:\\.|[^"\\])*(?:"|\\?\Z)|[^",])*', text, re.DOTALL)
    return found[0].rstrip(" \t") if found else ""


def domain_of(host: str) -> str:
    """`www.example.com:80` -> `example`: the label before the last dot, as `use_domain_only` hashes it.

    As in HAProxy a dot at the very beginning is not seen, and a label has at least one character.
    """
    end = host.rfind(".", 1)
    return host if end < 1 else host[host.rfind(".", 0, end - 1) + 1 : end]


def _sdbm(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (byte + (value << 6) + (value << 16) - value) & 0xFFFFFFFF
    return value


def _djb2(data: bytes) -> int:
    value = 5381
    for byte in data:
        value = ((value << 5) + value + byte) & 0xFFFFFFFF
    return value


def _crc32(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


def _wt6(data: bytes) -> int:
    """HAProxy's own string hash: two words that are complemented, rotated by their own bits and swapped."""
    mask = 0xFFFFFFFF
    left, right, turn_left, turn_right = 0xA53C965A, 0x5CA6953A, 6, 18
    for byte in data:
        left = ~(left ^ byte) & mask
        right = ~(right + byte) & mask
        left, right = _rotated(right, turn_left), _rotated(left, turn_right)
        mixed = ((left >> 16) ^ right) & 0xFFFF
        turn_left, turn_right = mixed & 0x1F, mixed >> 11
    return left ^ right


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF


HASHES = {"sdbm": _sdbm, "djb2": _djb2, "crc32": _crc32, "wt6": _wt6}


def avalanche(value: int) -> int:
    """Bob Jenkins' 32-bit integer hash with full avalanche, spread over the range as HAProxy does."""
    mask = 0xFFFFFFFF
    value = ((value + 0x7ED55D16) + (value << 12)) & mask
    value = (value ^ 0xC761C23C ^ (value >> 19)) & mask
    value = ((value + 0x165667B1) + (value << 5)) & mask
    value = ((value + 0xD3A2646C) ^ (value << 9)) & mask
    value = ((value + 0xFD7046C5) + (value << 3)) & mask
    value = (value ^ 0xB55A4F09 ^ (value >> 16)) & mask
    return value * 3221225473 & mask


# -- stick tables -------------------------------------------------------------------------------------------------


class Table:
    """One stick table: key -> server, oldest use first. The shape of the compiled one."""

    def __init__(
        self, name: str, type: str, length: int, size: int, expire_s: float | None = None, nopurge: bool = False
    ) -> None:
        self.name, self.type, self.length = name, type, length
        self.lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[int, bytes, float]] = OrderedDict()
        self.expire_s = expire_s
        self.seq = 0
        self._bell: Any = None
        self._changed: OrderedDict[bytes, int] = OrderedDict()
        self.reshape(size, expire_s, nopurge)

    def reshape(self, size: int, expire_s: float | None = None, nopurge: bool = False) -> None:
        """Change what may change; a smaller table keeps what was used last."""
        with self.lock:
            before, self.expire_s = self.expire_s, expire_s
            self.size, self.nopurge = size, nopurge
            if before != expire_s:
                shift = (expire_s or 0.0) - (before or 0.0)
                base = clock.monotonic() if before is None else 0.0
                for key, (server_id, name, until) in self._entries.items():
                    self._entries[key] = (server_id, name, base + (until if before is not None else 0.0) + shift)
            while len(self._entries) > size:
                self._entries.popitem(last=False)

    @property
    def expire_ms(self) -> int:
        """How long an unused entry stays; 0 for ever."""
        return 0 if self.expire_s is None else round(self.expire_s * 1000)

    @property
    def used(self) -> int:
        """Entries that have not expired."""
        with self.lock:
            self._sweep(clock.monotonic())
            return len(self._entries)

    def _sweep(self, now: float) -> None:
        if self.expire_s is not None:
            for key in [key for key, (_, _, until) in self._entries.items() if until <= now]:
                del self._entries[key]

    def _alive(self, key: bytes, now: float) -> tuple[int, bytes, float] | None:
        entry = self._entries.get(key)
        return None if entry is None or (self.expire_s is not None and entry[2] <= now) else entry

    def _row(self, key: bytes, entry: tuple[int, bytes, float], now: float) -> tuple[bytes, int, int, bytes]:
        left = 0 if self.expire_s is None else max(0, round((entry[2] - now) * 1000))
        return key, left, entry[0], entry[1]

    def entries(self, start: int = 0, count: int = 4096) -> tuple[int, list[tuple[bytes, int, int, bytes]]]:
        """All rows at once."""
        del start, count
        now = clock.monotonic()
        with self.lock:
            self._sweep(now)
            return 0, [self._row(key, entry, now) for key, entry in self._entries.items()]

    def get(self, key: bytes) -> tuple[bytes, int, int, bytes] | None:
        """One row, without using it."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            return None if entry is None else self._row(key, entry, now)

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """The server that was learned for `key`; its time begins anew."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            if entry is None:
                return None
            self._put(key, entry[0], entry[1], now + (self.expire_s or 0.0))
            self._note(key)
            return entry[0], entry[1]

    def learn(self, key: bytes, server_id: int, name: bytes = b"") -> bool:
        """Remember a server. A full table forgets its oldest entry, or with `nopurge` learns nothing new."""
        learned = self.teach(key, self.expire_ms, server_id, name)
        with self.lock:
            if learned:
                self._note(key)
        return learned

    def listen(self, bell: Any, room: int = 65536) -> None:
        """Number the changes from now on."""
        del room
        self._bell = bell

    def _note(self, key: bytes) -> None:
        if self._bell is None:
            return
        self.seq = (self.seq + 1) & 0xFFFFFFFF
        self._changed[key] = self.seq
        self._changed.move_to_end(key)
        if len(self._changed) > CHANGES_KEPT:
            self._changed.popitem(last=False)
        self._bell.ring()

    def changes(self, after: int, count: int) -> tuple[int, list[tuple[int, tuple[bytes, int, int, bytes]]]] | None:
        """(last number, [(number, row)]) of what changed after a number; None when that is too long ago."""
        now = clock.monotonic()
        with self.lock:
            if (self.seq - after) & 0xFFFFFFFF > CHANGES_KEPT:
                return None
            found: list[tuple[int, tuple[bytes, int, int, bytes]]] = []
            for key, number in self._changed.items():
                entry = self._alive(key, now)
                if 0 < (number - after) & 0xFFFFFFFF < 1 << 31 and entry is not None:
                    found.append((number, self._row(key, entry, now)))
                    if len(found) == count:
                        return number, found
            return self.seq, found

    def teach(self, key: bytes, left_ms: int, server_id: int, name: bytes = b"") -> bool:
        """The same with the time that is left."""
        now = clock.monotonic()
        with self.lock:
            if key not in self._entries and len(self._entries) >= self.size:
                self._sweep(now)
                if len(self._entries) >= self.size:
                    if self.nopurge:
                        return False
                    self._entries.popitem(last=False)
            self._put(key, server_id, name, now + min(left_ms, self.expire_ms) / 1000)
        return True

    def merge(self, key: bytes, left_ms: int, server_id: int, name: bytes, acked: int, wins: bool) -> bool:
        """What a peer says; see core.peers.updates."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            number = self._changed.get(key)
            same = entry is not None and (entry[1] == name if name else entry[:2] == (server_id, b""))
            ours = entry is not None and number is not None and 0 < (number - acked) & 0xFFFFFFFF < 1 << 31
            if ours and not same and wins:
                self._note(key)
                return True
            if entry is not None and same and self.expire_s is not None:
                left_ms = max(left_ms, round((entry[2] - now) * 1000))
        learned = self.teach(key, left_ms, server_id, name)
        if ours and not same and learned:
            with self.lock:
                self._note(key)
        return learned

    def _put(self, key: bytes, server_id: int, name: bytes, until: float) -> None:
        self._entries[key] = (server_id, name, until)
        self._entries.move_to_end(key)

    def delete(self, key: bytes) -> bool:
        """Forget one key; False when it is not there."""
        with self.lock:
            return self._entries.pop(key, None) is not None

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self._entries.clear()
