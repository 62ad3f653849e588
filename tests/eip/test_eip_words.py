"""The words of each contract, and that the documentation shows the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.core.vip import Holder, Last, NotOurs, Ours, Outcome, Unknown
from haptk.eip.contracts import table, words

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "eip-contracts.md"
STALE = Unknown("no answer", Last(Ours("memory"), 12.0), "AwsUnreachable")


def test_the_reference_shows_what_the_code_says() -> None:
    text = REFERENCE.read_text()
    shown = text.partition(table.BEGIN)[2].partition(table.END)[0].strip()
    assert shown == table.markdown(), "run python -m haptk.eip.contracts.table and paste it"


@pytest.mark.parametrize("contract", words.CONTRACTS)
def test_unknown_is_never_said_as_not_ours(contract: str) -> None:
    unknown = words.say_status(contract, "x", Unknown("why"))
    stopped = words.say_status(contract, "x", NotOurs())
    assert (unknown.code, unknown.stdout) != (stopped.code, stopped.stdout)


def test_ocf_never_answers_seven_to_a_change() -> None:
    for action in ("start", "stop"):
        for trouble in ("", *table.FAILURES):
            outcome = Outcome(False, NotOurs(), True, "why", (), trouble)
            assert words.say_outcome(words.OCF, "x", action, outcome).code not in (0, 7)


def test_the_reason_of_an_unknown_has_the_age_of_what_was_known() -> None:
    said = words.say_status(words.OCF, "x", STALE)
    assert said.code == 190 and "12 s ago it was ours" in said.stderr


def test_a_holder_called_running_is_not_taken_for_running() -> None:
    said = words.say_status(words.HEARTBEAT, "x", NotOurs(Holder("eni-1", "running-OK")))
    assert said.stdout == "stopped" and said.stderr == ""


def test_performance_data_cannot_be_broken_by_a_reason() -> None:
    said = words.say_status(words.NAGIOS, "x", Unknown("a | b"))
    assert said.stdout.count("|") == 1
