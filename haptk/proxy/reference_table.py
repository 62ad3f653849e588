"""A stick table in plain Python: the same calls and meanings as _fast/table.pyx, written independently of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from haptk.core.peers.wire import RATES
from haptk.core.sticktable import CONN_CUR, SERVER_ID
from haptk.io import clock
from haptk.proxy.sticktables import Row

CHANGES_KEPT = 65536
MASK = 0xFFFFFFFF
WIDE = frozenset({13, 15})  # bytes in and out


@dataclass
class Rate:
    """Events of the current period, which began at `begin_ms`, and of the one before."""

    begin_ms: int = 0
    now: int = 0
    before: int = 0

    def add(self, count: int, period_ms: int, now_ms: int) -> None:
        """Events that happen now."""
        passed = (now_ms - self.begin_ms) // period_ms
        if passed:
            self.before = self.now if passed == 1 else 0
            self.begin_ms = self.begin_ms + period_ms if passed == 1 else now_ms
            self.now = 0
        self.now += count

    def read(self, period_ms: int, now_ms: int) -> int:
        """Events of the last period: what is left of the one before counts in proportion."""
        age = now_ms - self.begin_ms
        if age <= period_ms:
            return (self.before * (period_ms - age) + self.now * period_ms) // period_ms
        return self.now * max(0, 2 * period_ms - age) // period_ms


@dataclass
class Entry:
    """What is stored of one key. `until` is in seconds of the monotonic clock; `others` says who hears of the change."""

    server_id: int = 0
    name: bytes = b""
    until: float = 0.0
    version: int = 0
    holders: int = 0
    others: bool = False  # the last noted change is also for peers that are not haptk
    data: dict[int, list[Any]] = field(default_factory=dict)


class Table:
    """One stick table: key -> entry, oldest use first. All methods may be called from any thread."""

    def __init__(
        self, name: str, type: str, length: int, size: int, expire_s: float | None = None, nopurge: bool = False,
        stored: Iterable[tuple[int, int, int]] = (),
    ) -> None:  # fmt: skip
        self.name, self.type, self.length = name, type, length
        self.stored = tuple(stored)
        self.lock = threading.RLock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.expire_s = expire_s
        self.seq = 0
        self._bell: Any = None
        self._changed: OrderedDict[bytes, int] = OrderedDict()
        self._held: dict[int, bytes] = {}
        self._holds = 0
        self._tag, self._version, self._kin, self._others = 0, 0, False, 0
        self._wall_s = clock.wall() - clock.monotonic()
        self.reshape(size, expire_s, nopurge)

    # -- size and time

    def reshape(self, size: int, expire_s: float | None = None, nopurge: bool = False) -> None:
        """Change what a new configuration may change; a smaller table keeps what was used last."""
        with self.lock:
            before, self.expire_s = self.expire_s, expire_s
            self.size, self.nopurge = size, nopurge
            if before != expire_s:
                shift = (expire_s or 0.0) - (before or 0.0)
                base = clock.monotonic() if before is None else 0.0
                for entry in self._entries.values():
                    entry.until = base + (entry.until if before is not None else 0.0) + shift
            while len(self._entries) > size and self._throw_out():
                pass

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

    def _dead(self, entry: Entry, now: float) -> bool:
        return self.expire_s is not None and entry.until <= now and not entry.holders

    def _sweep(self, now: float) -> None:
        for key in [key for key, entry in self._entries.items() if self._dead(entry, now)]:
            del self._entries[key]

    def _throw_out(self) -> bool:
        oldest = next((key for key, entry in self._entries.items() if not entry.holders), None)
        if oldest is not None:
            del self._entries[oldest]
        return oldest is not None

    def _alive(self, key: bytes, now: float) -> Entry | None:
        entry = self._entries.get(key)
        return None if entry is None or self._dead(entry, now) else entry

    def _made(self, key: bytes, now: float) -> Entry | None:
        """The entry of a key, a new one where there is none; None without room."""
        entry = self._alive(key, now)
        if entry is not None:
            return entry
        self._entries.pop(key, None)
        if len(self._entries) >= self.size:
            self._sweep(now)
            if len(self._entries) >= self.size and (self.nopurge or not self._throw_out()):
                return None
        fresh = Entry(until=now + (self.expire_s or 0.0))
        for kind, elements, _ in self.stored:
            fresh.data[kind] = [Rate() if kind in RATES else 0 for _ in range(elements)]
        self._entries[key] = fresh
        return fresh

    def _use(self, key: bytes, entry: Entry, now: float) -> None:
        entry.until = now + (self.expire_s or 0.0)
        self._entries.move_to_end(key)

    # -- reading

    def _row(self, key: bytes, entry: Entry, now: float) -> Row:
        left = 0 if self.expire_s is None else max(0, round((entry.until - now) * 1000))
        return key, left, entry.server_id, entry.name, entry.version, self._told(entry, now)

    def _told(self, entry: Entry, now: float) -> tuple[int, ...]:
        now_ms = round(now * 1000)
        out: list[int] = []
        for kind, _, _ in sorted(self.stored):
            for value in entry.data[kind]:
                out += [(now_ms - value.begin_ms) & MASK, value.now, value.before] if kind in RATES else [value]
        return tuple(out)

    def entries(self, start: int = 0, count: int = 4096) -> tuple[int, list[Row]]:
        """All rows at once."""
        del start, count
        now = clock.monotonic()
        with self.lock:
            self._sweep(now)
            return 0, [self._row(key, entry, now) for key, entry in self._entries.items()]

    def get(self, key: bytes) -> Row | None:
        """One row, without using it."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            return None if entry is None else self._row(key, entry, now)

    def values(self, key: bytes) -> tuple[int, list[tuple[int, int, int]]] | None:
        """(holders, [(kind, element, value)]) of a key; None when there is no such entry."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            if entry is None:
                return None
            numbers = sorted((kind, at) for kind, elements, _ in self.stored for at in range(elements))
            return entry.holders, [(kind, at, self._value(entry, kind, at, now)) for kind, at in numbers]

    def _value(self, entry: Entry, kind: int, element: int, now: float) -> int:
        if kind == SERVER_ID:
            return entry.server_id
        values = entry.data.get(kind, [])
        if not 0 <= element < len(values):
            return 0
        value = values[element]
        return int(value.read(self._period(kind), round(now * 1000)) if kind in RATES else value)

    def _period(self, kind: int) -> int:
        return next(max(1, period_ms) for stored, _, period_ms in self.stored if stored == kind)

    def seek(self, key: bytes, kind: int, element: int = 0) -> int | None:
        """The value of a key, or None without such an entry; its time goes on."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            return None if entry is None else self._value(entry, kind, element, now)

    # -- learning servers

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """The server that was learned for `key`; its time begins anew."""
        now = clock.monotonic()
        with self.lock:
            entry = self._alive(key, now)
            if entry is None:
                return None
            self._use(key, entry, now)
            self._note(key, entry)
            return entry.server_id, entry.name

    def learn(self, key: bytes, server_id: int, name: bytes = b"") -> bool:
        """Remember a server. A full table forgets its oldest entry, or with `nopurge` learns nothing new."""
        now = clock.monotonic()
        with self.lock:
            entry = self._made(key, now)
            if entry is None:
                return False
            if not entry.version or (entry.server_id, entry.name) != (server_id, name):
                entry.server_id, entry.name = server_id, name
                self._revise(entry, now)
            self._use(key, entry, now)
            self._note(key, entry)
        return True

    def teach(self, key: bytes, left_ms: int, server_id: int, name: bytes = b"") -> bool:
        """The same with the time that is left, as something learned elsewhere."""
        return self.merge(key, left_ms, server_id, name, acked=self.seq, quiet=True)

    def delete(self, key: bytes) -> bool:
        """Forget one key; False when it is not there, or a session tracks it."""
        with self.lock:
            entry = self._entries.get(key)
            if entry is None or entry.holders:
                return False
            del self._entries[key]
            return True

    def clear(self) -> None:
        """Forget everything but what sessions track."""
        with self.lock:
            for key in [key for key, entry in self._entries.items() if not entry.holders]:
                del self._entries[key]

    # -- data

    def hold(self, key: bytes) -> int:
        """Track a key as a session does: a number for the calls below, 0 without room. `release` it."""
        now = clock.monotonic()
        with self.lock:
            entry = self._made(key, now) if self.stored else None
            if entry is None:
                return 0
            if not entry.version:
                self._revise(entry, now)
            self._use(key, entry, now)
            entry.holders += 1
            self._holds += 1
            self._held[self._holds] = key
            return self._holds

    def release(self, tracked: int) -> None:
        """The end of what `hold` began."""
        with self.lock:
            key = self._held.pop(tracked, None)
            if key is not None:
                entry = self._entries[key]
                entry.holders -= 1
                self._use(key, entry, clock.monotonic())

    def count(self, tracked: int, kinds: Iterable[int], n: int = 1, element: int = 0) -> None:
        """Add to the kinds that are stored."""
        now = clock.monotonic()
        with self.lock:
            key = self._held.get(tracked)
            found = [kind for kind in kinds if any(kind == stored for stored, _, _ in self.stored)]
            if key is None or not found:
                return
            entry = self._entries[key]
            for kind in found:
                self._add(entry, kind, element, n, round(now * 1000))
            self._use(key, entry, now)
            if found != [CONN_CUR]:
                self._revise(entry, now)
                self._note(key, entry)

    def _add(self, entry: Entry, kind: int, element: int, n: int, now_ms: int) -> None:
        values = entry.data[kind]
        if not 0 <= element < len(values):
            return
        if kind in RATES:
            if n > 0:
                values[element].add(n, self._period(kind), now_ms)
        else:
            values[element] = max(0, values[element] + n) & (MASK << 32 | MASK if kind in WIDE else MASK)

    def put(self, key: bytes, kind: int, value: int, element: int = 0) -> bool:
        """Set one element; the entry is made when there is none. False without room, or when nothing such is stored."""
        now = clock.monotonic()
        with self.lock:
            if not any(kind == stored for stored, _, _ in self.stored):
                return False
            entry = self._made(key, now)
            if entry is None:
                return False
            if 0 <= element < len(entry.data[kind]):
                entry.data[kind][element] = Rate(round(now * 1000), value & MASK) if kind in RATES else value
            self._revise(entry, now)
            self._use(key, entry, now)
            self._note(key, entry)
        return True

    # -- peers

    def listen(self, bell: Any, room: int = 65536) -> None:
        """Number the changes from now on."""
        del room
        self._bell = bell

    def audience(self, tag: int, kin: bool, others: int) -> None:
        """The number of this node among its peers, whether one of them is haptk, and how many are not."""
        with self.lock:
            self._tag, self._kin, self._others = tag, kin, others

    def _revise(self, entry: Entry, now: float) -> None:
        """The content changes here and now: a version above all that was ever seen."""
        tick = int((now + self._wall_s) * 1000) << 12
        self._version = (max(self._version >> 8, tick) + 1) << 8 | self._tag
        entry.version = self._version

    def _note(self, key: bytes, entry: Entry, *, others: bool = True) -> None:
        if self._bell is None:
            return
        entry.others = others
        self.seq = (self.seq + 1) & MASK
        self._changed[key] = self.seq
        self._changed.move_to_end(key)
        if len(self._changed) > CHANGES_KEPT:
            self._changed.popitem(last=False)
        self._bell.ring()

    def changes(self, after: int, count: int, kin: bool = True) -> tuple[int, list[tuple[int, Row]]] | None:
        """(last number, [(number, row)]) of what changed after a number; None when that is too long ago."""
        now = clock.monotonic()
        with self.lock:
            if (self.seq - after) & MASK > CHANGES_KEPT:
                return None
            found: list[tuple[int, Row]] = []
            for key, number in self._changed.items():
                entry = self._alive(key, now)
                if 0 < (number - after) & MASK < 1 << 31 and entry is not None and (kin or entry.others):
                    found.append((number, self._row(key, entry, now)))
                    if len(found) == count:
                        return number, found
            return self.seq, found

    def merge(
        self, key: bytes, left_ms: int, server_id: int, name: bytes, acked: int = 0, version: int = 0,
        data: tuple[int, ...] = (), quiet: bool = False, kinds: Iterable[int] | None = None,
    ) -> bool:  # fmt: skip
        """What a peer says; see core.peers.updates."""
        now = clock.monotonic()
        with self.lock:
            self._version = max(self._version, version)
            entry = self._alive(key, now)
            tell: bool | None = None  # None for nobody, else whether the others hear it too
            if entry is None:
                entry = self._made(key, now)
                if entry is None:
                    return False
                keep, left = False, 0.0
                if version or quiet:
                    entry.version = version or 1
                else:
                    self._revise(entry, now)
                    tell = False if self._kin else None
            else:
                left = entry.until - now
                same = not data and (entry.name == name if name else (entry.server_id, entry.name) == (server_id, b""))
                keep, tell = self._decide(key, entry, version, acked, now, same=same)
            if not keep:
                entry.server_id, entry.name = server_id, name
                self._take(entry, data, kinds, round(now * 1000))
            entry.until = now + max(left, min(left_ms, self.expire_ms) / 1000)
            self._entries.move_to_end(key)
            if tell is not None and not quiet:
                self._note(key, entry, others=tell)
        return True

    def _decide(
        self, key: bytes, entry: Entry, version: int, acked: int, now: float, *, same: bool
    ) -> tuple[bool, bool | None]:
        """(keep our content, whom to tell: None for nobody, True for all, False for haptk only)."""
        number = self._changed.get(key)
        ours = number is not None and entry.others
        if version:
            if version < entry.version:
                return True, None if same else entry.others
            keep, entry.version = version == entry.version, version
            # what we told the others may have reached them after what this peer told them
            return keep, True if ours and self._others and not same and not keep else None
        if same:
            return False, None
        if ours and number is not None and 0 < (number - acked) & MASK < 1 << 31:
            return True, True
        self._revise(entry, now)
        if ours and self._others > 1:
            return False, True
        return False, False if self._kin else None

    def _take(self, entry: Entry, data: tuple[int, ...], kinds: Iterable[int] | None, now_ms: int) -> None:
        numbers = iter(data)
        wanted = None if kinds is None else set(kinds)
        for kind, elements, _ in sorted(self.stored) if data else ():
            if wanted is not None and kind not in wanted:
                continue
            fresh = [
                Rate(now_ms - next(numbers), next(numbers), next(numbers)) if kind in RATES else next(numbers)
                for _ in range(elements)
            ]
            if kind != CONN_CUR:
                entry.data[kind] = fresh
