"""A home for commands: configuration, recipe, table and embedder, and an engine on loopback."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from cascade.cli.app import app
from tests.distill.workshops import EMBEDDER, lean, make_embedder, reviews, teach, write_table

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class LoopbackServer:
    """Answers every POST by a rule. ``bodies`` : what it was sent; ``headers`` : of the last."""

    rule: Callable[[dict[str, Any]], Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def __enter__(self) -> LoopbackServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                outer.headers = {name.lower(): value for name, value in self.headers.items()}
                status, headers, content = outer.rule(body)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def as_json(
    content: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> Reply:
    """A JSON reply."""
    named = {"content-type": "application/json", **headers}
    return status, named, json.dumps(content).encode()


def review_engine(body: dict[str, Any]) -> Reply:
    """``big-model`` is the teacher of the made-up reviews, ``small-model`` the small LLM."""
    rule = teach if body["model"] == "big-model" else lean
    label, scores = rule(body["messages"][-1]["content"])
    tokens: list[dict[str, Any]] = [
        {"token": name, "logprob": math.log(p)}
        for name, p in zip(("yes", "no"), scores, strict=True)
    ]
    written = max(tokens, key=lambda one: one["logprob"])
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": label},
        "finish_reason": "stop",
        "logprobs": {"content": [{**written, "top_logprobs": tokens}]},
    }
    usage = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
    return as_json({"object": "chat.completion", "choices": [choice], "usage": usage})


@dataclass(frozen=True)
class Home:
    """A folder in which the commands can work."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "gateway.yaml"

    @property
    def recipe(self) -> Path:
        return self.folder / "recipes" / "mood.yaml"

    def change(self, path: Path, **keys: Any) -> None:
        """Set keys of a YAML file."""
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def furnish(folder: Path, url: str) -> Home:
    """Write configuration, recipe and table; make the embedder."""
    price = {"input": 1.0, "output": 2.0}
    tier = {"engine": "openai", "replicas": [url]}
    small_price = {"input": 0.1, "output": 0.2}
    config = {
        "version": 1,
        "tiers": {
            "small": {"model": "small-model", **tier, "price": small_price},
            "large": {"model": "big-model", **tier, "price": price},
        },
        "tasks": str(folder / "recipes"),
        "store": f"sqlite:///{folder}/cascade.db",
        "registry": str(folder / "registry"),
        "models": str(folder / "models"),
    }
    recipe = {
        "name": "mood",
        "kind": "filter",
        "prompt": "Is it a positive review?",
        "source": {"table": str(folder / "t.csv"), "text": "text", "gold": "human"},
        "embedder": EMBEDDER,
        "guarantee": {"target": 0.85, "delta": 0.1},
        "buy": {"train": 100, "certify": 150, "evaluate": 60},
    }
    home = Home(folder)
    home.recipe.parent.mkdir()
    home.config.write_text(yaml.safe_dump(config))
    home.recipe.write_text(yaml.safe_dump(recipe))
    write_table(folder / "t.csv", reviews(800))
    make_embedder(folder / "models")
    return home


def invoke(*arguments: object) -> Result:
    """A command in this process; its error stays an exception."""
    return CliRunner().invoke(app, [str(one) for one in arguments])


@dataclass(frozen=True)
class Ran:
    """A command in a process of its own."""

    code: int
    out: str
    err: str


def cascade(*arguments: object, **environment: str) -> Ran:
    """``python -m cascade ...``, as people type it."""
    found = subprocess.run(
        [sys.executable, "-m", "cascade", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return Ran(found.returncode, found.stdout, found.stderr)
