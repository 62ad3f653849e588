"""Requests that come behind large uploads, beside HAProxy: every rule, capture and log sees the bytes that are its own.

A connection that uploads gets another receive buffer, so what is pipelined behind the upload stands at places that small
requests never reach. Each conversation is one connection: uploads of 0 to 300 kB by length or in chunks, cut into pieces
anywhere, with other requests behind them. The servers must get the same, the client must get the same, and so must the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.diff.rig import Pair, Upstreams, _read_message, upstreams

CONVERSATIONS = 120
SIZES = (0, 1, 100, 4000, 16_300, 16_384, 32_000, 65_536, 79_000, 81_920, 90_000, 130_900, 131_072, 200_000, 300_000)
EDITS = """
    http-request deny if { path_beg /deny }
    http-request del-header X-Secret
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Length %[req.hdr(content-length),add(0)]
    http-request set-header X-Seen %[req.hdr(x-name),upper] if { req.hdr(x-name) -m found }
    http-request replace-path ^/moved/(.*) /new/path/that/is/longer/\\1
    http-response set-header X-Frame-Options DENY
    http-response del-header Server
"""
CAPTURES = """
    capture request header X-Name len 40
    capture request header X-Secret len 8
    capture response header Server len 10
"""
SECTIONS = {
    "plain": "",
    "edits": EDITS,
    "captures": CAPTURES,
    "both": CAPTURES + EDITS + "    option forwardfor\n    cookie SID insert indirect nocache\n",
}


def config(host: str, ports: list[int], servers: Upstreams, _: int) -> str:
    text = "defaults\n    mode http\n    timeout connect 9s\n    timeout client 9s\n    timeout server 9s\n    log @LOG@ local0\n"
    for name, port in zip(SECTIONS, ports, strict=True):
        text += (
            f'listen {name}\n    bind {host}:{port}\n    log-format "%ST %B %tsc {{%hr}} {{%hs}} %{{+Q}}r"\n'
            f"{SECTIONS[name]}    server s1 127.0.0.1:{servers.ports[0]} cookie one\n"
        )
    return text


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp("uploads"), servers, list(SECTIONS), config)
        try:
            yield both
        finally:
            both.stop()


def chunked(chance: random.Random, body: bytes) -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = min(chance.choice((1, 17, 1000, 16_384, 70_000)), len(body) - at)
        out += b"%x\r\n" % size + body[at : at + size] + b"\r\n"
        at += size
        if len(out) > 40_000:  # no million of small ones
            out += b"%x\r\n" % (len(body) - at) + body[at:] + b"\r\n" if at < len(body) else b""
            break
    return out + b"0\r\n\r\n"


def request(chance: random.Random, mark: str, *, upload: bool) -> bytes:
    path = chance.choice(("/plain", "/moved", "/deny" if not upload else "/plain"))
    head = f"{'POST' if upload else 'GET'} {path}/case/{mark} HTTP/1.1\r\nHost: h\r\nX-Case: {mark}\r\n"
    for line in (
        "X-Name: n" + "a" * chance.randrange(60),
        "X-Secret: stolen",
        "Cookie: a=b; SID=one; c=d",
        "X-Long: " + "l" * 900,
    ):
        if chance.random() < 0.6:
            head += line + "\r\n"
    if not upload:
        return head.encode() + b"\r\n"
    body = chance.randbytes(chance.choice(SIZES))
    if chance.random() < 0.4:
        return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(chance, body)
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def conversation(seed: int, host: str) -> list[tuple[str, bytes]]:
    """(mark, bytes) of each request; the marks of both programs are of one length."""
    chance = random.Random(seed)
    kinds = [True, *(chance.random() < 0.3 for _ in range(chance.randrange(1, 5)))]
    side = "h" if host == "127.0.0.1" else "k"
    return [(mark := f"{side}{seed:04d}n{at}", request(chance, mark, upload=upload)) for at, upload in enumerate(kinds)]


def talk(address: tuple[str, int], said: bytes, count: int, seed: int) -> list[tuple[list[str], bytes]]:
    """The answers to pipelined requests: header lines in order of names, and bodies."""
    chance, answers, rest = random.Random(seed), [], b""
    with socket.create_connection(address, 9) as channel:

        def send() -> None:
            at = 0
            with contextlib.suppress(OSError):
                while at < len(said):
                    size = chance.choice((len(said), len(said), 131_072, 80_000, 5000))
                    channel.sendall(said[at : at + size])
                    at += size

        sender = threading.Thread(target=send)
        sender.start()
        with contextlib.suppress(ConnectionError):
            while len(answers) < count:
                head, body, rest = _read_message(channel, rest)
                if not head:
                    break
                answers.append((sorted(head.decode("latin-1").lower().split("\r\n")), body))
        sender.join()
    return answers


def body_of(head: bytes, body: bytes) -> bytes:
    """Without the chunks, which each program cuts as it likes."""
    if b"chunked" not in head.lower():
        return body
    out, at = b"", 0
    while size := int(body[at : (end := body.index(b"\r\n", at))].split(b";")[0], 16):
        out += body[end + 2 : end + 2 + size]
        at = end + 4 + size
    return out


def tidy(text: str, mark: str) -> str:
    return re.sub(r"127\.0\.0\.\d+", "ADDRESS", text.replace(mark, "MARK"))


def what_happened(pair: Pair, index: int, section: str, seed: int) -> list[object]:
    host, program = pair.programs[index]
    said = conversation(seed, host)
    answers = talk((host, pair.ports[section]), b"".join(one for _, one in said), len(said), seed)
    found: list[object] = [answers]
    for mark, _ in said[: len(answers)]:
        found += [
            (
                sorted(tidy(one.head.decode("latin-1"), mark).lower().split("\r\n")),
                hashlib.sha256(body_of(one.head, one.body)).hexdigest(),
            )
            for one in pair.servers.seen.pop(mark, [])
        ]
        line = program.log.line(mark)
        found.append(tidy(line[line.find("]: ") + 3 :], mark))
    return found


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("section", SECTIONS)
def test_what_comes_behind_an_upload_is_seen_as_it_came(pair: Pair, section: str) -> None:
    base = 1000 * (1 + list(SECTIONS).index(section))
    for seed in range(base, base + CONVERSATIONS):
        theirs, ours = (what_happened(pair, index, section, seed) for index in (0, 1))
        assert ours == theirs, f"conversation {seed}"
