"""How a version lands on disk when somebody else is quicker, or what came is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import RegistryError
from cascade.registry import Registered
from cascade.registry.landing import land
from cascade.tiers.artifact import verify

Make = Callable[[str], Path]


def copy_of(folder: Path) -> Callable[[Path], None]:
    def fetch(draft: Path) -> None:
        shutil.copytree(folder, draft, dirs_exist_ok=True)

    return fetch


def test_the_quicker_of_two_wins_and_both_get_the_same(make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact("a")
    registered = Registered("spam", "1", verify(folder))
    landed = []

    def overtaken(draft: Path) -> None:
        copy_of(folder)(draft)
        landed.append(land(registered, tmp_path / "live", copy_of(folder)))

    assert land(registered, tmp_path / "live", overtaken) == landed[0]
    assert verify(landed[0]) == registered.digest


def test_wrong_content_never_lands(make_artifact: Make, tmp_path: Path) -> None:
    registered = Registered("spam", "1", verify(make_artifact("a")))
    with pytest.raises(RegistryError, match="registered was"):
        land(registered, tmp_path / "live", copy_of(make_artifact("b")))
    assert list((tmp_path / "live" / "spam").iterdir()) == []


def test_disk_that_refuses_the_rename_is_not_hidden(make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact("a")
    registered = Registered("spam", "1", verify(folder))

    def in_the_way(draft: Path) -> None:
        copy_of(folder)(draft)
        (tmp_path / "live" / "spam" / draft.name).write_text("a file, not a folder")

    with pytest.raises(OSError):
        land(registered, tmp_path / "live", in_the_way)
