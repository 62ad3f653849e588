"""How a proxy starts, beside the real HAProxy: what `-c` accepts starts, variables in addresses, abstract sockets, the pid
file, signals, and the name of the process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

HAPTK = [str(Path(sys.executable).parent / "haptk"), "proxy"]
PROGRAMS = {"haproxy": ["haproxy", "-db"], "haptk": HAPTK}
PATIENCE_S = 60.0
DEFAULTS = """defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
"""
needs_haproxy = pytest.mark.real("haproxy")


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):
            if holds():
                return
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


class Started:
    """A program on one file, with what it said."""

    def __init__(self, folder: Path, argv: list[str], text: str, environ: dict[str, str] | None = None) -> None:
        self.config = folder / "haproxy.cfg"
        self.config.write_text(text)
        self.said = folder / "said"
        with self.said.open("wb") as said:
            self.child = subprocess.Popen(
                [*argv, "-f", str(self.config)], stdout=said, stderr=said, env={**os.environ, **(environ or {})}
            )

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(10)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    made: list[Started] = []

    def start(argv: list[str], text: str, environ: dict[str, str] | None = None) -> Started:
        folder = tmp_path / f"run{len(made)}"
        folder.mkdir()
        made.append(Started(folder, argv, text, environ))
        return made[-1]

    yield start
    for one in made:
        one.end()


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 5):
        return True


def stats(path: str, command: str = "show stat") -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(10)
        channel.connect(path)
        channel.sendall(command.encode() + b"\n")
        out = b""
        while part := channel.recv(65536):
            out += part
        return out.decode()


# -- what -c accepts starts --------------------------------------------------------------------------------------------

PORTLESS = {
    "backends only": (DEFAULTS + "backend b\n    server s 127.0.0.1:1\n", 2),
    "a disabled frontend": (DEFAULTS + "frontend f\n    disabled\n    bind 127.0.0.1:{port}\n", 2),
    "a stats socket": ("global\n    stats socket {folder}/s level admin\n" + DEFAULTS + "backend b\n    server s 127.0.0.1:1\n", 0),
    "a peer": (
        "peers p\n    peer me 127.0.0.1:{port}\n" + DEFAULTS
        + "backend b\n    server s 127.0.0.1:1\n    stick-table type ip size 1k peers p\n", 0,
    ),
    "an abstract stats socket": ("global\n    stats socket abns@{name} level admin\n" + DEFAULTS, 0),
    "an abstract bind": (DEFAULTS + "frontend f\n    bind abns@{name}\n    monitor-uri /x\n", 0),
}  # fmt: skip


@needs_haproxy
@pytest.mark.parametrize("name", PORTLESS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_check_and_start_agree(program: str, name: str, started: Callable[..., Started], tmp_path: Path) -> None:
    form, expected = PORTLESS[name]
    text = form.format(port=free_port(), folder=tmp_path, name=f"haptk-test-{os.getpid()}")
    one = started([*PROGRAMS[program], "-L", "me", "-c"], text)
    assert one.child.wait(PATIENCE_S) == expected, one.said.read_text()
    one = started([*PROGRAMS[program], "-L", "me"], text)
    if expected:
        assert one.child.wait(PATIENCE_S) != 0
        return
    time.sleep(1.5)
    assert one.child.poll() is None, one.said.read_text()


@needs_haproxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_abstract_names_are_padded_as_haproxys(program: str, started: Callable[..., Started]) -> None:
    """One program's abstract socket is found by the other: bind, stats socket, and a server."""
    name = f"haptk-{os.getpid()}-{program}"
    port = free_port()
    text = f"""global
    stats socket abns@{name}-s level admin
{DEFAULTS}frontend f
    bind abns@{name}-b
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server s abns@{name}-a check inter 200ms
"""

    def padded(what: str) -> str:
        return f"\0{name}-{what}".ljust(108, "\0")

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as app:
        app.bind(padded("a"))
        app.listen()
        app.settimeout(PATIENCE_S)
        started(PROGRAMS[program], text)
        until(lambda: ",UP," in stats(padded("s")), "the server is up by its check")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect(padded("b"))
            client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            while True:
                server, _ = app.accept()
                server.settimeout(PATIENCE_S)
                if server.recv(1000).startswith(b"GET / "):
                    break
            server.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")


# -- variables in addresses --------------------------------------------------------------------------------------------

