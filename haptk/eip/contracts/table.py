"""The table of exit codes in docs/reference/eip-contracts.md, made from the words themselves; a test compares them."""

from __future__ import annotations

from haptk.core.vip import Last, NotOurs, Ours, Outcome, Status, Unknown
from haptk.eip.contracts import words

BEGIN = "<!-- made from haptk/eip/contracts/words.py: python -m haptk.eip.contracts.table -->"
END = "<!-- end -->"
STATES: tuple[tuple[str, Status], ...] = (
    ("ours", Ours("EC2")),
    ("not ours", NotOurs()),
    ("unknown, last known ours", Unknown("why", Last(Ours("memory"), 1.0), "AwsUnreachable")),
    ("unknown", Unknown("why", None, "AwsUnreachable")),
    ("unknown: credentials or arguments", Unknown("why", None, "AwsDenied")),
)
FAILURES = (
    "AwsUnreachable",
    "AwsThrottled",
    "AwsDenied",
    "AwsNoCredentials",
    "AwsClock",
    "AwsNotFound",
    "AwsConflict",
    "AwsError",
    "OperatorError",
)


def _status_cell(contract: str, status: Status) -> str:
    said = words.say_status(contract, "203.0.113.10", status)
    if contract == words.HEARTBEAT:
        return f"`{said.stdout}`" if said.stdout else "no word"
    return str(said.code)


def _outcome_cell(contract: str, action: str, trouble: str) -> str:
    outcome = Outcome(not trouble, Ours("EC2") if action == "start" else NotOurs(), True, "why", (), trouble)
    return str(words.say_outcome(contract, "203.0.113.10", action, outcome).code)


def markdown() -> str:
    """Both tables."""
    names = {words.HEARTBEAT: "heartbeat (stdout)"}
    head = [names.get(contract, contract) for contract in words.CONTRACTS]
    lines = [
        "| status, monitor, check | " + " | ".join(head) + " |",
        "|---|" + "---|" * len(head),
    ]
    for title, status in STATES:
        cells = [_status_cell(contract, status) for contract in words.CONTRACTS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    contracts = (words.PLAIN, words.LSB, words.OCF, words.HEARTBEAT)
    lines += ["", "| start or stop ended with | " + " | ".join(contracts) + " |", "|---|" + "---|" * len(contracts)]
    for trouble in ("", *FAILURES):
        cells = []
        for contract in contracts:
            pair = [_outcome_cell(contract, action, trouble) for action in ("start", "stop")]
            cells.append(pair[0] if pair[0] == pair[1] else f"{pair[0]}, stop {pair[1]}")
        lines.append(f"| {trouble or 'the wish is met'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
