"""A gateway as its own process before an engine that does what it is told, for tests that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from serving.bench.faults import UNHANDLED, write_config
from serving.bench.misbehaving import Engine
from serving.bench.processes import GatewayProcess, serving

Found = TypeVar("Found")


@contextmanager
def standing(folder: Path, **listen: Any) -> Iterator[tuple[GatewayProcess, Engine]]:
    """Both, until the end of the block; ``listen`` as in gateway.yaml.

    In the end the gateway must still run and must not have met anything that it did not expect.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Coroutine[Any, Any, Found]) -> Found:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def start() -> tuple[GatewayProcess, Engine]:
        engine = await stack.enter_async_context(Engine().listening())
        config = {**write_config(folder, engine), "listen": {"drain_seconds": 4, **listen}}
        return await stack.enter_async_context(serving(folder, config)), engine

    stack = AsyncExitStack()
    try:
        gateway, engine = wait(start())
        yield gateway, engine
        assert gateway.process.poll() is None, "the gateway is gone"
        said = gateway.log.read_text()
        assert not [sign for sign in UNHANDLED if sign in said], said[-3000:]
    finally:
        wait(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
