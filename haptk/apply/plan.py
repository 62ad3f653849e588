"""What would change on this machine, as data: one Change for each file, and what about it deserves a second question.

Level-triggered: the plan is made by looking, never from a memory of what was written. A change is surprising when it
takes away more than a third of what a file lists (servers, addresses), or replaces a file that haptk did not write.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haptk.errors import NotPermitted, OperatorError
from haptk.render.artefact import Artefact

CREATE, REPLACE, MODE, SAME = "create", "replace", "mode", "same"
MARK = "Written by haptk"
UNITS = "/etc/systemd/system"
# Files of `haptk eip install` say who wrote them in their own words.
MARKS = (MARK, "haptk eip install")
# What a file lists, by the pattern of its lines: losing more than a third of it is a surprise.
LISTED = {
    "server": re.compile(r"^\s*server\s+(\S+)", re.M),
    "VRRP instance": re.compile(r"^\s*vrrp_instance\s+(\S+)", re.M),
    "resource": re.compile(r"^[a-z0-9.-]+\s+(\S*eip::\S+)", re.M),
}


def digest(data: bytes) -> str:
    """SHA-256 in hex, by which a file is recognised again."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Change:
    """What happens to one file. `old` is None when there is none."""

    kind: str
    artefact: Artefact
    path: Path
    old: bytes | None = None
    old_mode: int = 0
    surprises: tuple[str, ...] = ()

    @property
    def new(self) -> bytes:
        """The content that is to be there."""
        if self.artefact.keep and self.old is not None:
            return self.old
        return self.artefact.text.encode()

    def diff(self) -> str:
        """A unified diff; of a secret only that it changes."""
        if self.kind == MODE:
            return f"{self.path}: mode {self.old_mode:04o} -> {self.artefact.mode:04o}\n"
        if self.artefact.secret:
            return f"{self.path}: a fresh key would be made (not shown)\n"
        old = (self.old or b"").decode("utf-8", "replace").splitlines(keepends=True)
        new = self.artefact.text.splitlines(keepends=True)
        before = str(self.path) if self.old is not None else "/dev/null"
        lines = difflib.unified_diff(old, new, before, str(self.path))
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"kind": self.kind, "path": str(self.path), "surprises": list(self.surprises), "diff": self.diff()}


@dataclass(frozen=True)
class Plan:
    """Every file, in the order in which it is written; `root` is where `/` is."""

    root: Path
    files: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is not as it should be."""
        return tuple(one for one in self.files if one.kind != SAME)

    @property
    def surprises(self) -> tuple[str, ...]:
        """Every sentence that asks for --force."""
        return tuple(f"{one.path}: {why}" for one in self.changes for why in one.surprises)

    def reloads(self) -> tuple[tuple[str, ...], ...]:
        """The commands that make the changes live, each once: systemd reads its units and enables new ones, then the
        daemons are told in the order of the files."""
        units = [one.artefact.path for one in self.changes if one.artefact.path.startswith(f"{UNITS}/")]
        found: list[tuple[str, ...]] = [("systemctl", "daemon-reload")] if units else []
        for path in units:
            name = path.removeprefix(f"{UNITS}/")
            if "/" not in name:  # a unit of ours; a drop-in belongs to a unit that its package has enabled
                found.append(("systemctl", "enable", name))
        found += [one.artefact.reload for one in self.changes if one.artefact.reload]
        return tuple(dict.fromkeys(found))


def make(artefacts: Iterable[Artefact], root: Path = Path("/")) -> Plan:
    """Compare the artefacts with what is below `root`. Raises NotPermitted or OperatorError for what cannot be read."""
    return Plan(root, tuple(_compare(one, root / one.path.lstrip("/")) for one in artefacts))


def _compare(one: Artefact, path: Path) -> Change:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Change(CREATE, one, path)
    except OSError as error:
        raise NotPermitted(what=f"look at {path}", why=error.strerror or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise OperatorError(what=f"{path} is not a plain file: haptk does not replace links, directories and devices")
    try:
        old = path.read_bytes()
    except OSError as error:
        raise NotPermitted(what=f"read {path}", why=error.strerror or str(error)) from error
    mode = stat.S_IMODE(found.st_mode)
    if one.keep or old == one.text.encode():
        kind = SAME if mode == one.mode and _owned(found) else MODE
        return Change(kind, one, path, old, mode)
    return Change(REPLACE, one, path, old, mode, tuple(_surprises(one, old)))


def _owned(found: os.stat_result) -> bool:
    """Whether the file is root's, as every artefact is; only root can say so about others' files."""
    return os.geteuid() != 0 or (found.st_uid == 0 and found.st_gid == 0)


def _surprises(one: Artefact, old: bytes) -> Iterable[str]:
    text = old.decode("utf-8", "replace")
    if not any(mark in text for mark in MARKS):
        yield "haptk did not write the file that is there"
    for what, pattern in LISTED.items():
        before, after = set(pattern.findall(text)), set(pattern.findall(one.text))
        gone = sorted(before - after)
        if len(gone) * 3 > len(before):
            yield f"{len(gone)} of {len(before)} {what}s would go: {', '.join(gone)}"
