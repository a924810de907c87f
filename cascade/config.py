"""gateway.yaml as a frozen value. Knows the file's shape; starts and opens nothing."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cascade.api_keys import read_digest
from cascade.documents import Mistaken, open_document
from cascade.errors import ConfigError
from cascade.shapes import KeyPath, Misfit, Strict
from cascade.types import Price

TASKS, MODELS = "training/recipes", "models"

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
TenantName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]


class LanguageModel(Strict, frozen=True):
    """An LLM tier: an embedded engine, or any OpenAI-compatible endpoint.

    model : the embedded model's name in ``models/manifest.yaml``, or the endpoint's model id.
    replicas : base URLs ending in ``/v1``; asked in turn, the next one when one fails.
    queue_seconds : a caller by the tier's name whose turn is further away than that gets a 429.
    """

    model: str
    engine: Literal["embedded", "openai"] = "openai"
    replicas: tuple[str, ...] = ()
    api_key: str | None = None
    price: Price = Price()
    timeout_seconds: Seconds = 60.0
    attempts: Count = 3
    concurrency: Count = 4
    queue_seconds: Seconds = 10.0

    def misfits(self) -> Iterator[Misfit]:
        """An engine and addresses belong to each other."""
        if self.engine == "openai" and not self.replicas:
            yield Misfit(
                ("model",),
                'an openai tier needs `replicas: ["http://host:8000/v1"]`',
                beside=("replicas", "engine"),
            )
        if self.engine == "embedded" and self.replicas:
            message = "an embedded tier starts its own engine: remove `replicas`"
            yield Misfit(("replicas",), message, beside=("engine",))


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

    def misfits(self) -> Iterator[Misfit]:
        """Less than half is no agreement, and nothing is sure."""
        if not 0.5 <= self.target < 1:
            yield Misfit(("target",), f"0.5 <= target < 1, got {self.target}")
        if not 0 < self.delta < 0.5:
            yield Misfit(("delta",), f"0 < delta < 0.5, got {self.delta}")


class Audit(Strict, frozen=True):
    """Mean and least chance that an answer below the teacher is checked with the teacher."""

    rate: float = 0.01
    floor: float = 0.002

    def misfits(self) -> Iterator[Misfit]:
        """The least of several chances is at most their mean."""
        if not 0 < self.floor <= self.rate <= 1:
            message = f"0 < floor <= rate <= 1, got floor {self.floor} and rate {self.rate}"
            yield Misfit(("floor",), message, beside=("rate",))


class Listen(Strict, frozen=True):
    """Where the gateway listens; anything but loopback needs ``api_keys``.

    request_seconds : a whole request must arrive within them, and a caller who takes nothing of its
        answer for so long loses the connection.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    body_bytes: Count = 4 * 1024 * 1024
    request_seconds: Seconds = 60.0
    drain_seconds: Seconds = 30.0

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. Of names, ``localhost`` alone says so."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


class ApiKey(Strict, frozen=True):
    """Somebody who may ask. In ``api_keys``, a bare string is a key and nothing more.

    key : ``${NAME}``, or ``sha256:<hex>`` as ``cascade keys new`` prints it.
    name : the tenant in the log of decisions; by default made of the digest.
    tasks : what its ``model`` may be, in the words of ``GET /v1/models``; by default everything.
    rate : requests a minute. spend : dollars a day, which begins at midnight UTC.
    """

    key: str
    name: TenantName | None = None
    tasks: tuple[str, ...] | None = None
    rate: Count | None = None
    spend: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def misfits(self) -> Iterator[Misfit]:
        """The key is one, or a whole digest, and opens something."""
        try:
            read_digest(self.key)
        except ValueError as exc:
            yield Misfit(("key",), str(exc))
        if self.tasks == ():
            message = "it may ask nothing: name a task or a tier, or leave `tasks` out for all"
            yield Misfit(("tasks",), message)

    @property
    def digest(self) -> bytes:
        """What is compared with the digest of a caller's key."""
        return read_digest(self.key)

    @property
    def tenant(self) -> str:
        """Who asks with this key."""
        return self.name or f"key-{self.digest.hex()[:8]}"


