"""Rich consoles with the user's colour choice, and nothing else: what is drawn belongs to the report that draws it."""

from __future__ import annotations

from rich.console import Console


class _Honest(Console):
    """A console that leaves a reader that went away to the command line, which knows the exit code for it."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 (rich calls this while it handles the error)


def console(color: str = "auto", *, stderr: bool = False) -> Console:
    """A console on stdout (or stderr). `auto` follows the terminal and NO_COLOR, as rich does by itself."""
    if color == "always":
        return _Honest(stderr=stderr, force_terminal=True)
    if color == "never":
        return _Honest(stderr=stderr, no_color=True, highlight=False)
    return _Honest(stderr=stderr, highlight=False)
