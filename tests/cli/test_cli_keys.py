"""``cascade keys new``: what it prints opens the gateway, and what it leaves behind does not."""

from __future__ import annotations

import json

import pytest
import yaml

from cascade.cli.app import main
from cascade.config import ApiKey
from cascade.gateway.keys import Keys
from tests.cli.homes import Home, invoke


def printed(*arguments: str) -> tuple[str, object]:
    """The key, and the item of the list that the lines make when they are pasted."""
    said = invoke("keys", "new", *arguments).stdout
    key, _, lines = said.partition("\n")
    [entry] = yaml.safe_load(lines[lines.index("api_keys:") :])["api_keys"]
    assert said.count(key) == 1
    return key, entry


def test_the_digest_accepts_the_key_and_is_none_itself() -> None:
    key, entry = printed()
    assert isinstance(entry, str) and entry.startswith("sha256:")
    kept = Keys([entry])
    assert kept.hold(key)
    assert not kept.hold(entry) and not kept.hold(entry.removeprefix("sha256:"))


def test_no_two_keys_are_alike() -> None:
    assert len({printed()[0] for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["acme", "team-1.eu_west", "no", "1e3"])
def test_the_line_names_the_tenant(name: str) -> None:
    key, entry = printed("--name", name)
    assert isinstance(entry, dict)
    assert ApiKey(**entry).tenant == name
    assert Keys([entry["key"]]).hold(key)


@pytest.mark.parametrize("name", ["", "a b", "acme/zeta", "a\n", "x" * 65, "é"])
def test_a_name_that_no_log_line_should_hold(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cascade", "keys", "new", "--name", name])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    told = capsys.readouterr()
    assert "tenant's name" in told.err and "sk-" not in told.out + told.err


def test_json_is_one_document() -> None:
    found = json.loads(invoke("keys", "new", "--name", "acme", "--json").stdout)
    assert found["entry"]["name"] == "acme"
    assert Keys([found["entry"]["key"]]).hold(found["key"])


def test_validate_takes_the_line(home: Home) -> None:
    _, entry = printed("--name", "acme")
    home.change(home.config, api_keys=[entry], listen={"host": "0.0.0.0"})
    assert invoke("validate", "-c", home.config).exit_code == 0
