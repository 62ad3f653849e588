"""`/metrics` beside HAProxy's own exporter, by name, type and label; a real Prometheus scrapes it."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from tests.diff.rig import Program, start
from tests.ports import free_ports

CONFIG = """global
    stats socket {folder}/admin level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend fe
    bind {host}:{one}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    default_backend web
backend web
    cookie SRV insert
    stick-table type ip size 1k expire 1m
    stick on src
    server s1 {host}:{one} check cookie a maxconn 10
    server s2 127.0.0.1:{dead} check backup
    server s3 127.0.0.1:{dead} disabled
listen tl
    mode tcp
    bind {host}:{two}
    server x {host}:{one}
"""
Start = Callable[[str], tuple[Program, str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    made: list[Program] = []

    def make(kind: str) -> tuple[Program, str]:
        folder = tmp_path / kind
        folder.mkdir()
        host = f"127.0.0.{2 + len(made)}"
        one, two, dead = free_ports(3, host)
        text = CONFIG.format(folder=folder, host=host, one=one, two=two, dead=dead)
        made.append(start(kind, text, folder, [(host, one)]))
        return made[-1], f"http://{host}:{one}/metrics"

    yield make
    for program in made:
        program.stop()


def get(address: str) -> tuple[str, str]:
    """The content type and the text."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.headers["content-type"], answer.read().decode()


def series(text: str) -> tuple[set[str], set[str]]:
    """(names with labels, TYPE lines) without the versions."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = {re.sub(r'version="[^"]*"', "version", line.rsplit(" ", 1)[0]) for line in lines}
    return keys, {line for line in text.splitlines() if line.startswith("# TYPE")}


def checked(address: str) -> str:
    """The text once both checks have been made."""
    deadline = time.monotonic() + 60
    while True:
        text = get(address)[1]
        if re.search(r'server_status\{proxy="web",server="s2",state="DOWN"\} 1', text):
            return text
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("kind", ["fast", "reference"])
def test_names_types_and_labels_are_haproxys(serve: Start, kind: str) -> None:
    _, real = serve("haproxy")
    _, mine = serve(kind)
    assert get(mine)[0] == get(real)[0]
    keys, types = series(checked(mine))
    real_keys, real_types = series(checked(real))
    own = {key for key in keys if key.startswith("haptk_")}
    assert own
    assert keys - own == real_keys
    assert {line for line in types if "haptk_" not in line} == real_types
    values = dict(line.rsplit(" ", 1) for line in get(mine)[1].splitlines() if not line.startswith("#"))
    assert values['haproxy_server_limit_sessions{proxy="web",server="s1"}'] == "10"
    assert values['haproxy_server_limit_sessions{proxy="web",server="s2"}'] == "NaN"
    assert int(values['haproxy_frontend_intercepted_requests_total{proxy="fe"}']) >= 2
    assert values['haproxy_server_status{proxy="web",server="s3",state="MAINT"}'] == "1"
    for scope in ("?scope=server", "?scope=backend&scope=global", "?scope=server&no-maint", "?scope=sticktable"):
        assert {key for key in series(get(mine + scope)[1])[0] if "haptk_" not in key} == series(get(real + scope)[1])[
            0
        ]


@pytest.mark.real("prometheus", "promtool")
def test_a_prometheus_scrapes_it(serve: Start, tmp_path: Path) -> None:
    _, address = serve("fast")
    text = checked(address)
    # promtool complains of HAProxy's own names too; what counts is that nothing else is wrong
    lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    complaints = [
        line for line in (lint.stdout + lint.stderr).splitlines() if "haptk_" in line or "rror" in line.split(" ")[0]
    ]
    assert not complaints, complaints
    port = free_ports(1)[0]
    target = address.removeprefix("http://").removesuffix("/metrics")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: haptk, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        child = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    try:
        deadline = time.monotonic() + 60
        query = f"http://127.0.0.1:{port}/api/v1/query?query=haproxy_frontend_http_requests_total"
        while True:
            try:
                found = json.loads(get(query)[1])["data"]["result"]
            except OSError:
                found = []
            if found and float(found[0]["value"][1]) > 1:
                break
            assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
            time.sleep(0.2)
        assert found[0]["metric"]["proxy"] == "fe"
    finally:
        child.terminate()
        child.wait(20)


def test_what_is_not_known_is_not_called_0() -> None:
    from haptk.proxy.runtime import metrics, stats

    world = Mock()
    page = metrics.Page()
    with patch.object(stats, "info", lambda _: {"Uptime_sec": 3}):
        metrics._process(page, world)
    text = "".join(page.parts)
    assert "haproxy_process_idle_time_percent NaN\n" in text
    assert "haproxy_process_pool_used_bytes NaN\n" in text
    assert "haproxy_process_uptime_seconds 3\n" in text
