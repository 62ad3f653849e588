"""A request that is bound to a server which goes out of service during its retries, beside the real haproxy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.diff.rig import Got, ask, exchange, free_ports, start, upstreams

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(240)]
FILE = """global
 stats socket {folder}/{name}.sock level admin
defaults
 mode http
 timeout connect 1s
 timeout client 30s
 timeout server 30s
 retries 12
 {redispatch}
listen web
 bind {host}:{port}
 cookie SRV insert indirect
 server s1 127.0.0.1:{dead} cookie one
 server s2 127.0.0.1:{alive} cookie two
"""
WAYS = ("health down", "state maint")
LINES = ("option redispatch", "option redispatch -3", "no option redispatch")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("way", WAYS)
def test_retries_end_with_their_server(way: str, line: str, tmp_path: Path) -> None:
    """HAProxy looks at the server at each attempt: with redispatch the next one goes elsewhere."""
    outcome = {}
    with upstreams(1) as servers:
        for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
            port, dead = free_ports(2)
            text = FILE.format(
                folder=tmp_path, name=kind, host=host, port=port, dead=dead, alive=servers.ports[0], redispatch=line
            )
            program = start(kind, text, tmp_path, [(host, port)])
            got: list[Got] = []
            raw = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: SRV=one\r\nConnection: close\r\n\r\n"
            client = threading.Thread(
                target=lambda host=host, port=port, got=got, raw=raw: got.append(
                    exchange((host, port), raw, timeout_s=40)
                )
            )
            try:
                client.start()
                time.sleep(0.5)
                ask(tmp_path / f"{kind}.sock", f"set server web/s1 {way}")
                began = time.monotonic()
                client.join(5)
                waited = client.is_alive()
                if line == "no option redispatch":
                    assert waited, f"{kind}: it goes on"
                else:
                    assert not waited, f"{kind}: it waits for retries at a server that is out of service"
                    outcome[kind] = got[0].status, got[0].values("set-cookie"), time.monotonic() - began < 3
            finally:
                program.stop()
                client.join(40)
    assert outcome.get("fast") == outcome.get("haproxy")
