"""Carrying a plan out so that an interruption after any step is finished or undone by the next run.

Theory. Everything that can fail is done first and touches nothing: candidates are proved, then written beside their
targets under a name of their own, then the old files are copied to a backup. A journal on disk says how far it is:

    staged   candidates may lie beside the targets; no target was touched      -> the next run removes them (undone)
    placing  backups are complete; targets are being replaced, one rename each -> the next run places the rest (finished)
    placed   every target is new; daemons have not all been told               -> the next run tells them (finished)

The journal is written before the step it announces and removed at the end. A target that is neither the old nor the new
content was changed by somebody meanwhile: then nothing more is replaced, and the person is told.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haptk.apply.plan import MODE, Plan, digest
from haptk.errors import CannotWrite, OperatorError, PeerError
from haptk.io import clock
from haptk.io.files import Lock, private_dir, write_atomic

STAGED, PLACING, PLACED = "staged", "placing", "placed"
SUFFIX = ".haptk-new"
KEPT_BACKUPS = 10
RELOAD_S = 90.0
Step = Callable[[str], None]


def _nothing(_: str) -> None:
    return


@dataclass(frozen=True)
class Item:
    """One target: digests recognise the old content ("" for none) and the new."""

    path: str
    mode: int
    old: str
    new: str

    @property
    def target(self) -> Path:
        return Path(self.path)

    @property
    def candidate(self) -> Path:
        return self.target.with_name(f".{self.target.name}{SUFFIX}")


@dataclass
class Journal:
    """How far a change is; `directories` were made for it, deepest last."""

    phase: str
    stamp: str
    items: list[Item]
    reloads: list[list[str]]
    directories: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        """The journal as it is kept on disk."""
        body: dict[str, Any] = {**vars(self), "items": [vars(item) for item in self.items]}
        return json.dumps(body, indent=1).encode()

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """The journal that an interrupted run left, None without one."""
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        return cls(**{**body, "items": [Item(**item) for item in body["items"]]})


@dataclass
class Changer:
    """Carries plans out below one state directory. `reload` false: files only (another root, an image).

    `step` is called after every step with its name; tests interrupt there.
    """

    state: Path
    reload: bool = True
    step: Step = _nothing

    def __post_init__(self) -> None:
        private_dir(self.state)
        self.journal_path = self.state / "journal.json"
        self.lock = Lock(self.state / "lock", "haptk apply", "wait for it")

    def recover(self) -> str:
        """Finish or undo what an interrupted run left; the sentence for the log, "" when there was nothing."""
        journal = Journal.read(self.journal_path)
        if journal is None:
            return ""
        if journal.phase == STAGED:
            self._undo(journal)
            return f"an apply of {journal.stamp} was interrupted before it replaced anything: undone"
        self._finish(journal)
        return f"an apply of {journal.stamp} was interrupted: finished"

    def carry_out(self, plan: Plan) -> list[Path]:
        """Make the plan's changes; the paths that changed. The caller holds the lock and has proved the plan."""
        changes = plan.changes
        if not changes:
            return []
        items = [
            Item(str(one.path), one.artefact.mode, digest(one.old) if one.old is not None else "", digest(one.new))
            for one in changes
        ]
        stamp = clock.wall_text().replace(":", "").replace(".", "-")
        reloads = [list(argv) for argv in plan.reloads()] if self.reload else []
        journal = Journal(STAGED, stamp, items, reloads, _missing_directories(items))
        self._write(journal)
        for directory in journal.directories:
            _make_directory(Path(directory))
            self.step(f"directory {directory}")
        for item, one in zip(items, changes, strict=True):
            write_atomic(item.candidate, one.new, item.mode)
            if os.geteuid() == 0:
                os.chown(item.candidate, 0, 0)
            self.step(f"staged {item.path}")
        for item, one in zip(items, changes, strict=True):
            if one.old is not None and one.kind != MODE:
                self._back_up(journal, item, one.old)
        journal.phase = PLACING
        self._write(journal)
        self._finish(journal)
        return [item.target for item in items]

    def _write(self, journal: Journal) -> None:
        write_atomic(self.journal_path, journal.to_json(), 0o600)
        self.step(f"journal {journal.phase}")

    def _back_up(self, journal: Journal, item: Item, old: bytes) -> None:
        place = self.state / "backups" / journal.stamp / item.path.lstrip("/")
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(place, old, 0o600)
        self.step(f"backed up {item.path}")

    def _finish(self, journal: Journal) -> None:
        if journal.phase == PLACING:
            for item in journal.items:
                self._place(item)
            journal.phase = PLACED
            self._write(journal)
        while journal.reloads and self.reload:
            _tell(journal.reloads[0])
            # Told twice is harmless, not told is not: the journal forgets a command after it has run.
            journal.reloads.pop(0)
            self._write(journal)
        self.journal_path.unlink()
        self.step("journal removed")
        self._prune()

    def _place(self, item: Item) -> None:
        found = _digest_of(item.target)
        if item.candidate.exists():
            if found not in (item.old, item.new):
                why = f"{item.path} was changed by somebody else while it was being replaced"
                advice = f"settle it, then remove {self.journal_path} and {item.candidate}, and run haptk apply again"
                raise OperatorError(what=f"{why}: {advice}")
            os.replace(item.candidate, item.target)  # noqa: PTH105 (Path.replace hides that this is the atomic step)
            _sync(item.target.parent)
            self.step(f"placed {item.path}")
        elif found != item.new:
            why = "its candidate is gone and its content is not the new one"
            raise CannotWrite(path=item.path, why=f"{why}; remove {self.journal_path} and run haptk apply again")

    def _undo(self, journal: Journal) -> None:
        for item in journal.items:
            item.candidate.unlink(missing_ok=True)
            # What an atomic write was interrupted in.
            for torn in item.target.parent.glob(f".{item.candidate.name}.*"):
                torn.unlink(missing_ok=True)
            self.step(f"unstaged {item.path}")
        for directory in reversed(journal.directories):
            try:
                Path(directory).rmdir()
            except OSError:
                continue  # somebody uses it by now, or it was never made
        self.journal_path.unlink()
        self.step("journal removed")

    def _prune(self) -> None:
        backups = sorted((self.state / "backups").glob("*"))
        for old in backups[:-KEPT_BACKUPS]:
            shutil.rmtree(old, ignore_errors=True)


def _missing_directories(items: list[Item]) -> list[str]:
    missing: set[Path] = set()
    for item in items:
        for parent in item.target.parents:
            if parent.exists():
                break
            missing.add(parent)
    return [str(path) for path in sorted(missing)]


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror) from error


def _digest_of(path: Path) -> str:
    try:
        return digest(path.read_bytes())
    except FileNotFoundError:
        return ""


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tell(argv: list[str]) -> None:
    """Run a reload command; PeerError when it fails: the files are in place, the next apply tells the daemon again."""
    advice = "the files are in place; put it right and run haptk apply again"
    try:
        done = subprocess.run(
            argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RELOAD_S
        )
    except FileNotFoundError as error:
        raise PeerError(peer=argv[0], why=f"is not installed, {' '.join(argv)} was not run; {advice}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerError(peer=" ".join(argv), why=f"did not end within {RELOAD_S:g} s; {advice}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise PeerError(peer=" ".join(argv), why=f"{words[-1] if words else done.returncode}; {advice}")
