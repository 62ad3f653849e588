"""`--watch`: the same checks again and again, with rise and fall, as live rows or (no terminal) one line per change."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from haptk.checks.base import Check, Finding
from haptk.checks.runner import run
from haptk.cli.base import settings
from haptk.core.health import CheckRules, Health, Verdict
from haptk.core.health import State as Up
from haptk.io import clock
from haptk.report.nagios import State, plain, worst

if TYPE_CHECKING:
    from rich.table import Table

    from haptk.cli.checks.common import Wishes

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.CRITICAL: "red", State.UNKNOWN: "magenta"}


class Row:
    """One check over time."""

    def __init__(self, check: Check, rules: CheckRules) -> None:
        self.check = check._replace(look=self._look)
        self._inner = check.look
        self._looking = threading.Lock()
        self.health = Health(check.name, rules, clock.monotonic())
        self.finding: Finding | None = None
        self.changed_at: float = clock.wall()
        self.looks = 0

    def _look(self, timeout_s: float) -> Finding:
        """One look at a time: a target that hangs for ever must not collect a thread with every round."""
        if not self._looking.acquire(blocking=False):
            return Finding(State.CRITICAL, "an earlier look still hangs")
        try:
            return self._inner(timeout_s)
        finally:
            self._looking.release()

    def take(self, finding: Finding) -> str | None:
        """Count one look; the sentence of a change, if it made one."""
        before = self.finding
        self.finding = finding
        self.looks += 1
        good = finding.state in (State.OK, State.WARNING)
        change = self.health.check(Verdict.PASS if good else Verdict.FAIL, finding.text, clock.monotonic())
        if change is not None:
            self.changed_at = clock.wall()
            return f"{self.check.service} {change.reason}"
        if before is None or before.state is not finding.state:
            return f"{self.check.service} {self.check.name} {finding.state.name}: {finding.text}"
        return None


def watch(checks: Sequence[Check], wishes: Wishes) -> int:
    """Look until Ctrl-C (exit 0) or `--count` looks; then the exit code is that of the last look."""
    from haptk.cli.checks.contract import CONTRACTS

    rules = CheckRules(rise=wishes.rise, fall=wishes.fall, inter_s=wishes.interval)
    rows = [Row(check, rules) for check in checks]
    if settings().as_json or sys.stdout is None or not sys.stdout.isatty():
        _loop(rows, wishes, _print_changes)
    else:
        _live(rows, wishes)
    last = worst(row.finding.state for row in rows if row.finding is not None)
    return CONTRACTS[wishes.contract][last]


def _loop(rows: Sequence[Row], wishes: Wishes, show: Callable[[Sequence[Row], list[str]], None]) -> None:
    looks = 0
    while True:
        started = clock.monotonic()
        findings = run([row.check for row in rows], wishes.timeout)
        said = [text for row, found in zip(rows, findings, strict=True) if (text := row.take(found))]
        show(rows, said)
        looks += 1
        if looks == wishes.looks:
            return
        clock.sleep(max(0.0, started + wishes.interval - clock.monotonic()))


def _print_changes(rows: Sequence[Row], said: list[str]) -> None:
    """One line per change; one JSON object per look with --json."""
    if settings().as_json:
        import json

        states = [
            {
                "service": row.check.service,
                "name": row.check.name,
                "state": row.finding.state.name,
                "health": row.health.state.value,
                "progress": row.health.progress(),
                "text": row.finding.text,
            }
            for row in rows
            if row.finding is not None
        ]
        click.echo(json.dumps({"at": clock.wall_text(), "checks": states}, ensure_ascii=False))
        return
    for text in said:
        click.echo(f"{clock.wall_text()} {plain(text)}")


def _live(rows: Sequence[Row], wishes: Wishes) -> None:
    from rich.live import Live

    from haptk.report.text import console

    with Live(table(rows), console=console(settings().color), auto_refresh=False) as live:
        _loop(rows, wishes, lambda rows, _said: live.update(table(rows), refresh=True))


def table(rows: Sequence[Row]) -> Table:
    """The rows as they are now."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for title in ("check", "state", "rise/fall", "looks", "since", "what it said"):
        drawn.add_column(title, overflow="fold" if title == "what it said" else "ellipsis")
    for row in rows:
        if row.finding is None:
            drawn.add_row(f"{row.check.service} {row.check.name}", Text("...", style="dim"), "", "0", "", "")
            continue
        style = _STYLES[row.finding.state]
        drawn.add_row(
            Text(f"{row.check.service} {plain(row.check.name)}"),
            Text(row.finding.state.name, style=style),
            Text(row.health.progress(), style="green" if row.health.state is Up.UP else "red"),
            str(row.looks),
            clock.wall_text(row.changed_at)[11:19],
            Text(plain(row.finding.text)),
        )
    return drawn
