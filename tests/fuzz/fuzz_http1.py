"""The compiled HTTP/1 parser under mutated messages: what it accepts must read the same when it is written again. (How it
compares with HAProxy is tests/diff/test_diff_grammar.py's business.)

    .venv/bin/python tests/fuzz/fuzz_http1.py [--seconds N] [--seed N]

Prints the seed first; a disagreement prints the message and both readings and ends with 1. To look for memory errors, build
the extension with CFLAGS=-fsanitize=address,undefined and preload libasan with PYTHONMALLOC=malloc.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from haptk._fast import http1

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x?y HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 5\r\nCookie: a=1; b=2\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close, x\r\n\r\n0\r\n\r\n",
    b"GET http://a/b HTTP/1.1\r\nHost: a\r\nAccept:  */* \r\nX: \r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nUpgrade: x\r\n\r\n",
    b"\r\nGET / HTTP/1.0\n\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"GET /a/long/target/with?x=0123456789 HTTP/1.1\r\nHOST: app.example.org:8080\r\nUpgrade-Insecure-Requests: 1\r\n"
    b"Sec_Fetch~Dest: document\r\nX-Forwarded-Proto.Of!The: https\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\nETag: x\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 204\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
]
CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a;x=y\r\n0123456789\r\n00\r\nT: 1\r\n\r\n",
    b'1\r\nx\r\n1;q="a;b"\r\ny\r\n0;l\r\n\r\nrest',
]
PIECES = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"\0", b"\x80", b"\x7f", b"0", b"9", b"-", b"chunked",
          b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"HTTP/1.1", b"ffffffffffffffff",
          b"18446744073709551616", b"\r\n\r\n", b"\"", b"~", b"=", b" folded\r\n"]  # fmt: skip


def mutate(generator: random.Random, data: bytes) -> bytes:
    """A few edits: cut, double, insert, replace, flip."""
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(len(data) + 1)
        kind = generator.randrange(5)
        if kind == 0:
            data = data[:at] + generator.choice(PIECES) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + generator.randrange(1, 4) :]
        elif kind == 2 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << generator.randrange(8))]) + data[at + 1 :]
        elif kind == 3:
            end = min(len(data), at + generator.randrange(1, 30))
            data = data[:end] + data[at:end] + data[end:]
        else:
            data = data[:at]
    return data


def written(head: dict[str, Any]) -> bytes:
    """The head as everybody writes it."""
    version = f"HTTP/1.{head['minor']}"
    ours = (version, head["status"], head["reason"]) if head["status"] else (head["method"], head["target"], version)
    first = " ".join(map(str, ours))
    lines = [first, *(f"{name}: {value}" for name, value in head["headers"]), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def disagreement(kind: str, data: bytes, cut: int = 0) -> str | None:
    """A text when the parser disagrees with itself: a message that it accepts reads the same when it is written again, and
    no part of it is taken for the whole."""
    read = http1.request_head if kind == "request" else http1.response_head
    found = read(data)
    if not found:
        return None
    again = read(written(found))
    if not again or {**again, "size": 0} != {**found, "size": 0}:
        return f"{kind} {data!r} reads differently again:\n  {found}\n  {again}"
    if cut < found["size"] and read(data[:cut]) is not None:
        return f"{kind} {data[:cut]!r} is not the beginning of {data!r}"
    return None


def one(generator: random.Random) -> str | None:
    """One mutated message of one kind."""
    kind = generator.choice(("request", "response", "chunks"))
    if kind == "chunks":
        data = mutate(generator, generator.choice(CHUNKS))
        for strip in (False, True):
            found = http1.chunked_body(data, strip)
            if found and not strip:
                again = http1.chunked_body(found[0])
                if not again or again != (found[0], b""):
                    return f"chunks {data!r}: what is forwarded, {found[0]!r}, reads differently again: {again!r}"
        return None
    data = mutate(generator, generator.choice(REQUESTS if kind == "request" else RESPONSES))
    return disagreement(kind, data, generator.randrange(len(data) + 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    generator = random.Random(chosen.seed)
    end = time.monotonic() + chosen.seconds
    count = 0
    while time.monotonic() < end:
        count += 1
        found = one(generator)
        if found:
            print(f"after {count} messages:\n{found}")
            return 1
    print(f"{count} messages, no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
