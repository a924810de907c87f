"""``ServedProxy`` in the shape that ``mlflow.pyfunc`` calls. Knows data frames; decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas

from cascade.registry.mlflow_connection import quiet
from cascade.registry.mlflow_packaging import FOLDER
from cascade.registry.served import Outcome, ServedProxy

with quiet():  # MLflow warns of its own type hints while it is imported
    from mlflow.pyfunc.model import PythonModel, PythonModelContext


class ProxyModel(PythonModel):
    """What ``mlflow.pyfunc.load_model("models:/cascade.<task>@champion")`` opens.

    The embedder is looked for in the folder ``models`` that ``cascade models pull`` fills; hand in
    another one: ``load_model(uri, model_config={"models": "/path"})``.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the artifact that was logged with this file."""
        models = Path(context.model_config["models"])
        self.served = ServedProxy(Path(context.artifacts[FOLDER]), models)

    # a hint of a data frame is the one that MLflow neither enforces nor warns about
    def predict(
        self,
        context: PythonModelContext,
        model_input: pandas.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pandas.DataFrame:
        """For a frame with a column ``text``: ``label``, ``confidence``, ``tier``, ``reason``.

        ``tier`` is "proxy" where the proxy may answer alone and "escalate" elsewhere.
        """
        outcomes = self.served.outcomes(list(model_input["text"]))
        return pandas.DataFrame(outcomes, columns=Outcome._fields)
