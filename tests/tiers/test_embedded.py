"""The embedded engine, on the real model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from cascade import reasons
from cascade.errors import MissingExtra, ModelError, ModelUnavailable, TierRejected
from cascade.tasks import Task
from cascade.tiers import embedded
from cascade.tiers.embedded import EmbeddedEngine
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.language import LanguageTier
from cascade.types import Abstention, Answer, Price, Query

TASK = Task("review", "filter", "Is this review positive about the product?", ("yes", "no"))
WORD = {"messages": [{"role": "user", "content": "Say a word."}], "max_tokens": 2}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(small_llm: Path) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(small_llm, slots=2, slot_tokens=1024) as running:
        yield running


@pytest.fixture
async def endpoint(engine: EmbeddedEngine) -> AsyncIterator[Endpoint]:
    async with Endpoint("qwen", [engine.base_url], engine.api_key, timeout_seconds=120) as asked:
        yield asked


def gone(process_id: int, within_seconds: float = 20.0) -> bool:
    """Whether a process ends; a zombie that init has not reaped yet has ended."""
    ends = time.monotonic() + within_seconds
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


async def test_answers_with_probabilities_and_reuses_the_prefix(endpoint: Endpoint) -> None:
    tier = LanguageTier("small", TASK, endpoint, Price())
    texts = ["Great phone, love it.", "Awful, it broke after a day.", "Best purchase this year!"]
    replies = [(await tier.answer([Query.from_text(text)]))[0] for text in texts * 2]
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    assert [answer.text for answer in answers[:2]] == ["yes", "no"]
    assert all(sum(answer.scores) == pytest.approx(1.0) for answer in answers)
    assert answers[-1].usage.cached_tokens >= 25  # the instruction is about 30 tokens
    assert len(answers) == 6


async def test_models_are_named_without_paths(endpoint: Endpoint, small_llm: Path) -> None:
    assert await endpoint.models() == [small_llm.stem]


async def test_streams(endpoint: Endpoint) -> None:
    body = json.dumps({**WORD, "model": "qwen", "stream": True}).encode()
    received = b"".join([chunk async for chunk in endpoint.stream(body)])
    assert received.startswith(b"data: ") and received.rstrip().endswith(b"data: [DONE]")


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_the_key_protects(engine: EmbeddedEngine, key: str | None) -> None:
    async with Endpoint("qwen", [engine.base_url], key) as stranger:
        with pytest.raises(TierRejected) as caught:
            await stranger.chat(WORD)
    assert caught.value.status == 401


@pytest.mark.parametrize("path", ["/slots", "/props", "/metrics", "/v1/models", "/tokenize"])
async def test_nothing_is_told_without_the_key(engine: EmbeddedEngine, path: str) -> None:
    root = engine.base_url.removesuffix("/v1")
    async with aiohttp.ClientSession() as session, session.get(root + path) as response:
        assert response.status in (401, 404)
        assert response.headers.get("Access-Control-Allow-Origin", "") != "*"


def test_the_key_is_on_no_command_line(engine: EmbeddedEngine) -> None:
    arguments = Path(f"/proc/{engine.process_id}/cmdline").read_bytes()
    environment = Path(f"/proc/{engine.process_id}/environ").read_bytes()
    assert engine.api_key.encode() not in arguments + environment
    assert engine.api_key not in engine.log_path.read_text(errors="replace")


async def test_a_text_longer_than_a_slot_is_refused(endpoint: Endpoint) -> None:
    tier = LanguageTier("small", TASK, endpoint, Price())
    (reply,) = await tier.answer([Query.from_text("word " * 2000)])
    assert isinstance(reply, Abstention) and reply.reason == reasons.UNSUPPORTED_INPUT
    assert "context" in reply.detail
    (reply,) = await tier.answer([Query.from_text("It works.")])
    assert isinstance(reply, Answer)


async def test_an_image_is_refused(endpoint: Endpoint) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    tier = LanguageTier("small", TASK, endpoint, Price())
    (reply,) = await tier.answer([Query("q", ({"role": "user", "content": [image]},))])
    assert isinstance(reply, Abstention) and reply.reason == reasons.UNSUPPORTED_INPUT


async def test_more_requests_than_slots_all_answer(endpoint: Endpoint) -> None:
    found = await asyncio.gather(*(endpoint.chat(WORD) for _ in range(6)))
    assert all(response["choices"] for response in found)


def test_stop_ends_the_process_and_may_be_repeated(engine: EmbeddedEngine, tmp_path: Path) -> None:
    other = EmbeddedEngine(engine.model_path, slots=1, slot_tokens=256, log_path=tmp_path / "log")
    other.start()
    process_id = other.process_id
    assert process_id is not None
    other.stop()
    other.stop()
    assert other.process_id is None and gone(process_id)


PARENT = """
import sys, time
from pathlib import Path
from cascade.tiers.embedded import EmbeddedEngine
engine = EmbeddedEngine(Path(sys.argv[1]), slots=1, slot_tokens=256)
engine.start()
print(engine.process_id, engine.log_path, flush=True)
time.sleep(60)
"""


def test_the_engine_dies_with_its_parent(engine: EmbeddedEngine) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(engine.model_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process_id, log = parent.stdout.readline().split()
        assert not gone(int(process_id), 0.0)
        os.kill(parent.pid, signal.SIGKILL)
    assert gone(int(process_id))
    Path(log).unlink()


def test_a_file_that_is_no_model_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    engine = EmbeddedEngine(broken, log_path=tmp_path / "log")
    with pytest.raises(ModelError, match=r"broken\.gguf.*log ends: .*cascade models verify"):
        engine.start()
    assert engine.process_id is None


def test_too_slow_a_start_is_given_up(engine: EmbeddedEngine, tmp_path: Path) -> None:
    slow = EmbeddedEngine(engine.model_path, log_path=tmp_path / "log", ready_seconds=0.01)
    with pytest.raises(ModelError, match=r"not ready in 0\.01 s"):
        slow.start()
    assert slow.process_id is None


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cascade models pull"):
        EmbeddedEngine(tmp_path / "none.gguf").start()


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"cascade-router\[embedded\]"):
        EmbeddedEngine(tmp_path / "none.gguf").start()
