"""An Elastic IP as a resource: three states stay three, a release sends nothing, and the deadlines stay short."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from haptk.core import vip
from haptk.core.heartbeat.model import Seen
from haptk.eip import agent as eip_agent
from haptk.errors import AwsUnreachable
from haptk.heartbeat import agents


class FakeAgent:
    """What haptk.eip.Agent promises, with a written answer."""

    made: ClassVar[list[FakeAgent]] = []
    answer: Any = vip.Ours("test")

    def __init__(self, address: str, interface: str | None = None, private_ip: str | None = None) -> None:
        self.target = (address, interface, private_ip)
        self.calls: list[tuple[str, float]] = []
        self.made.append(self)

    def status(self, deadline_s: float) -> Any:
        self.calls.append(("status", deadline_s))
        return type(self).answer

    def start(self, deadline_s: float) -> Any:
        self.calls.append(("start", deadline_s))
        return type(self).answer

    def stop(self, deadline_s: float) -> Any:
        self.calls.append(("stop", deadline_s))
        return type(self).answer

    def warm(self, deadline_s: float) -> None:
        self.calls.append(("warm", deadline_s))
        raise AwsUnreachable(action="DescribeAddresses", target="x", endpoint="y", why="z")


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> agents.Resource:
    monkeypatch.setattr(eip_agent, "Agent", FakeAgent)
    FakeAgent.made = []
    return agents.make("eip::203.0.113.10::eni-0abc", file="x", line=1, resource_dirs=(Path("/"),), env={})


def test_arguments(resource: agents.Resource) -> None:
    assert FakeAgent.made[0].target == ("203.0.113.10", "eni-0abc", None)
    assert resource.exclusive


@pytest.mark.parametrize(
    ("status", "seen", "holder"),
    [
        (vip.Ours("EC2"), Seen.OURS, None),
        (vip.NotOurs(vip.Holder(interface="eni-2")), Seen.NOT_OURS, "eni-2"),
        (vip.NotOurs(None), Seen.NOT_OURS, ""),
        (vip.Unknown("no answer"), Seen.UNKNOWN, None),
    ],
)
def test_three_states(resource: agents.Resource, status: Any, seen: Seen, holder: str | None) -> None:
    FakeAgent.answer = status
    found = resource.status(60)
    assert (found.seen, found.holder) == (seen, holder)


@pytest.mark.parametrize("ok", [True, False])
def test_start_and_stop_tell_why(resource: agents.Resource, ok: bool) -> None:
    FakeAgent.answer = vip.Outcome(ok, vip.Ours("EC2"), True, "because of this")
    for verb in (resource.start, resource.stop):
        found = verb(60)
        assert (found.seen, found.why) == (Seen.DONE if ok else Seen.FAILED, "because of this")


def test_a_release_asks_nothing_and_no_call_holds_the_thread_for_long(resource: agents.Resource) -> None:
    assert resource.release(60).seen is Seen.DONE
    assert FakeAgent.made[0].calls == []
    FakeAgent.answer = vip.Outcome(True, vip.Ours("EC2"), True, "")
    resource.start(60)
    assert "no answer from y" in resource.warm()
    assert [limit <= 20 for _, limit in FakeAgent.made[0].calls] == [True, True]
