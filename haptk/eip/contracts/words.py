"""The three states and the two outcomes in the words of each contract: exit code, stdout and stderr. Tables, no I/O.

| | Ours | NotOurs | Unknown |
| heartbeat `status` (only stdout counts) | `running` | `stopped` | nothing on stdout |
| lsb `status` | 0 | 3 | 4 |
| ocf `monitor` | 0 | 7 | 190 when the last known state is ours, else 1 |
| keepalived track_script | 0 | 1 | by option, 0 |
| nagios | 0 | 2 (0 on a standby, by option) | 3 when it can never work (arguments, credentials), else 2 |

Start and stop: 0 when the wish is met. A stop whose result cannot be known is a failure (1): the cluster manager has to
decide about fencing, not this agent.
"""

from __future__ import annotations

from typing import NamedTuple

from haptk.core.vip import NotOurs, Ours, Outcome, Status, Unknown
from haptk.errors import HaptkError, all_error_classes

PLAIN, HEARTBEAT, LSB, OCF, KEEPALIVED, NAGIOS = "plain", "heartbeat", "lsb", "ocf", "keepalived", "nagios"
CONTRACTS = (PLAIN, LSB, OCF, HEARTBEAT, KEEPALIVED, NAGIOS)

# OCF codes beyond 0: what the cluster manager does with each is in docs/reference/eip-contracts.md.
OCF_GENERIC, OCF_ARGS, OCF_UNIMPLEMENTED, OCF_PERM, OCF_INSTALLED, OCF_CONFIGURED = 1, 2, 3, 4, 5, 6
OCF_NOT_RUNNING = 7
OCF_DEGRADED = 190

STATUS_CODES: dict[str, tuple[int, int, int]] = {
    # contract: (Ours, NotOurs, Unknown)
    PLAIN: (0, 3, 4),
    LSB: (0, 3, 4),
    OCF: (0, OCF_NOT_RUNNING, OCF_GENERIC),
    HEARTBEAT: (0, 3, 4),
    KEEPALIVED: (0, 1, 0),
    NAGIOS: (0, 2, 2),
}
# A failed OCF start: 4 lets another node try, 6 stops the resource everywhere, 1 lets the cluster recover in place.
OCF_START_CODES = {
    "AwsDenied": OCF_PERM,
    "AwsNoCredentials": OCF_PERM,
    "AwsClock": OCF_PERM,  # of this node only: the other one may sign
    "AwsNotFound": OCF_CONFIGURED,
    "OperatorError": OCF_ARGS,
}
NEVER_WORKS = frozenset(("AwsDenied", "AwsNoCredentials", "AwsClock", "AwsNotFound", "OperatorError"))


class Saying(NamedTuple):
    """What a process says at its end."""

    code: int
    stdout: str = ""
    stderr: str = ""


def say_status(
    contract: str, address: str, status: Status, *, standby: bool = False, unknown_code: int | None = None
) -> Saying:
    """The answer to status, monitor or a check. `standby`: not having it is well. `unknown_code` overrides the table
    for keepalived, whose operator may prefer to fail over when nothing is known."""
    ours, not_ours, unknown = STATUS_CODES[contract]
    code = ours if isinstance(status, Ours) else not_ours if isinstance(status, NotOurs) else unknown
    text = f"{address}: {status}"
    if contract == HEARTBEAT:
        # Exactly one word, or none: Heartbeat matches substrings, and any sentence with "running" in it would count.
        word = "running" if isinstance(status, Ours) else "stopped" if isinstance(status, NotOurs) else ""
        return Saying(code, word, "" if word else text)
    if contract == OCF:
        if isinstance(status, Unknown):
            return Saying(OCF_DEGRADED if status.last_was_ours else code, "", f"ocf-exit-reason:{text}")
        return Saying(code)
    if contract == KEEPALIVED:
        if isinstance(status, Unknown):
            return Saying(unknown if unknown_code is None else unknown_code, "", text)
        return Saying(0 if standby else code, text)
    if contract == NAGIOS:
        return _nagios(text, status, standby)
    return Saying(code, text)


def _nagios(text: str, status: Status, standby: bool) -> Saying:
    code = 0 if isinstance(status, Ours) or (standby and isinstance(status, NotOurs)) else 2
    if isinstance(status, Unknown) and status.trouble in NEVER_WORKS:
        code = 3
    word = {0: "OK", 2: "CRITICAL", 3: "UNKNOWN"}[code]
    held = "U" if isinstance(status, Unknown) else int(isinstance(status, Ours))
    # The bar would start the performance data in the middle of a sentence.
    return Saying(code, f"EIP {word}: {text.replace('|', '/')} | 'held'={held};;;0;1")


def say_outcome(contract: str, address: str, action: str, outcome: Outcome) -> Saying:
    """The answer to start or stop."""
    text = f"{address}: {outcome.because}"
    if outcome.ok:
        return Saying(0, "" if contract in (OCF, HEARTBEAT) else text)
    if contract == OCF:
        code = OCF_START_CODES.get(outcome.trouble, OCF_GENERIC) if action == "start" else OCF_GENERIC
        return Saying(code, "", f"ocf-exit-reason:{text}")
    if contract == PLAIN:
        return Saying(code_of(outcome.trouble), "", f"haptk: {text}")
    return Saying(1, "", text)


def code_of(trouble: str) -> int:
    """The exit code of the error class of this name."""
    return next((cls.exit_code for cls in all_error_classes() if cls.__name__ == trouble), HaptkError.exit_code)


def as_dict(address: str, status: Status) -> dict[str, object]:
    """A status as JSON objects show it; every field is always there."""
    shown: dict[str, object] = {"address": address, "state": "unknown", "source": None, "since": None, "holder": None,
                                "why": None, "last": None}  # fmt: skip
    match status:
        case Ours(source=source, since=since):
            shown |= {"state": "ours", "source": source, "since": since}
        case NotOurs(holder=holder, source=source):
            shown |= {"state": "not-ours", "source": source or None}
            if holder is not None:
                shown["holder"] = {
                    "interface": holder.interface,
                    "instance": holder.instance,
                    "private_ip": holder.private_ip,
                }
        case Unknown(why=why, last=last):
            shown["why"] = why
            if last is not None:
                state = "ours" if isinstance(last.state, Ours) else "not-ours"
                shown["last"] = {"state": state, "age_s": round(last.age_s, 3)}
    return shown
