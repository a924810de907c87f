"""The whole product on real models: distil, certify, promote, serve, and ask with real clients.

A teacher of 0.5B and a small LLM of 135M in real engines, a real MLflow registry over SQLite, a
real uvicorn on loopback, the official ``openai`` client. No double anywhere.
"""

from __future__ import annotations

import asyncio
import csv
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from cascade.certify import STREAM
from cascade.config import GatewayConfig, load_config
from cascade.distill import pipeline
from cascade.distill.label import Progress
from cascade.distill.opening import in_workshop
from cascade.distill.pipeline import Outcome
from cascade.gateway.asgi import create_app
from cascade.gateway.wiring import build_services
from cascade.recipes import load_recipe
from cascade.registry import open_registry
from cascade.store import open_store
from tests.gateway.conftest import Served, until

pytestmark = pytest.mark.slow

NAME = "mood"
MODEL = f"task/{NAME}"
THINGS = ("camera", "kettle", "phone", "novel", "movie", "hotel", "lamp", "blender", "jacket")
GOOD = (
    "is wonderful and I love it",
    "is excellent, highly recommended",
    "works perfectly, I am very happy",
    "is the best I ever had",
    "is great and worth every penny",
)
BAD = (
    "is terrible and I hate it",
    "is awful, do not buy it",
    "broke at once, I am very angry",
    "is the worst I ever had",
    "is useless and a waste of money",
)
OPENINGS = ("This {} {}.", "My new {} {}!")
CLEAR = {
    "My brother's blender is great and I love it.": "yes",
    "The jacket is awful, the worst I ever had.": "no",
}

GATEWAY = """
version: 1
tiers:
  small:
    model: smollm2-135m
    engine: embedded
    price: {{input: 0.1, cached_input: 0.02, output: 0.2}}
  large:
    model: qwen2.5-coder-0.5b
    engine: embedded
    price: {{input: 1.0, cached_input: 0.2, output: 2.0}}
tasks: {folder}/recipes
store: sqlite:///{folder}/cascade.db
registry: sqlite:///{folder}/mlflow.db
models: {models}
admin_key: ${{ADMIN}}
"""
RECIPE = """
name: mood
kind: filter
prompt: Is this review positive?
examples:  # without them the 135M talks instead of answering
  - {{text: This film is superb., label: "yes"}}
  - {{text: The service was dreadful., label: "no"}}
source: {{table: {folder}/reviews.csv, text: text}}
guarantee: {{target: 0.8, delta: 0.2}}
buy: {{train: 40, certify: 60, evaluate: 20}}
"""


def silent(title: str) -> AbstractContextManager[Progress]:
    """Shows nothing."""
    return nullcontext(lambda done, total, dollars: None)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> GatewayConfig:
    """The files that a user would write, read as a user's are."""
    folder = tmp_path_factory.mktemp("end")
    local = folder / "models"  # what is made lands here, what was pulled is linked
    local.mkdir()
    for one in models_dir.iterdir():
        if one.name not in ("work", "live"):
            (local / one.name).symlink_to(one)
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        for opening, thing, verdict in product(OPENINGS, THINGS, GOOD + BAD):
            writer.writerow([opening.format(thing, verdict)])
    (folder / "recipes").mkdir()
    (folder / "recipes" / "mood.yaml").write_text(RECIPE.format(folder=folder))
    path = folder / "gateway.yaml"
    path.write_text(GATEWAY.format(folder=folder, models=local))
    return load_config(path, {"ADMIN": "open sesame"})


@pytest.fixture(scope="module")
def outcome(config: GatewayConfig) -> Outcome:
    """``cascade train --promote``."""
    recipe = load_recipe(Path(config.tasks) / "mood.yaml")
    return asyncio.run(in_workshop(config, recipe, pipeline.promote, progress=silent))


@pytest.fixture(scope="module")
def gateway(config: GatewayConfig, outcome: Outcome) -> Iterator[Served]:
    """``cascade serve``."""
    with ExitStack() as stack:
        services = build_services(config, stack)
        yield stack.enter_context(Served(create_app(services)))


@pytest.fixture
def client(gateway: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def post(url: str, body: object, **headers: str) -> tuple[Any, dict[str, str]]:
    """As curl does it: the JSON answer and the headers, whatever the status."""
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read()), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read()), {k.lower(): v for k, v in error.headers.items()}


def test_promotion_leaves_a_certified_champion(config: GatewayConfig, outcome: Outcome) -> None:
    certificate = outcome.certificate
    assert certificate is not None and certificate.valid_for == STREAM
    assert certificate.target == 0.8 and certificate.bound >= 0.8 and certificate.share > 0.2
    assert open_registry(config.registry).champion(NAME) == outcome.version
    assert outcome.run is not None


def test_labels_are_bought_once(config: GatewayConfig, outcome: Outcome) -> None:
    """The same command again asks no model, and ends with the same version."""
    recipe = load_recipe(Path(config.tasks) / "mood.yaml")
    again = asyncio.run(
        in_workshop(config, recipe, pipeline.promote, progress=silent, limit_dollars=0.0)
    )
    assert again.version == outcome.version
    assert again.distilled.artifact.digest == outcome.distilled.artifact.digest


@pytest.mark.parametrize(("text", "label"), CLEAR.items())
def test_typed_answer(client: OpenAI, text: str, label: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[user(text)])
    answer = raw.parse()
    assert answer.choices[0].message.content == label
    assert answer.model == MODEL and answer.choices[0].finish_reason == "stop"
    assert raw.headers["x-cascade-tier"] in ("proxy", "small", "large")
    assert raw.headers["x-cascade-reason"] in ("certified", "below_threshold", "novel")


