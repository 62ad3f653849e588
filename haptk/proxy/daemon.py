"""The life of one `haptk proxy` process: start, signals, reload, graceful stop. Everything that serves is in an Engine.

Signals only set a flag through the wake-up descriptor; the main thread acts on them:

    SIGTERM, SIGINT   finish the open connections, then leave; a second one leaves at once
    SIGUSR1           the same as the first SIGTERM (HAProxy's soft stop, sent by `-sf`)
    SIGHUP, SIGUSR2   read the files again; a bad file keeps the old configuration
    SIGTTOU, SIGTTIN  stop listening on every frontend, and listen again (what a starting HAProxy sends for its addresses)
    SIGQUIT           write the counters to the log
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from haptk.errors import CannotWrite, HaptkError, NotPermitted, PeerError
from haptk.io import clock, process, sdnotify
from haptk.io.files import write_atomic
from haptk.proxy import fdlimits, inherit, statefile
from haptk.proxy.engine import Engine
from haptk.proxy.listeners import Listeners
from haptk.proxy.loader import Loader
from haptk.proxy.peering import Peering, shared_tables
from haptk.proxy.runtime.shell import Runtime
from haptk.proxy.runtime.world import Began, World
from haptk.proxy.tables import ProxyTables

RELOAD_S = 30.0  # for a reload that the stats socket asked for
log = logging.getLogger("haptk.proxy")
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTTOU,
    signal.SIGTTIN,
)
# HAProxy outlives these two; their default would end us with the pid file and the sockets left behind
IGNORED = (signal.SIGALRM, signal.SIGPIPE)


@dataclass(frozen=True)
class Options:
    """What the command line says beyond the configuration files."""

    pidfile: Path | None = None
    background: bool = False
    finish_pids: tuple[int, ...] = ()
    terminate_pids: tuple[int, ...] = ()
    old_socket: str = ""  # stats socket of the process that gives its listening sockets
    old_socket_may_fail: bool = False  # then they are bound anew: under -W or -Ws, as in HAProxy


class Daemon:
    """Runs `tables` until a signal ends it. `reload` reads the files again and may raise a HaptkError.

    `loader` does what a reload needs where the privileges for it will be gone.
    """

    def __init__(
        self, tables: ProxyTables, options: Options, reload: Callable[[], ProxyTables], loader: Loader | None = None
    ) -> None:
        self.options = options
        self.loader = loader
        self.reload = reload
        tables = fdlimits.fit(tables)
        self.listeners = Listeners(_inherited(options))
        self.engine = Engine(tables, self.listeners)
        self.listeners.settle()
        if found := statefile.load(tables, self.engine.health):
            log.info("%d servers begin as their server-state file says", found)
        self.engine.look = self.world
        self.peerings: dict[str, Peering] = {}
        self._peer(tables, predecessor=bool(options.finish_pids))
        self.leaving: list[tuple[Engine, float | None]] = []  # with the moment at which its connections are cut
        self.stops = 0
        self.began = Began.now()
        self.runtime = Runtime(self.world, self.listeners.give_away)
        self.runtime.open(tables.process)
        self._hard_stop_at: float | None = None
        self._reloaded = threading.Condition()
        self._reloads = 0
        self._refusal = ""

    def _peer(self, tables: ProxyTables, *, predecessor: bool = False) -> list[Peering]:
        """Give each peers section of `tables` its connections; those that stay as they are go on. Returns the new ones."""
        wanted: dict[str, Peering] = {}
        fresh: list[Peering] = []
        for section in tables.peers:
            shared = shared_tables(section.name, tables, self.engine.stores)
            if not section.local or not shared:
                continue
            old = self.peerings.get(section.name)
            if old is not None and old.alive and (old.section.members, old.local, old.tables) == (
                section.members, section.local, shared,
            ):  # fmt: skip
                wanted[section.name] = old
                continue
            if old is not None:
                self.peerings.pop(section.name).stop()
            wanted[section.name] = Peering(section, section.local, shared, predecessor=predecessor, before=old)
            fresh.append(wanted[section.name])
        for name, old in self.peerings.items():
            if name not in wanted:
                old.stop()
        self.peerings = wanted
        return fresh

    def world(self) -> World:
        """What the runtime API sees now."""
        addresses = len(self.listeners.addresses()) + len(self.runtime.binds)
        return World(
            self.engine, self.began, stopping=bool(self.stops), sockets=self.runtime.binds, listeners=addresses,
            reload=self.reload_now, visitors=self.runtime.visitors, peerings=tuple(self.peerings.values()),
        )  # fmt: skip

    def reload_now(self) -> str:
        """Have the main thread read the files again and wait for it; what was wrong, or "". From any other thread."""
        with self._reloaded:
            before = self._reloads
            os.kill(os.getpid(), signal.SIGHUP)
            if not self._reloaded.wait_for(lambda: self._reloads > before, RELOAD_S):
                return f"no answer within {RELOAD_S:.0f} s"
            return self._refusal

    def run(self) -> int:
        """Serve; returns the exit code (0 after a stop that was asked for)."""
        raise_fd_limit()
        starter = detach() if self.options.background else None
        write_pidfile(self.options.pidfile or _path(self.engine.tables.process.pidfile))
        sdnotify.keep()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        with _signals() as wake:
            # all sockets are open; what runs from here on needs no rights, and may find no files
            self._give_up_privileges()
            if starter is not None:
                leave_terminal(null)  # before the workers copy the table of descriptors
            os.close(null)
            self.engine.start()
            self.runtime.start()
            for peering in self.peerings.values():
                peering.start()
            signal_old(self.options)
            if starter is not None:
                os.write(starter, b"\0")
                os.close(starter)
            where = ", ".join(self.listeners.addresses()) or "the stats sockets and to peers only"
            sdnotify.ready(f"serving on {where}")
            log.info("serving on %s", where)
            self._serve(wake)
        sdnotify.stopping("stopped")
        for peering in self.peerings.values():
            peering.hand_over()
            peering.stop()
        self.runtime.stop()
        self.listeners.close()
        return 0

    def _give_up_privileges(self) -> None:
        if self.loader is not None:
            from haptk.proxy.preload import preload

            preload()
            self.reload, self.listeners.opener = self.loader.load, self.loader.listen
            self.runtime.opener = self.loader.stats_socket
        drop_privileges(self.engine.tables)

    def _serve(self, wake: socket.socket) -> None:
        selector = selectors.DefaultSelector()
        selector.register(wake, selectors.EVENT_READ)
        watchdog_s = sdnotify.watchdog_interval_s()
        while True:
            if selector.select(0.05 if self.stops or self.leaving else watchdog_s):
                for number in wake.recv(64):
                    self._on_signal(number)
            if watchdog_s is not None:
                sdnotify.watchdog()
            self._see_off()
            if self.stops and self._ended():
                return

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGHUP, signal.SIGUSR2):
            refusal = "it is stopping" if self.stops else self._reload()
            with self._reloaded:
                self._reloads, self._refusal = self._reloads + 1, refusal
                self._reloaded.notify_all()
        elif number == signal.SIGQUIT:
            log.info("counters %s", json.dumps(self.engine.counters()))
        elif number in (signal.SIGTTOU, signal.SIGTTIN):
            self._pause(paused=number == signal.SIGTTOU)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            if number == signal.SIGUSR1 and self.stops:
                return
            self._stop()

    def _pause(self, *, paused: bool) -> None:
        """All frontends at once; one that was shut down stays so, and so does one that is in the wanted state."""
        adjust = self.engine.adjust
        for index, frontend in enumerate(self.engine.tables.frontends):
            if self.stops or frontend.disabled or index in adjust.stopped or (index in adjust.paused) == paused:
                continue
            try:
                adjust.pause(index, paused=paused)
            except OSError as error:
                log.warning("frontend %s cannot listen again: %s", frontend.name, error.strerror)
            else:
                log.warning("%s frontend %s", "paused" if paused else "resumed", frontend.name)

    def _stop(self) -> None:
        self.stops += 1
        if self.stops == 1:
            sdnotify.stopping("finishing the open connections")
            log.info("stopping: finishing the open connections")
            limit_s = self.engine.tables.process.hard_stop_after_s
            self._hard_stop_at = None if limit_s is None else clock.monotonic() + limit_s
            self.runtime.stop_listening()
            self.engine.stop()
            self.listeners.close()
            # now, not when the last connection has ended: the process that replaces us is waiting for the tables
            for peering in self.peerings.values():
                peering.hand_over()
        else:
            self._cut()

    def _cut(self) -> None:
        log.info("stopping now")
        for engine in [self.engine, *(engine for engine, _ in self.leaving)]:
            engine.stop(now=True)

    def _see_off(self) -> None:
        """Forget the engines of old configurations that have ended; cut those that are over hard-stop-after."""
        now = clock.monotonic()
        kept: list[tuple[Engine, float | None]] = []
        for one, cut_at in self.leaving:
            if one.wait(0):
                continue
            if cut_at is not None and now >= cut_at:
                log.info("cutting the last connections of an old configuration (hard-stop-after)")
                one.stop(now=True)
                cut_at = None
            kept.append((one, cut_at))
        gone = len(self.leaving) > len(kept)
        self.leaving = kept
        if gone:
            del one  # the loop's last one
            gc.collect()  # an engine and what it runs refer to each other; its descriptors are to go now

    def _ended(self) -> bool:
        if self._hard_stop_at is not None and clock.monotonic() >= self._hard_stop_at:
            self._hard_stop_at = None
            self._cut()
        return self.engine.wait(0) and not self.leaving

    def _reload(self) -> str:
        """Read the files and change over to them; what was wrong with them, or "" """
        sdnotify.reloading("reading the configuration")
        try:
            tables = fdlimits.fit(self.reload())
            fresh = Engine(tables, self.listeners, self.engine)
            self.runtime.open(tables.process)
        except (HaptkError, OSError, ValueError, MemoryError) as error:
            # a file that is refused, or no descriptors or memory for a second engine: what runs goes on
            log.error("the new configuration was refused, the old one stays: %s", error)
            sdnotify.ready("serving with the old configuration: the new one was refused")
            return str(error)
        fresh.look = self.world
        self.runtime.retain(tables.process)
        old, self.engine = self.engine, fresh
        fresh.start()
        old.stop()
        try:
            for peering in self._peer(tables):
                peering.start()
        except HaptkError as error:
            log.error("the tables are not replicated: %s", error)
        limit_s = tables.process.hard_stop_after_s
        self.leaving.append((old, None if limit_s is None else clock.monotonic() + limit_s))
        self.listeners.retain(tables.frontends)
        log.info("reloaded; serving on %s", ", ".join(self.listeners.addresses()))
        sdnotify.ready(f"serving on {', '.join(self.listeners.addresses())}")
        return ""


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Route SIGNALS to a socket, one byte each; everything is put back at the end."""
    ours, kernels = socket.socketpair()
    ours.setblocking(False)
    kernels.setblocking(False)
    before_fd = signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    before |= {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        ours.close()
        kernels.close()


def _inherited(options: Options) -> list[socket.socket] | None:
    """The sockets of the process before us, under -x; raises PeerError where that is not to be borne."""
    if not options.old_socket:
        return None
    try:
        return inherit.ask(options.old_socket)
    except PeerError as error:
        if not options.old_socket_may_fail:
            raise
        log.warning("%s; they are bound anew", error)
        return None


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def raise_fd_limit() -> None:
    """Use all descriptors that we are allowed: each session takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def detach() -> int:
    """Become a daemon before any thread exists: fork, new session. Returns where to write a byte when it serves.

    The process that was started stays until the daemon serves, so that its exit code is true: 0 when the daemon serves and
    the pid file is written, else the daemon's own, whose error went to the terminal as usual.
    """
    waiting, starter = os.pipe()
    child = os.fork()
    if child:
        os.close(starter)
        if os.read(waiting, 1):
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) or 1)
    os.close(waiting)
    os.setsid()
    return starter


def leave_terminal(null: int) -> None:
    """/dev/null, which was opened while there was one to see, on the standard descriptors."""
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def write_pidfile(path: Path | None) -> None:
    """Our pid, for init scripts; raises CannotWrite.

    The file is replaced as a whole: what stands there is never written through, so that a link that somebody laid for
    root is replaced and its target is not touched, and a reader sees the old pid or the new one.
    """
    if path is None:
        return
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CannotWrite(path=path, why=error.strerror) from error
    else:
        if stat.S_ISLNK(found):
            log.warning("the pid file %s was a symbolic link; it is replaced, its target stays as it is", path)
        elif not stat.S_ISREG(found):
            raise CannotWrite(path=path, why="it is not a regular file")
    write_atomic(path, f"{os.getpid()}\n".encode())


def drop_privileges(tables: ProxyTables) -> None:
    """chroot, group and user of the `global` section, after all sockets are open; raises NotPermitted.

    Nothing that is started from here on can get more rights than it has, under systemd or not.
    """
    wanted = tables.process
    if not wanted.insecure_setuid and not process.no_new_privs():
        log.warning("PR_SET_NO_NEW_PRIVS is refused here: a set-uid program could still give rights")
    try:
        if wanted.chroot:
            os.chroot(wanted.chroot)
            os.chdir("/")
        if wanted.gid is not None:
            os.setgroups([])
            os.setgid(wanted.gid)
        if wanted.uid is not None:
            os.setuid(wanted.uid)
    except OSError as error:
        raise NotPermitted(what="chroot or change user", why=error.strerror) from error


def signal_old(options: Options) -> None:
    """Tell the processes that we replace to finish (-sf) or to stop (-st); those that are gone are fine."""
    for pids, number in ((options.finish_pids, signal.SIGUSR1), (options.terminate_pids, signal.SIGTERM)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
