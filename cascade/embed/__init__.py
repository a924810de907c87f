"""Texts to vectors: one protocol, several ways.

``load_embedder`` opens what ``cascade models pull`` or ``export`` left in the models folder. The
modules that need more than the base install (``bert``, ``export``, ``sentence``) are imported by
whoever needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cascade.embed.base import Embedder
from cascade.embed.card import read_card

__all__ = ["Embedder", "load_embedder"]


def load_embedder(
    name: str,
    models_dir: Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Embedder:
    """The embedder in ``models_dir / name``, after its checksums were verified.

    Raises
    ------
    ModelUnavailable
        It is not there; the message names the command that gets it.
    ChecksumMismatch
        Its files are not the ones its card promises.
    """
    folder = models_dir / name
    if read_card(folder).engine == "static":
        from cascade.embed.static import StaticEmbedder

        return StaticEmbedder(folder)
    from cascade.embed.onnx import OnnxEmbedder

    return OnnxEmbedder(folder, threads=threads, providers=providers)
