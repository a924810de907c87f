"""What every embedder owes: see the docstring of ``cascade/embed/base.py``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cascade.embed import Embedder, load_embedder
from cascade.embed.cached import Cached
from cascade.embed.static import build_static_embedder

TEXTS = ["w1 w2 w3", "w4", "", "w5 " * 9, "w1 w2 w3", "unheard of \ud800", "w7 " * 100, "\0\n"]


@pytest.fixture(scope="module", params=["tiny-int8", "tiny-float32", "static", "cached", "threads"])
def embedder(request: pytest.FixtureRequest, tiny_models: Path) -> Embedder:
    if request.param == "cached":
        return Cached(load_embedder("tiny-int8", tiny_models), capacity=3)
    if request.param == "threads":
        return load_embedder("tiny-int8", tiny_models, threads=3)
    if request.param == "static" and not (tiny_models / "static").exists():
        table = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
        save_file({"embedding.weight": table}, tiny_models / "table")
        build_static_embedder(
            tiny_models / "table",
            tiny_models / "tokenizer",
            tiny_models / "static",
            name="static",
            max_tokens=16,
        )
    return load_embedder(request.param, tiny_models)


def test_rows_are_float32_and_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_are_no_rows(embedder: Embedder) -> None:
    assert embedder.encode([]).shape == (0, embedder.dim)
    assert embedder.count_tokens([]).shape == (0,)


def test_rows_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    forward, backward = embedder.encode(TEXTS), embedder.encode(TEXTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)
    np.testing.assert_allclose(forward[0], forward[4], atol=1e-6)
    assert np.abs(forward[0] - forward[1]).max() > 0.01


def test_a_row_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    together = embedder.encode(TEXTS)
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_what_is_beyond_the_window_is_not_seen_but_counted(embedder: Embedder) -> None:
    long = "w1 " * embedder.max_tokens
    np.testing.assert_allclose(*embedder.encode([long + "w2", long + "w3"]), atol=1e-6)
    assert embedder.count_tokens([long + "w2"])[0] > embedder.max_tokens
    assert embedder.count_tokens(["w1 w2"])[0] <= embedder.max_tokens


def test_a_megabyte_is_counted_as_beyond_the_window(embedder: Embedder) -> None:
    blank = " " * 1_000_000
    assert embedder.count_tokens([blank])[0] > embedder.max_tokens
    assert embedder.encode([blank]).shape == (1, embedder.dim)


def test_threads_may_share_it(embedder: Embedder) -> None:
    expected = embedder.encode(TEXTS)
    differences: list[float] = []

    def compare() -> None:
        differences.extend(float(np.abs(embedder.encode(TEXTS) - expected).max()) for _ in range(5))

    threads = [threading.Thread(target=compare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(differences) == 20
    assert max(differences) < 1e-6


def test_versions_tell_embedders_apart(tiny_models: Path, embedder: Embedder) -> None:
    other: Any = "tiny-float32" if embedder.name != "tiny-float32" else "tiny-int8"
    assert embedder.version != load_embedder(other, tiny_models).version
