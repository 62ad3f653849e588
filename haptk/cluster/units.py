"""Quantities as cluster.toml writes them and as each target file wants them: seconds are kept, spellings are made.

A duration is a float of seconds with a spelling. Each program has its own (haproxy wants no fractions, ha.cf takes `ms`,
Route 53 whole seconds), so the conversion stands here once and is never left to a template.
"""

from __future__ import annotations

from haptk.formats import durations


class Seconds(float):
    """A duration in seconds; written as "2s", "500ms", "30m", "8h" or a bare number of seconds."""

    @classmethod
    def parse(cls, value: object) -> Seconds:
        """From what TOML holds; ValueError says what is accepted."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{durations.ACCEPTED} is accepted")
        found = durations.parse(value) if isinstance(value, str) else float(value)
        if not 0 <= found < 1e9:
            raise ValueError("a duration from 0 to some years is accepted")
        return cls(found)

    @property
    def text(self) -> str:
        """The shortest exact spelling that haproxy, ha.cf and people read: 500ms, 2s, 30m, 8h."""
        if not self.is_integer() or not self:
            return f"{round(self * 1000)}ms"
        whole = int(self)
        for size, unit in ((3600, "h"), (60, "m")):
            if whole % size == 0:
                return f"{whole // size}{unit}"
        return f"{whole}s"

    @property
    def ha_cf(self) -> str:
        """As ha.cf(5) takes it: bare seconds, or milliseconds with `ms`."""
        return f"{int(self)}" if self.is_integer() else f"{round(self * 1000)}ms"

    @property
    def plain(self) -> str:
        """Seconds as a number without a unit, with a fraction only where there is one."""
        return f"{float(self):g}"
