"""Resources that are programs: Heartbeat v1 and LSB scripts, OCF agents, systemd units.

A Heartbeat v1 script is judged by the words its `status` prints on stdout; its exit code and stderr say nothing. The
environment is made here from nothing but what is listed: no field of any message ever gets into it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from haptk.core.heartbeat.model import Outcome, Seen
from haptk.errors import ConfigError, HaptkError
from haptk.io import clock
from haptk.io.files import refuse_writable_by_others

RESOURCE_DIRS = (Path("/etc/ha.d/resource.d"), Path("/etc/init.d"))
OCF_ROOT = Path("/usr/lib/ocf")
SAFE_PATH = "/usr/share/heartbeat:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("LANG", "LC_ALL", "TZ")
MAX_OUTPUT_BYTES = 65536
STOP_TRIES = 10
"""heartbeat's ResourceManager tries a stop ten times, a second apart."""

_RUNNING = re.compile(r"[Rr]unning|OK")
_NOT_RUNNING = re.compile(r"[Nn][Oo][Tt] *[Rr]unning")


def is_running(words: str) -> bool:
    """Heartbeat's rule for the output of `status` (ResourceManager, we_own_resource)."""
    return bool(_RUNNING.search(words)) and not _NOT_RUNNING.search(words)


@dataclass(frozen=True)
class Ran:
    """How a program ended: `code` None when it was killed for its time."""

    code: int | None
    out: str
    err: str

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


def run(argv: Sequence[str], env: Mapping[str, str], limit_s: float) -> Ran:
    """Run a program in a session of its own; after `limit_s` its whole process group is killed.

    Its output goes to files, not pipes: a service that a start leaves behind may keep them open for ever, and must
    neither be waited for nor be hit by SIGPIPE.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            refuse_writable_by_others(Path(argv[0]))
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=dict(env), cwd="/", start_new_session=True
            )
        except HaptkError as error:
            return Ran(126, "", str(error))
        except OSError as error:
            return Ran(127, "", f"{argv[0]}: {error.strerror}")
        code: int | None
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            code = None
        return Ran(code, _written(out), _written(err))


def _written(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


@dataclass(frozen=True)
class ScriptResource:
    """A program with start, stop and status; `judge` turns the end of its status into one of the three states."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    judge: Callable[[Ran], Seen]
    status_word: str = "status"
    action_first: bool = False
    exclusive = False

    def _run(self, action: str, limit_s: float) -> Ran:
        argv = [self.argv[0], action, *self.argv[1:]] if self.action_first else [*self.argv, action]
        return run(argv, self.env, limit_s)

    def status(self, limit_s: float) -> Outcome:
        ran = self._run(self.status_word, limit_s)
        if ran.code is None:
            return Outcome(Seen.UNKNOWN, f"{self.name} {self.status_word} did not end within {limit_s:.0f} s")
        return Outcome(self.judge(ran), ran.last_words)

    def start(self, limit_s: float) -> Outcome:
        """Start it unless its status says that it runs already."""
        if self.status(limit_s).seen is Seen.OURS:
            return Outcome(Seen.DONE, f"{self.name} runs already")
        return self._change("start", limit_s)

    def _change(self, action: str, limit_s: float) -> Outcome:
        ran = self._run(action, limit_s)
        if ran.code == 0:
            return Outcome(Seen.DONE)
        how = f"did not end within {limit_s:.0f} s" if ran.code is None else f"ended with {ran.code}"
        words = f": {ran.last_words}" if ran.last_words else ""
        return Outcome(Seen.FAILED, f"{self.name} {action} {how}{words}")

    def stop(self, limit_s: float) -> Outcome:
        """Stop it, with heartbeat's ten tries; what does not run afterwards counts as stopped."""
        outcome = self._change("stop", limit_s)
        for _ in range(STOP_TRIES - 1):
            if outcome.seen is Seen.DONE or self.status(limit_s).seen is Seen.NOT_OURS:
                return Outcome(Seen.DONE, outcome.why)
            clock.sleep(1.0)
            outcome = self._change("stop", limit_s)
        return outcome

    def release(self, limit_s: float) -> Outcome:
        return self.stop(limit_s)

    def warm(self) -> str:
        return ""


def judge_words(ran: Ran) -> Seen:
    """Heartbeat v1: only stdout counts."""
    return Seen.OURS if is_running(ran.out) else Seen.NOT_OURS


