"""`config`: the configuration files of a node, each read by the program that uses it, side by side.

A file that became wrong since the daemon read it shows at the next restart, which is when nobody has time for it.
"""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from haptk.checks import execute
from haptk.checks.base import Check, Finding, Limits, conclude
from haptk.errors import ConfigError, HaptkError
from haptk.report.nagios import State

FIGURES = ("time",)
OWN = (sys.executable, "-m", "haptk")


class Kind(NamedTuple):
    """A kind of file: where it is by default, what it is called, and the program (with FILE) that reads it."""

    path: str
    names: tuple[str, ...]
    argv: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "haproxy": Kind("/etc/haproxy/haproxy.cfg", ("haproxy.cfg",), ("haproxy", "-c", "-q", "-f", "FILE")),
    "proxy": Kind("/etc/haptk/haproxy.cfg", (), (*OWN, "proxy", "-c", "-f", "FILE")),
    "keepalived": Kind(
        "/etc/keepalived/keepalived.conf", ("keepalived.conf",), ("keepalived", "-t", "-l", "-f", "FILE")
    ),
    "checks": Kind("/etc/haptk/checks.toml", ("checks.toml",), (*OWN, "check", "all", "--list", "--file", "FILE")),
    "cluster": Kind("/etc/haptk/cluster.toml", ("cluster.toml",), ()),
    "ha.cf": Kind("/etc/ha.d/ha.cf", ("ha.cf",), ()),
    "haresources": Kind("/etc/ha.d/haresources", ("haresources",), ()),
    "authkeys": Kind("/etc/ha.d/authkeys", ("authkeys",), ()),
}


def kind_of(text: str) -> tuple[str, str]:
    """`KIND=FILE`, or a file whose name says its kind; ValueError lists the kinds."""
    kind, equals, path = text.partition("=")
    if equals and kind in KINDS:
        return kind, path
    for name, known in KINDS.items():
        if Path(text).name in known.names:
            return name, text
    raise ValueError(f"cannot tell what {text!r} is: write KIND=FILE, KIND one of {', '.join(KINDS)}")


def present() -> list[tuple[str, str]]:
    """The files of this node that are at their usual places."""
    return [(name, kind.path) for name, kind in KINDS.items() if Path(kind.path).exists()]


def config(kind: str, path: str, timeout_s: float, limits: Limits) -> Check:
    """A check of one file."""

    def look(timeout_s: float) -> Finding:
        if not Path(path).is_file():
            return Finding(State.CRITICAL, f"{path} is not there")
        if not KINDS[kind].argv:
            return of_own(kind, Path(path))
        argv = tuple(path if word == "FILE" else word for word in KINDS[kind].argv)
        if shutil.which(argv[0]) is None:
            return Finding(State.UNKNOWN, f"{path} was not read: {argv[0]} is not installed")
        ended = execute.run(argv, timeout_s)
        perf = [limits.time(ended.duration_s, timeout_s)]
        lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
        if ended.code is None:
            return conclude(State.CRITICAL, f"{path} was not read within {timeout_s:.3g} s", perf)
        if ended.code != 0:
            said = next((line for line in lines if path in line), lines[0] if lines else f"exit code {ended.code}")
            return conclude(State.CRITICAL, f"{path} is refused by {_reader(kind)}: {said}", perf, lines)
        return conclude(State.OK, f"{path} is accepted by {_reader(kind)}", perf, lines)

    return Check("CONFIG", f"{kind}={path}", timeout_s, look)


def _reader(kind: str) -> str:
    return {"proxy": "haptk proxy", "checks": "haptk check"}.get(kind, kind)


def of_own(kind: str, path: Path) -> Finding:
    """A file that haptk reads by itself; warnings of cluster.toml are a WARNING."""
    readers = {"authkeys": _authkeys, "ha.cf": _ha_cf, "haresources": _haresources, "cluster": _cluster}
    try:
        warnings = readers[kind](path.read_text(encoding="utf-8"), path)
    except HaptkError as error:
        first, *more = str(error).splitlines()
        return Finding(State.CRITICAL, first, more=tuple(more))
    except UnicodeDecodeError:
        return Finding(State.CRITICAL, f"{path} is no text")
    except OSError as error:
        return Finding(State.UNKNOWN, f"cannot read {path}: {(error.strerror or str(error)).lower()}")
    if warnings:
        return Finding(State.WARNING, f"{path} is accepted, but {warnings[0]}", more=tuple(warnings))
    return Finding(State.OK, f"{path} is accepted")


def _authkeys(text: str, path: Path) -> list[str]:
    """Heartbeat refuses keys that others may read, and so do we; the text of a key is never shown."""
    from haptk.formats import authkeys

    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        why = f"it has mode {mode:04o}: only its owner may read it (chmod 600)"
        raise ConfigError(file=path, line=1, why=why)
    authkeys.parse(text, str(path))
    return []


def _ha_cf(text: str, path: Path) -> list[str]:
    from haptk.formats import ha_cf

    ha_cf.parse(text, str(path))
    return []


def _haresources(text: str, path: Path) -> list[str]:
    """Its nodes are those of the ha.cf beside it."""
    from haptk.formats import ha_cf, haresources

    beside = path.with_name("ha.cf")
    nodes = ha_cf.parse(beside.read_text(encoding="utf-8"), str(beside)).nodes
    haresources.parse(text, str(path), nodes)
    return []


def _cluster(text: str, path: Path) -> list[str]:
    from haptk.cluster.load import load

    return [str(problem) for problem in load(text, str(path)).warnings]
