"""Demotions and the off switch in the store, which several gateways may share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from cascade.errors import StoreError
from cascade.gateway.lanes import Lanes
from cascade.store import FlagStore

logger = logging.getLogger(__name__)

DEMOTED = "demoted"
HEED_SECONDS = 2.0
"""How old a demotion that was spoken to another gateway may be."""


class StoredSwitches:
    """``gateway.lanes.Switchboard`` in a store."""

    def __init__(self, flags: FlagStore) -> None:
        self._flags = flags

    def read(self) -> Mapping[str, Mapping[str, str]]:
        """Every demotion in force."""
        return {
            task: msgspec.json.decode(named[DEMOTED], type=dict[str, str])
            for task, named in self._flags.all().items()
            if DEMOTED in named
        }

    def write(self, task: str, demotion: Mapping[str, str] | None) -> None:
        """Durable on return."""
        if demotion is None:
            self._flags.clear(task, DEMOTED)
        else:
            self._flags.set(task, DEMOTED, msgspec.json.encode(demotion).decode())


async def heed_for_ever(lanes: Lanes) -> None:
    """Follow what other gateways of the store are told; a store that is down is asked again."""
    while True:
        await asyncio.sleep(HEED_SECONDS)
        try:
            await asyncio.to_thread(lanes.heed)
        except StoreError as exc:
            logger.warning("demotions of other gateways are not seen: %s", exc)
