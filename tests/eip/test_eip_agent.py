"""The agent against the corrected cloud over HTTP: three states, one call, compare-and-delete, deadlines."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from haptk.aws.client import Access
from haptk.core.vip import NotOurs, Ours, Outcome, Unknown
from haptk.eip.agent import Agent
from haptk.errors import OperatorError
from haptk.io import clock


@pytest.fixture
def agent(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the agent of a node; credentials and endpoint as that node's environment has them."""

    def make(node: str = "lb1", name: str = "web", **options: Any) -> Agent:
        env = lab.env(node)
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
            monkeypatch.setenv(key, env[key])
        address = options.pop("address", lab.ip(name))
        return Agent(address, env=env, access=Access(endpoint_url=lab.api), **options)

    return make


def test_a_free_address_is_taken_in_one_call_and_let_go(lab: Any, agent: Any) -> None:
    one = agent()
    assert one.status() == NotOurs(holder=None, source="EC2")
    mark = lab.mark()
    outcome = one.start()
    assert outcome.ok and outcome.acted, outcome
    assert lab.holder() == "lb1"
    (call,) = lab.calls(mark, "AssociateAddress")
    assert call["status"] == 200
    assert isinstance(one.status(), Ours)
    outcome = one.stop()
    assert outcome.ok and outcome.acted, outcome
    assert lab.holder() is None
    assert isinstance(one.status(), NotOurs)


