"""Talking to a lab from a command: start its supervisor, ask it, stop it and leave nothing behind."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haptk.errors import HaptkError, NotRunning, PeerError
from haptk.io import clock, control, files
from haptk.io.process import die_with_parent
from haptk.lab import token
from haptk.lab.balancer import python
from haptk.lab.layout import MARK, TIMINGS, Layout, lab_dir
from haptk.lab.processes import marked_pids, sweep
from haptk.lab.supervisor import Options

POLL_S = 0.1
STOP_PATIENCE_S = 8.0
UP_LIMIT_S = 60.0


class Lab:
    """A lab as its commands see it: a directory with a control socket."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or lab_dir()
        self.supervisor: subprocess.Popen[bytes] | None = None

    def call(self, op: str, *, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any]:
        """Ask the supervisor; NotRunning says how to start one."""
        path = self.root / "control.sock"
        if not path.exists():
            raise NotRunning(what="a lab", advice="start one with `haptk lab up`")
        return control.call(path, {"op": op, **fields}, timeout_s=timeout_s, what="the lab's supervisor")

    def status(self) -> dict[str, Any]:
        return self.call("status")

    def running(self) -> bool:
        try:
            self.status()
        except HaptkError:
            return False
        return True

    def start(self, options: Options, *, detach: bool, progress: Callable[[str], None]) -> None:
        """Start a supervisor and wait until its region is ready.

        Raises AlreadyRunning when this user has a lab. What a killed lab left behind is swept first. Without
        `detach` the lab dies with this process, however this process ends.
        """
        self._clear_leftovers()
        argv = python("haptk.lab.supervisor", str(self.root), "--lb", options.lb, "--timing", options.timing)
        with (self.root / "supervisor.log").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [*argv, "--net", options.net, "--design", options.design],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: str(self.root)},
                start_new_session=True,
                preexec_fn=None if detach else die_with_parent,  # noqa: PLW1509 (no threads run here)
            )
        self._wait_until_ready(options, progress)

    def _clear_leftovers(self) -> None:
        files.private_dir(self.root)
        lock = files.Lock(self.root / "lock", "a lab", "see `haptk lab status`, end it with `haptk lab down`")
        lock.acquire()
        sweep(self.root)
        for path in self.root.iterdir():
            if path.name == "lock":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        lock.release()

    def _wait_until_ready(self, options: Options, progress: Callable[[str], None]) -> None:
        deadline = clock.monotonic() + UP_LIMIT_S + TIMINGS[options.timing].initdead_s
        said = ""
        while clock.monotonic() < deadline:
            if self.supervisor is not None and self.supervisor.poll() is not None:
                raise PeerError(peer="the lab's supervisor", why=f"it ended while coming up: {self._last_words()}")
            try:
                status = self.status()
            except HaptkError:
                clock.sleep(POLL_S)
                continue
            if status["failure"]:
                raise PeerError(peer="the lab", why=status["failure"])
            if status["phase"] != said:
                said = status["phase"]
                progress(said)
            if said == "ready":
                return
            clock.sleep(POLL_S)
        raise PeerError(peer="the lab", why=f"not ready in time; it is in phase '{said}', logs in {self.root}")

    def _last_words(self) -> str:
        try:
            lines = (self.root / "supervisor.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "it logged nothing"

    def stop(self) -> dict[str, Any]:
        """End the lab whatever state it is in; returns what had to be killed by force. Idempotent."""
        asked = True
        try:
            self.call("stop", timeout_s=2.0)
        except HaptkError:
            asked = False
        deadline = clock.monotonic() + (STOP_PATIENCE_S if asked else 0.0)
        while clock.monotonic() < deadline and self._anything_left():
            clock.sleep(0.05)
        forced = sweep(self.root)
        if self.supervisor is not None:
            self.supervisor.wait()
        existed = self.root.exists()
        if existed:
            shutil.rmtree(self.root, ignore_errors=True)
        return {"stopped": asked or forced > 0 or existed, "killed_by_force": forced}

    def _anything_left(self) -> bool:
        if self.supervisor is not None:
            self.supervisor.poll()  # reap it, or its zombie would never go
        return bool(marked_pids(self.root))


def environment(status: dict[str, Any]) -> dict[str, str]:
    """The variables with which any AWS tool talks to a running lab."""
    return {
        "AWS_ENDPOINT_URL": status["endpoint"],
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": token.access_key_id("operator", token.read(Path(status["directory"]) / token.NAME)),
        "AWS_SECRET_ACCESS_KEY": "lab",
    }


def exports(status: dict[str, Any]) -> list[str]:
    """The same as lines for a shell, which read the token from its file: no secret is shown."""
    place = shlex.quote(str(Path(status["directory"]) / token.NAME))
    known = {**environment(status), "AWS_ACCESS_KEY_ID": token.access_key_id("operator", "")}
    lines = {name: shlex.quote(value) for name, value in known.items()}
    lines["AWS_ACCESS_KEY_ID"] += f'"$(cat {place})"'
    return [f"export {name}={value}" for name, value in lines.items()]


def layout_of(status: dict[str, Any]) -> Layout:
    return Layout(status["net"])
