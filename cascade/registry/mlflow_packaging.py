"""A proxy as an MLflow model folder. Knows MLflow's format; uploads nothing.

The folder holds the artifact byte for byte and ``mlflow_entry.py``, five lines of code that MLflow
runs when somebody loads the model ("models from code"): no pickle. What it runs is the *installed*
Cascade (pinned in requirements.txt) with an embedder that ``cascade models pull`` has fetched.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cascade.registry.mlflow_connection import quiet

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

FOLDER: Final = "proxy"
ARTIFACT_PATH: Final = f"artifacts/{FOLDER}"  # of the artifact, inside the model folder
ENTRY: Final = Path(__file__).with_name("mlflow_entry.py")


def package(folder: Path, work: Path) -> Path:
    """Write the MLflow model of a proxy folder below ``work``; where it is."""
    with quiet():
        from mlflow.pyfunc import save_model

        named = work / FOLDER  # MLflow keeps the last part of the path as the name
        shutil.copytree(folder, named)
        save_model(
            str(work / "model"),
            python_model=str(ENTRY),
            artifacts={FOLDER: str(named)},
            signature=_signature(),
            # given, because MLflow would otherwise run the model and ask PyPI
            pip_requirements=[f"cascade-router[train]=={version('cascade-router')}"],
            model_config={"models": "models"},
        )
    return work / "model"


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    outputs = [("string", "label"), ("double", "confidence"), ("string", "tier")]
    return ModelSignature(
        Schema([ColSpec("string", "text")]),
        Schema([ColSpec(*one) for one in [*outputs, ("string", "reason")]]),
    )
