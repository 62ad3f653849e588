"""What HAProxy calls the outcomes of a check, by their short codes."""

from __future__ import annotations

CHECKS = {
    "UNK": "Unknown", "INI": "Initializing", "HANA": "Health analyze", "SOCKERR": "Socket error",
    "L4OK": "Layer4 check passed", "L4TOUT": "Layer4 timeout", "L4CON": "Layer4 connection problem",
    "L6OK": "Layer6 check passed", "L6TOUT": "Layer6 timeout", "L6RSP": "Layer6 invalid response",
    "L7OK": "Layer7 check passed", "L7OKC": "Layer7 check conditionally passed", "L7STS": "Layer7 wrong status",
    "L7RSP": "Layer7 invalid response", "L7TOUT": "Layer7 timeout", "CHECKED": "No status change",
}  # fmt: skip
