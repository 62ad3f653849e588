"""HTTP/1's grammar, production by production, through the real haproxy and through haptk.

The messages are those of `messages.py`: thousands of variants of what may stand in each place. In a test run a seeded
share of each family is played (HAPTK_GRAMMAR_SHARE, 1 plays all); by hand:

    .venv/bin/python -m tests.diff.test_diff_grammar [--family WORDS] [--share 1] [--seed N]

What differs on purpose is listed by name in `REASONS`; each name stands in docs/explanation/proxy-data-plane.md, and each
is worth something: a test sees that every one is still met.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.diff.messages import families
from tests.diff.wire_stage import Message, Outcome, Stage

pytestmark = [pytest.mark.real("haproxy"), pytest.mark.timeout(600)]
SEED = 20261201
SHARE = float(os.environ.get("HAPTK_GRAMMAR_SHARE", "0.08"))
FAMILIES = families()


@dataclass(frozen=True)
class Case:
    """A message and what both made of it, with what the reasons look at."""

    message: Message
    theirs: Outcome
    mine: Outcome

    @property
    def head(self) -> bytes:
        return self.message.request.partition(b"\r\n\r\n")[0].lower()

    @property
    def said(self) -> bytes:
        return self.message.answer.partition(b"\r\n\r\n")[0].lower()

    @property
    def target(self) -> bytes:
        words = re.split(rb"[ \t]+", self.message.request.lstrip(b"\r\n").partition(b"\n")[0])
        return words[1] if len(words) > 1 else b""

    def refused(self) -> bool:
        """haptk says no, in whatever way, and passes nothing on that haproxy does not."""
        finals = [text for text in self.mine.answers() if not text.startswith("HTTP/1.x 1")]
        return all(re.match(r"HTTP/1.x (400|413|422|502)", text) for text in finals[-1:])

    def coded(self) -> bytes:
        """The side of the exchange that has a Transfer-Encoding, or nothing."""
        if b"transfer-encoding" in self.said:
            return self.message.answer
        return self.message.request if b"transfer-encoding" in self.head else b""


def lines_of(text: str) -> list[str]:
    """A message's lines without those that only haptk leaves out or cleans."""
    kept = [line for line in text.split("\n") if not line.startswith("proxy-connection:")]
    return [re.sub(r"^(transfer-encoding: ?chunked),\s*$", r"\1", line) for line in kept]


def without_chunks(text: str) -> str:
    """An answer as a client of HTTP/1.0 gets it from haptk."""
    return re.sub(r"(?i)\ntransfer-encoding: *(chunked,?)?(?=\n)", "", text).partition("(end)")[0].replace("(open)", "")


def states(outcome: Outcome) -> list[str]:
    """Status and the first two letters of each log line."""
    return [text[:6] for text in outcome.letters()]


def authority_of(target: bytes) -> bytes | None:
    found = re.match(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/]*)", target)
    return found[1] if found else None


