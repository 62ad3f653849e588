"""Several servers of one name take distinct addresses of the answer, beside the real haproxy, with a real dnsmasq."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Program, ask, free_ports, start
from tests.diff.test_diff_resolvers import Dns

pytestmark = [pytest.mark.real("haproxy", "dnsmasq"), pytest.mark.timeout(180)]
FILE = """global
 stats socket {folder}/{kind}.sock level admin
defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 1s
resolvers here
 nameserver dnsmasq 127.0.0.1:{dns}
 timeout resolve 200ms
 timeout retry 300ms
 hold valid 300ms
 hold nx 600ms
 hold obsolete 0s
listen web
 bind {host}:{port}
backend template
 server-template t 3 many.test:80 resolvers here resolve-prefer ipv4 init-addr none
backend lines
 server a many.test:81 resolvers here resolve-prefer ipv4 init-addr none
 server b many.test:82 resolvers here resolve-prefer ipv4 init-addr none
backend together
 server-template d 2 many.test:80 resolvers here resolve-prefer ipv4 init-addr none resolve-opts allow-dup-ip
backend begins
 server x many.test:80 resolvers here resolve-prefer ipv4 init-addr 127.0.0.2
 server y many.test:80 resolvers here resolve-prefer ipv4 init-addr 127.0.0.2
"""


class Side:
    def __init__(self, kind: str, folder: Path, dns: Dns) -> None:
        self.kind, self.folder = kind, folder
        self.host = "127.0.0.1" if kind == "haproxy" else "127.0.0.9"
        (port,) = free_ports(1)
        text = FILE.format(folder=folder, kind=kind, host=self.host, port=port, dns=dns.port)
        self.program: Program = start(kind, text, folder, [(self.host, port)])

    def addresses(self, backend: str) -> list[str]:
        """Where the servers of a backend are; `-` for one without an address, which has to be in maintenance."""
        lines = [
            line.split()
            for line in ask(self.folder / f"{self.kind}.sock", f"show servers state {backend}").splitlines()
        ]
        found = []
        for row in lines:
            if len(row) > 20 and row[0] != "#":
                away = bool(int(row[6]) & 32)
                assert away == (row[5] == "0"), row
                found.append("-" if away else row[4])
        return sorted(found)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Dns, list[Side]]]:
    dns = Dns(tmp_path)
    made: list[Side] = []
    try:
        for kind in ("haproxy", "fast"):
            made.append(Side(kind, tmp_path, dns))
        yield dns, made
    finally:
        for side in made:
            side.program.stop()
        dns.stop()


STEPS = [
    (["127.0.0.2 many.test", "127.0.0.3 many.test"], {
        "template": ["-", "127.0.0.2", "127.0.0.3"], "lines": ["127.0.0.2", "127.0.0.3"],
        "begins": ["127.0.0.2", "127.0.0.3"],
    }),
    (["127.0.0.2 many.test", "127.0.0.3 many.test", "127.0.0.4 many.test"], {
        "template": ["127.0.0.2", "127.0.0.3", "127.0.0.4"],
    }),
    (["127.0.0.4 many.test"], {
        "template": ["-", "-", "127.0.0.4"], "lines": ["-", "127.0.0.4"], "together": ["127.0.0.4", "127.0.0.4"],
        "begins": ["-", "127.0.0.4"],
    }),
    (["127.0.0.5 many.test", "127.0.0.4 many.test"], {
        "template": ["-", "127.0.0.4", "127.0.0.5"], "lines": ["127.0.0.4", "127.0.0.5"],
        "begins": ["127.0.0.4", "127.0.0.5"],
    }),
    (["127.0.0.9 other.test"], {
        "template": ["-", "-", "-"], "lines": ["-", "-"], "together": ["-", "-"], "begins": ["-", "-"],
    }),
    (["127.0.0.6 many.test", "127.0.0.7 many.test", "127.0.0.8 many.test"], {
        "template": ["127.0.0.6", "127.0.0.7", "127.0.0.8"],
    }),
]  # fmt: skip


def test_each_server_of_a_name_has_an_address_of_its_own(sides: tuple[Dns, list[Side]]) -> None:
    dns, both = sides
    for hosts, wanted in STEPS:
        dns.say(*hosts)
        for side in both:
            for backend, addresses in wanted.items():
                deadline = time.monotonic() + 20
                while (found := side.addresses(backend)) != addresses:
                    assert time.monotonic() < deadline, f"{side.kind} {backend} under {hosts}: {found}, not {addresses}"
                    time.sleep(0.1)
