"""haptk and HAProxy as root under Debian's stock haproxy.cfg: chroot, user, group, daemon, and every feature below it.

After its privileges are gone a process finds no modules, no codecs, no devices. So every surface is asked, the answers are
held against HAProxy's under the same file, and a trace of the system calls shows that nothing is opened any more.
"""

from __future__ import annotations

import ast
import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from haptk.proxy.runtime.commands import COMMANDS
from tests.proxy.stock_world import HAPTK, STOCK, Stock, stock

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.real("haproxy", "unshare"),
    pytest.mark.skipif(not STOCK.exists() and os.environ.get("CI") != "true", reason="no stock haproxy.cfg"),
]
OURS = [HAPTK, "proxy"]
UP = ("app/http", "app/agent", "app/named", "tcp/tcp")
ASKED = (
    ("/", "web"), ("/secret", "web"), ("/moved", "web"), ("/gone", "web"), ("/metrics", "web"), ("/learned?user=anna", "web"),
    ("/st", "statistics"), ("/st;csv", "statistics"), ("/st;json", "statistics"), ("/st", "locked"),
)  # fmt: skip


def ask_everything(one: Stock, *, logs: bool = True) -> dict[str, object]:
    """What every surface says, as far as two programs must agree. `logs`: there is a syslog socket to see."""
    found: dict[str, object] = {}
    one.until(lambda: all(one.states().get(name) == "UP" for name in UP), "all servers are up")
    one.until(lambda: one.states().get("gone/s") == "DOWN", "the one that is not there is down")
    for target, port in ASKED:
        found[f"{port}{target}"] = one.status(target, "stats" if port == "statistics" else port)
    basic = ("authorization: Basic bWU6c2VjcmV0",)
    found["with a password"] = one.status("/st", "locked", headers=basic)
    # the files of /etc/haproxy/errors are not in the chroot
    found["body of 403"] = one.http("/secret", "web").partition(b"\r\n\r\n")[2]
    form = b"s=http&action=drain&b=app"
    found["form"] = one.http("/st", "stats", method="POST", body=form, headers=("referer: http://a/st",))[:12]
    one.until(lambda: one.states()["app/http"].startswith("DRAIN"), "the form was obeyed")
    found["ready"] = one.command("set server app/http state ready")
    found["table"] = re.findall(r"key=(\w+)", one.command("show table learned"))
    one.http("/bad\r\nbroken request", "web")
    found["errors"] = "frontend web" in one.command("show errors")
    if logs:
        one.until(lambda: any('"GET / HTTP/1.1"' in line for line in one.around.lines), "traffic is logged")
        one.until(lambda: any("gone/s is DOWN" in line for line in one.around.lines), "so are the servers' states")
    found["ring"] = "GET / HTTP/1.1" in one.command("show events memory")
    return found


def test_every_surface_says_what_haproxy_says(tmp_path: Path) -> None:
    with stock(tmp_path / "real", ["haproxy"]) as real:
        expected = ask_everything(real)
    with stock(tmp_path / "ours", OURS) as ours:
        assert ask_everything(ours) == expected
        assert Path(f"/proc/{ours.pid}/root").readlink() == Path("/var/lib/haproxy")
        status = Path(f"/proc/{ours.pid}/status").read_text()
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert ours.child.poll() == 0  # it is a daemon, and said so when it served


@pytest.mark.real("setpriv")
def test_the_unit_leaves_the_capabilities_that_the_stock_file_needs(tmp_path: Path) -> None:
    """/run/haproxy belongs to the user haproxy there, and others may not write into it; root without rights is another."""
    unit = (Path(__file__).parents[2] / "packaging/systemd/haptk-proxy.service").read_text()
    named = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert named
    caps = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in named[1].split())])
    folder = tmp_path / "ours"
    with stock(folder, ["setpriv", "--bounding-set", caps, "--no-new-privs", *OURS, "-db"]) as ours:
        assert (folder / "run").stat().st_uid == pwd.getpwnam("haproxy").pw_uid
        assert ours.command("show version").strip()
        ours.config.write_text(ours.config.read_text() + f"listen low\n    bind 127.0.0.1:{_low_port()}\n")
        assert ours.command("reload").strip() == ""


def test_every_runtime_command_is_answered(tmp_path: Path) -> None:
    with stock(tmp_path / "ours", [*OURS, "-db"]) as ours:
        for command in COMMANDS:
            if command.words[0] in ("quit", "_getsocks", "prompt") or command.words[:2] == ("shutdown", "frontend"):
                continue
            assert ours.command(" ".join(command.words)).endswith("\n"), command.words
        assert "ERROR" not in ours.said.read_text()


def test_peers_learn_from_each_other(tmp_path: Path) -> None:
    """A table goes from a chrooted haptk to a chrooted HAProxy and back."""
    with stock(tmp_path / "ours", OURS, "one") as ours:
        peers = {name: ours.around.ports[name] for name in ("peer_one", "peer_two")}
        with stock(tmp_path / "real", ["haproxy"], "two", ports=peers) as real:
            ours.http("/learned?user=from1", "web")
            real.http("/learned?user=from2", "web")
            real.until(lambda: "from1" in real.command("show table learned"), "HAProxy learns from haptk")
            ours.until(lambda: "from2" in ours.command("show table learned"), "haptk learns from HAProxy")


