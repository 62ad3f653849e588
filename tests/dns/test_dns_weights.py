"""`haptk dns check` measures weights: a name server that draws one address by weight, as Route 53 does."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest
from click.testing import CliRunner

from haptk.cli.app import haptk
from tests.dns.test_dns_bind import HERE

GOOD = Path(__file__).parents[1] / "cluster" / "good" / "round-robin.toml"  # 10 : 10 : 5
ADDRESSES = [f"203.0.113.{at}" for at in (10, 11, 12)]


class Weighted:
    """Answers every A question with one address, drawn by weight; authoritative."""

    def __init__(self) -> None:
        self.weights = [10, 10, 5]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HERE, 0))
        self.port = self.socket.getsockname()[1]
        self.random = random.Random(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                data, client = self.socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query)
            reply.flags |= dns.flags.AA
            (question,) = query.question
            if question.rdtype == dns.rdatatype.A:
                (address,) = self.random.choices(ADDRESSES, self.weights)
                reply.answer.append(dns.rrset.from_text(question.name, 30, "IN", "A", address))
            self.socket.sendto(reply.to_wire(), client)


@pytest.fixture
def server() -> Iterator[Weighted]:
    one = Weighted()
    yield one
    one.socket.close()


def check(server: Weighted, samples: int) -> tuple[int, list[dict[str, str]]]:
    argv = ["--config", str(GOOD), "dns", "check", "--json", "--no-aws", "--no-probe", "--deadline", "60"]
    argv += ["--server", f"{HERE}:{server.port}", "--samples", str(samples)]
    result = CliRunner().invoke(haptk, argv, standalone_mode=False)
    assert result.exception is None, result.exception
    return int(result.return_value), json.loads(result.stdout)["problems"]


def test_declared_weights_pass_and_wrong_ones_are_measured(server: Weighted) -> None:
    assert check(server, 400) == (0, [])
    server.weights = [10, 10, 20]
    code, problems = check(server, 400)
    (one,) = problems
    assert (code, one["code"]) == (1, "weight") and "declared is 10:10:5" in one["text"]


def test_an_address_that_is_never_drawn_is_missing(server: Weighted) -> None:
    server.weights = [10, 10, 0]
    code, problems = check(server, 200)
    assert code == 2 and [one["code"] for one in problems if one["severity"] == "critical"] == ["missing"]


def test_too_few_answers_are_no_proof(server: Weighted) -> None:
    server.weights = [10, 10, 0]
    assert check(server, 10) == (0, [])
