"""The contract of `haptk check` as a table: for each state of a target and each option, exit code, line and figures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from haptk.cli.app import haptk
from haptk.cli.base import run

TABLE = Path(__file__).with_name("table.txt")


class Case(NamedTuple):
    name: str
    command: str
    expected: tuple[str, ...]


def read(text: str) -> list[Case]:
    cases = []
    for block in re.split(r"\n{2,}", re.sub(r"(?m)^#.*\n", "", text).strip()):
        name, command, *expected = block.splitlines()
        assert command.startswith("  $ "), block
        cases.append(Case(name, command.removeprefix("  $ "), tuple(expected)))
    return cases


def settle(text: str, targets: dict[str, str]) -> str:
    """The output without what differs from run to run."""
    text = text.replace(targets["p"] + "-", "hc-")
    ports = {address.rpartition(":")[2] for address in targets.values() if address.startswith("127.0.0.1:")}
    for folder in sorted({str(Path(path).parent) for path in targets.values() if path.startswith("/")}, key=len)[::-1]:
        text = text.replace(folder + "/", "")
    for port in ports:
        text = re.sub(rf":{port}\b", ":P", text)
    text = re.sub(r"(time'?)=[0-9.]+s", r"\1=Ts", text)
    text = re.sub(r"time [0-9.]+s is", "time Ts is", text)
    text = re.sub(r"(certificate'?[= ])(-?\d+)\.\d+", r"\1\2", text)
    text = re.sub(r"\((\d+(, )?)+\)", "(N)", text)
    return re.sub(r"(process|names) \d+", r"\1 N", text)


def outcome(case: Case, targets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    argv = [word.format_map(targets) for word in shlex.split(case.command.replace("\\", "\\\\"))]
    code = run(haptk, ["check", *argv])
    first, *rest = settle(capsys.readouterr().out.rstrip("\n"), targets).split("\n")
    line, mark, perf = first.partition(" | ")
    shown = [f"  = {code}", f"  > {line}"] + ([f"  | {perf}"] if mark else [])
    return shown + [f"  > {text}" for text in rest]


CASES = read(TABLE.read_text())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_table(
    case: Case, targets: dict[str, str], capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    found = outcome(case, targets, capsys)
    if request.config.getoption("--regenerate"):
        text = TABLE.read_text()
        old = "\n".join([case.name, f"  $ {case.command}", *case.expected])
        TABLE.write_text(text.replace(old, "\n".join([case.name, f"  $ {case.command}", *found]), 1))
        return
    assert found == list(case.expected)


def test_the_table_has_all_states_and_every_exit_code() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    codes = {line for case in CASES for line in case.expected if line.startswith("  = ")}
    assert codes == {"  = 0", "  = 1", "  = 2", "  = 3", "  = 255"}
    for word in ("OK:", "WARNING:", "CRITICAL:", "UNKNOWN:"):
        assert any(word in line for case in CASES for line in case.expected)