def test_a_takeover_never_leaves_the_address_to_nobody(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    mark = lab.mark()
    assert agent("lb2").start().ok
    assert lab.holder() == "lb2"
    assert not lab.calls(mark, "DisassociateAddress")


def test_starting_what_is_here_sends_nothing(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    before, mark = lab.association(), lab.mark()
    outcome = agent().start()
    assert outcome.ok and not outcome.acted
    assert lab.association() == before
    assert not lab.calls(mark, "AssociateAddress")


def test_status_asks_no_api_while_metadata_has_it(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    one, mark = agent(), lab.mark()
    assert one.status() == Ours(source="metadata", since=pytest.approx(clock.wall(), abs=30))
    lab.fault("hang")
    assert isinstance(one.status(), Ours)
    assert not lab.calls(mark)


def test_a_lagging_metadata_service_is_not_believed_when_it_denies(lab: Any, agent: Any) -> None:
    lab.lag("lb1", 60_000)
    one = agent()
    assert one.start().ok
    assert one.status().source == "EC2"


def test_after_a_release_lagging_metadata_does_not_show_it_as_running(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    one = agent()
    assert one.status().source == "metadata"
    lab.freeze("lb1")
    assert one.stop().ok
    assert isinstance(one.status(), NotOurs)
    lab.fault("reset")
    state = one.status()
    assert isinstance(state, Unknown) and "lists it, but" in state.why


def test_a_stop_leaves_the_new_holder_alone(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    one = agent("lb1")
    assert isinstance(one.status(), Ours)
    lab.freeze("lb1")  # metadata still says "yours" while lb2 takes it
    lab.give("lb2")
    assert isinstance(one.status(), Ours)
    outcome = one.stop()
    assert outcome.ok and not outcome.acted
    assert lab.holder() == "lb2"


def test_a_stop_that_loses_the_race_takes_nothing_from_the_winner(lab: Any, agent: Any) -> None:
    """The peer's worst defect: between its look and its disassociate another node takes the address."""
    lab.give("lb1")
    one = agent("lb1")
    lab.fault("slow", action="DisassociateAddress", slow_ms=1500)
    outcomes: list[Outcome] = []
    mark = lab.mark()
    thread = threading.Thread(target=lambda: outcomes.append(one.stop()))
    thread.start()
    for _ in range(400):
        if lab.calls(mark, "DisassociateAddress") or lab.calls(mark, "DescribeAddresses"):
            break
        clock.sleep(0.01)
    clock.sleep(0.2)
    lab.give("lb2")
    thread.join(20)
    assert outcomes[0].ok and "gone already" in outcomes[0].because, outcomes[0]
    assert lab.holder() == "lb2"


def test_a_start_does_not_believe_old_metadata_that_it_is_here(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    one = agent("lb1")
    assert isinstance(one.status(), Ours)
    lab.freeze("lb1")
    lab.give("lb2")
    outcome = one.start()
    assert outcome.ok and outcome.acted
    assert lab.holder() == "lb1"


@pytest.mark.parametrize("mode", ["hang", "error", "reset", "throttle"])
def test_an_api_that_cannot_be_asked_is_unknown_and_moves_nothing(lab: Any, agent: Any, mode: str) -> None:
    lab.give("lb2")
    lab.fault(mode)
    one = agent("lb1")
    begun = clock.monotonic()
    state = one.status()
    assert isinstance(state, Unknown), state
    assert clock.monotonic() - begun < 4.0
    assert state.why
    stopped = one.stop(deadline_s=3)
    assert not stopped.ok and not stopped.acted
    assert lab.holder() == "lb2"


def test_unknown_carries_the_last_known_state_and_its_age(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    assert isinstance(agent("lb1").status(), Ours)
    lab.power("lb1", False)
    lab.fault("reset")
    state = agent("lb1").status()
    assert isinstance(state, Unknown) and state.last_was_ours
    assert state.last is not None and 0 <= state.last.age_s < 30


def test_a_start_whose_answer_is_lost_looks_again(lab: Any, agent: Any) -> None:
    lab.fault("reset", action="AssociateAddress", when="after")
    outcome = agent().start()
    assert outcome.ok and outcome.acted, outcome
    assert "lost" in outcome.because
    assert lab.holder() == "lb1"


def test_a_stop_whose_answer_is_lost_looks_again(lab: Any, agent: Any) -> None:
    lab.give("lb1")
    lab.fault("reset", action="DisassociateAddress", when="after", count=3)
    outcome = agent().stop()
    assert outcome.ok, outcome
    assert lab.holder() is None


def test_a_throttled_question_does_not_stop_a_takeover_of_a_known_address(lab: Any, agent: Any) -> None:
    """Throttling is per action: that nobody may ask does not mean that nobody may take."""
    lab.give("lb2")
    agent("lb1").status()  # learns the allocation
    lab.fault("throttle", action="DescribeAddresses")
    outcome = agent("lb1").start()
    assert outcome.ok, outcome
    assert lab.holder() == "lb1"


def test_a_warm_agent_takes_over_with_one_request(lab: Any, agent: Any) -> None:
    lab.give("lb2")
    one = agent("lb1")
    one.warm()
    mark = lab.mark()
    assert one.start().ok
    assert [call["action"] for call in lab.calls(mark)] == ["AssociateAddress"]
    assert lab.holder() == "lb1"


def test_a_hung_api_lets_start_answer_within_its_deadline(lab: Any, agent: Any) -> None:
    lab.fault("hang")
    begun = clock.monotonic()
    outcome = agent().start(deadline_s=5)
    assert not outcome.ok
    assert outcome.trouble == "AwsUnreachable"
    assert clock.monotonic() - begun < 7


def test_an_address_that_does_not_exist_says_so(lab: Any, agent: Any) -> None:
    outcome = agent(address="203.0.113.250").start()
    assert not outcome.ok and outcome.trouble == "AwsNotFound"
    outcome = agent(address="eipalloc-0123456789abcdef0").start()
    assert not outcome.ok and outcome.trouble == "AwsNotFound"
    # Nobody can hold what does not exist: a failed stop would fence a node for an address that was given back.
    assert agent(address="203.0.113.250").stop().ok


def test_an_address_that_is_a_prefix_of_ours_is_not_ours(lab: Any, agent: Any) -> None:
    """Unanchored matching: holding ...155 must not look like holding ...15."""
    lab.give("lb1", "longer")
    assert isinstance(agent("lb1", "web").status(), NotOurs)
    assert isinstance(agent("lb1", "longer").status(), Ours)


def test_by_allocation_id_and_by_tag(lab: Any, agent: Any) -> None:
    by_id = agent(address=lab.allocation())
    assert by_id.start().ok and lab.holder() == "lb1"
    assert isinstance(by_id.status(), Ours)
    by_tag = agent("lb2", address="tag:Name=web")
    assert by_tag.start().ok and lab.holder() == "lb2"
    assert isinstance(by_tag.status(), Ours)
    assert by_tag.stop().ok and lab.holder() is None
    nothing = agent(address="tag:Name=nothing").start()
    assert not nothing.ok and nothing.trouble == "AwsNotFound"


def test_a_private_address_can_be_pinned(lab: Any, agent: Any) -> None:
    secondary = lab.region.instance("lb1").secondary_ips[0]
    lab.give("lb1")  # on the primary private address
    pinned = agent("lb1", private_ip=secondary)
    assert isinstance(pinned.status(), NotOurs)
    assert pinned.start().ok
    found = lab.ec2.describe_addresses(AllocationIds=[lab.allocation()])["Addresses"][0]
    assert found["PrivateIpAddress"] == secondary
    lab.settle()
    assert isinstance(pinned.status(), Ours)


def test_an_interface_named_by_the_operator_needs_no_metadata(lab: Any, agent: Any) -> None:
    lab.power("lb1", False)
    one = agent("lb1", interface=lab.eni("lb1"))
    assert one.start().ok
    assert lab.holder() == "lb1"
    assert one.status().source == "EC2"
    lab.power("lb1", True)


def test_without_metadata_and_interface_nothing_is_guessed(lab: Any, agent: Any) -> None:
    lab.power("lb1", False)
    one = agent("lb1")
    outcome = one.start()
    assert not outcome.ok and not outcome.acted
    assert "--interface" in outcome.because
    lab.power("lb1", True)


@pytest.mark.parametrize(
    "text", ["", "203.0.113", "203.0.113.300", "eipalloc-xyz", "tag:", "private:x", "route:rtb-1/x"]
)
def test_an_address_that_means_nothing_is_refused(lab: Any, agent: Any, text: str) -> None:
    with pytest.raises(OperatorError):
        agent(address=text)


def test_a_second_address_never_pushes_the_first_out(lab: Any, agent: Any) -> None:
    """EC2 keeps one Elastic IP for each private address and silently drops the first one for a second."""
    lab.lag("lb1", 60_000)  # metadata does not show the first one yet when the second comes
    assert agent("lb1", "web").start().ok
    assert agent("lb1", "third").start().ok
    assert (lab.holder("web"), lab.holder("third")) == ("lb1", "lb1")
    refused = agent("lb1", "longer").start()
    assert not refused.ok and not refused.acted and refused.trouble == "AwsConflict"
    assert "secondary private address" in refused.because
    assert (lab.holder("web"), lab.holder("third")) == ("lb1", "lb1")
    assert agent("lb1", "web").stop().ok
    assert agent("lb1", "longer").start().ok
    assert (lab.holder("longer"), lab.holder("third")) == ("lb1", "lb1")


def test_a_full_interface_by_old_metadata_only_is_no_reason_to_refuse(lab: Any, agent: Any) -> None:
    lab.ec2.associate_address(
        AllocationId=lab.allocation("longer"),
        NetworkInterfaceId=lab.eni("lb1"),
        PrivateIpAddress=lab.region.instance("lb1").secondary_ips[0],
    )
    lab.give("lb1", "third")
    lab.freeze("lb1")
    lab.give("lb2", "third")
    mark = lab.mark()
    assert agent("lb1", "web").start().ok
    assert lab.calls(mark, "DescribeNetworkInterfaces")  # it looked again before refusing
    assert (lab.holder("web"), lab.holder("longer"), lab.holder("third")) == ("lb1", "lb1", "lb2")


def test_an_identity_that_is_old_is_asked_anew(lab: Any, agent: Any) -> None:
    """The run directory outlives the interface: it was replaced, or the machine is another one at the same address."""
    from haptk.eip.memory import Memory

    env = lab.env("lb1")
    lab.give("lb1")
    memory = Memory(env["HAPTK_RUN_DIR"], env["AWS_EC2_METADATA_SERVICE_ENDPOINT"], None, None)
    memory.remember_node("02:00:00:00:00:99", "eni-0000000000000099", "i-00000000000000099")
    assert isinstance(agent("lb1").status(), Ours)
    memory.remember_node("02:00:00:00:00:99", "eni-0000000000000099", "i-00000000000000099")
    assert agent("lb1").stop().acted and lab.holder() is None
    memory.remember_node("02:00:00:00:00:99", "eni-0000000000000099", "i-00000000000000099")
    assert agent("lb1").start().ok and lab.holder() == "lb1"
