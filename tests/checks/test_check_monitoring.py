"""The real schedulers of Nagios and Icinga run haptk's checks, by the definitions of the how-to, and agree on every state."""

from __future__ import annotations

import contextlib
import getpass
import grp
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from haptk.io import clock

HAPTK = Path(sys.executable).with_name("haptk")
HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "health-checks.md"
# scripts/test only unpacks Nagios: its package would bring a mail server along.
NAGIOS = next((str(path) for path in (Path(sys.prefix) / "unpacked/usr/sbin/nagios4", Path("/usr/sbin/nagios4"))
               if path.exists()), "nagios4")  # fmt: skip
STATES = {"ok": 0, "slow": 1, "down": 2, "wrong": 3}
SECONDS = 60


class Seen(NamedTuple):
    """What a scheduler made of one check."""

    state: int
    output: str
    figures: str


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"OK\n")

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def web(port: int = 0) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory of plugins with haptk in it, as the how-to links it."""
    made = tmp_path / "plugins"
    made.mkdir()
    (made / "check_haptk").symlink_to(HAPTK)
    return made


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def block_of_the_howto(begins: str) -> str:
    text = HOWTO.read_text()
    start = text.index(begins)
    return text[start : text.index("```", start)]


def until(look: Callable[[], dict[str, Seen]], wanted: dict[str, int], trouble: Callable[[], str]) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for _ in range(SECONDS * 10):
        found = look()
        if {name: seen.state for name, seen in found.items()} == wanted:
            return found
        clock.sleep(0.1)
    raise AssertionError(f"{found} is not {wanted}\n{trouble()[-3000:]}")


@contextlib.contextmanager
def running(argv: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def judge(found: dict[str, Seen], port: int) -> None:
    """The words and figures that arrived at the other side."""
    assert found["ok"].output == f"HTTP OK: 127.0.0.1:{port} answered 200 OK (L7OK)"
    assert re.fullmatch(r"time=\d+\.\d+s;\S*;\S*;0;5", found["ok"].figures)
    assert found["slow"].output.startswith("HTTP WARNING: ")
    assert found["down"].output.startswith("HTTP CRITICAL: ") and "refused" in found["down"].output
    assert found["wrong"].output.startswith("HTTP UNKNOWN: ")


# Nagios.

NAGIOS_CFG = """
log_file={d}/nagios.log
cfg_file={d}/objects.cfg
resource_file={d}/resource.cfg
object_cache_file={d}/objects.cache
precached_object_file={d}/objects.precache
status_file={d}/status.dat
status_update_interval=1
temp_file={d}/nagios.tmp
temp_path={d}
check_result_path={d}/results
lock_file={d}/nagios.lock
query_socket={d}/nagios.qh
command_file={d}/nagios.cmd
state_retention_file={d}/retention.dat
nagios_user={user}
nagios_group={group}
interval_length=1
check_external_commands=0
enable_notifications=0
enable_event_handlers=0
service_check_timeout=30
check_for_updates=0
use_syslog=0
illegal_macro_output_chars=`~$&|'"<>
"""
NAGIOS_OBJECTS = """
define timeperiod {{
    timeperiod_name  always
    alias            always
{days}
}}
define contact {{
    contact_name                   nobody
    host_notifications_enabled     0
    service_notifications_enabled  0
    host_notification_period       always
    service_notification_period    always
    host_notification_commands     nothing
    service_notification_commands  nothing
}}
define command {{
    command_name  nothing
    command_line  /bin/true
}}
define host {{
    host_name              node
    address                127.0.0.1
    max_check_attempts     1
    check_period           always
    notification_period    always
    contacts               nobody
    active_checks_enabled  0
}}
{command}
"""
NAGIOS_SERVICE = """
define service {{
    host_name            node
    service_description  {name}
    check_command        {command}
    check_interval       2
    retry_interval       1
    max_check_attempts   1
    check_period         always
    notification_period  always
    contacts             nobody
}}
"""


def nagios_status(path: Path) -> dict[str, Seen]:
    found = {}
    text = path.read_text(errors="replace") if path.exists() else ""
    for block in text.split("servicestatus {")[1:]:
        fields = dict(line.strip().split("=", 1) for line in block.partition("}")[0].splitlines() if "=" in line)
        if fields["has_been_checked"] == "1":
            found[fields["service_description"]] = Seen(
                int(fields["current_state"]), fields["plugin_output"], fields["performance_data"]
            )
    return found


@pytest.mark.real("nagios4")
def test_nagios_runs_the_checks_and_understands_them(tmp_path: Path, plugins: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    (tmp_path / "results").mkdir()
    (tmp_path / "nagios.cfg").write_text(NAGIOS_CFG.format(d=tmp_path, user=getpass.getuser(), group=group))
    (tmp_path / "resource.cfg").write_text(f"$USER1$={plugins}\n")
    days = "\n".join(
        f"    {day} 00:00-24:00"
        for day in ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    )
    command = block_of_the_howto("define command {\n    command_name  check_haptk_http")
    # The other states: a figure over its threshold, a port where nobody listens, an argument that means nothing.
    more = command.replace("check_haptk_http", "check_haptk_more", 1).replace("-w 0.5 -c 2", "$ARG3$")
    assert more != command
    with contextlib.ExitStack() as server:
        port = server.enter_context(web())
        objects = NAGIOS_OBJECTS.format(days=days, command=command + more)
        for name, arguments in (
            ("ok", f"check_haptk_http!{port}!/"),
            ("slow", f"check_haptk_more!{port}!/!-w 0:0"),
            ("down", f"check_haptk_http!{closed_port()}!/"),
            ("wrong", f"check_haptk_more!{port}!/!-w nonsense"),
        ):
            objects += NAGIOS_SERVICE.format(name=name, command=arguments)
        (tmp_path / "objects.cfg").write_text(objects)
        log = tmp_path / "out.log"

        def look() -> dict[str, Seen]:
            return nagios_status(tmp_path / "status.dat")

        with running([NAGIOS, str(tmp_path / "nagios.cfg")], log):
            judge(until(look, STATES, log.read_text), port)
            server.close()
            until(look, {**STATES, "ok": 2, "slow": 2}, log.read_text)
            server.enter_context(web(port))
            until(look, STATES, log.read_text)


# Icinga 2.

ICINGA_CONF = """
include <itl>
const PluginDir = "{plugins}"
object CheckerComponent "checker" {{ }}
object PerfdataWriter "seen" {{
  host_perfdata_path = "{d}/host-perfdata"
  service_perfdata_path = "{d}/service-perfdata"
  host_temp_path = "{d}/host-tmp"
  service_temp_path = "{d}/service-tmp"
  rotation_interval = 1s
  service_format_template = "$service.name$\\t$service.state_id$\\t$service.output$\\t$service.perfdata$\\tend"
}}
object Host "node" {{
  check_command = "dummy"
  address = "127.0.0.1"
}}
{command}
"""
ICINGA_SERVICE = """
object Service "{name}" {{
  host_name = "node"
  check_command = "{command}"
  check_interval = 2s
  retry_interval = 1s
  max_check_attempts = 1
  vars.haptk_port = {port}
}}
"""


def icinga_status(directory: Path) -> dict[str, Seen]:
    found = {}
    for path in sorted(directory.glob("service-perfdata.*")):
        # The output may have more lines than the first.
        for record in path.read_text(errors="replace").split("\tend\n")[:-1]:
            name, state, output, figures = record.split("\t")
            found[name] = Seen(int(float(state)), output.splitlines()[0].strip(), figures.strip())
    return found


@pytest.mark.real("icinga2")
def test_icinga_runs_the_checks_and_understands_them(tmp_path: Path, plugins: Path) -> None:
    command = block_of_the_howto('object CheckCommand "haptk-http"')
    slow = command.replace('"haptk-http"', '"haptk-slow"').replace('"-t" =', '"-w" = "0:0"\n    "-t" =')
    wrong = command.replace('"haptk-http"', '"haptk-wrong"').replace('"-t" =', '"-w" = "nonsense"\n    "-t" =')
    places = {name: tmp_path / name for name in ("DataDir", "LogDir", "CacheDir", "SpoolDir", "InitRunDir")}
    for place in places.values():
        place.mkdir()
    with web() as port:
        conf = ICINGA_CONF.format(d=tmp_path, plugins=plugins, command=command + slow + wrong)
        for name, which, where in (
            ("ok", "haptk-http", port),
            ("slow", "haptk-slow", port),
            ("down", "haptk-http", closed_port()),
            ("wrong", "haptk-wrong", port),
        ):
            conf += ICINGA_SERVICE.format(name=name, command=which, port=where)
        (tmp_path / "icinga2.conf").write_text(conf)
        argv = [str(shutil.which("icinga2", path="/usr/sbin:/usr/bin")), "daemon", "-c", str(tmp_path / "icinga2.conf")]
        for name, place in {**places, "RunAsUser": getpass.getuser()}.items():
            argv += ["-D", f"{name}={place}"]
        log = tmp_path / "out.log"
        with running(argv, log):
            judge(until(lambda: icinga_status(tmp_path), STATES, log.read_text), port)


# systemd.

SYSTEMD = "/lib/systemd/systemd"
# A manager of user units needs no process 1, only to believe that the system was booted with systemd.
MANAGER = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/user
export XDG_RUNTIME_DIR=/run/user SYSTEMD_UNIT_PATH={units} SYSTEMD_LOG_TARGET=console
{systemd} --user --unit=idle.target >{log} 2>&1 &
for _ in $(seq 200); do
  systemctl --user is-active idle.target >/dev/null 2>&1 && break
  sleep 0.1
done
for unit in {names}; do
  systemctl --user start $unit >/dev/null 2>&1 || true
  echo "$unit $(systemctl --user show --value -p ActiveState -p ConditionResult $unit | tr '\\n' ' ')"
done
"""


@pytest.mark.root
@pytest.mark.real("systemd", "unshare")
def test_systemd_starts_skips_or_fails_a_unit_by_its_condition(tmp_path: Path) -> None:
    """The unit of the how-to under a real manager: 0 starts it, "not now" skips it, "I cannot tell" fails it."""
    units = tmp_path / "units"
    units.mkdir()
    (units / "idle.target").write_text("[Unit]\nDefaultDependencies=no\n")
    block = HOWTO.read_text().partition("```ini\n")[2].partition("```")[0]
    asked = "redis 10.0.0.5 --role master"
    assert asked in block
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for name, check in (
            ("good", f"tcp 127.0.0.1:{port}"),
            ("down", f"tcp 127.0.0.1:{closed_port()}"),
            ("wrong", f"tcp 127.0.0.1:{port} -w nonsense"),
        ):
            text = block.replace("/usr/bin/haptk", str(HAPTK)).replace(asked, check)
            text = text.replace("[Unit]", "[Unit]\nDefaultDependencies=no")
            end = f"Type=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/touch {tmp_path}/{name}\n"
            (units / f"{name}.service").write_text(text + end)
        script = MANAGER.format(
            units=units, systemd=SYSTEMD, log=tmp_path / "log", names="good.service down.service wrong.service"
        )
        before = _groups()
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--cgroup", "--kill-child", "bash", "-c", script],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        for group in _groups() - before:
            with contextlib.suppress(OSError):
                group.rmdir()
    states = {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}
    assert states == {
        "good.service": {"active", "yes"},
        "down.service": {"inactive", "no"},
        "wrong.service": {"failed", "yes"},
    }, (done, (tmp_path / "log").read_text())
    assert [name for name in ("good", "down", "wrong") if (tmp_path / name).exists()] == ["good"]


def _groups() -> set[Path]:
    """The control groups in which a manager of user units puts its own."""
    root = Path("/sys/fs/cgroup")
    return {path for name in ("app.slice", "init.scope") for path in root.glob(f"**/{name}")}
