"""Resource scripts: what counts as running, what their environment holds, how groups start and stop, what is refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from haptk.core.heartbeat.model import Op, Outcome, Remember, Run, Seen
from haptk.errors import ConfigError
from haptk.heartbeat import agents, scripts
from haptk.heartbeat.state import StateDir
from haptk.heartbeat.workers import GroupWorker


@pytest.mark.parametrize(
    ("words", "running"),
    [
        ("running", True),
        ("Running", True),
        ("OK", True),
        ("web is running (pid 7)", True),
        ("stopped", False),
        ("not running", False),
        ("Not  Running", False),
        ("web is NOT running OK", False),
        ("", False),
        ("ok", False),
    ],
)
def test_the_words_of_status(words: str, running: bool) -> None:
    assert scripts.is_running(words) is running


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def find(text: str, directory: Path) -> agents.Resource:
    return agents.make(text, file="haresources", line=3, resource_dirs=(directory,), env=scripts.base_env("a", {}))


def test_only_stdout_of_status_counts(tmp_path: Path) -> None:
    script(tmp_path / "web", "echo running >&2; echo stopped; exit 0")
    assert find("web", tmp_path).status(5).seen is Seen.NOT_OURS
    script(tmp_path / "web", "echo running; exit 3")
    assert find("web", tmp_path).status(5).seen is Seen.OURS


def test_arguments_come_before_the_action_and_an_address_means_ipaddr(tmp_path: Path) -> None:
    script(tmp_path / "IPaddr", f'echo "$@" > {tmp_path}/args; echo stopped')
    find("10.0.0.9/24::eth0", tmp_path).status(5)
    assert (tmp_path / "args").read_text() == "10.0.0.9/24 eth0 status\n"


def test_the_environment_is_made_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HA_DEBUGLOG", "/etc/passwd")
    monkeypatch.setenv("LD_PRELOAD", "")
    script(tmp_path / "web", f"env > {tmp_path}/env; echo stopped")
    agents.make(
        "web", file="x", line=1, resource_dirs=(tmp_path,), env=scripts.base_env("a", {"keepalive": "2"})
    ).status(5)
    found = (tmp_path / "env").read_text()
    assert "HA_CURHOST=a\n" in found
    assert "HA_keepalive=2\n" in found
    assert "HA_DEBUGLOG" not in found
    assert "LD_PRELOAD" not in found


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds (a zombie has ended)."""
    state = Path(f"/proc/{pid}/stat")
    for _ in range(200):
        try:
            if ") Z " in state.read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_service_left_behind_with_our_output_open_is_neither_awaited_nor_killed(tmp_path: Path) -> None:
    script(tmp_path / "web", f'[ "$1" = start ] && {{ sleep 300 & echo $! > {tmp_path}/pid; }}; echo stopped')
    before = time.monotonic()
    assert find("web", tmp_path).start(60).seen is Seen.DONE
    assert time.monotonic() - before < 30
    pid = int((tmp_path / "pid").read_text())
    assert ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    os.kill(pid, signal.SIGKILL)


