"""Conditional blocks: `.if`, `.elif`, `.else`, `.endif`, and the messages `.notice .warning .alert .diag` (2.4).

haptk answers `version_atleast` as HAProxy 2.6.12, because that is the language it reads, and `feature` with what
haptk has of HAProxy's list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from haptk.formats.haproxy_cfg.model import Refused

VERSION = (2, 6, 12)
FEATURES = frozenset({"EPOLL", "GETADDRINFO", "THREAD", "LINUX_SPLICE", "ACCEPT4"})
_TOKEN = re.compile(r"\s*(&&|\|\||!|\(|\)|[A-Za-z_]+\s*\((?:[^()\"\\]|\\.|\"(?:[^\"\\]|\\.)*\")*\)|[^\s&|!()]+)")


class Blocks:
    """The stack of open `.if` blocks of one file. `active` says whether lines count now."""

    def __init__(self) -> None:
        self._stack: list[list[bool]] = []  # per block: [the outside counts, a branch was taken, this branch counts]
        self._seen_else: list[bool] = []
        self.open_at: list[int] = []

    @property
    def active(self) -> bool:
        return all(block[2] for block in self._stack)

    def directive(self, words: tuple[str, ...], number: int, environ: Mapping[str, str]) -> tuple[str, str] | None:
        """Follow one dot-directive; returns (list of Config to add to, text) for a message."""
        name, arguments = words[0], words[1:]
        if name == ".if":
            counts = self.active and evaluate(" ".join(arguments), environ)
            self._stack.append([self.active, counts, counts])
            self._seen_else.append(False)
            self.open_at.append(number)
        elif name in (".elif", ".else", ".endif"):
            self._branch(name, " ".join(arguments), environ)
        elif name in (".notice", ".warning", ".alert", ".diag"):
            if len(arguments) > 1:
                raise Refused(f"{name} takes one text; put quotes around it")
            text = arguments[0] if arguments else ""
            lists = {".notice": "notices", ".warning": "warnings", ".alert": "errors"}
            if self.active and name in lists:
                return lists[name], text
        else:
            raise Refused(
                f"unknown directive {name!r}; accepted are .if .elif .else .endif .notice .warning .alert .diag"
            )
        return None

    def _branch(self, name: str, condition: str, environ: Mapping[str, str]) -> None:
        if not self._stack:
            raise Refused(f"lone {name!r}: there is no '.if' above")
        block = self._stack[-1]
        if name == ".endif":
            self._stack.pop()
            self._seen_else.pop()
            self.open_at.pop()
            return
        if self._seen_else[-1]:
            raise Refused(f"{name!r} after '.else'")
        if name == ".else":
            self._seen_else[-1] = True
            block[2] = block[0] and not block[1]
        else:
            block[2] = block[0] and not block[1] and evaluate(condition, environ)
        block[1] = block[1] or block[2]


def evaluate(text: str, environ: Mapping[str, str]) -> bool:
    """The value of a condition; an empty one is false. Raises Refused where it cannot be read."""
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found:
            raise Refused(f"the condition cannot be read at {text[at:]!r}")
        tokens.append(found[1])
        at = found.end()
    if not tokens:
        return False
    value, rest = _either(tokens, environ)
    if rest:
        raise Refused(f"the condition has {rest[0]!r} too much")
    return value


def _either(tokens: list[str], environ: Mapping[str, str]) -> tuple[bool, list[str]]:
    value, rest = _both(tokens, environ)
    while rest and rest[0] == "||":
        right, rest = _both(rest[1:], environ)
        value = value or right
    return value, rest


def _both(tokens: list[str], environ: Mapping[str, str]) -> tuple[bool, list[str]]:
    value, rest = _operand(tokens, environ)
    while rest and rest[0] == "&&":
        right, rest = _operand(rest[1:], environ)
        value = value and right
    return value, rest


def _operand(tokens: list[str], environ: Mapping[str, str]) -> tuple[bool, list[str]]:
    if not tokens:
        raise Refused("the condition ends where an operand is expected")
    first, rest = tokens[0], tokens[1:]
    if first == "!":
        value, rest = _operand(rest, environ)
        return not value, rest
    if first == "(":
        value, rest = _either(rest, environ)
        if not rest or rest[0] != ")":
            raise Refused("a parenthesis of the condition does not close")
        return value, rest[1:]
    if re.fullmatch(r"-?\d+", first):
        return int(first) != 0, rest
    return _predicate(first, environ), rest


def _predicate(text: str, environ: Mapping[str, str]) -> bool:
    name, opened, inside = text.partition("(")
    arguments = [part.strip().strip('"') for part in inside.removesuffix(")").split(",")] if opened else []
    name = name.strip()
    counts = {"defined": 1, "feature": 1, "streq": 2, "strneq": 2, "version_atleast": 1, "version_before": 1}
    if counts.get(name) != len(arguments):
        accepted = ", ".join(f"{known}()" for known in counts)
        raise Refused(f"the condition has an unknown predicate {text!r}; accepted are {accepted}")
    if name == "defined":
        return arguments[0] in environ
    if name == "feature":
        return arguments[0] in FEATURES
    if name in ("streq", "strneq"):
        return (arguments[0] == arguments[1]) is (name == "streq")
    wanted = tuple(int(part) for part in re.findall(r"\d+", arguments[0].partition("-")[0]))[:3]
    return (wanted <= VERSION) is (name == "version_atleast")