def test_the_proxy_answers_familiar_texts(gateway: Served, outcome: Outcome) -> None:
    texts = [f"My new {thing} {verdict}!" for thing in THINGS for verdict in (GOOD[0], BAD[0])]
    found, _ = post(f"{gateway.url}/v1/tasks/{NAME}/predict", {"inputs": texts})
    assert found["proxy_version"] == outcome.version
    by_proxy = [one for one in found["data"] if one["tier"] == "proxy"]
    assert len(by_proxy) >= len(texts) // 4
    assert {one["reason"] for one in by_proxy} == {"certified"}
    assert {one["label"] for one in found["data"]} == {"yes", "no"}


def test_typed_stream(client: OpenAI) -> None:
    text, label = next(iter(CLEAR.items()))
    options = {"include_usage": True}
    with client.chat.completions.create(
        model=MODEL, messages=[user(text)], stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == label
    assert chunks[-1].usage is not None and not chunks[-1].choices


async def test_async_client(gateway: Served) -> None:
    """Concurrent requests, typed and streamed."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        asked = [
            client.chat.completions.create(model=MODEL, messages=[user(text)]) for text in CLEAR
        ]
        answers = await asyncio.gather(*asked)
        stream = await client.chat.completions.create(
            model="small", messages=[user("Say hello.")], stream=True, max_tokens=5
        )
        words = [one.choices[0].delta.content or "" async for one in stream if one.choices]
    assert [one.choices[0].message.content for one in answers] == list(CLEAR.values())
    assert "".join(words).strip()


@pytest.mark.parametrize(
    ("model", "tier"),
    [("large", "large"), ("qwen2.5-coder-0.5b", "large"), ("smollm2-135m", "small")],
)
def test_pass_through(client: OpenAI, model: str, tier: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[user("Say hello.")], max_tokens=5, temperature=0
    )
    answer = raw.parse()
    assert (answer.choices[0].message.content or "").strip()
    assert answer.usage is not None and 0 < answer.usage.completion_tokens <= 5
    assert raw.headers["x-cascade-tier"] == tier
    assert raw.headers["x-cascade-reason"] == "passthrough"
    assert float(raw.headers["x-cascade-cost-usd"]) > 0


@pytest.mark.parametrize("tier", ["proxy", "small", "large"])
def test_forced_tier(gateway: Served, tier: str) -> None:
    text, label = list(CLEAR.items())[1]
    body = {"model": MODEL, "messages": [user(text)]}
    headers = {"x-cascade-tier": tier, "x-request-id": "mine-1", "content-type": "application/json"}
    answer, told = post(f"{gateway.url}/v1/chat/completions", body, **headers)
    assert answer["choices"][0]["message"]["content"] == label
    assert (told["x-cascade-tier"], told["x-cascade-reason"]) == (tier, "forced")
    assert told["x-request-id"] == "mine-1"
    assert 0 <= float(told["x-cascade-confidence"]) <= 1
    assert told["x-cascade-decision-id"].startswith("dec_")
    assert float(told["x-cascade-overhead-ms"]) < 1000
    spends_nothing = float(told["x-cascade-cost-usd"]) == 0
    assert spends_nothing == (tier == "proxy")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
REVIEW = next(iter(CLEAR))
TURNS = [user(REVIEW), {"role": "assistant", "content": "yes"}, user("Are you sure?")]


@pytest.mark.parametrize(
    ("reason", "fields"),
    {
        "truncated": {"messages": [user("This kettle is good. " * 52)]},
        "novel": {"messages": [user("SELECT name FROM users WHERE id = 7; -- %&/ 0x1f")]},
        "multi_turn": {"messages": TURNS},
        "unsupported_input": {"messages": [user(REVIEW)], "tools": [TOOL]},
    }.items(),
)
def test_unusual_input_goes_to_the_teacher(
    gateway: Served, reason: str, fields: dict[str, Any]
) -> None:
    answer, told = post(f"{gateway.url}/v1/chat/completions", {"model": MODEL, **fields})
    assert answer["choices"][0]["message"]["content"] in ("yes", "no")
    assert (told["x-cascade-tier"], told["x-cascade-reason"]) == ("large", reason)


def test_an_image_is_refused_by_a_teacher_that_cannot_see(client: OpenAI) -> None:
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=[user([pixel])])
    assert refusal.value.code == "unsupported_input"


def test_errors_are_those_of_openai(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match=MODEL):
        client.chat.completions.create(model="task/none", messages=[user("x")])
    with pytest.raises(BadRequestError, match="one answer"):
        client.chat.completions.create(model=MODEL, messages=[user("x")], n=2)


def test_records_and_pages(gateway: Served, config: GatewayConfig) -> None:
    """What was answered can be looked up, counted and, by the operator, switched off."""
    body = {"model": MODEL, "messages": [user(REVIEW)]}
    _, told = post(f"{gateway.url}/v1/chat/completions", body)
    with open_store(config.store) as store:
        until(lambda: store.decisions.get(told["x-cascade-decision-id"]))
    with urllib.request.urlopen(f"{gateway.url}/metrics") as page:
        assert f'cascade_requests_total{{reason="certified",task="{NAME}"' in page.read().decode()
    key = {"authorization": "Bearer open sesame", "content-type": "application/json"}
    assert post(f"{gateway.url}/admin/off", {}, **key)[0]["off"]
    assert post(f"{gateway.url}/v1/chat/completions", body)[1]["x-cascade-reason"] == "demoted"
    assert not post(f"{gateway.url}/admin/on", {}, **key)[0]["off"]
