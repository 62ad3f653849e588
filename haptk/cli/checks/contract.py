"""How a check ends: exit codes by contract, wrong usage as UNKNOWN, and the plugin mode.

In plugin mode `--help` and `--version` exit with 3, as the plugin guidelines ask: a monitoring system whose command line
has gone wrong must not see a green 0. The mode is chosen by the program's name (`check_haptk`, `check_haptk_http` as
links to haptk) or by `haptk check --plugin`; people and packaging tools that ask for help elsewhere get 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from haptk import __version__
from haptk.cli.base import is_of_stdout, settings, told, unprinted
from haptk.errors import HaptkError
from haptk.report.nagios import State, line

PLUGIN_MODE = "haptk.plugin-mode"
CONTRACT = "haptk.contract"

# state -> exit code. `script` is for programs that know good and bad (keepalived's vrrp_script, HAProxy's
# external-check), `condition` for systemd's ExecCondition, where 1 to 254 skip the unit and 255 fails it.
CONTRACTS: dict[str, dict[State, int]] = {
    "plugin": {State.OK: 0, State.WARNING: 1, State.CRITICAL: 2, State.UNKNOWN: 3},
    "script": {State.OK: 0, State.WARNING: 0, State.CRITICAL: 1, State.UNKNOWN: 1},
    "condition": {State.OK: 0, State.WARNING: 0, State.CRITICAL: 1, State.UNKNOWN: 255},
}


def plugin_option() -> click.Option:
    """`--plugin` of the group; eager, so that it is known before `--help` acts."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[PLUGIN_MODE] = True

    text = "Let --help and --version exit with 3, as monitoring systems want it."
    return click.Option(["--plugin"], is_flag=True, is_eager=True, expose_value=False, callback=chosen, help=text)


def version_option() -> click.Option:
    """`-V`, which every plugin has."""

    def show(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"haptk {__version__}")
            ctx.exit()

    text = "Show the version."
    return click.Option(["-V", "--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help=text)


class Judging(click.Command):
    """A command that never ends with an error's exit code: what it cannot judge is UNKNOWN, on stdout, in one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse; wrong usage ends as UNKNOWN, and in plugin mode help does, too."""
        given = tuple(args)
        contract = contract_of(given)
        try:
            made = super().make_context(info_name, args, parent=parent, **extra)
            made.meta[CONTRACT] = contract
            return made
        except click.UsageError as error:
            plugin = parent is not None and bool(parent.meta.get(PLUGIN_MODE))
            if isinstance(error, click.exceptions.NoArgsIsHelpError):
                if not plugin:
                    raise
                raise unknown(str(info_name), "wrong usage: which kind of check?", error, contract=contract) from None
            # `--json` may stand behind the word that is wrong, where nobody has read it yet.
            as_json = "--json" in given or (parent is not None and settings(parent).as_json)
            text = f"wrong usage: {error.format_message()}"
            raise unknown(str(info_name), text, error, as_json=as_json, contract=contract) from None
        except click.exceptions.Exit as done:
            if done.exit_code == 0 and parent is not None and parent.meta.get(PLUGIN_MODE):
                raise click.exceptions.Exit(int(State.UNKNOWN)) from None
            raise

    def act(self, ctx: click.Context) -> Any:
        """What invoking does, without the guard around it."""
        return super().invoke(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Act; an error of ours or of the operator ends as UNKNOWN unless --debug wants to see it."""
        try:
            return self.act(ctx)
        except click.UsageError as error:
            raise self._unknown(ctx, f"wrong usage: {error.format_message()}", error) from None
        except HaptkError as error:
            if settings(ctx).debug:
                raise
            raise self._unknown(ctx, str(error)) from None
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            if settings(ctx).debug or (isinstance(error, OSError) and is_of_stdout(error)):
                raise
            raise self._unknown(ctx, f"internal error: {type(error).__name__}: {error}") from None

    def _unknown(self, ctx: click.Context, text: str, usage: click.UsageError | None = None) -> click.exceptions.Exit:
        contract = str(ctx.params.get("contract") or ctx.meta.get(CONTRACT, "plugin"))
        # A command line that means nothing is never green, whatever it says about what cannot be seen.
        wished = None if usage else ctx.params.get("unknown_is")
        state = State[str(wished).upper()] if wished else State.UNKNOWN
        return unknown(str(ctx.info_name), text, usage, as_json=settings(ctx).as_json, contract=contract, state=state)


def contract_of(arguments: Sequence[str]) -> str:
    """The contract that a command line asks for, although it could not be parsed: a typo beside it must not change whose
    exit codes are spoken."""
    words = [word for one in arguments for word in one.split("=", 1)]
    asked = [value for name, value in pairwise(words) if name == "--contract"]
    return asked[-1] if asked and asked[-1] in CONTRACTS else "plugin"


def unknown(
    name: str,
    text: str,
    usage: click.UsageError | None = None,
    *,
    as_json: bool = False,
    contract: str = "plugin",
    state: State = State.UNKNOWN,
) -> click.exceptions.Exit:
    """Print the line of what cannot be judged on stdout, where monitoring systems read, and the hint on stderr; the exit
    to raise, with the code of the contract."""
    code = CONTRACTS[contract][state]
    if as_json:
        import json

        body = {"service": name.upper(), "state": state.name, "exit_code": code, "text": text, "checks": []}
        shown = json.dumps(body, indent=2, ensure_ascii=False)
    else:
        shown = line(name.upper(), state, text)
    try:
        click.echo(shown)
    except OSError as error:
        unprinted(error, as_json=as_json)
    if usage is not None and usage.ctx is not None:
        told(f"Try '{usage.ctx.command_path} --help' for help.")
    return click.exceptions.Exit(code)