LogForm = Literal["text", "json"]
"""Of the log; without one, text on a terminal and JSON elsewhere."""


class Tracing(Strict, frozen=True):
    """OpenTelemetry; off without an endpoint.

    endpoint : OTLP over HTTP, such as ``http://collector:4318``.
    trace_content : send prompts and answers along.
    """

    endpoint: str | None = None
    trace_content: bool = False

    def misfits(self) -> Iterator[Misfit]:
        """An address, and no promise without one."""
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            yield Misfit(("endpoint",), "write http://collector:4318")


class GatewayConfig(Strict, frozen=True):
    """The whole file. ``tasks`` is a folder of recipes, each of which becomes ``task/<name>``."""

    version: Literal[1]
    tiers: Tiers
    audit: Audit = Audit()
    tasks: str = TASKS
    store: str = "sqlite:///data/cascade.db"
    registry: str = "sqlite:///data/mlflow.db"
    models: str = MODELS
    listen: Listen = Listen()
    api_keys: tuple[ApiKey | str, ...] = ()
    admin_key: str | None = None
    poll_seconds: Seconds = 5.0
    tracing: Tracing = Tracing()
    log: LogForm | None = None

    def misfits(self) -> Iterator[Misfit]:
        """Who can reach the gateway needs a key, and a key is one and not empty."""
        if not self.listen.loopback and not self.api_keys:
            message = f"{self.listen.host} can be reached from outside: set `api_keys`"
            yield Misfit(("listen", "host"), message, beside=("api_keys",))
        unreadable = [*self._unreadable_keys()]
        yield from unreadable or self._twins()

    def _unreadable_keys(self) -> Iterator[Misfit]:
        bare: dict[KeyPath, str] = {
            ("api_keys", place): one for place, one in enumerate(self.api_keys) if type(one) is str
        }
        if self.admin_key is not None:
            bare["admin_key",] = self.admin_key
        for path, key in bare.items():
            try:
                read_digest(key)
            except ValueError as exc:
                yield Misfit(path, str(exc))

    def _twins(self) -> Iterator[Misfit]:
        """A tenant has one key, so one limit; and no caller's key opens the admin pages."""
        admin = [] if self.admin_key is None else [read_digest(self.admin_key).hex()]
        digests = [one.digest.hex() for one in self.callers]
        tenants = [one.tenant for one in self.callers]
        for what, found in {"tenant": tenants, "key": digests + admin}.items():
            for twin in dict.fromkeys(one for one in found if found.count(one) > 1):
                message = f"{what} {twin[:64]} is there twice in `api_keys` and `admin_key`"
                yield Misfit(("api_keys",), message)

    @property
    def callers(self) -> tuple[ApiKey, ...]:
        """``api_keys``, each in its long form."""
        return tuple(ApiKey(one) if isinstance(one, str) else one for one in self.api_keys)


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> GatewayConfig:
    """Read gateway.yaml.

    ``CASCADE_MODELS`` and ``MLFLOW_TRACKING_URI`` in the environment override the file.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, has an unknown key, a wrong type or an unset ``${NAME}``.
    """
    try:
        config = open_document(path, environment).read(GatewayConfig)
    except Mistaken as exc:
        raise ConfigError(str(exc)) from exc
    return overridden(config, environment)


def _traced(tracing: Tracing, environment: Mapping[str, str]) -> Tracing:
    """OpenTelemetry's own variable turns it on too; an endpoint in the file goes before it."""
    endpoint = tracing.endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None
    return msgspec.structs.replace(tracing, endpoint=endpoint)


def overridden(config: GatewayConfig, environment: Mapping[str, str]) -> GatewayConfig:
    """The configuration with what the environment says instead."""
    return msgspec.structs.replace(
        config,
        models=environment.get("CASCADE_MODELS") or config.models,
        registry=environment.get("MLFLOW_TRACKING_URI") or config.registry,
        tracing=_traced(config.tracing, environment),
    )
