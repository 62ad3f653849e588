"""`haptk check` as a command: plugin mode, contracts, many targets, deadlines, set files, watching, imports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from haptk.__main__ import arguments
from haptk.checks import runner
from haptk.checks.base import Check, Finding
from haptk.cli.app import haptk
from haptk.cli.base import run
from haptk.cli.check import KINDS
from haptk.io import clock
from haptk.report.nagios import State
from tests.ports import free_port

HAPTK = str(Path(sys.executable).with_name("haptk"))


def check(*argv: str) -> int:
    return run(haptk, ["check", *argv])


# -- plugin mode -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", *sorted(KINDS)])
@pytest.mark.parametrize("option", ["--help", "-h", "--version", "-V"])
def test_help_and_version_are_unknown_for_a_plugin_and_fine_for_people(
    kind: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not kind and option in ("--version", "-V"):
        return  # the group has none: `haptk --version` is there
    words = [kind] if kind else []
    assert check(*words, option) == 0
    first = capsys.readouterr().out
    assert check("--plugin", *words, option) == 3
    assert capsys.readouterr().out.replace("haptk check --plugin", "haptk check") == first


@pytest.mark.parametrize(
    ("program", "given", "found"),
    [
        ("/usr/bin/haptk", ["check", "tcp"], ["check", "tcp"]),
        ("/usr/lib/nagios/plugins/check_haptk", ["tcp", "h:1"], ["check", "--plugin", "tcp", "h:1"]),
        ("check_haptk_http", ["-h"], ["check", "--plugin", "http", "-h"]),
        ("check_http", ["x"], ["x"]),
    ],
)
def test_the_name_of_the_program_chooses_the_plugin(program: str, given: list[str], found: list[str]) -> None:
    assert arguments(program, given) == found


def test_a_link_is_a_plugin(tmp_path: Path, targets: dict[str, str]) -> None:
    link = tmp_path / "check_haptk_tcp"
    link.symlink_to(HAPTK)
    done = subprocess.run([str(link), targets["http_ok"]], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split("|")[0], done.stderr) == (
        0,
        f"TCP OK: {targets['http_ok']} accepts connections (L4OK) ",
        "",
    )
    assert subprocess.run([str(link), "--help"], capture_output=True, timeout=60).returncode == 3


@pytest.mark.parametrize("argv", [["--plugin"], ["nokind"], ["tcp", "--frob"], ["tcp", "-t", "0", "h:1"], ["--frob"]])
def test_wrong_usage_is_one_unknown_line_on_stdout(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*argv) == 3
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert "UNKNOWN: wrong usage: " in said.out
    assert len(said.err.splitlines()) <= 1


def test_a_fault_of_ours_is_unknown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_args: object) -> str:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("haptk.checks.process.read_pid", broken)
    assert check("process", "-f", "/x") == 3
    assert capsys.readouterr().out == "PROCESS UNKNOWN: internal error: ZeroDivisionError: two lines\n"
    monkeypatch.setattr("haptk.cli.checks.common.run", broken)
    assert check("process", "-f", "/x") == 3
    assert capsys.readouterr().out == "PROCESS UNKNOWN: internal error: ZeroDivisionError: two lines\n"
    with pytest.raises(ZeroDivisionError):
        check("process", "-f", "/x", "--debug")


def test_json(targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check("http", f"http://{targets['http_500']}/", "-w", "time=9", "--json") == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["exit_code"], found["service"]) == ("CRITICAL", 2, "HTTP")
    (one,) = found["checks"]
    assert (one["status"], one["code"], one["state"]) == (500, "L7STS", "CRITICAL")
    assert {figure["label"] for figure in one["figures"]} == {"time"}


@pytest.mark.parametrize(
    "argv",
    [["tcp", "--json"], ["--json", "tcp", "--frob"], ["all", "-f", "/nothing", "--json"], ["tcp", "--frob", "--json"]],
)
def test_what_cannot_be_judged_is_json_too(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*argv) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["exit_code"], found["checks"]) == ("UNKNOWN", 3, [])


def test_watching_a_target_that_hangs_starts_no_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    from haptk.cli.checks.watch import Row
    from haptk.core.health import CheckRules

    release = threading.Event()

    def hang(_timeout_s: float) -> Finding:
        release.wait(60)
        return finding()

    row = Row(Check("X", "hung", 0.2, hang), CheckRules())
    assert runner.run([row.check])[0].text == "no result within 0.2 s"
    assert runner.run([row.check])[0].text == "an earlier look still hangs"
    release.set()


def test_long_text_only_when_asked(targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    check("exec", "--plugin", targets["plugin"])
    assert len(capsys.readouterr().out.splitlines()) == 1
    check("exec", "-v", "--plugin", targets["plugin"])
    assert capsys.readouterr().out.splitlines()[1:] == ["/var is filling"]


# -- deadlines -------------------------------------------------------------------------------------------------------


def finding(text: str = "fine") -> Finding:
    return Finding(State.OK, text)


def test_a_look_that_never_returns_is_critical_and_holds_nobody() -> None:
    forever = threading.Event()

    def hang(_timeout_s: float) -> Finding:
        forever.wait(60)
        return finding("too late")

    checks = [Check("X", "hung", 0.3, hang), Check("X", "quick", 30.0, lambda _timeout_s: finding())]
    started = clock.monotonic()
    first, second = runner.run(checks)
    took = clock.monotonic() - started
    forever.set()
    assert (first.state, first.text) == (State.CRITICAL, "no result within 0.3 s")
    assert second.state is State.OK
    assert took < 15


def test_the_deadline_is_over_all_of_them() -> None:
    seen: list[float] = []

    def look(timeout_s: float) -> Finding:
        seen.append(timeout_s)
        clock.sleep(30)
        return finding()

    started = clock.monotonic()
    found = runner.run([Check("X", str(number), 60.0, look) for number in range(5)], deadline_s=0.3)
    assert clock.monotonic() - started < 15
    assert [one.text for one in found] == ["no result within 0.3 s"] * 5
    assert max(seen) <= 0.3


def test_more_checks_than_threads_all_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "THREADS_MAX", 4)
    found = runner.run([Check("X", str(number), 20.0, lambda _t, n=number: finding(str(n))) for number in range(50)])
    assert [one.text for one in found] == [str(number) for number in range(50)]
    assert runner.run([]) == []


def test_a_name_that_does_not_resolve_in_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = threading.Event()

    def hang(*_args: object, **_more: object) -> list[object]:
        stuck.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = clock.monotonic()
    assert check("tcp", "-t", "0.3", "slow.test:80") == 2
    assert clock.monotonic() - started < 15
    stuck.set()
    assert "slow.test was not resolved within 0.3 s" in capsys.readouterr().out


def test_five_hundred_at_once(targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """All of them are looked at; how long that takes is measured by tests/bench, not asserted here."""
    urls = [f"http://{targets['http_ok']}/{number}" for number in range(498)]
    urls += [f"http://{targets['http_500']}/", f"http://{targets['refused']}/"]
    assert check("http", "--json", "-t", "30", *urls) == 2
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["checks"]] == urls
    assert [one["state"] for one in found["checks"]] == ["OK"] * 498 + ["CRITICAL"] * 2


def test_a_hundred_silent_targets_cost_one_time_out(
    targets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    started = clock.monotonic()
    assert check("http", "-t", "1", *[f"http://{targets['silent']}/"] * 100) == 2
    assert clock.monotonic() - started < 20
    assert "100 of 100 not OK" in capsys.readouterr().out


# -- all, config, watch ----------------------------------------------------------------------------------------------


def write_set(folder: Path, targets: dict[str, str]) -> str:
    path = folder / "checks.toml"
    path.write_text(
        f"""deadline = "5s"