ADDRESSES = (
    "$HOST:$PORT", "${HOST}:${PORT}", '"$HOST:$PORT"', "'$HOST':'${PORT}'", "'${HOST}:$PORT'", "${UNDEFINED}127.0.0.1:$PORT",
    "127.0.0.1:${PORT-1}", '"${UNDEFINED-127.0.0.1}:$PORT"', "${UNDEFINED-127.0.0.1}:$PORT", "127.0.0.1:${PORT", "127.0.0.1:$",
    "$WHOLE", "\\$HOST:$PORT", '"\\$HOST:$PORT"', "ipv4@$HOST:$PORT", "$SET:$PORT", "$HOST:$UNDEFINED", "127.0.0.1:$PORT$",
    "${HOST:$PORT", "$HOST$COLON$PORT",
)  # fmt: skip


@needs_haproxy
@pytest.mark.parametrize("address", ADDRESSES)
def test_variables_in_addresses(address: str, started: Callable[..., Started], tmp_path: Path) -> None:
    """Where HAProxy listens, and where its server is, haptk listens and its server is; or both refuse."""
    found = {}
    for program, argv in PROGRAMS.items():
        port, place = free_port(), str(tmp_path / program)
        environ = {
            "HOST": "127.0.0.1", "PORT": str(port), "WHOLE": f"127.0.0.1:{port}", "COLON": ":", "DIR": str(tmp_path), "WHO": program,
        }  # fmt: skip
        text = f"""global
    setenv SET 127.0.0.1
    stats socket $DIR/${{WHO}} level admin
{DEFAULTS}listen l
    bind {address}
    monitor-uri /x
    server s {address.replace("PORT", "PORT")}
"""
        one = started([*argv, "-c"], text, environ)
        code = one.child.wait(PATIENCE_S)
        found[program] = (code != 0, "", "")
        if code == 0:
            one = started(argv, text, environ)
            until(lambda place=place: Path(place).is_socket() and stats(place), "answers")  # type: ignore[misc]
            rows = [line.split(",") for line in stats(place).splitlines()]
            addr = next(row[73] for row in rows if row[1:2] == ["s"]).replace(str(port), "PORT")
            found[program] = (False, "listens" if listens(port) else "", addr)
            one.end()
    assert found["haptk"] == found["haproxy"]


# -- files that root writes --------------------------------------------------------------------------------------------


def served(text: str, port: int) -> str:
    return f"{text}{DEFAULTS}frontend f\n    bind 127.0.0.1:{port}\n    monitor-uri /x\n"


@pytest.mark.parametrize("told", ["-p", "pidfile"])
def test_a_pid_file_is_never_written_through_a_link(told: str, started: Callable[..., Started], tmp_path: Path) -> None:
    victim, path, port = tmp_path / "victim", tmp_path / "pid", free_port()
    victim.write_text("precious\n")
    path.symlink_to(victim)
    text = served(f"global\n    pidfile {path}\n" if told == "pidfile" else "", port)
    one = started([*HAPTK, *(["-p", str(path)] if told == "-p" else [])], text)
    until(lambda: not path.is_symlink() and path.read_text() == f"{one.child.pid}\n", "the pid is written")
    assert victim.read_text() == "precious\n"
    assert not path.is_symlink()
    assert path.read_text() == f"{one.child.pid}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_stale_pid_is_replaced_at_once_and_no_other_kind_of_file(
    started: Callable[..., Started], tmp_path: Path
) -> None:
    path, port = tmp_path / "pid", free_port()
    path.write_text("999999999 and more\n")
    keeper = path.open()
    one = started([*HAPTK, "-p", str(path)], served("", port))
    until(lambda: path.read_text() == f"{one.child.pid}\n", "the pid is written")
    assert keeper.read() == "999999999 and more\n"  # another file took its place
    keeper.close()
    os.mkfifo(tmp_path / "fifo")
    one = started([*HAPTK, "-p", str(tmp_path / "fifo")], served("", free_port()))
    assert one.child.wait(PATIENCE_S) == 73
    assert one.said.read_text().count("\n") == 1
    assert "it is not a regular file" in one.said.read_text()


