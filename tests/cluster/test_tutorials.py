"""The tutorials' own commands, run in order in an empty directory: what is written there works."""

from __future__ import annotations

import re
import shlex
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
