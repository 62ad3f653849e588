"""Choosing servers in the reference proxy: states, algorithms, hashes. Independent of the compiled path.

One `Farm` per backend holds what changes: states, sessions, positions and learned keys, under one lock.
"""

from __future__ import annotations

import bisect
import ipaddress
import math
import random
import re
import threading
from dataclasses import dataclass

from haptk.core.acl import Facts, path_of
from haptk.proxy.tables import Backend, Server

POINTS_PER_WEIGHT = 16
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
    fuse: int = 0  # how many more times take it down at once
    eased: int = 100  # percent of its maxconn that holds under slowstart
    place: tuple[str, int] = ("", 0)  # host and port now; ("", 0) while its name does not resolve
    touched: int = 0  # when its number of sessions changed last, in changes of the farm
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
        self._touches = 0
        self._place = 0  # of turns over a map or a ring
        self._now = 0.0
        self._ring_of: tuple[tuple[int, int], ...] = ()
        self._points: list[tuple[int, int]] = []
        self._random = random.Random(seed)  # noqa: S311 (a spread of load, no secret)

    def duty(self) -> list[Seat]:
        """The seats that serve now: actives, else backups (the first of them, or all with allbackups)."""
        actives = [seat for seat in self.seats if seat.eligible and not seat.server.backup]
        backups = [seat for seat in self.seats if seat.eligible and seat.server.backup]
        return actives or (backups if self.backend.allbackups else backups[:1])

    def tier(self, avoid: Seat | None) -> list[Seat]:
        """The same without a seat that just failed, where there is another one."""
        found = self.duty()
        return [seat for seat in found if seat is not avoid] or found

    def choose(self, facts: Facts, avoid: Seat | None = None) -> Seat | None:
        """A server for a session that is bound to none."""
        with self.changed:
            duty = self.duty()
            seats = [seat for seat in duty if seat is not avoid] or duty
            if not seats:
                return None
            algorithm = self.backend.balance.algorithm
            if seats[0].server.backup and not self.backend.allbackups:
                return seats[0]
            if algorithm == "leastconn":
                # of equals the one whose number of sessions has not changed for longest
                return min(seats, key=lambda seat: (seat.sessions / seat.weight, seat.touched))
            if algorithm == "first":
                return next((seat for seat in seats if not self.full(seat)), seats[0])
            if algorithm == "random":
                drawn = self._random.choices(seats, [s.weight for s in seats], k=self.backend.balance.draws)
                return min(drawn, key=lambda seat: seat.sessions / seat.weight)
            if algorithm in ("source", "uri", "url_param", "hdr"):
                key = self.hashed(facts)
                if self.backend.balance.hash_consistent:
                    return self._ring_turn(duty, avoid) if key is None else self._on_ring(duty, key, avoid)
                return self._map_turn(duty, avoid) if key is None else self._mapped(duty, key)
            return self._map_turn(duty, avoid) if algorithm == "static-rr" else self._turn(seats)

    def full(self, seat: Seat) -> bool:
        """Whether a server has all the sessions that it may have now, between minconn and maxconn."""
        server, fullconn = seat.server, max(1, self.backend.fullconn)
        most = max(seat.maxconn, server.minconn) if seat.maxconn or server.minconn else 0
        if 0 < server.minconn < most and self.busy < fullconn:
            most = max(server.minconn, self.busy * most // fullconn)
        if most and seat.eased < 100:
            most = max(1, most * seat.eased // 100)
        return 0 < most <= seat.sessions

    def seated(self, seat: Seat, change: int) -> None:
        """One session more or less at a server; called with `changed` held."""
        seat.sessions += change
        self._touches += 1
        seat.touched = self._touches

    def _turn(self, seats: list[Seat]) -> Seat:
        """Earliest virtual deadline first: a seat's deadlines lie 1/weight apart."""
        for seat in seats:
            if seat.due < self._now - 1:
                seat.due = self._now
        best = min(seats, key=lambda seat: (seat.due + 1 / seat.weight, -seat.weight, seat.index))
        best.due += 1 / best.weight
        self._now = max(self._now, best.due - 1 / best.weight)
        return best

    def _map(self, seats: list[Seat]) -> list[Seat]:
        """Places in proportion to the weights of the file, spread evenly: all gather weight, the richest pays."""
        unit = math.gcd(*(seat.server.weight for seat in self.seats)) or 1
        shares = {seat.index: -(-seat.server.weight // unit) or 1 for seat in seats}
        total, gathered, found = sum(shares.values()), dict.fromkeys(shares, 0), []
        for _ in range(total):
            for index, share in shares.items():
                gathered[index] += share
            best = max(seats, key=lambda seat: (gathered[seat.index] + total) // total)
            gathered[best.index] -= total
            found.append(best)
        return found

    def _mapped(self, seats: list[Seat], key: int) -> Seat:
        """The hash is a place in the map, even where its server has just failed: only a health check moves clients."""
        places = self._map(seats)
        return places[key % len(places)]

    def _map_turn(self, seats: list[Seat], avoid: Seat | None) -> Seat:
        """One place of the map after the other."""
        places = self._map(seats)
        order = [(self._place + step) % len(places) for step in range(len(places))]
        at = next((at for at in order if places[at] is not avoid and not self.full(places[at])), order[0])
        self._place = at + 1
        return places[at]

    def _on_ring(self, seats: list[Seat], key: int, avoid: Seat | None) -> Seat:
        """Consistent hashing: each seat has 16 points per weight on a ring; the point nearest to the hash wins.

        Where that seat is to be avoided it is the next one further on.
        """
        points = self._ring(tuple((seat.index, seat.weight) for seat in seats))
        at = bisect.bisect_left(points, (key, -1))
        after, before = points[at % len(points)], points[at - 1]
        below, above = (key - before[0]) & 0xFFFFFFFF, (after[0] - key) & 0xFFFFFFFF
        at -= below <= above
        walk = (self.seats[points[(at + step) % len(points)][1]] for step in range(len(points)))
        first = self.seats[points[at % len(points)][1]]
        return next((seat for seat in walk if seat is not avoid), first)

    def _ring_turn(self, seats: list[Seat], avoid: Seat | None) -> Seat:
        """Where there is nothing to hash: from point to point."""
        points = self._ring(tuple((seat.index, seat.weight) for seat in seats))
        for step in range(len(points)):
            at = (self._place + step) % len(points)
            seat = self.seats[points[at][1]]
            if seat is not avoid and not self.full(seat):
                self._place = at + 1
                return seat
        return seats[0]

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
