"""What every kind of check shares on the command line: its options, how it is run, and how the result is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from haptk.checks.base import Check, Finding, Limits, split_target
from haptk.checks.runner import run
from haptk.cli.base import Command, emit, settings, unprinted
from haptk.cli.checks.contract import CONTRACTS, Judging, version_option
from haptk.report.nagios import Perf, State, line, worst

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_TIMEOUT_S = 10.0
# More figures than this on one line help nobody: only the counts are shown then.
FIGURES_MAX = 100

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """Seconds, or a number with ms, s, m; more than nothing."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from haptk.formats import durations

        try:
            seconds = durations.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail(f"{value!r} is no time at all", param, ctx)
        return seconds


DURATION = Duration()


class Wishes(NamedTuple):
    """The shared options of one run."""

    timeout: float
    contract: str
    unknown_is: str | None
    watch: bool
    interval: float
    looks: int
    rise: int
    fall: int


def _verbose(ctx: click.Context, _param: click.Parameter, value: int) -> None:
    if value:
        settings(ctx).verbosity = value


def shared_options(figures: Sequence[str], timeout_s: float) -> list[click.Option]:
    """The options that plugins have by convention (-t -w -c -v -V), and ours."""
    named = ", ".join(figures) if figures else "none"
    limit = f"[FIGURE=]RANGE; figures: {named}." + (f" Without a name: {figures[0]}." if figures else "")
    states = [state.name.lower() for state in State]
    return [
        click.Option(["-t", "--timeout"], type=DURATION, default=timeout_s, show_default=True, help="Time for it all."),
        click.Option(["-w", "--warning"], multiple=True, metavar="RANGE", help=f"WARNING outside of {limit}"),
        click.Option(["-c", "--critical"], multiple=True, metavar="RANGE", help=f"CRITICAL outside of {limit}"),
        click.Option(
            ["--contract"],
            type=click.Choice(list(CONTRACTS)),
            default="plugin",
            show_default=True,
            help="Exit codes for a monitoring system (0-3), a script (0, 1) or systemd's ExecCondition.",
        ),
        click.Option(["--unknown-is"], type=click.Choice(states), help="Treat UNKNOWN as this state."),
        click.Option(["--watch"], is_flag=True, help="Look again and again and show the rows live."),
        click.Option(["--interval"], type=DURATION, default=2.0, show_default=True, help="With --watch: time between."),
        click.Option(
            ["--count", "looks"], type=click.IntRange(min=0), default=0, help="With --watch: stop after so many looks."
        ),
        click.Option(
            ["--rise"], type=click.IntRange(min=1), default=2, help="With --watch: good looks until it is up."
        ),
        click.Option(
            ["--fall"], type=click.IntRange(min=1), default=3, help="With --watch: bad looks until it is down."
        ),
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, callback=_verbose, help="Show the long text, too."
        ),
        version_option(),
    ]


