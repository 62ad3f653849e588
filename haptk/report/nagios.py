"""The monitoring-plugin line: states and exit codes, threshold ranges, performance data. Pure text, standard library only.

Source: the Monitoring Plugins Development Guidelines (monitoring-plugins.org/doc/guidelines.html), sections "Plugin
Output", "Performance data" and "Threshold and ranges". A line is

    SERVICE STATUS: text | 'label'=value[unit];warn;crit;min;max 'label'=...

and further lines are long text. Text from a peer may be anything: control characters, line breaks and the `|` that
begins performance data are replaced, so that no peer can forge a line, data or a terminal sequence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple


class State(IntEnum):
    """The four answers; the value is the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


# Worst first. UNKNOWN stands above WARNING: "could not look" may hide something worse than what was seen.
SEVERITY = (State.CRITICAL, State.UNKNOWN, State.WARNING, State.OK)


def worst(states: Iterable[State]) -> State:
    """The state of a whole from those of its parts; UNKNOWN when there are none, because nothing was looked at."""
    found = set(states)
    return next((state for state in SEVERITY if state in found), State.UNKNOWN)


# Patterns are compiled when they are first needed: a check that runs every second mostly needs none of them.
_RANGE = r"(@?)(?:(~|-?\d+(?:\.\d+)?)?:)?(-?\d+(?:\.\d+)?)?"


class Range(NamedTuple):
    """A threshold: `alerts` is true outside start..end (both belong to it), or inside with `inside`.

    10      alert below 0 or above 10          10:     alert below 10
    ~:10    alert above 10                     10:20   alert outside 10..20
    @10:20  alert inside 10..20
    """

    start: float
    end: float
    inside: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read `[@][start:][end]`; ValueError says what is accepted."""
        found = re.fullmatch(_RANGE, text)
        if not found or not text.strip("@:"):
            raise ValueError(f"{text!r} is no range: 10, 10:, ~:10, 10:20 or @10:20 are accepted")
        start = -math.inf if found[2] == "~" else float(found[2] or 0)
        end = float(found[3]) if found[3] else math.inf
        if start > end:
            raise ValueError(f"{text!r} is no range: its start is above its end")
        return cls(start, end, found[1] == "@", text)

    def alerts(self, value: float) -> bool:
        """Whether `value` breaks this threshold; a value that is no number always does."""
        if math.isnan(value):
            return True
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        return self.text


UNITS = ("", "s", "us", "ms", "%", "B", "KB", "MB", "GB", "TB", "c")


class Perf(NamedTuple):
    """One figure with its thresholds. `value` None is written as U (not known); `unit` is one of UNITS."""

    label: str
    value: float | None
    unit: str = ""
    warning: Range | None = None
    critical: Range | None = None
    minimum: float | None = None
    maximum: float | None = None

    def state(self) -> State:
        """What the thresholds make of the value; without a value they cannot say anything."""
        if self.value is None:
            return State.UNKNOWN if self.warning or self.critical else State.OK
        if self.critical is not None and self.critical.alerts(self.value):
            return State.CRITICAL
        if self.warning is not None and self.warning.alerts(self.value):
            return State.WARNING
        return State.OK

    def complaint(self) -> str:
        """`time 3.2s is outside 0:2`, or nothing when no threshold is broken."""
        if self.state() in (State.OK, State.UNKNOWN) or self.value is None:
            return ""
        limit = self.critical if self.state() is State.CRITICAL else self.warning
        where = "inside" if limit is not None and limit.inside else "outside"
        bare = str(limit).removeprefix("@")
        shown = bare if ":" in bare else f"0:{bare}"
        unit = "" if self.unit == "c" else self.unit  # "counter" is for the one who draws it
        return f"{self.label} {number(self.value)}{unit} is {where} {shown}"

    def __str__(self) -> str:
        value = "U" if self.value is None else number(self.value) + self.unit
        rest = [
            str(self.warning or ""),
            str(self.critical or ""),
            "" if self.minimum is None else number(self.minimum),
            "" if self.maximum is None else number(self.maximum),
        ]
        return ";".join([f"{label(self.label)}={value}", *rest]).rstrip(";")


def label(text: str) -> str:
    """A label quoted where it must be: quotes are doubled, `=` cannot be written at all and becomes a colon."""
    clean = plain(text).replace("=", ":").replace("'", "''") or "value"
    return clean if clean.isascii() and not set(clean) & set(" '\"") else f"'{clean}'"


def number(value: float) -> str:
    """A number without exponent and without needless digits; microseconds are the finest that is shown."""
    if math.isinf(value) or math.isnan(value):
        return "U"
    return f"{value:.6f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+"


def plain(text: str) -> str:
    """Text as it may stand on a plugin's line: one line, no control characters, no `|`."""
    clean = text if text.isprintable() else re.sub(_CONTROL, " ", text)
    return clean.replace("|", "/").strip()


def line(service: str, state: State, text: str, perf: Sequence[Perf] = (), more: Iterable[str] = ()) -> str:
    """The whole output: the first line with its performance data, then `more` as long text."""
    first = f"{plain(service)} {state.name}: {plain(text)}"
    if perf:
        first += " | " + " ".join(str(item) for item in perf)
    return "\n".join([first, *(plain(item) for item in more)])


_FIGURE = r"(?:'((?:[^']|'')+)'|([^\s'=]+))=(U|-?[\d.]+)([A-Za-z%]*)((?:;[^\s;]*){0,4})(?=\s|$)"


def read_perf(text: str) -> list[Perf]:
    """The performance data of somebody else's plugin; what does not follow the guidelines is left out."""
    found = []
    for match in re.finditer(_FIGURE, text):
        fields = [*match[5].split(";")[1:], "", "", "", ""]
        try:
            warning, critical = (Range.parse(field) if field else None for field in fields[:2])
            minimum, maximum = (float(field) if field else None for field in fields[2:4])
            value = None if match[3] == "U" else float(match[3])
        except ValueError:
            continue
        name = (match[1] or match[2]).replace("''", "'")
        unit = match[4] if match[4] in UNITS else ""
        found.append(Perf(name, value, unit, warning, critical, minimum, maximum))
    return found
