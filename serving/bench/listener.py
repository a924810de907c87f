"""A raw server on loopback for programs that play an engine. Knows connections; reads no byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(meet: Meet) -> AsyncIterator[int]:
    """Let ``meet`` have every connection; the port. What is still under way is ended with it."""
    playing: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        try:
            await meet(reader, writer)
        except asyncio.CancelledError:  # the server is taken down: asyncio would complain
            pass
        finally:
            playing.discard(task)
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0, backlog=1024)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
