"""Commands that make, judge and move proxies, on a small task with a real embedder and engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade.errors import (
    BudgetExceeded,
    CertificateError,
    PromotionRefused,
    RecipeError,
    RegistryError,
    TierUnavailable,
)
from cascade.registry.folder import FolderRegistry
from tests.cli.homes import Home, LoopbackServer, invoke
from tests.mlflow_server import free_port


def test_from_labels_to_a_champion_step_by_step(home: Home, engine: LoopbackServer) -> None:
    before = len(engine.bodies)
    here = ("-c", home.config, "--json")
    planned = json.loads(invoke("label", home.recipe, *here, "--dry-run").stdout)
    assert planned["labels_to_buy"] == 250 and len(engine.bodies) == before
    bought = json.loads(invoke("label", home.recipe, *here).stdout)
    assert (bought["labels"], bought["unreadable"]) == (100, 0)
    assert len(engine.bodies) == before + 200
    again = json.loads(invoke("train", home.recipe, *here, "--dry-run").stdout)
    assert (again["labels_there"], again["labels_to_buy"]) == (100, 150)
    trained = json.loads(invoke("train", home.recipe, *here).stdout)
    assert trained["version"] == "1" and trained["training_labels"] == 100
    assert len(engine.bodies) == before + 200
    certified = json.loads(invoke("certify", home.recipe, *here).stdout)
    assert certified["version"] == "2" and certified["certificate.bound"] == 0.85
    assert certified["target"] == 0.85 and certified["thresholds"].keys() == {"proxy", "small"}
    asked = len(engine.bodies)
    promoted = json.loads(invoke("promote", home.recipe, *here).stdout)
    assert promoted["version"] == "2" and len(promoted["promotion"]) == 4
    assert len(engine.bodies) == asked
    assert json.loads(invoke("status", *here).stdout) == {
        "mood": {"champion": "2", "challenger": "2"}
    }


def test_people_get_lines_and_tables(promoted: Home) -> None:
    shown = invoke("train", promoted.recipe, "-c", promoted.config, "--promote").stdout
    assert "version: 1\n" in shown and "answerer: " in shown
    table = invoke("status", "-c", promoted.config).stdout
    assert "mood" in table and "champion" in table


def test_status_of_a_task_without_champion(home: Home) -> None:
    assert invoke("status", "-c", home.config).stdout.count("-") > 1


def test_evaluate_is_json(promoted: Home) -> None:
    found = json.loads(invoke("evaluate", promoted.recipe, "-c", promoted.config, "--json").stdout)
    assert found["rows"] == 60
    assert found["agreement"] > 0.8 and found["gold_accuracy"].keys() == {"teacher", "cascade"}


def test_certificate_is_shown_in_words(promoted: Home) -> None:
    shown = invoke("certificate", "show", "mood", "-c", promoted.config).stdout
    assert "85" in shown and "agree" in shown


def test_shown_certificate_verifies_and_a_changed_one_does_not(
    promoted: Home, tmp_path: Path
) -> None:
    shown = invoke("certificate", "show", "mood", "-c", promoted.config, "--json").stdout
    file = tmp_path / "mood.json"
    file.write_text(shown)
    verified = invoke("certificate", "verify", file)
    assert verified.exit_code == 0
    assert verified.stdout == "valid for stream: agreement >= 0.850, delta 0.1\n"
    forged = {**json.loads(shown), "bound": 0.99}
    file.write_text(json.dumps(forged))
    assert invoke("certificate", "verify", file).exit_code == 1
    draws = json.loads(shown)
    draws["evidence"]["draws"][0]["outcome"] = draws["evidence"]["draws"][1]["outcome"][::-1]
    file.write_text(json.dumps(draws))
    refused = invoke("certificate", "verify", file)
    assert isinstance(refused.exception, CertificateError)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\x00"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "some.json"
    if content is not None:
        file.write_bytes(content)
    refused = invoke("certificate", "verify", file)
    assert isinstance(refused.exception, CertificateError)


def test_champion_without_certificate(home: Home) -> None:
    invoke("train", home.recipe, "-c", home.config)
    FolderRegistry(home.folder / "registry").promote("mood", "1")
    refused = invoke("certificate", "show", "mood", "-c", home.config)
    assert isinstance(refused.exception, CertificateError)
    assert "certify it" in str(refused.exception)


def test_rollback_gives_the_place_back(home: Home) -> None:
    invoke("train", home.recipe, "-c", home.config, "--promote")
    home.change(home.recipe, seed=1)
    invoke("train", home.recipe, "-c", home.config, "--promote")
    assert FolderRegistry(home.folder / "registry").champion("mood") == "2"
    done = invoke("rollback", "mood", "-c", home.config)
    assert done.stdout == "mood: champion is version 1 again\n"
    assert FolderRegistry(home.folder / "registry").champion("mood") == "1"
    assert isinstance(invoke("rollback", "mood", "-c", home.config).exception, RegistryError)


def test_certify_without_proof_fails_and_says_so(home: Home) -> None:
    home.change(home.recipe, guarantee={"target": 0.99, "delta": 0.01})
    refused = invoke("certify", home.recipe, "-c", home.config, "--json")
    assert refused.exit_code == 1
    assert "no rung reached 0.990 agreement" in str(refused.exception)
    assert json.loads(refused.stdout)["version"] == "1"
    assert isinstance(invoke("promote", home.recipe, "-c", home.config).exception, PromotionRefused)


def test_every_label_may_be_certified_by_itself(home: Home, tmp_path: Path) -> None:
    guarantee = {"target": 0.8, "delta": 0.1, "per_class": True}
    buy = {"train": 100, "certify": 300, "evaluate": 60}
    home.change(home.recipe, kind="classify", labels=["yes", "no"], guarantee=guarantee, buy=buy)
    here = ("-c", home.config)
    certified = json.loads(invoke("train", home.recipe, *here, "--promote", "--json").stdout)
    assert sorted(certified["certified_labels"]) == ["no", "yes"]
    assert certified["left_to_teacher"] == []
    assert "**each** of these labels holds" in invoke("certificate", "show", "mood", *here).stdout
    file = tmp_path / "mood.json"
    file.write_text(invoke("certificate", "show", "mood", *here, "--json").stdout)
    verified = invoke("certificate", "verify", file).stdout
    assert verified == "valid for stream: agreement by label >= 0.800, delta 0.1\n"


def test_limit_is_kept(home: Home, engine: LoopbackServer) -> None:
    before = len(engine.bodies)
    refused = invoke("label", home.recipe, "-c", home.config, "--limit-dollars", "0.0005")
    assert isinstance(refused.exception, BudgetExceeded)
    assert 0 < len(engine.bodies) - before <= 12  # 42e-6 dollars each


def test_teacher_that_is_down(home: Home) -> None:
    tier = {
        "model": "big-model",
        "engine": "openai",
        "replicas": [f"http://127.0.0.1:{free_port()}/v1"],
        "attempts": 1,
        "timeout_seconds": 5.0,
    }
    home.change(home.config, tiers={"large": tier})
    refused = invoke("label", home.recipe, "-c", home.config)
    assert isinstance(refused.exception, TierUnavailable)
    assert "big-model" in str(refused.exception)


def test_missing_table_names_itself(home: Home) -> None:
    (home.folder / "t.csv").unlink()
    refused = invoke("train", home.recipe, "-c", home.config)
    assert isinstance(refused.exception, RecipeError)
    assert "t.csv does not exist" in str(refused.exception)
