"""Rich consoles with the user's colour choice, and nothing else: what is drawn belongs to the report that draws it."""

from __future__ import annotations

from rich.console import Console


def console(color: str = "auto", *, stderr: bool = False) -> Console:
    """A console on stdout (or stderr). `auto` follows the terminal and NO_COLOR, as rich does by itself."""
    if color == "always":
        return Console(stderr=stderr, force_terminal=True)
    if color == "never":
        return Console(stderr=stderr, no_color=True, highlight=False)
    return Console(stderr=stderr, highlight=False)
