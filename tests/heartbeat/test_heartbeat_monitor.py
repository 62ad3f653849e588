"""Held groups of real daemons: a status that errs once, a service that dies again and again, a stop that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.heartbeat.test_heartbeat_daemon import SCRIPT, Daemons, wait_for


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Daemons]:
    made = Daemons(tmp_path)
    yield made
    made.close()


def write(pair: Daemons, text: str) -> None:
    (pair.dir / "resource.d" / "web").write_text(text.replace("{dir}", str(pair.dir)))


def test_a_status_that_errs_once_restarts_nothing(pair: Daemons) -> None:
    write(pair, SCRIPT.replace("status) ", "status) if [ -f {dir}/err ]; then rm {dir}/err; echo stopped; exit; fi; "))
    pair.up()
    (pair.dir / "err").touch()
    wait_for(lambda: pair.said("a", "doubt"), pair.logs())
    wait_for(lambda: pair.status("a")["resources"][0]["looks"] == "3/3 UP", pair.logs())
    assert not pair.said("a", "resource_lost")
    assert len([line for line in pair.events("a") if line["event"] == "resource_start"]) == 1


def test_the_numbers_of_looks_are_options(pair: Daemons) -> None:
    write(pair, SCRIPT.replace("status) ", "status) if [ -f {dir}/err ]; then rm {dir}/err; echo stopped; exit; fi; "))
    pair.up("--monitor-fall", "1", "--monitor-rise", "5")
    (pair.dir / "err").touch()
    wait_for(lambda: pair.said("a", "resource_lost"), pair.logs())
    wait_for(lambda: "/5 DOWN" in str(pair.status("a")["resources"][0]["looks"]), pair.logs())
    wait_for(lambda: pair.status("a")["resources"][0]["looks"] == "1/1 UP", pair.logs())
    assert pair.holders() == "a"


def test_a_service_that_dies_after_every_start_is_handed_over(pair: Daemons) -> None:
    """It starts well on a and is gone a moment later; on b it lives."""
    pair.up()
    text = SCRIPT.replace("start) ", 'start) [ "$HA_CURHOST" = a ] && exit 0; ')
    write(pair, text)
    (pair.dir / "up.a").unlink()
    wait_for(lambda: pair.said("a", "resource_gave_up"), pair.logs())
    wait_for(lambda: pair.holders() == "b" and pair.said("b", "resource_started"), pair.logs())
    names = [line["event"] for line in pair.events("a")]
    assert names.index("resource_lost") < names.index("resource_stop") < names.index("resource_gave_up")
    assert pair.status("a")["resources"][0]["failures"] >= 2


def test_what_is_left_of_a_dead_service_is_stopped_first_and_a_failed_stop_is_escalated(pair: Daemons) -> None:
    tool = pair.dir / "escalate"
    tool.write_text(f"#!/bin/sh\necho $HA_FAILED_RESOURCE > {pair.dir}/escalated\n")
    tool.chmod(0o755)
    pair.up("--on-stop-failure", str(tool))
    # It looks stopped until somebody tries to stop it; then it runs, and does not stop.
    status = "status) if [ -f {dir}/gone ]; then echo stopped; else echo running; fi;;"
    (pair.dir / "gone").touch()
    write(pair, f"#!/bin/sh\ncase $2 in\nstop) rm -f {{dir}}/gone; exit 1;;\nstart) exit 0;;\n{status}\nesac\n")
    wait_for(lambda: pair.said("a", "resource_lost"), pair.logs())
    wait_for((pair.dir / "escalated").exists, pair.logs(), 60)
    assert (pair.dir / "escalated").read_text() == "web::x\n"
    assert not pair.said("b", "resource_start")  # it may still be up on a


def test_a_script_that_dies_beside_an_address_is_not_somebody_elses() -> None:
    """The group's answer was the dead script's, which names no holder; that read as `somebody else has it`."""
    from haptk.core.heartbeat.model import Op, Outcome, Run, Seen
    from haptk.heartbeat.workers import GroupWorker

    class Member:
        def __init__(self, name: str, exclusive: bool, seen: Outcome) -> None:
            self.name, self.exclusive, self.seen = name, exclusive, seen

        def status(self, limit_s: float) -> Outcome:
            return self.seen

        def warm(self) -> str:
            raise OSError("no metadata")  # a fault here must not end the thread

    members = [Member("eip::x", True, Outcome(Seen.OURS)), Member("web", False, Outcome(Seen.NOT_OURS, "stopped"))]
    found: list[Outcome] = []
    warned: list[str] = []
    worker = GroupWorker(members, lambda _, outcome: found.append(outcome), warned.append, 5.0)  # type: ignore[arg-type]
    worker.start()
    wait_for(lambda: warned, "no warning")
    worker.order(Run(1, 0, Op.STATUS))
    wait_for(lambda: found, "no answer")
    worker.close()
    assert (found[0].seen, found[0].holder) == (Seen.NOT_OURS, "")