# Where haptk refuses and HAProxy does not.
STRICTER: dict[str, Callable[[Case], bool]] = {
    "NUL": lambda c: b"\0" in c.message.request + c.message.answer,
    "bare LF beside Transfer-Encoding": lambda c: bool(re.search(rb"(?<!\r)\n|\r(?!\n)", c.coded())),
    "Transfer-Encoding of a request with Content-Length or in HTTP/1.0": lambda c: (
        b"transfer-encoding" in c.head and (b"content-length" in c.head or b"http/1.0" in c.head)
    ),
    "a target that is neither a path nor `*` nor an absolute form with an authority of host and port": lambda c: (
        (not c.target.startswith(b"/") and c.target != b"*" and not re.fullmatch(rb"[^/?@:][^/?@]*", authority_of(c.target) or b""))
        or (c.head.startswith(b"connect") and b"/" in c.target)
    ),
    "Host of bytes that no authority has": lambda c: any(
        re.search(rb"[^!$&'()*+,;=A-Za-z0-9._~:%\[\]-]|,", value.strip(b" \t"))
        for value in re.findall(rb"(?:^|\n)host:((?:[^\r\n]|\r?\n[ \t])*)", c.head)
    ),
    "a status that is no number from 100 to 999": lambda c: not re.match(
        rb"[\r\n]*http/\d\.\d[ \t]+[1-9]\d\d(?!\d)", c.said
    ),
    "a version of a response that is not HTTP": lambda c: not c.said.lstrip().startswith(b"http/"),
    "trailers of framing, Host or Connection, or malformed": lambda c: bool(
        re.search(rb"(?i)0\r\n(?:(?:content-length|transfer-encoding|host|connection):|[^\r\n]*[^!-~\r\n][^\r\n:]*:|.*\xff|x\r)", c.coded())
    ),
    "DEL and bytes beyond ASCII in a target": lambda c: bool(re.search(rb"[\x7f-\xff]", c.target)),
    "blanks and control characters in names, under accept-invalid-http-request and -response too": lambda c: (
        c.message.section == "lax" and bool(re.search(rb"(?:^|\n)[^\n:]*[\x01-\x20\x7f][^\n:]*:", c.head.partition(b"\n")[2] + b"\n" + c.said))
    ),
    "a version that is not HTTP/D.D, under accept-invalid-http-request too": lambda c: (
        c.message.section == "lax" and not re.search(rb"[ \t]http/\d\.\d\r?$", c.head.lstrip(b"\r\n").partition(b"\n")[0])
    ),
    "a switch of protocols that was not asked for": lambda c: b" 101 " in c.said,
    "trailers of more than 8 kB": lambda c: len(c.coded()) > 8192,
    "a length of more than 18 digits": lambda c: bool(re.search(rb"content-length: *0*[1-9]\d{18}", c.head + c.said)),
    "Transfer-Encoding of a response without chunked": lambda c: (
        b"transfer-encoding" in c.said and b"chunked" not in c.said
    ),
}  # fmt: skip
# Where both pass the message on, or both end it, in another way.
OTHERWISE: dict[str, Callable[[Case], bool]] = {
    "HTTP/2's preface": lambda c: c.message.request.startswith(b"PRI * HTTP/2.0"),
    "clients of HTTP/1.0 get no chunks": lambda c: (
        b"http/1.0" in c.head
        and [without_chunks(text) for text in c.theirs.answers()] == [without_chunks(text) for text in c.mine.answers()]
    ),
    "Proxy-Connection goes no further, `chunked,` is tidied": lambda c: (
        [lines_of(text) for text in c.theirs.requests()] == [lines_of(text) for text in c.mine.requests()]
        and [lines_of(text) for text in c.theirs.answers()] == [lines_of(text) for text in c.mine.answers()]
    ),
    "accept-invalid-http-request: a Host that is another than the target's": lambda c: (
        c.message.section == "lax" and authority_of(c.target) is not None and firsts(c.theirs) == firsts(c.mine)
    ),
    "HTTP/0.9 with a version": lambda c: b"http/0." in c.head + c.said,
    "a bare LF at the end of chunks that have passed": lambda c: (
        b"\n\n" in c.message.answer and states(c.mine) == ["200 SD"]
    ),
    "a list in Set-Cookie2 that loses our cookie, of which HAProxy writes over the rest, or an empty place": lambda c: (
        bool(re.search(rb"set-cookie2:[^\r]*,", c.said))
        and (c.message.section == "watched" or bool(re.search(rb"(?::|,) *,|, *\r", c.said)))
    ),
    "a request body that stalls": lambda c: states(c.theirs) == ["504 sH"] and states(c.mine) == ["408 cD"],
    "a broken body that had begun to pass": lambda c: (
        b"chunked" in c.head
        and c.refused()
        and states(c.theirs) in (["400 PR"], ["400 PH"])
        and states(c.mine) in (["400 PR"], ["400 PH"])
    ),
}  # fmt: skip
REASONS = {**STRICTER, **OTHERWISE}


