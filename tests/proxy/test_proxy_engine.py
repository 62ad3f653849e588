"""Which path serves a file: the compiled one, or the reference where a file needs what the other does not have."""

from __future__ import annotations

import pytest

from haptk.proxy import reference
from haptk.proxy.compile import load_text
from haptk.proxy.engine import data_plane

FILE = """listen web
    bind 127.0.0.1:1
    mode http
    timeout client 1s
    timeout server 1s
    timeout connect 1s
    {line}
    server s1 127.0.0.1:2 {words}
"""


def _tables(line="balance roundrobin", words=""):
    return load_text(FILE.format(line=line, words=words))


@pytest.mark.parametrize(
    "line",
    [
        "cookie A insert indirect nocache maxidle 1h", "balance leastconn", "balance uri depth 2", "option originalto",
        "option httpchk GET /", "option http-server-close", "balance uri\n    hash-type map-based wt6",
        "stick-table type ip size 1k\n    stick on src if { src 127.0.0.1 }", "appsession A len 9 timeout 1h request-learn",
        "http-request deny if { path /x }", "force-persist if { path /x }", "redirect prefix /a if { path_reg ^/b }",
    ],
)  # fmt: skip
def test_compiled_path_serves(line):
    image, worker = data_plane(_tables(line))
    assert image.__module__ == "haptk._fast.conf"
    assert worker.__module__ == "haptk._fast.worker"


def test_environment_forces_the_reference(monkeypatch):
    monkeypatch.setenv("HAPTK_NO_FAST", "1")
    assert data_plane(_tables())[0] is reference.Image