def test_a_script_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script(tmp_path / "web", f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    outcome = find("web", tmp_path).status(0.5)
    assert outcome.seen is Seen.UNKNOWN
    assert "did not end within" in outcome.why
    pid = int((tmp_path / "pid").read_text())
    assert gone(pid)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("web", "haresources:3: resource script web is not in"),
        ("../evil", "is not the name of a resource script"),
        ("eip", "eip needs an address"),
        ("eip::203.0.113.10::eni-1::10.0.0.1::x", "at most ADDRESS, INTERFACE and PRIVATE_IP"),
        ("eip::not-an-address", "is not an address"),
        ("systemd::--help", "takes one unit name"),
        ("ocf:heartbeat", "an OCF resource is ocf:PROVIDER:TYPE"),
        ("ocf:heartbeat:NoSuchAgent", "there is no OCF agent"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        find(text, tmp_path)


def test_an_ocf_agent(tmp_path: Path) -> None:
    if not Path("/usr/lib/ocf/resource.d/heartbeat/Dummy").exists():
        pytest.skip("resource-agents is not installed")
    dummy = find(f"ocf:heartbeat:Dummy::state={tmp_path}/dummy", tmp_path)
    assert dummy.status(10).seen is Seen.NOT_OURS
    assert dummy.start(10).seen is Seen.DONE
    assert dummy.status(10).seen is Seen.OURS
    assert dummy.stop(10).seen is Seen.DONE
    assert dummy.status(10).seen is Seen.NOT_OURS


def test_root_refuses_a_script_that_others_can_change(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root refuses")
    script(tmp_path / "web", "echo running").chmod(0o777)
    outcome = find("web", tmp_path).start(5)
    assert outcome.seen is Seen.FAILED
    assert "writable by others" in outcome.why


class Fake:
    """A resource that writes down what is asked of it."""

    exclusive = False

    def __init__(self, name: str, calls: list[str], fails: str = "") -> None:
        self.name, self._calls, self._fails = name, calls, fails

    def _do(self, verb: str) -> Outcome:
        self._calls.append(f"{verb} {self.name}")
        return Outcome(Seen.FAILED if verb == self._fails else Seen.DONE, f"{verb} failed")

    def status(self, limit_s: float) -> Outcome:
        if self._fails == "raise":
            raise OSError("broken")
        return Outcome(Seen.UNKNOWN if self._fails == "status" else Seen.OURS)

    def start(self, limit_s: float) -> Outcome:
        return self._do("start")

    def stop(self, limit_s: float) -> Outcome:
        return self._do("stop")

    def release(self, limit_s: float) -> Outcome:
        return self._do("release")

    def warm(self) -> str:
        return ""


def do(resources: list[Fake], op: Op) -> Outcome:
    worker = GroupWorker(resources, lambda _ticket, _outcome: None, lambda _text: None, 5.0)
    return worker._do(Run(1, 0, op).op)


def test_a_group_starts_left_to_right_and_stops_right_to_left() -> None:
    calls: list[str] = []
    group = [Fake("one", calls), Fake("two", calls)]
    assert do(group, Op.START).seen is Seen.DONE
    assert do(group, Op.STOP).seen is Seen.DONE
    assert do(group, Op.RELEASE).seen is Seen.DONE
    assert calls == ["start one", "start two", "stop two", "stop one", "release two", "release one"]


def test_a_failed_start_stops_what_was_started() -> None:
    calls: list[str] = []
    outcome = do([Fake("one", calls), Fake("two", calls, "start"), Fake("three", calls)], Op.START)
    assert (outcome.seen, outcome.why) == (Seen.FAILED, "start failed")
    assert calls == ["start one", "start two", "stop two", "stop one"]


def test_a_failed_stop_goes_on_and_is_reported() -> None:
    calls: list[str] = []
    assert do([Fake("one", calls), Fake("two", calls, "stop")], Op.STOP).seen is Seen.FAILED
    assert calls == ["stop two", "stop one"]


def test_one_unknown_member_makes_the_group_unknown_and_a_fault_is_an_answer() -> None:
    assert do([Fake("one", []), Fake("two", [], "status")], Op.STATUS).seen is Seen.UNKNOWN
    outcome = do([Fake("one", [], "raise")], Op.STATUS)
    assert (outcome.seen, outcome.why) == (Seen.UNKNOWN, "OSError: broken")


def test_the_generation_is_raised_on_disk_in_the_format_of_the_original(tmp_path: Path) -> None:
    old = tmp_path / "heartbeat"
    old.mkdir()
    (old / "hb_generation").write_text(f"{1700000000:>15d}\n")
    (old / "hb_uuid").write_bytes(b"u" * 16)
    state = StateDir(tmp_path / "state", inherit=old)
    assert state.next_generation() == 1700000001
    assert StateDir(tmp_path / "state").next_generation() == 1700000002
    assert (tmp_path / "state" / "hb_generation").read_text() == "     1700000002\n"
    assert state.uuid() == b"u" * 16


def test_peers_are_remembered_and_damage_is_named(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.peers() == Remember({}, {})
    state.remember(Remember({"b": 7}, {"b": b"x" * 16}))
    assert state.peers() == Remember({"b": 7}, {"b": b"x" * 16})
    (tmp_path / "peers.json").write_text("{")
    with pytest.raises(ConfigError, match=r"peers\.json:1: it is damaged"):
        state.peers()
    (tmp_path / "hb_generation").write_text("x\n")
    with pytest.raises(ConfigError, match="it holds no number"):
        state.next_generation()
