"""A drill's report: as JSON, as a table and a timeline in the terminal, and as one HTML file with the timeline drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from haptk.lab.judge import Report

if TYPE_CHECKING:
    from rich.console import Console

OWNER_WORDS = {True: "holds it", False: "does not hold it", None: "cannot tell"}
# Seconds of the clients' log that the drawing shows before the failure and after the recovery.
MARGIN_S = 1.5
WIDTH, LANE, LEFT = 1000, 9, 150


def as_json(report: Report, **facts: Any) -> dict[str, Any]:
    """The report as plain data; `passed` and `faults` are what a script should read."""
    return {
        "passed": report.passed,
        "faults": report.faults,
        **facts,
        "fail": report.failure.kind,
        "victim": report.failure.victim,
        "outage_s": round(report.outage_s, 3),
        "worst_session_s": round(report.worst_session_s, 3),
        "budget_s": report.budget_s,
        "moves": report.moves,
        "api_owner": report.api_owner,
        "owners": report.owners,
        "alarms": report.alarms,
        "requests": {"total": report.requests, "failed": report.failed},
        "sessions": dataclasses.asdict(report.sessions),
        "timeline": [{"at_s": round(m.at_s, 3), "what": m.what, "who": m.who} for m in report.timeline],
    }


def _rows(report: Report) -> list[tuple[str, str]]:
    sessions = report.sessions
    failed = ", ".join(f"{count} {outcome}" for outcome, count in report.failed.items()) or "none"
    rows = [
        ("outage seen by clients", f"{report.outage_s:.2f} s (budget {report.budget_s:.2f} s)"),
        ("longest wait of one session", f"{report.worst_session_s:.2f} s"),
        ("requests", f"{report.requests}, failed: {failed}"),
        ("sessions before the failure", str(sessions.total)),
        ("  stayed on their server", str(sessions.stayed)),
        ("  lost with their server", str(sessions.lost_with_their_server)),
        ("  moved or forgotten", str(sessions.moved + sessions.forgotten)),
        ("  never served again", str(sessions.unserved)),
        ("address moved", "once" if report.moves == 1 else f"{report.moves} times"),
        ("owner, says the EC2 API", report.api_owner or "nobody"),
    ]
    rows += [(f"owner, says {name}", OWNER_WORDS[holds]) for name, holds in report.owners.items()]
    return rows


def draw_text(console: Console, report: Report) -> None:
    """The timeline, the counts and the verdict."""
    from rich.table import Table

    timeline = Table(title=f"{report.failure.kind} of {report.failure.victim} killed", title_justify="left")
    timeline.add_column("seconds", justify="right")
    timeline.add_column("what")
    timeline.add_column("who")
    for moment in report.timeline:
        timeline.add_row(f"{moment.at_s:+.3f}", moment.what, moment.who)
    console.print(timeline)
    counts = Table(show_header=False)
    for label, value in _rows(report):
        counts.add_row(label, value)
    console.print(counts)
    if report.passed:
        console.print("[bold green]PASSED[/]: one owner, every surviving session in place, within the budget")
    for fault in report.faults:
        console.print(f"[bold red]FAULT[/]: {fault}")


def draw_html(report: Report, requests: Sequence[Mapping[str, Any]], title: str) -> str:
    """One self-contained page: no script, no font and no picture from anywhere else."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("haptk.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("drill.html.j2").render(
        title=title, report=report, rows=_rows(report), drawing=_drawing(report, requests)
    )


def _drawing(report: Report, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Coordinates for the template: a lane per session, a stroke per request, a line per moment."""
    zero = report.failure.killed_at_s
    times = [moment.at_s for moment in report.timeline]
    start, end = min([0.0, *times]) - MARGIN_S, max([0.0, *times]) + MARGIN_S
    scale = (WIDTH - LEFT) / (end - start)

    def x(at_s: float) -> float:
        return round(LEFT + (at_s - start) * scale, 1)

    lanes = sorted({int(request["session"]) for request in requests})
    lane_y = {lane: 20 + LANE * index for index, lane in enumerate(lanes)}
    strokes = []
    for request in requests:
        begin, done = request["start"] - zero, request["end"] - zero
        if done < start or begin > end:
            continue
        strokes.append(
            {
                "x": x(max(begin, start)),
                "w": max(2.0, round((min(done, end) - max(begin, start)) * scale, 1)),
                "y": lane_y[request["session"]],
                "kind": f"server-{request['server']}" if request["outcome"] == "ok" else "failed",
                "text": f"session {request['session']}: {request['outcome']} at {begin:+.2f} s {request.get('server', '')}",
            }
        )
    bottom = 20 + LANE * max(len(lanes), 1)
    moments = [
        {"x": x(m.at_s), "y": bottom + 16 + 16 * index, "text": f"{m.at_s:+.2f} s {m.what} ({m.who})"}
        for index, m in enumerate(report.timeline)
    ]
    step = 0.5 if end - start < 8 else 5.0
    ticks = [{"x": x(n * step), "text": f"{n * step:g}"} for n in range(round(start / step), round(end / step) + 1)]
    ticks = [tick for tick in ticks if LEFT <= float(str(tick["x"])) <= WIDTH]
    height = bottom + 30 + 16 * len(moments)
    return {
        "w": WIDTH + 260,
        "h": height,
        "bottom": bottom,
        "strokes": strokes,
        "moments": moments,
        "ticks": ticks,
        "lane": LANE,
    }
