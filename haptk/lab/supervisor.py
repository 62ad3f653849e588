"""The lab's supervisor: the one parent of all its processes, with a control socket.

Phases: cloud, region, network, applications, balancers, address, ready; then stopping. `up` fails as a whole: an error
is kept in `error`, everything is stopped, and the client shows it. The supervisor never restarts what died: that would
hide what a drill is to show; `heal` does it on request.

Operations on the socket: status, fail {kind}, kill {name}, heal, look, evidence {since}, fault, stop. See `handle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haptk.errors import HaptkError, InternalError, MissingProgram, OperatorError, PeerTimeout
from haptk.io import clock, control, files
from haptk.lab import balancer, region, token
from haptk.lab.layout import APP_PORT, MARK, PROXY_PORT, TIMINGS, Instance, Layout
from haptk.lab.plan import Region
from haptk.lab.processes import Child

PHASE_LIMIT_S = 30.0
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Options:
    """What the user chose for this lab."""

    lb: str = "haptk"
    timing: str = "quick"
    net: str = "127.77"
    design: str = "prefix"


class Supervisor:
    """Owns the directory `root` (made by the client, who holds no lock on it; the lock is taken here)."""

    def __init__(self, root: Path, options: Options) -> None:
        self.root = root
        self.options = options
        self.layout = Layout(options.net)
        self.timing = TIMINGS[options.timing]
        self.children: dict[str, Child] = {}
        self.region: Region | None = None
        self.phase = "starting"
        self.error: str | None = None
        self.stopping = asyncio.Event()
        self.lock = files.Lock(root / "lock", "a lab", "see `haptk lab status`, end it with `haptk lab down`")
        self._haproxy = ""

    # -- coming up ---------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Bring every part up in order; each phase has its own limit."""
        for phase, step in (
            ("cloud", self._start_cloud),
            ("region", self._seed),
            ("network", self._start_network),
            ("applications", self._start_applications),
            ("balancers", self._start_balancers),
            ("address", self._wait_for_service),
        ):
            self.phase = phase
            limit_s = PHASE_LIMIT_S + (self.timing.initdead_s if phase == "address" else 0)
            try:
                async with asyncio.timeout(limit_s):
                    await step()
            except TimeoutError as error:
                dead = [child for child in self.children.values() if not child.running]
                why = "; ".join(f"{child.name} ended ({child.ended_how}): {child.last_words()}" for child in dead)
                raise PeerTimeout(peer=f"lab phase '{phase}'", timeout_s=limit_s, why=why or "see the logs") from error
        self.phase = "ready"

    def _environment(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        for name in list(keep):
            if name.lower() in PROXY_VARIABLES:
                del keep[name]
        return keep | {MARK: str(self.root), "PYTHONUNBUFFERED": "1"}

    async def _start(self, name: str, instance: Instance | None, argv: list[str]) -> Child:
        home = self.root / (instance.name if instance else "cloud")
        env = self._environment()
        if instance:
            env.pop(token.VARIABLE, None)  # a machine has the credentials that its metadata service gives
            env = balancer.instance_env(env, self.layout, instance) | {"HAPTK_RUN_DIR": str(home / "run")}
        child = Child(name, instance.name if instance else "", argv, env, home / f"{name}.log")
        self.children[name] = child
        await child.start(self._ended)
        return child

    def _ended(self, child: Child) -> None:
        if self.phase != "ready" and not self.stopping.is_set() and self.error is None:
            self.error = f"{child.name} ended while the lab came up ({child.ended_how}): {child.last_words()}"
            self.stopping.set()

    async def _start_cloud(self) -> None:
        for name in ("cloud", *(instance.name for instance in self.layout.instances)):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        if self.options.lb == "haproxy":
            self._haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin") or ""
            if not self._haproxy:
                raise MissingProgram(program="haproxy", why="--lb haproxy needs it; Debian: apt-get install haproxy")
        await self._start("cloud", None, balancer.python("haptk.lab.cloud", "--listen", self.layout.cloud))
        await _answers(self.layout.cloud)

    async def _seed(self) -> None:
        self.region = await asyncio.to_thread(region.make, self.layout)

    async def _start_network(self) -> None:
        spec = self.root / "network.json"
        document = region.network_spec(self.layout, self._region(), self.root / "network.sock")
        files.write_atomic(spec, json.dumps(document, indent=2).encode(), 0o600)
        await self._start("network", None, balancer.python("haptk.lab.network", str(spec)))
        await _answers(self.layout.endpoint)

    async def _start_applications(self) -> None:
        for app in self.layout.applications:
            await self._start_application(app)
        for app in self.layout.applications:
            await _answers(f"{app.private_ip}:{APP_PORT}")

    async def _start_application(self, app: Instance) -> None:
        listen = f"{app.private_ip}:{APP_PORT}"
        argv = balancer.python("haptk.lab.appserver", "--name", app.label, "--listen", listen)
        await self._start(f"{app.name}.app", app, argv)

    async def _start_balancers(self) -> None:
        key = self.root / "authkeys"
        files.write_atomic(key, b"auth 1\n1 sha1 " + os.urandom(32).hex().encode() + b"\n", 0o600)
        for instance in self.layout.balancers:
            await self._start_proxy(instance)
        for instance in self.layout.balancers:
            await _answers(f"{instance.private_ip}:{PROXY_PORT}")
        for instance in self.layout.balancers:
            await self._start_heartbeat(instance)

    async def _start_proxy(self, instance: Instance) -> None:
        config = self.root / instance.name / "haproxy.cfg"
        files.write_atomic(config, self._proxy_config(instance).encode())
        argv = balancer.proxy_argv(config, self.options.lb, self._haproxy, instance.name)
        await self._start(f"{instance.name}.proxy", instance, argv)

    def _proxy_config(self, instance: Instance) -> str:
        return balancer.haproxy_cfg(self.layout, instance, self.timing, self.options.design)

    async def _start_heartbeat(self, instance: Instance) -> None:
        interface = self._region().interface_of(instance.name)
        plan = balancer.HeartbeatPlan(self.root / instance.name, self.root / "authkeys", interface)
        argv = balancer.heartbeat_argv(self.layout, instance, self.timing, plan)
        await self._start(f"{instance.name}.heartbeat", instance, argv)

    async def _wait_for_service(self) -> None:
        """Until the address has an owner, answers, and both nodes see each other."""
        while not await self.settled():
            await asyncio.sleep(0.05)

    # -- looking -----------------------------------------------------------------------------------------------

    def _region(self) -> Region:
        if self.region is None:
            raise InternalError(what="the region is asked for before it was made")
        return self.region

    async def network(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the network process."""
        request = {"op": op, **fields}
        return await asyncio.to_thread(control.call, self.root / "network.sock", request, what="the lab's network")

    async def holder(self) -> str | None:
        """The name of the instance that the cloud's own record names for the address; None for nobody."""
        return region.holder(self._region(), await self.network("associations"))

    async def node_status(self, name: str) -> dict[str, Any] | None:
        """What a node's heartbeat says of itself; None when it does not answer."""
        path = self.root / name / "heartbeat.sock"
        try:
            return await asyncio.to_thread(
                control.call, path, {"op": "status"}, timeout_s=2.0, what=f"heartbeat on {name}"
            )
        except HaptkError:
            return None

    async def settled(self) -> bool:
        """One living owner that believes it, every living node synchronised, and the address answers."""
        try:
            holder = await self.holder()
        except HaptkError:
            return False
        if holder is None:
            return False
        for instance in self.layout.balancers:
            status = await self.node_status(instance.name)
            if status is None or not region.node_settled(status, holds=instance.name == holder):
                return False
        return await _serves(self.layout.address, PROXY_PORT)

    # -- operations --------------------------------------------------------------------------------------------

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """One control request; unknown operations are refused by name."""
        operations = {
            "status": self._op_status,
            "fail": self._op_fail,
            "kill": self._op_kill,
            "heal": self._op_heal,
            "look": self._op_look,
            "evidence": self._op_evidence,
            "fault": self._op_fault,
            "stop": self._op_stop,
        }
        operation = operations.get(str(request.get("op")))
        if operation is None:
            return {"error": f"unknown operation {request.get('op')!r}; known: {', '.join(operations)}"}
        try:
            return await operation(request)
        except HaptkError as error:
            return {"error": str(error)}

    async def _op_status(self, _request: dict[str, Any]) -> dict[str, Any]:
        processes = [
            {
                "name": child.name,
                "instance": child.instance,
                "pid": child.pid,
                "running": child.running,
                "ended": child.ended_how,
            }
            for child in self.children.values()
        ]
        reply: dict[str, Any] = {
            "phase": self.phase,
            "failure": self.error,
            "pid": os.getpid(),
            "directory": str(self.root),
            "lb": self.options.lb,
            "timing": self.options.timing,
            "net": self.options.net,
            "design": self.options.design,
            "address": self.layout.address,
            "endpoint": f"http://{self.layout.endpoint}",
            "processes": processes,
        }
        if self.phase == "ready":
            reply["holder"] = await self.holder()
            reply["settled"] = await self.settled()
            reply["region"] = region.describe(self._region())
        return reply

    async def _op_fail(self, request: dict[str, Any]) -> dict[str, Any]:
        """Kill for real: `proxy` the holder's proxy process, `instance` all of the holder, `app` one application."""
        kind = request.get("kind")
        if kind == "app":
            victim, names = "app2", ["app2.app"]
        else:
            holder = await self.holder()
            if holder is None:
                raise OperatorError(what="nobody holds the address, so there is nothing to fail over")
            victim = holder
            names = [f"{holder}.proxy"]
            if kind == "instance":
                names = [child.name for child in self.children.values() if child.instance == holder]
        at = clock.monotonic()
        if kind == "instance":
            # A machine that dies falls silent first: nobody gets a reset from it.
            await self.network("power", instance_id=self._region().instance(victim).instance_id, on=False)
        await asyncio.gather(*(self.children[name].kill() for name in names))
        return {"victim": victim, "killed": names, "at": at}

    async def _op_kill(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request.get("name"))
        child = self.children.get(name)
        if child is None:
            raise OperatorError(what=f"no process {name!r} in this lab; there are: {', '.join(self.children)}")
        return {"at": await child.kill(), "killed": [name]}

    async def _op_heal(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Power every instance on and start what is dead on it; the caller waits for `settled`."""
        started = []
        for instance in self.layout.instances:
            dead = [c for c in self.children.values() if c.instance == instance.name and not c.running]
            if dead:
                await self.network("power", instance_id=self._region().instance(instance.name).instance_id, on=True)
            for child in sorted(dead, key=lambda child: child.name, reverse=True):  # the proxy before the heartbeat
                await child.start(self._ended)
                started.append(child.name)
        return {"started": started}

    async def _op_look(self, _request: dict[str, Any]) -> dict[str, Any]:
        """What a drill waits for, cheaply: the holder by the cloud's record and whether the address serves."""
        return {"holder": await self.holder(), "serves": await _serves(self.layout.address, PROXY_PORT)}

    async def _op_evidence(self, request: dict[str, Any]) -> dict[str, Any]:
        """The cloud's records since `since`, what each living node believes, and the owner by a real API call."""
        here = self._region()
        owners: dict[str, bool | None] = {}
        for instance in self.layout.balancers:
            if self.children[f"{instance.name}.heartbeat"].running:
                owners[instance.name] = region.believes(await self.node_status(instance.name))
        calls = (await self.network("calls", since=0))["calls"]
        since = float(request.get("since", 0.0))
        return {
            "owners": owners,
            "api_owner": await asyncio.to_thread(region.api_owner, self.layout, here),
            "history": region.history(here, await self.network("associations")),
            "calls": [call for call in (region.call(here, raw) for raw in calls) if call["monotonic_s"] >= since],
        }

    async def _op_fault(self, request: dict[str, Any]) -> dict[str, Any]:
        """Set or clear a fault of the API; `node` limits it to one instance's credentials."""
        await self.network("faults", **region.fault(self._region(), request))
        return await self.network("faults")

    async def _op_stop(self, _request: dict[str, Any]) -> dict[str, Any]:
        self.stopping.set()
        return {"stopping": True}

    # -- going down --------------------------------------------------------------------------------------------

    async def down(self) -> None:
        """Stop what runs, balancers first, in parallel within each layer."""
        self.phase = "stopping"
        layers = [
            [c for c in self.children.values() if c.instance],
            [c for c in self.children.values() if not c.instance],
        ]
        for layer in layers:
            await asyncio.gather(*(child.stop(patience_s=2.0) for child in layer))

    def clean(self) -> None:
        """Remove the lab's directory; what the clients of a drill still write there goes with it."""
        shutil.rmtree(self.root, ignore_errors=True)


async def _answers(where: str) -> None:
    """Return when HOST:PORT accepts a connection."""
    host, _, port = where.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def _serves(host: str, port: int) -> bool:
    """Whether one HTTP request is answered 200 within a second."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET /index.html HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.close()
            return b" 200 " in line
    return False


async def _serve_control(supervisor: Supervisor) -> asyncio.AbstractServer:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            request = json.loads(await asyncio.wait_for(reader.readline(), 5.0))
            reply = await supervisor.handle(request if isinstance(request, dict) else {})
            writer.write(json.dumps(reply, default=str).encode() + b"\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(client, supervisor.root / "control.sock")


async def run(root: Path, options: Options) -> int:
    """Bring the lab up, serve until told to stop, take it down; returns the exit code."""
    supervisor = Supervisor(root, options)
    supervisor.lock.acquire()
    token.make(root)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stopping.set)
    server = await _serve_control(supervisor)
    coming = asyncio.create_task(supervisor.up())
    stop = asyncio.create_task(supervisor.stopping.wait())
    await asyncio.wait({coming, stop}, return_when=asyncio.FIRST_COMPLETED)
    failed = coming.exception() if coming.done() and not coming.cancelled() else None
    if failed is not None:
        supervisor.error = supervisor.error or (str(failed) or repr(failed))
    if supervisor.error is not None:
        # Stay long enough for the client to read why; it polls several times a second.
        supervisor.phase = "failed"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(supervisor.stopping.wait() if failed else asyncio.Event().wait(), 2.0)
    else:
        await stop
    coming.cancel()
    await supervisor.down()
    server.close()
    supervisor.clean()
    return 1 if supervisor.error else 0


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="haptk.lab.supervisor")
    parser.add_argument("root", type=Path)
    parser.add_argument("--lb", default="haptk", choices=["haptk", "haproxy"])
    parser.add_argument("--timing", default="quick", choices=sorted(TIMINGS))
    parser.add_argument("--net", default=Options.net)
    parser.add_argument("--design", default=Options.design, choices=balancer.DESIGNS)
    found = parser.parse_args()
    raise SystemExit(asyncio.run(run(found.root, Options(found.lb, found.timing, found.net, found.design))))


if __name__ == "__main__":
    main()
