"""Thousands of conversations through haproxy, the compiled path and the reference: connections that end at each point of
an exchange, retries, redispatch, reuse of server connections, connection modes, HTTP/1.0 and pipelining.

Generated from a seed. In a test run HAPTK_DIFF_CASES is the number of cases (default 260); by hand:

    .venv/bin/python -m tests.diff.test_diff_exchanges --cases 5000 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.diff.rig import PROGRAMS, Program, free_ports, start
from tests.diff.stage import ANSWERS, GREETINGS, Stage, converse

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(600)]
CASES = int(os.environ.get("HAPTK_DIFF_CASES", "260"))
SEED = 20261126
SILENT_ENDS = ("ok_fin", "chunked_fin", "s503_fin")  # of connections that were to stay
CUT = ("short", "short_chunk", "no_length", "http10_no_length")  # of which HEAD sees nothing but the end
RETRY_ON = (
    "", "", "retry-on none", "retry-on conn-failure empty-response", "retry-on all-retryable-errors",
    "retry-on 503 404 junk-response", "retry-on response-timeout conn-failure 500",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """One `listen` of the file."""

    lines: tuple[str, ...]
    servers: tuple[str, ...]
    cookie: bool

    @property
    def repeats(self) -> bool:
        """Whether requests are repeated after a server has had them."""
        return any(line.startswith("retry-on") and line != "retry-on none" for line in self.lines)

    @property
    def turns(self) -> bool:
        """Whether the servers take turns: where the first turn goes is not looked at."""
        return "balance roundrobin" in self.lines or "balance leastconn" in self.lines


def sections(rng: random.Random, count: int) -> list[Section]:
    found = []
    for _ in range(count):
        cookie = rng.choice(["", "cookie SRV insert indirect", "cookie SRV prefix"])
        lines = [
            rng.choice(["option http-keep-alive", "option http-server-close", "option httpclose"]),
            rng.choice(["http-reuse never", "http-reuse safe", "http-reuse aggressive", "http-reuse always"]),
            rng.choice(["", "option redispatch", "option redispatch 1", "option redispatch 2", "no option redispatch"]),
            f"retries {rng.randrange(4)}",
            rng.choice(RETRY_ON),
            rng.choice(["balance roundrobin", "balance first", "balance source", "balance leastconn"]),
            cookie,
        ]
        servers = rng.choice([("s1",), ("s1", "s2"), ("s1", "dead"), ("s1", "s2", "dead")])
        if "dead" in servers and not {"balance roundrobin", "balance leastconn"}.isdisjoint(lines):
            servers = ("s1", "s2")  # whose turn it is after a dead server would differ for the rest of the run
        found.append(Section(tuple(line for line in lines if line), servers, bool(cookie)))
    return found


@dataclass(frozen=True)
class Case:
    """What the clients say (each connection one after the other), and what the servers do, request by request."""

    number: int
    section: int
    clients: tuple[tuple[tuple[bytes, ...], bool], ...]
    plan: tuple[str, ...]


def request(rng: random.Random, case: str, section: Section) -> bytes:
    method = rng.choice(["GET", "GET", "GET", "HEAD", "POST", "PUT"])
    minor = rng.choice([1, 1, 1, 0])
    lines = [f"{method} /case/{case} HTTP/1.{minor}", "Host: h.example"]
    lines += rng.choice([[], [], [], ["Connection: close"], ["Connection: keep-alive"]])
    # where turns are taken, whose turn it is may differ from an earlier case on: then no cookie says s1
    named = section.cookie and not (section.turns and len(section.servers) > 1)
    if named and rng.random() < 0.6:
        lines.append(f"Cookie: SRV={rng.choice(section.servers)}{'~v' * ('cookie SRV prefix' in section.lines)}")
    body = ""
    if method in ("POST", "PUT"):
        if minor and rng.random() < 0.4:
            lines.append("Transfer-Encoding: chunked")
            body = "3\r\nabc\r\n0\r\n\r\n"
        else:
            lines.append("Content-Length: 3")
            body = "abc"
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def cases(rng: random.Random, found: list[Section], count: int) -> list[Case]:
    made = []
    names = [name for name in (*ANSWERS, *GREETINGS) if name != "silent"]
    for number in range(count):
        section = number % len(found)
        clients = []
        asked = 0
        for _ in range(rng.choice([1, 1, 1, 2])):
            requests = []
            for _ in range(rng.choice([1, 1, 2, 3])):
                requests.append(request(rng, f"{number}-{asked}", found[section]))
                asked += 1
            clients.append((tuple(requests), rng.random() < 0.25))
        plan = [rng.choice(names) if rng.random() < 0.6 else "ok" for _ in range(rng.randrange(1, 6))]
        if any(b" HTTP/1.0\r" in said for requests, _ in clients for said in requests):
            # HAProxy sends chunks to a client of HTTP/1.0, haptk takes them off and ends the connection
            plan = [{"chunked": "ok", "chunked_fin": "ok_fin", "short_chunk": "short"}.get(name, name) for name in plan]
        if any(together for _, together in clients):
            # whether a program has noticed the end when it comes to the next request is a race
            plan = [name.removesuffix("_fin") if name in SILENT_ENDS else name for name in plan]
        if rng.random() < 0.02:
            plan[0] = "silent"
        if found[section].repeats:
            # HAProxy 2.6 answers 400 or 500 of its own when it repeats a request after a 100, and repeats one after a
            # refusal over the connection that the server is just closing.
            plan = [name.replace("continue_fin", "empty_fin").replace("s503_fin", "s503") for name in plan]
        made.append(Case(number, section, tuple(clients), tuple(plan)))
    return made


def config(found: list[Section], host: str, ports: list[int], stage: Stage, dead: int) -> str:
    text = "defaults\n mode http\n log @LOG@ local0\n option httplog\n"
    text += " timeout connect 50ms\n timeout client 8s\n timeout server 400ms\n timeout http-request 8s\n"
    for at, section in enumerate(found):
        text += f"listen l{at}\n bind {host}:{ports[at]}\n" + "".join(f" {line}\n" for line in section.lines)
        for name in section.servers:
            port = dead if name == "dead" else stage.ports[name]
            text += f" server {name} 127.0.0.1:{port}{f' cookie {name}' * section.cookie}\n"
    return text


def fits(kind: str, section: Section, case: Case) -> bool:
    """Whether the reference is asked: it takes turns in an order of its own, and does not look at idle connections."""
    return kind != "reference" or {*SILENT_ENDS, *CUT}.isdisjoint(case.plan)


class Play:
    """All cases through one program."""

    def __init__(self, kind: str, found: list[Section], directory: Path) -> None:
        self.kind, self.found = kind, found
        self.stage = Stage()
        *self.ports, dead = free_ports(len(found) + 1)
        text = config(found, "127.0.0.1", self.ports, self.stage, dead)
        text = text.replace("@LOG@", f"127.0.0.1:{self.stage.log.port}")
        addresses = [("127.0.0.1", port) for port in self.ports]
        try:
            self.program: Program = start(kind, text, directory, addresses)
        except BaseException:
            self.stage.close()
            raise
        self.results: list[dict[str, object]] = []
        self.failure: BaseException | None = None

    def run(self, all_cases: list[Case]) -> None:
        try:
            for case in all_cases:
                self.results.append(self.one(case) if fits(self.kind, self.found[case.section], case) else {})
        except BaseException as error:
            self.failure = error

    def one(self, case: Case) -> dict[str, object]:
        self.stage.begin(list(case.plan))
        address = ("127.0.0.1", self.ports[case.section])
        said = []
        for requests, together in case.clients:
            said.append(converse(address, list(requests), pipelined=together, settle=self.stage.settle))
            self.stage.settle()
        self.stage.still()
        section = self.found[case.section]
        names: list[str] = []
        attempts, links = [], []
        for name, link, action, head in self.stage.trace:
            if name not in names:
                names.append(name)
            who = str(names.index(name)) if section.turns else name
            attempts.append((who, action, re.sub(r"srv=s\d~", "srv=s~", head) if section.turns else head))
            links.append(link)
        order = list(dict.fromkeys(links))
        if section.turns:
            said = [[re.sub(r"srv=s\d", "srv=s", text) for text in client] for client in said]
        return {"client": said, "servers": attempts, "connections": [order.index(link) for link in links]}

    def logs(self, case: Case) -> list[str]:
        """Status, termination state and retries of each request that reached a log."""
        found = []
        for at in range(sum(len(requests) for requests, _ in case.clients)):
            lines = self.stage.log.lines.get(f"{case.number}-{at}", [])
            for line in lines:
                match = re.search(r" (-?\d+) \d+ - - (\S{4}) \d+/\d+/\d+/\d+/(\+?\d+) ", line)
                found.append(" ".join(match.groups()) if match else line)
        return found

    def stop(self) -> None:
        self.program.stop()
        self.stage.close()


def settled(plays: list[Play]) -> None:
    """Wait until no log line has come for a while."""
    before, until = -1, time.monotonic() + 20
    while time.monotonic() < until:
        now = sum(len(lines) for play in plays for lines in play.stage.log.lines.values())
        if now == before:
            return
        before = now
        time.sleep(0.5)


def compare(theirs: dict[str, object], ours: dict[str, object], kind: str, section: Section) -> list[str]:
    """What differs. The reference keeps no pool of connections.

    Which connection a request is repeated on is free: HAProxy takes the one whose answer it did not like, haptk another.
    """
    if any(was == "nothing" and now.startswith(("HTTP/1.1 502", "HTTP/1.1 503")) for was, now in pairs(theirs, ours)):
        # After the first request of a client HAProxy closes without a word when a server does, even on a fresh connection
        # or with a 503 in its log; haptk answers there, and closes when it had used the connection before.
        return []
    if kind == "reference" and any(
        was.startswith("HTTP/1.1 503") and was == now.replace("\nends", "\nstays") != now
        for was, now in pairs(theirs, ours)
    ):
        return []  # it closes where it did not read a chunked body
    if spared(ours["servers"]):  # type: ignore[arg-type]
        return []
    # Under `http-reuse never` haptk keeps one connection for a client, HAProxy one to each server.
    several = "http-reuse never" in section.lines and len(section.servers) > 1
    free = {"connections"} if kind == "reference" or section.repeats or several else set()
    if section.turns and kind == "reference":
        free |= {"servers"}
    keys = [key for key in theirs if key not in free]
    return [f"{key}:\n    haproxy {theirs[key]}\n    {kind} {ours[key]}" for key in keys if theirs[key] != ours[key]]


def pairs(theirs: dict[str, object], ours: dict[str, object]) -> list[tuple[str, str]]:
    """Both answers to each request."""
    both = zip(theirs["client"], ours["client"], strict=True)  # type: ignore[call-overload]
    return [(was, now) for left, right in both for was, now in zip(left, right, strict=False)]


def spared(attempts: list[tuple[str, str, str]]) -> bool:
    """Whether haptk sent a request again, once, because the connection that it had used before was dead.

    It does so for what is idempotent, also where HAProxy would end the connection and leave that to the client.
    """
    both = itertools.pairwise(attempts)
    return any(one[2] in ("", two[2]) and one[1] in ("empty_fin", "empty_rst", "accept_fin") for one, two in both)


def play(seed: int, count: int, directory: Path, kinds: tuple[str, ...] = PROGRAMS) -> list[str]:
    """Run the cases; what differs, readable."""
    rng = random.Random(seed)
    found = sections(rng, 40)
    all_cases = cases(rng, found, count)
    plays: list[Play] = []
    try:
        for kind in kinds:
            plays.append(Play(kind, found, directory))
        threads = [threading.Thread(target=one.run, args=(all_cases,)) for one in plays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in plays:
            if one.failure is not None:
                raise one.failure
        settled(plays)
        out = []
        for at, case in enumerate(all_cases):
            for one in plays[1:]:
                if not one.results[at]:
                    continue
                left = {**plays[0].results[at], "log": plays[0].logs(case)}
                right = {**one.results[at], "log": one.logs(case)}
                if wrong := compare(left, right, one.kind, found[case.section]):
                    out.append(
                        f"case {at} ({one.kind}): {found[case.section].lines} {found[case.section].servers}\n"
                        f"  clients {case.clients}\n  plan {case.plan}\n  " + "\n  ".join(wrong)
                    )
        return out
    finally:
        for one in plays:
            one.stop()


def test_conversations_end_as_haproxys_do(tmp_path: Path) -> None:
    wrong = play(SEED, CASES, tmp_path)
    assert not wrong, f"{len(wrong)} of {2 * CASES} differ\n" + "\n".join(wrong[:5])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kinds", default=",".join(PROGRAMS))
    parser.add_argument("--show", type=int, default=10)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        wrong = play(chosen.seed, chosen.cases, Path(place), tuple(chosen.kinds.split(",")))
    print("\n".join(wrong[: chosen.show]))
    print(Counter(re.findall(r"\n  (\w+):\n", "\n".join(wrong))))
    print(f"{chosen.cases} cases, seed {chosen.seed}, {len(wrong)} differ, {time.monotonic() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