class CheckCommand(Judging, Command):
    """A kind: its callback gets `limits` and `timeout_s` beside its own options and returns the checks to run."""

    def __init__(
        self, *args: Any, figures: Sequence[str] = (), default_timeout_s: float = DEFAULT_TIMEOUT_S, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.figures = figures
        self.params += shared_options(figures, default_timeout_s)

    def plan(self, ctx: click.Context) -> tuple[Wishes, list[Check]]:
        """The checks that this command line means; nothing is looked at yet. Raises UsageError or HaptkError."""
        params: dict[str, Any] = dict(ctx.params)
        wishes = Wishes(**{name: params.pop(name) for name in Wishes._fields})
        try:
            limits = Limits(self.figures, params.pop("warning"), params.pop("critical"))
            if self.callback is None:
                return wishes, []
            return wishes, ctx.invoke(self.callback, limits=limits, timeout_s=wishes.timeout, **params)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None

    def act(self, ctx: click.Context) -> Any:
        """Plan, look and print; the return value is the exit code."""
        wishes, checks = self.plan(ctx)
        return conduct(str(ctx.info_name).upper(), wishes, checks)


def conduct(service: str, wishes: Wishes, checks: Sequence[Check]) -> int:
    """Look at all checks side by side, print, and return the exit code of the contract."""
    if wishes.watch:
        from haptk.cli.checks.watch import watch

        return watch(checks, wishes)
    findings = [softened(found, wishes) for found in run(checks, wishes.timeout)]
    whole = findings[0] if len(checks) == 1 else combine(checks, findings)
    code = CONTRACTS[wishes.contract][whole.state]
    shown = len(checks) > 1 or settings().verbosity > 0
    text = line(
        checks[0].service if len(checks) == 1 else service,
        whole.state,
        whole.text,
        whole.perf,
        whole.more if shown else (),
    )
    try:
        emit(as_json(service, whole, code, checks, findings), text)
    except OSError as error:
        # The code is the answer, the line explains it: what was judged stays judged when the line gets lost.
        unprinted(error, as_json=settings().as_json)
    return code


def softened(found: Finding, wishes: Wishes) -> Finding:
    """The finding with UNKNOWN replaced by what --unknown-is says."""
    if found.state is State.UNKNOWN and wishes.unknown_is:
        return found._replace(state=State[wishes.unknown_is.upper()])
    return found


def combine(checks: Sequence[Check], findings: Sequence[Finding]) -> Finding:
    """One finding for many: the worst state, who is not well, and everybody's figures under their names."""
    bad = [(check, found) for check, found in zip(checks, findings, strict=True) if found.state is not State.OK]
    counts = tuple(
        Perf(state.name.lower(), sum(found.state is state for found in findings), minimum=0, maximum=len(findings))
        for state in State
    )
    if bad:
        bad.sort(key=lambda pair: (State.CRITICAL, State.UNKNOWN, State.WARNING).index(pair[1].state))
        named = "; ".join(f"{check.name}: {found.text}" for check, found in bad[:3])
        text = f"{len(bad)} of {len(findings)} not OK: {named}" + ("; ..." if len(bad) > 3 else "")
    else:
        text = f"all {len(findings)} OK" if findings else "nothing to look at"
    perf = tuple(
        item._replace(label=f"{check.name} {item.label}")
        for check, found in zip(checks, findings, strict=True)
        for item in found.perf
    )
    more: list[str] = []
    for check, found in zip(checks, findings, strict=True):
        more += [
            f"[{found.state.name}] {check.service} {check.name}: {found.text}",
            *(f"  {item}" for item in found.more),
        ]
    figures = counts + perf if len(perf) <= FIGURES_MAX else counts
    return Finding(worst(found.state for found in findings), text, figures, tuple(more))


def as_json(
    service: str, whole: Finding, code: int, checks: Sequence[Check], findings: Sequence[Finding]
) -> Mapping[str, Any]:
    """The whole and every check for `--json`."""
    return {
        "service": service,
        "state": whole.state.name,
        "exit_code": code,
        "text": whole.text,
        "checks": [
            {
                "service": check.service,
                "name": check.name,
                "state": found.state.name,
                "text": found.text,
                "figures": [_figure(item) for item in found.perf],
                "more": list(found.more),
                **found.facts,
            }
            for check, found in zip(checks, findings, strict=True)
        ],
    }


def _figure(item: Perf) -> dict[str, Any]:
    limits = {"warning": item.warning, "critical": item.critical}
    return {
        "label": item.label,
        "value": item.value,
        "unit": item.unit,
        **{name: limit.text for name, limit in limits.items() if limit is not None},
    }


# -- options that several kinds have -------------------------------------------------------------------------------


def target_options(function: AnyFunction) -> AnyFunction:
    """`TARGET...`, or `-H` and `-p` as plugins have them (and as HAProxy's external-check hands them over)."""
    function = click.option("-p", "--port", type=click.IntRange(1, 65535), help="Port to go with -H.")(function)
    function = click.option("-H", "--hostname", metavar="HOST", help="Host, address or path of a socket.")(function)
    return click.argument("targets", metavar="TARGET...", nargs=-1)(function)


def targets_of(
    targets: Sequence[str], hostname: str | None, port: int | None, default_port: int | None = None
) -> list[tuple[str, int]]:
    """The targets that were named in either way; ValueError when there is none."""
    found = [split_target(target, default_port) for target in targets]
    if hostname is not None:
        if hostname.startswith("/"):
            found.append((hostname, 0))
        elif port or default_port:
            found.append((hostname.removeprefix("[").removesuffix("]"), port or default_port or 0))
        else:
            raise ValueError("-H needs -p")
    elif port is not None:
        raise ValueError("-p needs -H")
    if not found:
        raise ValueError("nothing to check: give a TARGET, or -H and -p")
    return found


def tls_options(function: AnyFunction) -> AnyFunction:
    """How TLS is spoken where it is."""
    text = "Do not verify the certificate (its end is still watched)."
    function = click.option("--tls-no-verify", is_flag=True, help=text)(function)
    function = click.option("--tls-ca", metavar="FILE", help="Authorities to trust instead of the system's.")(function)
    return click.option("--tls-name", metavar="NAME", default="", help="Name to ask for and to verify.")(function)


def read_secret(path: Path) -> str:
    """The first line of a file; secrets are no arguments, because every user of the machine can list those."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"cannot read {path}: {why}") from None
    return text.partition("\n")[0].rstrip("\r")


_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def unescape(text: str) -> bytes:
    r"""Bytes of an argument in which `\r \n \t \0 \\ \xHH` may stand for what a shell does not like."""
    import re

    parts: list[bytes] = []
    at = 0
    for found in re.finditer(r"\\(r|n|t|0|\\|x[0-9A-Fa-f]{2})", text):
        parts.append(text[at : found.start()].encode("utf-8", "surrogateescape"))
        parts.append(_ESCAPES.get(found[1]) or bytes.fromhex(found[1][1:]))
        at = found.end()
    parts.append(text[at:].encode("utf-8", "surrogateescape"))
    return b"".join(parts)
