"""The parts of the checks that the table cannot reach: parsers, the set file, states of an address, hostile files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk.checks import config, eip, execute, haproxy, http, keepalived, lines, memcached, redis, setfile, tcp
from haptk.checks.base import Finding, Limits, conclude, split_target
from haptk.checks.process import read_process
from haptk.cli.checks.common import unescape
from haptk.core.vip import Holder, Last, NotOurs, Ours, Unknown
from haptk.errors import ConfigError, MissingFile
from haptk.io import clock
from haptk.io.tls import not_after
from haptk.report.nagios import Perf, Range, State


@pytest.mark.parametrize(
    ("text", "default", "found"),
    [
        ("10.0.0.1:80", None, ("10.0.0.1", 80)),
        ("[::1]:80", None, ("::1", 80)),
        ("[fe80::1]", 443, ("fe80::1", 443)),
        ("fe80::1", 443, ("fe80::1", 443)),
        ("web.test", 53, ("web.test", 53)),
        ("/run/x.sock", None, ("/run/x.sock", 0)),
    ],
)
def test_targets(text: str, default: int | None, found: tuple[str, int]) -> None:
    assert split_target(text, default) == found


@pytest.mark.parametrize("text", ["host", "host:", "host:0", "host:65536", ":80", "host:http", "[::1]", ""])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="is no target"):
        split_target(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", http.Url(False, "a", 80, "/", "a")),
        ("https://a.test:8443/x?y#z", http.Url(True, "a.test", 8443, "/x?y", "a.test:8443")),
        ("HTTP://[::1]:81?q", http.Url(False, "::1", 81, "/?q", "[::1]:81")),
    ],
)
def test_urls(text: str, url: http.Url) -> None:
    assert http.parse_url(text) == url


@pytest.mark.parametrize(
    "text", ["a", "ftp://a", "http://u:p@a/", "http://a/ b", "http://a/\r\nX: y", "http://", "http://a:x"]
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (URL|target)"):
        http.parse_url(text)


@pytest.mark.parametrize("text", ["X", ": v", "a b: c", "X: a\r\nY: b"])
def test_headers_cannot_smuggle_a_second_line(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        http.header(text)


def test_small_parsers_of_the_command_line() -> None:
    assert unescape(r"a\r\n\x00\t\\n\0é") == b"a\r\n\x00\t\\n\x00\xc3\xa9"
    assert http.status_codes("200, 300-399") == "200,300-399"
    with pytest.raises(ValueError, match="no list of statuses"):
        http.status_codes("2xx")
    with pytest.raises(ValueError, match="no regular expression"):
        tcp.regex("(")
    assert config.kind_of("proxy=/x/y.cfg") == ("proxy", "/x/y.cfg")
    assert config.kind_of("/x/keepalived.conf") == ("keepalived", "/x/keepalived.conf")


def test_limits_refuse_what_is_not_measured() -> None:
    limits = Limits(("time", "queue"), ["2", "queue=@5:9"], ["queue=10"])
    assert (limits.warning["time"].text, limits.warning["queue"].text, limits.critical["queue"].text) == (
        "2",
        "@5:9",
        "10",
    )
    with pytest.raises(ValueError, match="'load' is no figure"):
        Limits(("time",), ["load=3"])
    with pytest.raises(ValueError, match="no figure of this check: it has none"):
        Limits((), ["3"])


def test_a_conclusion_takes_the_worst_of_state_and_thresholds() -> None:
    slow = Perf("time", 3.0, "s", Range.parse("2"), Range.parse("5"))
    assert conclude(State.OK, "fine", [slow]).state is State.WARNING
    assert conclude(State.CRITICAL, "dead", [slow]).state is State.CRITICAL
    assert conclude(State.OK, "fine", [slow]).text == "fine; time 3s is outside 0:2"


ADDRESS = "203.0.113.10"


@pytest.mark.parametrize(
    ("status", "standby", "state"),
    [
        (Ours("EC2"), False, State.OK),
        (Ours("EC2"), True, State.OK),
        (NotOurs(Holder("eni-1")), False, State.CRITICAL),
        (NotOurs(Holder("eni-1")), True, State.OK),
        (NotOurs(None), True, State.CRITICAL),
        (Unknown("no answer", trouble="AwsUnreachable"), False, State.CRITICAL),
        (Unknown("no answer", Last(Ours("x"), 5.0)), True, State.CRITICAL),
        (Unknown("denied", trouble="AwsDenied"), False, State.UNKNOWN),
        (Unknown("no credentials", trouble="AwsNoCredentials"), True, State.UNKNOWN),
    ],
)
def test_states_of_an_address(status: Ours | NotOurs | Unknown, standby: bool, state: State) -> None:
    found = eip.eip(ADDRESS, lambda _timeout_s: status, 4.0, Limits(eip.FIGURES), standby=standby).look(4.0)
    assert found.state is state
    assert found.text.startswith(f"{ADDRESS} is ")


# -- checks.toml -----------------------------------------------------------------------------------------------------


def test_a_set_of_checks() -> None:
    text = 'deadline = "8s"\n\n[checks]\nsite = "http http://127.0.0.1/ --expect \'all is well\'"\n"a b" = "tcp h:1"\n'
    found = setfile.parse(text, Path("c.toml"))
    assert found.deadline_s == 8.0
    assert found.entries == (
        setfile.Entry("site", ("http", "http://127.0.0.1/", "--expect", "all is well"), 4),
        setfile.Entry("a b", ("tcp", "h:1"), 5),
    )


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[checks]\na = 5\n", 2, "has to be text"),
        ("[checks]\n\na = ''\n", 3, "is empty"),
        ('[checks]\na = "tcp \'x"\n', 2, "no closing quotation"),
        ("deadline = 'x'\n[checks]\na = 'tcp h:1'\n", 1, "is not a duration"),
        ("deadline = 0\n[checks]\na = 'tcp h:1'\n", 1, "more than 0"),
        ("[check]\na = 'tcp h:1'\n", 1, "'check' is not known"),
        ("x = 1\n", 1, "'x' is not known"),
        ("", 1, "no checks"),
        ("[checks\n", 1, "no TOML"),
        ("[checks]\na = 'x'\na = 'y'\n", 3, "no TOML"),
    ],
)
def test_a_bad_set_names_the_line(text: str, line: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        setfile.parse(text, Path("c.toml"))
    assert caught.value.fields["line"] == line


def test_a_missing_set(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="names the checks of this node"):
        setfile.read(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        setfile.read(tmp_path / "binary")


# -- haproxy and keepalived ------------------------------------------------------------------------------------------


def test_haproxy_columns_are_found_by_name() -> None:
    rows = haproxy.read_rows(
        "s", "# status,svname\n".replace("status,svname", "pxname,svname,new,status") + "b,x,?,UP 1/3\n"
    )
    assert rows == [{"pxname": "b", "svname": "x", "new": "?", "status": "UP 1/3"}]
    assert haproxy.is_up(rows[0])


@pytest.mark.parametrize(
    ("status", "up"),
    [
        ("UP", True),
        ("UP 1/3", True),
        ("no check", True),
        ("DRAIN", True),
        ("NOLB", True),
        ("NOLB 1/2", True),
        ("DOWN", False),
        ("DOWN 1/2", False),
        ("DOWN (agent)", False),
        ("MAINT", False),
        ("MAINT (resolution)", False),
    ],
)
def test_states_of_haproxys_servers(status: str, up: bool) -> None:
    assert haproxy.is_up({"status": status}) is up


DUMP = """------< VRRP Topology >------
 VRRP Instance = VI_1
   VRRP Version = 2
   State = MASTER
   Flags: none
   Wantstate = MASTER
 VRRP Instance = VI_2
   VRRP Version = 2
   State = FAULT
   Number of tracked scripts = 1
