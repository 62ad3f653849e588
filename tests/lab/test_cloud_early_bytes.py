"""Bytes that reach the path of an Elastic IP before its holder has accepted are not lost.

asyncio before 3.11.4 (Debian 12's) forgets a pause made in connection_made; here the pause is switched off altogether.
"""

from __future__ import annotations

import asyncio
from asyncio import selector_events

import pytest

from haptk.lab.address import Path, Route

NET = "127.94"


async def _ask_through_the_path() -> bytes:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.readexactly(5))
        writer.close()

    server = await asyncio.start_server(echo, f"{NET}.1.11", 0)
    port = server.sockets[0].getsockname()[1]
    path = Path(f"{NET}.200.10", port)
    await path.update(Route(instance_id="i-1", private_ip=f"{NET}.1.11"), frozenset())
    reader, writer = await asyncio.open_connection(f"{NET}.200.10", port)
    writer.write(b"early")
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        path.stop()
        server.close()


def test_bytes_before_the_holder_has_accepted_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selector_events._SelectorSocketTransport, "pause_reading", lambda self: None)
    assert asyncio.run(_ask_through_the_path()) == b"heard early"
