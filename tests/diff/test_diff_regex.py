"""Rules with regular expressions where libpcre2 is missing: the compiled path asks Python's `re`, and answers as HAProxy.

The library is hidden by an empty file that is mounted over it in a mount namespace of the proxy's own.
"""

from __future__ import annotations

import ctypes.util
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff import rig
from tests.diff.rig import PLAIN, Pair, Upstreams, upstreams

pytestmark = [
    pytest.mark.real("haproxy", "unshare"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace"),
]
RULES = r"""
 http-request deny if { path_reg ^/admin(/|$) }
 http-request deny deny_status 429 if { hdr_reg(user-agent) -i ^(curl|wget)/[0-9.]+$ }
 http-request redirect location /new code 302 if { path -m reg /old/[a-z]{2,3}$ }
 http-request replace-header X-Name ^(\w+)-(\w+)$ \2-\1
 http-request replace-value X-List a+ <\0>
 http-request set-header X-Sub %[req.hdr(X-In),regsub(a+,b,g)]
 http-request del-header ^X-Secret-.* -m reg
 http-response replace-header Location ^http://inner(.*)$ https://outer\1
"""
REQUESTS = [
    ("/admin", ()), ("/admin/x", ()), ("/administrator", ()), ("/a", ("User-Agent: Curl/7.88",)),
    ("/a", ("User-Agent: curl/7.88 x",)), ("/old/ab", ()), ("/old/abcd", ()), ("/a", ("X-Name: one-two",)),
    ("/a", ("X-Name: one-two-three",)), ("/a", ("X-List: aa, b, ca",)),
    ("/a", ("X-In: baaad a",)), ("/a", ("X-In: \xe4aa",)), ("/a", ("X-Secret-1: q", "x-secret-2: r", "X-Secre: s")),
]  # fmt: skip
ANSWER = PLAIN.replace(b"\r\n\r\n", b"\r\nLocation: http://inner/x\r\n\r\n")


def library() -> Path:
    """The file behind libpcre2-8.so.0."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        found = next((line.split()[-1] for line in maps if "libpcre2-8.so" in line), "")
    if not found:
        name = ctypes.util.find_library("pcre2-8") or ""
        ctypes.CDLL(name)
        return library()
    return Path(found)


def config(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    del dead
    return f"""defaults
 mode http
 timeout connect 1s
 timeout client 6s
 timeout server 6s
listen l
 bind {host}:{ports[0]}
{RULES}
 server s1 127.0.0.1:{servers.ports[0]}
"""


@pytest.fixture
def blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """haproxy, and haptk that cannot load libpcre2."""
    empty = tmp_path / "empty"
    empty.touch()
    wrapper = tmp_path / "haptk"
    wrapper.write_text(
        f'#!/bin/sh\nexec unshare --mount sh -c \'mount --bind {empty} {library()} && exec "$0" "$@"\' {rig.HAPTK} "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(rig, "HAPTK", wrapper)
    with upstreams(1) as servers:
        pair = Pair("fast", tmp_path, servers, ["l"], config)
        try:
            yield pair
        finally:
            pair.stop()


def test_rules_without_the_library_do_what_haproxys_do(blind: Pair) -> None:
    haptk = blind.programs[1][1]
    maps = Path(f"/proc/{haptk.process.pid}/maps").read_text(encoding="utf-8")
    assert "pcre2" not in maps and "_fast/session" in maps  # hidden, and compiled
    assert "libpcre2" in haptk.output.read_text()  # a warning says so
    for path, headers in REQUESTS:
        lines = [f"GET {path} HTTP/1.1", "Host: h", "X-Case: @CASE@", *headers]
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        theirs, ours = blind.run("l", raw, ANSWER)
        seen = [
            [line for one in side.seen for line in one.lines() if "x-case" not in line.lower()]
            for side in (theirs, ours)
        ]
        assert (ours.got.status, sorted(ours.got.lines())) == (theirs.got.status, sorted(theirs.got.lines())), path
        assert sorted(seen[1]) == sorted(seen[0]), f"{path} {headers}"


def test_the_library_is_there_without_the_mount() -> None:
    """Or the test above would show nothing."""
    done = subprocess.run(
        [str(Path(rig.HAPTK).parent / "python"), "-c", "from haptk._fast import regex; print(regex.available())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "True"
