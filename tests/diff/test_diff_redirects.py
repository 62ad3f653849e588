"""`redirect` lines take their text as it stands, `http-request redirect` a format: each word and flag beside HAProxy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import HAPTK, Pair, Upstreams, upstreams

TEXTS = (
    "/",
    "/there",
    "//x",
    "/a%20b",
    "/%[path]",
    "/%%x",
    "/%ci",
    "/%{+Q}[src]",
    "http://h/%H",
    "/x?y=1",
    "/x/",
    "%",
    "50%",
)
FLAGS = (
    "", "drop-query", "append-slash", "drop-query append-slash", "code 301", "code 303 drop-query", "code 307", "code 308",
    "set-cookie A=1", "clear-cookie A=", "set-cookie A=1 clear-cookie B=", "clear-cookie B= set-cookie A=1", "ignore-empty",
)  # fmt: skip
FORMATS = ("/", "/there", "/%[path]", "%[str(/)]", "%[req.hdr(x-none)]", "/%%x", "/%HP?%[query]", "/%{+Q}HM", "x y  z")
TARGETS = ("/p/q?a=1&b=2", "/p/?", "http://other.example/z?y", "http://other.example")


def lines() -> list[str]:
    found = []
    for kind in ("location", "prefix", "scheme"):
        # every text with one flag, and every flag with one text
        found += [f'redirect {kind} "{text}"' for text in TEXTS]
        found += [f"redirect {kind} /there {flag}" for flag in FLAGS]
        found += [f'http-request redirect {kind} "{text}"' for text in FORMATS]
        found += [f'http-request redirect {kind} "%[req.hdr(x-none)]" {flag}' for flag in FLAGS]
    found += [f'http-response redirect location "{text}"' for text in FORMATS if not re.search("path|query|req", text)]
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    names = [f"l{number}" for number in range(len(lines()))]

    def config(host: str, ports: list[int], servers: Upstreams, _dead: int) -> str:
        text = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        for name, port, line in zip(names, ports, lines(), strict=True):
            text += f"listen {name}\n    bind {host}:{port}\n    {line}\n    server s1 127.0.0.1:{servers.ports[0]}\n"
        return text

    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp("redirects"), servers, names, config)
        try:
            yield both
        finally:
            both.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("target", TARGETS)
def test_a_redirect_goes_where_haproxys_goes(pair: Pair, target: str) -> None:
    wrong = []
    for number, line in enumerate(lines()):
        host = "other.example" if "other" in target else "h.example"
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Case: @CASE@\r\n\r\n".encode()
        theirs, ours = (
            [result.got.lines()[0], *sorted(one.lower() for one in result.got.lines()[1:])]
            for result in pair.run(f"l{number}", request)
        )
        ours = [re.sub(r"127\.0\.0\.9", "127.0.0.1", one) for one in ours]
        if theirs != ours:
            wrong.append(f"{line}: {theirs}, haptk {ours}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("line", ["http-response redirect prefix /x", "http-response redirect scheme https"])
def test_an_answer_is_redirected_to_a_location_only(tmp_path: Path, line: str) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(f"listen l\n    mode http\n    bind 127.0.0.1:1\n    {line}\n")
    for command in (["haproxy"], [str(HAPTK), "proxy"]):
        assert subprocess.run([*command, "-c", "-f", str(file)], capture_output=True, check=False).returncode == 1
