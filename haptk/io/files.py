"""Files as a daemon needs them: written whole or not at all, private when they hold a secret, locked when one owner is allowed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from haptk.errors import AlreadyRunning, CannotWrite, NotPermitted


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` with `data` so that a reader or a power cut sees the old or the new content, never a part.

    Writes a temporary file in the same directory with `mode` from its creation on, syncs it, renames it, syncs the
    directory. Raises CannotWrite with the reason of the system.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)  # noqa: PTH105 (Path.replace hides that this is the atomic step)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror) from error


def private_dir(path: Path) -> Path:
    """Make `path` (and parents) a directory of mode 0700 that belongs to us; refuse one that belongs to another user."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NotPermitted(what=f"use {path}", why="it is not a directory of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def refuse_writable_by_others(path: Path) -> None:
    """Raise NotPermitted when root is about to run a script that somebody else could have changed."""
    if os.geteuid() != 0:
        return
    found = path.stat()
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise NotPermitted(what=f"run {path} as root", why="it is writable by others; chown root, chmod go-w")


class Lock:
    """An advisory lock on a file that holds the owner's pid; the kernel drops it when the owner dies.

    `acquire` raises AlreadyRunning with the pid found in the file.
    """

    def __init__(self, path: Path, what: str, advice: str) -> None:
        self.path = path
        self.what = what
        self.advice = advice
        self._fd: int | None = None

    def acquire(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise CannotWrite(path=self.path, why=why) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(what=self.what, pid=owner, advice=self.advice) from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise CannotWrite(path=self.path, why=error.strerror) from error
        self._fd = descriptor

    def release(self) -> None:
        """Drop the lock; the file stays, because removing it would race with the next owner."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
