"""Which registry a URI means. Knows the schemes; imports a registry only when it is asked for."""

from __future__ import annotations

from pathlib import Path

from cascade.registry.base import Registry


def open_registry(uri: str) -> Registry:
    """The registry at ``uri``; connects at its first use, so it may be down now.

    Parameters
    ----------
    uri : an MLflow URI (``http://...``, ``sqlite:///...``, ``postgresql://...``), or the path of a
        folder for a registry of plain files.

    Raises
    ------
    MissingExtra
        An MLflow URI, and MLflow is not installed.

    >>> open_registry("data/registry").champion("spam")
    """
    if "://" not in uri:
        from cascade.registry.folder import FolderRegistry

        return FolderRegistry(Path(uri))
    from cascade.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(uri)
