"""Demotions and the off switch in the store. Knows flags; knows no lane."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cascade.store import FlagStore

DEMOTED = "demoted"


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
