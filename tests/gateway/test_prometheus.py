"""Rules and dashboard: promtool accepts them, a real Prometheus answers every query of theirs."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade import config
from cascade.certify import Certificate
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.standing import Standing
from cascade.types import Answer, Query, Reply, Usage
from tests.mlflow_server import free_port

from .conftest import Build, House, lane_of, send, typed, until

SERVING = Path(__file__).parents[2] / "serving"
RULES = SERVING / "prometheus" / "cascade.rules.yml"
OPERATIONS = SERVING.parent / "docs" / "operations.md"
BOARD = json.loads((SERVING / "grafana" / "cascade.json").read_text())
TESTS = sorted(RULES.parent.glob("*.test.yml"))

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed: apt-get install prometheus",
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board_queries() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)


def test_every_alert_is_in_the_operations_manual() -> None:
    text = OPERATIONS.read_text()
    assert [rule["alert"] for rule in rules() if f"| `{rule['alert']}` |" not in text] == []


def test_every_metric_exists(certificate: Certificate) -> None:
    metrics = Metrics()
    standing = Standing(Lanes({"mood": lane_of(certificate, metrics)}), dict)
    metrics.registry.register(standing)
    families = metrics.registry.collect()
    suffixes = {"counter": ("_total",), "histogram": ("_bucket",), "gauge": ("",)}
    known = {one.name + suffix for one in families for suffix in suffixes[one.type]}
    expressions = [rule["expr"] for rule in rules()] + board_queries()
    used = set(re.findall(r"\bcascade_\w+", " ".join(expressions)))
    assert len(used) > 20 and used - known == set()


def test_the_first_loss_of_all_is_an_increase() -> None:
    """A series that begins at 1 has not increased: what must never happen has to be 0 before."""
    page = Metrics().page().decode()
    assert 'cascade_dropped_total{what="decision"} 0.0' in page
    assert 'cascade_dropped_total{what="audit"} 0.0' in page
    assert 'cascade_config_reloads_total{result="refused"} 0.0' in page


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "warning"}
        assert rule["annotations"].keys() == {"summary", "action"}


def test_every_alert_is_seen_firing_and_silent() -> None:
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules()}


def test_panels_do_not_overlap() -> None:
    taken = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


@needs_prometheus
def test_promtool_accepts_rules_and_configuration() -> None:
    for done in (
        promtool("check", "rules", RULES),
        promtool("check", "config", RULES.with_name("prometheus.yml")),
        promtool("test", "rules", *TESTS),
    ):
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # a bound that is low because little was audited is no news
        (">= min by (task) (cascade_target)", ">= 0"),
        # a gateway that answers nothing but errors has no requests to divide by
        ("or vector(0)", ""),
        # a task without a single audit has no series to compare with
        ("unless\n", "and on (task)\n"),
        # an alarm is at 1/delta, wherever delta is
        ("* max by (task) (cascade_delta) > 0.25", "> 5"),
    ],
)
def test_the_wrong_rule_is_caught(tmp_path: Path, right: str, wrong: str) -> None:
    text = RULES.read_text()
    assert right in text
    (tmp_path / RULES.name).write_text(text.replace(right, wrong))
    copies = [shutil.copy(path, tmp_path) for path in TESTS]
    assert promtool("test", "rules", *copies).returncode != 0


class Prometheus:
    """A real one, that scrapes one gateway five times a second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/{path}?{query}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def ask(self, expression: str) -> list[Any]:
        found: list[Any] = self.get("api/v1/query", query=expression)["result"]
        return found

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    settings = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    settings["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    shutil.copy(RULES, folder)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = Prometheus(port)
        until(found.ready, seconds=30)
        yield found
    finally:
        process.terminate()
        process.wait(20)


class Undecided:
    """A teacher whose second thoughts differ: half of its audits disagree."""

    name = "large"

    def __init__(self) -> None:
        self._asked = 0

    async def answer(self, queries: list[Query]) -> list[Reply]:
        self._asked += len(queries)
        label = "yes" if self._asked % 2 else "no"
        usage = Usage(prompt_tokens=9, cached_tokens=4, output_tokens=1, seconds=0.01, dollars=1e-4)
        return [Answer(self.name, label, 1.0, usage) for _ in queries]


async def traffic(house: House) -> None:
    """Every tier, every kind of answer, and mistakes of both sides."""
    chat = f"{house.v1}/chat/completions"
    for text in ("easy", "middle", "hard"):
        assert (await send(chat, typed(text))).status == 200
    message = {
        "model": "large",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    assert (await send(chat, message)).status == 200
    assert (await send(chat, {**message, "stream": True})).status == 200
    house.engine.status = 500
    assert (await send(chat, message)).status == 503
    house.engine.status = 200


@needs_prometheus
@pytest.mark.slow
def test_a_real_prometheus_answers_every_query(
    open_house: Build, certificate: Certificate, tmp_path: Path
) -> None:
    metrics = Metrics()
    lanes = Lanes({"mood": lane_of(certificate, metrics, large=Undecided())})
    everything = config.Audit(rate=1.0, floor=1.0)
    with (
        open_house(lanes=lanes, metrics=metrics, audit=everything) as house,
        prometheus(tmp_path, house.url.removeprefix("http://")) as server,
    ):
        asyncio.run(traffic(house))
        until(lambda: server.ask("cascade_audit_total > 0"), seconds=20)
        asyncio.run(traffic(house))  # a rate needs two looks at a series
        until(lambda: server.ask("increase(cascade_errors_total[1m]) > 0"), seconds=20)
        silent = [query for query in board_queries() if not server.ask(concrete(query))]
        assert silent == []
        until(lambda: all(rule["health"] == "ok" for rule in loaded(server)), seconds=20)
        assert {rule["name"] for rule in loaded(server)} == {rule["alert"] for rule in rules()}
        [tiers] = server.ask("count(cascade_tier_up == 1)")
        assert tiers["value"][1] == "2"


def loaded(server: Prometheus) -> list[Any]:
    return [rule for group in server.get("api/v1/rules")["groups"] for rule in group["rules"]]


def concrete(expression: str) -> str:
    """A dashboard's query with Grafana's variables filled in."""
    values = {"$__rate_interval": "1m", "$__range": "1h", "$task": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


async def test_a_demotion_shows_at_the_next_scrape(house: House) -> None:
    assert house.metric("in_use", task="mood", reason="") == 1
    assert house.metric("target", task="mood") == 0.9
    house.lanes.demote("mood", "odd answers")
    assert (
        house.services.metrics.registry.get_sample_value(
            "cascade_in_use", {"task": "mood", "reason": ""}
        )
        is None
    )
    page = (await send(f"{house.url}/metrics", method="GET")).text
    assert 'cascade_in_use{reason="demoted",task="mood"} 0.0' in page
    assert 'cascade_tier_up{tier="large"} 1.0' in page


async def test_a_tier_that_is_down_shows(open_house: Build) -> None:
    with open_house(address="http://127.0.0.1:1/v1") as house:
        page = (await send(f"{house.url}/metrics", method="GET")).text
        assert 'cascade_tier_up{tier="large"} 0.0' in page
