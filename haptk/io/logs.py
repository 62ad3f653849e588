"""Logs: stderr for people, journald priorities when systemd reads, syslog or JSON lines on request. One event, one line."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import sys

from haptk.core.printable import printable
from haptk.io import clock

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


# what JSON leaves as it is, and terminals obey
_RAW = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Plain(logging.Formatter):
    """`2026-01-02T03:04:05.678Z haptk-heartbeat: WARN: text`; under journald `<4>text`, which has its own time."""

    def __init__(self, program: str, journald: bool) -> None:
        super().__init__()
        self.program = program
        self.journald = journald

    def format(self, record: logging.LogRecord) -> str:
        text = printable(record.getMessage().replace("\n", " | "))
        if record.exc_info and record.levelno < logging.ERROR:
            text += " | " + self.formatException(record.exc_info).replace("\n", " | ")
        if self.journald:
            return f"<{_PRIORITY.get(record.levelno, 5)}>{text}"
        level = "WARN" if record.levelno == logging.WARNING else record.levelname
        return f"{clock.wall_text(record.created)} {self.program}: {level}: {text}"


class _Syslog(logging.Formatter):
    """One line, whatever stood in it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record).replace("\n", " | "))


class _Json(logging.Formatter):
    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": clock.wall_text(record.created),
            "program": self.program,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        return _RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(line, ensure_ascii=False, default=str))


def setup(program: str, *, verbose: int = 0, as_json: bool = False, syslog: str | None = None) -> logging.Logger:
    """Give the `haptk` logger its one handler and return it.

    `verbose` counts up from 0 (info); 1 is debug, -1 only warnings. `syslog` is a facility name for /dev/log.
    """
    logger = logging.getLogger("haptk")
    logger.setLevel(logging.DEBUG if verbose > 0 else logging.INFO if verbose == 0 else logging.WARNING)
    logger.propagate = False
    handler: logging.Handler
    if syslog:
        handler = logging.handlers.SysLogHandler("/dev/log", facility=syslog)
        handler.setFormatter(_Syslog(f"{program}[%(process)d]: %(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        journald = bool(os.environ.get("JOURNAL_STREAM")) and not sys.stderr.isatty()
        handler.setFormatter(_Json(program) if as_json else _Plain(program, journald))
    logger.handlers[:] = [handler]
    return logger
