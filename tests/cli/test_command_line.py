"""The command line as a whole: the table is true, help costs no heavy import, errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from haptk import errors
from haptk.cli import COMMANDS
from haptk.cli.app import haptk
from haptk.cli.base import Command, Group, emit, run

HEAVY = {"boto3", "botocore", "rich", "dns", "jinja2", "asyncio", "moto", "prometheus_client", "msgspec", "ssl"}
RUN = "from haptk.cli.app import haptk; from haptk.cli.base import run; code = run(haptk, {argv!r})"


def modules_after(argv: list[str], extra_env: dict[str, str] | None = None) -> set[str]:
    program = RUN.format(argv=argv) + "; import sys; print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(extra_env or {})},
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("argv", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(argv: list[str]) -> None:
    assert not modules_after(argv) & HEAVY


def test_completion_imports_nothing_heavy() -> None:
    env = {"_HAPTK_COMPLETE": "bash_complete", "COMP_WORDS": "haptk he", "COMP_CWORD": "1"}
    program = (
        "import sys; from haptk.cli.app import haptk\n"
        "try: haptk.main(prog_name='haptk')\n"
        "except SystemExit: pass\n"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **env}
    )
    assert "heartbeat" in done.stdout
    assert not {name.partition(".")[0] for name in done.stderr.split()} & HEAVY


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_table_says_what_the_command_says(name: str) -> None:
    command = haptk.commands[name]
    assert command.get_short_help_str(limit=200) == COMMANDS[name][1]


def walk(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name in command.commands:
            found += walk(command.commands[name], (*path, name))
    return found


@pytest.mark.parametrize(
    ("path", "command"), walk(haptk), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_and_json(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    # click keeps the first help option that it makes: one without -h would stay for every later test.
    ctx = click.Context(command, help_option_names=["-h", "--help"])
    names = {name for param in command.get_params(ctx) for name in param.opts}
    assert {"--json", "--help"} <= names or command.context_settings.get("ignore_unknown_options")


@click.group(cls=Group)
def toy() -> None:
    """A toy."""


@toy.command(cls=Command)
@click.argument("what")
def do(what: str) -> None:
    """Do something."""
    if what == "bug":
        raise ZeroDivisionError("a bug\nwith two lines")
    if what == "file":
        raise errors.ConfigError(file="/etc/haptk/x.cfg", line=7, why="'wieght' is not known; accepted: weight")
    emit({"did": what}, f"did {what}")


def test_an_operator_error_is_one_line_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(toy, ["do", "file"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "haptk: /etc/haptk/x.cfg:7: 'wieght' is not known; accepted: weight\n"


def test_a_fault_of_ours_shows_no_trace_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(toy, ["do", "bug"]) == 70
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run(toy, ["--debug", "do", "bug"])


@pytest.mark.parametrize("argv", [["--json", "do", "x"], ["do", "--json", "x"], ["do", "x", "--json"]])
def test_json_may_stand_anywhere(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(toy, argv) == 0
    assert json.loads(capsys.readouterr().out) == {"did": "x"}


def test_an_error_with_json_is_an_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(toy, ["--json", "do", "file"]) == 78
    body = json.loads(capsys.readouterr().err)
    assert (body["error"], body["who"], body["fields"]["line"]) == ("ConfigError", "operator", 7)


def test_usage_errors_exit_with_two() -> None:
    assert run(toy, ["dance"]) == 2


def test_no_two_errors_share_an_exit_code() -> None:
    own = [cls for cls in errors.all_error_classes() if "exit_code" in vars(cls)]
    codes = [cls.exit_code for cls in own]
    assert len(codes) == len(set(codes)), sorted(codes)
    theirs = {errors.LimitTooLow: 1}  # HAProxy's sentence and HAProxy's code
    assert all(cls.exit_code not in (0, 1, 2) and cls.exit_code < 126 for cls in own if cls not in theirs)
    assert all(cls.exit_code == code for cls, code in theirs.items())
    assert {cls.who for cls in own} == {"operator", "peer", "aws", "internal"}