@pytest.mark.root
def test_rights_of_a_unix_socket_do_not_pass_a_link(tmp_path: Path) -> None:
    """Whoever may write in the directory must not have root give it other files."""
    from haptk.proxy.listeners import _set_rights
    from haptk.proxy.tables import Bind

    victim, path = tmp_path / "victim", tmp_path / "socket"
    victim.write_text("x")
    victim.chmod(0o600)
    path.symlink_to(victim)
    with contextlib.suppress(OSError):
        _set_rights(path, Bind(unix_path=str(path), mode=0o666, uid=65534, gid=65534))
    assert victim.stat().st_uid == 0
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_a_lock_is_never_written_through_a_link(tmp_path: Path) -> None:
    from haptk.errors import CannotWrite
    from haptk.io.files import Lock

    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(CannotWrite, match="symbolic link"):
        Lock(tmp_path / "lock", "it", "stop it").acquire()
    assert victim.read_text() == "precious\n"


# -- signals -----------------------------------------------------------------------------------------------------------


@needs_haproxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_ttou_pauses_and_ttin_resumes(program: str, started: Callable[..., Started], tmp_path: Path) -> None:
    port, place = free_port(), str(tmp_path / "stats")
    one = started(PROGRAMS[program], served(f"global\n    stats socket {place} level admin\n", port))

    def status() -> str:
        return next(line.split(",")[17] for line in stats(place).splitlines() if line.startswith("f,FRONTEND"))

    def refused() -> bool:
        try:
            return not listens(port)
        except ConnectionRefusedError:
            return True

    until(lambda: listens(port), "serves")
    for _ in range(2):
        one.child.send_signal(signal.SIGTTOU)
    until(lambda: status() == "PAUSED" and refused(), "paused")
    for _ in range(2):
        one.child.send_signal(signal.SIGTTIN)
    until(lambda: status() == "OPEN" and listens(port), "resumed")
    one.child.send_signal(signal.SIGTTOU)
    until(refused, "paused again")
    one.child.send_signal(signal.SIGUSR1)
    assert one.child.wait(PATIENCE_S) == 0


@needs_haproxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_signals_without_a_meaning_end_nothing(program: str, started: Callable[..., Started]) -> None:
    port = free_port()
    one = started(PROGRAMS[program], served("", port))
    until(lambda: listens(port), "serves")
    for number in (signal.SIGALRM, signal.SIGPIPE):
        one.child.send_signal(number)
    one.child.send_signal(signal.SIGTTOU)

    def refused() -> bool:
        try:
            return not listens(port)
        except ConnectionRefusedError:
            return True

    until(refused, "the signal behind them was heard")
    assert one.child.poll() is None


@needs_haproxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_empty_file_in_the_place_of_a_socket_is_replaced(
    program: str, started: Callable[..., Started], tmp_path: Path
) -> None:
    """`socat stdio PATH` makes one while there is no socket: a monitoring script must not keep the proxy from starting."""
    place = tmp_path / "stats"
    place.touch()
    started(PROGRAMS[program], served(f"global\n    stats socket {place} level admin\n", free_port()))
    until(lambda: stats(str(place)), "answers")


# -- the name ----------------------------------------------------------------------------------------------------------


@pytest.mark.real("killall", "pidof", "pgrep")
def test_scripts_find_it_by_the_name_that_was_asked_for(started: Callable[..., Started]) -> None:
    name, port = f"hap{os.getpid()}", free_port()
    one = started([*HAPTK, "--process-name", name], served("", port))
    until(lambda: listens(port), "serves")
    pid = str(one.child.pid)
    for command in (["pidof", name], ["pgrep", "-x", name]):
        assert subprocess.run(command, capture_output=True, text=True).stdout.split() == [pid], command
    assert subprocess.run(["killall", "-0", name]).returncode == 0
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert words[0] == name.encode()
    assert os.fsencode(one.config) in words
    assert re.search(r"^NoNewPrivs:\t1$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)


def test_a_name_is_a_name(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(served("", free_port()))
    done = subprocess.run([*HAPTK, "-f", str(config), "--process-name", "a b"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid name" in done.stderr


def test_set_uid_programs_give_nothing_unless_it_is_wanted(started: Callable[..., Started]) -> None:
    for word, expected in (("", "1"), ("    insecure-setuid-wanted\n", "0")):
        port = free_port()
        one = started(HAPTK, served(f"global\n{word}", port))
        until(lambda port=port: listens(port), "serves")  # type: ignore[misc]
        text = Path(f"/proc/{one.child.pid}/status").read_text()
        assert f"NoNewPrivs:\t{expected}\n" in text
    assert (
        shutil.which("haproxy") is None
        or subprocess.run(["haproxy", "-c", "-f", str(one.config)], capture_output=True).returncode == 0
    )
