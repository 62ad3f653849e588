"""The runtime API without sockets: dialog rules, command table, levels, states and the forms of the statistics."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from haptk.io.exchange import ProbeResult
from haptk.proxy import reference
from haptk.proxy.adjust import Adjustments
from haptk.proxy.compile import load_text
from haptk.proxy.glance import Glance
from haptk.proxy.health import HealthRunner
from haptk.proxy.listeners import Listeners
from haptk.proxy.runtime.commands import COMMANDS, LEVELS
from haptk.proxy.runtime.dialog import MAX_LINE_BYTES, Dialog, commands_of, words_of
from haptk.proxy.runtime.fields import INFO, STAT
from haptk.proxy.runtime.lines import csv_lines
from haptk.proxy.runtime.rows import rows
from haptk.proxy.runtime.stats import csv_row
from haptk.proxy.runtime.world import Began, World
from haptk.proxy.sticktables import stores_for
from haptk.proxy.tally import Tallies, Tally

CONFIG = """global
    stats socket /run/x.sock mode 660 level admin
    stats timeout 30s
    stats maxconn 3
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend fe
    bind 127.0.0.1:1
    default_backend web
backend web
    cookie SRV insert indirect
    server s1 127.0.0.1:2 cookie a check weight 10
    server s2 [::1]:3 cookie b track s1
    server s3 127.0.0.1:4 backup disabled
listen tl
    mode tcp
    balance source
    bind 127.0.0.1:5
    server x 127.0.0.1:6 maxconn 5
