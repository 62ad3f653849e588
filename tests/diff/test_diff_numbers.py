"""Numbers of the file that become places in a text: converters, occurrences and slots with extreme values, beside HAProxy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import HAPTK, Pair, Upstreams, upstreams

SIZES = (
    "0",
    "1",
    "3",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967297",
    "9223372036854775807",
    "99999999999999999999",
)
SIGNED = ("1", "-1", "3", "-3", "4294967297", "-4294967295", "9223372036854775807", "-9223372036854775808")
EXPRESSIONS = (
    [f"req.hdr(x-value),bytes({at})" for at in SIZES]
    + [f"req.hdr(x-value),bytes({at},{count})" for at in ("0", "2", "4294967296") for count in SIZES]
    + [f"req.hdr(x-value),{name}({at},{by})" for name in ("field", "word") for at in SIGNED for by in ("c", "c.")]
    + [f"int(5),{name}({at})" for name in ("add", "sub", "mul", "div", "mod", "xor") for at in SIGNED]
    + [f"int({at})" for at in (*SIGNED, "9223372036854775808", "-99999999999999999999")]
    + [f"req.hdr(x-value,{at})" for at in ("", "0", "1", "2", "-1", "-10", "2147483647", "9223372036854775807")]
    + [f"capture.req.hdr({at})" for at in ("0", "1", "4294967296")]
)
# what haptk refuses as HAProxy does; each was accepted
REFUSED = (
    "req.hdr(x,-11)",
    "req.fhdr(x,-4294967297)",
    "req.hdr_val(x,-11)",
    "str(x),regsub(,x,g)",
    "str(x),field(1,)",
    "str(x),word(0,c)",
    "str(x),field(0,c)",
)
DEFAULTS = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"


def config(host: str, ports: list[int], servers: Upstreams, _: int) -> str:
    text = DEFAULTS + f"listen numbers\n    bind {host}:{ports[0]}\n    capture request header X-Value len 3\n"
    for at, expression in enumerate(EXPRESSIONS):
        text += f"    http-request redirect location /found if {{ path /{at}/found }} {{ {expression} -m found }}\n"
        text += f"    http-request redirect location '[%[{expression}]]' if {{ path /{at} }}\n"
    return text + f"    server s1 127.0.0.1:{servers.ports[0]}\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp("numbers"), servers, ["numbers"], config)
        try:
            yield both
        finally:
            both.stop()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("value", ["", "ab", "abc", "a.c.d", "ccc", "x,y,zz"])
def test_places_far_outside_of_a_text_are_those_of_haproxy(pair: Pair, value: str) -> None:
    for at, expression in enumerate(EXPRESSIONS):
        for path in (f"/{at}", f"/{at}/found"):
            raw = f"GET {path} HTTP/1.1\r\nHost: h\r\nX-Value: {value}\r\nConnection: close\r\n\r\n".encode()
            theirs, ours = (one.got for one in pair.run("numbers", raw))
            assert (ours.status, ours.values("location")) == (theirs.status, theirs.values("location")), expression


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("expression", REFUSED)
def test_what_can_have_no_place_is_refused(expression: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(
        DEFAULTS + f"frontend f\n    bind 127.0.0.1:1\n    http-request deny if {{ {expression} -m found }}\n",
        encoding="utf-8",
    )
    theirs = subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    ours = subprocess.run([HAPTK, "proxy", "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert theirs.returncode != 0
    assert ours.returncode != 0
    assert re.search(r"haproxy\.cfg:8: ", ours.stderr + ours.stdout)
