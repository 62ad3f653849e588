"""`agent-check`: the real haproxy, the compiled path and the reference before agents that say the same, word for word.

A connection of an agent says that its answer before this one has been dealt with: that is when a program is looked at.
"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import re
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.diff.rig import ask

SERVERS, LENGTH = 10, 12
ANSWERS = [
    "up", "down", "stopped", "fail", "drain", "ready", "maint", "50%", "100%", "0%", "75% up", "up ready", "down # busy",
    "drain 20%", "nonsense", "up,ready", "maxconn:30", "maxconn:7 50% up", "maint\tdown", "# up", "400%", "<close>",
]  # fmt: skip
COLUMNS = ("status", "weight", "uweight", "slim", "act", "agent_code", "agent_health", "agent_rise", "agent_fall")


class Program:
    """One proxy, an agent for each of its servers, and what it looked like whenever one was asked."""

    def __init__(self, kind: str, folder: Path, scripts: list[list[str]]) -> None:
        folder.mkdir()
        self.kind, self.path, self.scripts = kind, folder / "sock", scripts
        self.agents = [socket.create_server(("127.0.0.1", 0)) for _ in scripts]
        self.asked = [0] * len(scripts)
        self.seen: list[list[dict[str, str]]] = [[] for _ in scripts]
        self.sent: set[bytes] = set()
        lines = [
            "global", f"  stats socket {self.path} level admin", "defaults", "  mode http", "  timeout connect 9s",
            "  timeout client 9s", "  timeout server 9s", "  timeout check 9s", "frontend nobody",
            f"  bind {folder}/listener", "  default_backend be", "backend be",
        ]  # fmt: skip
        for number, agent in enumerate(self.agents):
            port = agent.getsockname()[1]
            lines.append(
                f"  server s{number} 127.0.0.1:9 weight 100 agent-check agent-port {port} agent-inter 150ms agent-send hi\\n"
            )
        config = folder / "x.cfg"
        config.write_text("\n".join([*lines, ""]))
        argv = ["haproxy", "-db"] if kind == "haproxy" else [sys.executable, "-m", "haptk", "proxy"]
        environ = {**os.environ, **({"HAPTK_NO_FAST": "1"} if kind == "reference" else {})}
        with (folder / "err").open("wb") as errors:
            self.child = subprocess.Popen([*argv, "-f", str(config)], stdout=errors, stderr=errors, env=environ)

    def rows(self) -> dict[str, dict[str, str]]:
        lines = ask(self.path, "show stat").removeprefix("# ").splitlines()
        return {row["svname"]: row for row in csv.DictReader(lines)}

    def answer(self, number: int) -> None:
        """The agent of one server was asked."""
        channel, _ = self.agents[number].accept()
        channel.settimeout(10)
        with channel:
            self.sent.add(channel.recv(100))
            count = self.asked[number]
            if 0 < count <= LENGTH:
                row = self.rows()[f"s{number}"]
                found = {name: row[name] for name in COLUMNS}
                if found["status"] == "MAINT":
                    del found["weight"]  # haproxy goes on showing the one that was in effect before
                found["agent_status"] = row["agent_status"].removeprefix("* ")
                self.seen[number].append(found)
            word = self.scripts[number][count] if count < LENGTH else "up"
            self.asked[number] += 1
            if word != "<close>":
                channel.sendall(word.encode() + b"\n")

    def stop(self) -> None:
        self.child.kill()
        self.child.wait(10)
        for agent in self.agents:
            agent.close()


@pytest.mark.real("haproxy")
def test_agents_mean_the_same_to_all(tmp_path: Path) -> None:
    rng = random.Random(11)
    scripts = [[rng.choice(ANSWERS) for _ in range(LENGTH)] for _ in range(SERVERS)]
    programs = [Program(kind, tmp_path / kind, scripts) for kind in ("haproxy", "fast", "reference")]
    deadline = time.monotonic() + 120
    try:
        with selectors.DefaultSelector() as selector:
            for program in programs:
                for number, agent in enumerate(program.agents):
                    selector.register(agent, selectors.EVENT_READ, (program, number))
            while not all(count > LENGTH for program in programs for count in program.asked):
                assert time.monotonic() < deadline, [program.asked for program in programs]
                for key, _ in selector.select(0.2):
                    program, number = key.data
                    program.answer(number)
        real, *ours = programs
        for program in ours:
            assert program.sent == real.sent == {b"hi\n"}
            for number, script in enumerate(scripts):
                for step, (mine, theirs) in enumerate(zip(program.seen[number], real.seen[number], strict=True)):
                    assert mine == theirs, (program.kind, script[: step + 1])
            words(program, real)
    finally:
        for program in programs:
            program.stop()


COMMANDS = """set server be/s1 agent
set server be/s1 agent bogus
set server be/s1 agent-addr
set server be/s1 agent-addr foo
set server be/s1 agent-addr 127.0.0.1 port
set server be/s1 agent-port
set server be/s1 agent-port x
set server be/s1 agent-send foo
disable agent be/s1
enable agent be/s1
disable agent
enable agent be/zz"""


def words(mine: Program, real: Program) -> None:
    """What administrators say about agents, and the state of one that is not asked any more."""
    for command in COMMANDS.splitlines():
        assert ask(mine.path, command) == ask(real.path, command), command
    states: list[Any] = []
    for program in (mine, real):
        ask(program.path, "disable agent be/s2")
        deadline = time.monotonic() + 20
        while not re.search(r" s2 .* 18 0 0 ", line := state_of(program, "s2")):
            assert time.monotonic() < deadline, line
            program.agents[2].settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                program.answer(2)  # the question that was on its way
        refused = [
            ask(program.path, f"set server be/s2 {text}") for text in ("agent down", "agent-port 5", "agent-send x")
        ]
        ask(program.path, "set server be/s2 state ready;enable agent be/s2;set server be/s2 agent down")
        down = program.rows()["s2"]["status"]
        ask(program.path, "set server be/s2 agent up")
        states.append((refused, down, program.rows()["s2"]["status"], int(state_of(program, "s2").split()[14]) & ~1))
    assert states[0] == states[1]


def state_of(program: Program, name: str) -> str:
    return next(line for line in ask(program.path, "show servers state be").splitlines() if f" {name} " in line)
