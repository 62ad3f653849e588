"""The network of the lab: one process with the API's fault switch, the metadata services and the paths of Elastic IPs.

    python -m haptk.lab.network SPEC.json [--die-with-parent [PID]]

When everything listens it prints one line of JSON on stdout, the answer of `state`. SIGTERM and SIGINT end it with
code 0. The spec, all fields required:

    {"cloud": "127.77.0.2:5000",                                   moto, see cloud.py
     "api": "127.77.0.3:5000",                                     the fault switch; port 0 takes a free port
     "control": "/run/user/0/haptk-lab/network.sock",              control socket, mode 600
     "region": {...},                                              plan.Region.to_dict()
     "imds": [{"instance": "lb1", "listen": "127.77.1.11:8169"}],  instance by name or id
     "addresses": [{"address": "web", "ports": [8080]}]}           Elastic IP by name, address or allocation id

Operations on the control socket (one JSON object a line each way, client `haptk.io.control.call`):

    {"op": "state"}                              versions, listeners, paths with state, who is off, rules
    {"op": "power", "instance_id": I, "on": B}   I is a name or an id; off = metadata silent, Elastic IP black-holed;
                                                 switch off before the processes are killed
    {"op": "faults", "set": {...}}               a new rule, see faults.Rule; answers {"rule": {...}}
    {"op": "faults", "clear": true | ID}         all rules or one
    {"op": "faults"}                             {"rules": [...]}
    {"op": "calls", "since": N}                  {"calls": [...], "next": N}
    {"op": "associations", "after": V}           {"version", "addresses", "history"}, history newer than V (default 0)
    {"op": "imds_lag", "instance_id": I, "lag_ms": N}
    {"op": "imds_role", "instance_id": I, ...}   has_role, credentials_life_s, access_key_id: what the role gives from now
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from haptk.errors import AlreadyRunning, CannotBind, ConfigError, HaptkError, MissingFile, OperatorError, PeerTimeout
from haptk.io.process import die_with_parent
from haptk.lab import address, token
from haptk.lab.cloud import parse_endpoint
from haptk.lab.faults import Switch
from haptk.lab.feed import Feed
from haptk.lab.imds import Imds, Metadata
from haptk.lab.plan import Region

FIRST_VIEW_S = 15.0
RETRY_S = 0.5
REQUEST_MAX = 65536
Reply = dict[str, Any]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class ImdsSpec:
    instance: str
    listen: str


@dataclass(frozen=True)
class AddressSpec:
    address: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """The spec file; see the module's text."""

    cloud: str
    api: str
    control: str
    region: Region
    imds: tuple[ImdsSpec, ...]
    addresses: tuple[AddressSpec, ...]


