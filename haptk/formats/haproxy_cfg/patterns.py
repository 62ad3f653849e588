"""`-f FILE` of an ACL: the patterns of a file stand where the words of the line stand."""

from __future__ import annotations

from pathlib import PurePath

from haptk.formats.haproxy_cfg.model import Refused, Section

PATTERNS_MAX = 100_000  # of one file: they are looked through one after the other


def with_files(section: Section, words: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The words of a test with each `-f FILE` replaced by what the file holds. Raises Refused."""
    kept: list[str] = [words[0]]
    patterns: list[str] = []
    at = 1
    found = False
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        if words[at] == "-f":
            found = True
            if at + 1 >= len(words):
                raise Refused(f"{what}: -f needs the name of a file")
            patterns += _lines(section, words[at + 1], what)
            at += 2
            continue
        kept.append(words[at])
        if words[at] == "-m" and at + 1 < len(words):
            at += 1
            kept.append(words[at])
        at += 1
    if not found:
        return words
    rest = words[at + 1 :] if words[at : at + 1] == ("--",) else words[at:]
    return (*kept, "--", *patterns, *rest)


def _lines(section: Section, name: str, what: str) -> list[str]:
    if section.read is None:
        raise Refused(f"{what}: -f {name}: files cannot be read here")
    try:
        text = section.read(str(PurePath(section.directory) / name)).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Refused(f"{what}: -f {name}: {error.strerror}") from None
    lines = (line.rstrip("\r") for line in text.split("\n"))
    found = [line.lstrip(" \t") for line in lines if line.strip(" \t") and not line.startswith("#")]
    if len(found) > PATTERNS_MAX:
        raise Refused(f"{what}: -f {name} has {len(found)} patterns; {PATTERNS_MAX} is the most")
    return found
