"""What tables mean together: each rule has a code, a summary for the reference, and yields a place and a sentence.

The table RULES is made by the decorator and refuses a code that is taken; the reference is generated from it and the
corpus in tests/cluster/bad has a file for each. An error stops everything; a warning is something that works and will
disappoint. Rules live by subject in rules_*.py, this module runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptk.cluster.problem import ERROR, Problem

if TYPE_CHECKING:
    from haptk.cluster.lines import Lines, Path
    from haptk.cluster.schema import Cluster

Found = Iterator[tuple["Path", str]]
Check = Callable[["Cluster"], Found]


@dataclass(frozen=True)
class Rule:
    """A rule; `check` yields for each breach the path of the key and the sentence."""

    code: str
    summary: str
    severity: str
    check: Check


RULES: dict[str, Rule] = {}


def rule(code: str, summary: str, severity: str = ERROR) -> Callable[[Check], Check]:
    """Put a check into the table under a code of its own."""

    def register(check: Check) -> Check:
        if code in RULES:
            raise ValueError(f"rule {code} exists already")
        RULES[code] = Rule(code, summary, severity, check)
        return check

    return register


def all_rules() -> dict[str, Rule]:
    """Every rule by its code, in order."""
    # They fill the table.
    import haptk.cluster.rules_dns
    import haptk.cluster.rules_names
    import haptk.cluster.rules_session
    import haptk.cluster.rules_standby  # noqa: F401

    return dict(sorted(RULES.items()))


# References that later rules follow: while one of these is broken, rules from C400 on would only guess.
FIRST = ("C101", "C401", "C402")


def check(cluster: Cluster, lines: Lines, file: str) -> list[Problem]:
    """Every breach of every rule, with its line."""
    rules = all_rules()

    def run(codes: list[str]) -> list[Problem]:
        return [
            Problem(file, lines.at(*path), code, why, rules[code].severity)
            for code in codes
            for path, why in rules[code].check(cluster)
        ]

    found = run(list(FIRST))
    if found:
        return found + run([code for code in rules if code < "C400" and code not in FIRST])
    return run([code for code in rules if code not in FIRST])
