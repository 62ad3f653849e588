"""Bytes that are there before both connections of an Elastic IP's path are: none is lost, whoever speaks first.

asyncio before 3.11.4 (Debian 12's) starts to read after connection_made even when that paused the reading; the newer
one is made to do so here.
"""

from __future__ import annotations

import asyncio
from asyncio import selector_events
from collections.abc import Awaitable, Callable

import pytest

from haptk.lab.address import Path, Route
from tests.fixtures_cloud import NET

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True, params=["this asyncio", "asyncio of 3.11.2"])
def asyncio_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "asyncio of 3.11.2":

        def add_reader(self: selector_events._SelectorTransport, fd: int, callback: Callable[..., object]) -> None:
            self._loop._add_reader(fd, callback)  # whatever was paused or closed meanwhile

        monkeypatch.setattr(selector_events._SelectorTransport, "_add_reader", add_reader, raising=False)


def through_the_path(serve: Serve, said: bytes, wanted: bytes, *, held: bool = True) -> list[bytes]:
    """What each of 200 clients got that said this at once."""

    async def one(port: int) -> bytes:
        reader, writer = await asyncio.open_connection(f"{NET}.200.10", port)
        writer.write(said)
        try:
            async with asyncio.timeout(20):
                return await reader.readexactly(len(wanted)) if wanted else await reader.read()
        except ConnectionResetError:
            return b"reset"
        finally:
            writer.close()

    async def run() -> list[bytes]:
        server = await asyncio.start_server(serve, f"{NET}.1.11", 0)
        port = server.sockets[0].getsockname()[1]
        path = Path(f"{NET}.200.10", port)
        if not held:
            server.close()
            await server.wait_closed()
        await path.update(Route(instance_id="i-1", private_ip=f"{NET}.1.11"), frozenset())
        try:
            return [got for _ in range(10) for got in await asyncio.gather(*(one(port) for _ in range(20)))]
        finally:
            path.stop()
            server.close()

    return asyncio.run(run())


def test_the_client_speaks_first() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.readexactly(5))
        writer.close()

    assert set(through_the_path(echo, b"early", b"heard early")) == {b"heard early"}


def test_the_server_speaks_first() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        await reader.read()
        writer.close()

    assert set(through_the_path(greet, b"", b"welcome")) == {b"welcome"}


def test_a_closed_port_resets_each_time() -> None:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody listens")

    assert set(through_the_path(nobody, b"hello", b"", held=False)) == {b"reset"}
