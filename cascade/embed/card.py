"""embedder.json: what an embedder's folder holds. Knows no model, only names and checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from cascade.artifacts import digest, publish_bytes, sha256_of
from cascade.errors import ModelError, ModelUnavailable

CARD = "embedder.json"

TEXT_TREATMENT = "1"
"""Version of ``window.py``. Raise it when the same text would give other tokens: every proxy then
stops being valid, falls through with ``identity_mismatch`` and has to be trained again."""


class EmbedderCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An embedder's folder in one page.

    max_batch : most texts the graph is given at once; 1 where a row would depend on the others.
    special_tokens : whether the tokenizer adds its own around a text.
    files : sha256 of every other file of the folder.
    """

    format: Literal[1] = 1
    name: str
    engine: Literal["onnx", "static"]
    dim: int
    max_tokens: int
    max_batch: int
    special_tokens: bool
    files: dict[str, str]

    @property
    def version(self) -> str:
        """Changes whenever the vectors could: other bytes, another window, another treatment."""
        bytes_of = [f"{name}={sha256}" for name, sha256 in sorted(self.files.items())]
        return digest(TEXT_TREATMENT, str(self.max_tokens), str(self.special_tokens), *bytes_of)


def sha256s(folder: Path) -> dict[str, str]:
    """The sha256 of each file in an embedder's folder, the card itself aside."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != CARD}


def read_card(folder: Path) -> EmbedderCard:
    """The card of an embedder's folder.

    Raises
    ------
    ModelUnavailable
        There is no such folder or no card in it.
    ModelError
        The card cannot be understood.
    """
    try:
        return msgspec.json.decode((folder / CARD).read_bytes(), type=EmbedderCard)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelUnavailable(
            f"no embedder in {folder}: run 'cascade models pull {folder.name}'"
        ) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ModelError(
            f"{folder / CARD} is damaged ({exc}): delete {folder} and pull again"
        ) from exc


def write_card(folder: Path, card: EmbedderCard) -> None:
    """Write the card. Written last: its existence means that the folder is complete."""
    publish_bytes(folder / CARD, msgspec.json.format(msgspec.json.encode(card), indent=2))
