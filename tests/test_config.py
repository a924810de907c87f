"""gateway.yaml: no key is accepted and then ignored, every mistake has a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.config import load_config
from cascade.errors import ConfigError

GOOD = """
version: 1
tiers:
  large: {model: qwen, engine: embedded, price: {input: 0.6}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.listen.loopback
    assert config.tiers.small is None
    assert (config.audit.rate, config.audit.floor) == (0.01, 0.002)


def test_environment_is_substituted(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "admin_key: ${SECRET}\n")
    assert load_config(path, {"SECRET": "s"}).admin_key == "s"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "colour: red\n", "unknown field `colour`"),
        (GOOD + "admin_key: ${SECRET}\n", "SECRET"),
        (GOOD + "listen: {host: 0.0.0.0}\n", "api_keys"),
        (GOOD + "audit: {rate: 0.1}\naudit: {rate: 0.2}\n", "line 6: 'audit' occurs twice"),
        (GOOD.replace("input", "inptu"), "unknown field `inptu`"),
        (GOOD.replace("0.6", "-1"), "price.input"),
        (GOOD.replace("engine: embedded", "engine: embedded, concurrency: 0"), "concurrency"),
        (GOOD + "poll_seconds: 0\n", "poll_seconds"),
        (GOOD + "listen: {port: 70000}\n", "port"),
        (GOOD + "listen: {host: no}\n", "`bool` - at `.*listen.host`: put it in quotes"),
        (GOOD + "audit: {rate: 0.001, floor: 0.01}\n", "floor"),
        ("version: 2\ntiers: {large: {model: m, engine: embedded}}\n", "version"),
        ("version: 1\ntiers: {large: {model: m}}\n", "replicas"),
        (
            "version: 1\ntiers: {large: {model: m, engine: embedded, replicas: [x]}}\n",
            "remove `replicas`",
        ),
        ("version: 1\n", "tiers"),
        ("a: [", "not YAML"),
        ("", "object"),
    ],
)
def test_every_mistake_has_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(write(tmp_path, text), {})


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("key", ["api_keys: ['${EMPTY}']", "admin_key: ${EMPTY}"])
def test_an_empty_key_opens_nothing(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="a key is empty"):
        load_config(write(tmp_path, GOOD + key), {"EMPTY": ""})


def test_merged_and_odd_keys_are_not_repeated_ones(tmp_path: Path) -> None:
    """``<<`` may say a key that its own mapping overrides; what is no string is no field either."""
    merged = "audit: {<<: {rate: 0.5}, rate: 0.2}\n"
    assert load_config(write(tmp_path, GOOD + merged)).audit.rate == 0.2
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, GOOD + "{a: 1}: 2\n"))


def test_a_list_is_searched_for_variables(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "api_keys: ['${A}', b]\n")
    assert load_config(path, {"A": "one"}).api_keys == ("one", "b")
