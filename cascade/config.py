"""gateway.yaml as a frozen value. Knows the file's shape; starts and opens nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from cascade.errors import ConfigError
from cascade.types import Price

ENVIRONMENT = re.compile(r"\$\{(\w+)\}")

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file: immutable, and an unknown key is an error."""


class LanguageModel(Strict, frozen=True):
    """An LLM tier: an embedded engine, or any OpenAI-compatible endpoint.

    model : the embedded model's name in ``models/manifest.yaml``, or the endpoint's model id.
    replicas : base URLs ending in ``/v1``; asked in turn, the next one when one fails.
    """

    model: str
    engine: Literal["embedded", "openai"] = "openai"
    replicas: tuple[str, ...] = ()
    api_key: str | None = None
    price: Price = Price()
    timeout_seconds: Seconds = 60.0
    attempts: Count = 3
    concurrency: Count = 4

    def __post_init__(self) -> None:
        if self.engine == "openai" and not self.replicas:
            raise ValueError('an openai tier needs `replicas: ["http://host:8000/v1"]`')
        if self.engine == "embedded" and self.replicas:
            raise ValueError("an embedded tier starts its own engine: remove `replicas`")


class ProxyTier(Strict, frozen=True):
    """The trained tier.

    threads : cores of ONNX Runtime for one batch.
    providers : ONNX Runtime's execution providers for the embedder, first choice first. One that is
        not there is logged, and the CPU serves.
    """

    threads: Count = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


class Tiers(Strict, frozen=True):
    """Cheapest first; the last one is the teacher."""

    large: LanguageModel
    small: LanguageModel | None = None
    proxy: ProxyTier = ProxyTier()


class Guarantee(Strict, frozen=True):
    """What a certificate must claim: agreement >= target, wrong with chance at most delta.

    per_class : of every label that is given below the teacher, by itself; else of all answers.
    """

    target: float = 0.95
    delta: float = 0.05
    per_class: bool = False

    def __post_init__(self) -> None:
        if not (0.5 <= self.target < 1 and 0 < self.delta < 0.5):
            raise ValueError("0.5 <= target < 1 and 0 < delta < 0.5")


class Audit(Strict, frozen=True):
    """Mean and least chance that an answer below the teacher is checked with the teacher."""

    rate: float = 0.01
    floor: float = 0.002

    def __post_init__(self) -> None:
        if not 0 < self.floor <= self.rate <= 1:
            raise ValueError("0 < floor <= rate <= 1")


class Listen(Strict, frozen=True):
    """Where the gateway listens; anything but loopback needs ``api_keys``."""

    host: str = "127.0.0.1"
    port: Port = 8080
    body_bytes: Count = 4 * 1024 * 1024
    drain_seconds: Seconds = 30.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("127.0.0.1", "localhost", "::1")


class GatewayConfig(Strict, frozen=True):
    """The whole file. ``tasks`` is a folder of recipes, each of which becomes ``task/<name>``."""

    version: Literal[1]
    tiers: Tiers
    audit: Audit = Audit()
    tasks: str = "training/recipes"
    store: str = "sqlite:///data/cascade.db"
    registry: str = "sqlite:///data/mlflow.db"
    models: str = "models"
    listen: Listen = Listen()
    api_keys: tuple[str, ...] = ()
    admin_key: str | None = None
    poll_seconds: Seconds = 5.0

    def __post_init__(self) -> None:
        if not self.listen.loopback and not self.api_keys:
            raise ValueError(
                f"listen.host {self.listen.host} can be reached from outside: set `api_keys`"
            )
        keys = [*self.api_keys, *([] if self.admin_key is None else [self.admin_key])]
        if not all(key.strip() for key in keys):  # "authorization: Bearer " would open the door
            raise ValueError("a key is empty: is its environment variable filled in?")


Shape = TypeVar("Shape", bound=Strict)


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> GatewayConfig:
    """Read gateway.yaml.

    ``CASCADE_MODELS`` and ``MLFLOW_TRACKING_URI`` in the environment override the file.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, has an unknown key, a wrong type or an unset ``${NAME}``.
    """
    try:
        config = read_yaml(path, GatewayConfig, environment)
    except ValueError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    return msgspec.structs.replace(
        config,
        models=environment.get("CASCADE_MODELS") or config.models,
        registry=environment.get("MLFLOW_TRACKING_URI") or config.registry,
    )


def read_yaml(path: Path, shape: type[Shape], environment: Mapping[str, str]) -> Shape:
    """A YAML file as ``shape``, with every ``${NAME}`` replaced from ``environment``.

    Raises
    ------
    ValueError
        One sentence that says what is wrong and where.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeys)
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ValueError(f"is not YAML: {exc}") from exc
    try:
        return msgspec.convert(_substitute(raw, environment), shape)
    except msgspec.ValidationError as exc:
        quote = ": put it in quotes, YAML reads a bare yes, no, on or off as true or false"
        raise ValueError(f"{exc}{quote if 'got `bool`' in str(exc) else ''}") from exc


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may occur once: PyYAML itself keeps the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; ``ValueError`` for a repeated key."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} occurs twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def _substitute(value: Any, environment: Mapping[str, str]) -> Any:
    """Replace ``${NAME}`` in every string of a YAML tree."""
    if isinstance(value, str):
        return ENVIRONMENT.sub(lambda found: _variable(found[1], environment), value)
    if isinstance(value, dict):
        return {key: _substitute(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, environment) for item in value]
    return value


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise ValueError(f"${{{name}}} is not set in the environment")
    return environment[name]