def read_spec(path: Path) -> Spec:
    """The checked spec; raises MissingFile, or ConfigError with what is wrong and what is accepted."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFile(path=path, why=error.strerror) from error
    try:
        spec = msgspec.json.decode(data, type=Spec)
        for text in (spec.cloud, spec.api, *(one.listen for one in spec.imds)):
            parse_endpoint(text)
        for one in spec.imds:
            spec.region.instance(one.instance)
        for path_spec in spec.addresses:
            spec.region.address(path_spec.address)
            if not path_spec.ports or not all(0 < port <= 65535 for port in path_spec.ports):
                raise OperatorError(what=f"address {path_spec.address}: ports are numbers from 1 to 65535")
    except (msgspec.MsgspecError, OperatorError) as error:
        raise ConfigError(file=path, line=1, why=str(error)) from error
    return spec


class Network:
    """Owns all listeners; everything happens in one event loop."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        host, port = parse_endpoint(spec.cloud)
        self.switch = Switch(host, port)
        self.feed = Feed(f"http://{spec.cloud}")
        self.off: frozenset[str] = frozenset()
        self.imds: dict[str, Imds] = {}
        self.listens: dict[str, str] = {}
        self.paths = [
            address.Path(spec.region.address(one.address).public_ip, port)
            for one in spec.addresses
            for port in one.ports
        ]
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._bound: list[Path] = []
        self._dirty = asyncio.Event()
        self._routing = asyncio.Lock()
        self._path_errors: dict[address.Path, str] = {}

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen everywhere; raises CannotBind, AlreadyRunning, or PeerTimeout when the cloud is silent."""
        self._tasks.append(asyncio.create_task(self.feed.run()))
        for one in self.spec.imds:
            instance = self.spec.region.instance(one.instance)
            imds = self.imds[instance.instance_id] = Imds(Metadata(self.spec.region, instance, self.feed))
            # it gives credentials: with a token in force not to other users of this machine
            serve = _own_user(imds.serve) if token.current() else imds.serve
            await self._listen(f"imds {instance.name}", one.listen, serve)
        for path in self.paths:
            path.bound().close()
        try:
            async with asyncio.timeout(FIRST_VIEW_S):
                await self.feed.known.wait()
        except TimeoutError as error:
            why = self.feed.error or "it accepts and is silent"
            raise PeerTimeout(peer="the lab's cloud", timeout_s=FIRST_VIEW_S, why=why) from error
        await self._route()
        for path, why in self._path_errors.items():
            raise CannotBind(address=f"{path.public_ip}:{path.port}", why=why)
        self.feed.subscribe(self._dirty.set)
        self._tasks.append(asyncio.create_task(self._follow()))
        await self._control()
        await self._listen("api", self.spec.api, self.switch.serve)  # last: who reaches the API finds all the rest

    async def _listen(self, name: str, endpoint: str, serve: Serve) -> None:
        host, port = parse_endpoint(endpoint)
        try:
            server = await asyncio.start_server(_quiet(serve), host, port, backlog=256)
        except OSError as error:
            raise CannotBind(address=endpoint, why=os.strerror(error.errno) if error.errno else str(error)) from error
        self._servers.append(server)
        self.listens[name] = "{}:{}".format(*server.sockets[0].getsockname()[:2])

    async def _control(self) -> None:
        path = Path(self.spec.control)
        if _answers(path):
            raise AlreadyRunning(what="the lab's network", pid="unknown", advice=f"it answers on {path}")
        before = os.umask(0o177)
        try:
            # removes the socket of a dead process by itself, and nothing else
            self._servers.append(await asyncio.start_unix_server(_quiet(self._serve_control), path, limit=REQUEST_MAX))
            self._bound.append(path)
        except OSError as error:
            raise CannotBind(address=path, why=error.strerror or str(error)) from error
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Close and reset everything, remove the control socket."""
        for task in self._tasks:
            task.cancel()
        for server in self._servers:
            server.close()
        for path in self.paths:
            path.stop()
        for socket_file in self._bound:
            socket_file.unlink(missing_ok=True)

    # -- routes --------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            # an address that somebody else listens on is tried again; all else waits for news
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._path_errors else None):
                    await self._dirty.wait()
            self._dirty.clear()
            await self._route()

    async def _route(self) -> None:
        """Bring every path to the present association and power; a path that cannot listen keeps its error."""
        async with self._routing:
            for path in self.paths:
                row = self.feed.holder(path.public_ip)
                route = address.Route(row["instance_id"], row["private_ip"]) if row else None
                try:
                    await path.update(route, self.off)
                    self._path_errors.pop(path, None)
                except CannotBind as error:
                    self._path_errors[path] = str(error.fields["why"])

    # -- control -------------------------------------------------------------------------------------------------

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readuntil(b"\n")
            reply = await self.answer(json.loads(line))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            reply = {"error": f"one JSON object on one line of at most {REQUEST_MAX} bytes is expected"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def answer(self, request: object) -> Reply:
        """The reply to one control request; refusals are {"error": sentence}."""
        operations: dict[str, Callable[[Reply], Coroutine[Any, Any, Reply]]] = {
            "state": self._op_state,
            "power": self._op_power,
            "faults": self._op_faults,
            "calls": self._op_calls,
            "associations": self._op_associations,
            "imds_lag": self._op_imds_lag,
            "imds_role": self._op_imds_role,
        }
        if not isinstance(request, dict) or request.get("op") not in operations:
            return {"error": f"an object with op is expected; op is one of {', '.join(operations)}"}
        try:
            return await operations[request["op"]](request)
        except HaptkError as error:
            return {"error": str(error)}

    async def _op_state(self, _request: Reply) -> Reply:
        paths = [
            {
                "public_ip": path.public_ip,
                "port": path.port,
                "state": path.state,
                "instance_id": path.route.instance_id if path.route else None,
                "private_ip": path.route.private_ip if path.route else None,
                "connections": len(path.relays),
                "failure": self._path_errors.get(path),
            }
            for path in self.paths
        ]
        return {
            "pid": os.getpid(),
            "version": self.feed.version,
            "feed_failure": self.feed.error,
            "listens": self.listens,
            "paths": paths,
            "off": sorted(self.off),
            "rules": [asdict(rule) for rule in self.switch.rules],
            "next_call": self.switch.next_index,
        }

    async def _op_power(self, request: Reply) -> Reply:
        instance_id = self._instance_id(request)
        turn_on = request.get("on")
        if type(turn_on) is not bool:
            raise OperatorError(what="power needs on: true or false")
        self.off = self.off - {instance_id} if turn_on else self.off | {instance_id}
        if instance_id in self.imds:
            self.imds[instance_id].powered = turn_on
        await self._route()
        return {"instance_id": instance_id, "on": turn_on}

    async def _op_faults(self, request: Reply) -> Reply:
        if "set" in request:
            if not isinstance(request["set"], dict):
                raise OperatorError(what="faults set needs an object with mode and, optionally, its limits")
            return {"rule": asdict(self.switch.add(**request["set"]))}
        if "clear" in request:
            which = request["clear"]
            if which is not True and type(which) is not int:
                raise OperatorError(what="faults clear is true (all rules) or the id of a rule")
            return {"cleared": self.switch.clear(None if which is True else which)}
        return {"rules": [asdict(rule) for rule in self.switch.rules]}

    async def _op_calls(self, request: Reply) -> Reply:
        return {"calls": self.switch.calls_since(_number(request, "since")), "next": self.switch.next_index}

    async def _op_associations(self, request: Reply) -> Reply:
        after = _number(request, "after")
        history = [change for change in self.feed.history if change["version"] > after]
        return {"version": self.feed.version, "addresses": list(self.feed.rows.values()), "history": history}

    async def _op_imds_lag(self, request: Reply) -> Reply:
        instance_id, lag_ms = self._instance_id(request), _number(request, "lag_ms")
        self._metadata_of(instance_id).lag_ms = lag_ms
        return {"instance_id": instance_id, "lag_ms": lag_ms}

    async def _op_imds_role(self, request: Reply) -> Reply:
        metadata = self._metadata_of(self._instance_id(request))
        for name, kind in (("has_role", bool), ("credentials_life_s", int), ("access_key_id", str)):
            value = request.get(name, getattr(metadata, name))
            if type(value) is not kind:
                raise OperatorError(what=f"{name} has to be of type {kind.__name__}, not {value!r}")
            setattr(metadata, name, value)
        return {name: getattr(metadata, name) for name in ("has_role", "credentials_life_s", "access_key_id")}

    def _metadata_of(self, instance_id: str) -> Metadata:
        if instance_id not in self.imds:
            raise OperatorError(what=f"instance {instance_id!r} has no metadata service in this lab")
        return self.imds[instance_id].metadata

    def _instance_id(self, request: Reply) -> str:
        return self.spec.region.instance(str(request.get("instance_id"))).instance_id


def _quiet(serve: Serve) -> Serve:
    """`serve`, whose cancellation when the process ends is no error to log (asyncio of 3.11 prints a traceback)."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()

    return served


def _own_user(serve: Serve) -> Serve:
    """`serve` for connections of this user and root; others are reset."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if token.same_user(writer.get_extra_info("socket")):
            await serve(reader, writer)
        else:
            writer.transport.abort()

    return served


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _number(request: Reply, name: str) -> int:
    value = request.get(name, 0)
    if type(value) is not int or not 0 <= value <= 2**53:
        raise OperatorError(what=f"{name} has to be a whole number from 0, not {value!r}")
    return value


async def run(spec: Spec) -> None:
    """Until SIGTERM or SIGINT; prints the state when everything listens."""
    network = Network(spec)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await network.start()
        print(json.dumps(await network.answer({"op": "state"})), flush=True)
        await stopping.wait()
    finally:
        await network.stop()


def main(argv: list[str] | None = None) -> int:
    """The process: returns the exit code; an error is one line on stderr."""
    parser = argparse.ArgumentParser(prog="haptk-lab-network", description="fault switch, metadata, Elastic IP paths")
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("--die-with-parent", nargs="?", type=int, const=-1, metavar="PID")
    options = parser.parse_args(argv)
    try:
        if options.die_with_parent is not None:
            die_with_parent(parent_pid=None if options.die_with_parent < 0 else options.die_with_parent)
        asyncio.run(run(read_spec(options.spec)))
    except HaptkError as error:
        print(f"haptk-lab-network: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
