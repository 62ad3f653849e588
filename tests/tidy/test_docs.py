"""What the pages say exists: every command and option, link, file and script that README and docs name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from haptk.cli import proxy_control
from haptk.cli.app import haptk

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
HELP = {"help_option_names": ["-h", "--help"]}
# What a page puts where a reader's own word goes.
MEANT = re.compile(r"^(\.\.\.|[A-Z][A-Z_|-]*|<.*>|\[.*\]|\{.*\})$")


def commands_of(text: str) -> Iterator[tuple[int, str]]:
    """(line, command) of every `haptk ...` in code: in blocks (continued lines joined) and inside a sentence."""
    joined = re.sub(r"\\\n\s*", lambda found: " " + "\0" * found[0].count("\n"), text)
    for number, line in enumerate(joined.splitlines(), 1):
        at = number + joined[: joined.find(line)].count("\0")
        inline = re.findall(r"`((?:scripts/)?haptk [^`]+)`", line)
        block = re.findall(r"^(?: {4,}(?:[$#] )?|[$#] )((?:scripts/)?haptk [a-z-].*)$", line)
        for found in inline + block:
            yield at, re.split(r"\s{2,}#|\s#\s|[|;>&)]", found.replace("\0", ""))[0].strip()


def problem_of(words: list[str]) -> str:
    """Why haptk would not understand these words; "" when it would."""
    command: click.Command = haptk
    ctx = click.Context(haptk, **HELP)  # type: ignore[arg-type]
    path, at = ["haptk"], 0
    while at < len(words):
        if MEANT.match(words[at]):
            return ""
        word = words[at].rstrip(",.:")
        at += 1
        if word.startswith("-") and word != "-":
            names = {name for param in command.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
            name, equals, _ = word.partition("=")
            # HAProxy's long words have one dash.
            if f"-{name}" in names and not name.startswith("--"):
                name = f"-{name}"
            if command.context_settings.get("ignore_unknown_options"):
                return ""
            if name not in names and not any(len(one) > 4 and one.startswith(name) for one in names):
                return f"{' '.join(path)} has no option {name}"
            taken = next((param for param in command.get_params(ctx) if name in param.opts), None)
            if isinstance(taken, click.Option) and not equals and not (taken.is_flag or taken.count):
                at += taken.nargs
        elif path == ["haptk", "proxy"] and word in proxy_control.COMMANDS:
            # Its words stand beside HAProxy's own arguments and are no group of click's.
            command = proxy_control.COMMANDS[word]
            path.append(word)
            ctx = click.Context(command, parent=ctx, **HELP)  # type: ignore[arg-type]
        elif isinstance(command, click.Group):
            if "|" in word or "/" in word:
                return ""
            if word not in command.commands:
                # `haptk check config` names a command, `haptk is ...` a sentence in code would be a mistake.
                return f"{' '.join(path)} has no command {word}"
            command = command.commands[word]
            path.append(word)
            ctx = click.Context(command, parent=ctx, **HELP)  # type: ignore[arg-type]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_option_exists(page: Path) -> None:
    wrong = []
    for line, said in commands_of(page.read_text()):
        try:
            words = shlex.split(said)[1:]
        except ValueError:
            words = said.split()[1:]
        why = problem_of(words)
        if why:
            wrong.append(f"{page.name}:{line}: {said!r}: {why}")
    assert not wrong


def anchors(text: str) -> set[str]:
    """The names that a heading has in a link."""
    found = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:haptk|tests|scripts|docs|packaging|man)/[A-Za-z0-9_./-]+)`", page.read_text())
    wrong = []
    for name in named:
        places = [ROOT / name, ROOT / f"{name}.py"]
        if not any(place.exists() for place in places) and not list(ROOT.glob(f"{name}*")):
            wrong.append(name)
    assert not wrong


def test_the_index_names_every_page() -> None:
    """docs/README.md is where a reader begins: a page that is not in it is not found."""
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / name.partition("#")[0]).resolve() for name in re.findall(r"\]\(([^)\s]+)\)", index)}
    missing = [str(page.relative_to(ROOT)) for page in PAGES if page.parts[-3] == "docs" and page not in linked]
    assert not missing, f"give {missing} a line in docs/README.md"


def test_a_wrong_command_would_be_found() -> None:
    assert problem_of(["eip", "status", "203.0.113.10"]) == ""
    assert problem_of(["eip", "status", "--colour", "x"]) == "haptk eip status has no option --colour"
    assert problem_of(["heartbeat", "--peer", "dance", "status"]) == ""
    assert problem_of(["dance"]) == "haptk has no command dance"