"""


class Engine:
    """Tables, states and fixed counters: what a World looks at."""

    def __init__(self, text: str = CONFIG, old: Engine | None = None) -> None:
        self.tables = load_text(text, "x.cfg")
        self.journal = None
        self.stores = stores_for(self.tables, reference.Image.make_store)
        self.published: dict[int, str] = {}
        self.weights: dict[int, float] = {}
        self.cuts: list[int] = []
        self.health = HealthRunner(
            self.tables,
            self.published.__setitem__,
            old.health if old else None,
            weigh=self.weights.__setitem__,
            cut=self.cuts.append,
            end=self.cuts.append,
        )
        self.health.checked = []  # no thread: the test says what the checks found
        self.health.start()
        self.image = self
        self.adjust = Adjustments(self.tables, self, [], Listeners())
        self.limits: list[tuple[object, ...]] = []

    def set_limit(self, count: int) -> None:
        self.limits.append(("global", count))

    def set_rates(self, connections: int, sessions: int) -> None:
        self.limits.append(("rates", connections, sessions))

    def sessions(self, wanted: int = 0, *, names: bool = False, end: bool = False) -> list[Glance]:
        return []

    def activity(self) -> list[dict[str, Any]]:
        return [self.counters()]

    def set_frontend_maxconn(self, index: int, count: int) -> None:
        self.limits.append(("frontend", index, count))

    def set_server_maxconn(self, gid: int, count: int) -> None:
        self.limits.append(("server", gid, count))

    def pause_frontend(self, index: int, paused: bool) -> None:
        self.limits.append(("pause", index, paused))

    def tallies(self) -> Tallies:
        def make(gid: int) -> Tally:
            return Tally(live=gid, sessions=10 + gid, connect_errors=1, bad_responses=2, redispatches=3)

        return Tallies(
            [make(100 + index) for index in range(len(self.tables.frontends))],
            [make(200 + index) for index in range(len(self.tables.backends))],
            [make(gid) for gid in range(len(self.health.servers))],
        )

    def counters(self) -> dict[str, Any]:
        names = "connections requests bad_requests retries bytes_up bytes_down sessions"
        return dict.fromkeys(names.split(), 7) | {"responses": [0] * 6}


class Talk:
    """One connection to one engine."""

    def __init__(self, level: str = "admin", engine: Engine | None = None) -> None:
        self.engine = engine or Engine()
        self.dialog = Dialog(lambda: World(self.engine, Began(0.0, 0.0)), level)

    def __call__(self, text: str) -> str:
        self.dialog.receive(f"{text}\n".encode())
        out = b""
        while (answer := self.dialog.step()) is not None:
            out += answer
        return out.decode()

    def rows(self, command: str = "show stat") -> list[dict[str, str]]:
        return list(csv.DictReader(self(command).removeprefix("# ").strip().splitlines()))


# -- the dialog --------------------------------------------------------------------------------------------------------


def test_lines_are_cut_into_commands_and_words() -> None:
    assert commands_of("a b; c;;d") == ["a b", " c", "", "d"]
    assert commands_of(r"a\;b;c\\;d") == [r"a\;b", r"c\\", "d"]
    assert words_of("  show \t stat ") == ["show", "stat"]
    assert words_of(r"a\ b \;c \\d e" + "\\") == ["a b", ";c", "\\d", "e\\"]
    assert words_of(" ") == []


def test_every_answer_ends_with_an_empty_line_and_then_the_connection_ends() -> None:
    talk = Talk()
    assert talk("show backend;show cli level") == "# name\nweb\ntl\n\nadmin\n\n"
    assert talk.dialog.over


def test_half_a_line_is_kept_and_is_no_command_at_the_end() -> None:
    talk = Talk()
    talk.dialog.receive(b"show cli ")
    assert talk.dialog.step() is None
    assert not talk.dialog.over
    talk.dialog.receive(b"level\r\nshow")
    assert talk.dialog.step() == b"admin\n\n"
    assert not talk.dialog.over
    talk.dialog.receive(b"")
    assert talk.dialog.step() is None
    assert talk.dialog.over


def test_a_line_without_end_ends_the_connection() -> None:
    talk = Talk()
    talk.dialog.receive(b"x" * (MAX_LINE_BYTES + 1))
    assert talk.dialog.over


def test_bytes_that_are_no_text_are_an_unknown_command() -> None:
    talk = Talk()
    talk.dialog.receive(b"\xff\x00\n")
    assert (talk.dialog.step() or b"").startswith(b"Unknown command")


def test_prompt_keeps_the_connection_until_quit() -> None:
    talk = Talk()
    assert talk("prompt") == "\n> "
    assert talk("show cli level") == "admin\n\n> "
    assert not talk.dialog.over
    assert talk("quit;show cli level") == ""
    assert talk.dialog.over


def test_levels_can_only_be_lowered() -> None:
    talk = Talk("operator")
    assert talk("prompt;user;show cli level;operator;show cli level") == (
        "\n> \n> user\n\n> Permission denied\n\n> user\n\n> "
    )


@pytest.mark.parametrize("level", LEVELS)
def test_what_changes_something_needs_the_level_admin(level: str) -> None:
    for command in COMMANDS:
        engine = Engine()
        before = [(one.health.wish, one.weight) for one in engine.health.servers]
        answer = Talk(level, engine)(" ".join(command.words) + " web/s1 state maint")
        allowed = LEVELS.index(level) >= LEVELS.index(command.level)
        assert (answer == "Permission denied\n\n") is not allowed, command
        if level != "admin":
            assert [(one.health.wish, one.weight) for one in engine.health.servers] == before
            assert engine.cuts == []


def test_the_timeout_is_the_callers_own() -> None:
    talk = Talk()
    assert talk("set timeout cli 2m;set timeout cli 0;set timeout x;set timeout cli;set timeout cli 5y") == (
        "\nInvalid timeout value.\n\n'set timeout' only supports 'cli'.\n\nExpects an integer value.\n\n"
        "Invalid timeout value.\n\n"
    )
    assert talk.dialog.caller.timeout_s == 120


# -- servers -----------------------------------------------------------------------------------------------------------


def test_what_an_administrator_says_reaches_the_workers_and_the_followers() -> None:
    talk = Talk()
    assert talk.engine.published == {0: "UP", 1: "UP", 2: "MAINT", 3: "UP"}
    assert talk("disable server web/s1") == "\n"
    assert (talk.engine.published[0], talk.engine.published[1]) == ("MAINT", "MAINT")
    assert [row["status"] for row in talk.rows("show stat web 4 -1")] == ["MAINT", "MAINT (via web/s1)", "MAINT"]
    talk("set server web/s1 state drain")
    assert (talk.engine.published[0], talk.engine.published[1]) == ("DRAIN", "DRAIN")
    talk("enable server web/s1;set server web/s2 state drain;enable server web/s3")
    assert talk.engine.published == {0: "UP", 1: "DRAIN", 2: "UP", 3: "UP"}


def test_a_forced_health_holds_until_a_check_disagrees() -> None:
    talk = Talk()
    one = talk.engine.health.servers[0]
    assert talk("set server web/s1 health down") == "\n"
    assert talk.rows("show stat web 4 1")[0]["status"] == "DOWN"
    assert talk("set server web/s2 health up") == "cannot change health on a tracking server.\n\n"
    talk.engine.health._settle(one, ProbeResult(True, "fine", None, 0.001, "L4OK"))
    assert talk.rows("show stat web 4 1")[0]["status"] == "DOWN 1/2"
    talk.engine.health._settle(one, ProbeResult(True, "fine", None, 0.001, "L4OK"))
    assert talk.rows("show stat web 4 1")[0]["status"] == "UP"
    talk.engine.health._settle(one, ProbeResult(False, 'no, "really"\n', 500, 0.25, "L7STS"))
    row = talk.rows("show stat web 4 1")[0]
    assert (row["status"], row["check_status"], row["check_code"]) == ("UP 2/3", "L7STS", "500")
    assert (row["chkfail"], row["chkdown"], row["last_chk"]) == ("1", "1", 'no, "really" ')
    assert talk("set server web/s1 health stopping;show servers state web").splitlines()[3].split()[5] == "3"
    assert talk.rows("show stat web 4 1")[0]["status"] == "NOLB"


@pytest.mark.parametrize(
    ("text", "weight"), [("0", 0), ("256", 256), ("50%", 5), ("9000%", 256), ("100%", 10), ("+7", 7)]
)
def test_weights(text: str, weight: int) -> None:
    talk = Talk()
    assert talk(f"set weight web/s1 {text};get weight web/s1") == f"\n{weight} (initial 10)\n\n"
    assert talk.engine.weights == {0: weight}


@pytest.mark.parametrize("text", ["257", "-1", "x", "5x", "-5%", "5%%", "", "1.5", "99999999999999999999"])
def test_bad_weights_change_nothing(text: str) -> None:
    talk = Talk()
    assert talk(f"set server web/s1 weight {text}") != "\n"
    assert talk.engine.weights == {}


def test_a_static_balance_takes_no_weight_but_its_own_and_none() -> None:
    talk = Talk()
    assert talk("set weight tl/x 5").startswith("Backend is using a static LB algorithm")
    assert talk("set weight tl/x 0") == "\n"


def test_a_backend_without_usable_servers_is_down() -> None:
    talk = Talk()
    talk("set weight web/s1 0;set server web/s2 state drain")
    assert talk.rows("show stat web 2 -1")[0]["status"] == "DOWN"
    assert talk.rows("show stat web 2 -1 up")[0]["status"] == "DOWN (0/3)"
    talk("enable server web/s3")
    row = talk.rows("show stat web 2 -1")[0]
    assert (row["status"], row["act"], row["bck"], row["weight"]) == ("UP", "0", "1", "1")


def test_sessions_are_cut_by_command() -> None:
    talk = Talk()
    assert talk("shutdown sessions server tl/x") == "\n"
    assert talk.engine.cuts == [3]


def test_a_reload_keeps_what_was_said_unless_the_file_says_something_new() -> None:
    old = Talk()
    old("disable server web/s1;set weight web/s1 3;enable server web/s3;set server tl/x state drain")
    same = Talk(engine=Engine(CONFIG, old.engine))
    assert same.engine.published == {0: "MAINT", 1: "MAINT", 2: "UP", 3: "DRAIN"}
    assert same("get weight web/s1") == "3 (initial 10)\n\n"
    changed = CONFIG.replace("weight 10", "weight 20").replace(" disabled", "").replace("maxconn 5", "disabled")
    fresh = Talk(engine=Engine(changed, old.engine))
    assert fresh.engine.published == {0: "MAINT", 1: "MAINT", 2: "UP", 3: "MAINT"}
    assert fresh("get weight web/s1") == "20 (initial 20)\n\n"


# -- statistics --------------------------------------------------------------------------------------------------------


def test_rows_carry_what_is_counted_and_are_empty_elsewhere() -> None:
    rows = Talk().rows()
    names = [(row["pxname"], row["svname"], row["iid"], row["sid"], row["type"]) for row in rows]
    assert names == [
        ("fe", "FRONTEND", "2", "0", "0"), ("web", "s1", "3", "1", "2"), ("web", "s2", "3", "2", "2"),
        ("web", "s3", "3", "3", "2"), ("web", "BACKEND", "3", "0", "1"), ("tl", "FRONTEND", "4", "0", "0"),
        ("tl", "x", "4", "1", "2"), ("tl", "BACKEND", "4", "0", "1"),
    ]  # fmt: skip
    assert (rows[2]["scur"], rows[2]["stot"], rows[2]["econ"], rows[2]["eresp"]) == ("1", "11", "1", "2")
    assert (rows[4]["scur"], rows[4]["stot"], rows[4]["wredis"]) == ("200", "210", "3")
    assert rows[2]["addr"] == "[::1]:3"
    assert (rows[0]["scur"], rows[5]["scur"], rows[7]["scur"]) == ("100", "101", "201")
    assert (rows[0]["econ"], rows[2]["conn_tot"], rows[7]["req_tot"]) == ("", "", "")


def test_a_user_does_not_see_addresses_cookies_and_algorithms() -> None:
    for row in Talk("user").rows():
        assert (row["addr"], row["cookie"], row["algo"]) == ("", "", "")
    assert {row["cookie"] for row in Talk("operator").rows()} == {"a", "b", "SRV", ""}


def test_hidden_rows() -> None:
    talk = Talk()
    talk("set server web/s1 health down")
    assert [row["svname"] for row in talk.rows("show stat web 4 -1 no-maint")] == ["s1", "s2"]
    assert [row["svname"] for row in talk.rows("show stat up") if row["type"] == "2"] == ["x"]


def test_json_and_typed_say_the_same_as_the_csv() -> None:
    talk = Talk()
    rows = talk.rows()
    typed = [line.split(":", 3) for line in talk("show stat typed").splitlines() if line]
    found = json.loads(talk("show stat json"))
    assert len(found) == len(rows)
    flat = [entry for row in found for entry in row]
    assert [str(entry["value"]["value"]) for entry in flat] == [line[3] for line in typed]
    assert [f"{entry['objType'][0]}.{entry['proxyId']}.{entry['id']}" for entry in flat] == [
        ".".join(line[0].split(".")[:3]) for line in typed
    ]
    for row, entries in zip(rows, found, strict=True):
        seen = {entry["field"]["name"]: str(entry["value"]["value"]) for entry in entries}
        assert seen == {name: value for name, value in row.items() if name and name != "-" and value}


def test_info_in_all_forms() -> None:
    talk = Talk()
    lines = dict(line.split(": ", 1) for line in talk("show info").strip().splitlines())
    assert (lines["Name"], lines["CurrConns"], lines["CumReq"], lines["Stopping"]) == ("HAProxy", "7", "7", "0")
    found = json.loads(talk("show info json"))
    assert {entry["field"]["name"]: str(entry["value"]["value"]) for entry in found} == lines
    typed = [line.split(".", 2)[1] for line in talk("show info typed").strip().splitlines()]
    assert typed == list(lines)
    assert typed == [entry.name for entry in INFO if entry.name in typed]


def test_fields_are_numbered_without_gaps() -> None:
    assert [entry.position for entry in STAT if entry.position >= 0] == list(range(127))


def test_the_tables_carry_the_sockets() -> None:
    process = Engine().tables.process
    assert [(bind.unix_path, bind.mode, bind.level) for bind in process.stats_sockets] == [
        ("/run/x.sock", 0o660, "admin")
    ]
    assert (process.stats_timeout_s, process.stats_maxconn) == (30.0, 3)


def test_lines_that_are_remembered_are_those_that_are_made_anew() -> None:
    talk = Talk()
    one = talk.engine.health.servers[0]
    changes: list[Any] = [
        lambda: talk("set weight web/s1 7"),
        lambda: talk.engine.health._settle(one, ProbeResult(False, '50% of "this", %s\n', 500, 0.25, "L7STS")),
        lambda: talk("set server web/s1 state maint;set server web/s3 state ready"),
        lambda: talk("set server web/s1 state ready;set maxconn server web/s3 9"),
        lambda: talk("set server web/s3 addr 127.0.0.7"),
        lambda: None,
    ]
    for change in changes:
        change()
        for secret in (False, True):
            world = World(talk.engine, Began(0.0, 0.0))
            anew = [csv_row(row) for row in rows(world, ("-1", -1, -1), frozenset(), secret=secret)]
            assert list(csv_lines(world, ("-1", -1, -1), frozenset(), secret=secret)) == anew
    assert one.shown is not None