@pytest.mark.parametrize("how", ["command", "HUP", "USR2"])
def test_a_reload_reads_files_and_opens_what_root_may(how: str, tmp_path: Path) -> None:
    """A port below 1024, a unix socket where the user may not write, a file that only root reads, a wrong file."""
    with stock(tmp_path / "ours", OURS) as ours:
        page = ours.folder / "secret.http"
        page.write_bytes(b"HTTP/1.0 503 Later\r\ncontent-length: 5\r\n\r\nlater")
        page.chmod(0o600)
        before = ours.config.read_text()

        def reload() -> str:
            if how == "command":
                return ours.command("reload")
            os.kill(ours.pid, getattr(signal, f"SIG{how}"))
            return ""

        ours.config.write_text(f"{before}listen later\n    bind 127.0.0.1:{ours.around.ports['later']}\n    nonsense\n")
        assert how != "command" or "nonsense" in reload()
        more = f"""
listen later
    bind 127.0.0.1:{ours.around.ports["later"]}
    bind 127.0.0.1:{_low_port()}
    bind {ours.folder}/later.sock mode 600 user root
    errorfile 503 {page}
"""
        ours.config.write_text(
            before.replace("stats timeout 30s", f"stats socket {ours.folder}/second.sock mode 600") + more
        )
        assert reload().strip() == ""
        ours.until(lambda: b"later" in ours.http("/", "later"), "the new listener serves the new page")
        assert (ours.folder / "later.sock").stat().st_uid == 0
        assert (ours.folder / "second.sock").is_socket()
        assert ours.status("/", "web") == 200
        # what it asks of the process with the rights is not what it pleases: that one ends with it
        loader = _loader(ours)
        os.kill(ours.pid, signal.SIGKILL)
        ours.until(lambda: not Path(f"/proc/{loader}").exists(), "the loader ends with the process that it serves")


def _low_port() -> int:
    """A port that only root may bind and that is not in use."""
    import random
    import socket

    while True:
        port = random.SystemRandom().randrange(300, 1000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _loader(one: Stock) -> int:
    """The child that keeps the rights: the process of its name with our configuration on its command line."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
            if (place / "comm").read_text().strip() == "haptk-loader" and os.fsencode(one.config) in words:
                return int(place.name)
        except OSError:
            continue
    raise AssertionError("no loader runs")


# What the C library's allocator asks for, and does without.
HARMLESS = re.compile(r'"(/sys/devices/system/cpu/online|/proc/stat|/proc/sys/vm/overcommit_memory)"')


@pytest.mark.real("strace")
@pytest.mark.parametrize("without", ["", "chroot"])
def test_nothing_is_opened_after_the_privileges_are_gone(without: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = STOCK.read_text()
    if without:
        text = re.sub(rf"^\s*{without} .*$", "", text, flags=re.MULTILINE)
    with stock(tmp_path / "ours", [*OURS, "-db"], trace=trace, text=text) as ours:
        ask_everything(ours, logs=not without)
        for command in ("show info", "show info json", "show activity", "show fd", "show version", "show schema json"):
            ours.command(command)
        ours.command("reload")
        assert ours.status("/metrics", "web") == 200
        loader = str(_loader(ours))
        lines = trace.read_text(errors="replace").splitlines()
        ours.stop()
    dropped = next(index for index, line in enumerate(lines) if " setuid(" in line or " setresuid(" in line)
    opened = [
        line for line in lines[dropped + 1 :]
        if not line.startswith(f"{loader} ") and not HARMLESS.search(line) and "+++" not in line and "---" not in line
    ]  # fmt: skip
    assert opened == []


ZONED = """
import os, sys, time
from haptk.proxy.preload import keep_time_zone
if sys.argv[2] == "keep":
    keep_time_zone()
before = time.localtime(86400 * 200).tm_gmtoff
os.chroot(sys.argv[1])
time.mktime((2026, 1, 1, 0, 0, 0, 0, 0, -1))  # the C library looks at the zone again
print(before, time.localtime(86400 * 200).tm_gmtoff)
"""


@pytest.mark.parametrize(("how", "expected"), [("keep", "32400 32400"), ("lose", "32400 0")])
def test_the_time_zone_outlives_the_chroot(how: str, expected: str, tmp_path: Path) -> None:
    """Without help the C library falls back to UTC in the middle of a log."""
    zone = "/usr/share/zoneinfo/Asia/Tokyo"
    if not Path(zone).exists():
        pytest.skip("no time zones on this machine")
    inside = 'mount --bind "$0" /etc/localtime && exec "$@"'
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, zone, sys.executable, "-c", ZONED]
    environ = {key: value for key, value in os.environ.items() if key != "TZ"}
    done = subprocess.run([*argv, str(tmp_path), how], capture_output=True, text=True, env=environ)
    assert done.stdout.strip() == expected, done.stderr


def test_what_is_imported_inside_functions_is_imported_before() -> None:
    """Each module that the proxy imports late, by the text of its functions, is there after `preload`."""
    package = Path(__file__).parents[2] / "haptk"
    late: set[str] = set()
    for path in (*(package / "proxy").rglob("*.py"), *(package / "core").glob("*.py"), *(package / "io").glob("*.py")):
        if path.name.startswith("reference"):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        late |= {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom) and node.module:
                        late.add(node.module)
    late = {name for name in late if "reference" not in name and not name.startswith("haptk.formats")}
    code = "import sys; from haptk.proxy.preload import preload; preload(); print(*sys.modules)"
    there = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert late <= there
