"""The tutorials' own commands, run in order in an empty directory: what is written there works."""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from haptk.cli.app import haptk

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"
PAGES = ("round-robin", "standby", "elb")


def commands(text: str) -> list[list[str]]:
    """Every `$ haptk ...` of the console blocks, continued lines joined."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            assert line.startswith("$ haptk "), line
            found.append(shlex.split(line)[2:])
    return found


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_does_what_it_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (TUTORIALS / f"{page}.md").read_text()
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S):
        Path("cluster.toml").write_text(block)
    Path("machine").mkdir()
    said = []
    for argv in commands(text):
        result = CliRunner().invoke(haptk, argv, standalone_mode=False)
        expected = 2 if "diff" in argv else 0
        assert result.exception is None and (result.return_value or 0) == expected, f"{argv}: {result.output}"
        said.append(result.output)
    assert Path("tier").is_dir()
    if page == "round-robin":
        assert said[-1].strip() == "nothing to do"
    for path in re.findall(r"`(tier/[a-z0-9./-]+\.(?:json|sh))`", text):
        assert Path(path).exists() or (page == "standby" and "pacemaker" in path), path


def free_net() -> str:
    """A loopback network in which nobody has a lab: below those that other tests take by their process ids."""
    while True:
        net = f"127.{random.randrange(20, 100)}"
        with socket.socket() as probe:
            try:
                probe.bind((f"{net}.0.2", 5000))
            except OSError:
                continue
            return net


def script(text: str) -> str:
    """The console lines of a page as one shell script that ends at the first one whose exit code is unexpected."""
    lines = ["trap 'haptk lab down --quiet >/dev/null 2>&1' EXIT"]
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), line
            command = line.removeprefix("$ ")
            # Where a difference is what the page shows it says so; a dry run of it always has one.
            expected = 2 if "--dry-run" in command or "# 2:" in command else 0
            lines.append(
                f"{command}\ncode=$?\n[ $code = {expected} ] || {{ echo 'exit code' $code: {shlex.quote(command)}; exit 9; }}"
            )
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.real("haproxy", "aws", "bash")
def test_the_three_patterns_in_the_lab_word_by_word(tmp_path: Path) -> None:
    """docs/howto/try-a-tier-in-the-lab.md in a shell, against a lab of its own: what a new user would type."""
    text = (TUTORIALS.parent / "howto" / "try-a-tier-in-the-lab.md").read_text()
    with tempfile.TemporaryDirectory(prefix="haptk-try-") as lab:
        own = {"HAPTK_LAB_DIR": f"{lab}/lab", "HAPTK_LAB_NET": free_net(), "HOME": lab, "AWS_PAGER": ""}
        env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")} | own
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script(text)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ELB OK: lab-alb: 2 of 2 targets healthy" in done.stdout
    assert "nothing to do" in done.stdout and "it survives" in done.stdout
