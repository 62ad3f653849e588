"""Every word that haptk accepts, in every section and both modes: accepted, warned of or refused as the real haproxy does it.

The table is made of the parser's own tables, so a new word without an example here fails. Many cases share one file, each with
sections of its own; both programs tell file and line, or the name of the proxy, of what they complain about. Where the two
judge differently stands in words_differ.txt, which may only get shorter.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from haptk.errors import ConfigError
from haptk.formats.haproxy_cfg import binds, options, proxies, rules, servers
from haptk.formats.haproxy_cfg import globals as global_table
from haptk.proxy.compile import load_text
from tests.diff import word_examples as words

HERE = Path(__file__).parent
DIFFER = HERE / "words_differ.txt"
HEAD = """global
 log 127.0.0.1:9 local0
resolvers rr
 nameserver n 127.0.0.1:53
defaults other
 timeout server 1s
 timeout connect 1s
backend tt from other
 stick-table type ip size 1k
"""
LIMITS = " timeout client 1s\n timeout server 1s\n timeout connect 1s\n"
SECTIONS = ("defaults", "frontend", "listen", "backend")


@dataclass(frozen=True)
class Case:
    label: str
    kind: str
    mode: str
    lines: tuple[str, ...]

    def text(self, number: int) -> str:
        """Sections of its own: the one with the lines, and what it needs beside it."""
        body = "".join(f" {line}\n" for line in self.lines)
        for word, value in (("@B", f"b{number}"), ("@P", f"{10000 + number}"), ("@N", f"{20000 + number}"), ("@T", "tt"), ("@R", "rr")):  # fmt: skip
            body = body.replace(word, value)
        own = {kind: body if kind == self.kind else "" for kind in SECTIONS}
        rule = self.kind == "defaults" and body.startswith(
            (" http-re", " acl")
        )  # HAProxy gives these to frontends only
        text = f"defaults d{number}\n mode {self.mode}\n{LIMITS}{own['defaults']}"
        if self.kind in ("frontend", "defaults"):
            text += f"frontend f{number} from d{number}\n bind 127.0.0.1:{5000 + number}\n default_backend b{number}\n{own['frontend']}"
        if self.kind == "listen" or (self.kind == "defaults" and not rule):
            text += f"listen l{number} from d{number}\n bind 127.0.0.1:{20000 + number}\n{own['listen']} server s1 127.0.0.1:9\n"
        base = "other" if rule else f"d{number}"
        mode = f" mode {self.mode}\n" if rule else ""
        return text + f"backend b{number} from {base}\n{mode}{own['backend']} server s1 127.0.0.1:9\n"

    @property
    def name(self) -> str:
        return f"{self.label} [{self.kind} {self.mode}]"


def _lines() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """(label, the sections to try, lines)"""
    for lines in words.PROXY.values():
        for line in lines:
            yield line, SECTIONS, tuple(line.split("; "))
    for name in options.OPTIONS:
        for more in words.OPTION_WORDS.get(name, ("",)):
            line = f"option {name} {more}".strip()
            yield line, SECTIONS, (line,)
        yield f"no option {name}", SECTIONS, (f"no option {name}",)
    for kind, table in (("http-request", words.REQUEST), ("http-response", words.RESPONSE)):
        for action, forms in table.items():
            for form in forms:
                line = f"{kind} {action} {form}".strip()
                slot = ("declare capture response len 9",) if line.startswith("http-response capture") else ()
                yield line, ("frontend", "listen") if slot else SECTIONS, (*slot, line)
    for name, value in words.BIND.items():
        yield f"bind {name}", ("frontend", "listen"), (f"bind 127.0.0.1:@P {name} {value}".strip(),)
    for name, value in words.SERVER.items():
        yield f"server {name}", ("listen", "backend"), (f"server t1 127.0.0.1:8 {name} {value}".strip(),)
        yield f"default-server {name}", ("defaults", "listen", "backend"), (f"default-server {name} {value}".strip(),)


CASES = [
    Case(label, kind, mode, lines) for label, kinds, lines in _lines() for kind in kinds for mode in ("http", "tcp")
]
Complaints = list[tuple[str, str]]  # (error or warning, text)


def ask_haproxy(text: str, file: Path) -> Complaints:
    file.write_text(text)
    done = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, timeout=120)
    found: Complaints = []
    for line in (done.stderr + done.stdout).split("\n"):
        if seen := re.match(r"\[(WARNING|ALERT)\]\s+\(\d+\) : (.*)", line):
            if "rror(s) found" not in line and "atal errors" not in line:
                found.append(("error" if seen[1] == "ALERT" else "warning", seen[2]))
        elif line.startswith("  ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def ask_haptk(text: str, file: Path) -> Complaints:
    try:
        return [("warning", each) for each in load_text(text, str(file)).warnings]
    except ConfigError as error:
        return [("error", each) for each in str(error).split("\n")]


def verdicts(ask: Callable[[str, Path], Complaints], file: Path) -> dict[str, str]:
    """accepts, warns or refuses, for each case. What is refused is taken out until the file is valid."""
    left = dict(enumerate(CASES))
    judged: dict[str, str] = {}
    while True:
        text, owner = HEAD, {}
        at = text.count("\n")
        for number, case in left.items():
            part = case.text(number)
            owner.update(dict.fromkeys(range(at + 1, at + 1 + part.count("\n")), number))
            at += part.count("\n")
            text += part
        complaints = [(how, _whose(why, file, owner, left), why) for how, why in ask(text, file)]
        strays = [why for _, number, why in complaints if number is None]
        assert not strays, strays[:5]
        refused = {number for how, number, _ in complaints if how == "error"}
        if not refused:
            warned = {number for _, number, _ in complaints}
            return judged | {case.name: "warns" if number in warned else "accepts" for number, case in left.items()}
        judged |= {left[number].name: "refuses" for number in refused if number is not None}
        left = {number: case for number, case in left.items() if number not in refused}


def _whose(why: str, file: Path, owner: Mapping[int, int], left: Mapping[int, Case]) -> int | None:
    if found := re.search(re.escape(str(file)) + r":(\d+)", why):
        return owner.get(int(found[1]))
    found = re.search(r"\b[dflb](\d+)\b(?!\.)", why)
    return int(found[1]) if found and int(found[1]) in left else None


def test_every_word_has_an_example() -> None:
    tables = (
        (proxies.DIRECTIVES.keys() - {"option"}, words.PROXY.keys()),
        (binds.OPTIONS.keys() | binds.HINTS.keys(), words.BIND.keys()),
        (servers.OPTIONS.keys(), words.SERVER.keys()),
        (rules.REQUEST_ACTIONS.keys(), words.REQUEST.keys()),
        (rules.RESPONSE_ACTIONS.keys(), words.RESPONSE.keys()),
    )
    for accepted, examples in tables:
        assert not accepted ^ examples
    idle = {name for name, row in global_table.DIRECTIVES.items() if "_inert" in row.parse.__qualname__}
    assert not (global_table.DIRECTIVES.keys() - idle) ^ words.GLOBAL.keys() - idle
    assert words.OPTION_WORDS.keys() <= options.OPTIONS.keys()
    named = {line.split()[1] for line in words.PROXY["timeout"]}
    assert named == proxies._TIMEOUTS.keys()


@pytest.mark.real("haproxy")
@pytest.mark.timeout(400)
def test_sections_and_modes_are_judged_alike(tmp_path: Path) -> None:
    theirs, ours = verdicts(ask_haproxy, tmp_path / "x.cfg"), verdicts(ask_haptk, tmp_path / "x.cfg")
    found = {
        f"{theirs[case.name]}|{ours[case.name]}  {case.name}" for case in CASES if theirs[case.name] != ours[case.name]
    }
    known = {line for line in DIFFER.read_text().splitlines() if line and not line.startswith("#")}
    assert not found - known, "\n".join(sorted(found - known))
    assert not known - found, "these are alike now; take them out:\n" + "\n".join(sorted(known - found))


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("line", [line for lines in words.GLOBAL.values() for line in lines])
def test_global_words_are_judged_alike(tmp_path: Path, line: str) -> None:
    text = f"global\n {line}\n"
    theirs, ours = ({how for how, _ in ask(text, tmp_path / "x.cfg")} for ask in (ask_haproxy, ask_haptk))
    assert ("error" in theirs) == ("error" in ours), (theirs, ours)
