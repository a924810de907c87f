"""gateway.yaml: no key is accepted and then ignored, every mistake has a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.api_keys import digest_of, written
from cascade.config import ApiKey, load_config
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
        (GOOD + "colour: red\n", "yaml:5:1: colour: unknown key"),
        (GOOD + "admin_key: ${SECRET}\n", "SECRET"),
        (GOOD + "listen: {host: 0.0.0.0}\n", "api_keys"),
        (
            GOOD + "audit: {rate: 0.1}\naudit: {rate: 0.2}\n",
            "yaml:6:1: audit: occurs twice, first on line 5",
        ),
        (GOOD.replace("input", "inptu"), "yaml:4:50: .*inptu: unknown key: did you mean `input`"),
        (GOOD.replace("0.6", "-1"), "price.input"),
        (GOOD.replace("engine: embedded", "engine: embedded, concurrency: 0"), "concurrency"),
        (GOOD.replace("engine: embedded", "engine: embedded, queue_seconds: 0"), "queue_seconds"),
        (GOOD + "listen: {request_seconds: 0}\n", "request_seconds"),
        (GOOD + "poll_seconds: 0\n", "poll_seconds"),
        (GOOD + "log: xml\n", "log"),
        (GOOD + "tracing: {endpoint: 'collector:4318'}\n", "http://collector:4318"),
        (GOOD + "tracing: {content: true}\n", "content"),
        (GOOD + "listen: {port: 70000}\n", "port"),
        (
            GOOD + "listen: {host: no}\n",
            "yaml:5:10: listen.host: expected a text, .*: put it in quotes",
        ),
        (GOOD + "audit: {rate: 0.001, floor: 0.01}\n", "floor"),
        ("version: 2\ntiers: {large: {model: m, engine: embedded}}\n", "version"),
        ("version: 1\ntiers: {large: {model: m}}\n", "replicas"),
        (
            "version: 1\ntiers: {large: {model: m, engine: embedded, replicas: [x]}}\n",
            "remove `replicas`",
        ),
        ("version: 1\n", "tiers"),
        ("a: [", "not YAML"),
        ("", "expected keys and values"),
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


OUTSIDE = ["0.0.0.0", "::", "", "0", "10.0.0.5", "127.1", "localhost.example.org", "my-box"]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LocalHost"]


@pytest.mark.parametrize("host", OUTSIDE)
def test_whatever_can_be_reached_from_outside_needs_a_key(tmp_path: Path, host: str) -> None:
    listen = GOOD + f"listen: {{host: '{host}'}}\n"
    for keyless in (listen, listen + "api_keys: []\n", listen + "admin_key: only\n"):
        with pytest.raises(ConfigError, match="set `api_keys`"):
            load_config(write(tmp_path, keyless), {})
    assert load_config(write(tmp_path, listen + "api_keys: [one]\n")).listen.host == host


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    assert load_config(write(tmp_path, GOOD + f"listen: {{host: '{host}'}}\n")).listen.loopback


DIGEST = written(digest_of(b"secret"))
LONG = (
    f"api_keys: [${{A}}, '{DIGEST}', "
    "{name: acme, key: '${B}', tasks: [task/spam, large], rate: 60, spend: 2.5}]\n"
)


def test_keys_in_short_and_long_form(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + LONG.replace("${A}", "'${A}'"))
    plain, digest, entry = load_config(path, {"A": "one\n", "B": "two"}).callers
    assert plain.digest == digest_of(b"one") and plain.tenant == f"key-{plain.digest.hex()[:8]}"
    assert digest.digest == digest_of(b"secret")
    assert (plain.tasks, plain.rate, plain.spend) == (None, None, None)
    assert entry == ApiKey("two", "acme", ("task/spam", "large"), 60, 2.5)
    assert entry.tenant == "acme"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("api_keys: ['sha256:abc']", "64 hex digits.*cascade keys new"),
        (f"api_keys: ['{DIGEST[:-1].upper()}']", "64 hex digits"),
        (f"api_keys: [{{key: '{DIGEST}0'}}]", "64 hex digits"),
        (f"admin_key: '{DIGEST[:-1]}'", "64 hex digits"),
        ("api_keys: [{name: acme}]", "key"),
        ("api_keys: [{key: ' '}]", "a key is empty"),
        ("api_keys: [{key: a, colour: red}]", "colour: unknown key"),
        ("api_keys: [{key: a, name: a/b}]", "name"),
        ('api_keys: [{key: a, name: "acme\\n"}]', "name"),
        ("api_keys: [{key: a, tasks: []}]", "tasks: it may ask nothing"),
        ("api_keys: [{key: a, rate: 0}]", "rate"),
        ("api_keys: [{key: a, rate: 0.5}]", "rate"),
        ("api_keys: [{key: a, spend: 0}]", "spend"),
        ("api_keys: [{key: a, spend: .nan}]", "spend"),
        ("api_keys: [a, {key: a, name: b}]", "key .* is there twice"),
        (f"api_keys: [secret, '{DIGEST.upper()}']", "is there twice"),
        ("api_keys: [{key: a, name: acme}, {key: b, name: acme}]", "tenant acme is there twice"),
        ("api_keys: [a]\nadmin_key: a", "is there twice"),
        (f"api_keys: [secret]\nadmin_key: '{DIGEST}'", "is there twice"),
    ],
)
def test_every_mistake_about_keys_has_a_sentence(tmp_path: Path, keys: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        load_config(write(tmp_path, GOOD + keys + "\n"), {})
    assert "secret" not in str(raised.value)


def test_tracing_follows_opentelemetrys_own_variable(tmp_path: Path) -> None:
    variable = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4318"}
    assert load_config(write(tmp_path, GOOD), {}).tracing.endpoint is None
    assert load_config(write(tmp_path, GOOD), variable).tracing.endpoint == "http://elsewhere:4318"
    named = GOOD + "tracing: {endpoint: 'http://here:4318'}\n"
    assert load_config(write(tmp_path, named), variable).tracing.endpoint == "http://here:4318"
