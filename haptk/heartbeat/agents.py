"""What a resource is to the daemon: three verbs that block in a worker thread, and three states, never two.

`eip::ADDRESS[::INTERFACE[::PRIVATE_IP]]` is haptk's own agent and runs in process, warm; everything else is a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from haptk.core.heartbeat.model import Outcome, Seen
from haptk.errors import ConfigError, HaptkError

WARM_EVERY_S = 60.0
EIP_LOOK_S = 3.6
EIP_CHANGE_S = 20.0
"""An API that hangs must not hold the thread for long: the next order may be the take-over."""


class Resource(Protocol):
    """One resource of a group. The verbs never raise for what the resource does; they may take up to `limit_s`."""

    @property
    def name(self) -> str: ...
    @property
    def exclusive(self) -> bool: ...
    def status(self, limit_s: float) -> Outcome: ...
    def start(self, limit_s: float) -> Outcome: ...
    def stop(self, limit_s: float) -> Outcome: ...
    def release(self, limit_s: float) -> Outcome: ...
    def warm(self) -> str:
        """Get ready for a quick start; "" or what stands in the way."""
        ...


class EipResource:
    """An Elastic IP through haptk.eip: one request moves it, the cloud says who has it."""

    exclusive = True

    def __init__(self, name: str, arguments: list[str]) -> None:
        from haptk.eip.agent import Agent  # boto3's neighbourhood: only nodes with an Elastic IP pay for it

        self.name = name
        interface, private_ip = ([*arguments[1:], "", ""])[:2]
        self._agent = Agent(arguments[0], interface=interface or None, private_ip=private_ip or None)

    def status(self, limit_s: float) -> Outcome:
        from haptk.core.vip import NotOurs, Ours

        found = self._agent.status(min(limit_s, EIP_LOOK_S))
        if isinstance(found, Ours):
            return Outcome(Seen.OURS, str(found))
        if isinstance(found, NotOurs):
            return Outcome(Seen.NOT_OURS, str(found), str(found.holder) if found.holder else "")
        return Outcome(Seen.UNKNOWN, str(found))

    def start(self, limit_s: float) -> Outcome:
        outcome = self._agent.start(min(limit_s, EIP_CHANGE_S))
        return Outcome(Seen.DONE if outcome.ok else Seen.FAILED, outcome.because)

    def stop(self, limit_s: float) -> Outcome:
        outcome = self._agent.stop(min(limit_s, EIP_CHANGE_S))
        return Outcome(Seen.DONE if outcome.ok else Seen.FAILED, outcome.because)

    def release(self, limit_s: float) -> Outcome:
        """Nothing is sent: the taker's one call takes the address over, and until then it goes on to serve here."""
        return Outcome(Seen.DONE, "left for the taker, who takes it with one call")

    def warm(self) -> str:
        try:
            self._agent.warm(EIP_LOOK_S)
        except HaptkError as error:
            return str(error)
        return ""


def make(text: str, *, file: str, line: int, resource_dirs: tuple[Path, ...], env: Mapping[str, str]) -> Resource:
    """The resource that `text` (as in haresources) names; ConfigError when there is no such thing."""
    name, *arguments = text.split("::")
    if name == "eip":
        if not arguments or not arguments[0]:
            raise ConfigError(file=file, line=line, why="eip needs an address: eip::203.0.113.10[::INTERFACE]")
        if len(arguments) > 3:
            raise ConfigError(file=file, line=line, why=f"{text}: eip takes at most ADDRESS, INTERFACE and PRIVATE_IP")
        try:
            return EipResource(text, arguments)
        except HaptkError as error:
            raise ConfigError(file=file, line=line, why=f"{text}: {error}") from error
    from haptk.heartbeat.scripts import find

    return find(text, file=file, line=line, resource_dirs=resource_dirs, env=env)
