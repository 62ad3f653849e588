"""What must hold whatever happened: judges a Story and the counters at its end. Knows nothing of how faults are made."""

from __future__ import annotations

from tests.chaos.faults import Story

Rows = dict[tuple[str, str], dict[str, str]]
CLASSES = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")


def answers(story: Story) -> list[str]:
    """Every complete answer is the one that was asked for, from the server that the cookie names."""
    wrong = list(story.notes)
    for one in story.exchanges:
        if one.body != one.wanted:
            wrong.append(f"{one.asked}: the body of another answer: {one.body[:60]!r}")
        if one.cookie and one.server != one.cookie and not _was_out(story, one.cookie, one.began, one.ended):
            wrong.append(f"{one.asked}: {one.server} answered instead of {one.cookie}")
    return wrong


def _was_out(story: Story, name: str, began: float, ended: float) -> bool:
    """Whether a server was out of service at some time between two moments."""
    spans = ((float(str(start)), float(str(end)) or ended) for who, start, end in story.out if who == name)
    return any(start <= ended and end >= began for start, end in spans)


def counters(rows: Rows) -> list[str]:
    """At rest every request has its response or its error, and nothing is open."""
    wrong: list[str] = []
    for (proxy, name), row in rows.items():
        value = {key: int(cell) for key, cell in row.items() if cell.lstrip("-").isdigit()}
        where = f"{proxy}/{name}"
        if value.get("scur") or value.get("qcur"):
            wrong.append(f"{where}: scur {row['scur']}, qcur {row['qcur']} at rest")
        if row["mode"] != "http":
            continue
        answered = sum(value[key] for key in CLASSES)
        if name == "FRONTEND":
            if value["req_tot"] != answered:
                wrong.append(f"{where}: {value['req_tot']} requests, {answered} answers by class")
            if value["ereq"] > value["hrsp_4xx"] + value["hrsp_other"]:
                wrong.append(f"{where}: more bad requests than answers to them")
        elif value["req_tot"] != answered:
            wrong.append(f"{where}: req_tot {value['req_tot']}, {answered} answers by class")
        if name == "BACKEND":
            wrong += _backend(
                where, value, [one for (who, _), one in rows.items() if who == proxy and one["type"] == "2"]
            )
    return wrong


def _backend(where: str, value: dict[str, int], servers: list[dict[str, str]]) -> list[str]:
    """What servers did is what their backend did."""
    wrong = []
    if value["stot"] != sum(value[key] for key in CLASSES):
        wrong.append(f"{where}: {value['stot']} requests came in, {sum(value[key] for key in CLASSES)} ended")
    for name in ("wretr", "wredis", "connect", "reuse", "lbtot"):
        total = sum(int(one[name]) for one in servers)
        if total != value[name]:
            wrong.append(f"{where}: {name} {value[name]}, its servers {total}")
    attempts = sum(int(one["stot"]) for one in servers)
    if attempts != value["connect"] + value["reuse"]:
        wrong.append(f"{where}: {attempts} attempts, {value['connect']} connects and {value['reuse']} reuses")
    return wrong
