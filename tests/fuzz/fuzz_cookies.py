"""Mutated cookies through a running proxy, compared with the truth table of core.cookie on both sides.

    .venv/bin/python tests/fuzz/fuzz_cookies.py [--seconds N] [--seed N] [--path fast|reference]

Every exchange goes over real sockets: what the server received of the Cookie headers and what the client received of
the response's headers has to be what the table says. Prints the seed first; a finding prints the exchange, ends with 1.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from haptk.core.cookie import Candidate, read_request, write_response
from haptk.proxy.compile import load_text
from tests.diff.rig import Result, Upstreams, exchange, start, upstreams
from tests.diff.test_diff_cookies import COMPILED, case, config
from tests.ports import free_ports

DATE = re.compile(r"\|[A-Za-z0-9+/]{5}")
PIECES = [
    ";",
    ",",
    '"',
    "\\",
    "~",
    "|",
    "=",
    " ",
    "\t",
    "SRV",
    "SRV=s1",
    "s2~",
    "$",
    "|AAAAA",
    "\xe9",
    "$Path",
    "; ;",
    '""',
]


def mutate(generator: random.Random, raw: bytes, names: tuple[bytes, ...]) -> bytes:
    """Edits inside the values of the headers named, so that the message stays one message."""
    lines = raw.split(b"\r\n")
    for at, line in enumerate(lines):
        name, colon, value = line.partition(b":")
        if not colon or name.lower() not in names or generator.random() < 0.5:
            continue
        place = generator.randrange(len(value) + 1)
        piece = generator.choice(PIECES).encode("latin-1")
        cut = generator.choice([0, 0, 1, 3])
        lines[at] = name + b": " + (value[:place] + piece + value[place + cut :]).strip(b" \t")
    return b"\r\n".join(lines)


def finding(rule: object, mode: str, request: bytes, response: bytes, result: Result, now_s: int) -> str | None:
    """What differs from the table."""
    servers = [Candidate(f"s{n}", n != 3) for n in (1, 2, 3, 4)]
    lines = [line.partition(b":") for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    cookies = [value.strip(b" \t").decode("latin-1") for name, _, value in lines if name.lower() == b"cookie"]
    asked = read_request(rule, cookies, servers, now_s)  # type: ignore[arg-type]
    if not result.seen:
        return f"no server was asked: {result.got.head!r}"
    sent = [value for value in asked.headers if value]
    got = [value for value in result.seen[-1].values("cookie") if value]
    if [value.strip(" \t") for value in sent] != [value.strip(" \t") for value in got]:
        return f"the server received {got!r}, the table says {sent!r}"
    index = int(result.server[1]) - 1
    if asked.server is not None and asked.server != index:
        return f"the cookie means {asked.server}, {index} was asked"
    head = response.partition(b"\r\n\r\n")[0].split(b"\r\n")
    pairs = [
        (n.lower().decode(), v.strip(b" \t").decode("latin-1"))
        for n, _, v in (line.partition(b":") for line in head[1:])
    ]
    answered = write_response(
        rule, asked, servers[index], pairs, method=request.split(b" ")[0].decode(), status=result.got.status,
        now_s=now_s, direct=asked.server is not None,
    )  # type: ignore[arg-type]  # fmt: skip
    kinds = ("set-cookie", "set-cookie2", "cache-control")
    want = [f"{n}: {DATE.sub('|date', v)}".rstrip() for n, v in answered.headers if n in kinds]
    have = [
        DATE.sub("|date", line).rstrip() for line in result.got.lines()[1:] if line.partition(":")[0].lower() in kinds
    ]
    return None if want == have else f"the client received {have!r}, the table says {want!r}"


def run(servers: Upstreams, path: str, generator: random.Random, seconds: float) -> int:
    """Exchanges until the time is over or something differs."""
    modes = [mode for mode in COMPILED if mode != "dynamic"]
    ports = dict(zip(modes, free_ports(len(modes)), strict=True))
    text = config(modes, "127.0.0.1", list(ports.values()), servers, free_ports(1)[0])
    rules = {back.name: back.cookie for back in load_text(text.replace("@LOG@", "127.0.0.1:9")).backends}
    addresses = [("127.0.0.1", port) for port in ports.values()]
    program = start(path, text, Path(tempfile.mkdtemp()), addresses)
    end = time.monotonic() + seconds
    count = 0
    try:
        while time.monotonic() < end:
            count += 1
            mode = generator.choice(modes)
            request, response = case(generator)
            request = mutate(generator, request, (b"cookie",)).replace(b"@CASE@", str(count).encode())
            response = mutate(generator, response, (b"set-cookie",))
            servers.scripts[str(count)] = response
            got = exchange(("127.0.0.1", ports[mode]), request, head_only=request.startswith(b"HEAD"))
            result = Result(got, servers.seen.pop(str(count), []))
            del servers.scripts[str(count)]
            wrong = finding(rules[mode], mode, request, response, result, int(time.time()))
            if wrong:
                print(f"after {count} exchanges, mode {mode}:\n{request!r}\n{response!r}\n{wrong}")
                return 1
    finally:
        program.stop()
    print(f"{count} exchanges, nothing found")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--path", choices=("fast", "reference"), default="fast")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with upstreams() as servers:
        return run(servers, chosen.path, random.Random(chosen.seed), chosen.seconds)


if __name__ == "__main__":
    sys.exit(main())
