"""What Pacemaker's own policy engine does with each exit code of the agent: the codes are chosen for these answers.

`crm_simulate` is asked about a cluster of two nodes whose history of operations ends with the code in question.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from haptk.core.vip import Last, NotOurs, Ours, Outcome, Unknown
from haptk.eip.contracts import words

pytestmark = [pytest.mark.real("crm_simulate")]
CIB = """<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="0"
 have-quorum="1" dc-uuid="1"><configuration><crm_config><cluster_property_set id="p">
<nvpair id="p1" name="stonith-enabled" value="{stonith}"/><nvpair id="p2" name="no-quorum-policy" value="ignore"/>
</cluster_property_set></crm_config><nodes><node id="1" uname="lb1"/><node id="2" uname="lb2"/></nodes>
<resources><primitive id="eip" class="ocf" provider="haptk" type="eip"><operations>
<op id="m" name="monitor" interval="10s" timeout="20s"/></operations></primitive></resources><constraints/>
</configuration><status>{states}</status></cib>
"""
STATE = """<node_state id="{id}" uname="{node}" in_ccm="true" crmd="online" join="member" expected="member"><lrm id="{id}">
<lrm_resources><lrm_resource id="eip" class="ocf" provider="haptk" type="eip">{operations}</lrm_resource></lrm_resources>
</lrm></node_state>"""
NO_PARAMETERS = "f2317cad3d54cec5d7d7aa7d0bf35cf8"  # Pacemaker's digest of an empty set: without it all looks changed


def operation(node: str, number: int, name: str, interval_ms: int, code: int, expected: int = 0) -> str:
    key = f"{number}:1:{expected}:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    return (
        f'<lrm_rsc_op id="eip_{"last" if not interval_ms else "monitor"}_{interval_ms}" operation="{name}" '
        f'operation_key="eip_{name}_{interval_ms}" crm_feature_set="3.16.2" transition-key="{key}" '
        f'transition-magic="0:{code};{key}" on_node="{node}" call-id="{number}" rc-code="{code}" op-status="0" '
        f'interval="{interval_ms}" last-rc-change="{1700000000 + number}" op-digest="{NO_PARAMETERS}"/>'
    )


def answer(tmp_path: Path, *operations: str) -> tuple[str, str]:
    """(what Pacemaker would do, how it shows the resource) after these operations on lb1."""
    probe = operation("lb2", 1, "monitor", 0, 7, 7)
    states = STATE.format(id=1, node="lb1", operations="".join(operations))
    states += STATE.format(id=2, node="lb2", operations=probe)
    path = tmp_path / "cib.xml"
    path.write_text(CIB.format(stonith="false", states=states))
    done = subprocess.run(["crm_simulate", "-R", "-x", str(path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    summary = done.stdout.partition("Transition Summary:")[2]
    actions = " ".join(line.strip("* ").strip() for line in summary.splitlines() if line.strip().startswith("*"))
    shown = next(line for line in done.stdout.splitlines() if "(ocf:haptk:eip)" in line)
    return " ".join(actions.split()), " ".join(shown.split()[3:])


def monitor(tmp_path: Path, code: int) -> str:
    started = operation("lb1", 2, "start", 0, 0)
    return answer(tmp_path, started, operation("lb1", 3, "monitor", 10000, code))[0]


def start(tmp_path: Path, trouble: str) -> str:
    outcome = Outcome(False, NotOurs(), True, "why", (), trouble)
    code = words.say_outcome(words.OCF, "x", "start", outcome).code
    return answer(tmp_path, operation("lb1", 2, "start", 0, code))[0]


def code_of(status: object) -> int:
    return words.say_status(words.OCF, "x", status).code  # type: ignore[arg-type]


def test_a_silent_api_moves_nothing_while_the_address_was_here(tmp_path: Path) -> None:
    assert monitor(tmp_path, code_of(Ours("metadata"))) == ""
    assert monitor(tmp_path, code_of(Unknown("silent", Last(Ours("memory"), 60.0)))) == ""
    # The peer's answer to the same question, for comparison: 7, and Pacemaker recovers a resource that runs.
    assert monitor(tmp_path, 7).startswith("Recover eip")


def test_an_address_that_another_took_is_taken_again(tmp_path: Path) -> None:
    assert monitor(tmp_path, code_of(NotOurs())) == "Recover eip ( lb1 )"


def test_an_unknown_that_was_never_ours_is_recovered_in_place_not_moved(tmp_path: Path) -> None:
    assert monitor(tmp_path, code_of(Unknown("silent"))) == "Recover eip ( lb1 )"


def test_a_probe(tmp_path: Path) -> None:
    def probe(code: int) -> tuple[str, str]:
        return answer(tmp_path, operation("lb1", 2, "monitor", 0, code, 7))

    assert probe(code_of(Ours("EC2"))) == ("", "Started lb1")
    assert probe(code_of(NotOurs()))[0].startswith("Start eip")
    assert probe(code_of(Unknown("silent", Last(Ours("memory"), 1.0)))) == ("", "Started lb1")


@pytest.mark.parametrize("trouble", ["AwsUnreachable", "AwsThrottled"])
def test_a_start_that_failed_for_a_moment_is_tried_here_again(tmp_path: Path, trouble: str) -> None:
    assert start(tmp_path, trouble) == "Recover eip ( lb1 )"


@pytest.mark.parametrize("trouble", ["AwsDenied", "AwsNoCredentials", "AwsClock", "OperatorError"])
def test_a_start_that_cannot_work_here_is_tried_on_the_other_node(tmp_path: Path, trouble: str) -> None:
    assert start(tmp_path, trouble) == "Recover eip ( lb1 -> lb2 )"


def test_an_address_that_does_not_exist_is_tried_nowhere(tmp_path: Path) -> None:
    assert start(tmp_path, "AwsNotFound").startswith("Stop eip ( lb1 )")


def test_every_code_that_the_agent_can_answer_is_in_the_reference(tmp_path: Path) -> None:
    """The table of docs/reference/eip-contracts.md, row by row, as the policy engine answers."""
    rows = dict.fromkeys((1, 7, 190), "")
    for code in rows:
        rows[code] = monitor(tmp_path, code)
    assert rows == {1: "Recover eip ( lb1 )", 7: "Recover eip ( lb1 )", 190: ""}
    for code in (2, 4, words.OCF_INSTALLED):
        assert answer(tmp_path, operation("lb1", 2, "start", 0, code))[0] == "Recover eip ( lb1 -> lb2 )", code
    assert answer(tmp_path, operation("lb1", 2, "start", 0, words.OCF_CONFIGURED))[0].startswith("Stop eip ( lb1 )")


def test_a_failed_stop_blocks_where_nobody_can_fence(tmp_path: Path) -> None:
    outcome = Outcome(False, Unknown("silent"), False, "why", (), "AwsUnreachable")
    code = words.say_outcome(words.OCF, "x", "stop", outcome).code
    actions, shown = answer(tmp_path, operation("lb1", 2, "stop", 0, code))
    assert actions == "" and "blocked" in shown
