"""What a check is, what it finds, and the thresholds that the person asked for.

No dataclasses: a check may run every second, and what these cost at import is a tenth of a whole `check process`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from haptk.report.nagios import Perf, Range, State, worst


class Finding(NamedTuple):
    """What one look found: the state, the sentence, figures, further lines, and facts for `--json`."""

    state: State
    text: str
    perf: tuple[Perf, ...] = ()
    more: tuple[str, ...] = ()
    facts: Mapping[str, object] = {}


class Check(NamedTuple):
    """A thing that can be looked at again and again. `look` gets the seconds it may take."""

    service: str
    name: str
    timeout_s: float
    look: Callable[[float], Finding]


class Limits:
    """Thresholds by figure: `-w time=2 -w queue=10`; a bare range belongs to the kind's main figure."""

    def __init__(self, known: Sequence[str], warning: Iterable[str] = (), critical: Iterable[str] = ()) -> None:
        """`known` names the figures that this kind measures, the main one first; ValueError for any other."""
        self.known = known
        self.warning = self._read(warning)
        self.critical = self._read(critical)

    def _read(self, texts: Iterable[str]) -> dict[str, Range]:
        found: dict[str, Range] = {}
        for text in texts:
            name, equals, limit = text.rpartition("=")
            if not equals:
                name = self.known[0] if self.known else ""
            if name not in self.known:
                raise ValueError(
                    f"{name or text!r} is no figure of this check: {', '.join(self.known) or 'it has none'}"
                )
            found[name] = Range.parse(limit)
        return found

    def default(self, figure: str, *, warning: str = "", critical: str = "") -> Limits:
        """Thresholds to use for a figure for which the person gave none at all."""
        if figure not in self.warning and figure not in self.critical:
            if warning:
                self.warning[figure] = Range.parse(warning)
            if critical:
                self.critical[figure] = Range.parse(critical)
        return self

    def perf(
        self,
        figure: str,
        value: float | None,
        unit: str = "",
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        label: str = "",
    ) -> Perf:
        """The figure with its thresholds; `label` when one check shows a figure several times."""
        warning, critical = self.warning.get(figure), self.critical.get(figure)
        return Perf(label or figure, value, unit, warning, critical, minimum, maximum)

    def time(self, duration_s: float, timeout_s: float) -> Perf:
        """The figure that nearly every check has: how long it took."""
        return self.perf("time", duration_s, "s", minimum=0, maximum=timeout_s)


def conclude(
    state: State,
    text: str,
    perf: Sequence[Perf] = (),
    more: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
) -> Finding:
    """A finding whose state is the worst of what was seen and of what the thresholds say, with their complaints."""
    complaints = [words for item in perf if (words := item.complaint()) and words not in text]
    whole = worst([state, *(item.state() for item in perf)])
    return Finding(whole, "; ".join([text, *complaints]), tuple(perf), tuple(more), facts or {})


def split_target(target: str, default_port: int | None = None) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `/path/of/a/socket` (port 0); ValueError says what is accepted."""
    if target.startswith("/"):
        return target, 0
    host, colon, port = target.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")) or target.endswith("]"):
        host, port = target, "" if default_port is None else str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        wanted = "HOST:PORT" if default_port is None else "HOST[:PORT]"
        raise ValueError(f"{target!r} is no target: {wanted}, [V6]:PORT or /path/of/a/socket is accepted")
    return host, int(port)
