"""Puts the contract files in place and takes exactly them away again: a plan first, a manifest always.

The manifest (one JSON file below PREFIX/var/lib/haptk) lists what was put where, with its digest, and which directories
were made for it. `uninstall` removes a file only while it is what was put there: one that somebody has changed since is
left and named. An existing file of somebody else's is never overwritten without `force`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from haptk.eip import quick
from haptk.eip.contracts import files
from haptk.errors import CannotWrite, OperatorError
from haptk.io.files import write_atomic

PLACES: dict[str, tuple[str, Callable[[files.Program], str]]] = {
    "ocf": ("usr/lib/ocf/resource.d/haptk/eip", files.ocf),
    "heartbeat": ("etc/ha.d/resource.d/haptk-eip", files.heartbeat),
    "lsb": ("etc/init.d/haptk-eip", files.lsb),
    "keepalived": ("usr/libexec/haptk/haptk-eip-keepalived", files.keepalived),
}
MANIFEST = "var/lib/haptk/eip-install.json"


@dataclass(frozen=True)
class Change:
    """One line of a plan: `what` is create, replace, keep, remove or leave; `why` says why something stays."""

    what: str
    path: Path
    contract: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what:<8}{self.path}{f'  ({self.why})' if self.why else ''}"


def program() -> files.Program:
    """The haptk that is running now."""
    return files.Program(sys.executable, str(Path(quick.__file__).resolve()), sysconfig.get_path("purelib"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Manifest:
    """What was put where: contract -> path (below the prefix) and sha256; and the directories that were made, in order."""

    files: dict[str, dict[str, str]]
    directories: list[str]


class Installer:
    """The contract files below `prefix` (`/` on a real system)."""

    def __init__(self, prefix: Path, chosen: files.Program | None = None) -> None:
        self._prefix = prefix
        self._program = chosen or program()
        self._manifest_path = prefix / MANIFEST
        self._manifest = self._load()

    def _load(self) -> Manifest:
        try:
            found = json.loads(self._manifest_path.read_text())
            return Manifest(dict(found["files"]), list(found["directories"]))
        except FileNotFoundError:
            return Manifest({}, [])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorError(what=f"{self._manifest_path} cannot be read: {error}") from error

    def _save(self) -> None:
        self._make(self._manifest_path.parent)
        write_atomic(self._manifest_path, json.dumps(vars(self._manifest), indent=2).encode() + b"\n")

    def path(self, contract: str) -> Path:
        """Where the file of this contract belongs."""
        return self._prefix / PLACES[contract][0]

    def plan(self, contracts: list[str], *, force: bool = False) -> list[Change]:
        """What `install` would do; raises OperatorError for a file that is not ours."""
        return [self._change(contract, force) for contract in contracts]

    def _change(self, contract: str, force: bool) -> Change:
        path, wanted = self.path(contract), self._text(contract)
        if not path.exists() and not path.is_symlink():
            return Change("create", path, contract)
        if path.is_symlink() or not path.is_file():
            raise OperatorError(what=f"{path} is there and is not a regular file; remove it first")
        found = path.read_bytes()
        if found == wanted and path.stat().st_mode & 0o777 == 0o755:
            return Change("keep", path, contract, "it is as it should be")
        ours = self._manifest.files.get(contract, {}).get("sha256") == _digest(found)
        if not ours and not force:
            raise OperatorError(what=f"{path} is not as haptk put it there; --force replaces it")
        return Change("replace", path, contract)

    def _text(self, contract: str) -> bytes:
        return PLACES[contract][1](self._program).encode()

    def install(self, contracts: list[str], *, force: bool = False) -> list[Change]:
        """Carry the plan out, and remember what was put where. Raises CannotWrite."""
        changes = self.plan(contracts, force=force)
        for change in changes:
            text = self._text(change.contract)
            if change.what != "keep":
                self._make(change.path.parent)
                write_atomic(change.path, text, 0o755)
            self._manifest.files[change.contract] = {"path": PLACES[change.contract][0], "sha256": _digest(text)}
        self._save()
        return changes

    def _make(self, directory: Path) -> None:
        missing = []
        while not directory.exists():
            missing.append(directory)
            directory = directory.parent
        for one in reversed(missing):
            try:
                one.mkdir(mode=0o755)
            except OSError as error:
                raise CannotWrite(path=one, why=error.strerror) from error
            self._manifest.directories.append(str(one.relative_to(self._prefix)) if one != self._prefix else ".")

    def plan_removal(self, contracts: list[str]) -> list[Change]:
        """What `uninstall` would do."""
        return [self._removal(contract) for contract in contracts if contract in self._manifest.files]

    def _removal(self, contract: str) -> Change:
        kept = self._manifest.files[contract]
        path = self._prefix / kept["path"]
        if not path.exists():
            return Change("keep", path, contract, "it is gone already")
        if path.is_symlink() or _digest(path.read_bytes()) != kept["sha256"]:
            return Change("leave", path, contract, "it was changed after haptk put it there")
        return Change("remove", path, contract)

    def uninstall(self, contracts: list[str]) -> list[Change]:
        """Remove what was put there, and, with the last of it, the directories that were made and are empty."""
        changes = self.plan_removal(contracts)
        for change in changes:
            if change.what != "leave":
                del self._manifest.files[change.contract]
                change.path.unlink(missing_ok=True)
        if self._manifest.files:
            self._save()
        else:
            self._manifest_path.unlink(missing_ok=True)
        self._tidy()
        return changes

    def _tidy(self) -> None:
        for name in reversed(self._manifest.directories):
            directory = self._prefix / name
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()
