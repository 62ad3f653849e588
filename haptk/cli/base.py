"""What every command shares: settings from the global options, lazy groups, output, and errors as one line.

Only click and what it loads anyway is imported here: every command pays for it, also one that a cluster manager polls.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import click

from haptk.core.printable import printable
from haptk.errors import CannotPrint, HaptkError, InternalError
from haptk.io import leave

if TYPE_CHECKING:
    from pathlib import Path

    from click.shell_completion import CompletionItem
    from rich.console import Console

# The shell asks for completions by this variable; click answers and ends the process.
COMPLETION = "_HAPTK_COMPLETE"


class Settings:
    """The global options; one object a run, shared by all levels of the command line through `ctx.obj`."""

    def __init__(self) -> None:
        self.as_json = False
        self.verbosity = 0
        self.color = "auto"
        self.config: Path | None = None
        self.debug = False
        # Set by commands that are polled: nothing of theirs needs the interpreter's own end.
        self.leaves_at_once = False


def settings(ctx: click.Context | None = None) -> Settings:
    """The settings of this run (of `ctx`, else of the current context)."""
    found = (ctx or click.get_current_context()).ensure_object(Settings)
    return found


def _store(field: str, value_of: Callable[[Any], Any] = lambda value: value) -> Callable[..., None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None and value is not False and value != 0:
            setattr(settings(ctx), field, value_of(value))

    return callback


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)


@functools.cache
def common_options() -> tuple[click.Option, ...]:
    """The options that stand before or after any command: `haptk --json lab` is `haptk lab --json`.

    All commands share the same objects: they keep nothing between runs, and making them costs a millisecond each time.
    """
    plain: dict[str, Any] = {"expose_value": False}
    return (
        click.Option(["--json"], is_flag=True, help="Print the result as JSON.", callback=_store("as_json"), **plain),
        click.Option(
            ["--verbose"], count=True, help="Say more (may be repeated).", callback=_store("verbosity"), **plain
        ),
        click.Option(
            ["--quiet"],
            is_flag=True,
            help="Say only warnings and errors.",
            callback=_store("verbosity", lambda _: -1),
            **plain,
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="Colours: auto follows the terminal and NO_COLOR.",
            callback=_store("color"),
            **plain,
        ),
        click.Option(
            ["--config"],
            type=click.Path(),
            envvar="HAPTK_CONFIG",
            help="cluster.toml to use instead of /etc/haptk/cluster.toml.",
            callback=_store("config", _path),
            **plain,
        ),
        click.Option(["--debug"], is_flag=True, help="Show the trace of an error.", callback=_store("debug"), **plain),
    )


class _Common(click.Command):
    """Adds the common options to a command's own; a command that defines one of them itself keeps its own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        taken = {name for param in own for name in param.opts}
        # --help stays last, where people look for it.
        added = [option for option in common_options() if not taken & set(option.opts)]
        return [*own[:-1], *added, *own[-1:]] if own else list(added)


class Command(_Common):
    """A command with the common options."""


class Group(_Common, click.Group):
    """A group with the common options, whose subcommands have them too."""

    command_class = Command


Group.group_class = Group


class LazyCommands(MutableMapping[str, click.Command]):
    """name -> command, imported at the first look; the table's keys are known without any import."""

    def __init__(self, table: Mapping[str, tuple[str, str]]) -> None:
        self.table = table
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module, _, attribute = self.table[name][0].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


class LazyGroup(Group):
    """A group over a LazyCommands table: help and completion read the table and import no command."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self.commands = LazyCommands(table)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(self.table.items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in sorted(self.table.items())
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def emit(result: Mapping[str, Any], render: Callable[[Console], None] | str) -> None:
    """Print a command's result on stdout: JSON with --json, else the text, or what `render` draws on a rich console."""
    chosen = settings()
    if chosen.as_json:
        import json

        click.echo(json.dumps(result, indent=2, default=str, ensure_ascii=False))
    elif isinstance(render, str):
        click.echo(render)
    else:
        from haptk.report.text import console

        render(console(chosen.color))


def say(message: str, level: int = 0) -> None:
    """Talk to the person on stderr, unless --quiet (or the level is above --verbose)."""
    if settings().verbosity >= level:
        told(message)


def report_error(error: HaptkError, *, as_json: bool) -> None:
    """The one line of an error on stderr; one JSON object with --json."""
    if as_json:
        import json

        body = {
            "error": type(error).__name__,
            "who": error.who,
            "message": str(error),
            "exit_code": error.exit_code,
            "fields": error.fields,
        }
        told(json.dumps(body, default=str, ensure_ascii=False))
    else:
        lines = str(error).rstrip().split("\n")
        told("haptk: " + "\n".join(printable(line) for line in lines))


def told(message: str) -> None:
    """A line on stderr; when it cannot be written, work goes on and exit codes stay what they are."""
    try:
        click.echo(message, err=True)
    except OSError:
        leave.abandon(sys.stderr)


def run(group: click.Command, argv: list[str] | None = None, chosen: Settings | None = None) -> int:
    """Run the command line and return the exit code; never lets a traceback out unless --debug was given.

    `chosen` is filled with the global options of the run.
    """
    chosen = chosen or Settings()
    try:
        code = _invoke(group, sys.argv[1:] if argv is None else argv, chosen)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except click.ClickException as error:
        try:
            error.show()
        except OSError:
            leave.abandon(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        told("haptk: interrupted")
        return 130
    except HaptkError as error:
        if chosen.debug:
            raise
        report_error(error, as_json=chosen.as_json)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and is_of_stdout(error):
            return unprinted(error, as_json=chosen.as_json)
        if chosen.debug:
            raise
        report_error(InternalError(what=f"{type(error).__name__}: {error}"), as_json=chosen.as_json)
        return InternalError.exit_code


def is_of_stdout(error: OSError) -> bool:
    """Whether `error`, met while a command ran, is stdout's: nothing but output is written by click and rich.

    Asking the stream would not do: what did not fit into its buffer is gone, and a second try says that all is well.
    """
    if error.filename is not None or error.__traceback__ is None:
        return False
    at = error.__traceback__
    while at.tb_next is not None:
        at = at.tb_next
    module = str(at.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in ("click", "rich") or module == __name__


def unprinted(error: OSError, *, as_json: bool) -> int:
    """Say that the result got lost on its way out, and return the exit code for it.

    A reader that went away (`haptk ... | head`) wanted no more: nothing is said, and the code is what a shell shows
    for a program that SIGPIPE ended.
    """
    leave.abandon(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        report_error(CannotPrint(why=error.strerror or str(error)), as_json=as_json)
    return leave.exit_code(error)


def _invoke(group: click.Command, argv: list[str], chosen: Settings) -> int:
    """What click's own `main` does, which would make an exit of 1 of a reader that went away."""
    if COMPLETION in os.environ:
        group.main(args=argv, prog_name="haptk", standalone_mode=False, obj=chosen)
    try:
        with group.make_context("haptk", list(argv), obj=chosen) as ctx:
            answer = group.invoke(ctx)
    except click.exceptions.Exit as left:
        return left.exit_code
    return answer if isinstance(answer, int) else 0