def judge_lsb(ran: Ran) -> Seen:
    """LSB and systemctl is-active: 0 runs, 3 (or 1, 2: dead with a trace) does not, anything else cannot be told."""
    return {0: Seen.OURS, 1: Seen.NOT_OURS, 2: Seen.NOT_OURS, 3: Seen.NOT_OURS}.get(ran.code or 0, Seen.UNKNOWN)


def judge_ocf(ran: Ran) -> Seen:
    """OCF monitor: 0, 8 and 190 (degraded) run, 7 does not, anything else cannot be told."""
    return {0: Seen.OURS, 8: Seen.OURS, 190: Seen.OURS, 7: Seen.NOT_OURS}.get(ran.code or 0, Seen.UNKNOWN)


def base_env(node: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of every script: fixed words and our own configuration, nothing that came from the network."""
    env = {"PATH": SAFE_PATH, "HOME": "/", "HA_CURHOST": node, "HA_RESOURCEDIR": "/etc/ha.d/resource.d"}
    env |= {"HA_DIR": "/etc/ha.d", "HA_RCDIR": "/etc/ha.d/rc.d", "HA_FUNCS": "/etc/ha.d/shellfuncs"}
    env |= {"HA_BIN": "/usr/share/heartbeat", "OCF_ROOT": str(OCF_ROOT), "HA_NICEFAILBACK": "yes"}
    env |= {f"HA_{name}": value for name, value in settings.items()}
    return env | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def find(text: str, *, file: str, line: int, resource_dirs: tuple[Path, ...], env: Mapping[str, str]) -> ScriptResource:
    """The script resource that a word of haresources names; ConfigError says where was looked."""
    name, *arguments = text.split("::")
    try:
        ipaddress.IPv4Address(name.split("/")[0])
        name, arguments = "IPaddr", [name, *arguments]
    except ValueError:
        pass
    if name == "systemd":
        return _systemd(text, arguments, file, line, env)
    if name == "ocf" or name.startswith("ocf:"):
        return _ocf(text, name, arguments, file, line, env)
    if "/" in name or name in ("", ".", ".."):
        raise ConfigError(file=file, line=line, why=f"{name!r} is not the name of a resource script")
    for directory in resource_dirs:
        path = directory / name
        if path.is_file() and os.access(path, os.X_OK):
            lsb = directory == Path("/etc/init.d") and not arguments
            return ScriptResource(text, (str(path), *arguments), env, _judge_either if lsb else judge_words)
    where = ", ".join(str(directory) for directory in resource_dirs)
    raise ConfigError(file=file, line=line, why=f"resource script {name} is not in {where} (or not executable)")


def _judge_either(ran: Ran) -> Seen:
    """An init script in haresources: its words where they say "running", as heartbeat takes them, else its code."""
    return Seen.OURS if is_running(ran.out) else judge_lsb(ran) if ran.code in (3, 4) else judge_words(ran)


def _systemd(text: str, arguments: list[str], file: str, line: int, env: Mapping[str, str]) -> ScriptResource:
    if len(arguments) != 1 or not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", arguments[0]) or arguments[0].startswith("-"):
        raise ConfigError(file=file, line=line, why=f"{text}: systemd::UNIT takes one unit name")
    return ScriptResource(text, ("/usr/bin/systemctl", arguments[0]), env, judge_lsb, "is-active", action_first=True)


def _ocf(text: str, name: str, arguments: list[str], file: str, line: int, env: Mapping[str, str]) -> ScriptResource:
    """`ocf:PROVIDER:TYPE::name=value::...`, and heartbeat's own spelling `OCF` through resource.d stays a script."""
    words = name.split(":")
    if len(words) != 3 or not all(re.fullmatch(r"[A-Za-z0-9_.-]+", word) for word in words):
        raise ConfigError(file=file, line=line, why=f"{text}: an OCF resource is ocf:PROVIDER:TYPE::name=value::...")
    path = OCF_ROOT / "resource.d" / words[1] / words[2]
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise ConfigError(file=file, line=line, why=f"{text}: there is no OCF agent {path}")
    parameters = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise ConfigError(file=file, line=line, why=f"{text}: {argument!r} is not name=value")
        parameters[f"OCF_RESKEY_{key}"] = value
    instance = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    whole = {**env, **parameters, "OCF_RESOURCE_INSTANCE": instance, "OCF_RA_VERSION_MAJOR": "1"}
    return ScriptResource(text, (str(path),), whole, judge_ocf, "monitor")
