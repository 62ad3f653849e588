"""The one exception tree: every error says who must act, and its class carries the exit code and the template.

The classes are the table: `docs/reference/errors.md` is generated from them and a test refuses two classes with one
exit code. Exit codes 64 to 78 have the meaning of sysexits(3), so systemd prints their names. 1 and 2 are left to
judgements (a drill that failed, a difference that exists) and to click's usage errors.
"""

from __future__ import annotations

from typing import ClassVar


class HaptkError(Exception):
    """Base of all errors that a user may see; `str()` of one is the single line that is printed.

    Subclasses set `who` (operator, peer, aws, internal), `exit_code` (unique) and `template`, whose fields are
    the keyword arguments of the constructor; they stay readable in `fields` for `--json`.
    """

    who: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70
    template: ClassVar[str] = "{what}"

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))


class OperatorError(HaptkError):
    """Something that the person at the keyboard can put right."""

    who = "operator"
    exit_code = 64


class ConfigError(OperatorError):
    """A file that cannot be accepted; `why` names the word that was wrong and what is accepted instead."""

    exit_code = 78
    template = "{file}:{line}: {why}"


class MissingFile(OperatorError):
    exit_code = 66
    template = "{path}: {why}"


class MissingProgram(OperatorError):
    exit_code = 69
    template = "{program} is not installed: {why}"


class NotPermitted(OperatorError):
    exit_code = 77
    template = "not permitted: {what}: {why}"


class LimitTooLow(OperatorError):
    """The process may not open as many descriptors as its configuration needs; the sentence and the code are HAProxy's."""

    exit_code = 1
    template = "{why}"


class CannotBind(OperatorError):
    exit_code = 71
    template = "cannot listen on {address}: {why}"


class CannotWrite(OperatorError):
    exit_code = 73
    template = "cannot write {path}: {why}"


class CannotPrint(OperatorError):
    """What was asked for is done, but its result got lost on its way out (a full disk behind a redirection)."""

    exit_code = 74
    template = "cannot write to standard output: {why}"


class AlreadyRunning(OperatorError):
    exit_code = 79
    template = "{what} is running already (pid {pid}): {advice}"


class NotRunning(OperatorError):
    exit_code = 72
    template = "{what} is not running: {advice}"


class PeerError(HaptkError):
    """The other node, or a program we talk to, answered wrongly or not at all."""

    who = "peer"
    exit_code = 76
    template = "{peer}: {why}"


class PeerTimeout(PeerError):
    exit_code = 81
    template = "{peer} did not answer within {timeout_s} s: {why}"


class AwsError(HaptkError):
    """AWS refused, failed or could not be reached; says which action on what."""

    who = "aws"
    exit_code = 75
    template = "{action} on {target}: {why}"


class AwsUnreachable(AwsError):
    exit_code = 90
    template = "{action} on {target}: no answer from {endpoint}: {why}"


class AwsThrottled(AwsError):
    exit_code = 91
    template = "{action} on {target}: throttled by AWS; try again in some seconds"


class AwsDenied(AwsError):
    exit_code = 92
    template = "{action} on {target} is not allowed for these credentials: {why}"


class AwsNotFound(AwsError):
    exit_code = 93
    template = "{action}: {target} does not exist: {why}"


class AwsClock(AwsError):
    exit_code = 94
    template = "{action} on {target}: the request was refused for its time: is this machine's clock right? ({why})"


class AwsNoCredentials(AwsError):
    exit_code = 95
    template = "{action} on {target}: no usable AWS credentials: {why}"


class AwsConflict(AwsError):
    """The object changed under us: somebody else acted first. Nothing was done."""

    exit_code = 96
    template = "{action} on {target}: {why}"


class InternalError(HaptkError):
    """A fault of haptk itself; `--debug` shows the trace."""

    who = "internal"
    exit_code = 70
    template = "internal error: {what} (run again with --debug for the trace, and please report it)"


def all_error_classes() -> list[type[HaptkError]]:
    """Every class of the tree that an exit can show, sorted by exit code."""
    found: list[type[HaptkError]] = []
    todo: list[type[HaptkError]] = [HaptkError]
    while todo:
        cls = todo.pop()
        todo.extend(cls.__subclasses__())
        if cls is not HaptkError:
            found.append(cls)
    return sorted(found, key=lambda cls: (cls.exit_code, cls.__name__))
