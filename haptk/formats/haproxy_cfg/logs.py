"""`log`, `log-format`, `unique-id-*` and the format strings that header values use too (configuration.txt 8.2.4)."""

from __future__ import annotations

from typing import Any

from haptk.formats.haproxy_cfg import units
from haptk.formats.haproxy_cfg.model import Args, Refused, Section

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2", "ftp", "ntp", "audit",
    "alert", "cron2", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FORMATS = ("local", "rfc3164", "rfc5424", "priority", "short", "timed", "iso", "raw")


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
        section.append("logs", "global")
        return
    record: dict[str, Any] = {"address": _target(target), "where": args.line.where}
    while args.peek() in ("len", "format", "sample", "ring"):
        word = args.take("")
        if word == "len":
            record["length"] = units.integer(args.take("a length"), "log len", 80, 65535)
        elif word == "format":
            record["format"] = units.one_of(args.take("a format"), "log format", FORMATS)
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
    if text in ("stdout", "stderr") or text.startswith("/"):
        return text
    if text.startswith("ring@"):
        raise Refused("log: HAProxy knows ring buffers, haptk does not")
    parsed = units.address(text.removeprefix("udp@"), "log")
    if parsed.fd >= 0:
        return f"fd@{parsed.fd}"
    if parsed.unix_path:
        return parsed.unix_path
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{host}:{parsed.port or 514}"


def log_format(section: Section, args: Args) -> None:
    """`log-format FORMAT`."""
    from haptk.formats.haproxy_cfg import expressions

    text = args.take("a format")
    args.done()
    section.set("log_format", expressions.format_string(text, "log-format", log=True))
    section.set("log_format_text", text)
    section.set("log_style", "custom")


def unique_id_format(section: Section, args: Args) -> None:
    """`unique-id-format FORMAT`."""
    from haptk.formats.haproxy_cfg import expressions

    section.set("unique_id_format", expressions.format_string(args.take("a format"), "unique-id-format", log=True))
    args.done()


def unique_id_header(section: Section, args: Args) -> None:
    """`unique-id-header NAME`."""
    section.set("unique_id_header", args.take("a header's name"))
    args.done()
