"""`log`, `log-format`, `unique-id-*`, `ring` sections and the format strings that header values use too (configuration.txt 8)."""

from __future__ import annotations

import itertools
import re
from typing import Any

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Directive, Parser, Refused, Section

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2", "ftp", "ntp", "audit",
    "alert", "cron2", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FORMATS = ("local", "rfc3164", "rfc5424", "priority", "short", "timed", "iso", "raw")


_ORDER = itertools.count()  # of lines, over all files


class LogGlobal(str):
    """`log global`, which takes the targets that the global section has by then."""

    order: int

    def __new__(cls, order: int) -> LogGlobal:
        one = super().__new__(cls, "global")
        one.order = order
        return one


def log(section: Section, args: Args) -> None:
    """`log global`, `no log`, or `log TARGET [len N] [format F] [sample ...] FACILITY [LEVEL [MINLEVEL]]`."""
    if args.line.negated:
        section.set("logs", [])
        return
    target = args.take("a target")
    if target == "global":
        if section.kind == "global":
            raise Refused("log: 'global' belongs into proxies, not into the global section")
        args.done()
        section.append("logs", LogGlobal(next(_ORDER)))
        return
    record: dict[str, Any] = {"address": _target(target), "where": args.line.where, "order": next(_ORDER)}
    while args.peek() in ("len", "format", "sample", "ring"):
        word = args.take("")
        if word == "len":
            record["length"] = units.integer(args.take("a length"), "log len", 80, 65535)
        elif word == "format":
            record["format"] = units.one_of(args.take("a format"), "log format", FORMATS)
        elif word == "sample":
            record["sample"], record["sample_size"] = _sample(args.take("ranges"))
        else:
            raise Refused(f"log: HAProxy knows {word!r}, haptk does not")
    record["facility"] = units.one_of(args.take("a facility"), "log facility", FACILITIES)
    if args:
        record["level"] = units.one_of(args.take(""), "log level", LEVELS)
    if args:
        record["min_level"] = units.one_of(args.take(""), "log minimum level", LEVELS)
    args.done()
    section.append("logs", record)


def _target(text: str) -> str:
    if text not in ("stdout", "stderr") and not text.startswith("ring@"):
        text = units.expand(text)
    if text in ("stdout", "stderr") or text.startswith("/"):
        return text
    if text.startswith("ring@"):
        if not text.removeprefix("ring@"):
            raise Refused("log: ring@ needs the name of a 'ring' section")
        return text
    parsed = units.address(text.removeprefix("udp@"), "log")
    if parsed.fd >= 0:
        return f"fd@{parsed.fd}"
    if parsed.unix_path:
        return parsed.unix_path
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{host}:{parsed.port or 514}"


def _sample(text: str) -> tuple[tuple[tuple[int, int], ...], int]:
    """`2,5-7:8`: ranges from 1, in order and apart, and the size of the period they are taken from."""
    ranges, colon, size = text.partition(":")
    if not colon:
        raise Refused(f"log sample: {text!r} has no size; write RANGES:SIZE as in 1,3-4:10")
    found: list[tuple[int, int]] = []
    for word in ranges.split(","):
        low, dash, high = word.partition("-")
        first = units.integer(low, "log sample", 1, 2**31 - 1)
        last = units.integer(high, "log sample", 1, 2**31 - 1) if dash else first
        found.append((min(first, last), max(first, last)))
    found.sort()
    if any(after[0] <= before[1] for before, after in itertools.pairwise(found)):
        raise Refused(f"log sample: the ranges of {ranges!r} overlap")
    return tuple(found), units.integer(size, "log sample size", found[-1][1], 2**31 - 1)


def _format(section: Section, args: Args, name: str, key: str) -> None:
    from haptk.formats.haproxy_cfg import expressions

    text = args.take("a format")
    args.done()
    section.set(key, expressions.format_string(text, name, log=True))


def log_format(section: Section, args: Args) -> None:
    """`log-format FORMAT`."""
    _format(section, args, "log-format", "log_format")
    section.set("log_style", "custom")


def log_format_sd(section: Section, args: Args) -> None:
    """`log-format-sd FORMAT`: the structured data of rfc5424."""
    _format(section, args, "log-format-sd", "log_format_sd")


def error_log_format(section: Section, args: Args) -> None:
    """`error-log-format FORMAT`: for connections that never became a request."""
    _format(section, args, "error-log-format", "error_log_format")


def unique_id_format(section: Section, args: Args) -> None:
    """`unique-id-format FORMAT`."""
    _format(section, args, "unique-id-format", "unique_id_format")


def unique_id_header(section: Section, args: Args) -> None:
    """`unique-id-header NAME`."""
    name = args.take("a header's name")
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise Refused(f"unique-id-header: {name!r} is no name of a header")
    section.set("unique_id_header", name.lower())
    args.done()


def _ring_format(section: Section, args: Args) -> None:
    section.set("format", units.one_of(args.take("a format"), "ring format", FORMATS))


def _ring_bytes(key: str) -> Parser:
    def parse(section: Section, args: Args) -> None:
        # HAProxy refuses a size below its default
        low = 1 if key == "maxlen" else 16384
        section.set(key, units.integer(args.take("a number of bytes"), f"ring {key}", low, 2**30))

    return parse


# The words of a `ring` section.
RING: dict[str, Directive] = {
    "description": Directive(lambda s, a: s.set("description", " ".join(a.rest())), "r"),
    "format": Directive(_ring_format, "r"),
    "maxlen": Directive(_ring_bytes("maxlen"), "r"),
    "size": Directive(_ring_bytes("size"), "r"),
}
