"""Clients that say nothing, or not enough, beside HAProxy: what they get, what is logged and what is counted, under the
options that speak of them.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Pair, Upstreams, ask, upstreams

OPTIONS = {
    "neither": "",
    "null": "option dontlognull",
    "probes": "option http-ignore-probes",
    "both": "option dontlognull\n    option http-ignore-probes",
}
CLIENTS = ("reset", "closes", "halfcloses", "waits", "partreset", "partcloses", "blank")
COUNTERS = ("stot", "req_tot", "ereq", "hrsp_4xx", "hrsp_5xx", "hrsp_other")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("silent")

    def config(host: str, ports: list[int], _servers: Upstreams, _dead: int) -> str:
        text = (
            f"global\n    stats socket {directory}/{host}.sock level admin\ndefaults\n    mode http\n    log @LOG@ local0\n"
            "    timeout connect 5s\n    timeout client 10s\n    timeout server 10s\n    timeout http-request 500ms\n"
        )
        for (name, lines), port in zip(OPTIONS.items(), ports, strict=True):
            text += f"frontend {name}\n    bind {host}:{port}\n    option httplog\n    {lines}\n"
        return text

    with upstreams(1) as servers:
        both = Pair("fast", directory, servers, list(OPTIONS), config)
        both.directory = directory  # type: ignore[attr-defined]
        try:
            yield both
        finally:
            both.stop()


def visit(address: tuple[str, int], kind: str) -> bytes:
    """Be that client; returns the first line it got."""
    with socket.create_connection(address, 10) as channel:
        channel.settimeout(10)
        if kind.startswith("part"):
            channel.sendall(b"GET / HT")
        elif kind == "blank":
            channel.sendall(b"\r\n")
        if kind not in ("halfcloses", "waits"):
            time.sleep(0.05)
        if kind.endswith("reset"):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        if kind == "halfcloses":
            channel.shutdown(socket.SHUT_WR)
        if kind in ("halfcloses", "waits"):
            answer = b""
            while part := channel.recv(4096):
                answer += part
            return answer.partition(b"\r\n")[0]
    return b""


def counters(path: Path, name: str) -> dict[str, int]:
    rows = [line.split(",") for line in ask(path, "show stat").splitlines()]
    row = next(row for row in rows if row[:2] == [name, "FRONTEND"])
    return {column: int(row[rows[0].index(column)] or 0) for column in COUNTERS}


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_clients_that_say_nothing(pair: Pair, option: str, kind: str) -> None:
    found = []
    for host, program in pair.programs:
        path = pair.directory / f"{host}.sock"  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while re.search(rf"(?m)^{option},FRONTEND,[^,]*,[^,]*,[1-9]", ask(path, "show stat")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        before = counters(path, option)
        with program.log.changed:
            program.log.lines.clear()
        got = visit((host, pair.ports[option]), kind)
        while re.search(rf"(?m)^{option},FRONTEND,[^,]*,[^,]*,[1-9]", ask(path, "show stat")) or (
            counters(path, option)["stot"] == before["stot"]
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)  # a line that does not come
        with program.log.changed:
            lines = [line for group in program.log.lines.values() for line in group]
        lines = [re.sub(r"/\d+ (\d{3}) ", r"/N \1 ", line.partition(f" {option} ")[2]) for line in lines]
        now = counters(path, option)
        found.append((got, lines, {name: now[name] - before[name] for name in COUNTERS}))
    assert found[1] == found[0]
