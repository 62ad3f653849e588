"""The peers protocol under mutated streams: a session never breaks, and both codecs learn the same or refuse the same.

    .venv/bin/python tests/fuzz/fuzz_peers.py [--seconds N] [--seed N]

Each case is a greeting and messages of all kinds, some of them edited, cut and delivered in pieces. Prints the seed
first; a finding prints the stream and ends with 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from haptk._fast import peerwire
from haptk._fast.table import Bell, Table
from haptk.core.peers import updates, wire
from haptk.core.peers.session import Session, Shared

KINDS = {"string": 8, "ip": 4, "integer": 4, "binary": 5}
CODECS = ((updates.Stream, updates.Names), (peerwire.Stream, peerwire.Names))


def tables() -> list[Table]:
    """One table of each kind, listened to."""
    made = [Table(kind, kind, length, 50, 60.0) for kind, length in KINDS.items()]
    for one in made:
        one.listen(Bell())
    return made


def shared(made: list[Table]) -> list[Shared]:
    sizes = {"string": 9, "binary": 5}
    return [
        Shared(one.name, one, wire.KEY_TYPES[one.type], sizes.get(one.type, 4), at) for at, one in enumerate(made, 1)
    ]


def stream(rng: random.Random) -> bytes:
    """Messages of a peer that is mostly sane."""
    source, names = tables(), updates.Names()
    out = []
    for one in shared(source):
        flow = updates.Stream(one.table, names, one.table.seq)
        for _ in range(rng.randrange(6)):
            key = (
                rng.randbytes(one.table.length).rstrip(b"\0")
                if one.table.type == "binary"
                else rng.randbytes(one.table.length)
            )
            one.table.learn(key, rng.randrange(9), rng.choice([b"", b"s1", b"s2", b"n" * 40]))
        out.append(wire.put_message(wire.UPDATES, wire.DEFINE, one.definition().encode()))
        out.append(flow.push(rng.random() < 0.7) or b"")
        out.append(rng.choice([b"", b"\0\0", b"\0\1", b"\0\2", b"\0\3", b"\0\4", b"\0\x77"]))
        out.append(
            wire.put_message(wire.UPDATES, wire.ACK, wire.put_int(rng.randrange(6)) + rng.randbytes(4))
            if rng.random() < 0.3
            else b""
        )
        out.append(
            wire.put_message(wire.UPDATES, wire.SWITCH, wire.put_int(rng.randrange(1, 4)))
            if rng.random() < 0.2
            else b""
        )
    data = bytearray(b"".join(out))
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        edit = rng.randrange(4)
        if edit == 0:
            data[at:at] = rng.randbytes(rng.randrange(1, 6))
        elif edit == 1:
            del data[at : at + rng.randrange(1, 8)]
        elif edit == 2 and at < len(data):
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xF0, 0xFF, rng.randrange(256)])
        else:
            del data[at:]
    return bytes(data)


def outcome(data: bytes, pieces: list[int], codec: tuple[type, type]) -> tuple[object, ...]:
    """What one codec made of a stream: the tables, why it ended, what it answered."""
    made = tables()
    session = Session("B", shared(made), {"A": {}}, 0.0, remote="A", make=codec[0], names=codec[1]())
    session.receive(b"200\n", 0.0)
    said = session.to_send(0.0)
    at = 0
    for size in [*pieces, len(data)]:
        if at < len(data) and not session.over:
            session.receive(data[at : at + size], 0.0)
            while part := session.to_send(0.0):
                said += part
            at += size
    # what lives for less than a second may be gone in the slower codec's run already
    learned = [sorted((row[0], row[2], row[3]) for row in one.entries()[1] if not 0 < row[1] <= 1000) for one in made]
    # entries may be told in another order and under other numbers of names: what they say is compared by learning it
    talk = [x for x in wire.messages(said.split(b"\n", 3)[3]) if x[1] not in wire.ENTRIES]
    return learned, bool(session.over), talk


def outcomes(data: bytes, pieces: list[int]) -> list[tuple[object, ...]]:
    """Of each codec. A message may give an entry a millisecond to live: what differs has to differ again and again."""
    for _ in range(5):
        found = [outcome(data, pieces, codec) for codec in CODECS]
        if found[0] == found[1]:
            break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(1 << 31)
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    until = time.monotonic() + chosen.seconds
    count = 0
    while time.monotonic() < until:
        data = stream(rng)
        pieces = [rng.randrange(1, 40) for _ in range(rng.randrange(30))]
        found = outcomes(data, pieces)
        count += 1
        if found[0] != found[1]:
            print(f"the codecs differ: {data!r} in pieces {pieces}\n  python   {found[0]}\n  compiled {found[1]}")
            return 1
    print(f"{count} streams, no finding")
    return 0


if __name__ == "__main__":
    sys.exit(main())
