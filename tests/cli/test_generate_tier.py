"""`haptk generate WHAT` from cluster.toml: printed, written, and never a key on a screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from haptk.cli.app import haptk
from haptk.cli.generate_tier import WORDS
from haptk.errors import HaptkError, MissingFile, OperatorError
from haptk.formats import authkeys
from haptk.render import catalogue

GOOD = Path(__file__).parents[1] / "cluster" / "good"


def invoke(tier: str, *argv: str) -> Result:
    return CliRunner().invoke(haptk, ["--config", str(GOOD / f"{tier}.toml"), *argv])


def fault(result: Result) -> HaptkError:
    assert isinstance(result.exception, HaptkError), result.output
    return result.exception


def key_of(path: Path) -> bytes:
    return authkeys.parse(path.read_text(), str(path)).keys[0].secret


def test_every_word_of_the_catalogue_is_a_command() -> None:
    assert set(WORDS) | {"haproxy"} == set(catalogue.OF_NODE) | set(catalogue.OF_TIER) | {"all"}


def test_one_file_is_printed_as_it_is() -> None:
    result = invoke("standby-keepalived", "generate", "haproxy", "--node", "lb1")
    assert result.exit_code == 0 and result.stdout.startswith("# Written by haptk")
    assert "server app1 10.0.1.20:8080 cookie app1" in result.stdout


def test_several_files_have_their_names_above() -> None:
    result = invoke("standby-keepalived", "generate", "keepalived", "--node", "lb2")
    assert "==> lb2:/etc/keepalived/keepalived.conf <==" in result.stdout


def test_json_says_mode_owner_and_how_to_validate() -> None:
    result = invoke("standby-keepalived", "generate", "haproxy", "--json")
    files = json.loads(result.stdout)["files"]
    assert [file["node"] for file in files] == ["lb1", "lb2"]
    assert files[0]["mode"] == "0644" and files[0]["validate"][0] == "haproxy"


def test_a_key_is_written_once_and_printed_never(tmp_path: Path) -> None:
    first = invoke("standby-heartbeat", "generate", "heartbeat", "--output-dir", str(tmp_path))
    assert first.exit_code == 0, first.output
    one, two = (tmp_path / node / "etc/ha.d/authkeys" for node in ("lb1", "lb2"))
    key = key_of(one)
    assert len(key) == 64 and key == key_of(two), "both nodes of a pair have one key"
    assert one.stat().st_mode & 0o777 == 0o600
    again = invoke("standby-heartbeat", "generate", "all", "--output-dir", str(tmp_path))
    assert key_of(one) == key, "a second run keeps it"
    two.unlink()
    third = invoke("standby-heartbeat", "generate", "heartbeat", "--node", "lb2", "--output-dir", str(tmp_path))
    assert key_of(two) == key, "a node that comes later gets the key of its pair"
    printed = invoke("standby-heartbeat", "generate", "heartbeat", "--json")
    for result in (first, again, third, printed):
        assert key.decode() not in result.output
    assert "sha1" not in printed.output


def test_all_writes_the_nodes_and_the_documents(tmp_path: Path) -> None:
    result = invoke("round-robin", "generate", "all", "--output-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"lb1/etc/haproxy/haproxy.cfg", "aws/route53-stack.json", "aws/security-group.json"} <= found


@pytest.mark.parametrize(
    ("tier", "argv", "kind", "words"),
    [
        ("standby-heartbeat", ["keepalived"], OperatorError, 'contract is "heartbeat"'),
        ("standby-heartbeat", ["haproxy", "--node", "lb9"], OperatorError, "there are lb1, lb2"),
        ("standby-heartbeat", ["all"], OperatorError, "--output-dir"),
        ("elb-network", ["haproxy"], OperatorError, "no balancers"),
        ("no-such-tier", ["haproxy"], MissingFile, "haptk init"),
    ],
)
def test_what_makes_no_sense_is_refused(tier: str, argv: list[str], kind: type[HaptkError], words: str) -> None:
    error = fault(invoke(tier, "generate", *argv))
    assert isinstance(error, kind) and words in str(error)


def test_flags_still_need_no_declaration() -> None:
    result = CliRunner().invoke(haptk, ["generate", "haproxy", "--server", "A=10.0.0.1:80"])
    assert result.exit_code == 0 and "server A" in result.stdout
