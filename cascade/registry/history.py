"""The versions an alias has pointed at, newest first. Pure; knows no storage.

Kept beside the alias itself, so that a rollback needs no clock and no log.
"""

from __future__ import annotations

from typing import Final

from cascade.errors import RegistryError

History = tuple[str, ...]

DEPTH: Final = 50  # rollbacks that stay possible; keeps the record a line long


def promoted(history: History, version: str) -> History:
    """The history after a promotion; promoting what is there already changes nothing.

    >>> promoted(("2", "1"), "3")
    ('3', '2', '1')
    >>> promoted(("2", "1"), "2")
    ('2', '1')
    """
    if history[:1] == (version,):
        return history
    return (version, *history)[:DEPTH]


def rolled_back(history: History) -> History:
    """The history without its newest version.

    >>> rolled_back(("3", "2", "1"))
    ('2', '1')

    Raises
    ------
    RegistryError
        Nothing came before.
    """
    if len(history) < 2:
        raise RegistryError("there is no earlier champion: promote a version by its number instead")
    return history[1:]