[checks]
site = "http http://{targets["http_ok"]}/ --expect well"
daemon = "process {targets["p"]}-alive"
store = "memcached {targets["memcached_ok"]} -w evictions=5"
two = "tcp {targets["http_ok"]} {targets["banner"]}"
"""
    )
    return str(path)


def test_all_of_a_node(tmp_path: Path, targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = write_set(tmp_path, targets)
    assert check("all", "-f", path) == 1
    out = capsys.readouterr().out
    assert out.startswith("ALL WARNING: 1 of 5 not OK: store: ")
    assert "[OK] HTTP site: " in out
    assert "'store evictions'=7c;5;;0" in out
    assert check("all", "-f", path, "site", "daemon") == 0
    assert capsys.readouterr().out.startswith("ALL OK: all 2 OK | ok=2;;;0;2 ")
    assert check("all", "-f", path, "--list") == 0
    assert capsys.readouterr().out.split() == (
        f"HTTP site PROCESS daemon MEMCACHED store TCP two {targets['http_ok']} TCP two {targets['banner']}".split()
    )
    assert check("all", "-f", path, "nobody") == 3
    assert "no check nobody" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("tpc h:1", "'tpc' is no kind of check"),
        ("all", "'all' is no kind of check"),
        ("tcp h:1 --frob", "No such option '--frob'"),
        ("tcp h", "is no target"),
        ("tcp --help", "check nothing"),
        ("tcp h:1 -w bogus=3", "no figure"),
        ("tcp h:1 --contract script", "--contract is about all checks together"),
        ("tcp h:1 --unknown-is ok", "--unknown-is is about all checks together"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(
    tmp_path: Path, entry: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checks.toml"
    path.write_text(f'[checks]\nfine = "process x"\nwrong = "{entry}"\n')
    assert check("all", "-f", str(path)) == 3
    out = capsys.readouterr().out.splitlines()[-1]
    assert out.startswith(f"ALL UNKNOWN: {path}:3: ")
    assert why in out


@pytest.mark.real("haproxy")
def test_files_of_a_node_are_read_by_their_programs(
    tmp_path: Path, targets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "haproxy.cfg"
    good.write_text(
        "defaults\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\nlisten a\n  bind 127.0.0.1:1\n"
    )
    bad = tmp_path / "bad.cfg"
    bad.write_text("listen a\n  bind 127.0.0.1:1\n  wieght 3\n")
    checks = write_set(tmp_path, targets)
    assert check("config", str(good), checks) == 0
    assert "all 2 OK" in capsys.readouterr().out
    assert check("config", f"haproxy={bad}") == 2
    assert "is refused by haproxy: " in capsys.readouterr().out
    Path(checks).write_text('[checks]\nx = "tcp"\n')
    assert check("config", checks) == 2
    assert ":2: x: nothing to check" in capsys.readouterr().out


def test_watching_tells_changes_with_rise_and_fall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pid_file = tmp_path / "x.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    threading.Timer(0.5, pid_file.unlink).start()
    assert check("process", "-f", str(pid_file), "--watch", "--interval", "0.1", "--count", "15", "--fall", "2") == 2
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"PROCESS {pid_file} OK: ")
    assert lines[1] == f"PROCESS {pid_file} CRITICAL: no pid file {pid_file}"
    assert lines[2] == f"PROCESS {pid_file} is DOWN (was UP): no pid file {pid_file} (fall 2)"
    assert len(lines) == 3


def test_watching_with_json_and_on_a_terminal(targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check("tcp", targets["http_ok"], "--watch", "--interval", "0.05", "--count", "2", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["checks"][0]["progress"] for row in rows] == ["3/3 UP", "3/3 UP"]
    argv = [HAPTK, "check", "tcp", targets["http_ok"], "--watch", "--interval", "0.05", "--count", "3"]
    done = subprocess.run(
        ["script", "-qec", " ".join(argv), "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TERM": "xterm"},
    )
    assert done.returncode == 0
    assert "rise/fall" in done.stdout
    assert "3/3 UP" in done.stdout


# -- what is imported, and the real servers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "never"),
    [
        (
            ["process", "nobody-has-this-name"],
            {"asyncio", "rich", "dns", "ssl", "boto3", "subprocess", "json", "socket"},
        ),
        (["tcp", "127.0.0.1:1"], {"asyncio", "rich", "dns", "ssl", "boto3", "subprocess", "json", "http", "pathlib"}),
        (["http", "http://127.0.0.1:1/"], {"asyncio", "rich", "dns", "ssl", "boto3", "http.client", "urllib"}),
        (["memcached", "127.0.0.1:1"], {"asyncio", "rich", "dns", "ssl", "boto3"}),
    ],
)
def test_cheap_checks_import_little(argv: list[str], never: set[str]) -> None:
    text = (
        "import sys; from haptk.cli.app import haptk; from haptk.cli.base import run; code = run(haptk, sys.argv[1:])"
    )
    text += "; print(' '.join(sys.modules), file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", text, "check", *argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert not set(done.stderr.splitlines()[-1].split()) & never


def wait_until_open(port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        clock.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


@pytest.mark.real("memcached")
def test_the_real_memcached(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    argv = ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "8"]
    argv += ["-u", "nobody"] if os.geteuid() == 0 else []
    with subprocess.Popen(argv) as server:
        try:
            wait_until_open(port)
            assert check("memcached", f"127.0.0.1:{port}") == 0
            out = capsys.readouterr().out
            assert "stored, returned and deleted a value, version 1." in out
            assert " hits=100% " in out
            assert check("memcached", f"127.0.0.1:{port}", "-c", "uptime=100000:") == 2
        finally:
            server.terminate()
            server.wait(20)
    assert check("memcached", f"127.0.0.1:{port}") == 2


@pytest.mark.real("redis-server")
def test_the_real_redis_master_replica_and_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master, replica = free_port(), free_port()
    (tmp_path / "secret").write_text("s3cret\n")
    common = ["--save", "", "--dir", str(tmp_path), "--bind", "127.0.0.1", "--requirepass", "s3cret"]
    common += ["--masterauth", "s3cret", "--repl-diskless-sync-delay", "0"]
    program = shutil.which("redis-server") or ""
    asked = ["--password-file", str(tmp_path / "secret")]
    first = subprocess.Popen([program, "--port", str(master), *common], stdout=subprocess.DEVNULL)
    second = subprocess.Popen(
        [program, "--port", str(replica), "--replicaof", "127.0.0.1", str(master), *common], stdout=subprocess.DEVNULL
    )
    try:
        wait_until_open(master)
        wait_until_open(replica)
        assert check("redis", f"127.0.0.1:{master}") == 3
        assert "NOAUTH" in capsys.readouterr().out
        assert check("redis", f"127.0.0.1:{master}", "--role", "master", *asked) == 0
        assert "stored, returned and deleted a value, master, version" in capsys.readouterr().out
        for _ in range(300):
            if check("redis", f"127.0.0.1:{replica}", "--role", "replica", *asked) == 0:
                break
            clock.sleep(0.1)
        assert capsys.readouterr().out.splitlines()[-1].startswith("REDIS OK: ")
        assert check("redis", f"127.0.0.1:{replica}", "--role", "master", *asked) == 2
        first.terminate()
        first.wait(20)
        for _ in range(300):
            if check("redis", f"127.0.0.1:{replica}", *asked) == 2:
                break
            clock.sleep(0.1)
        assert "cut off from its master 127.0.0.1" in capsys.readouterr().out.splitlines()[-1]
    finally:
        for server in (first, second):
            server.kill()
            server.wait(20)


def test_the_set_of_the_howto_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    howto = Path(__file__).resolve().parents[2] / "docs" / "howto" / "health-checks.md"
    block = howto.read_text().partition("```toml\n")[2].partition("```")[0]
    path = tmp_path / "checks.toml"
    path.write_text(block)
    monkeypatch.setattr("haptk.checks.config.present", lambda: [("haproxy", "/etc/haproxy/haproxy.cfg")])
    assert check("all", "-f", str(path), "--list") == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed == [
        ["HTTP", "site"],
        ["HAPROXY", "haproxy"],
        ["HEARTBEAT", "peer"],
        ["REDIS", "sessions"],
        ["CONFIG", "files"],
    ]
