"""The shell around the heartbeat core: sockets, one timer, threads for resources, the control socket, signals.

Everything that decides is in core.heartbeat; this file carries its datagrams, runs its operations and writes its
sentences to the log. The loop reads sockets before it lets the core judge silence. A fault in one step is logged and
the heart goes on beating: a daemon that dies of a log line would be taken for a dead node.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from haptk.core.heartbeat.auth import KeyRing
from haptk.core.heartbeat.model import (
    HOLD_WORDS,
    Claim,
    Finished,
    Grant,
    GroupConfig,
    Health,
    Hold,
    NodeConfig,
    Outcome,
    Remember,
    Run,
    Say,
    Source,
)
from haptk.core.heartbeat.node import Node
from haptk.errors import HaptkError
from haptk.heartbeat import agents, report, scripts
from haptk.heartbeat.check import Checker
from haptk.heartbeat.ping import Pinger
from haptk.heartbeat.scripts import base_env
from haptk.heartbeat.settings import Settings, read_keys
from haptk.heartbeat.state import PeerMemory, StateDir
from haptk.heartbeat.workers import GroupWorker
from haptk.io import clock, sdnotify
from haptk.io.control import Server
from haptk.io.files import private_dir
from haptk.io.loop import Loop
from haptk.io.signals import SignalQueue
from haptk.io.udp import UdpLink

if TYPE_CHECKING:
    from haptk.heartbeat.leases import LeaseThread

log = logging.getLogger("haptk.heartbeat")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Daemon:
    """One heartbeat daemon from its start to its end. `run` returns the exit code."""

    def __init__(self, settings: Settings, *, reload: Callable[[], Settings] | None = None) -> None:
        self.settings = settings
        self._reload = reload
        self._exit_code = 0
        self._watchdog_at: float | None = None
        self._load_at = 0.0
        self._loadavg = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        private = settings.control.parent
        if not private.exists():
            private_dir(private)
        self.state = StateDir(settings.state_dir, inherit=settings.inherit)
        self.state.acquire()
        self.memory = PeerMemory(self.state, self._warn_from_thread)
        self.links = [UdpLink(spec) for spec in settings.links]
        self.workers = self._make_workers()
        self.node = self._make_node()
        self.pinger = Pinger(settings.ping_nodes, settings.timing.keepalive_s) if settings.ping_nodes else None
        self.loop = Loop(self._timer_at, self._on_timer)
        self.control = Server(settings.control, self._handle, what="haptk heartbeat")
        self.signals = SignalQueue(SIGNALS)
        self.checker = Checker(settings.check, self._from_check) if settings.check else None
        self.leases: LeaseThread | None = None
        if settings.lease:
            from haptk.heartbeat.leases import LeaseThread  # only nodes with a lease pay for it

            groups = self.node.config.groups
            self.leases = LeaseThread(settings.node, settings.lease, groups, self._from_lease, self._warn_from_thread)

    def _make_workers(self) -> list[GroupWorker]:
        settings = self.settings
        env = base_env(settings.node, settings.script_env)
        workers = []
        for group in settings.groups:
            resources = [
                agents.make(text, file=group.file, line=group.line, resource_dirs=settings.resource_dirs, env=env)
                for text in group.resources
            ]
            workers.append(GroupWorker(resources, self._from_worker, self._warn_from_thread, settings.op_limit_s))
        return workers

    def _make_node(self) -> Node:
        settings = self.settings
        known = self.state.peers()
        groups = tuple(
            GroupConfig(group.owner, group.resources, any(resource.exclusive for resource in worker.resources))
            for group, worker in zip(settings.groups, self.workers, strict=True)
        )
        config = NodeConfig(
            name=settings.node,
            peer=settings.peer,
            peer_address=settings.peer_address,
            uuid=self.state.uuid(),
            generation=self.state.next_generation(),
            timing=settings.timing,
            groups=groups,
            failback=settings.failback,
            ping_nodes=settings.ping_nodes,
            peer_generations=known.generations,
            peer_uuids=known.uuids,
            clock_window_s=settings.clock_window_s,
            hopfudge=settings.hopfudge,
            health=Health.UNKNOWN if settings.check else Health.NONE,
            leases=settings.lease is not None,
            monitor_rise=settings.monitor_rise,
            monitor_fall=settings.monitor_fall,
        )
        ring = KeyRing(settings.keys.keys, settings.keys.active, allow_crc=settings.allow_crc)
        now = clock.monotonic()
        return Node(config, ring, secrets.randbits(64), now, clock.wall() - now)

    # ---- running

    def run(self) -> int:
        """Until the graceful stop is over, or a second signal."""
        for link in self.links:
            self.loop.watch(link, functools.partial(self._readable, link))
        if self.pinger is not None:
            self.loop.watch(self.pinger, self._pings_readable)
        self.loop.watch(self.control, self._guarded(self.control.accept))
        self.loop.watch(self.signals, self._on_signals)
        for worker in self.workers:
            worker.start()
        if self.checker is not None:
            self.checker.start()
        if self.leases is not None:
            self.leases.start()
        self._flush(clock.monotonic())
        sdnotify.ready(self._status_text())
        interval = sdnotify.watchdog_interval_s()
        self._watchdog_at = clock.monotonic() + interval if interval else None
        try:
            self.loop.run()
        finally:
            self._close()
        return self._exit_code

    def _close(self) -> None:
        sdnotify.stopping("stopped")
        if self.checker is not None:
            self.checker.close()
        if self.leases is not None:
            self.leases.close()
        for worker in self.workers:
            worker.close()
        self.control.close()
        for link in self.links:
            link.close()
        if self.pinger is not None:
            self.pinger.close()
        self.signals.close()
        self.loop.close()
        os.close(self._loadavg)
        self.memory.close()
        self.state.release()

    def _timer_at(self) -> float:
        times = [self.node.timer_at()]
        if self._watchdog_at is not None:
            times.append(self._watchdog_at)
        if self.pinger is not None:
            times.append(self.pinger.due_at)
        return min(times)

    def _on_timer(self, now: float) -> None:
        if self._watchdog_at is not None and now >= self._watchdog_at:
            sdnotify.watchdog()
            self._watchdog_at = now + (sdnotify.watchdog_interval_s() or 1.0)
        if self.pinger is not None and now >= self.pinger.due_at:
            self.pinger.ping(now)
        if now >= self._load_at:
            self._load_at = now + 1.0
            self.node.wall_offset_s = clock.wall() - now
            with contextlib.suppress(OSError):
                self.node.load = os.pread(self._loadavg, 128, 0).decode().strip()
        with self._survive():
            self.node.handle_timer(now)
        self._flush(now)

    def _readable(self, link: UdpLink) -> None:
        for data, sender in link.receive():
            now = clock.monotonic()
            with self._survive():
                self.node.receive(data, Source(link.spec.name, sender), now)
        self._flush(clock.monotonic())

    def _pings_readable(self) -> None:
        if self.pinger is None:
            return
        now = clock.monotonic()
        for name in self.pinger.receive():
            self.node.ping_heard(name, now)
        self._flush(now)

    def _flush(self, now: float) -> None:
        """Send what the core wants sent, then do what it wants done."""
        for packet in self.node.to_send(now):
            for link in self.links:
                trouble = link.send(packet.data)
                if trouble:
                    log.warning("cannot send on link %s: %s", link.spec.name, trouble)
        while (event := self.node.next_event()) is not None:
            if isinstance(event, Say):
                self._say(event, now)
            elif isinstance(event, Run):
                self.workers[event.group].order(event)
            elif isinstance(event, Claim):
                if self.leases is not None:
                    self.leases.claim(event)
            elif isinstance(event, Remember):
                self.memory.remember(event)
            elif isinstance(event, Finished):
                self._log(logging.INFO, event.text, "stopped", {})
                self.loop.stop()

    def _say(self, event: Say, now: float) -> None:
        self._log(event.level.value, event.text, event.event, dict(event.fields))
        if event.event == "resource_stop_failed" and self.settings.on_stop_failure:
            self._escalate(dict(event.fields))
        if event.event in report.STATUS_EVENTS:
            sdnotify.notify(STATUS=self._status_text())

    def _escalate(self, fields: dict[str, object]) -> None:
        """Run the operator's program; it is expected to switch this machine off or to free the resource."""
        argv = self.settings.on_stop_failure
        self._log(logging.CRITICAL, f"running {' '.join(argv)}, as configured", "escalated", fields)
        env = base_env(self.settings.node, {"FAILED_RESOURCE": str(fields.get("resource", ""))})
        threading.Thread(target=scripts.run, args=(argv, env, self.settings.op_limit_s), daemon=True).start()

    def _log(self, level: int, text: str, event: str, fields: dict[str, object]) -> None:
        extra: dict[str, object] = {"node": self.settings.node, "monotonic_s": round(clock.monotonic(), 6), **fields}
        if event:
            extra = {"event": event, **extra}
        log.log(level, "%s", text, extra={"fields": extra})

    @contextlib.contextmanager
    def _survive(self) -> Any:
        try:
            yield
        except Exception as error:
            log.critical("fault in the heartbeat core, going on: %s", error, exc_info=True)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            with self._survive():
                work()
            self._flush(clock.monotonic())

        return guarded

    # ---- what threads report

    def _from_worker(self, ticket: int, outcome: Outcome) -> None:
        def deliver() -> None:
            now = clock.monotonic()
            with self._survive():
                self.node.done(ticket, outcome, now)
            self._flush(now)

        self.loop.post(deliver)

    def _warn_from_thread(self, text: str) -> None:
        self.loop.post(lambda: self._log(logging.WARNING, text, "", {}))

    def _from_lease(self, ticket: int, grant: Grant, why: str) -> None:
        def deliver() -> None:
            now = clock.monotonic()
            with self._survive():
                self.node.granted(ticket, grant, why, now)
            self._flush(now)

        self.loop.post(deliver)

    def _from_check(self, health: Health, reason: str) -> None:
        def deliver() -> None:
            now = clock.monotonic()
            with self._survive():
                self.node.set_health(health, reason, now)
            self._flush(now)

        self.loop.post(deliver)

    # ---- signals and the control socket

    def _on_signals(self) -> None:
        for number in self.signals.read():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(f"signal {number.name}")
            elif number == signal.SIGHUP:
                answer = self.reload()
                log.info("reload: %s", answer.get("result") or answer.get("error"))
            elif number == signal.SIGUSR1:
                log.info("state: %s", report.snapshot(self.node, self.settings, clock.monotonic()))
        self._flush(clock.monotonic())

    def _stop(self, why: str) -> None:
        """The first request stops gracefully, the second at once."""
        if self.node.negotiation.stop_wanted:
            self._log(logging.WARNING, f"{why} again: leaving at once, resources stay as they are", "stopped", {})
            self._exit_code = 1
            self.loop.stop()
            return
        log.info("stopping gracefully (%s)", why)
        sdnotify.stopping("handing over")
        self.node.stop(clock.monotonic())

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request of `haptk heartbeat status|standby|takeover|stop|reload`."""
        now = clock.monotonic()
        op = request.get("op")
        bits = HOLD_WORDS.get(str(request.get("hold", "all")), Hold.ALL)
        if op == "status":
            return report.snapshot(self.node, self.settings, now)
        if op == "standby":
            return _answer(self.node.give(bits, now), f"asked {self.node.peer.name} to take {bits.word}")
        if op == "takeover":
            return _answer(self.node.want(bits, now), f"asked for {bits.word}")
        if op == "stop":
            self._stop("asked on the control socket")
            return {"result": "stopping", "pid": os.getpid()}
        if op == "reload":
            return self.reload()
        return {"error": f"unknown request {op!r}: status, standby, takeover, stop and reload are known"}

    def reload(self) -> dict[str, Any]:
        """Read keys again; a bad file keeps the old ones. What cannot change while running is named."""
        sdnotify.reloading("reloading")
        try:
            keys = read_keys(self.settings.key_file)
            self.node.keys = KeyRing(keys.keys, keys.active, allow_crc=self.settings.allow_crc)
            self.settings.keys = keys
            answer: dict[str, Any] = {"result": f"signing with key {keys.active} of {self.settings.key_file}"}
            if self._reload is not None:
                answer["restart_needed_for"] = report.differences(self.settings, self._reload())
        except HaptkError as error:
            answer = {"error": f"the old configuration stays: {error}"}
        sdnotify.ready(self._status_text())
        return answer

    def _status_text(self) -> str:
        peer = self.node.peer
        hold = self.node.negotiation.holdings.hold(peer.name).word
        return f"{self.node.state.value}, holding {hold}, peer {peer.name or '(unknown)'} {peer.state.value}"


def _answer(refusal: str, done: str) -> dict[str, Any]:
    return {"error": refusal} if refusal else {"result": done}