def difference(case: Case) -> str:
    """What differs: "" when nothing does."""
    a, b = case.theirs, case.mine
    if a.requests() != b.requests():
        if len(a.requests()) != len(b.requests()):
            return (
                f"servers got {len(a.requests())} and {len(b.requests())} requests, clients {firsts(a)} and {firsts(b)}"
            )
        return "a server got another request"
    if a.answers() != b.answers():
        return f"clients got {firsts(a)} and {firsts(b)}" if firsts(a) != firsts(b) else "clients got another answer"
    return f"logged {a.letters()} and {b.letters()}" if a.letters() != b.letters() else ""


def firsts(outcome: Outcome) -> str:
    return ",".join(text[9:12] for text in outcome.answers()) or "nothing"


def reason(case: Case) -> str:
    """The name of the difference that is there on purpose, or ""."""
    for name, holds in OTHERWISE.items():
        if holds(case):
            return name
    if case.refused() and firsts(case.theirs) != firsts(case.mine):
        for name, holds in STRICTER.items():
            if holds(case):
                return name
    return ""


def play(stage: Stage, name: str, share: float, seed: int) -> tuple[int, dict[str, list[Case]], Counter[str]]:
    """(cases, what differs without a reason, how often each reason was met) of one family."""
    rng = random.Random(f"{seed} {name}")
    messages = [one for one in FAMILIES[name] if share >= 1 or rng.random() < share]
    unexplained: dict[str, list[Case]] = defaultdict(list)
    met: Counter[str] = Counter()
    cases = [Case(one, *both) for one, both in zip(messages, stage.play(messages), strict=True)]
    odd = [case for case in cases if difference(case) and not reason(case)]
    again = {
        case.message: Case(case.message, *both)
        for case, both in zip(odd, stage.play([c.message for c in odd]), strict=True)
    }
    for case in cases:
        what = difference(case)
        if what and (why := reason(case)):
            met[why] += 1
        elif what and difference(again[case.message]) and not reason(again[case.message]):
            unexplained[what].append(case)
    return len(cases), unexplained, met


def told(unexplained: dict[str, list[Case]], examples: int = 3) -> str:
    """The differences as text, the most frequent ones first."""
    out = []
    for what, cases in sorted(unexplained.items(), key=lambda item: -len(item[1])):
        out.append(f"{len(cases)} times: {what}")
        for case in cases[:: max(1, len(cases) // examples)][:examples]:
            answer = (
                ""
                if case.message.answer.endswith(b"\r\nok") and len(case.message.answer) < 45
                else f" <- {case.message.answer!r}"
            )
            out.append(f"    {case.message.section}: {case.message.request!r}{answer}"[:400])
            for who, one in (("haproxy", case.theirs), ("haptk", case.mine)):
                out.append(f"        {who}: {one.answers()} {one.requests()} {one.letters()}"[:600])
    return "\n".join(out)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    one = Stage(tmp_path_factory.mktemp("grammar"))
    try:
        yield one
    finally:
        one.stop()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_means_the_same_to_both(stage: Stage, name: str) -> None:
    share = max(SHARE, min(1.0, 60 / len(FAMILIES[name])))
    count, unexplained, _ = play(stage, name, share, SEED)
    assert count >= 30
    assert not unexplained, told(unexplained)


def main() -> int:
    """All families by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="", help="only families whose name matches this regular expression")
    parser.add_argument("--share", type=float, default=1.0, help="of the messages of each family")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--examples", type=int, default=3)
    options = parser.parse_args()
    total, found, met = 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as directory:
        one = Stage(Path(directory))
        try:
            for name in FAMILIES:
                if not re.search(options.family, name):
                    continue
                count, unexplained, reasons = play(one, name, options.share, options.seed)
                total, met = total + count, met + reasons
                found += sum(map(len, unexplained.values()))
                print(f"{name}: {count} messages, {sum(map(len, unexplained.values()))} differ", flush=True)
                if unexplained:
                    print(told(unexplained, options.examples), flush=True)
        finally:
            one.stop()
    print(f"{total} messages, {found} differ without a reason; on purpose:")
    for name, count in met.most_common():
        print(f"  {count:6} {name}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