------< Interfaces >------
   State = UP, RUNNING
"""


def test_states_in_keepalived_data() -> None:
    assert keepalived.parse_states(DUMP) == {"VI_1": "MASTER", "VI_2": "FAULT"}
    assert keepalived.parse_states("") == {}


@pytest.mark.parametrize(
    ("want", "instances", "states", "state"),
    [
        ("any", (), {"a": "MASTER", "b": "BACKUP"}, State.OK),
        ("MASTER", ("a",), {"a": "MASTER", "b": "BACKUP"}, State.OK),
        ("MASTER", (), {"a": "MASTER", "b": "BACKUP"}, State.CRITICAL),
        ("BACKUP", (), {"a": "MASTER"}, State.CRITICAL),
        ("any", (), {"a": "FAULT"}, State.CRITICAL),
        ("any", (), {"a": "INIT"}, State.WARNING),
        ("any", ("c",), {"a": "MASTER"}, State.UNKNOWN),
        ("any", (), {}, State.UNKNOWN),
    ],
)
def test_states_of_vrrp_instances(want: str, instances: tuple[str, ...], states: dict[str, str], state: State) -> None:
    limits = Limits(keepalived.FIGURES)
    found = keepalived.of_states(states, "keepalived runs", limits.perf("processes", 2), limits, want, instances)
    assert found.state is state


def test_a_dump_that_is_a_link_or_somebody_elses_is_not_believed(tmp_path: Path) -> None:
    good = tmp_path / "data"
    good.write_text(DUMP)
    assert keepalived.read_trusted(str(good)) == DUMP
    link = tmp_path / "link"
    link.symlink_to(good)
    refused = keepalived.read_trusted(str(link))
    assert isinstance(refused, Finding)
    assert refused.state is State.UNKNOWN
    os.mkfifo(tmp_path / "pipe")
    assert isinstance(keepalived.read_trusted(str(tmp_path / "pipe")), Finding)
    assert keepalived.read_trusted(str(tmp_path / "none")) == ""


@pytest.mark.root
def test_a_dump_of_another_user_is_not_believed(tmp_path: Path) -> None:
    other = tmp_path / "data"
    other.write_text(DUMP)
    os.chown(other, 65534, 65534)
    refused = keepalived.read_trusted(str(other))
    assert isinstance(refused, Finding)
    assert "not believed" in refused.text


# -- the rest --------------------------------------------------------------------------------------------------------


def test_the_end_of_a_certificate_without_verifying_it(tls_files: Path) -> None:
    for name in ("good", "soon", "old", "ca"):
        der = ssl.PEM_cert_to_DER_cert((tls_files / f"{name}.crt").read_text())
        decoded = ssl._ssl._test_decode_cert(str(tls_files / f"{name}.crt"))  # type: ignore[attr-defined]
        assert not_after(der) == ssl.cert_time_to_seconds(decoded["notAfter"])
        assert not_after(der[:40]) is None
    assert not_after(b"") is None
    assert not_after(b"\x30\x03\x02\x01\x05") is None


@pytest.mark.root
def test_root_runs_no_program_that_others_may_change(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o777)
    limits = Limits(execute.FIGURES)
    found = execute.execute((str(program),), 5.0, limits).look(5.0)
    assert found.state is State.UNKNOWN
    assert "writable by others" in found.text
    program.chmod(0o755)
    assert execute.execute((str(program),), 5.0, limits).look(5.0).state is State.OK


def test_a_killed_program_leaves_no_child(tmp_path: Path) -> None:
    ended = execute.run(("/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; sleep 1000"), 0.5)
    assert ended.code is None
    child = int((tmp_path / "pid").read_text())
    for _ in range(500):  # SIGKILL was sent; dying takes its time
        seen = read_process(child)
        if seen is None or seen.letter in "ZX":
            return
        clock.sleep(0.01)
    raise AssertionError(f"process {child} is still {seen}")


def test_a_daemon_that_keeps_the_pipe_open_does_not_hold_the_check() -> None:
    ended = execute.run(("/bin/sh", "-c", "sleep 1000 & echo started"), 20.0)
    assert (ended.code, ended.output) == (0, "started\n")
    assert ended.duration_s < 10


def test_endless_output_is_cut() -> None:
    ended = execute.run(("/bin/sh", "-c", "yes"), 0.5)
    assert ended.code is None
    assert len(ended.output) == execute.OUTPUT_BYTES_MAX


def test_a_signal_is_named() -> None:
    limits = Limits(execute.FIGURES)
    found = execute.execute(("/bin/sh", "-c", "kill -9 $$"), 5.0, limits).look(5.0)
    assert (found.state, found.text) == (State.CRITICAL, "/bin/sh was ended by SIGKILL")


def test_a_peer_that_never_ends_its_line_is_limited() -> None:
    class Endless:
        where = "peer"

        def receive(self) -> bytes:
            return b"x" * 65536

    reader = lines.Lines(Endless())  # type: ignore[arg-type]
    with pytest.raises(lines.Failed, match="more than"):
        reader.line()
    with pytest.raises(lines.Failed, match="announced"):
        lines.Lines(Endless()).exactly(10**12)  # type: ignore[arg-type]


def test_authkeys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    keys = tmp_path / "authkeys"
    keys.write_text("auth 1\n1 sha1 secret\n")
    keys.chmod(0o644)
    assert config.of_own("authkeys", keys).state is State.CRITICAL
    keys.chmod(0o600)
    assert config.of_own("authkeys", keys).state is State.OK
    keys.write_text("auth 2\n1 sha1 secret\n")
    found = config.of_own("authkeys", keys)
    assert found.state is State.CRITICAL
    assert "secret" not in found.text


def test_files_of_heartbeat_and_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "ha.cf").write_text("keepalive 2\nnode a b\nucast eth0 10.0.0.2\n")
    resources = tmp_path / "haresources"
    resources.write_text("a web::x\n")
    assert config.of_own("ha.cf", tmp_path / "ha.cf").state is State.OK
    assert config.of_own("haresources", resources).state is State.OK
    resources.write_text("c web::x\n")
    found = config.of_own("haresources", resources)
    assert (found.state, "haresources:1: c is not a node" in found.text) == (State.CRITICAL, True)
    cluster = tmp_path / "cluster.toml"
    cluster.write_text("[nonsense]\n")
    found = config.of_own("cluster", cluster)
    assert (found.state, f"{cluster}:1" in found.text) == (State.CRITICAL, True)
    cluster.write_bytes(b"\xff")
    assert config.of_own("cluster", cluster).text == f"{cluster} is no text"


# -- peers that send anything ----------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"STORED\r\n",
        b"VALUE k 0 5\r\nabcde\r\n",
        b"END\r\n",
        b"DELETED\r\n",
        b"STAT a 1\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"$5\r\nabcde\r\n",
        b"$-1\r\n",
        b"$--5\r\n",
        b"*2\r\n",
        b"*99999999\r\n",
        b"-ERR x\r\n",
        b"VALUE k 0 99999\r\n",
        b"$9\r\nrole:slav\r\n",
        b":" + b"9" * 5000 + b"\r\n",
        b"Name: x\n",
        b"# pxname,svname,status,type\n",
        b"a,FRONTEND,OPEN,0\n",
        b"a,BACKEND,UP,1\n",
        b"a,b\n",
        b"a,s,DOWN,2\n",
        b'"',
        b"\x00",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"Content-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nabcde\r\n",
        b"ffffffffff\r\n",
    ]
)


class Scripted:
    """An exchange with a peer that says `data`, in pieces of a given size, whatever it is asked."""

    where = "peer"

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def send(self, _data: bytes) -> None:
        pass

    def receive(self) -> bytes:
        part, self.data = self.data[: self.size], self.data[self.size :]
        return part


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=12), st.integers(1, 40))
def test_whatever_a_peer_says_is_a_finding_or_a_failure(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)

    def attempt(talk: Any) -> None:
        exchange = Scripted(data, size)
        try:
            talk(exchange, lines.Lines(exchange))  # type: ignore[arg-type]
        except lines.Failed as failed:
            assert failed.code
            assert failed.reason

    attempt(memcached.round_trip)
    attempt(memcached.stats)
    attempt(redis.read_info)
    attempt(redis.round_trip)
    attempt(lambda _exchange, reader: redis.read_reply(reader))

    def haproxy_socket(_exchange: Any, reader: lines.Lines) -> None:
        info, rows = haproxy.read_answer("peer", reader.rest())
        found = haproxy.of_rows("peer", info, rows, Limits(haproxy.FIGURES), ())
        assert found.text

    attempt(haproxy_socket)
    page = haproxy.Source("h", 80, http.parse_url("http://h/stats"))
    attempt(lambda exchange, reader: haproxy.fetch_page(exchange, reader, page))
