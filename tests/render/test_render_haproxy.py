"""`haptk generate haproxy`: the real haproxy and haptk's own reader accept what it prints, and nothing can be smuggled in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from haptk.cli.app import haptk
from haptk.cli.base import run
from haptk.proxy.compile import load_text
from haptk.render.haproxy import ListenSpec, ServerSpec, listen_section, parse_server

TWO = (ServerSpec("Apache-A", "127.0.0.1", 9001), ServerSpec("B", "::1", 9002))
SPECS = [
    ListenSpec(TWO),
    ListenSpec(TWO, mode="insert", check_uri="/health?x=1", check_method="GET"),
    ListenSpec(TWO, mode="rewrite", bind="*:8081", name="web.farm-1", cookie="SRV_ID"),
    ListenSpec(TWO[:1], bind="[::1]:8082"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.mode}-{spec.bind}")
def test_own_reader_understands_every_word(spec: ListenSpec) -> None:
    tables = load_text(listen_section(spec), "generated.cfg")
    backend = tables.backends[0]
    assert backend.cookie is not None
    assert (backend.name, backend.cookie.name, backend.cookie.mode) == (spec.name, spec.cookie, spec.mode)
    assert [(s.name, s.host, s.port, s.cookie) for s in backend.servers] == [
        (s.name, s.host, s.port, s.name) for s in spec.servers
    ]
    assert all(server.check is not None for server in backend.servers)
    assert {server.check.kind for server in backend.servers if server.check} == {"http" if spec.check_uri else "tcp"}
    assert tables.warnings == ()


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.mode}-{spec.bind}")
def test_haproxy_accepts_it(spec: ListenSpec, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(listen_section(spec))
    done = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ListenSpec(()),
        ListenSpec((*TWO, TWO[0])),
        ListenSpec(TWO, name="a b"),
        ListenSpec(TWO, name="a\n  bind :1"),
        ListenSpec(TWO, cookie="A insert"),
        ListenSpec(TWO, mode="learn"),
        ListenSpec(TWO, bind="127.0.0.1"),
        ListenSpec(TWO, bind="127.0.0.1:80 ssl"),
        ListenSpec(TWO, check_uri="/a b"),
        ListenSpec(TWO, check_uri="/a#b"),
    ],
)
def test_refuses_what_would_become_another_line(wrong: ListenSpec) -> None:
    with pytest.raises(ValueError):
        listen_section(wrong)


@pytest.mark.parametrize(
    "text", ["A", "A=h", "A=h:", "A=:80", "A=h:0", "A=h:65536", "A b=h:80", "=h:80", "A~=h:80", "A=h h:80"]
)
def test_server_argument_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_server(text)


def test_command_prints_the_section(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "haproxy", "--server", "A=10.0.0.1:80", "--server", "B=[::1]:80", "--mode", "prefix"]
    assert run(haptk, arguments) == 0
    spec = ListenSpec((ServerSpec("A", "10.0.0.1", 80), ServerSpec("B", "::1", 80)))
    assert capsys.readouterr().out == listen_section(spec)
    assert run(haptk, [*arguments, "--server", "A=10.0.0.3:80"]) == 64
    assert "two servers are called 'A'" in capsys.readouterr().err
