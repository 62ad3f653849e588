"""Clients of HAProxy that look at the name and the version first: they find what they know (decision 0009)."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.proxy.test_start import DEFAULTS, PROGRAMS, Started, listens, stats, until

pytestmark = pytest.mark.real("haproxy")


class Running:
    def __init__(self, folder: Path, program: str) -> None:
        self.place, self.port = str(folder / "stats"), free_port()
        app = free_port()
        text = f"""global
    stats socket {self.place} level admin
{DEFAULTS}frontend f
    bind 127.0.0.1:{self.port}
    stats uri /st
    http-request use-service prometheus-exporter if {{ path /metrics }}
    default_backend www
backend www
    server a 127.0.0.1:{app}
    server b 127.0.0.1:{app}
"""
        self.program = Started(folder, PROGRAMS[program], text)
        until(lambda: listens(self.port), "serves")

    def ask(self, command: str) -> str:
        return stats(self.place, command)

    def page(self, target: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{target}", timeout=20) as response:
            return response.read().decode()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    made: list[Running] = []

    def start(program: str) -> Running:
        folder = tmp_path / program
        folder.mkdir()
        made.append(Running(folder, program))
        return made[-1]

    yield start
    for one in made:
        one.program.end()


@pytest.mark.parametrize("program", PROGRAMS)
def test_haproxyadmin(program: str, running: Callable[[str], Running]) -> None:
    import haproxyadmin
    from haproxyadmin import haproxy

    one = running(program)
    client = haproxy.HAProxy(socket_file=one.place)
    assert client.version.startswith("2.6.12-")
    server = client.backend("www").server("a")
    server.setstate(haproxyadmin.STATE_DRAIN)
    assert server.status == "DRAIN"
    server.setstate(haproxyadmin.STATE_ENABLE)
    assert server.status == "no check"
    assert server.setweight("50%") or server.weight == 50
    front = client.frontend("f")
    assert front.setmaxconn(77)
    assert front.maxconn == 77
    front.disable()
    assert front.status == "PAUSED"
    front.enable()
    assert front.status == "OPEN"
    assert [found.name for found in client.servers()] == ["a", "b"]
    assert client.clearcounters()


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_ansibles_module_asks(program: str, running: Callable[[str], Running]) -> None:
    """The steps of community.general.haproxy with `state: drain`, which does nothing, silently, below version 1.5."""
    one = running(program)
    line = next(line for line in one.ask("show info").splitlines() if "Version:" in line)
    values = line.partition(":")[2].strip().split(".", 3)
    assert (int(values[0]), int(values[1])) >= (1, 5)
    # its pools are what `show stat` says, by the names of the first line without the sign
    names = one.ask("show stat").lstrip("# ").split("\n", 1)[0].split(",")
    one.ask("set server www/a state drain")
    rows = [dict(zip(names, line.split(","), strict=False)) for line in one.ask("show stat").splitlines()[1:]]
    state = next(row for row in rows if row.get("pxname") == "www" and row["svname"] == "a")
    assert (state["status"], state["scur"]) == ("DRAIN", "0")


def test_every_form_says_the_same(running: Callable[[str], Running]) -> None:
    """Lines, typed, JSON, the version command, the metric, the page; and what it is for those who want to know."""
    one = running("haptk")
    lines = dict(line.split(": ", 1) for line in one.ask("show info").splitlines() if ": " in line)
    assert lines["Name"] == "HAProxy"
    assert re.fullmatch(r"2\.6\.12-haptk-\d+\.\d+\.\d+", lines["Version"])
    assert re.fullmatch(r"\d{4}/\d{2}/\d{2}", lines["Release_date"])
    assert lines["Build info"].startswith("haptk ")
    values = {entry["field"]["name"]: entry["value"]["value"] for entry in json.loads(one.ask("show info json"))}
    assert (values["Name"], values["Version"]) == ("HAProxy", lines["Version"])
    typed = one.ask("show info typed").splitlines()
    assert [typed[0].split(":")[-1], typed[1].split(":")[-1]] == ["HAProxy", lines["Version"]]
    assert one.ask("show version").strip() == lines["Version"]
    metrics = one.page("/metrics")
    assert f'haproxy_process_build_info{{version="{lines["Version"]}"}} 1' in metrics
    assert "haptk_build_info{version=" in metrics
    page = one.page("/st")
    assert "<title>Statistics Report for HAProxy" in page
    assert f"HAProxy version {lines['Version']}" in page
    with socket.create_connection(("127.0.0.1", one.port), 5):
        pass
