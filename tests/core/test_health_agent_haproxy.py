"""What an agent-check says, beside the real HAProxy: after each answer both must have the same state and weight.

An agent's connection is HAProxy asking again, so the answer before it is settled: that is when both sides are compared.
"""

from __future__ import annotations

import csv
import random
import selectors
import socket
import subprocess
from pathlib import Path

import pytest

from haptk.core.health import CheckRules, Health
from haptk.io import clock
from tests.diff.rig import ask

ANSWERS = ["up", "down", "stopped", "fail", "drain", "ready", "maint", "50%", "100%", "0%", "75% up", "up ready", ""]
ANSWERS += [
    "down # overloaded",
    "drain 20%",
    "ready up 80%",
    "nonsense",
    "fail#x",
    "up,ready",
    "UP",
    "maint\tdown",
    "# up",
]
LENGTH = 25


class Agent:
    """One server's agent with a random script, and our side's view of that server."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.script = [rng.choice(ANSWERS) for _ in range(LENGTH)]
        self.health = Health(f"s{number}", CheckRules())
        self.name = f"s{number}"
        self.asked = 0
        self.wrong: list[str] = []
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(16)

    def compare(self, row: dict[str, str]) -> None:
        state = "UP" if row["status"] == "no check" else row["status"].split()[0]
        same = state == self.health.state.value
        # In maintenance HAProxy shows the weight that was in effect before.
        if state != "MAINT":
            same = same and int(row["weight"]) == self.health.agent_weight_percent
        if not same:
            said = self.script[: self.asked]
            mine = f"{self.health.state.value} {self.health.agent_weight_percent}"
            self.wrong.append(f"{said}: haptk {mine}, haproxy {row['status']} {row['weight']}")

    def administer(self, wish: str, path: Path) -> None:
        assert ask(path, f"set server be/{self.name} state {wish}").strip() == ""
        self.health.admin(wish, float(self.asked))
        if self.asked < LENGTH:
            self.script[self.asked] += f" #{wish}"  # a comment for HAProxy; for the reader of a failure it tells more

    def answer(self) -> bytes:
        word = self.script[self.asked] if self.asked < LENGTH else "up"
        if self.asked < LENGTH:
            self.health.agent(word, float(self.asked))
        self.asked += 1
        return word.encode() + b"\n"


def statistics(path: Path) -> dict[str, dict[str, str]]:
    lines = ask(path, "show stat").removeprefix("# ").splitlines()
    return {row["svname"]: row for row in csv.DictReader(lines)}


def configuration(agents: list[Agent], folder: Path) -> str:
    lines = [
        "global",
        f"  stats socket {folder}/admin.sock level admin",
        "defaults",
        "  mode http",
        "  timeout connect 5s",
        # Else an agent whose turn comes late here (a busy machine) is given up after agent-inter, its answer unread.
        "  timeout check 20s",
    ]
    lines += [
        "  timeout client 5s",
        "  timeout server 5s",
        "frontend nobody",
        f"  bind {folder}/listener",
        "backend be",
    ]
    for agent in agents:
        port = agent.socket.getsockname()[1]
        # No health check: the agent alone decides. Nothing is ever sent to port 9.
        lines.append(f"  server {agent.name} 127.0.0.1:9 weight 100 agent-check agent-port {port} agent-inter 150ms")
    return "\n".join([*lines, ""])


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("administered", [False, True], ids=["agents alone", "and an administrator"])
def test_agents_mean_the_same_to_both(tmp_path: Path, administered: bool) -> None:
    rng = random.Random(7)
    agents = [Agent(number, rng) for number in range(12)]
    config = tmp_path / "haproxy.cfg"
    config.write_text(configuration(agents, tmp_path))
    with (tmp_path / "err").open("wb") as errors:
        haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=errors, stderr=errors)
    deadline = clock.monotonic() + 60
    try:
        with selectors.DefaultSelector() as selector:
            for agent in agents:
                selector.register(agent.socket, selectors.EVENT_READ, agent)
            while not all(agent.asked > LENGTH for agent in agents):
                assert clock.monotonic() < deadline, (tmp_path / "err").read_text()
                for key, _ in selector.select(0.2):
                    channel, _ = key.data.socket.accept()
                    with channel:
                        if 0 < key.data.asked <= LENGTH:
                            key.data.compare(statistics(tmp_path / "admin.sock")[key.data.name])
                        if administered and rng.random() < 0.3:
                            key.data.administer(rng.choice(("ready", "drain", "maint")), tmp_path / "admin.sock")
                        channel.sendall(key.data.answer())
    finally:
        haproxy.terminate()
        haproxy.wait(20)
        for agent in agents:
            agent.socket.close()
    assert [line for agent in agents for line in agent.wrong] == []
