"""The log lines of a haproxy.cfg to LogPlans: what `log global` means, which format a proxy has, which rings there are."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from haptk.core.acl import Format, Variable
from haptk.formats.haproxy_cfg.logs import LogGlobal
from haptk.formats.haproxy_cfg.model import Section
from haptk.proxy.tables import LogPlan, LogRing, LogTarget

if TYPE_CHECKING:
    from haptk.proxy.compile import _Compiler

# Variables that only HTTP has, as in configuration.txt 8.2.4.
_HTTP_ONLY = frozenset(
    ["CC", "CS", "HM", "HP", "HPO", "HQ", "HU", "HV", "Ta", "Ti", "Tq", "TR", "Tr", "r", "tr", "trg", "trl"]
)  # fmt: skip


def target(record: dict[str, Any]) -> LogTarget:
    """One `log` line."""
    return LogTarget(**{key: value for key, value in record.items() if key not in ("where", "order")})


def rings(sections: list[Section]) -> tuple[LogRing, ...]:
    """Every `ring` section."""
    keys = ("format", "maxlen", "size")
    return tuple(
        LogRing(
            section.name,
            section.get("description") or section.name,
            **{key: section.get(key) for key in keys if section.get(key) is not None},
        )
        for section in sections
        if section.kind == "ring"
    )


def _global_before(work: _Compiler, line: LogGlobal) -> list[dict[str, Any]]:
    """The targets of the global section that stand before a `log global`: as in HAProxy it takes no later ones."""
    records = work.top.get("logs", ())
    return [record for record in records if isinstance(record, dict) and record["order"] < line.order]


def plan(work: _Compiler, section: Section, *, front: bool = True) -> LogPlan:
    """What a proxy logs, and where. Of a `listen` the `front` half tells what is wrong."""
    targets: list[LogTarget] = []
    known = work.ring_names
    wanted = section.get("logs", ())
    taken: set[int] = set()
    for record in wanted:
        records = [record] if isinstance(record, dict) else _global_before(work, record)
        for found in records:
            # however often `log global` is said, also by the defaults: each target of the global section is there once
            if found["order"] in taken:
                continue
            taken.add(found["order"])
            if found["address"].startswith("ring@") and found["address"][5:] not in known:
                names = ", ".join(sorted(known)) or "none"
                if section.kind == "listen" and not front:
                    continue
                work.error(found["where"], f"log: there is no ring section {found['address'][5:]!r}; there are {names}")
                continue
            targets.append(target(found))
    if front and section.get("unique_id_header") and not section.get("unique_id_format"):
        work.warn(section, f"{section.title}: unique-id-header: it has no effect without a unique-id-format")
    hostname = work.top.get("log_hostname", "")
    return LogPlan(
        targets=tuple(targets), style=_style(work, section) if front else "",
        log_format=_format(work, section, "log_format") if front and section.get("log_style") == "custom" else None,
        error_format=_format(work, section, "error_log_format") if front else None,
        sd_format=_format(work, section, "log_format_sd") if front else None,
        dontlognull=bool(section.get("option_dontlognull")),
        dontlog_normal=bool(section.get("option_dontlog_normal")),
        log_separate_errors=bool(section.get("option_log_separate_errors")),
        logasap=bool(section.get("option_logasap")),
        tag=section.get("log_tag") or work.top.get("log_tag") or "haproxy",
        hostname=socket.gethostname() if hostname is True else hostname,
    )  # fmt: skip


def _style(work: _Compiler, section: Section) -> str:
    """The kind of format; HTTP's in TCP mode becomes TCP's, with a warning, as in HAProxy."""
    style: str = section.get("log_style", "")
    if style in ("http", "clf") and section.get("mode", "tcp") == "tcp":
        work.warn(section, f"{section.title}: 'option httplog' needs mode http; 'option tcplog' is used")
        return "tcp"
    return style


def _format(work: _Compiler, section: Section, key: str) -> Format | None:
    found: Format | None = section.get(key)
    if found is not None and section.get("mode", "tcp") == "tcp":
        wrong = [part.name for part in found.parts if isinstance(part, Variable) and part.name in _HTTP_ONLY]
        if wrong:
            name = key.replace("_", "-")
            work.error(section, f"{section.title}: {name}: %{wrong[0]} needs mode http")
    return found
