"""The log: one line a record, in the form that its reader wants, and nothing that was asked."""

from __future__ import annotations

import io
import json
import logging
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cascade.config import GatewayConfig, load_config
from cascade.errors import ConfigError
from cascade.gateway.logs import JsonLines, TextLines, form_of, logging_to
from tests.mlflow_server import free_port

from .conftest import Engine, Served, until

PROMPT = "the caller's own words"
KEYS = {"tier": "tier-secret-1", "caller": "caller-secret-2", "admin": "admin-secret-3"}
PROGRAM = """
import sys, msgspec
from cascade.config import GatewayConfig
from cascade.gateway.run import serve
serve(msgspec.json.decode(sys.argv[1], type=GatewayConfig))
"""


def config_of(folder: Path, url: str = "http://127.0.0.1:1", **more: Any) -> GatewayConfig:
    tier = {"model": "m", "replicas": [f"{url}/v1"], "attempts": 1, "api_key": KEYS["tier"]}
    written = {
        "version": 1,
        "tiers": {"large": tier},
        "tasks": str(folder / "recipes"),
        "store": f"sqlite:///{folder}/cascade.db",
        "registry": str(folder / "registry"),
        "models": str(folder / "models"),
        "listen": {"port": free_port(), "drain_seconds": 4},
        "api_keys": [KEYS["caller"]],
        "admin_key": KEYS["admin"],
        **more,
    }
    return msgspec.convert(written, GatewayConfig)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_form_follows_the_reader(tmp_path: Path) -> None:
    silent = config_of(tmp_path)
    assert (form_of(silent, Terminal()), form_of(silent, io.StringIO())) == ("text", "json")
    assert form_of(config_of(tmp_path, log="json"), Terminal()) == "json"
    assert form_of(config_of(tmp_path, log="text"), io.StringIO()) == "text"


def test_another_form_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\ntiers: {large: {model: m, engine: embedded}}\nlog: xml\n")
    with pytest.raises(ConfigError, match="log"):
        load_config(path, {})


def failed(message: str) -> Any:
    try:
        try:
            raise KeyError(PROMPT)
        except KeyError as exc:
            raise ValueError(message) from exc
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_an_exception_tells_where_but_not_what(form: logging.Formatter) -> None:
    """A message such as "could not convert string to float: '<the prompt>'" is a prompt."""
    record = logging.LogRecord("cascade.x", logging.ERROR, "", 0, "it failed", (), failed(PROMPT))
    said = form.format(record)
    assert PROMPT not in said
    assert PROMPT in logging.Formatter().format(record)  # what everybody's formatter does
    assert "ValueError" in said and "KeyError" in said and "test_logs.py" in said


def test_nobody_forges_a_record() -> None:
    hostile = "x\n2026-11-23T00:00:00 ERROR cascade: all keys follow\r\n"
    record = logging.LogRecord("cascade.x", logging.WARNING, "", 0, "path %s", (hostile,), None)
    for form in (TextLines(), JsonLines()):
        assert len(form.format(record).splitlines()) == 1
    assert json.loads(JsonLines().format(record))["message"] == f"path {hostile}"


def test_keys_are_blotted_out(tmp_path: Path) -> None:
    stream, logger = io.StringIO(), logging.getLogger("cascade.test")
    with logging_to(stream, config_of(tmp_path)):
        for key in KEYS.values():
            logger.warning("it said %s", key)
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "it said ***"
    ] * 3


def test_what_engines_say_stays_below_the_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    with logging_to(stream, config_of(tmp_path, log="text")):
        logging.getLogger("cascade.tiers.endpoint").info("the engine said 500: %s", PROMPT)
        logging.getLogger("cascade.gateway.champions").info("version 3 is in place")
        logging.getLogger("someone.else").info("chatter")
    assert "version 3" in stream.getvalue() and len(stream.getvalue().splitlines()) == 1


def test_afterwards_all_is_as_before(tmp_path: Path) -> None:
    root, ours = logging.getLogger(), logging.getLogger("cascade")
    before = (root.level, ours.level, list(root.handlers))
    with pytest.raises(RuntimeError), logging_to(io.StringIO(), config_of(tmp_path)):
        assert len(root.handlers) == len(before[2]) + 1
        raise RuntimeError
    assert (root.level, ours.level, list(root.handlers)) == before


class Quoting(Engine):
    """An engine that repeats in its errors what it was asked, and with which key."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        raw = (await receive()).get("body", b"").decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        error = {"message": f"cannot do {raw} for {headers.get('authorization')}"}
        await self._json(send, 500, {"error": error})


def test_a_process_logs_json_and_nothing_that_was_asked(tmp_path: Path) -> None:
    with Served(Quoting()) as engine:
        config = config_of(tmp_path, engine.url)
        arguments = [sys.executable, "-c", PROGRAM, msgspec.json.encode(config).decode()]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        url = f"http://127.0.0.1:{config.listen.port}"
        try:
            until(lambda: asked(url) == 503, seconds=60)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    lines = [json.loads(line) for line in said.splitlines()]
    assert any(url in line["message"] for line in lines)
    assert {"at", "level", "logger", "message"} <= set(lines[0])
    for secret in (PROMPT, *KEYS.values()):
        assert secret not in said


def asked(url: str) -> int:
    """Status of a chat request; 0 while nobody listens."""
    body = {"model": "large", "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"authorization": f"Bearer {KEYS['caller']}"}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code
    except OSError:
        return 0
