"""Following a registry: a swap loses no request, a bad champion replaces nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cascade.certify import Certificate
from cascade.errors import RegistryError
from cascade.gateway.champions import POINTER, Champions
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics
from cascade.registry.folder import FolderRegistry

from .conftest import Build, lane_of, typed, until


def write_artifact(folder: Path, content: str) -> Path:
    """The files of a proxy with ``content`` in them, and their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for name in ("proxy.json", "answerer.onnx", "arrays.safetensors", "card.md"):
        data = f"{name} of {content}".encode()
        (folder / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))
    return folder


class CardReader:
    """Builds a lane whose version is that of the folder; refuses one whose card says so."""

    def __init__(self, certificate: Certificate, metrics: Metrics) -> None:
        self.built: list[str] = []
        self._certificate = certificate
        self._metrics = metrics

    def blank(self, task: str) -> Lane:
        return lane_of(self._certificate, self._metrics).without_champion("no_champion", "")

    def build(self, task: str, version: str, folder: Path) -> Lane:
        card = (folder / "card.md").read_text()
        if "broken" in card:
            raise RegistryError("this proxy does not open")
        self.built.append(card)
        return lane_of(self._certificate, self._metrics, version=version)


class Setting:
    """A registry in a folder, a follower of it, and the lanes."""

    def __init__(self, certificate: Certificate, folder: Path) -> None:
        self.metrics = Metrics()
        self.builder = CardReader(certificate, self.metrics)
        self.folder = folder
        self.registry = FolderRegistry(folder / "registry")
        self.lanes = Lanes({"mood": self.builder.blank("mood")})
        self.follower = self.follow(self.registry)

    def follow(self, registry: Any) -> Champions:
        return Champions(
            ["mood"],
            registry,
            self.folder / "live",
            builder=self.builder,
            install=self.lanes.install,
            poll_seconds=0.01,
        )

    def promote(self, content: str) -> str:
        folder = write_artifact(self.folder / content, content)
        version = self.registry.save("mood", folder)
        self.registry.promote("mood", version)
        return version

    @property
    def version(self) -> str | None:
        lane = self.lanes.get("mood")
        assert lane is not None
        return None if lane.reason else lane.version


@pytest.fixture
def setting(certificate: Certificate, tmp_path: Path) -> Iterator[Setting]:
    one = Setting(certificate, tmp_path)
    yield one
    one.follower.stop()


class Down:
    """A registry that nobody reaches."""

    def champion(self, task: str) -> str | None:
        raise RegistryError("connection refused")


def test_first_champion_then_the_next_then_none(setting: Setting) -> None:
    setting.follower.poll()
    assert setting.version is None
    setting.promote("a")
    setting.follower.poll()
    assert setting.version == "1"
    setting.follower.poll()
    assert len(setting.builder.built) == 1
    setting.promote("b")
    setting.follower.poll()
    assert setting.version == "2"
    shutil.rmtree(setting.folder / "registry")
    setting.follower.poll()
    assert setting.version is None
    assert not (setting.folder / "live" / "mood" / POINTER).exists()


def test_a_thread_follows_by_itself(setting: Setting) -> None:
    setting.promote("a")
    setting.follower.start()
    assert setting.version == "1"
    setting.promote("b")
    until(lambda: setting.version == "2")


def test_broken_champion_leaves_the_last_good_one(setting: Setting) -> None:
    setting.promote("a")
    setting.follower.poll()
    setting.promote("broken")
    setting.follower.poll()
    assert setting.version == "1"
    assert "does not open" in setting.follower.problems()["mood"]
    setting.promote("c")
    setting.follower.poll()
    assert setting.version == "3" and setting.follower.problems() == {}


def test_changed_bytes_in_the_registry_replace_nothing(setting: Setting) -> None:
    setting.promote("a")
    setting.follower.poll()
    version = setting.promote("b")
    artifact = setting.folder / "registry" / "mood" / "versions" / version / "artifact"
    (artifact / "answerer.onnx").write_bytes(b"something else")
    setting.follower.poll()
    assert setting.version == "1" and "mood" in setting.follower.problems()
    assert not [one for one in (setting.folder / "live" / "mood").glob("2-*")]


def test_start_without_the_registry_serves_the_last_good_copy(setting: Setting) -> None:
    setting.promote("a")
    setting.follower.poll()
    setting.lanes.install(setting.builder.blank("mood"))
    later = setting.follow(Down())
    later.start()
    try:
        assert setting.version == "1"
        until(lambda: "refused" in later.problems().get("mood", ""))
        assert setting.version == "1"
    finally:
        later.stop()


@pytest.mark.parametrize("content", [b"not json", b'{"version": "1", "folder": "gone"}'])
def test_damaged_pointer_is_no_catastrophe(setting: Setting, content: bytes) -> None:
    pointer = setting.folder / "live" / "mood" / POINTER
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(content)
    setting.promote("a")
    setting.follower.start()
    until(lambda: setting.version == "1")
    assert setting.follower.problems() == {}


async def test_swaps_under_load_fail_no_request(setting: Setting, open_house: Build) -> None:
    setting.promote("v0")
    with open_house(
        lanes=setting.lanes,
        metrics=setting.metrics,
        registry=setting.registry,
        follower=setting.follower,
    ) as house:
        seen: set[str] = set()
        done = asyncio.Event()

        async def load(session: aiohttp.ClientSession) -> int:
            asked = 0
            while not done.is_set():
                async with session.post(f"{house.v1}/chat/completions", json=typed("easy")) as got:
                    body = await got.json()
                assert got.status == 200 and body["choices"][0]["message"]["content"] == "yes"
                seen.add(got.headers["x-cascade-proxy-version"])
                asked += 1
            return asked

        async with aiohttp.ClientSession() as session:
            loads = [asyncio.create_task(load(session)) for _ in range(8)]
            for i in range(1, 10):
                promoted = await asyncio.to_thread(setting.promote, f"v{i}")
                while setting.version != promoted:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            done.set()
            asked = sum(await asyncio.gather(*loads))
    assert asked > 50 and "10" in seen and len(seen) >= 3
